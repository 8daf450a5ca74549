//! Affine maps of many rows: forward, and backward to the input and to the parameters.
//!
//! Work is cut by rows of the result into shares that depend on the sizes alone, for as many threads as there are: their number
//! changes no bit.

use rayon::prelude::*;

use super::{
    norm::BLOCK,
    product::{View, multiply},
};
use crate::Matrix;

/// An affine map.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Linear {
    /// Shape `(outputs, inputs)`.
    pub weight: Matrix,
    /// Shape `(outputs,)`.
    pub bias: Vec<f32>,
}

impl Linear {
    /// A map of zeros.
    pub fn zeros(outputs: usize, inputs: usize) -> Self {
        Self {
            weight: Matrix::zeros(outputs, inputs),
            bias: vec![0.0; outputs],
        }
    }

    /// A map of zeros, of this one's shape.
    pub fn zeros_like(&self) -> Self {
        Self::zeros(self.weight.rows(), self.weight.cols())
    }

    /// The rows `outputs` of the map, to be applied as a map of their own.
    pub fn part(&self, outputs: std::ops::Range<usize>) -> Part<'_> {
        let inputs = self.weight.cols();
        Part {
            weight: &self.weight.as_slice()[outputs.start * inputs..outputs.end * inputs],
            bias: &self.bias[outputs],
            inputs,
        }
    }

    /// The whole map.
    pub fn whole(&self) -> Part<'_> {
        self.part(0..self.bias.len())
    }

    /// Adds to this gradient's rows from `first` on that of a map with as many outputs as a row of `upstream`:
    /// `dW += uᵀ x`, `db += Σ u`.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn add_gradient(&mut self, first: usize, x: &[f32], upstream: &[f32], outputs: usize) {
        let inputs = self.weight.cols();
        let rows = x.len() / inputs;
        let upstream_view = View::new(upstream, rows, outputs);
        let x_view = View::new(x, rows, inputs);
        let chunk = share(outputs);
        self.weight.as_mut_slice()[first * inputs..(first + outputs) * inputs]
            .par_chunks_mut(chunk * inputs)
            .enumerate()
            .for_each(|(i, out)| {
                let columns = i * chunk..i * chunk + out.len() / inputs;
                multiply(out, upstream_view.columns(columns).transposed(), x_view, 1.0);
            });
        let parts: Vec<Vec<f32>> = upstream
            .par_chunks(BLOCK * outputs)
            .map(|block| {
                let mut sum = vec![0.0; outputs];
                for row in block.chunks_exact(outputs) {
                    sum.iter_mut().zip(row).for_each(|(sum, u)| *sum += u);
                }
                sum
            })
            .collect();
        let bias = &mut self.bias[first..first + outputs];
        for part in parts {
            bias.iter_mut().zip(part).for_each(|(sum, u)| *sum += u);
        }
    }
}

/// Some of an affine map's outputs.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    inputs: usize,
}

impl Part<'_> {
    /// `out = x Wᵀ + b`, row by row, on one thread.
    pub fn apply(self, x: &[f32], out: &mut Vec<f32>) {
        // What is there is written over: no clearing, which would fill all of it with zeros first.
        out.resize(x.len() / self.inputs * self.bias.len(), 0.0);
        self.apply_rows(x, out);
    }

    /// The same on all threads.
    pub fn apply_in_parallel(self, x: &[f32], out: &mut Vec<f32>) {
        let rows = x.len() / self.inputs;
        out.resize(rows * self.bias.len(), 0.0);
        let block = share(rows);
        out.par_chunks_mut(block * self.bias.len())
            .zip(x.par_chunks(block * self.inputs))
            .for_each(|(out, x)| self.apply_rows(x, out));
    }

    fn apply_rows(self, x: &[f32], out: &mut [f32]) {
        let (rows, outputs) = (x.len() / self.inputs, self.bias.len());
        for row in out.chunks_exact_mut(outputs) {
            row.copy_from_slice(self.bias);
        }
        multiply(
            out,
            View::new(x, rows, self.inputs),
            View::new(self.weight, outputs, self.inputs).transposed(),
            1.0,
        );
    }

    /// The derivative by the input: `out = keep * out + u W`, on all threads.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn backward(self, upstream: &[f32], out: &mut [f32], keep: f32) {
        let outputs = self.bias.len();
        let block = share(upstream.len() / outputs);
        out.par_chunks_mut(block * self.inputs)
            .zip(upstream.par_chunks(block * outputs))
            .for_each(|(out, upstream)| {
                multiply(
                    out,
                    View::new(upstream, upstream.len() / outputs, outputs),
                    View::new(self.weight, outputs, self.inputs),
                    keep,
                );
            });
    }
}

/// How many of `rows` one thread takes at a time: a quarter, but not so few that a product is not worth its packing. It depends on
/// nothing else, since a product of other sizes may sum in another order.
fn share(rows: usize) -> usize {
    rows.div_ceil(4).next_multiple_of(16).clamp(64, 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_and_its_gradients_worked_by_hand() {
        // W = [1 2; 3 4; 5 6], b = (1, 0, -1); x = (1, 1): y = (4, 7, 10)
        let map = Linear {
            weight: Matrix::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2),
            bias: vec![1.0, 0.0, -1.0],
        };
        let mut out = Vec::new();
        map.whole().apply(&[1.0, 1.0, 0.0, 1.0], &mut out);
        assert_eq!(out, [4.0, 7.0, 10.0, 3.0, 4.0, 5.0]);
        map.part(1..3).apply_in_parallel(&[1.0, 1.0], &mut out);
        assert_eq!(out, [7.0, 10.0]);
        // u = (1, 0) on outputs 1..3: dx = (3, 4), kept once
        let mut dx = vec![1.0, 1.0];
        map.part(1..3).backward(&[1.0, 0.0], &mut dx, 1.0);
        assert_eq!(dx, [4.0, 5.0]);
        // dW rows 1..3 = uᵀ x over two rows: u = (1, 2), (0, 1); x = (1, 1), (0, 3)
        let mut gradient = Linear::zeros(3, 2);
        gradient.add_gradient(1, &[1.0, 1.0, 0.0, 3.0], &[1.0, 2.0, 0.0, 1.0], 2);
        assert_eq!(gradient.weight.as_slice(), [0.0, 0.0, 1.0, 1.0, 2.0, 5.0]);
        assert_eq!(gradient.bias, [0.0, 1.0, 3.0]);
    }
}
