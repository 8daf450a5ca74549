//! Q-networks: what each action will earn at once, and what can still be earned after it.
//!
//! A *split* network has two numbers an action, the *immediate* reward and the *future* return; their sum is Q. They are kept
//! apart because the environment can tell the first exactly for a few actions, and then only the second is a guess. A network that
//! is not split has the future return alone, which is to be learned as Q itself.
//!
//! - `shared` reads one action at a time with the same weights: its features, the global ones, and the mean features of all
//!   legal actions as context. It does not care how many actions there are.
//! - `flat` reads which actions are legal, how much of each is taken (its first feature) and the global features, and has outputs
//!   for every action: the paper's network, which must learn about every cluster by itself.
//!
//! A *duelling* network (Wang et al. 2016) has a second, small network beside it, which reads no single action but only the
//! state: for `shared` the global features and the context, for `flat` all that the first reads. Its one output is the state's
//! value, and what the first network says of an action's future counts only as its advantage over the others:
//!
//! ```text
//! future(s, a) = V(s) + A(s, a) − mean of A(s, b) over the legal b        (equation 9)
//! ```
//!
//! Immediate rewards are not split: the environment tells them for single actions.

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
    /// One network reads each action's features.
    #[default]
    Shared,
    /// From the legal-action mask to two outputs an action.
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
    /// Numbers an action: its reward and its future, or its future alone.
    heads: usize,
    mlp: Mlp,
    /// The value of a state, in a duelling network.
    value: Option<Mlp>,
}

/// What it takes to train a network beside it: gradients, what the passes leave behind, and Adam's moments. The two parts of a
/// duelling network have each their own.
#[derive(Debug, Clone)]
pub struct Training {
    main: Pass,
    value: Option<Pass>,
}

#[derive(Debug, Clone)]
struct Pass {
    adam: Adam,
    gradient: Vec<f32>,
    trace: Trace,
}

impl Pass {
    fn new(network: &Mlp, rate: f32, clip: f32) -> Self {
        Self {
            adam: Adam::new(rate, clip),
            gradient: vec![0.0; network.parameters().len()],
            trace: Trace::default(),
        }
    }
}

impl Training {
    /// Adam with this learning rate; a gradient with a norm above `clip` is scaled down to it.
    pub fn new(network: &QNetwork, rate: f32, clip: f32) -> Self {
        Self {
            main: Pass::new(&network.mlp, rate, clip),
            value: network.value.as_ref().map(|value| Pass::new(value, rate, clip)),
        }
    }

    /// One step against the gradients, which are set back to zero.
    ///
    /// # Panics
    ///
    /// If this was made for a network of another shape.
    pub fn step(&mut self, network: &mut QNetwork) {
        self.main.adam.step(&mut network.mlp, &mut self.main.gradient);
        if let Some((pass, value)) = self.value.as_mut().zip(network.value.as_mut()) {
            pass.adam.step(value, &mut pass.gradient);
        }
    }
}

/// The values of every action of an observation, legal or not; shapes `(actions,)`, in the units of training.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// What the action earns at once; 0 from a network that is not split.
    pub reward: Vec<f32>,
    /// What can still be earned after it.
    pub future: Vec<f32>,
}

/// One training example: an action's immediate reward, its future return, or both.
#[derive(Debug, Clone)]
pub struct Lesson<'a> {
    /// What the network reads to know the action ([`QNetwork::input`]).
    pub input: &'a [f32],
    /// The state it is taken in. Only a duelling network needs it, and only where the future is known.
    pub state: Option<&'a Observation>,
    /// Which action it is about.
    pub action: Action,
    /// The reward, where it is known; never for a network that is not split.
    pub reward: Option<f32>,
    /// The future return, where there is an estimate.
    pub future: Option<f32>,
    /// What the loss of both is multiplied by; 1 is usual.
    pub weight: f32,
}

/// What came of learning from several lessons.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// The mean loss over the known values.
    pub loss: f64,
    /// By how much the network's future exceeded the lesson's, 0 where the lesson has none; shape `(lessons,)`.
    pub errors: Vec<f32>,
}

