//! What can be set of the DQN. Names are those of Stable-Baselines3 where the meaning is the same.

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    agents::network::NetworkKind,
    error::range::{above, check},
};

/// How a [`Dqn`](super::Dqn) learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each switches one part of the method off, independently of the others"
)]
pub struct DqnSettings {
    /// The network. Default: shared.
    pub network: NetworkKind,
    /// Units of each of the two hidden layers, 1 to 4096. Default: 64.
    pub hidden: usize,
    /// Whether an action's immediate reward and the future return after it are learned as two outputs. A lookahead needs this.
    /// Default: true.
    pub split: bool,
    /// Adam's learning rate, above 0. Default: 0.001.
    pub learning_rate: f32,
    /// Transitions of a training step, 1 to 65,536. Default: 32.
    pub batch_size: usize,
    /// Observed rewards that a training step learns from besides, 0 to 65,536. Default: 128.
    pub reward_batch_size: usize,
    /// Training steps after each environment step. Default: 2.
    pub gradient_steps: usize,
    /// Steps that replay keeps, at least 1; fewer if they took more than 256 MiB. Default: 10,000.
    pub buffer_size: usize,
    /// Rewards that are summed before the target network is asked, at least 1. Default: 5.
    pub n_steps: usize,
    /// The share of the way that the target network moves towards the online network at each training step, 0 to 1.
    /// Default: 0.01.
    pub tau: f32,
    /// Double Q-learning: the online network chooses the next action and the target network values it. Default: true.
    pub double: bool,
    /// Whether only legal actions count when the next action is chosen. Default: true.
    pub mask_next: bool,
    /// Actions of the greatest Q that are tried at a step; 0 for plain DQN. Fewer are tried where the evaluations would not last
    /// for 4 episodes. Default: 14.
    pub lookahead: usize,
    /// Random actions that are tried beside them; fewer in the same proportion. Default: 4.
    pub explorers: usize,
    /// The share of steps, at first, on which all tried actions are random (in plain DQN: the action taken is), 0 to 1.
    /// Default: 0.1.
    pub exploration_initial_eps: f64,
    /// The same share at the end, 0 to 1; it changes linearly with the evaluations spent. Default: 0.05.
    pub exploration_final_eps: f64,
    /// Whether predicted differences between futures are scaled by how well earlier predictions came true. Default: true.
    pub calibrate: bool,
    /// Rewards to observe before the network's predictions are used, or a tenth of the evaluations if that is less; until then
    /// the tried actions are random. Default: 200.
    pub learning_starts: usize,
}

impl Default for DqnSettings {
    fn default() -> Self {
        Self {
            network: NetworkKind::Shared,
            hidden: 64,
            split: true,
            learning_rate: 1e-3,
            batch_size: 32,
            reward_batch_size: 128,
            gradient_steps: 2,
            buffer_size: 10_000,
            n_steps: 5,
            tau: 0.01,
            double: true,
            mask_next: true,
            lookahead: 14,
            explorers: 4,
            exploration_initial_eps: 0.1,
            exploration_final_eps: 0.05,
            calibrate: true,
            learning_starts: 200,
        }
    }
}

impl DqnSettings {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, or contradicts another.
    pub fn check(&self) -> Result<()> {
        // Upper bounds keep a typing error from asking for more memory than there is.
        check("dqn.hidden", self.hidden, 1..=4096)?;
        check("dqn.learning_rate", self.learning_rate, above(0.0))?;
        check("dqn.batch_size", self.batch_size, 1..=65_536)?;
        check("dqn.reward_batch_size", self.reward_batch_size, 0..=65_536)?;
        check("dqn.buffer_size", self.buffer_size, above(0))?;
        check("dqn.n_steps", self.n_steps, above(0))?;
        check("dqn.tau", self.tau, 0.0..=1.0)?;
        check("dqn.exploration_initial_eps", self.exploration_initial_eps, 0.0..=1.0)?;
        check("dqn.exploration_final_eps", self.exploration_final_eps, 0.0..=1.0)?;
        if !self.split && self.lookahead > 0 {
            return Err(Error::setting(
                "dqn.split",
                "true, or dqn.lookahead = 0: a lookahead adds true rewards to predicted futures",
                "false",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes settings unsound.
    type Change = fn(&mut DqnSettings);

    #[test]
    fn settings_out_of_range_are_named() {
        let cases: [(Change, &str); 6] = [
            (|settings| settings.batch_size = 0, "dqn.batch_size"),
            (|settings| settings.learning_rate = f32::NAN, "dqn.learning_rate"),
            (
                |settings| settings.exploration_initial_eps = 1.5,
                "dqn.exploration_initial_eps",
            ),
            (|settings| settings.tau = -0.1, "dqn.tau"),
            (|settings| settings.split = false, "dqn.split"),
            (|settings| settings.reward_batch_size = 100_000, "dqn.reward_batch_size"),
        ];
        for (change, name) in cases {
            let mut settings = DqnSettings::default();
            change(&mut settings);
            let error = settings.check().expect_err("out of range").to_string();
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
        }
    }
}
