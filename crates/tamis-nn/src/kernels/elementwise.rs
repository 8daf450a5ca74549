//! What happens between products: activations and softmax, forward and backward. Compiled for the machine's widest vectors.

use pulp::{Arch, Simd, WithSimd};

/// Runs a loop compiled for the widest vectors that the machine has. The closure is to be marked `#[inline(always)]`.
///
/// It is called by reference: a closure called by value goes through an adapter that is not inlined, and what is not inlined here is
/// compiled for the narrowest vectors.
#[inline(always)]
pub fn wide(work: impl FnMut()) {
    struct Work<F>(F);
    impl<F: FnMut()> WithSimd for Work<F> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, _: S) {
            (self.0)();
        }
    }
    Arch::new().dispatch(Work(work));
}

/// What a transformer's inner layer is passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x), by the error function.
    Gelu,
    /// The same by its tanh approximation.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// The hyperbolic tangent.
    Tanh,
}

/// Applies an activation to every number.
pub fn activate(values: &mut [f32], activation: Activation) {
    wide(
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
            Activation::Tanh => values.iter_mut().for_each(
                #[inline(always)]
                |x| *x = tanh(*x),
            ),
        },
    );
}

/// Raises e to the power of every number, which is drawn in to -87..88 before; relative error below 3e-7.
pub fn exponentials(values: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            values.iter_mut().for_each(
                #[inline(always)]
                |x| *x = exp(*x),
            );
        },
    );
}

/// Softmax of one row.
pub fn softmax(row: &mut [f32]) {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = exp(*x - highest));
    let share = 1.0 / row.iter().sum::<f32>();
    row.iter_mut().for_each(|x| *x *= share);
}

/// Writes the softmax of a row of scores times `scale` to `out`; fast for rows of at least [`LANES`] numbers.
///
/// # Panics
///
/// If `out` is not as long as the row.
pub fn softmax_row(scores: &[f32], scale: f32, out: &mut [f32]) {
    assert_eq!(scores.len(), out.len(), "a share for each score");
    // What is left of whole lanes is worked on among scores that get no share.
    let (chunks, rest) = scores.as_chunks::<LANES>();
    let mut last = [f32::NEG_INFINITY; LANES];
    last[..rest.len()].copy_from_slice(rest);
    wide(
        #[inline(always)]
        || {
            let mut highest = last;
            for given in chunks {
                for (highest, &given) in highest.iter_mut().zip(given) {
                    *highest = if given > *highest { given } else { *highest };
                }
            }
            let highest = highest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let (out, out_rest) = out.as_chunks_mut::<LANES>();
            let mut sums = [0.0; LANES];
            for (out, given) in out.iter_mut().zip(chunks) {
                *out = powers(given, highest, scale);
                for (sum, power) in sums.iter_mut().zip(out) {
                    *sum += *power;
                }
            }
            let power = powers(&last, highest, scale);
            out_rest.copy_from_slice(&power[..rest.len()]);
            for (sum, power) in sums.iter_mut().zip(&power[..rest.len()]) {
                *sum += power;
            }
            let share = 1.0 / total(sums);
            for x in out.as_flattened_mut().iter_mut().chain(out_rest) {
                *x *= share;
            }
        },
    );
}

#[inline(always)]
fn powers(scores: &[f32; LANES], highest: f32, scale: f32) -> [f32; LANES] {
    std::array::from_fn(
        #[inline(always)]
        |i| exp((scores[i] - highest) * scale),
    )
}

/// Softmax of each column of rows of length `cols`, of the values times `scale`. Columns and not rows, so that all lanes of a vector do
/// the same however few rows there are.
///
/// # Panics
///
/// If `cols` is not a multiple of [`LANES`].
pub fn softmax_columns(values: &mut [f32], cols: usize, scale: f32) {
    let blocks = blocks(cols);
    wide(
        #[inline(always)]
        || {
            let chunks = values.as_chunks_mut::<LANES>().0;
            for block in 0..blocks {
                let mut highest = [f32::NEG_INFINITY; LANES];
                for row in chunks.chunks_exact(blocks) {
                    let given = row[block];
                    for i in 0..LANES {
                        highest[i] = if given[i] > highest[i] { given[i] } else { highest[i] };
                    }
                }
                let mut sums = [0.0; LANES];
                for row in chunks.chunks_exact_mut(blocks) {
                    // A copy: what may lie in the same place as what is written is not worked on side by side.
                    let given = row[block];
                    let powers: [f32; LANES] = std::array::from_fn(
                        #[inline(always)]
                        |i| exp((given[i] - highest[i]) * scale),
                    );
                    for i in 0..LANES {
                        sums[i] += powers[i];
                    }
                    row[block] = powers;
                }
                let shares = sums.map(|sum| 1.0 / sum);
                for row in chunks.chunks_exact_mut(blocks) {
                    for (x, share) in row[block].iter_mut().zip(&shares) {
                        *x *= share;
                    }
                }
            }
        },
    );
}

