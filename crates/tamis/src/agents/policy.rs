//! Policy and value networks: how likely each action is, and what can still be earned from a state.
//!
//! - `shared` reads one action at a time with the same weights, as the Q-network of the same name does, and adds a learned offset
//!   for each action: what only this action's own rewards can teach.
//! - `flat` reads the legal-action mask and how much of each action is taken, and has one output an action.
//!
//! The value network reads the state as a whole: for `shared` the global features and the mean features of the legal actions, for
//! `flat` the flat input.

use tamis_nn::{
    mlp::{Adam, Mlp, Trace},
    seed::Seed,
};

use crate::{
    agents::network::NetworkKind,
    env::{Action, Observation, Shape},
};

/// A policy network and a value network over observations of one shape.
#[derive(Debug, Clone)]
pub struct ActorCritic {
    kind: NetworkKind,
    actor: Trained,
    critic: Trained,
    /// Learned offset of each action's logit, shape `(actions,)`; as a network without inputs, so that Adam moves it.
    offsets: Trained,
}

/// A network with its optimiser.
#[derive(Debug, Clone)]
struct Trained {
    network: Mlp,
    adam: Adam,
    gradient: Vec<f32>,
}

/// The outputs for one observation.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyOutput {
    /// Logarithms of the probabilities of all actions, shape `(actions,)`; minus infinity for illegal ones.
    pub log_probs: Vec<f32>,
    /// The expected return from here on, standardised.
    pub value: f32,
}

/// One step of an episode to learn from.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// The state.
    pub observation: &'a Observation,
    /// The action taken.
    pub action: Action,
    /// The logarithm of the action's probability when it was taken.
    pub log_prob: f32,
    /// By how much the action was better than expected, normalised over the round.
    pub advantage: f32,
    /// The return from here on, standardised.
    pub value_target: f32,
}

/// Statistics of a training step: means over its samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Losses {
    /// The clipped surrogate loss.
    pub policy: f64,
    /// Half the squared error of the value.
    pub value: f64,
    /// Entropy of the policy, in nats.
    pub entropy: f64,
    /// How far the policy has moved from the one that acted: an estimate of the KL divergence (Schulman 2020), in nats.
    pub approx_kl: f64,
}

/// Coefficients of the loss, named as in Stable-Baselines3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossCoefficients {
    /// How far the ratio of a new to an old probability may move from 1.
    pub clip_range: f32,
    /// Weight of the value loss.
    pub vf_coef: f32,
    /// Weight of the entropy bonus.
    pub ent_coef: f32,
}

impl Trained {
    fn new(sizes: &[usize], learning_rate: f32, seed: Seed) -> Self {
        let network = Mlp::new(sizes, seed);
        Self {
            adam: Adam::new(learning_rate, 0.5),
            gradient: vec![0.0; network.parameters().len()],
            network,
        }
    }

    fn step(&mut self) {
        self.adam.step(&mut self.network, &mut self.gradient);
    }
}

impl ActorCritic {
    /// Networks with two hidden layers of `hidden` units and random weights; the first policy is nearly uniform.
    pub fn new(kind: NetworkKind, shape: Shape, hidden: usize, learning_rate: f32, seed: Seed) -> Self {
        let flat = 2 * shape.actions + shape.global_features;
        let (actor, critic) = match kind {
            NetworkKind::Shared => (
                [2 * shape.action_features + shape.global_features, hidden, hidden, 1],
                [shape.action_features + shape.global_features, hidden, hidden, 1],
            ),
            NetworkKind::Flat => ([flat, hidden, hidden, shape.actions], [flat, hidden, hidden, 1]),
        };
        Self {
            kind,
            actor: Trained::new(&actor, learning_rate, seed.derive("actor")),
            critic: Trained::new(&critic, learning_rate, seed.derive("critic")),
            // The one input is always 0, so only the biases count.
            offsets: Trained::new(&[1, shape.actions], learning_rate * 10.0, seed.derive("offsets")),
        }
    }

