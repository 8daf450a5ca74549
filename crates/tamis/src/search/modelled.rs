//! A selection problem with predicted rewards: an agent trains on a frozen model of the score, and real evaluations confirm its best states.
//!
//! A part of the evaluations is spent by the rounds of CLIMB-Disc ([`crate::search::climb_disc`]), which fit boosted trees. These are
//! frozen, and the agent is rewarded by the change of *their* score; it never sees a true one. Then the full states it met that the
//! trees think best are scored by the proxy, best first, with the evaluations that are left.
//!
//! Source: arXiv 2509.25850, where policies are trained on such a frozen predictor.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use tamis_nn::seed::Seed;

use crate::{
    Error, Result,
    agents::Agent,
    env::{Action, Environment, Observation, Shape, Simulation, Step, pool::State},
    problem::{Problem, Trajectory, reached},
    reward_models::trees::Trees,
    search::{ClimbDiscSettings, Selector, climb_disc::Rounds},
};

/// A learning agent that trains on a reward model.
pub struct ModelledSelector<A> {
    agent: A,
    settings: ClimbDiscSettings,
}

impl<A: Agent> ModelledSelector<A> {
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn new(agent: A, settings: ClimbDiscSettings) -> Result<Self> {
        settings.check()?;
        Ok(Self { agent, settings })
    }
}

impl<A: Agent> Selector for ModelledSelector<A> {
    fn select(&mut self, problem: &mut Problem<'_>, seed: Seed) -> Result<()> {
        let longest = problem.pool().longest_episode();
        if longest >= self.settings.imagined {
            return Err(Error::setting(
                "climb_disc.imagined",
                format!("more than the {longest} that one episode may take"),
                self.settings.imagined.to_string(),
            ));
        }
        let evaluations = problem.remaining();
        let share = ((evaluations as f64 * self.settings.share) as u64).clamp(evaluations.min(1), evaluations);
        let mut rounds = Rounds::new(&self.settings);
        rounds.spend(problem, share, seed.derive("rounds"))?;
        if rounds.seen().is_empty() || problem.remaining() == 0 {
            return Ok(());
        }
        let trees = rounds.fit(problem, seed.derive("frozen"))?;
        let mut modelled = Modelled::new(problem, &trees, self.settings.imagined)?;
        self.agent
            .train(&mut modelled, seed.derive("imagined"), &mut |_| Ok(()))?;
        let promising = modelled.promising(rounds.seen());
        rounds.score(problem, promising)?;
        Ok(())
    }
}

/// A problem as an agent sees it whose rewards are changes of a predicted score. It spends no evaluation of the problem: what
/// it counts against its own limit are states whose score was predicted.
pub struct Modelled<'m, 'p> {
    problem: &'m Problem<'p>,
    trees: &'m Trees,
    /// The most states whose score may be predicted.
    limit: u64,
    /// Predicted scores.
    known: HashMap<State, f64>,
    /// Full states met: predicted score, state, and the path that first led there.
    full: Vec<(f64, State, Trajectory)>,

    // The episode under way.
    simulation: Box<dyn Simulation + 'm>,
    state: State,
    legal: Vec<Option<Range<u32>>>,
    score: f64,
    path: Trajectory,
}

impl<'m, 'p> Modelled<'m, 'p> {
    /// # Errors
    ///
    /// If the first state cannot be made.
    pub fn new(problem: &'m Problem<'p>, trees: &'m Trees, limit: u64) -> Result<Self> {
        let state = problem.pool().empty();
        Ok(Self {
            legal: problem.pool().legal(&state),
            score: problem.empty_score(),
            // The trees have seen full states only; of the empty one the true score is known.
            known: HashMap::from([(state.clone(), problem.empty_score())]),
            full: Vec::new(),
            path: Vec::new(),
            simulation: problem.simulate()?,
            problem,
            trees,
            limit,
            state,
        })
    }

    /// Paths to the full states met, best predicted first, without those of `known`.
    fn promising(mut self, known: &HashSet<State>) -> Vec<Trajectory> {
        self.full.retain(|(_, state, _)| !known.contains(state));
        // The sort is stable: of equal predictions the one met first stands first.
        self.full.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.full.into_iter().map(|(_, _, path)| path).collect()
    }

