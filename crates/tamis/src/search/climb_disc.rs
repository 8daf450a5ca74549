//! CLIMB-Disc: rounds of full states, each drawn from those that a predictor fitted on all rounds before thinks best.
//!
//! The first round is random. Before each later one, boosted trees ([`Trees`]) are fitted on every state scored so far, and
//! predict the scores of many candidates that were not: random full states, and the best states with a few chunks swapped.
//! The round is drawn at random from the candidates of the greatest prediction, and scored. No state is scored twice.
//!
//! Sources: CLIMB, arXiv 2504.13161 (the loop and the predictor, for mixture weights); arXiv 2509.25850 (its discretised form,
//! over chosen clusters). What we do differently:
//!
//! 1. The rounds keep the shape 64 : 32 : 16, but share out all evaluations that there are.
//! 2. A state is described by what was taken as such ([`crate::problem::FeatureContext`]) and not by its clusters alone.
//! 3. Half of the candidates are mutations of good states: among random ones alone, hardly one is better than the best scored.
//! 4. Scores are standardised for the trees ([`crate::reward_models::trees`]).

use std::collections::HashSet;

use rand::{RngExt, seq::SliceRandom};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tamis_nn::{Matrix, seed::Seed};

use crate::{
    Error, Result,
    env::{Environment, pool::State},
    problem::{Problem, Trajectory, reached},
    reward_models::trees::{TreeSettings, Trees},
    search::{
        Selector,
        random::{BATCH, completed, random_path},
    },
};

/// After how many random states in a row that were met before the pool is taken to hold no others.
const PATIENCE: u32 = 200;
/// The fewest candidates drawn for a round.
const FEWEST_CANDIDATES: u64 = 256;
/// The fewest good states that mutations start from.
const FEWEST_PARENTS: usize = 8;

/// How [`ClimbDisc`] searches, and how a reward model is fitted by its rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClimbDiscSettings {
    /// The rounds' sizes to one another; together they spend all evaluations. Default: 64, 32, 16.
    pub rounds: Vec<u32>,
    /// Candidates whose score is predicted, for each state of a round. Default: 16.
    pub candidates: u32,
    /// The share of candidates that are good states with a few chunks swapped. Default: 0.5.
    pub mutated: f64,
    /// From how many of the best predictions a round is drawn, for each of its states. Default: 2.
    pub top: u32,
    /// As a reward model: the share of the evaluations that the rounds spend. Default: 0.5.
    pub share: f64,
    /// As a reward model: the most states whose score is predicted for the agent. Default: 20,000.
    pub imagined: u64,
    /// The predictor.
    pub trees: TreeSettings,
}

impl Default for ClimbDiscSettings {
    fn default() -> Self {
        Self {
            rounds: vec![64, 32, 16],
            candidates: 16,
            mutated: 0.5,
            top: 2,
            share: 0.5,
            imagined: 20_000,
            trees: TreeSettings::default(),
        }
    }
}

impl ClimbDiscSettings {
    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        if self.rounds.is_empty() || self.rounds.len() > 1000 {
            let found = format!("{} rounds", self.rounds.len());
            return Err(Error::setting("climb_disc.rounds", "from 1 to 1000 rounds", found));
        }
        if let Some(odd) = self.rounds.iter().find(|&&size| !(1..=1_000_000).contains(&size)) {
            return Err(Error::setting(
                "climb_disc.rounds",
                "sizes from 1 to 1000000",
                odd.to_string(),
            ));
        }
        // Upper bounds keep a slip of the hand from asking for more memory than there is.
        let counts = [
            ("climb_disc.candidates", u64::from(self.candidates), 10_000),
            ("climb_disc.top", u64::from(self.top), 10_000),
            ("climb_disc.imagined", self.imagined, 10_000_000),
        ];
        for (name, value, most) in counts {
            if !(1..=most).contains(&value) {
                return Err(Error::setting(name, format!("from 1 to {most}"), value.to_string()));
            }
        }
        if !(0.0..=1.0).contains(&self.mutated) {
            return Err(Error::setting(
                "climb_disc.mutated",
                "a share from 0 to 1",
                self.mutated.to_string(),
            ));
        }
        if !(self.share > 0.0 && self.share < 1.0) {
            return Err(Error::setting(
                "climb_disc.share",
                "a share above 0 and below 1",
                self.share.to_string(),
            ));
        }
        self.trees.check("climb_disc.trees")
    }
}

/// The search.
#[derive(Debug, Clone)]
pub struct ClimbDisc(ClimbDiscSettings);

