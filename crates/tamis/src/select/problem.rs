//! The selection problem: pool, proxy and ledger as one Markov decision process.
//!
//! State: how many rows of each cluster are taken. Action: a cluster, whose next chunk is taken. Reward: the change of the
//! proxy's score on the reward fold, so with gamma 1 the return is the final score less the empty one. An evaluation is
//! spent when a state is scored for the first time in a run; the ledger may know the score from a run that was killed,
//! which saves the work but counts all the same, so that a run that goes on takes the same decisions.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    ops::Range,
    time::Instant,
};

use rayon::prelude::*;

use super::features::{FeatureContext, Memory};
use crate::{
    Error, Fingerprint, Matrix, Monitor, Result,
    ledger::{Key, Ledger},
    mdp::{Action, Environment, Observation, Shape, Step, Walk},
    pool::{Pool, State},
    proxy::{Proxy, ProxyRun},
    seed::Seed,
};

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The most evaluations that are spent.
    pub evaluations: u64,
    /// The most seconds, over all starts of a run; `None`: no limit. Where the clock stopped a run is kept in the ledger,
    /// so that the finished run, started again, ends with the same selection.
    pub seconds: Option<f64>,
}

/// The chunks taken on the way to a state: of which cluster, and which of its rows.
pub type Path = Vec<(usize, Range<u32>)>;

/// The best full states found, best first.
#[derive(Debug, Clone, Default)]
pub struct Best {
    states: Vec<(f64, State, Path)>,
    seen: HashSet<State>,
}

/// From how many seconds on a score is dear.
const DEAR_SECONDS: f64 = 0.1;

/// How many of the best states go to the confirm fold.
const FINALISTS: usize = 16;

impl Best {
    fn offer(&mut self, score: f64, state: &State, path: &[(usize, Range<u32>)]) {
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

/// A selection problem under way.
pub struct Problem<'a> {
    pool: &'a Pool,
    proxy: &'a dyn Proxy,
    ledger: &'a mut Ledger,
    monitor: &'a dyn Monitor,
    features: FeatureContext,
    /// What a score depends on besides the state.
    scope: Fingerprint,
    seed: Seed,
    limits: Limits,
    /// Scores asked for in this run; its size is the number of evaluations spent.
    known: HashMap<Key, f64>,
    memory: Memory,
    best: Best,
    clock: Clock,
    /// Whether the last score paid for was a dear one.
    dear: bool,

    // The episode under way.
    run: Box<dyn ProxyRun + 'a>,
    /// Chunks taken that `run` has not been given yet.
    pending: Path,
    state: State,
    legal: Vec<Option<Range<u32>>>,
    score: f64,
    path: Path,
}

/// The time limit of a run that may be killed and started again.
struct Clock {
    began: Instant,
    /// Seconds that earlier starts of this run took.
    before: f64,
    /// Seconds of this start that are noted in the ledger.
    noted: f64,
    /// How often the limit was looked at, and at which look the clock stopped the run.
    looks: Cell<u64>,
    stopped_at: Cell<Option<u64>>,
}

impl Clock {
    fn read(ledger: &Ledger) -> Result<Self> {
        Ok(Self {
            began: Instant::now(),
            before: ledger
                .meta("seconds")?
                .and_then(|text| text.parse().ok())
                .unwrap_or(0.0),
            noted: 0.0,
            looks: Cell::new(0),
            stopped_at: Cell::new(ledger.meta("stopped_at")?.and_then(|text| text.parse().ok())),
        })
    }

    fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    fn note(&mut self, ledger: &mut Ledger) -> Result<()> {
        self.noted = self.began.elapsed().as_secs_f64();
        ledger.set_meta("seconds", &self.seconds().to_string())
    }

