//! The selection problem: pool, proxy and store as one Markov decision process.
//!
//! State: how many rows of each cluster are taken. Action: a cluster, whose next chunk is taken. Reward: the change of the
//! proxy's score on the reward fold, so with gamma 1 the return is the final score less the empty one. An evaluation is
//! spent when a state is scored for the first time in a run; the store may know the score from a run that was killed,
//! which saves the work but counts all the same, so that a run that goes on takes the same decisions.
//!
//! A state that cannot be scored, nor at a second attempt, is marked failed in the store. It counts as an evaluation, is never
//! among the best, and agents are told the lowest score that the run had met by then, so that nothing draws them there. Beyond a
//! few percent of such states the run stops.
//!
//! A scorer of whole selections ([`Scorer::batch`]) is asked in rounds, for all states of a round at once, and says what each cost. The
//! empty state, on which nobody could train, counts as 0 there.

mod curve;
mod deadline;
mod features;
mod top_states;
mod trajectory;

pub use curve::{Curve, EPISODES_KEPT, Episode, Improvement};
pub use features::{ClusterTraits, FeatureContext};
pub use top_states::Best;
pub use trajectory::Trajectory;
pub(crate) use trajectory::reached;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    ops::Range,
    rc::Rc,
    time::Instant,
};

use rayon::prelude::*;
use tamis_nn::{Fingerprint, Matrix, Monitor, fingerprint::first_half, seed::Seed};

use crate::{
    Error, Result,
    env::{
        Action, Environment, Observation, Shape, Simulation, Step,
        pool::{Pool, State},
    },
    problem::{deadline::Deadline, features::Memory},
    scorer::{
        Scorer, ScorerRun,
        batch::{self, BatchScorer, Selection},
    },
    store::{Answer, Key, ScoreStore},
};

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The most evaluations that are spent.
    pub evaluations: u64,
    /// The most seconds, over all starts of a run; `None`: no limit. Where the clock stopped a run is kept in the store,
    /// so that the finished run, started again, ends with the same selection.
    pub seconds: Option<f64>,
    /// From what cost on nothing more is asked for, in the unit of whoever scores whole selections; `None`: no limit.
    pub cost: Option<f64>,
}

impl Limits {
    /// So many evaluations, however long they take.
    pub fn evaluations(evaluations: u64) -> Self {
        Self {
            evaluations,
            seconds: None,
            cost: None,
        }
    }
}

/// From how many seconds on a score is slow.
const SLOW_SECONDS: f64 = 0.1;

/// The most evaluations that may fail, in percent, and how many may whatever the share.
const FAILURES_ALLOWED: (u64, u64) = (5, 5);

/// A selection problem under way.
pub struct Problem<'a> {
    pool: &'a Pool,
    proxy: &'a dyn Scorer,
    store: &'a mut dyn ScoreStore,
    monitor: &'a dyn Monitor,
    features: FeatureContext,
    /// A cheap proxy whose score of a state is one of its features.
    hint: Option<&'a dyn Scorer>,
    /// What a score depends on besides the state.
    scope: Fingerprint,
    seed: Seed,
    limits: Limits,
    /// Scores asked for in this run, stand-ins for failed ones among them; its size is the number of evaluations spent.
    known: HashMap<Key, f64>,
    /// The states of this run that could not be scored.
    failed: HashSet<Key>,
    /// The lowest score of this run.
    worst: f64,
    memory: Memory,
    best: Best,
    /// Shared, because an agent holds the problem while it reports.
    curve: Rc<RefCell<Curve>>,
    deadline: Deadline,
    /// Whether the last score paid for was a slow one.
    slow: bool,
    /// What the scores of whole selections have cost.
    cost: f64,
    /// The score of the state in which nothing is taken; 0 where whole selections are scored.
    empty_score: f64,

    // The episode under way.
    run: Box<dyn ScorerRun + 'a>,
    /// Chunks taken that `run` has not been given yet.
    pending: Trajectory,
    state: State,
    legal: Vec<Option<Range<u32>>>,
    score: f64,
    path: Trajectory,
}

/// What a proxy's run is given before it scores a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Nothing: a whole state is scored.
    Nothing,
    /// The chunks taken in the episode under way: what comes next is scored.
    Present,
}

