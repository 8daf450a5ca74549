//! What happens between products: layer norm, softmax, activations. Compiled for the widest vectors that the machine has.

use pulp::Arch;

/// What a transformer's inner layer is passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x), by the error function.
    Gelu,
    /// The same by its tanh approximation.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

/// Applies an activation to every number.
pub fn activate(values: &mut [f32], activation: Activation) {
    Arch::new().dispatch(
        #[inline(always)]
        || match activation {
            Activation::Gelu => values.iter_mut().for_each(
                #[inline(always)]
                |x| *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2)),
            ),
            Activation::GeluTanh => values.iter_mut().for_each(
                #[inline(always)]
                |x| *x = 0.5 * *x * (1.0 + tanh(0.797_884_6 * (*x + 0.044_715 * *x * *x * *x))),
            ),
            Activation::Relu => values.iter_mut().for_each(
                #[inline(always)]
                |x| *x = x.max(0.0),
            ),
        },
    );
}

/// Softmax of each row of length `cols`, of the values times `scale`.
pub fn softmax_rows(values: &mut [f32], cols: usize, scale: f32) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for row in values.chunks_exact_mut(cols.max(1)) {
                let highest = reduce(row, f32::NEG_INFINITY, f32::max);
                for x in row.iter_mut() {
                    *x = exp((*x - highest) * scale);
                }
                let share = 1.0 / reduce(row, 0.0, |sum, x| sum + x);
                for x in row.iter_mut() {
                    *x *= share;
                }
            }
        },
    );
}

/// Adds `residual` to each row, brings it to mean 0 and variance 1, then scales and shifts it; rows are as long as `gain`.
///
/// Source: Ba et al. 2016, section 3, with the variance over n, as PyTorch has it.
pub fn add_and_norm(values: &mut [f32], residual: &[f32], gain: &[f32], shift: &[f32], epsilon: f32) {
    let cols = gain.len();
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (row, residual) in values.chunks_exact_mut(cols).zip(residual.chunks_exact(cols)) {
                for (x, r) in row.iter_mut().zip(residual) {
                    *x += r;
                }
                let mean = reduce(row, 0.0, |sum, x| sum + x) / cols as f32;
                for x in row.iter_mut() {
                    *x -= mean;
                }
                let variance = reduce(row, 0.0, |sum, x| sum + x * x) / cols as f32;
                let scale = 1.0 / (variance + epsilon).sqrt();
                for ((x, gain), shift) in row.iter_mut().zip(gain).zip(shift) {
                    *x = *x * scale * gain + shift;
                }
            }
        },
    );
}

/// Folds a row in sixteen lanes, always in the same order.
#[inline(always)]
fn reduce(row: &[f32], start: f32, fold: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 16];
    let chunks = row.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = fold(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = fold(*lane, x);
    }
    // `fold(a, b)` of two lanes would square `b` in a sum of squares, so lanes are joined by what all folds here share:
    // sums add, maxima compare.
    if start == f32::NEG_INFINITY {
        lanes.into_iter().fold(start, f32::max)
    } else {
        lanes.into_iter().sum()
    }
}

/// e^x by range reduction to [-ln 2 / 2, ln 2 / 2] and the Taylor polynomial of degree 6 there; relative error below 3e-7.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 x 2^23 rounds to the nearest whole number in a way that vectorises.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, the first exact in few bits, so that the subtraction loses nothing
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    p * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

/// The error function; Abramowitz & Stegun 7.1.26, absolute error below 5e-7 in `f32`.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    (1.0 - p * exp(-a * a)).copysign(x)
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    let e = exp(-2.0 * x.abs());
    ((1.0 - e) / (1.0 + e)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_erf_are_as_exact_as_they_say() {
        let mut x = -80.0f32;
        while x < 80.0 {
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) / want - 1.0).abs() < 3e-7, "exp {x}");
            x += 0.0137;
        }
        // erf(0.1), erf(0.5), erf(1), erf(2) from a table
        for (x, want) in [
            (0.1, 0.112_462_92),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (2.0, 0.995_322_3f32),
        ] {
            assert!(
                (erf(x) - want).abs() < 5e-7 && (erf(-x) + want).abs() < 5e-7,
                "erf {x}: {}",
                erf(x)
            );
        }
        assert!((tanh(0.5) - 0.5f32.tanh()).abs() < 1e-6 && (tanh(-9.0) + 1.0).abs() < 1e-6);
    }

    #[test]
    fn activations_at_points_from_their_formulas() {
        let mut gelu = [0.0, 1.0, -1.0, 10.0, -10.0];
        activate(&mut gelu, Activation::Gelu);
        for (x, want) in gelu.iter().zip([0.0, 0.841_344_8, -0.158_655_3, 10.0, 0.0]) {
            assert!((x - want).abs() < 1e-6, "{x} {want}");
        }
        let mut tanh = [1.0];
        activate(&mut tanh, Activation::GeluTanh);
        assert!((tanh[0] - 0.841_192).abs() < 1e-5);
        let mut relu = [-2.0, 3.0];
        activate(&mut relu, Activation::Relu);
        assert_eq!(relu, [0.0, 3.0]);
    }

    #[test]
    fn a_softmax_and_a_norm_worked_by_hand() {
        // logits ln 1, ln 3 at scale 1
        let mut row = [0.0, 3f32.ln(), 0.0, 3f32.ln()];
        softmax_rows(&mut row, 2, 1.0);
        for (x, want) in row.iter().zip([0.25, 0.75, 0.25, 0.75]) {
            assert!((x - want).abs() < 1e-6);
        }
        // (1, 2) + (0, 1) = (1, 3): mean 2, deviations (-1, 1), variance 1; gain 2, shift 0.5
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
}
