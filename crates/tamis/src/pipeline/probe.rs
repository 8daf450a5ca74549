//! The seam to the probe of a run: the cheap model that rewards a search and judges what it found. Rows with labels have the ridge probe,
//! rows of responses the gradient probe.

use std::sync::Arc;

use tamis_nn::{Monitor, Seed};

use crate::{
    Result,
    budget::{Limit, random_control},
    data::{Dataset, RowId, folds::Folds},
    metrics::Metric,
    pipeline::{context::Context, embed::Vectors},
    scorer::{
        Scorer,
        gradient::gradient_data::GradientData,
        ridge::{probe::ProbeSettings, probe_data::ProbeData},
    },
};

/// How many bytes a probe's moments of chunks may take.
pub(crate) const MOMENTS_MEMORY: usize = ProbeSettings::GRAM_MEMORY;

/// A probe with every fold that it is scored on.
pub(crate) trait Probe: Send + Sync {
    /// The same with what has to be settled for training sets of `size` rows of the pool.
    fn tuned(&self, context: Context<'_>, size: usize) -> Result<Arc<dyn TunedProbe>>;

    /// The same for training on the whole pool, which is compared with training on `beside` rows.
    fn tuned_to_everything(&self, context: Context<'_>, beside: usize) -> Result<Arc<dyn TunedProbe>>;

    /// The mean cosine of each row's gradient with those of the reward fold, shape `(pool,)`; none where rows have no responses.
    fn alignment(&self, pool: &[RowId]) -> Option<Vec<f32>>;

    /// The cosine of each row's gradient with the mean one of the reward fold, in the subspace that the fold's gradients span, shape
    /// `(pool,)`; none where rows have no responses.
    ///
    /// # Errors
    ///
    /// If a gradient is not finite.
    fn alignment_in_subspace(&self, pool: &[RowId]) -> Result<Option<Vec<f32>>>;
}

/// A probe for training sets of one size.
pub(crate) trait TunedProbe: Send + Sync {
    /// What rewards a search by this metric on the reward fold; moments of chunks take at most `memory` bytes.
    fn scorer(&self, metric: Metric, memory: usize) -> Result<Box<dyn Scorer>>;

    /// Trained on these rows, its scores `[fold][metric]`; higher is better. It is as sure of itself as suits a reward by `reward`.
    fn scores(&self, rows: &[RowId], reward: Metric, folds: &[Fold<'_>], metrics: &[Metric]) -> Result<Vec<Vec<f64>>>;

    /// Trained on these rows, its score on each of some parts of the confirm fold, by the number of a row in the fold. It is as sure of
    /// itself as suits a reward by this metric.
    fn scores_on_parts(&self, rows: &[RowId], parts: &[Vec<u32>], metric: Metric) -> Result<Vec<f64>>;

    /// What it learns from the validation rows themselves, `[fold][metric]`: each of the reward fold, the confirm fold and, where it is
    /// asked for, the test rows is scored by a probe that was trained on the validation rows outside of it.
    fn scores_of_validation_rows(
        &self,
        reward: Metric,
        test: bool,
        metrics: &[Metric],
        seed: Seed,
        monitor: &dyn Monitor,
    ) -> Result<Vec<Vec<f64>>>;

    /// The same of a probe that was trained on these rows of the pool as well, and is as sure of itself as with these alone.
    fn scores_with_validation_rows(
        &self,
        rows: &[RowId],
        reward: Metric,
        test: bool,
        metrics: &[Metric],
    ) -> Result<Vec<Vec<f64>>>;

    /// The loss of every training row by a probe that was trained on the whole pool, shape `(examples,)`.
    fn losses(&self, pool: &[RowId]) -> Result<Vec<f32>>;
}

/// Rows that a probe is scored on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fold<'a> {
    Reward,
    Confirm,
    /// All test rows.
    Test,
    /// Some of them, by their number in the test split.
    TestRows(&'a [u32]),
}

impl Fold<'_> {
    /// The folds of a run: reward, confirm, and test where there are test rows.
    pub(crate) fn all(dataset: &Dataset) -> Vec<Self> {
        let test = dataset.test.as_ref().map(|_| Self::Test);
        [Self::Reward, Self::Confirm].into_iter().chain(test).collect()
    }
}

/// A run's probe, settled before any agent begins.
pub(crate) struct TunedProbes {
    /// For training sets of the budget's size.
    pub(crate) at_budget: Arc<dyn TunedProbe>,
    /// For the whole pool.
    pub(crate) at_everything: Arc<dyn TunedProbe>,
}

impl TunedProbes {
    pub(crate) fn new(context: Context<'_>, probe: &dyn Probe, vectors: &Vectors, limit: Limit) -> Result<Self> {
        let seed = context.settings.seed.derive("size");
        let budget_rows = random_control(context.dataset, &vectors.tokens, limit, seed).len();
        context.stages.run("tune", None, || {
            Ok(Self {
                at_budget: probe.tuned(context, budget_rows)?,
                at_everything: probe.tuned_to_everything(context, budget_rows)?,
            })
        })
    }
}

/// The rows of a split as a probe sees them.
pub(crate) trait Rows {
    /// Those named, in the order named.
    fn select(&self, rows: &[u32]) -> Result<Self>
    where
        Self: Sized;
}

impl Rows for ProbeData {
    fn select(&self, rows: &[u32]) -> Result<Self> {
        self.select(rows)
    }
}

impl Rows for GradientData {
    fn select(&self, rows: &[u32]) -> Result<Self> {
        Ok(self.select(rows))
    }
}

/// The training rows and every fold's. Copies share them.
#[derive(Clone)]
pub(crate) struct FoldData<R> {
    pub(crate) train: Arc<R>,
    pub(crate) reward: Arc<R>,
    pub(crate) confirm: Arc<R>,
    test: Option<Arc<R>>,
}

impl<R: Rows> FoldData<R> {
    pub(crate) fn new(train: R, validation: &R, test: Option<R>, folds: &Folds) -> Result<Self> {
        Ok(Self {
            train: Arc::new(train),
            reward: Arc::new(validation.select(&folds.reward)?),
            confirm: Arc::new(validation.select(&folds.confirm)?),
            test: test.map(Arc::new),
        })
    }

    /// # Panics
    ///
    /// If test rows are asked for where there are none.
    pub(crate) fn of(&self, fold: Fold<'_>) -> Result<Arc<R>> {
        let test = || self.test.as_ref().expect("test rows");
        Ok(match fold {
            Fold::Reward => Arc::clone(&self.reward),
            Fold::Confirm => Arc::clone(&self.confirm),
            Fold::Test => Arc::clone(test()),
            Fold::TestRows(rows) => Arc::new(test().select(rows)?),
        })
    }
}
