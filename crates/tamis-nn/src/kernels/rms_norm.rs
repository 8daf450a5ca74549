//! RMS norm: each row divided by its root mean square, then scaled; forward and backward.
//!
//! Source: Zhang & Sennrich 2019, equation 4, with epsilon inside the root, as transformers has it.

use rayon::prelude::*;

use crate::kernels::{
    elementwise::{sum, wide},
    layer_norm::BLOCK,
};

/// `out = x / √(mean(x²) + ε) · weight`, row by row; rows are as long as `weight`.
///
/// # Panics
///
/// If `values` does not consist of whole rows.
pub fn rms_norm(values: &[f32], weight: &[f32], epsilon: f32, out: &mut Vec<f32>) {
    let cols = weight.len();
    assert_eq!(values.len() % cols, 0, "rows of {cols}");
    out.resize(values.len(), 0.0);
    out.par_chunks_mut(BLOCK * cols)
        .zip(values.par_chunks(BLOCK * cols))
        .for_each(|(out, values)| {
            wide(
                #[inline(always)]
                || {
                    for (out, row) in out.chunks_exact_mut(cols).zip(values.chunks_exact(cols)) {
                        let scale = scale(row, epsilon);
                        for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
                            *out = x * scale * weight;
                        }
                    }
                },
            );
        });
}

/// Turns `upstream`, the derivative by the output of [`rms_norm`], into that by `values`, and adds the derivative by the weight to
/// `d_weight` where there is one:
///
/// ```text
/// dx = s (v − x s² mean(v x)),  v = u weight,  s = 1 / √(mean(x²) + ε)        dweight += Σ u x s
/// ```
///
/// # Panics
///
/// If the lengths differ.
pub fn rms_norm_backward(
    values: &[f32],
    weight: &[f32],
    epsilon: f32,
    upstream: &mut [f32],
    d_weight: Option<&mut [f32]>,
) {
    let cols = weight.len();
    assert_eq!(values.len(), upstream.len(), "one derivative a number");
    let wants_weight = d_weight.is_some();
    let sums: Vec<Vec<f32>> = upstream
        .par_chunks_mut(BLOCK * cols)
        .zip(values.par_chunks(BLOCK * cols))
        .map(|(upstream, values)| {
            let mut d_weight = vec![0.0; if wants_weight { cols } else { 0 }];
            wide(
                #[inline(always)]
                || {
                    for (u, row) in upstream.chunks_exact_mut(cols).zip(values.chunks_exact(cols)) {
                        let scale = scale(row, epsilon);
                        for ((d, u), x) in d_weight.iter_mut().zip(u.iter()).zip(row) {
                            *d += u * x * scale;
                        }
                        for (u, weight) in u.iter_mut().zip(weight) {
                            *u *= weight;
                        }
                        let along = dot(u, row) * scale * scale / cols as f32;
                        for (u, x) in u.iter_mut().zip(row) {
                            *u = scale * (*u - x * along);
                        }
                    }
                },
            );
            d_weight
        })
        .collect();
    for (total, sum) in d_weight.into_iter().flat_map(|total| {
        let sums = &sums;
        total
            .iter_mut()
            .enumerate()
            .map(move |(i, total)| (total, sums.iter().map(|sum| sum[i]).sum::<f32>()))
    }) {
        *total += sum;
    }
}

/// One over a row's root mean square.
#[inline(always)]
fn scale(row: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum(row, |x| x * x) / row.len() as f32 + epsilon).sqrt()
}

/// The sum of products, in lanes, so that it is vectorised.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<16>();
    let (b_lanes, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_worked_by_hand() {
        // (3, 4): mean square 12.5; over its root (.8485, 1.1314), times (2, 1)
        let mut out = Vec::new();
        rms_norm(&[3.0, 4.0], &[2.0, 1.0], 0.0, &mut out);
        for (x, want) in out.iter().zip([1.697_056, 1.131_371]) {
            assert!((x - want).abs() < 1e-5, "{x}");
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let numbers =
            |count: usize, shift: f32| -> Vec<f32> { (0..count).map(|i| (i as f32 * 1.3 + shift).sin()).collect() };
        let (rows, cols) = (67, 19);
        let (values, weight, upstream) = (numbers(rows * cols, 0.2), numbers(cols, 0.7), numbers(rows * cols, 2.0));
        let loss = |values: &[f32], weight: &[f32]| -> f64 {
            let mut out = Vec::new();
            rms_norm(values, weight, 1e-3, &mut out);
            out.iter().zip(&upstream).map(|(x, u)| f64::from(x * u)).sum()
        };
        let (mut dx, mut dw) = (upstream.clone(), vec![1.0; cols]);
        rms_norm_backward(&values, &weight, 1e-3, &mut dx, Some(&mut dw));
        let slope = |numbers: &[f32], i: usize, loss: &dyn Fn(&[f32]) -> f64| {
            let (mut above, mut below) = (numbers.to_vec(), numbers.to_vec());
            above[i] += 1e-2;
            below[i] -= 1e-2;
            (loss(&above) - loss(&below)) / 2e-2
        };
        for i in (0..values.len()).step_by(23) {
            let numeric = slope(&values, i, &|values| loss(values, &weight));
            assert!((f64::from(dx[i]) - numeric).abs() < 2e-3, "{i}: {} {numeric}", dx[i]);
        }
        for (i, dw) in dw.iter().enumerate() {
            let numeric = slope(&weight, i, &|weight| loss(&values, weight));
            assert!((f64::from(*dw) - 1.0 - numeric).abs() < 1e-2, "{i}: {dw} {numeric}");
        }
    }
}