    /// Predicted scores of the states at the ends of these paths.
    fn predicted(&mut self, paths: &[Trajectory]) -> Result<Vec<f64>> {
        self.problem.monitor().proceed()?;
        let pool = self.problem.pool();
        let states: Vec<State> = paths.iter().map(|path| reached(pool, path)).collect();
        let mut new: Vec<usize> = Vec::new();
        for (i, state) in states.iter().enumerate() {
            if !self.known.contains_key(state) && !new.iter().any(|&j| states[j] == *state) {
                new.push(i);
            }
        }
        let asked: Vec<State> = new.iter().map(|&i| states[i].clone()).collect();
        let features = self.problem.describe(&asked)?;
        let scores = self.trees.predict(&features);
        for (&i, score) in new.iter().zip(scores) {
            self.known.insert(states[i].clone(), score);
            if pool.legal(&states[i]).iter().all(Option::is_none) {
                self.full.push((score, states[i].clone(), paths[i].clone()));
            }
        }
        Ok(states.iter().map(|state| self.known[state]).collect())
    }

    /// What each of these actions would earn.
    fn rewards(&mut self, actions: &[Action]) -> Result<Vec<f64>> {
        let paths: Vec<Trajectory> = actions
            .iter()
            .map(|&action| {
                let range = self.legal[action].clone().expect("a legal action");
                [&self.path[..], &[(action, range)]].concat()
            })
            .collect();
        let scores = self.predicted(&paths)?;
        Ok(scores.iter().map(|score| score - self.score).collect())
    }
}

impl Environment for Modelled<'_, '_> {
    fn shape(&self) -> Shape {
        self.problem.shape()
    }

    fn reset(&mut self, _seed: Seed) -> Result<Observation> {
        self.simulation = self.problem.simulate()?;
        self.state = self.problem.pool().empty();
        self.legal = self.problem.pool().legal(&self.state);
        self.score = self.problem.empty_score();
        self.path.clear();
        self.simulation.observe()
    }

    fn step(&mut self, action: Action) -> Result<Step> {
        let reward = self.rewards(&[action])?[0];
        let range = self.legal[action].clone().expect("a legal action");
        self.simulation.take(action, reward)?;
        self.state = self.problem.pool().after(&self.state, action, &range);
        self.legal = self.problem.pool().legal(&self.state);
        self.score = self.known[&self.state];
        self.path.push((action, range));
        Ok(Step::to(self.simulation.observe()?, reward))
    }

    fn lookahead(&mut self, actions: &[Action]) -> Result<Vec<f64>> {
        self.rewards(actions)
    }

    fn evaluate_plans(&mut self, plans: &[Vec<Action>]) -> Result<Vec<f64>> {
        let paths: Vec<Trajectory> = plans.iter().map(|plan| self.problem.path_of(plan)).collect();
        let scores = self.predicted(&paths)?;
        Ok(scores.iter().map(|score| score - self.problem.empty_score()).collect())
    }

