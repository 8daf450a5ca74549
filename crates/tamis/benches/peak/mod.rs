//! The most products a second that the processor's vector instructions make: loops of nothing else, on all cores.

#![cfg(target_arch = "x86_64")]
#![expect(unsafe_code, reason = "instructions that are known to be there when they run")]

use std::{
    arch::x86_64::{
        __m512bh, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_setzero_ps,
    },
    hint::black_box,
    thread::available_parallelism,
    time::Instant,
};

/// Sums that no instruction waits for: more than two instructions a cycle, times the cycles that one takes.
const SUMS: usize = 16;
const ROUNDS: usize = 10_000_000;

/// Multiplications and additions a second in 32 bits; none without AVX-512.
pub(crate) fn float32() -> Option<f64> {
    let there = is_x86_feature_detected!("avx512f");
    // SAFETY: the processor has the instructions.
    there.then(|| on_all_cores(16, || unsafe { multiply_float32() }))
}

/// The same in bfloat16; none without AVX512-BF16. AMX is not asked.
pub(crate) fn bfloat16() -> Option<f64> {
    let there = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
    // SAFETY: the processor has the instructions.
    there.then(|| on_all_cores(32, || unsafe { multiply_bfloat16() }))
}

/// The best of a few goes of a loop, whose instructions make so many products each.
fn on_all_cores(products: usize, work: impl Fn() + Sync) -> f64 {
    let cores = available_parallelism().map_or(1, usize::from);
    let go = || {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(&work);
            }
        });
        (2 * products * SUMS * ROUNDS * cores) as f64 / began.elapsed().as_secs_f64()
    };
    (0..5).map(|_| go()).fold(0.0, f64::max)
}

#[target_feature(enable = "avx512f")]
fn multiply_float32() {
    let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(1e-3)));
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, a, b);
        }
    }
    black_box(sums.map(|sum| _mm512_reduce_add_ps(sum)));
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_bfloat16() {
    // SAFETY: both are 64 bytes, of which every pattern is one.
    let pairs = |bits: i32| unsafe { std::mem::transmute::<_, __m512bh>(_mm512_set1_epi32(bits)) };
    let (a, b) = (pairs(black_box(0x3f00_3f00)), pairs(black_box(0x3a80_3a80)));
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, a, b);
        }
    }
    black_box(sums.map(|sum| _mm512_reduce_add_ps(sum)));
}
