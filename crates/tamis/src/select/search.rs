//! Searches that learn nothing: stochastic greedy with restarts, and random full states.

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{Path, Problem, Selector};
use crate::{Result, mdp::Environment, pool::Pool, seed::Seed};

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
        let mut idle = 0;
        for round in 0.. {
            let before = problem.evaluations();
            if problem.remaining() == 0 || idle == PATIENCE {
                break;
            }
            self.episode(problem, seed.index(round))?;
            idle = if problem.evaluations() == before { idle + 1 } else { 0 };
        }
        Ok(())
    }
}

impl Greedy {
    /// One episode, or as much of it as the evaluations allow.
    pub(super) fn episode(self, problem: &mut Problem<'_>, seed: Seed) -> Result<()> {
        let mut rng = seed.rng();
        problem.restart()?;
        let (longest, mut steps) = (problem.pool().longest_episode(), 0);
        loop {
            let mut open: Vec<usize> = (0..problem.legal().len())
                .filter(|&c| problem.legal()[c].is_some())
                .collect();
            let left = problem.remaining();
            if left == 0 || open.is_empty() {
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
                .min(open.len())
                .min(usize::try_from(affordable).unwrap_or(usize::MAX));
            let candidates = open.partial_shuffle(&mut rng, tries).0.to_vec();
            let rewards = problem.peek(&candidates)?;
            let best = (0..tries)
                .max_by(|&a, &b| rewards[a].total_cmp(&rewards[b]).then(b.cmp(&a)))
                .unwrap_or(0);
            problem.take(candidates[best])?;
        }
    }
}

/// Random full states, each one evaluation: the same clusters and chunks, chosen blindly.
#[derive(Debug, Clone, Copy)]
pub struct Random;

/// After how many rounds that met only states known already a search takes the pool to be exhausted.
pub(super) const PATIENCE: u32 = 20;

/// How many full states are scored side by side; fixed, so that the number of threads changes nothing.
pub(super) const BATCH: u64 = 64;

impl Selector for Random {
    fn select(&mut self, problem: &mut Problem<'_>, seed: Seed) -> Result<()> {
        let mut idle = 0;
        for round in 0.. {
            let before = problem.evaluations();
            let batch = BATCH.min(problem.remaining());
            if batch == 0 || idle == PATIENCE {
                break;
            }
            let paths: Vec<_> = (0..batch)
                .map(|i| random_path(problem.pool(), seed.index(round * BATCH + i)))
                .collect();
            problem.score_paths(&paths)?;
            idle = if problem.evaluations() == before { idle + 1 } else { 0 };
        }
        Ok(())
    }
}

/// A random full state's path: chunks drawn at random, each cluster as likely as it has rows left, until the budget is spent.
pub(super) fn random_path(pool: &Pool, seed: Seed) -> Path {
    completed(pool, &[], &mut seed.rng())
}

/// Takes the next chunks of these clusters, in order, as far as they are legal, and then random ones until the budget is spent.
pub(super) fn completed(pool: &Pool, plan: &[usize], rng: &mut ChaCha8Rng) -> Path {
    let mut state = pool.empty();
    let mut path = Vec::new();
    let mut plan = plan.iter();
    loop {
        let legal = pool.legal(&state);
        let weight = |c: usize| {
            legal[c]
                .as_ref()
                .map_or(0, |_| pool.cluster(c).len() as u64 - u64::from(state.taken()[c]))
        };
        let cluster = if let Some(&planned) = plan.next() {
            planned
        } else {
            let total: u64 = (0..pool.clusters()).map(weight).sum();
            if total == 0 {
                return path;
            }
            let mut ticket = rng.random_range(0..total);
            let mut cluster = 0;
            while ticket >= weight(cluster) {
                ticket -= weight(cluster);
                cluster += 1;
            }
            cluster
        };
        if let Some(range) = &legal[cluster] {
            state = pool.after(&state, cluster, range);
            path.push((cluster, range.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::toy::Toy;

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
