//! Q-networks: what each action will earn at once, and what can still be earned after it.
//!
//! Both networks have two numbers an action, the *immediate* reward and the *future* return; their sum is Q. They are kept
//! apart because the environment can tell the first exactly for a few actions, and then only the second is a guess.
//!
//! - `shared` reads one action at a time with the same weights: its features, the global ones, and the mean features of all
//!   legal actions as context. It does not care how many actions there are.
//! - `flat` reads which actions are legal, how much of each is taken (its first feature) and the global features, and has two
//!   outputs an action: the paper's network, which must learn about every cluster by itself.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    mdp::{Action, Observation, Shape},
    nn::mlp::{Mlp, Trace},
    seed::Seed,
};

/// Which network an agent learns with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// One network reads each action's features.
    #[default]
    Shared,
    /// From the legal-action mask to two outputs an action.
    Flat,
}

/// A network over observations of one shape.
#[derive(Debug, Clone)]
pub struct QNetwork {
    kind: NetworkKind,
    shape: Shape,
    mlp: Mlp,
}

/// The values of every action of an observation, legal or not; shapes `(actions,)`, in the units of training.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// What the action earns at once.
    pub reward: Vec<f32>,
    /// What can still be earned after it.
    pub future: Vec<f32>,
}

/// One training example: an action's immediate reward, its future return, or both.
#[derive(Debug, Clone)]
pub struct Lesson<'a> {
    /// What the agent saw.
    pub input: &'a [f32],
    /// Which action it is about.
    pub action: Action,
    /// The reward, where it is known.
    pub reward: Option<f32>,
    /// The future return, where there is an estimate.
    pub future: Option<f32>,
}

impl QNetwork {
    /// A network with two hidden layers of `hidden` units and random weights.
    pub fn new(kind: NetworkKind, shape: Shape, hidden: usize, seed: Seed) -> Self {
        let (inputs, outputs) = match kind {
            NetworkKind::Shared => (2 * shape.action_features + shape.global_features, 2),
            NetworkKind::Flat => (2 * shape.actions + shape.global_features, 2 * shape.actions),
        };
        Self {
            kind,
            shape,
            mlp: Mlp::new(&[inputs, hidden, hidden, outputs], seed),
        }
    }

    /// The parameters.
    pub fn mlp(&self) -> &Mlp {
        &self.mlp
    }

    /// The parameters, to train them.
    pub fn mlp_mut(&mut self) -> &mut Mlp {
        &mut self.mlp
    }

    /// What the network reads to know one action, shape `(mlp().inputs(),)`.
    pub fn input(&self, observation: &Observation, action: Action) -> Vec<f32> {
        let mut input = Vec::with_capacity(self.mlp.inputs());
        match self.kind {
            NetworkKind::Shared => {
                input.extend_from_slice(observation.actions.row(action));
                input.extend_from_slice(&observation.global);
                input.extend(context(observation));
            }
            NetworkKind::Flat => extend_flat(observation, &mut input),
        }
        input
    }

    /// The values of all actions of several observations.
    pub fn values(&self, observations: &[&Observation]) -> Vec<Values> {
        let actions = self.shape.actions;
        let mut inputs = Vec::new();
        for observation in observations {
            match self.kind {
                NetworkKind::Shared => {
                    inputs.reserve(actions * self.mlp.inputs());
                    let context = context(observation);
                    for features in observation.actions.iter_rows() {
                        inputs.extend_from_slice(features);
                        inputs.extend_from_slice(&observation.global);
                        inputs.extend_from_slice(&context);
                    }
                }
                NetworkKind::Flat => extend_flat(observation, &mut inputs),
            }
        }
        // Both networks' outputs read as (reward, future) pairs, action after action.
        let outputs = self.mlp.predict(&inputs);
        outputs
            .chunks_exact(2 * actions)
            .map(|pairs| Values {
                reward: pairs.iter().copied().step_by(2).collect(),
                future: pairs.iter().copied().skip(1).step_by(2).collect(),
            })
            .collect()
    }

