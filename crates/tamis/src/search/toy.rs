//! A small selection problem whose scores are a formula, for tests of searches.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tamis_nn::{Fingerprint, Matrix, monitor::Silent, seed::Seed};

use crate::{
    Error, Result,
    budget::Limit,
    data::RowId,
    env::pool::{ChunkSize, Pool},
    problem::{ClusterTraits, FeatureContext, Limits, Problem},
    scorer::{Scorer, ScorerRun},
    search::{Exhaustive, Selector},
    store::{MemoryStore, ScoreStore},
};

/// Rows a cluster has.
const ROWS: usize = 6;
/// Rows a chunk has.
const CHUNK: u32 = 2;

/// Clusters whose worth shrinks with every row taken, and pairs of neighbours that are worth less together.
pub(crate) struct Toy {
    fingerprint: Fingerprint,
    clusters: usize,
    fault: Option<Fault>,
    /// The score of no rows.
    empty: f64,
    /// How often each state's score was asked for, by its rows.
    asked: Mutex<BTreeMap<Vec<RowId>, u32>>,
}

/// States that fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// One in how many states.
    pub(crate) one_in: u16,
    /// Whether they still fail at the second attempt.
    pub(crate) lasting: bool,
    pub(crate) kind: FaultKind,
}

/// How a state fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// Its score is not a number.
    NotANumber,
    /// Its score is an error.
    Score,
    /// Its rows cannot be added.
    Add,
    /// The user has asked to stop.
    Interrupted,
}

impl Fault {
    /// Whether the state of these rows, in order, is one of those that fail.
    pub(crate) fn strikes(self, rows: &[RowId]) -> bool {
        let bytes: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
        let hash = blake3::hash(&bytes);
        let hash = u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
        !rows.is_empty() && hash.is_multiple_of(self.one_in)
    }
}

impl Toy {
    pub(crate) fn new(clusters: usize) -> Self {
        Self {
            fingerprint: Fingerprint::of(["toy"]),
            clusters,
            fault: None,
            empty: 0.0,
            asked: Mutex::default(),
        }
    }

    /// The same, but some states fail.
    pub(crate) fn with(self, fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..self
        }
    }

    /// The same, but the empty state has no score.
    pub(crate) fn without_empty(self) -> Self {
        Self {
            empty: f64::NAN,
            ..self
        }
    }

    /// How often each state's score was asked for since this was last called, by its rows in order.
    pub(crate) fn asked(&self) -> BTreeMap<Vec<RowId>, u32> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A pool of `clusters` clusters of 6 rows, of which `steps` chunks of 2 rows may be taken.
    pub(crate) fn pool(&self, steps: u64) -> Pool {
        self.pool_of(CHUNK, Limit::Rows(steps * u64::from(CHUNK)))
    }

    /// The same in chunks of so many rows, with this limit; row `i` has `i % 5 + 1` tokens.
    pub(crate) fn pool_of(&self, chunk: u32, limit: Limit) -> Pool {
        let rows: Vec<RowId> = (0..(self.clusters * ROWS) as RowId).collect();
        let assignment: Vec<u32> = rows.iter().map(|row| row / ROWS as u32).collect();
        let tokens: Vec<u32> = rows.iter().map(|row| row % 5 + 1).collect();
        Pool::new(
            &rows,
            &assignment,
            &tokens,
            self.clusters,
            ChunkSize::Rows(chunk),
            limit,
            Seed(0),
        )
    }

    /// Runs `what` on a problem over `pool` that may spend so many evaluations.
    pub(crate) fn problem<T>(&self, pool: &Pool, evaluations: u64, what: impl FnOnce(Problem<'_>) -> T) -> T {
        let mut store = MemoryStore::default();
        what(self.problem_in(&mut store, pool, evaluations).expect("a problem"))
    }

    /// A problem over `pool` that may spend so many evaluations.
    pub(crate) fn problem_in<'a>(
        &'a self,
        store: &'a mut dyn ScoreStore,
        pool: &'a Pool,
        evaluations: u64,
    ) -> Result<Problem<'a>> {
        self.problem_by(self, store, pool, Limits::evaluations(evaluations))
    }

    /// A problem over `pool` that somebody else rewards.
    pub(crate) fn problem_by<'a>(
        &self,
        scorer: &'a dyn Scorer,
        store: &'a mut dyn ScoreStore,
        pool: &'a Pool,
        limits: Limits,
    ) -> Result<Problem<'a>> {
        let traits = ClusterTraits {
            label_mix: Matrix::from_vec(vec![1.0; self.clusters], self.clusters, 1),
            closeness: vec![0.5; self.clusters],
            fold_cluster: (0..self.clusters as u32).collect(),
            fold_mix: vec![1.0],
            place: Matrix::from_vec((0..self.clusters).map(|c| c as f32).collect(), self.clusters, 1),
        };
        let features = FeatureContext::new(traits, pool);
        Problem::new(pool, scorer, store, features, limits, Seed(1), &Silent)
    }

    fn worth(&self, rows: &[RowId]) -> f64 {
        let mut counts: BTreeMap<usize, f64> = BTreeMap::new();
        for &row in rows {
            *counts.entry(row as usize / ROWS).or_default() += 1.0;
        }
        let weight = |c: usize| 0.5 + 0.5 * ((c * 7 % self.clusters) as f64 / self.clusters as f64);
        let worth: f64 = counts
            .iter()
            .map(|(&c, &count)| {
                let beside = counts.get(&(c + 1)).map_or(0.0, |&other| count.min(other));
                weight(c) * count.sqrt() - 0.2 * beside
            })
            .sum();
        if rows.is_empty() { self.empty } else { worth }
    }
}

