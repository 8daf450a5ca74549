//! What a reward is made of: a cheap model, trained on the rows taken so far, and its score on a validation fold.

pub mod ask_tell;
pub mod batch;
pub mod finetune;
pub mod finetune_batch;
pub mod gradient;
pub mod ridge;
pub mod trainer;
pub mod whole;
pub(crate) mod worker_pool;

use tamis_nn::{fingerprint::Fingerprint, seed::Seed};

use crate::{Result, data::RowId, scorer::batch::BatchScorer};

/// A model cheap enough to be trained at every state, and the fold on which it is scored.
///
/// ```
/// use tamis::{Fingerprint, Result, Seed, data::RowId, scorer::{Scorer, ScorerRun}};
///
/// /// Scores rows by the distance of their sum to 10.
/// struct NearTen(Fingerprint);
///
/// #[derive(Clone)]
/// struct Run(f64);
///
/// impl Scorer for NearTen {
///     fn fingerprint(&self) -> &Fingerprint {
///         &self.0
///     }
///     fn start(&self, _seed: Seed) -> Result<Box<dyn ScorerRun + '_>> {
///         Ok(Box::new(Run(0.0)))
///     }
/// }
///
/// impl ScorerRun for Run {
///     fn add(&mut self, rows: &[RowId]) -> Result<()> {
///         self.0 += rows.iter().copied().map(f64::from).sum::<f64>();
///         Ok(())
///     }
///     fn score(&mut self) -> Result<f64> {
///         Ok(-(self.0 - 10.0).abs())
///     }
///     fn fork(&self) -> Box<dyn ScorerRun + '_> {
///         Box::new(self.clone())
///     }
/// }
///
/// let scorer = NearTen(Fingerprint::of(["near ten"]));
/// let mut run = scorer.start(Seed(0))?;
/// run.add(&[3, 5])?;
/// assert_eq!(run.score()?, -2.0);
/// # Ok::<(), tamis::Error>(())
/// ```
pub trait Scorer: Sync {
    /// What a score depends on besides rows and seed: the kind of proxy, its settings, the data, the fold.
    fn fingerprint(&self) -> &Fingerprint;

    /// Whether a score depends on the order in which chunks were added, and not only on which they are.
    fn path_matters(&self) -> bool {
        false
    }

    /// Who scores whole selections, several at once, where scores are made so: by a trainer elsewhere. States are then not followed chunk by
    /// chunk, and the one in which nothing is taken is not scored.
    fn batch(&self) -> Option<&dyn BatchScorer> {
        None
    }

    /// A run on no rows.
    ///
    /// # Errors
    ///
    /// If the model cannot be set up.
    fn start(&self, seed: Seed) -> Result<Box<dyn ScorerRun + '_>>;
}

/// A proxy on its way through an episode: rows are added, scores are asked for.
pub trait ScorerRun: Send + Sync {
    /// Adds training rows. The rows of one call are one chunk of the pool or a prefix of one.
    ///
    /// # Errors
    ///
    /// If the model cannot take them.
    fn add(&mut self, rows: &[RowId]) -> Result<()>;

    /// The score of the model trained on all rows added so far; higher is better, whatever the metric.
    ///
    /// # Errors
    ///
    /// If training or scoring fails, or the score is not finite.
    fn score(&mut self) -> Result<f64>;

    /// A second run in the same state, to try an action on.
    fn fork(&self) -> Box<dyn ScorerRun + '_>;

    /// What the present model can tell about rows it has not seen, where it can tell anything cheaply; by default nothing.
    ///
    /// # Errors
    ///
    /// If training fails.
    fn insight(&mut self, _chunks: &[&[RowId]]) -> Result<Option<Insight>> {
        Ok(None)
    }
}

/// A proxy's hints to an agent about what to add next. No evaluation is spent on them.
#[derive(Debug, Clone, PartialEq)]
pub struct Insight {
    /// Each chunk's first-order influence: the change of the fold's score that a small step towards its rows promises,
    /// shape `(chunks,)`, in units of the metric, higher is better.
    pub influence: Vec<f32>,
    /// The mean loss of the present model on each chunk's rows, shape `(chunks,)`: how much is new or wrong in them.
    pub chunk_loss: Vec<f32>,
    /// The loss on each row of the fold, shape `(fold rows,)`.
    pub fold_loss: Vec<f32>,
}