    /// Adds the gradient of the mean Huber loss (delta 1) over the lessons' known values, and returns that loss.
    pub fn learn(&self, lessons: &[Lesson<'_>], trace: &mut Trace, gradient: &mut [f32]) -> f64 {
        let inputs: Vec<f32> = lessons.iter().flat_map(|lesson| lesson.input).copied().collect();
        self.mlp.forward(&inputs, trace);
        let width = self.mlp.outputs();
        let known: usize = lessons
            .iter()
            .map(|lesson| usize::from(lesson.reward.is_some()) + usize::from(lesson.future.is_some()))
            .sum();
        let mut upstream = vec![0.0; lessons.len() * width];
        let mut loss = 0.0;
        for (i, lesson) in lessons.iter().enumerate() {
            let first = i * width
                + if self.kind == NetworkKind::Flat {
                    2 * lesson.action
                } else {
                    0
                };
            for (at, target) in [(first, lesson.reward), (first + 1, lesson.future)] {
                if let Some(target) = target {
                    let off = trace.output()[at] - target;
                    upstream[at] = off.clamp(-1.0, 1.0) / known.max(1) as f32;
                    loss += f64::from(if off.abs() <= 1.0 {
                        off * off / 2.0
                    } else {
                        off.abs() - 0.5
                    });
                }
            }
        }
        self.mlp.backward(trace, &upstream, gradient);
        loss / known.max(1) as f64
    }
}

/// What the flat network reads.
pub(super) fn extend_flat(observation: &Observation, input: &mut Vec<f32>) {
    input.extend(observation.legal.iter().map(|&legal| f32::from(u8::from(legal))));
    input.extend(observation.actions.iter_rows().map(|features| features[0]));
    input.extend_from_slice(&observation.global);
}

/// The mean features of the legal actions, shape `(action_features,)`.
pub(super) fn context(observation: &Observation) -> Vec<f32> {
    let mut mean = vec![0.0; observation.actions.cols()];
    let open = observation.legal.iter().filter(|&&legal| legal).count().max(1) as f32;
    for (features, _) in observation
        .actions
        .iter_rows()
        .zip(&observation.legal)
        .filter(|(_, legal)| **legal)
    {
        for (sum, x) in mean.iter_mut().zip(features) {
            *sum += x / open;
        }
    }
    mean
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::Flat => "flat",
        })
    }
}

impl FromStr for NetworkKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "shared" => Ok(Self::Shared),
            "flat" => Ok(Self::Flat),
            _ => Err(Error::setting("--network", "shared or flat", format!("`{text}`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Matrix;

    fn observation() -> Observation {
        Observation {
            actions: Matrix::from_vec(vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 3, 2),
            global: vec![0.7],
            step: 0,
            legal: vec![true, false, true],
        }
    }

    const SHAPE: Shape = Shape {
        actions: 3,
        action_features: 2,
        global_features: 1,
        state_features: 0,
    };

    #[test]
    fn inputs_are_the_ones_written_by_hand() {
        let shared = QNetwork::new(NetworkKind::Shared, SHAPE, 4, Seed(1));
        let close = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-6);
        // features of action 1, global, mean of the legal actions 0 and 2
        assert!(close(&shared.input(&observation(), 1), &[0.3, 0.4, 0.7, 0.3, 0.4]));
        let flat = QNetwork::new(NetworkKind::Flat, SHAPE, 4, Seed(1));
        assert!(close(
            &flat.input(&observation(), 1),
            &[1.0, 0.0, 1.0, 0.1, 0.3, 0.5, 0.7]
        ));
    }

    #[test]
    fn both_networks_learn_a_reward_and_a_future_of_one_action() {
        for kind in [NetworkKind::Shared, NetworkKind::Flat] {
            let mut network = QNetwork::new(kind, SHAPE, 16, Seed(2));
            let mut adam = crate::nn::mlp::Adam::new(network.mlp().parameters().len(), 0.01, 10.0);
            let mut gradient = vec![0.0; network.mlp().parameters().len()];
            let inputs: Vec<Vec<f32>> = (0..3).map(|action| network.input(&observation(), action)).collect();
            let mut trace = Trace::default();
            for _ in 0..400 {
                let lessons: Vec<Lesson<'_>> = (0..3)
                    .map(|action| Lesson {
                        input: &inputs[action],
                        action,
                        reward: Some(action as f32 - 1.0),
                        future: (action == 2).then_some(0.5),
                    })
                    .collect();
                network.learn(&lessons, &mut trace, &mut gradient);
                adam.step(network.mlp_mut(), &mut gradient);
            }
            let values = &network.values(&[&observation()])[0];
            for (action, reward) in values.reward.iter().enumerate() {
                assert!((reward - (action as f32 - 1.0)).abs() < 0.05, "{kind}: {values:?}");
            }
            assert!((values.future[2] - 0.5).abs() < 0.05, "{kind}: {values:?}");
        }
    }
}