impl<'a> Problem<'a> {
    /// A problem with nothing taken and nothing spent.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or the empty state cannot be scored, nor at a second attempt.
    pub fn new(
        pool: &'a Pool,
        proxy: &'a dyn Scorer,
        store: &'a mut dyn ScoreStore,
        features: FeatureContext,
        limits: Limits,
        seed: Seed,
        monitor: &'a dyn Monitor,
    ) -> Result<Self> {
        let scope = Fingerprint::of([proxy.fingerprint().as_str(), &seed.0.to_string()]);
        let deadline = Deadline::read(store, scope.as_str())?;
        let curve = Rc::new(RefCell::new(Curve::read(store, scope.as_str())?));
        let state = pool.empty();
        let mut problem = Self {
            run: proxy.start(seed)?,
            legal: pool.legal(&state),
            memory: Memory::new(pool.clusters()),
            known: HashMap::new(),
            failed: HashSet::new(),
            worst: f64::INFINITY,
            best: Best::default(),
            pending: Vec::new(),
            path: Vec::new(),
            score: 0.0,
            pool,
            proxy,
            store,
            monitor,
            features,
            hint: None,
            scope,
            seed,
            limits,
            curve,
            deadline,
            slow: false,
            cost: 0.0,
            empty_score: 0.0,
            state,
        };
        if proxy.batch().is_none() {
            let state = problem.state.clone();
            let key = problem.key(&state, &[]);
            let asked = Asked {
                keys: &[key],
                states: &[state],
            };
            problem.empty_score = problem.scores(&asked, Start::Present, &|run, _| run.score())?[0];
            problem.score = problem.empty_score;
        }
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

    /// How many of the evaluations failed.
    pub fn failures(&self) -> u64 {
        self.failed.len() as u64
    }

    /// The learning curves so far.
    pub fn curve(&self) -> Curve {
        self.curve.borrow().clone()
    }

    /// Where an agent's reports go.
    pub(crate) fn log(&self) -> Rc<RefCell<Curve>> {
        Rc::clone(&self.curve)
    }

    /// Lets models of the score read what a cheap proxy makes of a state: a few slow scores then correct many cheap ones.
    pub fn with_hint(mut self, hint: &'a dyn Scorer) -> Self {
        self.hint = Some(hint);
        self
    }

    /// What a model of the score reads of states, shape `(states, state_features)`; it costs no evaluation.
    ///
    /// # Errors
    ///
    /// If the cheap proxy, where there is one, cannot be trained.
    pub(crate) fn describe(&self, states: &[State]) -> Result<Matrix> {
        let (pool, features, hint, seed) = (self.pool, &self.features, self.hint, self.seed);
        let one = |state: &State| -> Result<Vec<f32>> {
            let mut described = features.describe(pool, state);
            if let Some(hint) = hint {
                let mut run = hint.start(seed)?;
                for rows in pool.chunks_of(state) {
                    run.add(rows)?;
                }
                described.push(run.score()? as f32);
            }
            Ok(described)
        };
        let described = states.par_iter().map(one).collect::<Result<Vec<Vec<f32>>>>()?;
        Ok(Matrix::from_vec(
            described.concat(),
            states.len(),
            self.shape().state_features,
        ))
    }

    /// The score of the state in which nothing is taken.
    pub(crate) fn empty_score(&self) -> f64 {
        self.empty_score
    }

    /// Who is told of progress, and says when to stop.
    pub(crate) fn monitor(&self) -> &'a dyn Monitor {
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
        Ok(reward)
    }

