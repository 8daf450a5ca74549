//! Weighted coverage: a small problem of the same kind as selection, whose optimum can be found by enumeration.
//!
//! Each action covers some items; an item counts once, whoever covers it; each action also has a cost. Choosing `picks`
//! actions is monotone submodular up to the costs, as a selection's score roughly is. Used to test agents and to compare
//! them with other implementations.

use rand::RngExt;
use serde::Serialize;
use tamis_nn::{Matrix, seed::Seed};

use crate::{
    Result,
    env::{Action, Environment, Observation, Shape, Simulation, Step},
};

/// The problem and an episode of it.
///
/// It is serialised as the problem alone, for programs in other languages: `covers` (for each action the items it covers),
/// `weights` (one an item), `costs` (one an action) and `picks` (how many actions an episode has). The score of a set of
/// actions is then the weight of all covered items less the costs, over the sum of all weights.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// `covers[a]`: the items that action `a` covers.
    covers: Vec<Vec<usize>>,
    weights: Vec<f64>,
    costs: Vec<f64>,
    picks: usize,
    #[serde(skip)]
    taken: Vec<bool>,
    #[serde(skip)]
    evaluations: u64,
    #[serde(skip)]
    limit: u64,
    /// States paid for.
    #[serde(skip)]
    known: std::collections::HashSet<Vec<bool>>,
}

impl Coverage {
    /// A random problem: `items` items, `actions` actions that cover a fifth of them each, of which `picks` may be taken,
    /// with at most `limit` evaluations.
    pub fn random(actions: usize, items: usize, picks: usize, limit: u64, seed: Seed) -> Self {
        let mut rng = seed.rng();
        let covers = (0..actions)
            .map(|_| (0..items).filter(|_| rng.random::<f64>() < 0.2).collect())
            .collect();
        let weights = (0..items).map(|_| rng.random::<f64>()).collect();
        let costs = (0..actions).map(|_| rng.random::<f64>()).collect();
        Self {
            covers,
            weights,
            costs,
            picks: picks.min(actions),
            taken: vec![false; actions],
            evaluations: 0,
            limit,
            known: std::collections::HashSet::new(),
        }
    }

    /// The value of a set of actions, as a share of all weight; higher is better.
    pub fn value(&self, taken: &[bool]) -> f64 {
        let mut covered = vec![false; self.weights.len()];
        let mut cost = 0.0;
        for (action, _) in taken.iter().enumerate().filter(|(_, taken)| **taken) {
            self.covers[action].iter().for_each(|&item| covered[item] = true);
            cost += self.costs[action];
        }
        let all: f64 = self.weights.iter().sum();
        let sum: f64 = covered
            .iter()
            .zip(&self.weights)
            .filter(|(covered, _)| **covered)
            .map(|(_, weight)| weight)
            .sum();
        (sum - cost) / all
    }

    /// The largest value that any choice of `picks` actions has, by looking at all of them.
    pub fn optimum(&self) -> f64 {
        fn best(problem: &Coverage, taken: &mut Vec<bool>, from: usize, left: usize) -> f64 {
            if left == 0 {
                return problem.value(taken);
            }
            let mut found = f64::NEG_INFINITY;
            for action in from..=taken.len() - left {
                taken[action] = true;
                found = found.max(best(problem, taken, action + 1, left - 1));
                taken[action] = false;
            }
            found
        }
        best(self, &mut vec![false; self.covers.len()], 0, self.picks)
    }

    /// The value of the choice that takes at each step what adds most.
    pub fn greedy(&self) -> f64 {
        let mut taken = vec![false; self.covers.len()];
        let mut found = self.value(&taken);
        for _ in 0..self.picks {
            let mut best = (f64::NEG_INFINITY, 0);
            for action in 0..taken.len() {
                if !taken[action] {
                    taken[action] = true;
                    let value = self.value(&taken);
                    taken[action] = false;
                    if value > best.0 {
                        best = (value, action);
                    }
                }
            }
            taken[best.1] = true;
            found = best.0;
        }
        found
    }

    /// Evaluations spent.
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    fn gain(&mut self, action: Action) -> f64 {
        let before = self.value(&self.taken);
        let mut taken = self.taken.clone();
        assert!(!taken[action], "action {action} is taken");
        taken[action] = true;
        let gain = self.value(&taken) - before;
        self.evaluations += u64::from(self.known.insert(taken));
        gain
    }