impl QNetwork {
    /// A network with two hidden layers of `hidden` units and random weights; `split` or not as told above.
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
            value: None,
        }
    }

    /// The same with a second network of two hidden layers for the value of a state.
    pub fn duelling(kind: NetworkKind, shape: Shape, hidden: usize, split: bool, seed: Seed) -> Self {
        let plain = Self::new(kind, shape, hidden, split, seed);
        let inputs = match kind {
            NetworkKind::Shared => shape.action_features + shape.global_features,
            NetworkKind::Flat => plain.mlp.inputs(),
        };
        Self {
            value: Some(Mlp::new(&[inputs, hidden, hidden, 1], seed.derive("value"))),
            ..plain
        }
    }

    /// Moves by `share` of the way towards another network of the same shape.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn follow(&mut self, other: &Self, share: f32) {
        assert_eq!(self.value.is_some(), other.value.is_some(), "networks of one shape");
        self.mlp.follow(&other.mlp, share);
        if let Some((mine, theirs)) = self.value.as_mut().zip(other.value.as_ref()) {
            mine.follow(theirs, share);
        }
    }

    /// What the network reads to know one action; `shared`: shape `(2 action_features + global_features,)`, `flat`:
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
        // Both networks' outputs read as (reward, future) pairs, or as futures, action after action.
        let outputs = self.mlp.predict(&inputs);
        let mut values: Vec<Values> = outputs
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
            .collect();
        if let Some(value) = &self.value {
            let states = value.predict(&self.kind.state_inputs(observations.iter().copied()));
            for ((values, observation), state) in values.iter_mut().zip(observations).zip(states) {
                let usual = mean_of_legal(&observation.legal, |action| values.future[action]);
                values.future.iter_mut().for_each(|future| *future += state - usual);
            }
        }
        values
    }

    /// Adds the gradient of the mean Huber loss (delta 1) over the lessons' known values.
    ///
    /// # Panics
    ///
    /// If a duelling network is told a future without the state, one that is not split is told a reward, or `training` was made for
    /// another shape.
    pub fn learn(&self, lessons: &[Lesson<'_>], training: &mut Training) -> Learned {
        let mut inputs = Vec::with_capacity(lessons.len() * self.mlp.inputs());
        lessons.iter().for_each(|lesson| inputs.extend_from_slice(lesson.input));
        // What a duelling network must know of the lessons that tell a future, in their order: the states, and where the
        // outputs with the advantages of their legal actions lie.
        let duels: Vec<&Observation> = match &self.value {
            None => Vec::new(),
            Some(_) => lessons
                .iter()
                .filter(|lesson| lesson.future.is_some())
                .map(|lesson| {
                    lesson
                        .state
                        .expect("a duelling network learns futures in a known state")
                })
                .collect(),
        };
        let width = self.mlp.outputs();
        let rivals = self.rivals(lessons, &duels, &mut inputs);
        self.mlp.forward(&inputs, &mut training.main.trace);
        let output = training.main.trace.output();
        if let (Some(value), Some(pass)) = (&self.value, &mut training.value) {
            value.forward(&self.kind.state_inputs(duels.iter().copied()), &mut pass.trace);
        }
        let known: usize = lessons
            .iter()
            .map(|lesson| usize::from(lesson.reward.is_some()) + usize::from(lesson.future.is_some()))
            .sum();
        let mut upstream = vec![0.0; output.len()];
        let mut state_upstream = vec![0.0; duels.len()];
        let (mut loss, mut errors, mut duel) = (0.0, vec![0.0; lessons.len()], 0);
        for (i, lesson) in lessons.iter().enumerate() {
            let first = i * width
                + if self.kind == NetworkKind::Flat {
                    self.heads * lesson.action
                } else {
                    0
                };
            let future = first + self.heads - 1;
            let mut add = |off: f32| {
                loss += f64::from(lesson.weight)
                    * f64::from(if off.abs() <= 1.0 {
                        off * off / 2.0
                    } else {
                        off.abs() - 0.5
                    });
                lesson.weight * off.clamp(-1.0, 1.0) / known.max(1) as f32
            };
            if let Some(target) = lesson.reward {
                assert_eq!(self.heads, 2, "a network that is not split is told no rewards");
                upstream[first] = add(output[first] - target);
            }
            let Some(target) = lesson.future else { continue };
            let Some(pass) = &training.value else {
                errors[i] = output[future] - target;
                upstream[future] = add(errors[i]);
                continue;
            };
            let rivals = &rivals[duel];
            let usual = rivals.iter().map(|&at| output[at]).sum::<f32>() / rivals.len().max(1) as f32;
            errors[i] = pass.trace.output()[duel] + (output[future] - usual) - target;
            // d future / d V = 1, d future / d A(b) = [b = a] - 1 / number of legal actions
            let slope = add(errors[i]);
            state_upstream[duel] = slope;
            upstream[future] += slope;
            for &at in rivals {
                upstream[at] -= slope / rivals.len() as f32;
            }
            duel += 1;
        }
        self.mlp
            .backward(&training.main.trace, &upstream, &mut training.main.gradient);
        if let (Some(value), Some(pass)) = (&self.value, &mut training.value) {
            value.backward(&pass.trace, &state_upstream, &mut pass.gradient);
        }
        Learned {
            loss: loss / known.max(1) as f64,
            errors,
        }
    }

    /// Where in the output the advantages of each duel's legal actions lie. `flat` has them in the lesson's own row; for
    /// `shared`, rows for them are added to the inputs.
    fn rivals(&self, lessons: &[Lesson<'_>], duels: &[&Observation], inputs: &mut Vec<f32>) -> Vec<Vec<usize>> {
        let width = self.mlp.outputs();
        let rows = lessons
            .iter()
            .enumerate()
            .filter(|(_, lesson)| lesson.future.is_some())
            .map(|(row, _)| row);
        let mut places = Vec::new();
        for (state, row) in duels.iter().zip(rows) {
            let legal = (0..state.legal.len()).filter(|&action| state.legal[action]);
            places.push(match self.kind {
                NetworkKind::Flat => legal
                    .map(|action| row * width + self.heads * (action + 1) - 1)
                    .collect(),
                NetworkKind::Shared => {
                    let context = context(state);
                    legal
                        .map(|action| {
                            let row = inputs.len() / self.mlp.inputs();
                            inputs.extend_from_slice(state.actions.row(action));
                            inputs.extend_from_slice(&state.global);
                            inputs.extend_from_slice(&context);
                            row * width + self.heads - 1
                        })
                        .collect()
                }
            });
        }
        places
    }
}

/// The mean over the legal actions; 0 where none is.
fn mean_of_legal(legal: &[bool], value: impl Fn(Action) -> f32) -> f32 {
    let open = (0..legal.len()).filter(|&action| legal[action]);
    let (sum, count) = open.fold((0.0, 0u32), |(sum, count), action| (sum + value(action), count + 1));
    sum / count.max(1) as f32
}

impl NetworkKind {
    /// What a network reads that has outputs for all actions: one row an action (`shared`) or an observation (`flat`).
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

    /// What a network reads that values states, one row each.
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

/// What the flat network reads.
fn extend_flat(observation: &Observation, input: &mut Vec<f32>) {
    input.extend(observation.legal.iter().map(|&legal| f32::from(u8::from(legal))));
    input.extend(observation.actions.iter_rows().map(|features| features[0]));
    input.extend_from_slice(&observation.global);
}

/// The mean features of the legal actions, shape `(action_features,)`.
fn context(observation: &Observation) -> Vec<f32> {
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

    /// Every kind, split and whole.
    fn networks(hidden: usize) -> Vec<(String, QNetwork)> {
        let mut networks = Vec::new();
        for split in [true, false] {
            for kind in [NetworkKind::Shared, NetworkKind::Flat] {
                let name = format!("{kind}, split: {split}");
                networks.push((name.clone(), QNetwork::new(kind, SHAPE, hidden, split, Seed(2))));
                let duelling = QNetwork::duelling(kind, SHAPE, hidden, split, Seed(2));
                networks.push((format!("{name}, duelling"), duelling));
            }
        }
        networks
    }

    /// Lessons of the legal actions 0 and 2 and of the illegal 1: rewards of all, if the network learns them, and futures of the
    /// legal ones.
    fn lessons<'a>(network: &QNetwork, inputs: &'a [Vec<f32>], state: &'a Observation) -> Vec<Lesson<'a>> {
        (0..3)
            .map(|action| Lesson {
                input: &inputs[action],
                state: Some(state),
                action,
                reward: (network.heads == 2).then_some(action as f32 - 1.0),
                future: [Some(0.25), None, Some(0.5)][action],
                weight: [1.0, 0.5, 0.25][action],
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
                network.learn(&lessons(&network, &inputs, &state), &mut training);
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
                network.learn(&lessons(network, &inputs, &state), &mut fresh).loss
            };
            network.learn(&lessons(&network, &inputs, &state), &mut training);
            let value = training.value.as_ref().map(|pass| pass.gradient.clone());
            let parts = [Some(training.main.gradient.clone()), value];
            for (part, gradient) in parts.into_iter().enumerate() {
                for (i, analytic) in gradient.into_iter().flatten().enumerate() {
                    let nudged = |by: f32| {
                        let mut copy = network.clone();
                        let mlp = if part == 0 {
                            &mut copy.mlp
                        } else {
                            copy.value.as_mut().expect("a duelling network")
                        };
                        mlp.parameters_mut()[i] += by;
                        loss_of(&copy)
                    };
                    let numeric = ((nudged(5e-3) - nudged(-5e-3)) / 1e-2) as f32;
                    assert!(
                        (numeric - analytic).abs() < 2e-2 * (0.05 + numeric.abs()),
                        "{name}, part {part}, parameter {i}: {analytic} against {numeric}"
                    );
                }
            }
            training.step(&mut network);
        }
    }

    #[test]
    fn what_is_learned_from_is_what_is_predicted() {
        for (name, network) in networks(6) {
            let state = observation();
            let inputs: Vec<Vec<f32>> = (0..3).map(|action| network.input(&state, action)).collect();
            let values = &network.values(&[&state])[0];
            let learned = network.learn(
                &lessons(&network, &inputs, &state),
                &mut Training::new(&network, 0.01, 10.0),
            );
            let wanted = [values.future[0] - 0.25, 0.0, values.future[2] - 0.5];
            for (error, wanted) in learned.errors.iter().zip(wanted) {
                assert!((error - wanted).abs() < 1e-6, "{name}: {error} against {wanted}");
            }
            if let Some(value) = &network.value {
                // advantages of the legal actions have mean 0, so what is left is the state's value
                let mean = f32::midpoint(values.future[0], values.future[2]);
                let state_value = value.predict(&network.kind.state_inputs(std::iter::once(&state)))[0];
                assert!(
                    (mean - state_value).abs() < 1e-6,
                    "{name}: {mean} against {state_value}"
                );
            }
        }
    }

    #[test]
    fn a_weight_scales_a_lesson_and_half_a_step_follows_half_way() {
        let network = QNetwork::new(NetworkKind::Shared, SHAPE, 4, true, Seed(1));
        let input = network.input(&observation(), 0);
        let gradient = |weight: f32| {
            let lesson = Lesson {
                input: &input,
                state: None,
                action: 0,
                reward: Some(0.7),
                future: None,
                weight,
            };
            let mut training = Training::new(&network, 0.01, 10.0);
            let loss = network.learn(&[lesson], &mut training).loss;
            (loss, training.main.gradient)
        };
        let ((whole, full), (half, scaled)) = (gradient(1.0), gradient(0.5));
        assert!((half - whole / 2.0).abs() < 1e-9);
        assert!(full.iter().zip(&scaled).all(|(a, b)| (a / 2.0 - b).abs() < 1e-7));

        let other = QNetwork::duelling(NetworkKind::Flat, SHAPE, 4, true, Seed(1));
        let mut mine = QNetwork::duelling(NetworkKind::Flat, SHAPE, 4, true, Seed(2));
        let before = mine.clone();
        mine.follow(&other, 0.5);
        let value = |network: &QNetwork| network.value.clone().expect("a duelling network").parameters()[0];
        assert!((value(&mine) - f32::midpoint(value(&before), value(&other))).abs() < 1e-6);
    }
}