    /// What each of these actions would earn; see [`Environment::lookahead`].
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
        let asked = Asked {
            keys: &keys,
            states: &states,
        };
        let scores = self.scores(&asked, Start::Present, &|run, i| {
            run.add(pool.rows(clusters[i], &ranges[i]))?;
            run.score()
        })?;
        for (i, state) in states.iter().enumerate() {
            if self.is_final(&keys[i], state) {
                let path = [&self.path[..], &[(clusters[i], ranges[i].clone())]].concat();
                self.offer(scores[i], state, &path);
            }
        }
        Ok(scores.iter().map(|score| score - self.score).collect())
    }

    /// Scores the states at the ends of paths without walking to them; each costs one evaluation.
    ///
    /// # Errors
    ///
    /// If a score cannot be had.
    pub fn score_paths(&mut self, paths: &[Trajectory]) -> Result<Vec<f64>> {
        let pool = self.pool;
        let states: Vec<State> = paths.iter().map(|path| reached(pool, path)).collect();
        let keys: Vec<Key> = states
            .iter()
            .zip(paths)
            .map(|(state, path)| self.key(state, path))
            .collect();
        let (proxy, seed) = (self.proxy, self.seed);
        let asked = Asked {
            keys: &keys,
            states: &states,
        };
        let scores = self.scores(&asked, Start::Nothing, &|_, i| {
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
        for (i, state) in states.iter().enumerate() {
            if self.is_final(&keys[i], state) {
                self.offer(scores[i], state, &paths[i]);
            }
        }
        Ok(scores)
    }

    /// Whether a state has a score of its own and nothing can be added to it.
    fn is_final(&self, key: &Key, state: &State) -> bool {
        !self.failed.contains(key) && self.pool.legal(state).iter().all(Option::is_none)
    }

    /// A full state has this score.
    fn offer(&mut self, score: f64, state: &State, path: &[(usize, Range<u32>)]) {
        self.best.offer(score, state, path);
        self.curve.borrow_mut().offer(score, state, self.store);
    }

    /// The scores filed under these keys: known ones from memory, then from the store, the rest from the scorer, side by side.
    /// What cannot be scored has the lowest score of the run.
    ///
    /// `pay(run, i)` scores state `i`, given a fork of the present run, with all its chunks added if it starts there.
    fn scores(&mut self, asked: &Asked<'_>, start: Start, pay: &Pay<'_>) -> Result<Vec<f64>> {
        self.monitor.proceed()?;
        let (before, keys, proxy) = (self.evaluations(), asked.keys, self.proxy);
        let Looked { mut unpaid, mut failed } = self.look_up(keys)?;
        let reported = if let Some(scorer) = proxy.batch() {
            self.pay_for_selections(scorer, asked, &unpaid, &mut failed)?
        } else {
            if !unpaid.is_empty() && start == Start::Present {
                match self.catch_up() {
                    // What leads to these states cannot be trained, nor at a second attempt; so neither can they.
                    Err(error) if is_failure(&error) => {
                        for i in unpaid.drain(..) {
                            self.store.record_failure(keys[i], &error.to_string(), 0.0)?;
                            failed.push(keys[i]);
                        }
                    }
                    caught_up => caught_up?,
                }
            }
            self.pay_for(keys, &unpaid, &mut failed, pay)?
        };
        // Only now, when all that could be scored is: a run that goes on, and has some of it from the store, does the same.
        self.known.extend(failed.iter().map(|key| (*key, self.worst)));
        self.failed.extend(&failed);
        self.monitor.advance(self.evaluations() - before - reported);
        self.curve.borrow_mut().spent(self.evaluations(), self.store);
        if !failed.is_empty() {
            self.check_failures(keys)?;
        }
        Ok(keys.iter().map(|key| self.known[key]).collect())
    }

    /// Learns what the store knows of these keys; says what has to be paid for, and what is known to fail.
    fn look_up(&mut self, keys: &[Key]) -> Result<Looked> {
        let (mut unpaid, mut failed): (Vec<usize>, Vec<Key>) = (Vec::new(), Vec::new());
        for (i, key) in keys.iter().enumerate() {
            if self.known.contains_key(key) || failed.contains(key) || unpaid.iter().any(|&j| keys[j] == *key) {
                continue;
            }
            if self.proxy.batch().is_some()
                && let Some(answer) = self.store.answer(key)?
            {
                self.learn_answer(*key, &answer);
            } else if let Some(score) = self.store.get(key) {
                self.learn(*key, score);
            } else if self.store.failure(key).is_some() {
                failed.push(*key);
            } else {
                unpaid.push(i);
            }
        }
        Ok(Looked { unpaid, failed })
    }

    /// Has these states scored as whole selections, each answer stored as it comes; what cannot be scored goes to `failed`. Returns how many
    /// evaluations the monitor was told of.
    fn pay_for_selections(
        &mut self,
        scorer: &dyn BatchScorer,
        asked: &Asked<'_>,
        unpaid: &[usize],
        failed: &mut Vec<Key>,
    ) -> Result<u64> {
        let rows: Vec<Vec<_>> = unpaid.iter().map(|&i| self.pool.rows_of(&asked.states[i])).collect();
        let seed = self.seed;
        let selections: Vec<Selection<'_>> = rows.iter().map(|rows| Selection { rows, seed }).collect();
        let (monitor, mut failures) = (self.monitor, Vec::new());
        scorer.score_all(&selections, monitor, &mut |place, answer| {
            let key = asked.keys[unpaid[place]];
            match answer {
                Ok(answer) => {
                    self.store.record_answer(&key, &answer)?;
                    self.learn_answer(key, &answer);
                }
                Err(error) if is_failure(&error) => failures.push((key, error)),
                Err(error) => return Err(error),
            }
            monitor.advance(1);
            Ok(())
        })?;
        if self.known.is_empty()
            && let Some((_, error)) = failures.pop()
        {
            // Nothing could be scored: without any score nothing can be made of a failure.
            return Err(error);
        }
        for (key, error) in failures {
            self.store.record_failure(key, &error.to_string(), 0.0)?;
            failed.push(key);
        }
        Ok(unpaid.len() as u64)
    }

    /// A whole selection has this answer: its score, and what it cost where that was said.
    fn learn_answer(&mut self, key: Key, answer: &Answer) {
        self.cost += answer.numbers.get(1).copied().unwrap_or(0.0);
        self.learn(key, answer.numbers[0]);
    }

    /// Scores these states and stores what comes of it; what fails, also at a second attempt, goes to `failed`. Returns how many
    /// evaluations the monitor was told of: slow scores are paid for a few at a time, so that each few are stored before the next begin.
    fn pay_for(&mut self, keys: &[Key], unpaid: &[usize], failed: &mut Vec<Key>, pay: &Pay<'_>) -> Result<u64> {
        let mut reported = 0;
        let wave = if self.slow {
            rayon::current_num_threads()
        } else {
            unpaid.len().max(1)
        };
        for wave in unpaid.chunks(wave) {
            let run = &self.run;
            let paid: Vec<(Result<f64>, f64)> = wave.par_iter().map(|&i| timed(&**run, i, pay)).collect();
            for (&i, (paid, seconds)) in wave.iter().zip(paid) {
                match paid {
                    Ok(score) => {
                        self.slow = seconds > SLOW_SECONDS;
                        self.learn(keys[i], score);
                        self.store.record(keys[i], score, seconds)?;
                    }
                    // Without the empty state's score nothing can be made of a failure.
                    Err(error) if is_failure(&error) && !self.known.is_empty() => {
                        self.store.record_failure(keys[i], &error.to_string(), seconds)?;
                        failed.push(keys[i]);
                    }
                    Err(error) => return Err(error),
                }
            }
            if self.slow {
                self.monitor.advance(wave.len() as u64);
                reported += wave.len() as u64;
                self.monitor.proceed()?;
            }
        }
        Ok(reported)
    }

    /// A state has this score.
    fn learn(&mut self, key: Key, score: f64) {
        self.worst = self.worst.min(score);
        self.known.insert(key, score);
    }

    /// Stops a run that is left with too few scores; the last failure is among `keys`.
    fn check_failures(&self, keys: &[Key]) -> Result<()> {
        let (failed, evaluations) = (self.failures(), self.evaluations());
        let (percent, few) = FAILURES_ALLOWED;
        if failed <= few || 100 * failed <= percent * evaluations {
            return Ok(());
        }
        let last = keys.iter().rev().find_map(|key| self.store.failure(key));
        Err(Error::TooManyFailures {
            failed,
            evaluations,
            allowed: percent,
            last: last.unwrap_or_default().to_owned(),
        })
    }

    /// Gives the run the chunks that it has not seen. Put off until a score has to be paid for: where the store knows
    /// every score of an episode, no model is ever trained.
    fn catch_up(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let first = add(&mut *self.run, self.pool, &self.pending);
        if first.as_ref().is_err_and(is_failure) {
            // What a run holds after it failed is not known, so the second attempt is a new one; if that fails as well, so is the next.
            self.run = self.proxy.start(self.seed)?;
            self.pending.clone_from(&self.path);
            let mut run = self.proxy.start(self.seed)?;
            add(&mut *run, self.pool, &self.path)?;
            self.run = run;
        } else {
            first?;
        }
        self.pending.clear();
        Ok(())
    }

    /// The chunks that these actions take, from the first state on.
    pub(crate) fn path_of(&self, plan: &[Action]) -> Trajectory {
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
        if let Some(scorer) = self.proxy.batch() {
            // So that who compares whole selections later finds them paid for.
            let (rows, seed) = (self.pool.rows_of(state), self.seed);
            return batch::key(scorer, &Selection { rows: &rows, seed });
        }
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
        first_half(hasher.finalize())
    }

    fn observe(&mut self) -> Result<Observation> {
        let failed = self.failed.contains(&self.key(&self.state, &self.path));
        if !failed && self.legal.iter().any(Option::is_some) {
            self.catch_up()?;
        }
        let at = At {
            state: &self.state,
            ranges: &self.legal,
            step: self.path.len(),
        };
        // A model that could not be scored has nothing to tell.
        let run = (!failed).then_some(&mut *self.run);
        observe(self.pool, &self.features, at, self.score, run, &self.memory)
    }

    /// Brings everything to disk: waiting scores, how long the search took, and where the clock stopped it.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn finish(&mut self) -> Result<()> {
        self.deadline.note(self.store, self.scope.as_str())?;
        self.curve.borrow_mut().finish(self.store);
        self.store.commit()
    }
}

