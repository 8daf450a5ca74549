//! How an agent that has stalled spends the rest of its evaluations.
//!
//! On a small problem an agent settles on one plan long before its evaluations are spent. Its episodes then meet only known states,
//! and teach it nothing. From there on it simulates episodes that deviate at random from the best plan or from its own choices,
//! each with another exploration rate (compare the actors of Horgan et al. 2018, section 4), and pays for the ends of those that
//! are new.

use std::collections::HashSet;

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    Result,
    env::{Action, Environment, Observation},
};

/// Training has stalled after this many episodes in a row (in PPO: rounds) that met only known states.
pub(crate) const STALL_LIMIT: u32 = 20;
/// Plans that are evaluated side by side.
const PLAN_BATCH: usize = 16;
/// After this many simulated episodes in a row that are all known, the problem counts as exhausted.
const EXHAUSTED: usize = 1000;

/// The plans that were paid for, and the best of them.
#[derive(Debug, Default)]
pub(crate) struct LateExploration {
    /// Plans with their actions sorted: the return of a plan does not depend on the order.
    known: HashSet<Vec<Action>>,
    /// The plan of the greatest return, and that return.
    best: Option<(Vec<Action>, f64)>,
}

impl LateExploration {
    /// Records a plan that was followed.
    pub(crate) fn record(&mut self, plan: &[Action], episode_return: f64) {
        self.known.insert(sorted(plan));
        self.improves(plan, episode_return);
    }

    fn improves(&mut self, plan: &[Action], episode_return: f64) -> bool {
        let improves = self.best.as_ref().is_none_or(|(_, best)| episode_return > *best);
        if improves {
            self.best = Some((plan.to_vec(), episode_return));
        }
        improves
    }

    /// Searches for a plan of a greater return than all before. `choose` is the agent's own choice: an action and its expected
    /// reward. `None`: the evaluations are spent, or nothing is new.
    pub(crate) fn search(
        &mut self,
        env: &mut dyn Environment,
        mut choose: impl FnMut(&Observation) -> (Action, f64),
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Vec<Action>>> {
        loop {
            let count = PLAN_BATCH.min(usize::try_from(env.remaining()).unwrap_or(usize::MAX));
            let (mut plans, mut known) = (Vec::new(), 0);
            while plans.len() < count && known < EXHAUSTED {
                let plan = self.simulate(env, &mut choose, rng)?;
                if self.known.insert(sorted(&plan)) {
                    plans.push(plan);
                    known = 0;
                } else {
                    known += 1;
                }
            }
            if plans.is_empty() {
                return Ok(None);
            }
            let returns = env.evaluate_plans(&plans)?;
            let mut found = None;
            for (plan, episode_return) in plans.into_iter().zip(returns) {
                if self.improves(&plan, episode_return) {
                    found = Some(plan);
                }
            }
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// One simulated episode. Half of them deviate from the best known plan, the others from the agent's own choices.
    fn simulate(
        &self,
        env: &dyn Environment,
        choose: &mut impl FnMut(&Observation) -> (Action, f64),
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<Action>> {
        let epsilon = rng.random::<f64>();
        let mut base = match &self.best {
            Some((best, _)) if rng.random::<bool>() => best.clone(),
            _ => Vec::new(),
        };
        base.shuffle(rng);
        let mut simulation = env.simulate()?;
        let mut plan = Vec::new();
        let mut observation = simulation.observe()?;
        while observation.legal.contains(&true) {
            let from_base = base.pop().filter(|&action| observation.legal[action]);
            let (action, reward) = if rng.random::<f64>() < epsilon {
                (random_action(&observation, &plan, rng), 0.0)
            } else if let Some(action) = from_base {
                (action, 0.0)
            } else {
                choose(&observation)
            };
            simulation.take(action, reward)?;
            plan.push(action);
            observation = simulation.observe()?;
        }
        Ok(plan)
    }
}

/// A random legal action; half of the time one that the plan has already, if that is still legal. The best plans of small problems
/// take much from few clusters.
fn random_action(observation: &Observation, plan: &[Action], rng: &mut ChaCha8Rng) -> Action {
    if !plan.is_empty() && rng.random::<bool>() {
        let again = plan[rng.random_range(0..plan.len())];
        if observation.legal[again] {
            return again;
        }
    }
    let legal = observation.legal_actions();
    legal[rng.random_range(0..legal.len())]
}

/// The actions of a plan in ascending order.
pub(crate) fn sorted(plan: &[Action]) -> Vec<Action> {
    let mut sorted = plan.to_vec();
    sorted.sort_unstable();
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::coverage::Coverage;
    use tamis_nn::seed::Seed;

    #[test]
    fn it_finds_what_is_better_until_all_is_known() {
        // 210 full states; the agent always chooses the first legal action.
        let mut env = Coverage::random(10, 40, 4, 10_000, Seed(11));
        let mut rng = Seed(1).rng();
        let mut late = LateExploration::default();
        late.record(
            &[0, 1, 2, 3],
            env.evaluate_plans(&[vec![0, 1, 2, 3]]).expect("a plan")[0],
        );
        let first = |observation: &Observation| (observation.legal_actions()[0], 0.0);
        let mut returns = Vec::new();
        while let Some(plan) = late.search(&mut env, first, &mut rng).expect("searches") {
            returns.push(env.evaluate_plans(&[plan]).expect("a plan")[0]);
        }
        assert!(returns.is_sorted(), "{returns:?}");
        let (optimum, best) = (env.optimum(), late.best.expect("a plan").1);
        assert!((best - optimum).abs() < 1e-12, "{best} of {optimum}");
        assert_eq!(late.known.len(), 210);
    }

    #[test]
    fn it_spends_no_more_than_there_is() {
        let mut env = Coverage::random(10, 40, 4, 20, Seed(11));
        let mut late = LateExploration::default();
        let first = |observation: &Observation| (observation.legal_actions()[0], 0.0);
        while late
            .search(&mut env, first, &mut Seed(1).rng())
            .expect("searches")
            .is_some()
        {}
        assert!(env.evaluations() <= 20 && late.known.len() <= 20);
    }
}
