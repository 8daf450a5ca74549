//! The best full states of a search.

use std::{collections::HashSet, ops::Range};

use crate::{env::pool::State, problem::trajectory::Trajectory};

/// How many of the best states go to the confirm fold.
const FINALISTS: usize = 16;

/// The best full states found, best first.
#[derive(Debug, Clone, Default)]
pub struct Best {
    states: Vec<(f64, State, Trajectory)>,
    seen: HashSet<State>,
}

impl Best {
    pub(crate) fn offer(&mut self, score: f64, state: &State, path: &[(usize, Range<u32>)]) {
        let worst = self.states.last().map_or(f64::NEG_INFINITY, |entry| entry.0);
        if (self.states.len() == FINALISTS && score <= worst) || !self.seen.insert(state.clone()) {
            return;
        }
        let at = self.states.partition_point(|entry| entry.0 >= score);
        self.states.insert(at, (score, state.clone(), path.to_vec()));
        self.states.truncate(FINALISTS);
    }

    /// Score on the reward fold, state, and the path that first led to it, best first.
    pub fn iter(&self) -> impl Iterator<Item = (f64, &State, &[(usize, Range<u32>)])> {
        self.states
            .iter()
            .map(|(score, state, path)| (*score, state, path.as_slice()))
    }

    /// Whether no full state was reached.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}