/// Scores state `i` with a fork of the run that it is given.
type Pay<'p> = dyn Fn(&mut dyn ScorerRun, usize) -> Result<f64> + Sync + 'p;

/// States whose scores are asked for, and what these are filed under.
struct Asked<'a> {
    keys: &'a [Key],
    states: &'a [State],
}

/// What the store says of some states.
struct Looked {
    /// The places of those that have to be paid for.
    unpaid: Vec<usize>,
    /// Those that failed in an earlier start.
    failed: Vec<Key>,
}

/// A score, tried twice if need be, and the seconds that it took.
fn timed(run: &(dyn ScorerRun + '_), i: usize, pay: &Pay<'_>) -> (Result<f64>, f64) {
    let began = Instant::now();
    let attempt = || finite(pay(&mut *run.fork(), i));
    let score = match attempt() {
        Err(error) if is_failure(&error) => attempt(),
        first => first,
    };
    (score, began.elapsed().as_secs_f64())
}

/// A score, or the error that it is none.
fn finite(score: Result<f64>) -> Result<f64> {
    match score {
        Ok(score) if !score.is_finite() => Err(Error::NotFinite {
            place: "the proxy's score".into(),
            found: score.to_string(),
        }),
        other => other,
    }
}

/// Whether an error tells of the state that was to be scored, and not of the run as a whole.
fn is_failure(error: &Error) -> bool {
    !matches!(error, Error::Interrupted | Error::Ledger { .. } | Error::Io { .. })
}

/// Gives a run these chunks.
fn add(run: &mut dyn ScorerRun, pool: &Pool, chunks: &[(usize, Range<u32>)]) -> Result<()> {
    chunks
        .iter()
        .try_for_each(|(cluster, range)| run.add(pool.rows(*cluster, range)))
}

impl Environment for Problem<'_> {
    fn shape(&self) -> Shape {
        let shape = self.features.shape();
        Shape {
            state_features: shape.state_features + usize::from(self.hint.is_some()),
            ..shape
        }
    }

    fn reset(&mut self, _seed: Seed) -> Result<Observation> {
        self.restart()?;
        self.observe()
    }

    fn step(&mut self, action: Action) -> Result<Step> {
        let reward = self.take(action)?;
        Ok(Step::to(self.observe()?, reward))
    }

    fn lookahead(&mut self, actions: &[Action]) -> Result<Vec<f64>> {
        let rewards = self.rewards(actions)?;
        self.memory.earned(self.path.len(), actions, &rewards);
        Ok(rewards)
    }

    fn evaluate_plans(&mut self, plans: &[Vec<Action>]) -> Result<Vec<f64>> {
        let paths: Vec<Trajectory> = plans.iter().map(|plan| self.path_of(plan)).collect();
        let scores = self.score_paths(&paths)?;
        let empty = self.empty_score();
        Ok(scores.iter().map(|score| score - empty).collect())
    }

    fn simulate(&self) -> Result<Box<dyn Simulation + '_>> {
        let state = self.pool.empty();
        Ok(Box::new(SimulatedEpisode {
            legal: self.pool.legal(&state),
            score: self.empty_score(),
            steps: 0,
            problem: self,
            state,
        }))
    }

    fn remaining(&self) -> u64 {
        if self.limits.cost.is_some_and(|limit| self.cost >= limit) {
            return 0;
        }
        match self.limits.seconds {
            // What an earlier start has paid for is not charged again while this one repeats it.
            Some(limit) if self.deadline.is_up(self.curve.borrow_mut().now(), limit) => 0,
            _ => self.limits.evaluations.saturating_sub(self.evaluations()),
        }
    }
}

