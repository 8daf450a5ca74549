//! Iterated local search: a greedy start, or given ones, then chunks swapped around the best state.
//!
//! A neighbour of a state gives one chunk of a cluster back and takes one of another cluster instead. Neighbours are scored a few
//! at a time and the best of them taken if it is better. Where a state has withstood as many neighbours as it has likely better
//! ones, several chunks are swapped at once and the search goes on from there; the best state is never lost.
//!
//! Source: Lourenço, Martin & Stützle 2003 (iterated local search).

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tamis_nn::seed::Seed;

use crate::{
    Result,
    env::Environment,
    problem::{Problem, Trajectory},
    search::{
        Greedy, Selector,
        random::{PATIENCE, completed},
    },
};

/// Swaps of chunks, from the best of some starts.
#[derive(Debug, Clone)]
pub struct LocalSearch {
    /// Full states to start from; with none the start is greedy.
    pub starts: Vec<Trajectory>,
    /// Neighbours that are scored side by side.
    pub neighbours: usize,
    /// Rounds of neighbours without a better one after which the state is shaken.
    pub rounds: u32,
    /// Chunks that are swapped when a state is shaken.
    pub shaken: usize,
}

impl Default for LocalSearch {
    fn default() -> Self {
        Self {
            starts: Vec::new(),
            neighbours: 16,
            rounds: 25,
            shaken: 4,
        }
    }
}

impl Selector for LocalSearch {
    fn select(&mut self, problem: &mut Problem<'_>, seed: Seed) -> Result<()> {
        if self.starts.is_empty() {
            Greedy::default().episode(problem, seed.derive("start"))?;
        } else {
            let left = usize::try_from(problem.remaining()).unwrap_or(usize::MAX);
            problem.score_paths(&self.starts[..self.starts.len().min(left)])?;
        }
        let Some((mut best_score, mut best)) = problem
            .best()
            .iter()
            .next()
            .map(|(score, _, path)| (score, path.to_vec()))
        else {
            return Ok(());
        };
        let (mut score, mut path) = (best_score, best.clone());
        let mut rng = seed.derive("swaps").rng();
        let (mut failed, mut stalled) = (0, 0);
        for round in 0.. {
            let left = problem.remaining();
            if left == 0 || stalled == PATIENCE {
                break;
            }
            let before = problem.evaluations();
            let count = self.neighbours.min(usize::try_from(left).unwrap_or(usize::MAX)) as u64;
            let seed = seed.index(round);
            let neighbours: Vec<Trajectory> = (0..count)
                .map(|i| swapped(problem, &path, 1, seed.index(i), &mut rng))
                .collect();
            let scores = problem.score_paths(&neighbours)?;
            let first = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
            match first {
                Some(i) if scores[i] > score => {
                    (score, path) = (scores[i], neighbours[i].clone());
                    failed = 0;
                }
                _ => failed += 1,
            }
            if score > best_score {
                (best_score, best) = (score, path.clone());
            }
            if failed == self.rounds && problem.remaining() > 0 {
                path = swapped(problem, &best, self.shaken, seed.derive("shake"), &mut rng);
                score = problem.score_paths(std::slice::from_ref(&path))?[0];
                failed = 0;
            }
            stalled = if problem.evaluations() == before {
                stalled + 1
            } else {
                0
            };
        }
        Ok(())
    }
}

/// The full state after `swaps` of its chunks, drawn at random, are given back for chunks of random clusters.
fn swapped(problem: &Problem<'_>, path: &Trajectory, swaps: usize, seed: Seed, rng: &mut ChaCha8Rng) -> Trajectory {
    let mut clusters: Vec<usize> = path.iter().map(|(cluster, _)| *cluster).collect();
    clusters.shuffle(rng);
    clusters.truncate(clusters.len().saturating_sub(swaps));
    let count = problem.pool().clusters();
    // Every cluster is as likely to be taken from, however large it is.
    clusters.extend((0..swaps).map(|_| rng.random_range(0..count)));
    completed(problem.pool(), &clusters, &mut seed.rng())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::toy::{Toy, optimum};

    #[test]
    fn it_finds_the_optimum_that_enumeration_finds() {
        let toy = Toy::new(8);
        let pool = toy.pool(4);
        let optimum = optimum(&toy, &pool);
        for seed in 0..3 {
            let found = toy.problem(&pool, 200, |mut problem| {
                LocalSearch::default()
                    .select(&mut problem, Seed(seed))
                    .expect("searches");
                assert!(problem.evaluations() <= 200);
                problem.best().iter().next().expect("a state").0
            });
            assert!(found > 0.995 * optimum, "seed {seed}: {found} of {optimum}");
        }
    }

    #[test]
    fn a_pool_of_one_cluster_is_exhausted_at_once() {
        let toy = Toy::new(1);
        let pool = toy.pool(2);
        let spent = toy.problem(&pool, 1000, |mut problem| {
            LocalSearch::default().select(&mut problem, Seed(1)).expect("searches");
            problem.evaluations()
        });
        // nothing, one chunk, two chunks
        assert_eq!(spent, 3);
    }
}