impl Scorer for Toy {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn start(&self, _seed: Seed) -> Result<Box<dyn ScorerRun + '_>> {
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

impl Run<'_> {
    fn sorted(&self) -> Vec<RowId> {
        let mut rows = self.rows.clone();
        rows.sort_unstable();
        rows
    }

    /// How the present state fails, if it does.
    fn fault(&self) -> Option<FaultKind> {
        let rows = self.sorted();
        let fault = self.toy.fault.filter(|fault| fault.strikes(&rows))?;
        let first = self
            .toy
            .asked
            .lock()
            .expect("no panic")
            .get(&rows)
            .is_none_or(|&asked| asked <= 1);
        (fault.lasting || first).then_some(fault.kind)
    }
}

/// What a proxy says that cannot score a state.
fn unable() -> Error {
    Error::NotFinite {
        place: "the toy's weights".into(),
        found: "inf".into(),
    }
}

impl ScorerRun for Run<'_> {
    fn add(&mut self, rows: &[RowId]) -> Result<()> {
        self.rows.extend(rows);
        match self.fault() {
            Some(FaultKind::Add) => Err(unable()),
            _ => Ok(()),
        }
    }

    fn score(&mut self) -> Result<f64> {
        let rows = self.sorted();
        *self.toy.asked.lock().expect("no panic").entry(rows).or_default() += 1;
        match self.fault() {
            Some(FaultKind::NotANumber) => Ok(f64::NAN),
            Some(FaultKind::Score) => Err(unable()),
            Some(FaultKind::Interrupted) => Err(Error::Interrupted),
            Some(FaultKind::Add) | None => Ok(self.toy.worth(&self.rows)),
        }
    }

    fn fork(&self) -> Box<dyn ScorerRun + '_> {
        Box::new(self.clone())
    }
}

/// The best score of any full state.
pub(crate) fn optimum(toy: &Toy, pool: &Pool) -> f64 {
    toy.problem(pool, 1_000_000, |mut problem| {
        Exhaustive.select(&mut problem, Seed(0)).expect("enumerates");
        problem.best().iter().next().expect("a state").0
    })
}