/// An imagined episode of a problem.
struct SimulatedEpisode<'a, 'p> {
    problem: &'a Problem<'p>,
    state: State,
    legal: Vec<Option<Range<u32>>>,
    score: f64,
    steps: usize,
}

impl SimulatedEpisode<'_, '_> {
    fn range(&self, cluster: Action) -> Range<u32> {
        self.legal[cluster].clone().expect("a legal action")
    }
}

impl Simulation for SimulatedEpisode<'_, '_> {
    fn observe(&mut self) -> Result<Observation> {
        let at = At {
            state: &self.state,
            ranges: &self.legal,
            step: self.steps,
        };
        let (pool, features) = (self.problem.pool, &self.problem.features);
        observe(pool, features, at, self.score, None, &self.problem.memory)
    }

    fn take(&mut self, cluster: Action, reward: f64) -> Result<()> {
        let (pool, range) = (self.problem.pool, self.range(cluster));
        self.state = pool.after(&self.state, cluster, &range);
        self.legal = pool.legal(&self.state);
        self.score += reward;
        self.steps += 1;
        Ok(())
    }

    fn afterstates(&mut self, clusters: &[Action]) -> Result<Matrix> {
        let pool = self.problem.pool;
        let after = clusters
            .iter()
            .map(|&cluster| pool.after(&self.state, cluster, &self.range(cluster)));
        self.problem.describe(&after.collect::<Vec<State>>())
    }
}

