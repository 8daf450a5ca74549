//! The ridge probe of a run: its features on every fold, its strength and temperature on them.

use std::sync::Arc;

use tamis_nn::{Monitor, Seed};

use crate::{
    Result,
    data::{RowId, Split},
    embed::Embedded,
    metrics::{Metric, MetricKind, row_losses},
    pipeline::{
        context::Context,
        embed::SplitVectors,
        probe::{Fold, Probe, TunedProbe},
    },
    scorer::{
        Scorer,
        ridge::{
            probe::{Probe as RidgeScorer, ProbeSettings},
            probe_data::ProbeData,
            projection::{Projection, WIDTH},
            regression::{Model, Scratch, SufficientStatistics, score, train_and_score},
            tune::{Tuning, tune},
        },
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

/// The ridge probe's features of every fold. Copies share them.
#[derive(Clone)]
pub(crate) struct RidgeProbe {
    pub(crate) train: Arc<ProbeData>,
    pub(crate) reward: Arc<ProbeData>,
    confirm: Arc<ProbeData>,
    test: Option<Arc<ProbeData>>,
}

impl RidgeProbe {
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
                confirm: Arc::new(validation.select(&folds.confirm)),
                test: test
                    .map(|(vectors, split)| Ok::<_, crate::Error>(Arc::new(data(vectors, split)?)))
                    .transpose()?,
            })
        })
    }

    /// The ridge strength and temperature for training sets of `size` rows of the pool.
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

    /// # Panics
    ///
    /// If test rows are asked for where there are none.
    fn data(&self, fold: Fold<'_>) -> Arc<ProbeData> {
        let test = || self.test.as_ref().expect("test rows");
        match fold {
            Fold::Reward => Arc::clone(&self.reward),
            Fold::Confirm => Arc::clone(&self.confirm),
            Fold::Test => Arc::clone(test()),
            Fold::TestRows(rows) => Arc::new(test().select(rows)),
        }
    }
}

impl Probe for RidgeProbe {
    fn tuned(&self, context: Context<'_>, size: usize) -> Result<Arc<dyn TunedProbe>> {
        Ok(Arc::new(TunedRidgeProbe {
            folds: self.clone(),
            tuning: self.tuning(context, size)?,
        }))
    }

    fn tuned_to_everything(&self, context: Context<'_>, _beside: usize) -> Result<Arc<dyn TunedProbe>> {
        self.tuned(context, context.dataset.pool.len())
    }

    fn alignment(&self, _pool: &[RowId]) -> Option<Vec<f32>> {
        None
    }
}

struct TunedRidgeProbe {
    folds: RidgeProbe,
    tuning: Tuning,
}

impl TunedProbe for TunedRidgeProbe {
    fn scorer(&self, metric: Metric, memory: usize) -> Result<Box<dyn Scorer>> {
        let settings = ProbeSettings {
            metric,
            ridge: self.tuning.ridge,
            temperature: self.tuning.temperature_for(metric),
            gram_memory: memory,
        };
        let (train, reward) = (Arc::clone(&self.folds.train), Arc::clone(&self.folds.reward));
        Ok(Box::new(RidgeScorer::new(train, reward, settings)?))
    }

    fn scores(&self, rows: &[RowId], reward: Metric, folds: &[Fold<'_>], metrics: &[Metric]) -> Result<Vec<Vec<f64>>> {
        let folds: Vec<Arc<ProbeData>> = folds.iter().map(|&fold| self.folds.data(fold)).collect();
        let folds: Vec<&ProbeData> = folds.iter().map(|fold| &**fold).collect();
        train_and_score(
            &self.folds.train,
            rows,
            self.tuning.strength_for(reward),
            &folds,
            metrics,
        )
    }

    /// Strength and temperature are what the reward fold likes best of a probe that was trained on the confirm fold.
    fn scores_of_validation_rows(
        &self,
        reward: Metric,
        test: bool,
        metrics: &[Metric],
        seed: Seed,
        monitor: &dyn Monitor,
    ) -> Result<Vec<Vec<f64>>> {
        let RidgeProbe {
            reward: fold, confirm, ..
        } = &self.folds;
        let rows = confirm.all();
        let tuning = tune(confirm, &rows, rows.len(), fold, seed, monitor)?;
        let temperature = tuning.temperature_for(reward);
        let mut scratch = Scratch::new(self.folds.train.width());
        let of_reward = SufficientStatistics::of(fold, &fold.all(), &mut scratch);
        let of_confirm = SufficientStatistics::of(confirm, &rows, &mut scratch);
        let mut both = of_reward.clone();
        both.add(&of_confirm);
        let test = test.then(|| (self.folds.data(Fold::Test), &both));
        [(Arc::clone(fold), &of_confirm), (Arc::clone(confirm), &of_reward)]
            .into_iter()
            .chain(test)
            .map(|(fold, others)| {
                let model = Model::of(others, tuning.ridge, &mut scratch)?;
                Ok(score(&model, temperature, &fold, metrics))
            })
            .collect()
    }

    fn losses(&self, pool: &[RowId]) -> Result<Vec<f32>> {
        let train = &self.folds.train;
        let model = Model::fit(train, pool, self.tuning.ridge)?;
        let temperature = self.tuning.temperature_for(Metric::soft(MetricKind::LogLoss));
        let probabilities = model.probabilities(train, temperature);
        Ok(row_losses(&probabilities, &train.targets).collect())
    }
}
