//! Q-networks: what each action earns at once, and what can still be earned after it.
//!
//! A *split* network has two outputs an action, the *immediate reward* and the *future return*; their sum is Q. They are apart
//! because the environment can tell the first exactly for a few actions, and then only the second is a prediction. A network that
//! is not split has one output an action, Q itself.
//!
//! - `shared` reads one action at a time with the same weights: the features of the action, the global features, and the mean
//!   features of all legal actions as context. It works for any number of actions.
//! - `flat` reads the legal-action mask, how much of each action is taken (its first feature) and the global features, and has
//!   outputs for every action. This is the paper's network, which must learn about every cluster by itself.

use tamis_nn::{
    mlp::{Adam, Mlp, Trace},
    named_enum,
    seed::Seed,
};

use crate::{
    Error,
    env::{Action, Observation, Shape},
};

/// Which network an agent learns with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkKind {
    /// One network that reads the features of one action at a time.
    #[default]
    Shared,
    /// A network from the legal-action mask to outputs for every action.
    Flat,
}

named_enum!(NetworkKind, "network", Error, {
    Shared => "shared": "one network reads the features of each action",
    Flat => "flat": "one output an action, as in the paper",
});

/// A network over observations of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct QNetwork {
    kind: NetworkKind,
    shape: Shape,
    /// Outputs an action: 2 if the network is split, else 1.
    heads: usize,
    mlp: Mlp,
}

/// What training keeps beside a network: Adam's moments, the gradient, and the activations of a forward pass.
#[derive(Debug, Clone)]
pub struct Training {
    adam: Adam,
    gradient: Vec<f32>,
    trace: Trace,
}

impl Training {
    /// Adam with this learning rate; a gradient of a norm above `max_grad_norm` is scaled down to it.
    pub fn new(network: &QNetwork, learning_rate: f32, max_grad_norm: f32) -> Self {
        Self {
            adam: Adam::new(learning_rate, max_grad_norm),
            gradient: vec![0.0; network.mlp.parameters().len()],
            trace: Trace::default(),
        }
    }

    /// One step of gradient descent; the gradient is set back to zero.
    ///
    /// # Panics
    ///
    /// If this was made for a network of another shape.
    pub fn step(&mut self, network: &mut QNetwork) {
        self.adam.step(&mut network.mlp, &mut self.gradient);
    }
}

/// The outputs for every action of an observation, legal or not; shapes `(actions,)`, standardised.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// Immediate rewards; 0 from a network that is not split.
    pub reward: Vec<f32>,
    /// Future returns; Q from a network that is not split.
    pub future: Vec<f32>,
}

/// One training sample: the immediate reward of an action, its future return, or both.
#[derive(Debug, Clone)]
pub struct TrainingSample<'a> {
    /// What the network reads of the action ([`QNetwork::input`]).
    pub input: &'a [f32],
    /// The action.
    pub action: Action,
    /// The immediate reward, if it is known; never for a network that is not split.
    pub reward: Option<f32>,
    /// The future return, if there is an estimate.
    pub future: Option<f32>,
}

impl QNetwork {
    /// A network with two hidden layers of `hidden` units and random weights.
    pub fn new(kind: NetworkKind, shape: Shape, hidden: usize, split: bool, seed: Seed) -> Self {
        let heads = if split { 2 } else { 1 };
        let (inputs, outputs) = match kind {
            NetworkKind::Shared => (2 * shape.action_features + shape.global_features, heads),
            NetworkKind::Flat => (2 * shape.actions + shape.global_features, heads * shape.actions),
        };
        Self {
            kind,
            shape,
            heads,
            mlp: Mlp::new(&[inputs, hidden, hidden, outputs], seed),
        }
    }

