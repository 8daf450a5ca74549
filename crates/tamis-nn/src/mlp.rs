//! A small multilayer perceptron with rectified linear units between its layers, trained by Adam.
//!
//! Batches are rows of a row-major slice. Weights of layer `l` have shape `(inputs, outputs)`, followed by its biases, all
//! layers in one flat vector, so that an optimiser and a copy to a target network are one loop each.
//!
//! Sources: He et al. 2015 (initialisation); Kingma & Ba 2015, algorithm 1 (Adam).

use rand::RngExt;
use rayon::prelude::*;

use crate::{
    kernels::product::{Layout, product},
    optim::adamw::{AdamW, Parameter, global_norm},
    seed::Seed,
};

/// Rows that one thread takes through the network at a time.
const BLOCK: usize = 512;

/// The network: layer sizes and parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    /// Inputs, hidden units of each layer, outputs.
    sizes: Vec<usize>,
    parameters: Vec<f32>,
}

/// What a forward pass leaves for the backward pass: the input of every layer, then the output.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// `layers[l]` has shape `(rows, sizes[l])`.
    layers: Vec<Vec<f32>>,
    rows: usize,
}

impl Trace {
    /// The network's output, shape `(rows, outputs)`.
    pub fn output(&self) -> &[f32] {
        self.layers.last().map_or(&[], Vec::as_slice)
    }
}

impl Mlp {
    /// A network with random weights, uniform with the variance of He et al., and biases of zero.
    ///
    /// # Panics
    ///
    /// If there are fewer than two sizes.
    pub fn new(sizes: &[usize], seed: Seed) -> Self {
        assert!(sizes.len() >= 2, "a network has inputs and outputs");
        let mut rng = seed.rng();
        let mut parameters = Vec::new();
        for (layer, pair) in sizes.windows(2).enumerate() {
            // The last layer starts small, so that the first predictions are near zero.
            let gain = if layer + 2 == sizes.len() { 0.1 } else { 1.0 };
            let bound = gain * (6.0 / pair[0].max(1) as f32).sqrt();
            parameters.extend((0..pair[0] * pair[1]).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound));
            parameters.extend(std::iter::repeat_n(0.0, pair[1]));
        }
        Self {
            sizes: sizes.to_vec(),
            parameters,
        }
    }

    /// The length of an input row.
    pub fn inputs(&self) -> usize {
        self.sizes[0]
    }

    /// The length of an output row.
    pub fn outputs(&self) -> usize {
        self.sizes[self.sizes.len() - 1]
    }

    /// All parameters, layer after layer.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// All parameters, to change them.
    pub fn parameters_mut(&mut self) -> &mut [f32] {
        &mut self.parameters
    }

    /// Moves by `share` of the way towards another network of the same sizes; 1 makes a copy.
    ///
    /// # Panics
    ///
    /// If the sizes differ.
    pub fn follow(&mut self, other: &Self, share: f32) {
        assert_eq!(self.sizes, other.sizes, "networks of one shape");
        for (mine, theirs) in self.parameters.iter_mut().zip(&other.parameters) {
            *mine += share * (theirs - *mine);
        }
    }

    /// The parameters of each layer: weights, biases.
    fn layers(&self) -> impl Iterator<Item = (&[f32], &[f32])> {
        let mut rest = self.parameters.as_slice();
        self.sizes.windows(2).map(move |pair| {
            let (weights, tail) = rest.split_at(pair[0] * pair[1]);
            let (biases, tail) = tail.split_at(pair[1]);
            rest = tail;
            (weights, biases)
        })
    }

    /// The outputs for a batch, shape `(rows, outputs)`, computed in parallel blocks of rows.
    ///
    /// # Panics
    ///
    /// If `x` is no whole number of rows.
    pub fn predict(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.rows_of(x);
        if rows <= BLOCK {
            // To hand one block to other threads would take longer than to do it.
            let mut trace = Trace::default();
            self.forward(x, &mut trace);
            return trace.layers.pop().unwrap_or_default();
        }
        let mut out = vec![0.0; rows * self.outputs()];
        out.par_chunks_mut(BLOCK * self.outputs())
            .zip(x.par_chunks(BLOCK * self.inputs()))
            .for_each_init(Trace::default, |trace, (out, x)| {
                self.forward(x, trace);
                out.copy_from_slice(trace.output());
            });
        out
    }

    /// Runs a batch and keeps what [`Mlp::backward`] needs.
    ///
    /// # Panics
    ///
    /// If `x` is no whole number of rows.
    pub fn forward(&self, x: &[f32], trace: &mut Trace) {
        let rows = self.rows_of(x);
        trace.rows = rows;
        trace.layers.resize_with(self.sizes.len(), Vec::new);
        trace.layers[0].clear();
        trace.layers[0].extend_from_slice(x);
        let last = self.sizes.len() - 2;
        for (l, (weights, biases)) in self.layers().enumerate() {
            let (before, after) = trace.layers.split_at_mut(l + 1);
            let out = &mut after[0];
            out.clear();
            (0..rows).for_each(|_| out.extend_from_slice(biases));
            let shape = (rows, self.sizes[l], self.sizes[l + 1]);
            product(out, shape, &before[l], Layout::Plain, weights, Layout::Plain, 1.0);
            if l < last {
                for x in out.iter_mut() {
                    *x = x.max(0.0);
                }
            }
        }
    }

    /// Adds to `gradient` the gradient of a loss whose derivative by the output is `upstream`, shape `(rows, outputs)`.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit the last forward pass.
    pub fn backward(&self, trace: &Trace, upstream: &[f32], gradient: &mut [f32]) {
        assert_eq!(upstream.len(), trace.rows * self.outputs(), "one derivative an output");
        assert_eq!(gradient.len(), self.parameters.len(), "one gradient a parameter");
        let rows = trace.rows;
        let mut upstream = upstream.to_vec();
        let layers: Vec<(&[f32], &[f32])> = self.layers().collect();
        let mut end = gradient.len();
        for l in (0..layers.len()).rev() {
            let (inputs, outputs) = (self.sizes[l], self.sizes[l + 1]);
            let start = end - inputs * outputs - outputs;
            let (weights, biases) = gradient[start..end].split_at_mut(inputs * outputs);
            end = start;
            // dW = xᵀ u, db = Σ u, dx = u Wᵀ where x was positive
            product(
                weights,
                (inputs, rows, outputs),
                &trace.layers[l],
                Layout::Transposed,
                &upstream,
                Layout::Plain,
                1.0,
            );
            for u in upstream.chunks_exact(outputs) {
                biases.iter_mut().zip(u).for_each(|(b, u)| *b += u);
            }
            if l > 0 {
                let mut down = vec![0.0; rows * inputs];
                product(
                    &mut down,
                    (rows, outputs, inputs),
                    &upstream,
                    Layout::Plain,
                    layers[l].0,
                    Layout::Transposed,
                    0.0,
                );
                down.iter_mut()
                    .zip(&trace.layers[l])
                    .for_each(|(d, &x)| *d = if x > 0.0 { *d } else { 0.0 });
                upstream = down;
            }
        }
    }

    fn rows_of(&self, x: &[f32]) -> usize {
        assert_eq!(x.len() % self.inputs(), 0, "rows of {} inputs", self.inputs());
        x.len() / self.inputs()
    }
}

