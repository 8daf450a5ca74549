//! Layer norm: forward in place, forward with what the backward pass needs, backward.
//!
//! Source: Ba et al. 2016, section 3, with the variance over n, as PyTorch has it.

use rayon::prelude::*;

use crate::kernels::elementwise::{sum, wide};

/// Rows whose parts of a gradient are summed before they join the others': fixed, so that threads change no bit.
pub(crate) const BLOCK: usize = 64;

/// Adds `residual` to each row, brings it to mean 0 and variance 1, then scales and shifts it; rows are as long as `weight`.
pub fn add_and_norm(values: &mut [f32], residual: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let cols = weight.len();
    wide(
        #[inline(always)]
        || {
            for (row, residual) in values.chunks_exact_mut(cols).zip(residual.chunks_exact(cols)) {
                for (x, r) in row.iter_mut().zip(residual) {
                    *x += r;
                }
                let mean = sum(row, |x| x) / cols as f32;
                for x in row.iter_mut() {
                    *x -= mean;
                }
                let variance = sum(row, |x| x * x) / cols as f32;
                let scale = 1.0 / (variance + epsilon).sqrt();
                for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
                    *x = *x * scale * weight + bias;
                }
            }
        },
    );
}

/// What a norm keeps for its backward pass.
#[derive(Debug, Clone, Default)]
pub struct Normed {
    /// Numbers at mean 0 and variance 1, before weight and bias, shape `(rows, cols)`.
    pub normal: Vec<f32>,
    /// One over each row's standard deviation, shape `(rows,)`.
    pub scales: Vec<f32>,
}