/// Applies an activation to every number of `input` into `out` and puts its slope there in the number's place: what the derivative by
/// the output is multiplied by to be that by the input.
///
/// # Panics
///
/// If the lengths differ.
pub fn activate_with_slope(input: &mut [f32], out: &mut [f32], activation: Activation) {
    assert_eq!(out.len(), input.len(), "one output a number");
    wide(
        #[inline(always)]
        || {
            // Loops and not `for_each`, which is not inlined here.
            let pairs = input.iter_mut().zip(out.iter_mut());
            match activation {
                // Φ(x) + x φ(x)
                Activation::Gelu => {
                    for (x, y) in pairs {
                        // e^(-x²/2) is a part of both.
                        let (z, power) = (*x, exp(-0.5 * *x * *x));
                        let below = 0.5 * (1.0 + erf_of(z * std::f32::consts::FRAC_1_SQRT_2, power));
                        *y = z * below;
                        *x = below + z * 0.398_942_3 * power;
                    }
                }
                // with t = tanh(c (x + a x³)): (1 + t)/2 + x/2 (1 - t²) c (1 + 3 a x²)
                Activation::GeluTanh => {
                    for (x, y) in pairs {
                        let z = *x;
                        let t = tanh(0.797_884_6 * (z + 0.044_715 * z * z * z));
                        let inner = 0.797_884_6 * (1.0 + 0.134_145 * z * z);
                        *y = 0.5 * z * (1.0 + t);
                        *x = 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * inner;
                    }
                }
                Activation::Relu => {
                    for (x, y) in pairs {
                        *y = x.max(0.0);
                        *x = if *x > 0.0 { 1.0 } else { 0.0 };
                    }
                }
                Activation::Tanh => {
                    for (x, y) in pairs {
                        *y = tanh(*x);
                        *x = 1.0 - *y * *y;
                    }
                }
            }
        },
    );
}

/// The derivative by the logits of `softmax_columns(logits, cols, scale)`, in place of `upstream`, the derivative by the `shares` that it
/// gave.
///
/// # Panics
///
/// As [`softmax_columns`].
pub fn softmax_columns_backward(upstream: &mut [f32], shares: &[f32], cols: usize, scale: f32) {
    let blocks = blocks(cols);
    wide(
        #[inline(always)]
        || {
            let (upstream, shares) = (upstream.as_chunks_mut::<LANES>().0, shares.as_chunks::<LANES>().0);
            for block in 0..blocks {
                let mut means = [0.0; LANES];
                for (u, p) in upstream.chunks_exact(blocks).zip(shares.chunks_exact(blocks)) {
                    // Copies: what may lie in the same place as what is written is not read side by side.
                    let (u, p) = (u[block], p[block]);
                    for i in 0..LANES {
                        means[i] += u[i] * p[i];
                    }
                }
                for (u, p) in upstream.chunks_exact_mut(blocks).zip(shares.chunks_exact(blocks)) {
                    let (given, p) = (u[block], p[block]);
                    u[block] = std::array::from_fn(
                        #[inline(always)]
                        |i| scale * p[i] * (given[i] - means[i]),
                    );
                }
            }
        },
    );
}

/// Numbers that are worked on side by side, in the same order on every machine.
pub const LANES: usize = 16;

fn blocks(cols: usize) -> usize {
    assert_eq!(cols % LANES, 0, "columns in lanes");
    cols / LANES
}

/// The sum of a term of every number of a row.
#[inline(always)]
pub(crate) fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += term(*x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += term(*x);
    }
    total(sums)
}

/// The sum of lanes, halves with halves: few steps that wait for each other. Not inlined: the loop before it is then compiled for whole
/// lanes, and not for what is left of them here.
#[inline(never)]
fn total(mut sums: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}

/// A polynomial, its coefficients from the highest power down.
#[inline(always)]
fn horner<const TERMS: usize>(x: f32, coefficients: [f32; TERMS]) -> f32 {
    let mut sum = 0.0;
    for coefficient in coefficients {
        sum = f32::mul_add(sum, x, coefficient);
    }
    sum
}

