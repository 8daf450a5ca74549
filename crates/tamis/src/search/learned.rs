//! An agent as a selector: it trains on the problem until the evaluations are spent.

use tamis_nn::seed::Seed;

use crate::{Result, agents::Agent, problem::Problem, search::Selector};

/// A learning agent; every full state that it meets while it learns is a candidate for the final choice.
pub struct LearnedSelector<A>(pub A);

impl<A: Agent> Selector for LearnedSelector<A> {
    fn select(&mut self, problem: &mut Problem<'_>, seed: Seed) -> Result<()> {
        let log = problem.log();
        self.0.train(problem, seed, &mut |event| {
            log.borrow_mut().episode(event);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agents::{dqn::DqnSettings, dyna_dqn::DynaDqnSettings, ppo::PpoSettings},
        budget::Limit,
        search::{ClimbDiscSettings, Method, MethodSettings, RewardModelKind, toy::Toy},
    };

    #[test]
    fn chunks_that_are_cut_short_and_rows_of_many_lengths_trouble_no_method() {
        let settings = MethodSettings {
            dqn: &DqnSettings::default(),
            dyna_dqn: &DynaDqnSettings::default(),
            ppo: &PpoSettings::default(),
            climb_disc: &ClimbDiscSettings::default(),
            reward_model: RewardModelKind::None,
        };
        let toy = Toy::new(6);
        for limit in [Limit::Rows(11), Limit::Rows(15), Limit::Tokens(40), Limit::Tokens(53)] {
            let pool = toy.pool_of(4, limit);
            for &(method, name, _) in Method::NAMES {
                let evaluations = if method == Method::Exhaustive { 100_000 } else { 400 };
                toy.problem(&pool, evaluations, |mut problem| {
                    let mut selector = method.selector(&problem, settings, Seed(3)).expect("sound settings");
                    selector.select(&mut problem, Seed(3)).expect("searches");
                    let (_, state, _) = problem.best().iter().next().expect("a state");
                    assert!(pool.spent(state) <= pool.limit(), "{name}");
                    assert!(pool.legal(state).iter().all(Option::is_none), "{name}");
                });
            }
        }
    }
}
