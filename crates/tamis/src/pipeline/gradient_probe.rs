//! The gradient probe of a run: every fold's gradients in the pool's own directions.

use std::sync::Arc;

use tamis_nn::{Monitor, Seed};

use crate::{
    Result,
    data::RowId,
    metrics::Metric,
    pipeline::{
        context::Context,
        embed::{Gradients, SplitGradients},
        probe::{Fold, FoldData, Probe, TunedProbe},
    },
    scorer::{
        Scorer,
        gradient::{
            basis::Basis,
            gradient_data::GradientData,
            probe::{GradientProbe as GradientScorer, GradientProbeSettings, step_of},
            subspace::alignment_in_subspace,
        },
        ridge::regression::{Scratch, SufficientStatistics},
    },
};

/// The gradient probe.
pub(crate) struct GradientProbe {
    gradients: FoldData<GradientData>,
    /// λ for a choice.
    ridge: f64,
    /// How many rows the pool has, or had before most were left aside.
    pool: usize,
}

impl GradientProbe {
    pub(crate) fn new(context: Context<'_>, gradients: &Gradients) -> Result<Self> {
        let (settings, pool, folds) = (context.settings, &context.dataset.pool, context.folds);
        context.stages.run("design", None, || {
            let SplitGradients { sketches, losses } = &gradients.train;
            let seed = settings.seed.derive("directions");
            let basis = Basis::fit(sketches, losses, pool, settings.gradients.directions, seed)?;
            let of = |split: &SplitGradients| basis.project(&split.sketches, split.losses.clone());
            let validation = of(&gradients.validation);
            let train = of(&gradients.train);
            Ok(Self {
                ridge: settings.gradients.damping * train.mean_eigenvalue(pool)?,
                gradients: FoldData::new(train, &validation, gradients.test.as_ref().map(of), folds)?,
                pool: context.dataset.pool_rows(),
            })
        })
    }
}

impl Probe for GradientProbe {
    /// A step is held back alike whatever rows it is taken on.
    fn tuned(&self, _context: Context<'_>, _size: usize) -> Result<Arc<dyn TunedProbe>> {
        Ok(Arc::new(TunedGradientProbe {
            gradients: self.gradients.clone(),
            ridge: self.ridge,
        }))
    }

    /// Training on everything takes as many more steps as there are more rows, and is held back by so many times less.
    fn tuned_to_everything(&self, _context: Context<'_>, beside: usize) -> Result<Arc<dyn TunedProbe>> {
        let share = beside.clamp(1, self.pool.max(1)) as f64 / self.pool.max(1) as f64;
        Ok(Arc::new(TunedGradientProbe {
            gradients: self.gradients.clone(),
            ridge: self.ridge * share,
        }))
    }

    fn alignment(&self, pool: &[RowId]) -> Option<Vec<f32>> {
        Some(self.gradients.train.alignment(pool, &self.gradients.reward))
    }

    fn alignment_in_subspace(&self, pool: &[RowId]) -> Result<Option<Vec<f32>>> {
        alignment_in_subspace(&self.gradients.train, pool, &self.gradients.reward).map(Some)
    }
}

struct TunedGradientProbe {
    gradients: FoldData<GradientData>,
    ridge: f64,
}

impl TunedGradientProbe {
    /// The scores of a step on these rows of a split. Whatever the metric, it is the loss a token.
    fn scores_of_step(
        &self,
        data: &GradientData,
        rows: &[RowId],
        folds: &[Arc<GradientData>],
        metrics: usize,
    ) -> Result<Vec<Vec<f64>>> {
        self.scores_of_step_on(&[(data, rows)], folds, metrics)
    }

