//! An agent as a selector: it trains on the problem until the evaluations are spent.

use super::{Problem, Selector};
use crate::{Result, agent::Agent, seed::Seed};

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