    fn observe(&self, taken: &[bool]) -> Observation {
        let count = taken.iter().filter(|&&taken| taken).count();
        let mut covered = vec![false; self.weights.len()];
        for (action, _) in taken.iter().enumerate().filter(|(_, taken)| **taken) {
            self.covers[action].iter().for_each(|&item| covered[item] = true);
        }
        let mut actions = Matrix::zeros(self.covers.len(), 4);
        let items = self.weights.len() as f32;
        for (action, cover) in self.covers.iter().enumerate() {
            let new = cover.iter().filter(|&&item| !covered[item]).count() as f32;
            let row = actions.row_mut(action);
            row[0] = f32::from(u8::from(taken[action]));
            row[1] = 4.0 * cover.len() as f32 / items;
            row[2] = 4.0 * new / items;
            row[3] = self.costs[action] as f32;
        }
        let open = count < self.picks;
        Observation {
            actions,
            global: vec![count as f32 / self.picks as f32],
            step: count,
            legal: taken.iter().map(|taken| open && !taken).collect(),
        }
    }
}

impl Environment for Coverage {
    fn shape(&self) -> Shape {
        Shape {
            actions: self.covers.len(),
            action_features: 4,
            global_features: 1,
            state_features: self.covers.len(),
        }
    }

    fn reset(&mut self, _seed: Seed) -> Result<Observation> {
        self.taken.fill(false);
        Ok(self.observe(&self.taken))
    }

    fn step(&mut self, action: Action) -> Result<Step> {
        let reward = self.gain(action);
        self.taken[action] = true;
        Ok(Step::to(self.observe(&self.taken), reward))
    }

    fn lookahead(&mut self, actions: &[Action]) -> Result<Vec<f64>> {
        Ok(actions.iter().map(|&action| self.gain(action)).collect())
    }

    fn evaluate_plans(&mut self, plans: &[Vec<Action>]) -> Result<Vec<f64>> {
        let empty = self.value(&vec![false; self.covers.len()]);
        let mut returns = Vec::new();
        for plan in plans {
            let mut taken = vec![false; self.covers.len()];
            for &action in plan {
                assert!(!taken[action], "action {action} is taken");
                taken[action] = true;
            }
            returns.push(self.value(&taken) - empty);
            self.evaluations += u64::from(self.known.insert(taken));
        }
        Ok(returns)
    }

    fn simulate(&self) -> Result<Box<dyn Simulation + '_>> {
        Ok(Box::new(SimulatedEpisode {
            problem: self,
            taken: vec![false; self.covers.len()],
        }))
    }

    fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.evaluations)
    }
}

/// A problem whose budget is the number of observed rewards, also of known states. A step counts as one, and so does every action of a
/// lookahead; a step that follows a lookahead at the same action costs nothing more. By this, agents that look ahead are compared with
/// agents that cannot.
#[derive(Debug, Clone)]
pub struct Counted {
    problem: Coverage,
    limit: u64,
    seen: u64,
    steps: u64,
    /// Actions of lookaheads in the present state.
    tried: Vec<Action>,
}

impl Counted {
    /// The problem, until `limit` rewards were seen.
    pub fn new(problem: Coverage, limit: u64) -> Self {
        Self {
            problem,
            limit,
            seen: 0,
            steps: 0,
            tried: Vec::new(),
        }
    }

    /// Rewards seen.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

impl Environment for Counted {
    fn shape(&self) -> Shape {
        self.problem.shape()
    }

    fn reset(&mut self, seed: Seed) -> Result<Observation> {
        self.tried.clear();
        self.problem.reset(seed)
    }

    fn step(&mut self, action: Action) -> Result<Step> {
        self.seen += u64::from(!self.tried.contains(&action));
        self.steps += 1;
        self.tried.clear();
        self.problem.step(action)
    }

    fn lookahead(&mut self, actions: &[Action]) -> Result<Vec<f64>> {
        self.seen += actions.len() as u64;
        self.tried.extend_from_slice(actions);
        self.problem.lookahead(actions)
    }

    fn evaluate_plans(&mut self, plans: &[Vec<Action>]) -> Result<Vec<f64>> {
        self.seen += plans.len() as u64;
        self.problem.evaluate_plans(plans)
    }

    fn simulate(&self) -> Result<Box<dyn Simulation + '_>> {
        self.problem.simulate()
    }

    fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.seen)
    }
}