    /// The same of a step on rows of several splits.
    fn scores_of_step_on(
        &self,
        parts: &[(&GradientData, &[RowId])],
        folds: &[Arc<GradientData>],
        metrics: usize,
    ) -> Result<Vec<Vec<f64>>> {
        let design = &self.gradients.train.design;
        let mut scratch = Scratch::new(self.gradients.train.width());
        let mut moments = SufficientStatistics::empty(self.gradients.train.width(), design.outputs);
        for (data, rows) in parts {
            moments.add(&SufficientStatistics::of(&data.design, rows, &mut scratch)?);
        }
        let step = step_of(&moments, self.ridge, &mut scratch)?;
        Ok(folds
            .iter()
            .map(|fold| vec![-fold.loss_after(&step); metrics])
            .collect())
    }
}

impl TunedProbe for TunedGradientProbe {
    fn scorer(&self, _metric: Metric, memory: usize) -> Result<Box<dyn Scorer>> {
        let FoldData { train, reward, .. } = &self.gradients;
        let settings = GradientProbeSettings {
            ridge: self.ridge,
            gram_memory: memory,
        };
        Ok(Box::new(GradientScorer::new(
            Arc::clone(train),
            Arc::clone(reward),
            settings,
        )?))
    }

    fn scores(&self, rows: &[RowId], _reward: Metric, folds: &[Fold<'_>], metrics: &[Metric]) -> Result<Vec<Vec<f64>>> {
        let folds: Vec<_> = folds
            .iter()
            .map(|&fold| self.gradients.of(fold))
            .collect::<Result<_>>()?;
        self.scores_of_step(&self.gradients.train, rows, &folds, metrics.len())
    }

    fn scores_on_parts(&self, rows: &[RowId], parts: &[Vec<u32>], _metric: Metric) -> Result<Vec<f64>> {
        let confirm = &self.gradients.confirm;
        let folds: Vec<_> = parts.iter().map(|part| Arc::new(confirm.select(part))).collect();
        let scores = self.scores_of_step(&self.gradients.train, rows, &folds, 1)?;
        Ok(scores.concat())
    }

    fn scores_of_validation_rows(
        &self,
        _reward: Metric,
        test: bool,
        metrics: &[Metric],
        _seed: Seed,
        _monitor: &dyn Monitor,
    ) -> Result<Vec<Vec<f64>>> {
        let FoldData { reward, confirm, .. } = &self.gradients;
        let both = reward.joined(confirm);
        let mut pairs = vec![(&**confirm, Arc::clone(reward)), (&**reward, Arc::clone(confirm))];
        if test {
            pairs.push((&both, self.gradients.of(Fold::Test)?));
        }
        let mut scores = Vec::new();
        for (taught, fold) in pairs {
            scores.extend(self.scores_of_step(taught, &taught.design.all(), &[fold], metrics.len())?);
        }
        Ok(scores)
    }

    fn scores_with_validation_rows(
        &self,
        rows: &[RowId],
        _reward: Metric,
        test: bool,
        metrics: &[Metric],
    ) -> Result<Vec<Vec<f64>>> {
        let FoldData {
            train, reward, confirm, ..
        } = &self.gradients;
        let (of_reward, of_confirm) = (reward.design.all(), confirm.design.all());
        let chosen = (&**train, rows);
        let [reward_rows, confirm_rows] = [(&**reward, &of_reward[..]), (&**confirm, &of_confirm[..])];
        let mut scores = Vec::new();
        for (scored, others) in [(reward, confirm_rows), (confirm, reward_rows)] {
            scores.extend(self.scores_of_step_on(&[chosen, others], &[Arc::clone(scored)], metrics.len())?);
        }
        if test {
            let folds = [self.gradients.of(Fold::Test)?];
            scores.extend(self.scores_of_step_on(&[chosen, reward_rows, confirm_rows], &folds, metrics.len())?);
        }
        Ok(scores)
    }

    /// By the model that the gradients are of, which was not trained on the pool.
    fn losses(&self, _pool: &[RowId]) -> Result<Vec<f32>> {
        let losses = self.gradients.train.losses.iter();
        Ok(losses.map(|loss| loss.a_token() as f32).collect())
    }
}