/// Adam for a whole network: [`AdamW`] without decay, gradients clipped by their norm.
#[derive(Debug, Clone)]
pub struct Adam {
    rate: f32,
    /// The largest norm of a gradient; larger ones are scaled down to it.
    clip: f32,
    moments: AdamW,
}

impl Adam {
    /// An optimiser that has taken no step.
    pub fn new(rate: f32, clip: f32) -> Self {
        Self {
            rate,
            clip,
            moments: AdamW::new(0.0),
        }
    }

    /// One step against the gradient, which is set back to zero. A gradient that is not finite is skipped.
    pub fn step(&mut self, network: &mut Mlp, gradient: &mut [f32]) {
        let norm = global_norm(std::iter::once(&*gradient)) as f32;
        if !norm.is_finite() {
            gradient.fill(0.0);
            return;
        }
        let factor = if norm > self.clip { self.clip / norm } else { 1.0 };
        let all = Parameter {
            values: &mut network.parameters,
            gradient,
            decays: false,
        };
        self.moments.step(self.rate, factor, &mut [all], None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut network = Mlp::new(&[3, 5, 4, 2], Seed(3));
        let mut rng = Seed(4).rng();
        let x: Vec<f32> = (0..6 * 3).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
        // loss = half the sum of squared outputs, so its derivative by the output is the output
        let loss = |network: &Mlp| -> f64 { network.predict(&x).iter().map(|&y| f64::from(y).powi(2) / 2.0).sum() };
        let mut trace = Trace::default();
        network.forward(&x, &mut trace);
        let mut gradient = vec![0.0; network.parameters.len()];
        network.backward(&trace, trace.output(), &mut gradient);
        for (i, &analytic) in gradient.iter().enumerate() {
            let at = network.parameters[i];
            let step = 1e-2;
            network.parameters[i] = at + step;
            let above = loss(&network);
            network.parameters[i] = at - step;
            let below = loss(&network);
            network.parameters[i] = at;
            let numeric = ((above - below) / f64::from(2.0 * step)) as f32;
            assert!(
                (numeric - analytic).abs() < 2e-2 * (0.1 + numeric.abs()),
                "parameter {i}: {analytic} against {numeric}"
            );
        }
    }

    #[test]
    fn adam_takes_the_steps_worked_by_hand() {
        // One weight at p, gradient 0.5 twice, rate 0.1. Step 1: m̂ = 0.5, ŝ = 0.25 -> p - 0.1. Step 2: m = 0.095,
        // m̂ = 0.095 / 0.19 = 0.5, ŝ = 0.25 -> p - 0.2.
        let mut network = Mlp {
            sizes: vec![1, 1],
            parameters: vec![1.0, 0.0],
        };
        let mut adam = Adam::new(0.1, 10.0);
        for want in [0.9, 0.8] {
            let mut gradient = [0.5, 0.0];
            adam.step(&mut network, &mut gradient);
            assert!((network.parameters[0] - want).abs() < 1e-5, "{}", network.parameters[0]);
            assert!(gradient.iter().all(|&g| g == 0.0));
        }
        let before = network.clone();
        adam.step(&mut network, &mut [f32::NAN, 0.0]);
        assert_eq!(network, before, "a gradient that is not finite moved the network");
    }

    #[test]
    fn large_batches_are_predicted_as_their_rows_are() {
        let network = Mlp::new(&[4, 8, 3], Seed(1));
        let mut rng = Seed(2).rng();
        let x: Vec<f32> = (0..(2 * BLOCK + 7) * 4).map(|_| rng.random()).collect();
        let all = network.predict(&x);
        for row in [0, BLOCK, 2 * BLOCK + 6] {
            let one = network.predict(&x[row * 4..row * 4 + 4]);
            assert!(one.iter().zip(&all[row * 3..]).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}