    /// Evaluates both networks on these observations.
    pub fn evaluate(&self, observations: &[&Observation]) -> Vec<PolicyOutput> {
        let actor = self
            .actor
            .network
            .predict(&self.kind.action_inputs(observations.iter().copied()));
        let critic = self
            .critic
            .network
            .predict(&self.kind.state_inputs(observations.iter().copied()));
        let actions = self.offsets.network.outputs();
        let offsets = self.offsets.network.predict(&[0.0]);
        observations
            .iter()
            .zip(actor.chunks_exact(actions).zip(critic))
            .map(|(observation, (logits, value))| PolicyOutput {
                log_probs: log_softmax(logits, &offsets, &observation.legal),
                value,
            })
            .collect()
    }

    /// One step of gradient descent on the mean loss of these samples.
    pub fn learn(&mut self, samples: &[Sample<'_>], coefficients: LossCoefficients, trace: &mut Trace) -> Losses {
        let losses = self.accumulate(samples, coefficients, trace);
        self.actor.step();
        self.critic.step();
        match self.kind {
            NetworkKind::Shared => self.offsets.step(),
            NetworkKind::Flat => self.offsets.gradient.fill(0.0),
        }
        losses
    }

    /// Adds the gradients of the mean loss of these samples.
    fn accumulate(&mut self, samples: &[Sample<'_>], coefficients: LossCoefficients, trace: &mut Trace) -> Losses {
        let observations: Vec<&Observation> = samples.iter().map(|sample| sample.observation).collect();
        let actions = self.offsets.network.outputs();
        let share = 1.0 / samples.len().max(1) as f32;
        let mut losses = Losses::default();

        let inputs = self.kind.action_inputs(observations.iter().copied());
        self.actor.network.forward(&inputs, trace);
        let offsets = self.offsets.network.predict(&[0.0]);
        let mut upstream = vec![0.0; trace.output().len()];
        let rows = trace
            .output()
            .chunks_exact(actions)
            .zip(upstream.chunks_exact_mut(actions));
        for (sample, (logits, upstream)) in samples.iter().zip(rows) {
            let log = log_softmax(logits, &offsets, &sample.observation.legal);
            let log_ratio = log[sample.action] - sample.log_prob;
            let ratio = log_ratio.clamp(-20.0, 20.0).exp();
            let clipped = ratio.clamp(1.0 - coefficients.clip_range, 1.0 + coefficients.clip_range);
            let (plain, clipped) = (ratio * sample.advantage, clipped * sample.advantage);
            let entropy: f32 = -log.iter().filter(|l| l.is_finite()).map(|l| l.exp() * l).sum::<f32>();
            losses.policy -= f64::from(plain.min(clipped) * share);
            losses.entropy += f64::from(entropy * share);
            losses.approx_kl += f64::from((ratio - 1.0 - log_ratio) * share);
            // Where the clipped term is the smaller one, the loss does not depend on the policy.
            let slope = if plain <= clipped { plain } else { 0.0 };
            for (action, (up, &l)) in upstream.iter_mut().zip(&log).enumerate() {
                if l.is_finite() {
                    let p = l.exp();
                    let chosen = f32::from(u8::from(action == sample.action));
                    // d log π(a) / d logit = [is a] - p; d entropy / d logit = -p (log p + entropy)
                    *up = share * (-slope * (chosen - p) + coefficients.ent_coef * p * (l + entropy));
                }
            }
        }
        self.actor.network.backward(trace, &upstream, &mut self.actor.gradient);
        let biases = self.offsets.gradient.len() - actions;
        for upstream in upstream.chunks_exact(actions) {
            self.offsets.gradient[biases..]
                .iter_mut()
                .zip(upstream)
                .for_each(|(g, u)| *g += u);
        }

        let inputs = self.kind.state_inputs(observations.iter().copied());
        self.critic.network.forward(&inputs, trace);
        let upstream: Vec<f32> = trace
            .output()
            .iter()
            .zip(samples)
            .map(|(value, sample)| {
                let error = value - sample.value_target;
                losses.value += f64::from(error * error / 2.0 * share);
                coefficients.vf_coef * share * error
            })
            .collect();
        self.critic
            .network
            .backward(trace, &upstream, &mut self.critic.gradient);
        losses
    }
}

/// Logarithms of the probabilities of the legal actions; minus infinity for the others. One legal action has probability 1.
fn log_softmax(logits: &[f32], offsets: &[f32], legal: &[bool]) -> Vec<f32> {
    let raw = || logits.iter().zip(offsets).zip(legal);
    let open = || {
        raw()
            .filter(|(_, legal)| **legal)
            .map(|((logit, offset), _)| logit + offset)
    };
    let largest = open().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = open().map(|x| (x - largest).exp()).sum::<f32>().ln();
    raw()
        .map(|((logit, offset), &legal)| {
            if legal {
                logit + offset - largest - log_sum
            } else {
                f32::NEG_INFINITY
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use tamis_nn::Matrix;

    const SHAPE: Shape = Shape {
        actions: 4,
        action_features: 2,
        global_features: 1,
        state_features: 0,
    };

    fn observation(seed: u64, legal: [bool; 4]) -> Observation {
        let mut rng = Seed(seed).rng();
        Observation {
            actions: Matrix::from_vec((0..8).map(|_| rng.random::<f32>()).collect(), 4, 2),
            global: vec![rng.random()],
            step: 0,
            legal: legal.to_vec(),
        }
    }

    #[test]
    fn illegal_actions_are_impossible_and_the_others_sum_to_one() {
        let log = log_softmax(&[1.0, 80.0, 2.0], &[0.0, 0.0, -1.0], &[true, false, true]);
        assert_eq!(log[1], f32::NEG_INFINITY);
        assert!((log[0] - 0.5f32.ln()).abs() < 1e-6 && (log[2] - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!(log_softmax(&[-300.0, 5.0], &[0.0, 0.0], &[true, false])[0], 0.0);
    }

    fn loss(model: &ActorCritic, samples: &[Sample<'_>], coefficients: LossCoefficients) -> f64 {
        let losses = model.clone().accumulate(samples, coefficients, &mut Trace::default());
        losses.policy + f64::from(coefficients.vf_coef) * losses.value
            - f64::from(coefficients.ent_coef) * losses.entropy
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let coefficients = LossCoefficients {
            clip_range: 0.2,
            vf_coef: 0.5,
            ent_coef: 0.05,
        };
        let seen = [observation(1, [true; 4]), observation(2, [true, false, true, true])];
        for kind in [NetworkKind::Shared, NetworkKind::Flat] {
            let model = ActorCritic::new(kind, SHAPE, 5, 0.0, Seed(4));
            let before = model.evaluate(&[&seen[0], &seen[1]]);
            let samples: Vec<Sample<'_>> = (0..2)
                .map(|i| Sample {
                    observation: &seen[i],
                    action: 2,
                    // The first ratio is within the clip range, the second outside of it on the side that is clipped.
                    log_prob: before[i].log_probs[2] - if i == 0 { 0.05 } else { 0.5 },
                    advantage: 1.5,
                    value_target: 0.7,
                })
                .collect();
            let parts: [fn(&mut ActorCritic) -> &mut Trained; 3] =
                [|m| &mut m.actor, |m| &mut m.critic, |m| &mut m.offsets];
            for (p, part) in parts.iter().enumerate() {
                if p == 2 && kind == NetworkKind::Flat {
                    continue;
                }
                let gradient = gradient_of(&model, &samples, coefficients, p);
                let first = if p == 2 { SHAPE.actions } else { 0 };
                for (i, &analytic) in gradient.iter().enumerate().skip(first) {
                    let at = |step: f32| {
                        let mut moved = model.clone();
                        part(&mut moved).network.parameters_mut()[i] += step;
                        loss(&moved, &samples, coefficients)
                    };
                    let numeric = ((at(2e-3) - at(-2e-3)) / 4e-3) as f32;
                    assert!(
                        (numeric - analytic).abs() < 2e-2 * (0.05 + numeric.abs()),
                        "{kind}, part {p}, parameter {i}: {analytic} against {numeric}"
                    );
                }
            }
        }
    }

    fn gradient_of(
        model: &ActorCritic,
        samples: &[Sample<'_>],
        coefficients: LossCoefficients,
        part: usize,
    ) -> Vec<f32> {
        let mut copy = model.clone();
        copy.accumulate(samples, coefficients, &mut Trace::default());
        let mut gradients = vec![copy.actor.gradient, copy.critic.gradient, copy.offsets.gradient];
        gradients.swap_remove(part)
    }
}
