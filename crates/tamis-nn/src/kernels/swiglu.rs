//! SwiGLU: what lies between the two halves of a decoder's feed-forward layer, `silu(gate) · up`.
//!
//! Source: Shazeer 2020, equation 6, with silu(x) = x σ(x).

use rayon::prelude::*;

use crate::kernels::elementwise::{exp, wide};

/// Numbers that one thread takes at a time.
const CHUNK: usize = 1 << 13;

/// `silu(gate) · up` into `out`.
///
/// # Panics
///
/// If the lengths differ.
pub fn swiglu(gate: &[f32], up: &[f32], out: &mut Vec<f32>) {
    assert_eq!(gate.len(), up.len(), "a gate a number");
    out.resize(gate.len(), 0.0);
    out.par_chunks_mut(CHUNK)
        .zip(gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)))
        .for_each(|(out, (gate, up))| {
            wide(
                #[inline(always)]
                || {
                    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                        *out = gate * sigmoid(*gate) * up;
                    }
                },
            );
        });
}

/// From the derivative `upstream` by [`swiglu`]'s output, those by `gate` and by `up`, in their places.
///
/// # Panics
///
/// If the lengths differ.
pub fn swiglu_backward(upstream: &[f32], gate: &mut [f32], up: &mut [f32]) {
    assert!(
        gate.len() == up.len() && up.len() == upstream.len(),
        "one derivative a number"
    );
    gate.par_chunks_mut(CHUNK)
        .zip(up.par_chunks_mut(CHUNK).zip(upstream.par_chunks(CHUNK)))
        .for_each(|(gate, (up, upstream))| {
            wide(
                #[inline(always)]
                || {
                    for ((gate, up), upstream) in gate.iter_mut().zip(up.iter_mut()).zip(upstream) {
                        let (x, s) = (*gate, sigmoid(*gate));
                        *gate = upstream * *up * s * (1.0 + x * (1.0 - s));
                        *up = upstream * x * s;
                    }
                },
            );
        });
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_and_its_slopes_at_points_from_the_formula() {
        // silu(1) = .731059, silu(-2) = -.238406; slopes there .927671 and -.090784
        let (mut gate, mut up) = ([1.0, -2.0], [3.0, 0.5]);
        let mut out = Vec::new();
        swiglu(&gate, &up, &mut out);
        for (x, want) in out.iter().zip([2.193_176, -0.119_203]) {
            assert!((x - want).abs() < 1e-5, "{x}");
        }
        swiglu_backward(&[1.0, 2.0], &mut gate, &mut up);
        for (x, want) in gate.iter().zip([2.783_013, -0.090_784]) {
            assert!((x - want).abs() < 1e-5, "{x}");
        }
        for (x, want) in up.iter().zip([0.731_059, -0.476_812]) {
            assert!((x - want).abs() < 1e-5, "{x}");
        }
    }
}
