//! The time limit of a run that may be killed and started again.

use std::cell::Cell;

use crate::{Result, store::ScoreStore};

/// The time limit of a run that may be killed and started again.
pub(crate) struct Deadline {
    /// How often the limit was looked at, and at which look the clock stopped the run.
    looks: Cell<u64>,
    stopped_at: Cell<Option<u64>>,
}

impl Deadline {
    /// That of the search with this scope, which tells it apart from others of the same store.
    pub(crate) fn read(store: &dyn ScoreStore, scope: &str) -> Result<Self> {
        Ok(Self {
            looks: Cell::new(0),
            stopped_at: Cell::new(store.meta(&noted_as(scope))?.and_then(|text| text.parse().ok())),
        })
    }

    /// Notes where the clock stopped the search, if it did.
    pub(crate) fn note(&self, store: &mut dyn ScoreStore, scope: &str) -> Result<()> {
        match self.stopped_at.get() {
            Some(look) => store.set_meta(&noted_as(scope), &look.to_string()),
            None => Ok(()),
        }
    }

    /// Whether time is up after so many seconds. Where an earlier start was stopped at a certain look, this one is stopped there too.
    pub(crate) fn is_up(&self, seconds: f64, limit: f64) -> bool {
        let look = self.looks.get() + 1;
        self.looks.set(look);
        if self.stopped_at.get().is_none() && seconds >= limit {
            self.stopped_at.set(Some(look));
        }
        self.stopped_at.get().is_some_and(|stopped_at| look >= stopped_at)
    }
}

/// What the look is filed under.
fn noted_as(scope: &str) -> String {
    format!("stopped_at/{scope}")
}