    /// Moves the weights by the share `tau` of the way towards those of another network of the same shape.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn follow(&mut self, other: &Self, tau: f32) {
        self.mlp.follow(&other.mlp, tau);
    }

    /// What the network reads of one action. `shared`: shape `(2 action_features + global_features,)`; `flat`: shape
    /// `(2 actions + global_features,)`.
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
        let inputs = self.kind.action_inputs(observations.iter().copied());
        // Action after action: pairs of reward and future, or Q alone.
        let outputs = self.mlp.predict(&inputs);
        outputs
            .chunks_exact(self.heads * actions)
            .map(|numbers| Values {
                reward: if self.heads == 2 {
                    numbers.iter().copied().step_by(2).collect()
                } else {
                    vec![0.0; actions]
                },
                future: numbers
                    .iter()
                    .copied()
                    .skip(self.heads - 1)
                    .step_by(self.heads)
                    .collect(),
            })
            .collect()
    }

    /// Adds the gradient of the mean Huber loss (delta 1) over the samples' known values; returns that loss.
    ///
    /// # Panics
    ///
    /// If a network that is not split learns a reward, or `training` was made for another shape.
    pub fn learn(&self, samples: &[TrainingSample<'_>], training: &mut Training) -> f64 {
        let mut inputs = Vec::with_capacity(samples.len() * self.mlp.inputs());
        samples.iter().for_each(|sample| inputs.extend_from_slice(sample.input));
        self.mlp.forward(&inputs, &mut training.trace);
        let output = training.trace.output();
        let known: usize = samples
            .iter()
            .map(|sample| usize::from(sample.reward.is_some()) + usize::from(sample.future.is_some()))
            .sum();
        let mut upstream = vec![0.0; output.len()];
        let mut loss = 0.0;
        for (i, sample) in samples.iter().enumerate() {
            let first = i * self.mlp.outputs()
                + if self.kind == NetworkKind::Flat {
                    self.heads * sample.action
                } else {
                    0
                };
            let mut add = |at: usize, target: f32| {
                let error = output[at] - target;
                loss += f64::from(if error.abs() <= 1.0 {
                    error * error / 2.0
                } else {
                    error.abs() - 0.5
                });
                upstream[at] = error.clamp(-1.0, 1.0) / known.max(1) as f32;
            };
            if let Some(target) = sample.reward {
                assert_eq!(self.heads, 2, "a network that is not split learns no rewards");
                add(first, target);
            }
            if let Some(target) = sample.future {
                add(first + self.heads - 1, target);
            }
        }
        self.mlp.backward(&training.trace, &upstream, &mut training.gradient);
        loss / known.max(1) as f64
    }
}

impl NetworkKind {
    /// The inputs of a network with outputs for all actions: one row an action (`shared`) or an observation (`flat`).
    pub(crate) fn action_inputs<'a>(self, observations: impl Iterator<Item = &'a Observation>) -> Vec<f32> {
        let mut rows = Vec::new();
        for observation in observations {
            match self {
                Self::Shared => {
                    let context = context(observation);
                    for features in observation.actions.iter_rows() {
                        rows.extend_from_slice(features);
                        rows.extend_from_slice(&observation.global);
                        rows.extend_from_slice(&context);
                    }
                }
                Self::Flat => extend_flat(observation, &mut rows),
            }
        }
        rows
    }

    /// The inputs of a value network: one row an observation.
    pub(crate) fn state_inputs<'a>(self, observations: impl Iterator<Item = &'a Observation>) -> Vec<f32> {
        let mut rows = Vec::new();
        for observation in observations {
            match self {
                Self::Shared => {
                    rows.extend_from_slice(&observation.global);
                    rows.extend(context(observation));
                }
                Self::Flat => extend_flat(observation, &mut rows),
            }
        }
        rows
    }
}

/// Appends the input of a flat network.
fn extend_flat(observation: &Observation, input: &mut Vec<f32>) {
    input.extend(observation.legal.iter().map(|&legal| f32::from(u8::from(legal))));
    input.extend(observation.actions.iter_rows().map(|features| features[0]));
    input.extend_from_slice(&observation.global);
}