    fn simulate(&self) -> Result<Box<dyn Simulation + '_>> {
        self.problem.simulate()
    }

    fn remaining(&self) -> u64 {
        // Where the problem's time is up, nothing that is found here could be confirmed.
        if self.problem.remaining() == 0 {
            return 0;
        }
        self.limit.saturating_sub(self.known.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agents::dqn::{Dqn, DqnSettings},
        env::checker,
        search::{random::random_path, toy::Toy},
    };

    fn settings() -> ClimbDiscSettings {
        ClimbDiscSettings {
            imagined: 1000,
            ..ClimbDiscSettings::default()
        }
    }

    #[test]
    fn it_keeps_what_agents_rely_on_and_costs_nothing() {
        let toy = Toy::new(5);
        let pool = toy.pool(4);
        toy.problem(&pool, 1000, |mut problem| {
            let settings = settings();
            let mut rounds = Rounds::new(&settings);
            rounds.spend(&mut problem, 30, Seed(0)).expect("scores");
            let trees = rounds.fit(&problem, Seed(1)).expect("fits");
            let spent = problem.evaluations();
            let mut modelled = Modelled::new(&problem, &trees, 1000).expect("a first state");
            let broken = checker::check(&mut modelled, 5, Seed(2)).expect("runs");
            assert_eq!(broken, Vec::<String>::new());
            assert!(modelled.remaining() < 1000 && !modelled.full.is_empty());
            assert_eq!(problem.evaluations(), spent);
        });
    }

    /// Evaluations spent, without that of the empty state, and the best score.
    fn trained(evaluations: u64, seed: u64) -> (u64, Option<f64>) {
        let toy = Toy::new(8);
        let pool = toy.pool(6);
        toy.problem(&pool, evaluations + 1, |mut problem| {
            let agent = Dqn::new(problem.shape(), DqnSettings::default(), Seed(seed)).expect("sound settings");
            let mut selector = ModelledSelector::new(agent, settings()).expect("sound settings");
            selector.select(&mut problem, Seed(seed)).expect("trains");
            (problem.evaluations() - 1, best(&problem))
        })
    }

    fn best(problem: &Problem<'_>) -> Option<f64> {
        problem.best().iter().next().map(|(score, ..)| score)
    }

    #[test]
    fn what_an_agent_met_is_new_stands_in_order_and_is_far_better_than_random_states() {
        let toy = Toy::new(8);
        let pool = toy.pool(6);
        let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
        for seed in 0..3 {
            toy.problem(&pool, 1000, |mut problem| {
                let settings = ClimbDiscSettings {
                    rounds: vec![1],
                    ..settings()
                };
                let mut rounds = Rounds::new(&settings);
                rounds.spend(&mut problem, 80, Seed(seed)).expect("scores");
                let random: Vec<Trajectory> = (0..100).map(|i| random_path(&pool, Seed(seed).index(i))).collect();
                let random = mean(&problem.score_paths(&random).expect("scores"));

                let trees = rounds.fit(&problem, Seed(seed)).expect("fits");
                // Few actions are tried at a step, so that its episodes differ.
                let few = DqnSettings {
                    lookahead: 2,
                    explorers: 1,
                    ..DqnSettings::default()
                };
                let mut agent = Dqn::new(problem.shape(), few, Seed(seed)).expect("sound settings");
                let mut modelled = Modelled::new(&problem, &trees, 1000).expect("a first state");
                agent.train(&mut modelled, Seed(seed), &mut |_| Ok(())).expect("trains");
                let promising = modelled.promising(rounds.seen());
                let states: Vec<State> = promising.iter().map(|path| reached(&pool, path)).collect();
                assert!(states.iter().all(|state| !rounds.seen().contains(state)));
                let distinct: HashSet<&State> = states.iter().collect();
                assert_eq!(distinct.len(), states.len());
                let features = problem.describe(&states).expect("describes");
                assert!(trees.predict(&features).is_sorted_by(|a, b| a >= b));

                let spread = best(&problem).expect("full states") - random;
                let met = mean(&problem.score_paths(&promising[..5.min(states.len())]).expect("scores"));
                assert!(
                    met > random + spread / 2.0,
                    "seed {seed}: {met}, random {random}, best + {spread}"
                );
            });
        }
    }

    #[test]
    fn the_best_of_what_was_met_is_paid_for() {
        let (spent, _) = trained(60, 0);
        // An agent that has stalled meets few states, and only those are paid for.
        assert!(spent > 30 && spent <= 60, "{spent}");
    }

    #[test]
    fn one_seed_one_run_and_small_budgets_end() {
        assert_eq!(trained(40, 3), trained(40, 3));
        assert_eq!(trained(0, 0), (0, None));
        assert_eq!(trained(1, 0).0, 1);
        assert_eq!(trained(2, 0).0, 2);
    }

    #[test]
    fn an_episode_must_fit_into_what_may_be_imagined() {
        let toy = Toy::new(6);
        let pool = toy.pool(5);
        toy.problem(&pool, 100, |mut problem| {
            let agent = Dqn::new(problem.shape(), DqnSettings::default(), Seed(0)).expect("sound settings");
            let settings = ClimbDiscSettings {
                imagined: 5,
                ..ClimbDiscSettings::default()
            };
            let mut selector = ModelledSelector::new(agent, settings).expect("sound settings");
            let error = selector.select(&mut problem, Seed(0)).expect_err("too few");
            assert_eq!(
                error.to_string(),
                "climb_disc.imagined: expected more than the 5 that one episode may take, found 5"
            );
        });
    }
}
