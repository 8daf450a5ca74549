//! The ridge probe of a run: its features on every fold, its strength and temperature on them.

use std::sync::Arc;

use tamis_nn::{Monitor, Seed};

use crate::{
    Result,
    data::{RowId, Split},
    embed::Embedded,
    metrics::{Metric, MetricKind},
    pipeline::{
        context::Context,
        embed::SplitVectors,
        probe::{Fold, FoldData, Probe, TunedProbe},
    },
    scorer::{
        Scorer,
        ridge::{
            probe::{Probe as RidgeScorer, ProbeSettings},
            probe_data::ProbeData,
            projection::{Projection, WIDTH},
            regression::{Model, Scratch, Strength, SufficientStatistics, score, train_and_score},
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

/// The ridge probe.
pub(crate) struct RidgeProbe {
    pub(crate) features: FoldData<ProbeData>,
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
            let data =
                |vectors: &Embedded, split: &Split| projection.apply(vectors, &split.targets(), &context.settings.out);
            let validation = data(&vectors.validation, &dataset.validation)?;
            let test = vectors.test.as_ref().zip(dataset.test.as_ref());
            let test = test.map(|(vectors, split)| data(vectors, split)).transpose()?;
            Ok(Self {
                features: FoldData::new(data(&vectors.train, &dataset.train)?, &validation, test, folds)?,
            })
        })
    }

    /// The ridge strength and temperature for training sets of `size` rows of the pool.
    pub(crate) fn tuning(&self, context: Context<'_>, size: usize) -> Result<Tuning> {
        let (pool, seed) = (&context.dataset.pool, context.settings.seed);
        tune(
            &self.features.train,
            pool,
            size,
            &self.features.reward,
            seed.derive("tune"),
            context.monitor(),
        )
    }
}

impl Probe for RidgeProbe {
    fn tuned(&self, context: Context<'_>, size: usize) -> Result<Arc<dyn TunedProbe>> {
        Ok(Arc::new(TunedRidgeProbe {
            features: self.features.clone(),
            tuning: self.tuning(context, size)?,
        }))
    }

    fn tuned_to_everything(&self, context: Context<'_>, _beside: usize) -> Result<Arc<dyn TunedProbe>> {
        self.tuned(context, context.dataset.pool.len())
    }

    fn alignment(&self, _pool: &[RowId]) -> Option<Vec<f32>> {
        None
    }

    fn alignment_in_subspace(&self, _pool: &[RowId]) -> Result<Option<Vec<f32>>> {
        Ok(None)
    }
}

struct TunedRidgeProbe {
    features: FoldData<ProbeData>,
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
        let (train, reward) = (Arc::clone(&self.features.train), Arc::clone(&self.features.reward));
        Ok(Box::new(RidgeScorer::new(train, reward, settings)?))
    }

    fn scores(&self, rows: &[RowId], reward: Metric, folds: &[Fold<'_>], metrics: &[Metric]) -> Result<Vec<Vec<f64>>> {
        let folds: Vec<Arc<ProbeData>> = folds
            .iter()
            .map(|&fold| self.features.of(fold))
            .collect::<Result<_>>()?;
        let folds: Vec<&ProbeData> = folds.iter().map(|fold| &**fold).collect();
        train_and_score(
            &self.features.train,
            rows,
            self.tuning.strength_for(reward),
            &folds,
            metrics,
        )
    }

    fn scores_on_parts(&self, rows: &[RowId], parts: &[Vec<u32>], metric: Metric) -> Result<Vec<f64>> {
        let confirm = &self.features.confirm;
        let Strength { ridge, temperature } = self.tuning.strength_for(metric);
        let probabilities = Model::fit(&self.features.train, rows, ridge)?.probabilities(confirm, temperature)?;
        let score = |part: &Vec<u32>| {
            let targets: Vec<u32> = part.iter().map(|&row| confirm.targets[row as usize]).collect();
            metric.score(&probabilities.gather(part), &targets)
        };
        Ok(parts.iter().map(score).collect())
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
        let FoldData {
            reward: fold, confirm, ..
        } = &self.features;
        let rows = confirm.all();
        let tuning = tune(confirm, &rows, rows.len(), fold, seed, monitor)?;
        let temperature = tuning.temperature_for(reward);
        let mut scratch = Scratch::new(self.features.train.width());
        let of_reward = SufficientStatistics::of(fold, &fold.all(), &mut scratch)?;
        let of_confirm = SufficientStatistics::of(confirm, &rows, &mut scratch)?;
        let mut both = of_reward.clone();
        both.add(&of_confirm);
        let mut pairs = vec![(Arc::clone(fold), &of_confirm), (Arc::clone(confirm), &of_reward)];
        if test {
            pairs.push((self.features.of(Fold::Test)?, &both));
        }
        pairs
            .into_iter()
            .map(|(fold, others)| {
                let model = Model::of(others, tuning.ridge, &mut scratch)?;
                score(&model, temperature, &fold, metrics)
            })
            .collect()
    }

    fn scores_with_validation_rows(
        &self,
        rows: &[RowId],
        reward: Metric,
        test: bool,
        metrics: &[Metric],
    ) -> Result<Vec<Vec<f64>>> {
        let FoldData {
            train,
            reward: fold,
            confirm,
            ..
        } = &self.features;
        let Strength { ridge, temperature } = self.tuning.strength_for(reward);
        let mut scratch = Scratch::new(train.width());
        let chosen = SufficientStatistics::of(train, rows, &mut scratch)?;
        let beside = |folds: &[&ProbeData], scratch: &mut Scratch| {
            let mut all = chosen.clone();
            for fold in folds {
                all.add(&SufficientStatistics::of(fold, &fold.all(), scratch)?);
            }
            Model::of(&all, ridge, scratch)
        };
        let mut scores = Vec::new();
        for (scored, others) in [(fold, confirm), (confirm, fold)] {
            let model = beside(&[others], &mut scratch)?;
            scores.push(score(&model, temperature, scored, metrics)?);
        }
        if test {
            let model = beside(&[fold, confirm], &mut scratch)?;
            scores.push(score(&model, temperature, &*self.features.of(Fold::Test)?, metrics)?);
        }
        Ok(scores)
    }

    fn losses(&self, pool: &[RowId]) -> Result<Vec<f32>> {
        let train = &self.features.train;
        let model = Model::fit(train, pool, self.tuning.ridge)?;
        let temperature = self.tuning.temperature_for(Metric::soft(MetricKind::LogLoss));
        Ok(model.losses(train, temperature)?.0)
    }
}