/// The mean features of the legal actions, shape `(action_features,)`; 0 where none is legal.
fn context(observation: &Observation) -> Vec<f32> {
    let mut mean = vec![0.0; observation.actions.cols()];
    let legal = observation.legal_actions();
    let count = legal.len() as f32;
    for action in legal {
        for (sum, x) in mean.iter_mut().zip(observation.actions.row(action)) {
            *sum += x / count;
        }
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamis_nn::Matrix;

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
        let shared = QNetwork::new(NetworkKind::Shared, SHAPE, 4, true, Seed(1));
        let close = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-6);
        // features of action 1, global, mean of the legal actions 0 and 2
        assert!(close(&shared.input(&observation(), 1), &[0.3, 0.4, 0.7, 0.3, 0.4]));
        let flat = QNetwork::new(NetworkKind::Flat, SHAPE, 4, true, Seed(1));
        assert!(close(
            &flat.input(&observation(), 1),
            &[1.0, 0.0, 1.0, 0.1, 0.3, 0.5, 0.7]
        ));
    }

    /// Every kind, split and not.
    fn networks(hidden: usize) -> Vec<(String, QNetwork)> {
        let mut networks = Vec::new();
        for split in [true, false] {
            for kind in [NetworkKind::Shared, NetworkKind::Flat] {
                let name = format!("{kind}, split: {split}");
                networks.push((name, QNetwork::new(kind, SHAPE, hidden, split, Seed(2))));
            }
        }
        networks
    }

    /// Samples of the legal actions 0 and 2 and of the illegal 1: rewards of all, if the network learns them, and futures of the
    /// legal ones.
    fn samples<'a>(network: &QNetwork, inputs: &'a [Vec<f32>]) -> Vec<TrainingSample<'a>> {
        (0..3)
            .map(|action| TrainingSample {
                input: &inputs[action],
                action,
                reward: (network.heads == 2).then_some(action as f32 - 1.0),
                future: [Some(0.25), None, Some(0.5)][action],
            })
            .collect()
    }

    #[test]
    fn every_network_learns_rewards_and_futures() {
        for (name, mut network) in networks(16) {
            let mut training = Training::new(&network, 0.01, 10.0);
            let state = observation();
            let inputs: Vec<Vec<f32>> = (0..3).map(|action| network.input(&state, action)).collect();
            for _ in 0..600 {
                network.learn(&samples(&network, &inputs), &mut training);
                training.step(&mut network);
            }
            let values = &network.values(&[&state])[0];
            for (action, reward) in values.reward.iter().enumerate() {
                let wanted = if network.heads == 2 { action as f32 - 1.0 } else { 0.0 };
                assert!((reward - wanted).abs() < 0.05, "{name}: {values:?}");
            }
            assert!((values.future[0] - 0.25).abs() < 0.05, "{name}: {values:?}");
            assert!((values.future[2] - 0.5).abs() < 0.05, "{name}: {values:?}");
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for (name, mut network) in networks(5) {
            let mut training = Training::new(&network, 0.01, 10.0);
            let state = observation();
            let inputs: Vec<Vec<f32>> = (0..3).map(|action| network.input(&state, action)).collect();
            let loss_of = |network: &QNetwork| {
                let mut fresh = Training::new(network, 0.01, 10.0);
                network.learn(&samples(network, &inputs), &mut fresh)
            };
            network.learn(&samples(&network, &inputs), &mut training);
            for (i, &analytic) in training.gradient.iter().enumerate() {
                let nudged = |by: f32| {
                    let mut copy = network.clone();
                    copy.mlp.parameters_mut()[i] += by;
                    loss_of(&copy)
                };
                let numeric = ((nudged(5e-3) - nudged(-5e-3)) / 1e-2) as f32;
                assert!(
                    (numeric - analytic).abs() < 2e-2 * (0.05 + numeric.abs()),
                    "{name}, parameter {i}: {analytic} against {numeric}"
                );
            }
            training.step(&mut network);
        }
    }

    #[test]
    fn the_loss_is_the_mean_huber_loss_of_what_is_predicted() {
        for (name, network) in networks(6) {
            let state = observation();
            let inputs: Vec<Vec<f32>> = (0..3).map(|action| network.input(&state, action)).collect();
            let values = &network.values(&[&state])[0];
            let samples = samples(&network, &inputs);
            let huber = |off: f32| {
                f64::from(if off.abs() <= 1.0 {
                    off * off / 2.0
                } else {
                    off.abs() - 0.5
                })
            };
            let mut losses = Vec::new();
            for sample in &samples {
                losses.extend(sample.reward.map(|reward| huber(values.reward[sample.action] - reward)));
                losses.extend(sample.future.map(|future| huber(values.future[sample.action] - future)));
            }
            let wanted = losses.iter().sum::<f64>() / losses.len() as f64;
            let loss = network.learn(&samples, &mut Training::new(&network, 0.01, 10.0));
            assert!((loss - wanted).abs() < 1e-6, "{name}: {loss} against {wanted}");
        }
    }

    #[test]
    fn half_a_step_follows_half_way() {
        let other = QNetwork::new(NetworkKind::Flat, SHAPE, 4, true, Seed(1));
        let mut mine = QNetwork::new(NetworkKind::Flat, SHAPE, 4, true, Seed(2));
        let before = mine.clone();
        mine.follow(&other, 0.5);
        let first = |network: &QNetwork| network.mlp.parameters()[0];
        assert!((first(&mine) - f32::midpoint(first(&before), first(&other))).abs() < 1e-6);
    }
}