    /// Whether time is up. Where an earlier start was stopped at a certain look, this one is stopped there too.
    fn is_up(&self, limit: f64) -> bool {
        let look = self.looks.get() + 1;
        self.looks.set(look);
        if self.stopped_at.get().is_none() && self.seconds() >= limit {
            self.stopped_at.set(Some(look));
        }
        self.stopped_at.get().is_some_and(|stopped_at| look >= stopped_at)
    }
}

impl<'a> Problem<'a> {
    /// A problem with nothing taken and nothing spent.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be read or the empty state cannot be scored.
    pub fn new(
        pool: &'a Pool,
        proxy: &'a dyn Proxy,
        ledger: &'a mut Ledger,
        features: FeatureContext,
        limits: Limits,
        seed: Seed,
        monitor: &'a dyn Monitor,
    ) -> Result<Self> {
        let clock = Clock::read(ledger)?;
        let scope = Fingerprint::of([proxy.fingerprint().as_str(), &seed.0.to_string()]);
        let state = pool.empty();
        let mut problem = Self {
            run: proxy.start(seed)?,
            legal: pool.legal(&state),
            memory: Memory::new(pool.clusters()),
            known: HashMap::new(),
            best: Best::default(),
            pending: Vec::new(),
            path: Vec::new(),
            score: 0.0,
            pool,
            proxy,
            ledger,
            monitor,
            features,
            scope,
            seed,
            limits,
            clock,
            dear: false,
            state,
        };
        let key = problem.key(&problem.state, &[]);
        problem.score = problem.scores(&[key], &|run, _| run.score())?[0];
        Ok(problem)
    }

    /// The pool that is chosen from.
    pub fn pool(&self) -> &Pool {
        self.pool
    }

    /// The best full states found so far.
    pub fn best(&self) -> &Best {
        &self.best
    }

    /// Evaluations spent.
    pub fn evaluations(&self) -> u64 {
        self.known.len() as u64
    }

    /// What turns states into features.
    pub(super) fn features(&self) -> &FeatureContext {
        &self.features
    }

    /// The score of the state in which nothing is taken.
    pub(super) fn empty_score(&self) -> f64 {
        self.known[&self.key(&self.pool.empty(), &[])]
    }

    /// Who is told of progress, and says when to stop.
    pub(super) fn monitor(&self) -> &'a dyn Monitor {
        self.monitor
    }

    /// The limits it was given.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Which actions are legal in the present state, and the places that each would take.
    pub fn legal(&self) -> &[Option<Range<u32>>] {
        &self.legal
    }

