//! Random full states: what a search that looks at nothing finds.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tamis_nn::seed::Seed;

use crate::{
    Result,
    env::{Environment, pool::Pool},
    problem::{Problem, Trajectory},
    search::Selector,
};

/// Random full states, each one evaluation: the same clusters and chunks, chosen blindly.
#[derive(Debug, Clone, Copy)]
pub struct Random;

/// After how many rounds that met only states known already a search takes the pool to be exhausted.
pub(crate) const PATIENCE: u32 = 20;

/// How many full states are scored side by side; fixed, so that the number of threads changes nothing.
pub(crate) const BATCH: u64 = 64;

impl Selector for Random {
    fn select(&mut self, problem: &mut Problem<'_>, seed: Seed) -> Result<()> {
        let mut stalled = 0;
        for round in 0.. {
            let before = problem.evaluations();
            let batch = BATCH.min(problem.remaining());
            if batch == 0 || stalled == PATIENCE {
                break;
            }
            let paths: Vec<_> = (0..batch)
                .map(|i| random_path(problem.pool(), seed.index(round * BATCH + i)))
                .collect();
            problem.score_paths(&paths)?;
            stalled = if problem.evaluations() == before {
                stalled + 1
            } else {
                0
            };
        }
        Ok(())
    }
}

/// A random full state's path: chunks drawn at random, each cluster as likely as it has rows left, until the budget is spent.
pub(crate) fn random_path(pool: &Pool, seed: Seed) -> Trajectory {
    completed(pool, &[], &mut seed.rng())
}

/// Takes the next chunks of these clusters, in order, as far as they are legal, and then random ones until the budget is spent.
pub(crate) fn completed(pool: &Pool, plan: &[usize], rng: &mut ChaCha8Rng) -> Trajectory {
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
            let mut rest = rng.random_range(0..total);
            let mut cluster = 0;
            while rest >= weight(cluster) {
                rest -= weight(cluster);
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
