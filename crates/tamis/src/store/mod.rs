//! Where every score that was paid for is kept, so that nothing is paid for twice.
//!
//! A score is in the store's hands before it is used. A run that was killed asks for the same scores in the same order and finds them
//! there. [`SqliteStore`] keeps them in a run's folder, [`MemoryStore`] for as long as the process lives.

mod memory;
mod sqlite;

pub use memory::MemoryStore;
pub(crate) use sqlite::LedgerFile;
pub use sqlite::{AT_RISK_SECONDS, SqliteStore};

use crate::Result;

/// What a score is filed under: 128 bits of content hash.
pub type Key = [u8; 16];

/// Numbers that a model was paid for, and what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What the model said: scores, probabilities, whatever was asked.
    pub numbers: Vec<f64>,
    /// Core-seconds.
    pub seconds: f64,
}

/// Scores by content, failures, answers of models, the timeline of a search, and notes.
///
/// ```
/// use tamis::store::{MemoryStore, ScoreStore};
///
/// let (mut store, key) = (MemoryStore::default(), [7; 16]);
/// assert_eq!(store.get(&key), None);
/// store.record(key, 0.81, 0.002)?;
/// assert_eq!(store.get(&key), Some(0.81));
/// # Ok::<(), tamis::Error>(())
/// ```
pub trait ScoreStore {
    /// The score under this key, if it has been paid for.
    fn get(&self, key: &Key) -> Option<f64>;

    /// Why the state under this key could not be scored, if it was tried and failed.
    fn failure(&self, key: &Key) -> Option<&str>;

    /// How many scores there are; failures are not among them.
    fn len(&self) -> usize;

    /// Whether nothing has been paid for yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Files a score and what it cost.
    ///
    /// # Errors
    ///
    /// If it cannot be kept.
    fn record(&mut self, key: Key, score: f64, seconds: f64) -> Result<()>;

    /// Files that a state could not be scored, why, and what the attempts cost.
    ///
    /// # Errors
    ///
    /// If it cannot be kept.
    fn record_failure(&mut self, key: Key, reason: &str, seconds: f64) -> Result<()>;

    /// The answer under this key, if it has been paid for.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn answer(&self, key: &Key) -> Result<Option<Answer>>;

    /// Files an answer, at once.
    ///
    /// # Errors
    ///
    /// If it cannot be kept.
    fn record_answer(&mut self, key: &Key, answer: &Answer) -> Result<()>;

    /// Files how many seconds a search had taken when so many evaluations were spent; kept with the next scores. `scope` tells apart the
    /// searches of one store.
    fn record_timestamp(&mut self, scope: &str, evaluations: u64, seconds: f64);

    /// The timestamps of one search: evaluations spent and seconds by then, in the order of the evaluations.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn timestamps(&self, scope: &str) -> Result<Vec<(u64, f64)>>;

    /// A note kept beside the scores.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn meta(&self, name: &str) -> Result<Option<String>>;

    /// Keeps a note, at once.
    ///
    /// # Errors
    ///
    /// If it cannot be kept.
    fn set_meta(&mut self, name: &str, value: &str) -> Result<()>;

    /// Makes everything that was filed last.
    ///
    /// # Errors
    ///
    /// If it cannot be kept, for example because the disk is full.
    fn commit(&mut self) -> Result<()>;
}
