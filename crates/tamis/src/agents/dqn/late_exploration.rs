//! How a settled agent spends the evaluations it has left.
//!
//! On a small problem an agent settles on one plan long before its evaluations are spent: its episodes meet only states known
//! already, and teach it nothing. From then on it looks beyond what it would do: it imagines episodes in which a share of the
//! actions is random, another share in each (compare the actors of Horgan et al. 2018, section 4), and pays for the ends of those
//! that are new.

use std::collections::HashSet;

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    Result,
    env::{Action, Environment, Observation},
};

/// After how many episodes in a row that met only states known already an agent has settled.
pub(crate) const SETTLED: u32 = 20;
/// Plans that are paid for side by side.
const WAVE: usize = 16;
/// Imagined episodes in a row of which none is new, after which the problem is taken to be exhausted.
const EXHAUSTED: usize = 1000;

/// What was paid for.
#[derive(Debug, Default)]
pub(crate) struct Beyond {
    /// Plans, as sorted actions: what a plan earns as a whole does not depend on its order.
    paid: HashSet<Vec<Action>>,
    /// The plan that earned the most, and what it did.
    best: Option<(Vec<Action>, f64)>,
}

impl Beyond {
    /// A plan has been followed.
    pub(crate) fn note(&mut self, plan: &[Action], earned: f64) {
        self.paid.insert(sorted(plan));
        self.improves(plan, earned);
    }

    fn improves(&mut self, plan: &[Action], earned: f64) -> bool {
        let improves = self.best.as_ref().is_none_or(|(_, best)| earned > *best);
        if improves {
            self.best = Some((plan.to_vec(), earned));
        }
        improves
    }

    /// Looks for a plan that earns more than all before. `choose` is what the agent would do; it returns the action and what that is
    /// expected to earn. `None`: the evaluations are spent, or nothing is new.
    pub(crate) fn look(
        &mut self,
        env: &mut dyn Environment,
        mut choose: impl FnMut(&Observation) -> (Action, f64),
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Vec<Action>>> {
        loop {
            let wave = WAVE.min(usize::try_from(env.remaining()).unwrap_or(usize::MAX));
            let (mut plans, mut known) = (Vec::new(), 0);
            while plans.len() < wave && known < EXHAUSTED {
                let plan = self.imagined(env, &mut choose, rng)?;
                if self.paid.insert(sorted(&plan)) {
                    plans.push(plan);
                    known = 0;
                } else {
                    known += 1;
                }
            }
            if plans.is_empty() {
                return Ok(None);
            }
            let earned = env.evaluate_plans(&plans)?;
            let mut found = None;
            for (plan, earned) in plans.into_iter().zip(earned) {
                if self.improves(&plan, earned) {
                    found = Some(plan);
                }
            }
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// Every other plan deviates from the best one known, the others from what the agent would do.
    fn imagined(
        &self,
        env: &dyn Environment,
        choose: &mut impl FnMut(&Observation) -> (Action, f64),
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<Action>> {
        let epsilon = rng.random::<f64>();
        let mut known = match &self.best {
            Some((best, _)) if rng.random::<bool>() => best.clone(),
            _ => Vec::new(),
        };
        known.shuffle(rng);
        let mut walk = env.simulate()?;
        let mut plan = Vec::new();
        let mut seen = walk.observe()?;
        while seen.legal.contains(&true) {
            let again = known.pop().filter(|&action| seen.legal[action]);
            let (action, reward) = if rng.random::<f64>() < epsilon {
                (at_random(&seen, &plan, rng), 0.0)
            } else if let Some(action) = again {
                (action, 0.0)
            } else {
                choose(&seen)
            };
            walk.take(action, reward)?;
            plan.push(action);
            seen = walk.observe()?;
        }
        Ok(plan)
    }
}

/// A legal action, as often one that the plan has already as any.
fn at_random(seen: &Observation, plan: &[Action], rng: &mut ChaCha8Rng) -> Action {
    if !plan.is_empty() && rng.random::<bool>() {
        let again = plan[rng.random_range(0..plan.len())];
        if seen.legal[again] {
            return again;
        }
    }
    let open = seen.legal_actions();
    open[rng.random_range(0..open.len())]
}

/// A plan whatever its order.
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
        // 210 full states; what the agent would do is always the first action that is legal.
        let mut env = Coverage::random(10, 40, 4, 10_000, Seed(11));
        let mut rng = Seed(1).rng();
        let mut beyond = Beyond::default();
        beyond.note(
            &[0, 1, 2, 3],
            env.evaluate_plans(&[vec![0, 1, 2, 3]]).expect("a plan")[0],
        );
        let first = |seen: &Observation| (seen.legal_actions()[0], 0.0);
        let mut earned = Vec::new();
        while let Some(plan) = beyond.look(&mut env, first, &mut rng).expect("looks") {
            earned.push(env.evaluate_plans(&[plan]).expect("a plan")[0]);
        }
        assert!(earned.is_sorted(), "{earned:?}");
        let (optimum, best) = (env.optimum(), beyond.best.expect("a plan").1);
        assert!((best - optimum).abs() < 1e-12, "{best} of {optimum}");
        assert_eq!(beyond.paid.len(), 210);
    }

    #[test]
    fn it_spends_no_more_than_there_is() {
        let mut env = Coverage::random(10, 40, 4, 20, Seed(11));
        let mut beyond = Beyond::default();
        let first = |seen: &Observation| (seen.legal_actions()[0], 0.0);
        while beyond
            .look(&mut env, first, &mut Seed(1).rng())
            .expect("looks")
            .is_some()
        {}
        assert!(env.evaluations() <= 20 && beyond.paid.len() <= 20);
    }
}