    /// Begins an episode without looking at it.
    ///
    /// # Errors
    ///
    /// If the proxy cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.state = self.pool.empty();
        self.legal = self.pool.legal(&self.state);
        self.run = self.proxy.start(self.seed)?;
        self.pending.clear();
        self.path.clear();
        self.memory.begin();
        self.score = self.empty_score();
        Ok(())
    }

    /// Takes the next chunk of a cluster and returns the change of the score.
    ///
    /// # Errors
    ///
    /// If the score cannot be had.
    ///
    /// # Panics
    ///
    /// If the action is illegal.
    pub fn take(&mut self, cluster: Action) -> Result<f64> {
        let evaluations = self.evaluations();
        let reward = self.rewards(&[cluster])?[0];
        if self.evaluations() > evaluations {
            self.memory.earned(self.path.len(), &[cluster], &[reward]);
        }
        let range = self.legal[cluster].clone().expect("a legal action");
        self.state = self.pool.after(&self.state, cluster, &range);
        self.legal = self.pool.legal(&self.state);
        self.pending.push((cluster, range.clone()));
        self.path.push((cluster, range));
        self.score = self.known[&self.key(&self.state, &self.path)];
        self.memory.took(cluster, reward);
        Ok(reward)
    }

    /// What each of these actions would earn; see [`Environment::peek`].
    fn rewards(&mut self, clusters: &[Action]) -> Result<Vec<f64>> {
        let ranges: Vec<Range<u32>> = clusters
            .iter()
            .map(|&cluster| self.legal[cluster].clone().expect("a legal action"))
            .collect();
        let states: Vec<State> = clusters
            .iter()
            .zip(&ranges)
            .map(|(&cluster, range)| self.pool.after(&self.state, cluster, range))
            .collect();
        let keys: Vec<Key> = states
            .iter()
            .zip(clusters.iter().zip(&ranges))
            .map(|(state, (&cluster, range))| {
                let path = [&self.path[..], &[(cluster, range.clone())]].concat();
                self.key(state, &path)
            })
            .collect();
        let pool = self.pool;
        let scores = self.scores(&keys, &|run, i| {
            let mut fork = run.fork();
            fork.add(pool.rows(clusters[i], &ranges[i]))?;
            fork.score()
        })?;
        for ((score, state), (&cluster, range)) in scores.iter().zip(&states).zip(clusters.iter().zip(&ranges)) {
            if self.pool.legal(state).iter().all(Option::is_none) {
                self.path.push((cluster, range.clone()));
                self.best.offer(*score, state, &self.path);
                self.path.pop();
            }
        }
        Ok(scores.iter().map(|score| score - self.score).collect())
    }

    /// Scores the states at the ends of paths without walking to them; each costs one evaluation.
    ///
    /// # Errors
    ///
    /// If a score cannot be had.
    pub fn score_paths(&mut self, paths: &[Path]) -> Result<Vec<f64>> {
        let pool = self.pool;
        let states: Vec<State> = paths.iter().map(|path| reached(pool, path)).collect();
        let keys: Vec<Key> = states
            .iter()
            .zip(paths)
            .map(|(state, path)| self.key(state, path))
            .collect();
        let (proxy, seed) = (self.proxy, self.seed);
        let scores = self.scores(&keys, &|_, i| {
            let mut run = proxy.start(seed)?;
            if proxy.path_matters() {
                for (cluster, range) in &paths[i] {
                    run.add(pool.rows(*cluster, range))?;
                }
            } else {
                for rows in pool.chunks_of(&states[i]) {
                    run.add(rows)?;
                }
            }
            run.score()
        })?;
        for ((score, state), path) in scores.iter().zip(&states).zip(paths) {
            if self.pool.legal(state).iter().all(Option::is_none) {
                self.best.offer(*score, state, path);
            }
        }
        Ok(scores)
    }

    /// The scores filed under these keys: known ones from memory, then from the ledger, the rest from the proxy, side by side.
    ///
    /// `pay(run, i)` scores state `i`, given the present run with all its chunks added.
    fn scores(
        &mut self,
        keys: &[Key],
        pay: &(dyn Fn(&mut dyn ProxyRun, usize) -> Result<f64> + Sync),
    ) -> Result<Vec<f64>> {
        if self.monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let (before, mut told) = (self.evaluations(), 0);
        let mut unpaid: Vec<usize> = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            if self.known.contains_key(key) || unpaid.iter().any(|&j| keys[j] == *key) {
                continue;
            }
            match self.ledger.get(key) {
                Some(score) => _ = self.known.insert(*key, score),
                None => unpaid.push(i),
            }
        }
        if !unpaid.is_empty() {
            self.catch_up()?;
            // Dear scores are paid for a few at a time, so that each few are on disk before the next are begun.
            let wave = if self.dear {
                rayon::current_num_threads()
            } else {
                unpaid.len()
            };
            for wave in unpaid.chunks(wave) {
                let run = &self.run;
                let paid: Vec<Result<(f64, f64)>> = wave
                    .par_iter()
                    .map(|&i| {
                        let began = Instant::now();
                        let score = pay(&mut *run.fork(), i)?;
                        if score.is_finite() {
                            Ok((score, began.elapsed().as_secs_f64()))
                        } else {
                            Err(Error::NotFinite {
                                place: "the proxy's score".into(),
                                found: score.to_string(),
                            })
                        }
                    })
                    .collect();
                for (&i, paid) in wave.iter().zip(paid) {
                    let (score, seconds) = paid?;
                    self.dear = seconds > DEAR_SECONDS;
                    self.known.insert(keys[i], score);
                    self.ledger.record(keys[i], score, seconds)?;
                }
                if self.dear {
                    self.monitor.advance(wave.len() as u64);
                    told += wave.len() as u64;
                    if self.monitor.cancelled() {
                        return Err(Error::Interrupted);
                    }
                }
            }
            if self.limits.seconds.is_some() && self.clock.began.elapsed().as_secs_f64() > self.clock.noted + 1.0 {
                self.clock.note(self.ledger)?;
            }
        }
        self.monitor.advance(self.evaluations() - before - told);
        Ok(keys.iter().map(|key| self.known[key]).collect())
    }

    /// Gives the run the chunks that it has not seen. Put off until a score has to be paid for: where the ledger knows
    /// every score of an episode, no model is ever trained.
    fn catch_up(&mut self) -> Result<()> {
        for (cluster, range) in self.pending.drain(..) {
            self.run.add(self.pool.rows(cluster, &range))?;
        }
        Ok(())
    }

    /// The chunks that these actions take, from the first state on.
    pub(super) fn path_of(&self, plan: &[Action]) -> Path {
        let mut state = self.pool.empty();
        let step = |&cluster: &Action| {
            let range = self.pool.legal(&state)[cluster].clone().expect("a legal action");
            state = self.pool.after(&state, cluster, &range);
            (cluster, range)
        };
        plan.iter().map(step).collect()
    }

    /// What a state's score is filed under; `path` counts only where the proxy looks at it.
    fn key(&self, state: &State, path: &[(usize, Range<u32>)]) -> Key {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.scope.as_ref());
        for taken in state.taken() {
            hasher.update(&taken.to_le_bytes());
        }
        if self.proxy.path_matters() {
            for (cluster, range) in path {
                hasher.update(&(*cluster as u64).to_le_bytes());
                hasher.update(&range.start.to_le_bytes());
                hasher.update(&range.end.to_le_bytes());
            }
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        key
    }

    fn observe(&mut self) -> Result<Observation> {
        if self.legal.iter().any(Option::is_some) {
            self.catch_up()?;
        }
        let at = (&self.state, self.legal.as_slice(), self.path.len());
        observe(self.pool, &self.features, at, self.score, &mut *self.run, &self.memory)
    }

    /// Brings everything to disk: waiting scores, and where the clock stopped the run.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be written.
    pub fn finish(&mut self) -> Result<()> {
        if self.limits.seconds.is_some() {
            self.clock.note(self.ledger)?;
        }
        if let Some(look) = self.clock.stopped_at.get() {
            self.ledger.set_meta("stopped_at", &look.to_string())?;
        }
        self.ledger.commit()
    }
}

