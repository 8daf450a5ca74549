//! Agents that learn which actions to take from the rewards they earn.

pub mod dqn;
pub mod dyna_dqn;
pub mod network;
pub mod policy;
pub mod ppo;

use tamis_nn::seed::Seed;

use crate::{
    Result,
    env::{Action, Environment, Observation},
};

/// Learns a policy for any [`Environment`] of the shape it was made for.
pub trait Agent {
    /// Trains until `env.remaining()` is 0, or nothing new can be found.
    ///
    /// # Errors
    ///
    /// If the environment fails, or `log` does. An error of `log`, such as a user's wish to stop, is passed on.
    fn train(
        &mut self,
        env: &mut dyn Environment,
        seed: Seed,
        log: &mut dyn FnMut(&TrainEvent) -> Result<()>,
    ) -> Result<()>;

    /// The best action as far as the agent knows.
    ///
    /// # Panics
    ///
    /// If no action is legal.
    fn act(&mut self, observation: &Observation) -> Action;
}

/// What an agent reports after each episode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainEvent {
    /// Episodes finished, this one included.
    pub episode: u64,
    /// Steps taken so far.
    pub steps: u64,
    /// The sum of this episode's rewards.
    pub episode_return: f64,
    /// The mean training loss since the last event; NaN before training began.
    pub loss: f64,
    /// The share of actions taken at random.
    pub epsilon: f64,
    /// How well a learned model ranked the plans that were paid for since the last event: Spearman's rank correlation of its
    /// predictions, made before, with the true returns. NaN where there is no model.
    pub agreement: f64,
}

/// The item of the greatest value; ties go to the first.
pub(crate) fn best(items: &[usize], value: impl Fn(usize) -> f64) -> usize {
    items
        .iter()
        .copied()
        .reduce(|best, item| if value(item) > value(best) { item } else { best })
        .expect("an action is legal")
}
