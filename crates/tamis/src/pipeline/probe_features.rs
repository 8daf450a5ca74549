//! The probe's features of every fold, and its strength and temperature on them.

use std::sync::Arc;

use crate::{
    Result,
    budget::{Limit, random_rows},
    data::{Dataset, Split},
    embed::Embedded,
    metrics::{Metric, MetricKind, row_losses},
    pipeline::{
        context::Context,
        embed::{SplitVectors, Vectors},
    },
    scorer::ridge::{
        probe::{Probe, ProbeSettings},
        probe_data::ProbeData,
        projection::{Projection, WIDTH},
        regression::Model,
        tune::{Tuning, tune},
    },
};

/// Where the probe's features come from.
#[derive(Clone, Copy)]
pub(crate) enum Features<'a> {
    /// The embedder's vectors.
    Embedded(&'a SplitVectors),
    /// The features of a model that was fine-tuned on a part of the pool.
    FineTuned(&'a SplitVectors),
}

/// The probe's features of every fold.
pub(crate) struct ProbeFolds {
    pub(crate) train: Arc<ProbeData>,
    pub(crate) reward: Arc<ProbeData>,
    pub(crate) confirm: ProbeData,
    pub(crate) test: Option<ProbeData>,
}

impl ProbeFolds {
    pub(crate) fn new(context: Context<'_>, features: Features<'_>) -> Result<Self> {
        let (dataset, folds) = (context.dataset, context.folds);
        context.stages.run("design", None, || {
            let (kind, labels) = (dataset.task.kind, dataset.task.labels.len());
            let (projection, vectors) = match features {
                Features::Embedded(vectors) => {
                    let seed = context.settings.seed.derive("projection");
                    (Projection::fit(&vectors.train, kind, labels, WIDTH, seed)?, vectors)
                }
                Features::FineTuned(vectors) => (Projection::fit_adapted(&vectors.train, kind, labels)?, vectors),
            };
            let data = |vectors: &Embedded, split: &Split| projection.apply(vectors, &split.targets());
            let validation = data(&vectors.validation, &dataset.validation)?;
            let test = vectors.test.as_ref().zip(dataset.test.as_ref());
            Ok(Self {
                train: Arc::new(data(&vectors.train, &dataset.train)?),
                reward: Arc::new(validation.select(&folds.reward)),
                confirm: validation.select(&folds.confirm),
                test: test.map(|(vectors, split)| data(vectors, split)).transpose()?,
            })
        })
    }

    /// The probe's ridge strength and temperature for training sets of `size` rows of the pool.
    pub(crate) fn tuning(&self, context: Context<'_>, size: usize) -> Result<Tuning> {
        let (pool, seed) = (&context.dataset.pool, context.settings.seed);
        tune(
            &self.train,
            pool,
            size,
            &self.reward,
            seed.derive("tune"),
            context.monitor(),
        )
    }

    /// The loss of every training row under a probe that was trained on the whole pool, shape `(examples,)`.
    pub(crate) fn losses(&self, dataset: &Dataset, at_everything: &Tuning) -> Result<Vec<f32>> {
        let model = Model::fit(&self.train, &dataset.pool, at_everything.ridge)?;
        let temperature = at_everything.temperature_for(Metric::soft(MetricKind::LogLoss));
        let probabilities = model.probabilities(&self.train, temperature);
        Ok(row_losses(&probabilities, &self.train.targets).collect())
    }

    /// A probe that is scored on the reward fold by this metric.
    pub(crate) fn probe(&self, tuning: &Tuning, metric: Metric, gram_memory: usize) -> Result<Probe> {
        Probe::new(
            Arc::clone(&self.train),
            Arc::clone(&self.reward),
            ProbeSettings {
                metric,
                ridge: tuning.ridge,
                temperature: tuning.temperature_for(metric),
                gram_memory,
            },
        )
    }
}

/// The probe's ridge strength and temperature, fixed before any agent begins.
pub(crate) struct TunedProbe<'a> {
    pub(crate) folds: &'a ProbeFolds,
    /// For training sets of the budget's size.
    pub(crate) at_budget: Tuning,
    /// For the whole pool.
    pub(crate) at_everything: Tuning,
}

impl<'a> TunedProbe<'a> {
    pub(crate) fn new(context: Context<'_>, folds: &'a ProbeFolds, vectors: &Vectors, limit: Limit) -> Result<Self> {
        let (pool, seed) = (&context.dataset.pool, context.settings.seed);
        let budget_rows = random_rows(pool, &vectors.tokens, limit, seed.derive("size")).len();
        context.stages.run("tune", None, || {
            Ok(Self {
                folds,
                at_budget: folds.tuning(context, budget_rows)?,
                at_everything: folds.tuning(context, pool.len())?,
            })
        })
    }
}