impl Normed {
    /// Normalises the numbers in `self.normal`, rows of length `cols`, after `residual` is added to them.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn add_and_normalise(&mut self, residual: &[f32], cols: usize, epsilon: f32) {
        assert_eq!(self.normal.len(), residual.len(), "one residual a number");
        self.scales.clear();
        self.scales.resize(residual.len() / cols, 0.0);
        let normalise = |((rows, residual), scales): ((&mut [f32], &[f32]), &mut [f32])| {
            wide(
                #[inline(always)]
                || {
                    let rows = rows.chunks_exact_mut(cols).zip(residual.chunks_exact(cols));
                    for ((row, residual), scale) in rows.zip(scales.iter_mut()) {
                        for (x, r) in row.iter_mut().zip(residual) {
                            *x += r;
                        }
                        let mean = sum(row, |x| x) / cols as f32;
                        for x in row.iter_mut() {
                            *x -= mean;
                        }
                        let variance = sum(row, |x| x * x) / cols as f32;
                        *scale = 1.0 / (variance + epsilon).sqrt();
                        for x in row.iter_mut() {
                            *x *= *scale;
                        }
                    }
                },
            );
        };
        self.normal
            .par_chunks_mut(BLOCK * cols)
            .zip(residual.par_chunks(BLOCK * cols))
            .zip(self.scales.par_chunks_mut(BLOCK))
            .for_each(normalise);
    }

    /// The norm's output, `normal * weight + bias`, into `out`.
    pub fn output(&self, weight: &[f32], bias: &[f32], out: &mut Vec<f32>) {
        let cols = weight.len();
        out.resize(self.normal.len(), 0.0);
        out.par_chunks_mut(BLOCK * cols)
            .zip(self.normal.par_chunks(BLOCK * cols))
            .for_each(|(out, normal)| {
                for (out, normal) in out.chunks_exact_mut(cols).zip(normal.chunks_exact(cols)) {
                    for (((out, x), weight), bias) in out.iter_mut().zip(normal).zip(weight).zip(bias) {
                        *out = x * weight + bias;
                    }
                }
            });
    }

    /// Turns `upstream`, the derivative by the output, into that by the sum that was normalised, and adds the derivatives by weight
    /// and bias to theirs:
    ///
    /// ```text
    /// dz = s (v − mean(v) − x̂ mean(v x̂)),  v = u weight        dgain += Σ u x̂        dshift += Σ u
    /// ```
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn backward(&self, upstream: &mut [f32], weight: &[f32], d_weight: &mut [f32], d_bias: &mut [f32]) {
        assert_eq!(self.normal.len(), upstream.len(), "one derivative a number");
        let cols = weight.len();
        let parts: Vec<Vec<f32>> = upstream
            .par_chunks_mut(BLOCK * cols)
            .zip(self.normal.par_chunks(BLOCK * cols))
            .zip(self.scales.par_chunks(BLOCK))
            .map(|((upstream, normal), scales)| {
                let mut part = vec![0.0; 2 * cols];
                wide(
                    #[inline(always)]
                    || {
                        let (d_weight, d_bias) = part.split_at_mut(cols);
                        let rows = upstream.chunks_exact_mut(cols).zip(normal.chunks_exact(cols));
                        for ((u, x), scale) in rows.zip(scales) {
                            for (((u, x), d_weight), d_bias) in
                                u.iter().zip(x).zip(d_weight.iter_mut()).zip(d_bias.iter_mut())
                            {
                                *d_weight += u * x;
                                *d_bias += u;
                            }
                            let (mut sum, mut along) = ([0.0; 16], [0.0; 16]);
                            for ((u, x), weight) in u.chunks_mut(16).zip(x.chunks(16)).zip(weight.chunks(16)) {
                                let lanes = sum.iter_mut().zip(along.iter_mut());
                                for ((((u, x), weight), sum), along) in u
                                    .iter_mut()
                                    .zip(x)
                                    .zip(weight)
                                    .zip(lanes)
                                    .map(|(a, (b, c))| ((a, b), c))
                                {
                                    *u *= weight;
                                    *sum += *u;
                                    *along += *u * x;
                                }
                            }
                            let mean = sum.into_iter().sum::<f32>() / cols as f32;
                            let along = along.into_iter().sum::<f32>() / cols as f32;
                            for (u, x) in u.iter_mut().zip(x) {
                                *u = scale * (*u - mean - x * along);
                            }
                        }
                    },
                );
                part
            })
            .collect();
        for part in parts {
            let (gain_part, shift_part) = part.split_at(cols);
            d_weight.iter_mut().zip(gain_part).for_each(|(sum, x)| *sum += x);
            d_bias.iter_mut().zip(shift_part).for_each(|(sum, x)| *sum += x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_norm_worked_by_hand() {
        // (1, 2) + (0, 1) = (1, 3): mean 2, deviations (-1, 1), variance 1; weight 2, bias 0.5
        let mut row = [1.0, 2.0];
        add_and_norm(&mut row, &[0.0, 1.0], &[2.0, 2.0], &[0.5, 0.5], 0.0);
        assert!((row[0] + 1.5).abs() < 1e-6 && (row[1] - 2.5).abs() < 1e-6, "{row:?}");
        // a row longer than the lanes, against the plain formula
        let values: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin()).collect();
        let (mean, n) = (values.iter().sum::<f32>() / 37.0, 37.0);
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
        let mut row = values.clone();
        add_and_norm(&mut row, &[0.0; 37], &[1.0; 37], &[0.0; 37], 1e-5);
        for (x, v) in row.iter().zip(&values) {
            assert!((x - (v - mean) / (variance + 1e-5).sqrt()).abs() < 1e-5);
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        const COLS: usize = 19;
        let number = |i: usize| (i as f32 * 1.7).sin();
        let rows = BLOCK + 3;
        let values: Vec<f32> = (0..rows * COLS).map(number).collect();
        let residual: Vec<f32> = (0..rows * COLS).map(|i| number(i + 7)).collect();
        let weight: Vec<f32> = (0..COLS).map(|i| 1.0 + 0.3 * number(i)).collect();
        let bias: Vec<f32> = (0..COLS).map(|i| 0.2 * number(i + 3)).collect();
        let slope = |i: usize| number(i * 3 + 1);
        // the loss is a weighted sum of the outputs, so the derivative by each is its slope
        let loss = |values: &[f32], weight: &[f32], bias: &[f32]| -> f64 {
            let mut out = values.to_vec();
            add_and_norm(&mut out, &residual, weight, bias, 1e-5);
            out.iter().enumerate().map(|(i, &x)| f64::from(x * slope(i))).sum()
        };
        let mut normed = Normed {
            normal: values.clone(),
            scales: Vec::new(),
        };
        normed.add_and_normalise(&residual, COLS, 1e-5);
        let mut out = Vec::new();
        normed.output(&weight, &bias, &mut out);
        let mut want = values.clone();
        add_and_norm(&mut want, &residual, &weight, &bias, 1e-5);
        assert!(out.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5));

        let mut upstream: Vec<f32> = (0..values.len()).map(slope).collect();
        let (mut d_weight, mut d_bias) = (vec![0.0; COLS], vec![0.0; COLS]);
        normed.backward(&mut upstream, &weight, &mut d_weight, &mut d_bias);
        let differs = |analytic: f32, above: f64, below: f64| {
            let numeric = ((above - below) / 2e-2) as f32;
            assert!(
                (analytic - numeric).abs() < 2e-2 * (0.2 + numeric.abs()),
                "{analytic} {numeric}"
            );
        };
        let nudged = |values: &[f32], i: usize, by: f32| {
            let mut values = values.to_vec();
            values[i] += by;
            values
        };
        for i in (0..values.len()).step_by(97) {
            let at = |by| loss(&nudged(&values, i, by), &weight, &bias);
            differs(upstream[i], at(1e-2), at(-1e-2));
        }
        for i in 0..COLS {
            let at = |by| loss(&values, &nudged(&weight, i, by), &bias);
            differs(d_weight[i], at(1e-2), at(-1e-2));
            let at = |by| loss(&values, &weight, &nudged(&bias, i, by));
            differs(d_bias[i], at(1e-2), at(-1e-2));
        }
    }
}