impl ClimbDisc {
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn new(settings: ClimbDiscSettings) -> Result<Self> {
        settings.check()?;
        Ok(Self(settings))
    }
}

impl Selector for ClimbDisc {
    fn select(&mut self, problem: &mut Problem<'_>, seed: Seed) -> Result<()> {
        let evaluations = problem.remaining();
        Rounds::new(&self.0).spend(problem, evaluations, seed)
    }
}

/// A full state that was scored.
struct Scored {
    score: f64,
    path: Trajectory,
}

/// Rounds under way: what was scored, and what it taught.
pub(crate) struct Rounds<'s> {
    settings: &'s ClimbDiscSettings,
    scored: Vec<Scored>,
    /// One row of features a scored state.
    features: Vec<f32>,
    /// The states that were scored.
    seen: HashSet<State>,
}

impl<'s> Rounds<'s> {
    /// Rounds of which none has begun.
    pub(crate) fn new(settings: &'s ClimbDiscSettings) -> Self {
        Self {
            settings,
            scored: Vec::new(),
            features: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// Spends so many evaluations, or as many as new states can be found for.
    pub(crate) fn spend(&mut self, problem: &mut Problem<'_>, evaluations: u64, seed: Seed) -> Result<()> {
        let mut draws = 0;
        for (round, end) in ends(&self.settings.rounds, evaluations).into_iter().enumerate() {
            // A round whose candidates were too few goes on with others.
            while (self.scored.len() as u64) < end {
                let wanted = end - self.scored.len() as u64;
                let seed = seed.index(draws);
                draws += 1;
                let paths = if round == 0 {
                    self.random(problem, wanted, seed)
                } else {
                    let trees = self.fit(problem, seed.derive("trees"))?;
                    if let Some(spearman) = trees.held_out_spearman() {
                        let told = format!("predicted and true scores of held-out states correlate at {spearman:.2}");
                        problem.monitor().note(&told);
                    }
                    self.promising(problem, &trees, wanted, seed)?
                };
                if paths.is_empty() {
                    break;
                }
                if !self.score(problem, paths)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A predictor fitted on every state scored so far; there must be one.
    pub(crate) fn fit(&self, problem: &Problem<'_>, seed: Seed) -> Result<Trees> {
        let (rows, cols) = (self.scored.len(), problem.shape().state_features);
        let features = Matrix::from_vec(self.features.clone(), rows, cols);
        let scores: Vec<f64> = self.scored.iter().map(|state| state.score).collect();
        Trees::fit(&features, &scores, &self.settings.trees, seed)
    }

    /// The states that were scored.
    pub(crate) fn seen(&self) -> &HashSet<State> {
        &self.seen
    }

    /// Scores full states that were not scored before, batch by batch; false if the evaluations ran out on the way.
    pub(crate) fn score(&mut self, problem: &mut Problem<'_>, mut paths: Vec<Trajectory>) -> Result<bool> {
        while !paths.is_empty() {
            let batch = BATCH.min(problem.remaining()).min(paths.len() as u64) as usize;
            if batch == 0 {
                return Ok(false);
            }
            let rest = paths.split_off(batch);
            let scores = problem.score_paths(&paths)?;
            let states: Vec<State> = paths.iter().map(|path| reached(problem.pool(), path)).collect();
            self.features.extend(problem.describe(&states)?.as_slice());
            for ((score, path), state) in scores.into_iter().zip(paths).zip(states) {
                let new = self.seen.insert(state);
                debug_assert!(new, "a state is scored once");
                self.scored.push(Scored { score, path });
            }
            paths = rest;
        }
        Ok(true)
    }

    /// Random full states that were not scored before; fewer than wanted where the pool hardly holds others.
    fn random(&self, problem: &Problem<'_>, wanted: u64, seed: Seed) -> Vec<Trajectory> {
        let (mut paths, mut met, mut stalled) = (Vec::new(), HashSet::new(), 0);
        for draw in 0.. {
            if paths.len() as u64 == wanted || stalled == PATIENCE {
                break;
            }
            let path = random_path(problem.pool(), seed.index(draw));
            let state = reached(problem.pool(), &path);
            if !self.seen.contains(&state) && met.insert(state) {
                paths.push(path);
                stalled = 0;
            } else {
                stalled += 1;
            }
        }
        paths
    }

    /// A random draw from the new states of the greatest prediction; fewer than wanted where the candidates held no more.
    fn promising(&self, problem: &Problem<'_>, trees: &Trees, wanted: u64, seed: Seed) -> Result<Vec<Trajectory>> {
        let pool = problem.pool();
        let mut order: Vec<&Scored> = self.scored.iter().collect();
        order.sort_by(|a, b| b.score.total_cmp(&a.score));
        order.truncate((order.len() / 10).max(FEWEST_PARENTS));
        let count = (wanted * u64::from(self.settings.candidates)).max(FEWEST_CANDIDATES);
        let mutated = (count as f64 * self.settings.mutated) as u64;
        // Each candidate has its own seed, so that threads change nothing.
        let candidates: Vec<(Trajectory, State)> = (0..count)
            .into_par_iter()
            .map(|i| {
                let path = if i < mutated {
                    let mut rng = seed.derive("mutated").index(i).rng();
                    let mut plan: Vec<usize> = order[rng.random_range(0..order.len())]
                        .path
                        .iter()
                        .map(|(cluster, _)| *cluster)
                        .collect();
                    // One chunk in half of the cases, two in a quarter, ...
                    while !plan.is_empty() {
                        plan.remove(rng.random_range(0..plan.len()));
                        if rng.random() {
                            break;
                        }
                    }
                    completed(pool, &plan, &mut rng)
                } else {
                    random_path(pool, seed.derive("random").index(i))
                };
                let state = reached(pool, &path);
                (path, state)
            })
            .collect();
        let mut met = HashSet::new();
        let (new, states): (Vec<Trajectory>, Vec<State>) = candidates
            .into_iter()
            .filter(|(_, state)| !self.seen.contains(state) && met.insert(state.clone()))
            .unzip();
        let predicted = trees.predict(&problem.describe(&states)?);
        let mut best: Vec<usize> = (0..new.len()).collect();
        best.sort_by(|&a, &b| predicted[b].total_cmp(&predicted[a]));
        best.truncate((wanted * u64::from(self.settings.top)) as usize);
        let drawn = best.partial_shuffle(&mut seed.derive("draw").rng(), wanted as usize).0;
        Ok(drawn.iter().map(|&i| new[i].clone()).collect())
    }
}

/// How many states are scored by the end of each round, where rounds of these sizes to one another spend so many evaluations.
fn ends(sizes: &[u32], evaluations: u64) -> Vec<u64> {
    let total: u64 = sizes.iter().copied().map(u64::from).sum();
    let mut sum = 0;
    sizes
        .iter()
        .map(|&size| {
            sum += u64::from(size);
            // Rounded up, so that even a single evaluation has a first round.
            (u128::from(evaluations) * u128::from(sum)).div_ceil(u128::from(total)) as u64
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agents::{dqn::DqnSettings, dyna_dqn::DynaDqnSettings, ppo::PpoSettings},
        env::pool::Pool,
        search::{Method, MethodSettings, RewardModelKind, toy::Toy},
    };

    /// Every state of a pool, and the full ones among them.
    fn enumerated(pool: &Pool) -> (usize, Vec<Trajectory>) {
        let (mut seen, mut full) = (HashSet::new(), Vec::new());
        let mut open = vec![(pool.empty(), Trajectory::new())];
        while let Some((state, path)) = open.pop() {
            if !seen.insert(state.clone()) {
                continue;
            }
            let legal = pool.legal(&state);
            if legal.iter().all(Option::is_none) {
                full.push(path.clone());
            }
            for (cluster, range) in legal.iter().enumerate() {
                if let Some(range) = range {
                    let path = [&path[..], &[(cluster, range.clone())]].concat();
                    open.push((pool.after(&state, cluster, range), path));
                }
            }
        }
        (seen.len(), full)
    }

    fn optimum(toy: &Toy, pool: &Pool, full: &[Trajectory]) -> f64 {
        toy.problem(pool, u64::MAX, |mut problem| {
            let scores = problem.score_paths(full).expect("scores");
            scores.into_iter().fold(f64::NEG_INFINITY, f64::max)
        })
    }

    /// Evaluations spent, without that of the empty state, and the best states.
    fn searched(toy: &Toy, pool: &Pool, evaluations: u64, seed: u64) -> (u64, Vec<(f64, State)>) {
        toy.problem(pool, evaluations + 1, |mut problem| {
            let mut search = ClimbDisc::new(ClimbDiscSettings::default()).expect("sound settings");
            search.select(&mut problem, Seed(seed)).expect("searches");
            let best = problem.best().iter().map(|(score, state, _)| (score, state.clone()));
            (problem.evaluations() - 1, best.collect())
        })
    }

    #[test]
    fn it_comes_near_the_optimum_that_enumeration_finds() {
        let toy = Toy::new(8);
        let pool = toy.pool(6);
        let (_, full) = enumerated(&pool);
        let optimum = optimum(&toy, &pool, &full);
        let evaluations = full.len() as u64 / 5;
        for seed in 0..3 {
            let (spent, best) = searched(&toy, &pool, evaluations, seed);
            assert_eq!(spent, evaluations, "every state of every round is a new one");
            assert!(
                best[0].0 >= 0.97 * optimum,
                "seed {seed}: {}, optimum {optimum}",
                best[0].0
            );
        }
    }

    #[test]
    fn one_seed_one_run() {
        let toy = Toy::new(6);
        let pool = toy.pool(4);
        assert_eq!(searched(&toy, &pool, 40, 1), searched(&toy, &pool, 40, 1));
        assert_ne!(searched(&toy, &pool, 40, 1), searched(&toy, &pool, 40, 2));
    }

    #[test]
    fn a_budget_smaller_than_a_round_is_spent() {
        let toy = Toy::new(8);
        let pool = toy.pool(6);
        for evaluations in [0, 1, 2, 5] {
            assert_eq!(searched(&toy, &pool, evaluations, 0).0, evaluations);
        }
    }

    #[test]
    fn it_stops_when_the_pool_holds_nothing_new() {
        // A single cluster has one full state.
        let toy = Toy::new(1);
        assert_eq!(searched(&toy, &toy.pool(2), 100, 0).0, 1);
        // Three clusters of three chunks, of which three are taken: 10 full states.
        let toy = Toy::new(3);
        let pool = toy.pool(3);
        assert_eq!(enumerated(&pool).1.len(), 10);
        assert_eq!(searched(&toy, &pool, 1000, 0).0, 10);
    }

    #[test]
    fn rounds_share_out_the_evaluations() {
        assert_eq!(ends(&[64, 32, 16], 112), [64, 96, 112]);
        assert_eq!(ends(&[64, 32, 16], 7), [4, 6, 7]);
        assert_eq!(ends(&[64, 32, 16], 1), [1, 1, 1]);
        assert_eq!(ends(&[1, 1], u64::MAX), [1 << 63, u64::MAX]);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let sound = ClimbDiscSettings::default;
        for (settings, name) in [
            (
                ClimbDiscSettings {
                    rounds: vec![],
                    ..sound()
                },
                "climb_disc.rounds",
            ),
            (
                ClimbDiscSettings {
                    rounds: vec![4, 0],
                    ..sound()
                },
                "climb_disc.rounds",
            ),
            (
                ClimbDiscSettings {
                    candidates: 0,
                    ..sound()
                },
                "climb_disc.candidates",
            ),
            (ClimbDiscSettings { top: 0, ..sound() }, "climb_disc.top"),
            (
                ClimbDiscSettings {
                    mutated: f64::NAN,
                    ..sound()
                },
                "climb_disc.mutated",
            ),
            (ClimbDiscSettings { share: 1.0, ..sound() }, "climb_disc.share"),
            (ClimbDiscSettings { imagined: 0, ..sound() }, "climb_disc.imagined"),
        ] {
            let error = settings.check().expect_err("out of range").to_string();
            assert!(error.starts_with(name), "{error}");
        }
        let mut settings = sound();
        settings.trees.depth = 0;
        let error = settings.check().expect_err("out of range").to_string();
        assert_eq!(error, "climb_disc.trees.depth: expected from 1 to 16, found 0");
    }

    #[test]
    fn a_reward_model_wants_an_agent_that_learns() {
        let toy = Toy::new(3);
        let pool = toy.pool(2);
        let settings = MethodSettings {
            dqn: &DqnSettings::default(),
            dyna_dqn: &DynaDqnSettings::default(),
            ppo: &PpoSettings::default(),
            climb_disc: &ClimbDiscSettings::default(),
            reward_model: RewardModelKind::ClimbDisc,
        };
        toy.problem(&pool, 10, |problem| {
            assert!(Method::Dqn.selector(&problem, settings, Seed(0)).is_ok());
            let error = Method::Greedy.selector(&problem, settings, Seed(0)).err().expect("fails");
            assert_eq!(
                error.to_string(),
                "reward_model: expected a learning agent beside it (`agent dqn` or `agent ppo`), found `climb-disc` with the agent `greedy`"
            );
        });
    }
}
