//! The probe's features of every fold, and its strength and temperature on them.

use std::sync::Arc;

use tamis_nn::{Monitor, seed::Seed};

use crate::{
    Result,
    budget::{Limit, random_rows},
    data::{Dataset, Split, folds::Folds},
    embed::Embedded,
    metrics::{Metric, MetricKind, row_losses},
    pipeline::stages::Stages,
    scorer::ridge::{
        probe::{Probe, ProbeSettings},
        probe_data::ProbeData,
        projection::{Projection, WIDTH},
        regression::Model,
        tune::{Tuning, tune},
    },
    settings::select::SelectSettings,
};

/// Where the probe's features come from.
#[derive(Clone, Copy)]
pub(crate) enum Features<'a> {
    /// The embedder's vectors.
    Embedded(&'a [Embedded]),
    /// An adapted model's features.
    Adapted(&'a [Embedded]),
}

/// The probe's features of every fold.
pub(crate) struct ProbeFolds {
    pub(crate) train: Arc<ProbeData>,
    pub(crate) reward: Arc<ProbeData>,
    pub(crate) confirm: ProbeData,
    pub(crate) test: Option<ProbeData>,
}

impl ProbeFolds {
    pub(crate) fn new(
        settings: &SelectSettings,
        (dataset, folds): (&Dataset, &Folds),
        features: Features<'_>,
        stages: &mut Stages<'_>,
    ) -> Result<Self> {
        stages.run("design", None, || {
            let (kind, labels) = (dataset.task.kind, dataset.task.labels.len());
            let (projection, embedded) = match features {
                Features::Embedded(embedded) => {
                    let seed = settings.seed.derive("projection");
                    (Projection::fit(&embedded[0], kind, labels, WIDTH, seed)?, embedded)
                }
                Features::Adapted(embedded) => (Projection::fit_adapted(&embedded[0], kind, labels)?, embedded),
            };
            let design = |embedded: &Embedded, split: &Split| projection.apply(embedded, &split.targets());
            let validation = design(&embedded[1], &dataset.validation);
            Ok(Self {
                train: Arc::new(design(&embedded[0], &dataset.train)),
                reward: Arc::new(validation.select(&folds.reward)),
                confirm: validation.select(&folds.confirm),
                test: dataset.test.as_ref().map(|test| design(&embedded[2], test)),
            })
        })
    }

    /// The probe's ridge strength and temperature for training sets of `size` rows of the pool.
    pub(crate) fn tuning(&self, dataset: &Dataset, size: usize, seed: Seed, monitor: &dyn Monitor) -> Result<Tuning> {
        tune(
            &self.train,
            &dataset.pool,
            size,
            &self.reward,
            seed.derive("tune"),
            monitor,
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

/// Features, and the probe's ridge strength and temperature on them.
pub(crate) struct Tuned {
    pub(crate) designs: ProbeFolds,
    /// For training sets of the budget's size.
    pub(crate) at_budget: Tuning,
    /// For the whole pool.
    pub(crate) at_everything: Tuning,
}

impl Tuned {
    pub(crate) fn new(
        settings: &SelectSettings,
        dataset: &Dataset,
        designs: ProbeFolds,
        (tokens, limit): (&[u32], Limit),
        stages: &mut Stages<'_>,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let seed = settings.seed;
        let budget_rows = random_rows(&dataset.pool, tokens, limit, seed.derive("size")).len();
        let (at_budget, at_everything) = stages.run("tune", None, || {
            let at = |size| designs.tuning(dataset, size, seed, monitor);
            Ok((at(budget_rows)?, at(dataset.pool.len())?))
        })?;
        Ok(Self {
            designs,
            at_budget,
            at_everything,
        })
    }

    /// A probe that is scored on the reward fold by this metric.
    pub(crate) fn probe(&self, metric: Metric) -> Result<Probe> {
        self.designs.probe(&self.at_budget, metric, ProbeSettings::GRAM_MEMORY)
    }
}
