//! Stochastic greedy search with restarts.

use rand::seq::SliceRandom;
use tamis_nn::seed::Seed;

use crate::{
    Result,
    env::Environment,
    problem::Problem,
    search::{Selector, random::PATIENCE},
};

/// Stochastic greedy: at every step a random sample of the legal actions is tried and the best of them taken; when the
/// budget is spent it starts again, with another sample, until the evaluations are spent.
///
/// Source: Mirzasoleiman et al. 2015, "Lazier than lazy greedy", algorithm 1. We differ in one way: restarts.
#[derive(Debug, Clone, Copy)]
pub struct Greedy {
    /// Actions tried at a step.
    pub candidates: usize,
}

impl Default for Greedy {
    fn default() -> Self {
        Self { candidates: 20 }
    }
}

impl Selector for Greedy {
    fn select(&mut self, problem: &mut Problem<'_>, seed: Seed) -> Result<()> {
        let mut stalled = 0;
        for round in 0.. {
            let before = problem.evaluations();
            if problem.remaining() == 0 || stalled == PATIENCE {
                break;
            }
            self.episode(problem, seed.index(round))?;
            stalled = if problem.evaluations() == before {
                stalled + 1
            } else {
                0
            };
        }
        Ok(())
    }
}

impl Greedy {
    /// One episode, or as much of it as the evaluations allow.
    pub(crate) fn episode(self, problem: &mut Problem<'_>, seed: Seed) -> Result<()> {
        let mut rng = seed.rng();
        problem.restart()?;
        let (longest, mut steps) = (problem.pool().longest_episode(), 0);
        loop {
            let mut legal: Vec<usize> = (0..problem.legal().len())
                .filter(|&c| problem.legal()[c].is_some())
                .collect();
            let left = problem.remaining();
            if left == 0 || legal.is_empty() {
                return Ok(());
            }
            // The first episode has to come to its end, whatever there is to spend.
            let affordable = if problem.best().is_empty() {
                (left / longest.saturating_sub(steps).max(1)).max(1)
            } else {
                left
            };
            steps += 1;
            let tries = self
                .candidates
                .min(legal.len())
                .min(usize::try_from(affordable).unwrap_or(usize::MAX));
            let candidates = legal.partial_shuffle(&mut rng, tries).0.to_vec();
            let rewards = problem.lookahead(&candidates)?;
            let best = (0..tries)
                .max_by(|&a, &b| rewards[a].total_cmp(&rewards[b]).then(b.cmp(&a)))
                .unwrap_or(0);
            problem.take(candidates[best])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::toy::Toy;

    #[test]
    fn greedy_comes_to_an_end_with_few_evaluations() {
        let toy = Toy::new(12);
        let pool = toy.pool(6);
        // One for nothing taken, one a step: 12 candidates a step would end it after the first.
        toy.problem(&pool, 1 + pool.longest_episode(), |mut problem| {
            Greedy::default().select(&mut problem, Seed(2)).expect("searches");
            assert!(!problem.best().is_empty());
        });
    }
}