impl Environment for Problem<'_> {
    fn shape(&self) -> Shape {
        self.features.shape()
    }

    fn reset(&mut self, _seed: Seed) -> Result<Observation> {
        self.restart()?;
        self.observe()
    }

    fn step(&mut self, action: Action) -> Result<Step> {
        let reward = self.take(action)?;
        let observation = self.observe()?;
        let terminated = !observation.legal.contains(&true);
        Ok(Step {
            observation,
            reward,
            terminated,
            truncated: false,
        })
    }

    fn peek(&mut self, actions: &[Action]) -> Result<Vec<f64>> {
        let rewards = self.rewards(actions)?;
        self.memory.earned(self.path.len(), actions, &rewards);
        Ok(rewards)
    }

    fn evaluate(&mut self, plans: &[Vec<Action>]) -> Result<Vec<f64>> {
        let paths: Vec<Path> = plans.iter().map(|plan| self.path_of(plan)).collect();
        let scores = self.score_paths(&paths)?;
        let empty = self.empty_score();
        Ok(scores.iter().map(|score| score - empty).collect())
    }

    fn walk(&self) -> Result<Box<dyn Walk + '_>> {
        let state = self.pool.empty();
        let mut memory = self.memory.clone();
        memory.begin();
        Ok(Box::new(Stroll {
            legal: self.pool.legal(&state),
            run: self.proxy.start(self.seed)?,
            score: self.empty_score(),
            steps: 0,
            problem: self,
            memory,
            state,
        }))
    }

    fn remaining(&self) -> u64 {
        match self.limits.seconds {
            Some(limit) if self.clock.is_up(limit) => 0,
            _ => self.limits.evaluations.saturating_sub(self.evaluations()),
        }
    }
}