/// Where an episode is.
#[derive(Clone, Copy)]
struct At<'a> {
    state: &'a State,
    /// The places that each action would take there.
    ranges: &'a [Option<Range<u32>>],
    /// The steps that led there.
    step: usize,
}

/// What an agent sees of a state, given a run that has been given its chunks; without a run it sees no
/// [`Insight`](crate::scorer::Insight).
fn observe(
    pool: &Pool,
    features: &FeatureContext,
    at: At<'_>,
    score: f64,
    run: Option<&mut (dyn ScorerRun + '_)>,
    memory: &Memory,
) -> Result<Observation> {
    let At { state, ranges, step } = at;
    let legal: Vec<bool> = ranges.iter().map(Option::is_some).collect();
    let chunks = ranges
        .iter()
        .enumerate()
        .filter_map(|(cluster, range)| Some(pool.rows(cluster, range.as_ref()?)));
    let insight = match run {
        Some(run) if legal.contains(&true) => run.insight(&chunks.collect::<Vec<_>>())?,
        _ => None,
    };
    let (actions, global) = features.observe(pool, state, ranges, score, insight.as_ref(), memory);
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
    use crate::store::{MemoryStore, SqliteStore};
    use crate::{
        agents::dqn::{Dqn, DqnSettings},
        env::checker,
        search::{
            Greedy, LearnedSelector, Random, Selector,
            toy::{Fault, FaultKind, Toy},
        },
    };

    #[test]
    fn it_keeps_what_agents_rely_on() {
        let toy = Toy::new(5);
        let pool = toy.pool(4);
        toy.problem(&pool, 1000, |mut problem| {
            let broken = checker::check(&mut problem, 5, Seed(2)).expect("runs");
            assert_eq!(broken, Vec::<String>::new());
        });
        // And where a cheap proxy tells of states: its score is their last feature.
        let (cheap, mut store) = (Toy::new(5), MemoryStore::default());
        let problem = toy.problem_in(&mut store, &pool, 1000).expect("a problem");
        let mut problem = problem.with_hint(&cheap);
        let broken = checker::check(&mut problem, 5, Seed(2)).expect("runs");
        assert_eq!(broken, Vec::<String>::new());
        let path = problem.path_of(&[3, 1]);
        let described = problem.describe(&[reached(&pool, &path)]).expect("describes");
        let score = problem.score_paths(&[path]).expect("scores")[0];
        assert_eq!(described.row(0).last(), Some(&(score as f32)));
    }

    /// What a search found: scores and states, best first, and its failures.
    type Found = (Vec<(f64, State)>, u64);

    fn found(problem: &mut Problem<'_>, selector: &mut dyn Selector) -> Result<Found> {
        selector.select(problem, Seed(3))?;
        problem.finish()?;
        let best = problem.best().iter();
        let best = best.map(|(score, state, _)| (score, state.clone())).collect();
        Ok((best, problem.failures()))
    }

    fn ledger(folder: &tempfile::TempDir) -> SqliteStore {
        SqliteStore::open(&folder.path().join("ledger.sqlite")).expect("opens")
    }

    const RARE: Fault = Fault {
        one_in: 60,
        lasting: true,
        kind: FaultKind::NotANumber,
    };

    #[test]
    fn a_state_that_fails_once_is_as_good_as_any_other() {
        let (sound, flaky) = (
            Toy::new(20),
            Toy::new(20).with(Fault {
                one_in: 3,
                lasting: false,
                ..RARE
            }),
        );
        let pool = sound.pool(6);
        let want = sound.problem(&pool, 300, |mut problem| {
            found(&mut problem, &mut Greedy { candidates: 4 })
        });
        let have = flaky.problem(&pool, 300, |mut problem| {
            found(&mut problem, &mut Greedy { candidates: 4 })
        });
        assert_eq!(have.expect("runs"), want.expect("runs"));
        assert!(flaky.asked().values().filter(|&&asked| asked == 2).count() > 50);
    }

    #[test]
    fn a_few_states_that_always_fail_are_never_chosen_and_stop_nothing() {
        let plain = DqnSettings {
            lookahead: 0,
            gradient_steps: 0,
            exploration_initial_eps: 1.0,
            exploration_final_eps: 1.0,
            ..DqnSettings::default()
        };
        // Where rows cannot be added, what lies behind them fails as well.
        for (kind, one_in) in [
            (FaultKind::NotANumber, 60),
            (FaultKind::Score, 60),
            (FaultKind::Add, 200),
        ] {
            let fault = Fault { one_in, kind, ..RARE };
            let toy = Toy::new(20).with(fault);
            let pool = toy.pool(6);
            for name in ["greedy", "random", "dqn"] {
                let folder = tempfile::tempdir().expect("a folder");
                let mut ledger = ledger(&folder);
                let mut problem = toy.problem_in(&mut ledger, &pool, 400).expect("a problem");
                let mut selector: Box<dyn Selector> = match name {
                    "greedy" => Box::new(Greedy { candidates: 4 }),
                    "random" => Box::new(Random),
                    // It takes what it has not looked at, failing states as well.
                    _ => Box::new(LearnedSelector(
                        Dqn::new(problem.shape(), plain.clone(), Seed(4)).expect("sound settings"),
                    )),
                };
                let (best, failures) = found(&mut problem, &mut *selector).expect("goes on");
                assert!(
                    failures > 0 && problem.evaluations() == 400,
                    "{name}, {kind:?}: {failures}"
                );
                for (score, state) in best {
                    let mut rows = pool.rows_of(&state);
                    rows.sort_unstable();
                    assert!(score.is_finite() && !fault.strikes(&rows), "{name}, {kind:?}: {rows:?}");
                }
                drop(problem);
                assert_eq!(ledger.len() as u64 + failures, 400, "{name}, {kind:?}");
            }
        }
    }

    #[test]
    fn agents_are_told_the_lowest_score_of_a_state_that_failed() {
        let fault = Fault { one_in: 6, ..RARE };
        let toy = Toy::new(20).with(fault);
        let pool = toy.pool(6);
        toy.problem(&pool, 1000, |mut problem| {
            let all: Vec<Action> = (0..20).collect();
            let rewards = problem.lookahead(&all).expect("peeks");
            let failed = |&cluster: &Action| {
                let mut rows = pool.rows(cluster, &(0..2)).to_vec();
                rows.sort_unstable();
                fault.strikes(&rows)
            };
            assert!(problem.failures() > 0);
            for cluster in all {
                // Nothing is worth less than no rows at all.
                let empty = rewards[cluster] == 0.0;
                assert_eq!(empty, failed(&cluster), "cluster {cluster}: {}", rewards[cluster]);
            }
        });
    }

    #[test]
    fn too_many_failures_stop_the_run_and_say_why() {
        let toy = Toy::new(20).with(Fault {
            one_in: 10,
            kind: FaultKind::Score,
            ..RARE
        });
        let pool = toy.pool(6);
        let folder = tempfile::tempdir().expect("a folder");
        let mut ledger = ledger(&folder);
        let mut stopped = || {
            let mut problem = toy.problem_in(&mut ledger, &pool, 1000).expect("a problem");
            found(&mut problem, &mut Random).expect_err("too many")
        };
        let error = stopped();
        let Error::TooManyFailures {
            failed, evaluations, ..
        } = error
        else {
            panic!("{error}");
        };
        assert!(failed > 5 && 20 * failed > evaluations && evaluations < 200, "{error}");
        assert!(
            error
                .to_string()
                .ends_with("the last time: the toy's weights: expected finite numbers, found inf"),
            "{error}"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("out")) && !error.is_input());
        // Started again, it says the same and asks for nothing.
        toy.asked();
        assert_eq!(stopped().to_string(), error.to_string());
        assert!(toy.asked().is_empty());
    }

    #[test]
    fn a_run_that_goes_on_asks_for_no_state_again_failed_or_not() {
        let toy = Toy::new(20).with(RARE);
        let pool = toy.pool(6);
        for random in [false, true] {
            let run = |ledger: &mut SqliteStore, evaluations: u64| {
                let mut problem = toy.problem_in(ledger, &pool, evaluations).expect("a problem");
                let mut selector: Box<dyn Selector> = if random {
                    Box::new(Random)
                } else {
                    Box::new(Greedy { candidates: 4 })
                };
                let found = found(&mut problem, &mut *selector).expect("runs");
                let tell = |best: &crate::problem::Improvement| (best.evaluations, best.reward);
                (
                    found,
                    problem.curve().improvements().iter().map(tell).collect::<Vec<_>>(),
                )
            };
            let folder = tempfile::tempdir().expect("a folder");
            let ((_, early), _) = run(&mut ledger(&folder), 256);
            let first = toy.asked();
            let there = run(&mut ledger(&folder), 512);
            let second = toy.asked();
            assert!(early > 0 && second.len() > 200);
            assert!(
                second.keys().all(|state| !first.contains_key(state)),
                "random: {random}"
            );
            let whole = tempfile::tempdir().expect("a folder");
            assert_eq!(there, run(&mut ledger(&whole), 512), "random: {random}");
            toy.asked();
        }
    }

    #[test]
    fn a_run_that_was_killed_when_its_time_was_nearly_up_repeats_all_that_it_had_paid_for() {
        let toy = Toy::new(20);
        let pool = toy.pool(6);
        let folder = tempfile::tempdir().expect("a folder");
        let mut ledger = ledger(&folder);
        let mut first = toy.problem_in(&mut ledger, &pool, 256).expect("a problem");
        Random.select(&mut first, Seed(3)).expect("runs");
        let spent = first.evaluations();
        first.store.record_timestamp(first.scope.as_str(), spent, 3600.0);
        first.store.commit().expect("commits");
        drop(first);
        let mut second = toy.problem_in(&mut ledger, &pool, 1000).expect("a problem");
        second.limits.seconds = Some(3600.0);
        Random.select(&mut second, Seed(3)).expect("runs");
        // It notices that time is up at its first look afterwards.
        assert!((spent..spent + 10).contains(&second.evaluations()));
    }

    #[test]
    fn a_wish_to_stop_is_no_failure_and_the_empty_state_must_have_a_score() {
        let toy = Toy::new(20).with(Fault {
            kind: FaultKind::Interrupted,
            ..RARE
        });
        let pool = toy.pool(6);
        toy.problem(&pool, 400, |mut problem| {
            let error = found(&mut problem, &mut Random).expect_err("was asked to stop");
            assert!(matches!(error, Error::Interrupted), "{error}");
            assert_eq!(problem.failures(), 0);
        });
        assert!(
            toy.asked().values().all(|&asked| asked == 1),
            "a wish to stop was asked twice"
        );

        let toy = Toy::new(20).without_empty();
        let folder = tempfile::tempdir().expect("a folder");
        let mut ledger = ledger(&folder);
        let Err(error) = toy.problem_in(&mut ledger, &pool, 400) else {
            panic!("a problem without a first score");
        };
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
        assert_eq!(toy.asked().into_values().collect::<Vec<_>>(), [2]);
    }
}