/// e^x by range reduction to [-ln 2 / 2, ln 2 / 2] and the Taylor polynomial of degree 6 there; relative error below 3e-7.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 x 2^23 rounds to the nearest whole number in a way that vectorises.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    // ln 2 in two parts, the first exact in few bits, so that the subtraction loses nothing
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let p = horner(r, [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0]);
    // n stands in the last bits of `rounded`; a cast of n itself would be checked, number by number
    let power = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(power)
}

/// The error function; Abramowitz & Stegun 7.1.26, absolute error below 5e-7 in `f32`.
#[inline(always)]
fn erf(x: f32) -> f32 {
    erf_of(x, exp(-x * x))
}

/// The same, given e^(-x²).
#[inline(always)]
fn erf_of(x: f32, power: f32) -> f32 {
    let t = 1.0 / x.abs().mul_add(0.327_591_1, 1.0);
    let p = t * horner(t, [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6]);
    (-p).mul_add(power, 1.0).copysign(x)
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
        let mut powers = [0.0, -1.0, f32::NEG_INFINITY];
        exponentials(&mut powers);
        assert!((powers[1] - 0.367_879_44).abs() < 1e-6 && powers[0] == 1.0 && powers[2] < 1e-37);
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
    fn a_softmax_worked_by_hand() {
        let want = [0.25, 0.75];
        let mut row = [0.0, 3f32.ln()];
        softmax(&mut row);
        assert!(row.iter().zip(want).all(|(x, want)| (x - want).abs() < 1e-6), "{row:?}");
        // Logits 0 and ln 3 at scale 1 / 2 in every column of 32, up to a shift of its own.
        let cols = 2 * LANES;
        let mut shares: Vec<f32> = (0..2 * cols)
            .map(|i| (i % cols) as f32 + if i < cols { 0.0 } else { 2.0 * 3f32.ln() })
            .collect();
        softmax_columns(&mut shares, cols, 0.5);
        for (i, x) in shares.iter().enumerate() {
            assert!((x - want[i / cols]).abs() < 1e-6, "{i}: {x}");
        }
        // dL/dp = (1, 0): dL/dz = scale p (u - Σ u p) = 2 (.25 x .75, .75 x -.25)
        let mut upstream = [vec![1.0; cols], vec![0.0; cols]].concat();
        softmax_columns_backward(&mut upstream, &shares, cols, 2.0);
        for (i, u) in upstream.iter().enumerate() {
            assert!((u - [0.375, -0.375][i / cols]).abs() < 1e-6, "{i}: {u}");
        }
    }

    #[test]
    fn a_row_of_any_length_is_shared_out_as_in_f64() {
        for len in [1, 15, 16, 17, 77, 150] {
            let scores: Vec<f32> = (0..len).map(|i| ((i * 37) % 23) as f32 / 7.0 - 1.0).collect();
            let mut shares = vec![9.0; len];
            softmax_row(&scores, 2.5, &mut shares);
            let powers: Vec<f64> = scores.iter().map(|&x| (f64::from(x) * 2.5).exp()).collect();
            let sum: f64 = powers.iter().sum();
            for (share, power) in shares.iter().zip(powers) {
                assert!((f64::from(*share) - power / sum).abs() < 1e-6, "{len}: {share}");
            }
        }
        let mut shares = [0.0; 20];
        let mut scores = [0.0; 20];
        scores[18] = f32::NAN;
        softmax_row(&scores, 1.0, &mut shares);
        assert!(shares.iter().all(|share| share.is_nan()), "{shares:?}");
    }

    #[test]
    fn slopes_of_activations_agree_with_finite_differences() {
        for activation in [
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Relu,
            Activation::Tanh,
        ] {
            for x in [-4.0, -1.3, -0.2, 0.1, 0.7, 2.5f32] {
                let (mut ends, mut middle) = ([x - 5e-3, x + 5e-3], [x]);
                activate(&mut ends, activation);
                activate(&mut middle, activation);
                let (mut slope, mut out) = ([x], [0.0]);
                activate_with_slope(&mut slope, &mut out, activation);
                assert!((out[0] - middle[0]).abs() < 1e-6, "{activation:?} at {x}");
                let numeric = (ends[1] - ends[0]) / 1e-2;
                assert!(
                    (slope[0] - numeric).abs() < 1e-3,
                    "{activation:?} at {x}: {} {numeric}",
                    slope[0]
                );
            }
        }
    }
}