/// An imagined episode of a problem.
struct Stroll<'a> {
    problem: &'a Problem<'a>,
    run: Box<dyn ProxyRun + 'a>,
    memory: Memory,
    state: State,
    legal: Vec<Option<Range<u32>>>,
    score: f64,
    steps: usize,
}

impl Stroll<'_> {
    fn range(&self, cluster: Action) -> Range<u32> {
        self.legal[cluster].clone().expect("a legal action")
    }
}

impl Walk for Stroll<'_> {
    fn observe(&mut self) -> Result<Observation> {
        let at = (&self.state, self.legal.as_slice(), self.steps);
        let features = &self.problem.features;
        observe(
            self.problem.pool,
            features,
            at,
            self.score,
            &mut *self.run,
            &self.memory,
        )
    }

    fn take(&mut self, cluster: Action, reward: f64) -> Result<()> {
        let (pool, range) = (self.problem.pool, self.range(cluster));
        self.run.add(pool.rows(cluster, &range))?;
        self.state = pool.after(&self.state, cluster, &range);
        self.legal = pool.legal(&self.state);
        self.score += reward;
        self.steps += 1;
        Ok(())
    }

    fn outlook(&mut self, clusters: &[Action]) -> Result<Matrix> {
        let pool = self.problem.pool;
        let described: Vec<f32> = clusters
            .iter()
            .flat_map(|&cluster| {
                let state = pool.after(&self.state, cluster, &self.range(cluster));
                self.problem.features.describe(pool, &state)
            })
            .collect();
        Ok(Matrix::from_vec(
            described,
            clusters.len(),
            self.problem.shape().state_features,
        ))
    }
}

/// The state at the end of a path.
pub(super) fn reached(pool: &Pool, path: &[(usize, Range<u32>)]) -> State {
    path.iter().fold(pool.empty(), |state, (cluster, range)| {
        pool.after(&state, *cluster, range)
    })
}

/// What an agent sees of a state, given the places that each action would take there, the steps that led to it, and a run that
/// has been given its chunks.
fn observe(
    pool: &Pool,
    features: &FeatureContext,
    (state, ranges, step): (&State, &[Option<Range<u32>>], usize),
    score: f64,
    run: &mut dyn ProxyRun,
    memory: &Memory,
) -> Result<Observation> {
    let legal: Vec<bool> = ranges.iter().map(Option::is_some).collect();
    let chunks = ranges
        .iter()
        .enumerate()
        .filter_map(|(cluster, range)| Some(pool.rows(cluster, range.as_ref()?)));
    let insight = if legal.contains(&true) {
        run.insight(&chunks.collect::<Vec<_>>())?
    } else {
        None
    };
    let (actions, global) = features.observe(pool, (state, ranges), score, insight.as_ref(), memory);
    Ok(Observation {
        actions,
        global,
        step,
        legal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mdp::conformance, select::toy::Toy};

    #[test]
    fn it_keeps_what_agents_rely_on() {
        let toy = Toy::new(5);
        let pool = toy.pool(4);
        toy.problem(&pool, 1000, |mut problem| {
            let broken = conformance::check(&mut problem, 5, Seed(2)).expect("runs");
            assert_eq!(broken, Vec::<String>::new());
        });
    }
}
