//! A small selection problem whose scores are a formula, for tests of searches.

use std::collections::BTreeMap;

use super::{ClusterTraits, Exhaustive, FeatureContext, Limits, Problem, Selector};
use crate::{
    Fingerprint, Matrix, Result,
    budget::Limit,
    data::RowId,
    ledger::Ledger,
    monitor::Silent,
    pool::{Grain, Pool},
    proxy::{Insight, Proxy, ProxyRun},
    seed::Seed,
};

/// Rows a cluster has.
const ROWS: usize = 6;
/// Rows a chunk has.
const CHUNK: u32 = 2;

/// Clusters whose worth shrinks with every row taken, and pairs of neighbours that are worth less together.
pub(super) struct Toy {
    fingerprint: Fingerprint,
    clusters: usize,
}

impl Toy {
    pub(super) fn new(clusters: usize) -> Self {
        Self {
            fingerprint: Fingerprint::of(["toy"]),
            clusters,
        }
    }

    /// A pool of `clusters` clusters of 6 rows, of which `steps` chunks of 2 rows may be taken.
    pub(super) fn pool(&self, steps: u64) -> Pool {
        let rows: Vec<RowId> = (0..(self.clusters * ROWS) as RowId).collect();
        let assignment: Vec<u32> = rows.iter().map(|row| row / ROWS as u32).collect();
        let limit = Limit::Rows(steps * u64::from(CHUNK));
        let tokens = vec![1; rows.len()];
        Pool::new(
            &rows,
            &assignment,
            &tokens,
            self.clusters,
            (Grain::Rows(CHUNK), limit),
            Seed(0),
        )
    }

    /// Runs `what` on a problem over `pool` that may spend so many evaluations.
    pub(super) fn problem<T>(&self, pool: &Pool, evaluations: u64, what: impl FnOnce(Problem<'_>) -> T) -> T {
        let folder = tempfile::tempdir().expect("a folder");
        let mut ledger = Ledger::open(&folder.path().join("ledger.sqlite")).expect("opens");
        let traits = ClusterTraits {
            label_mix: Matrix::from_vec(vec![1.0; self.clusters], self.clusters, 1),
            closeness: vec![0.5; self.clusters],
            fold_cluster: (0..self.clusters as u32).collect(),
            fold_mix: vec![1.0],
            place: Matrix::from_vec((0..self.clusters).map(|c| c as f32).collect(), self.clusters, 1),
        };
        let limits = Limits {
            evaluations,
            seconds: None,
        };
        let features = FeatureContext::new(traits, pool);
        let problem = Problem::new(pool, self, &mut ledger, features, limits, Seed(1), &Silent);
        what(problem.expect("a problem"))
    }

    fn worth(&self, rows: &[RowId]) -> f64 {
        let mut counts: BTreeMap<usize, f64> = BTreeMap::new();
        for &row in rows {
            *counts.entry(row as usize / ROWS).or_default() += 1.0;
        }
        let weight = |c: usize| 0.5 + 0.5 * ((c * 7 % self.clusters) as f64 / self.clusters as f64);
        counts
            .iter()
            .map(|(&c, &count)| {
                let beside = counts.get(&(c + 1)).map_or(0.0, |&other| count.min(other));
                weight(c) * count.sqrt() - 0.2 * beside
            })
            .sum()
    }
}

impl Proxy for Toy {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn start(&self, _seed: Seed) -> Result<Box<dyn ProxyRun + '_>> {
        Ok(Box::new(Run {
            toy: self,
            rows: Vec::new(),
        }))
    }
}

#[derive(Clone)]
struct Run<'a> {
    toy: &'a Toy,
    rows: Vec<RowId>,
}

impl ProxyRun for Run<'_> {
    fn add(&mut self, rows: &[RowId]) -> Result<()> {
        self.rows.extend(rows);
        Ok(())
    }

    fn score(&mut self) -> Result<f64> {
        Ok(self.toy.worth(&self.rows))
    }

    fn fork(&self) -> Box<dyn ProxyRun + '_> {
        Box::new(self.clone())
    }

    fn insight(&mut self, _chunks: &[&[RowId]]) -> Result<Option<Insight>> {
        Ok(None)
    }
}

/// The best score of any full state.
pub(super) fn optimum(toy: &Toy, pool: &Pool) -> f64 {
    toy.problem(pool, 1_000_000, |mut problem| {
        Exhaustive.select(&mut problem, Seed(0)).expect("enumerates");
        problem.best().iter().next().expect("a state").0
    })
}