/// A simulated episode.
struct SimulatedEpisode<'a> {
    problem: &'a Coverage,
    taken: Vec<bool>,
}

impl Simulation for SimulatedEpisode<'_> {
    fn observe(&mut self) -> Result<Observation> {
        Ok(self.problem.observe(&self.taken))
    }

    fn take(&mut self, action: Action, _reward: f64) -> Result<()> {
        assert!(!self.taken[action], "action {action} is taken");
        self.taken[action] = true;
        Ok(())
    }

    fn afterstates(&mut self, actions: &[Action]) -> Result<Matrix> {
        let mut features = Matrix::zeros(actions.len(), self.taken.len());
        for (i, &action) in actions.iter().enumerate() {
            let row = features.row_mut(i);
            row.iter_mut()
                .zip(&self.taken)
                .for_each(|(x, &taken)| *x = f32::from(u8::from(taken)));
            row[action] = 1.0;
        }
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::checker;

    #[test]
    fn it_keeps_what_agents_rely_on() {
        let mut env = Coverage::random(7, 20, 3, 1000, Seed(1));
        assert_eq!(
            checker::check(&mut env, 5, Seed(2)).expect("runs"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn rewards_seen_are_counted() {
        let mut env = Counted::new(Coverage::random(7, 20, 3, 1000, Seed(1)), 10);
        env.reset(Seed(0)).expect("resets");
        env.lookahead(&[0, 1, 2]).expect("looks ahead");
        // part of the lookahead; not part of it; once more from the start, where it is known
        env.step(1).expect("steps");
        assert_eq!((env.seen(), env.remaining()), (3, 7));
        env.step(2).expect("steps");
        env.reset(Seed(0)).expect("resets");
        env.step(1).expect("steps");
        assert_eq!((env.seen(), env.steps(), env.remaining()), (5, 3, 5));
    }

    #[test]
    fn the_check_finds_an_environment_that_lies() {
        /// Its observations and rewards are not what it says.
        struct Liar(Coverage);
        impl Environment for Liar {
            fn shape(&self) -> Shape {
                Shape {
                    global_features: 2,
                    ..self.0.shape()
                }
            }
            fn reset(&mut self, seed: Seed) -> Result<Observation> {
                self.0.reset(seed)
            }
            fn step(&mut self, action: Action) -> Result<Step> {
                self.0.step(action).map(|step| Step {
                    reward: step.reward - 0.5,
                    ..step
                })
            }
            fn lookahead(&mut self, actions: &[Action]) -> Result<Vec<f64>> {
                self.0.lookahead(actions)
            }
            fn evaluate_plans(&mut self, plans: &[Vec<Action>]) -> Result<Vec<f64>> {
                self.0.evaluate_plans(plans)
            }
            fn simulate(&self) -> Result<Box<dyn Simulation + '_>> {
                self.0.simulate()
            }
            fn remaining(&self) -> u64 {
                self.0.remaining()
            }
        }
        let broken = checker::check(&mut Liar(Coverage::random(4, 9, 2, 1000, Seed(1))), 1, Seed(2)).expect("runs");
        assert!(broken.iter().any(|fault| fault.contains("expected")), "{broken:?}");
        assert!(broken.iter().any(|fault| fault.contains("lookahead")), "{broken:?}");
    }

    #[test]
    fn the_optimum_of_two_actions_worked_by_hand() {
        // Items weigh 1 and 3; action 0 covers the first at cost 0.2, action 1 the second at cost 1, action 2 nothing.
        let env = Coverage {
            covers: vec![vec![0], vec![1], vec![]],
            weights: vec![1.0, 3.0],
            costs: vec![0.2, 1.0, 0.0],
            ..Coverage::random(3, 2, 2, 10, Seed(1))
        };
        // {0, 1}: (4 - 1.2) / 4 = 0.7; {0, 2}: 0.8 / 4; {1, 2}: 2 / 4
        assert!((env.optimum() - 0.7).abs() < 1e-12);
        // alone: .8 / 4, 2 / 4, 0; action 1 first, then action 0
        assert!((env.greedy() - 0.7).abs() < 1e-12);
        assert_eq!(
            serde_json::to_value(&env).expect("is written"),
            serde_json::json!({"covers": [[0], [1], []], "weights": [1.0, 3.0], "costs": [0.2, 1.0, 0.0], "picks": 2})
        );
    }
}
