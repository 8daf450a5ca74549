//! Rules that choose rows without ever looking at a score: the simple methods that an agent has to beat.

mod purse;

pub use purse::Purse;

use crate::{Error, Matrix, Monitor, Result, budget::Limit, seed::Seed};

/// What a rule may look at.
pub struct View<'a> {
    /// One unit vector a row of the pool, shape `(rows, dim)`.
    pub vectors: &'a Matrix,
    /// The texts of a row of the pool.
    pub texts: &'a (dyn Fn(usize) -> Vec<&'a str> + Sync),
    /// What each row of the pool costs in tokens, shape `(rows,)`.
    pub tokens: &'a [u32],
    /// The label of each row of the pool, shape `(rows,)`; all 0 where the task has no labels.
    pub targets: &'a [u32],
    /// One unit vector a row of the reward fold, shape `(rows of the fold, dim)`.
    pub fold_vectors: &'a Matrix,
    /// The texts of a row of the reward fold.
    pub fold_texts: &'a (dyn Fn(usize) -> Vec<&'a str> + Sync),
    /// The loss of each row of the pool under a probe that was trained on all of them, shape `(rows,)`; made when it is asked for.
    pub losses: &'a dyn Fn() -> Result<Vec<f32>>,
}

/// A rule, as named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heuristic {
    /// The longest rows.
    Longest,
}

impl Heuristic {
    /// Every rule with its name on the command line.
    pub const NAMES: [(Self, &'static str); 1] = [(Self::Longest, "longest")];

    /// The chosen rows of the pool in ascending order; they spend the limit as a selection would.
    ///
    /// # Errors
    ///
    /// If the probe cannot be trained, the pool is too large for the rule, or the user asked to stop.
    pub fn choose(self, view: &View<'_>, limit: Limit, seed: Seed, monitor: &dyn Monitor) -> Result<Vec<u32>> {
        let _ = (seed, monitor);
        let mut purse = Purse::new(view.tokens, limit);
        let mut order: Vec<u32> = (0..view.tokens.len() as u32).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(view.tokens[i as usize]));
        for i in order {
            if !purse.take(i) {
                break;
            }
        }
        let _ = Error::Interrupted;
        Ok(purse.into_rows())
    }
}
