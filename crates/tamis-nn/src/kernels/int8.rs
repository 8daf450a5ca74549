//! Linear layers of many rows in eight bits: a quarter of the time where the machine multiplies bytes, for an error of
//! about a hundredth.
//!
//! A map's weights are rounded once, each output's to whole steps from minus to plus its largest; its inputs are rounded as they come,
//! each row's to 256 steps from its lowest to its highest. Source: Jacob et al. 2018, section 2, with a range for every row, as Zafrir et
//! al. 2019 round BERT with one for all of them. Sums of products of bytes are whole numbers, exact in any order: every machine and
//! number of threads gives the same bits, whichever of the kernels below runs.

#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "vectors of bytes are loaded through pointers, by instructions that are known to be there only when this runs"
    )
)]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::kernels::amx;
use crate::kernels::{
    elementwise::{LANES, sum, wide},
    linear::Part,
};

/// Rows that pass a panel together in vectors.
const ROWS: usize = 6;
/// The most rows that pass a panel together.
const MOST_ROWS: usize = 16;
/// Columns of a panel.
const WIDTH: usize = 64;
/// Bytes of the depth that are multiplied and added up together.
const STEP: usize = 4;
/// The deepest map whose sums are sure to fit 32 bits.
const MOST_DEPTH: usize = i32::MAX as usize / (255 * 127);

/// A step of the depth of each column of a panel.
type PanelStep = [[i8; STEP]; WIDTH];
/// What rows that pass a panel together and the panel's columns make.
type Sums = [[i32; WIDTH]; MOST_ROWS];

/// A linear layer in eight bits, prepacked for many forward passes.
#[derive(Debug, Clone)]
pub struct Int8Linear {
    panels: Vec<Panel>,
    inputs: usize,
    outputs: usize,
    kernel: Kernel,
}

/// Some of a map's outputs, filled up with zeros to so many as a panel has.
#[derive(Debug, Clone)]
struct Panel {
    steps: Vec<PanelStep>,
    /// What a weight's byte is multiplied by.
    scales: [f32; WIDTH],
    /// Sums of weights: what a row's lowest number is multiplied by.
    totals: [f32; WIDTH],
    biases: [f32; WIDTH],
}

/// Rows in eight bits, used again by the next: a number is its row's lowest plus its byte times the row's scale.
#[derive(Debug, Default)]
pub struct Int8Rows {
    /// Each row filled up with zeros to the kernel's whole steps, and the rows to as many as pass a panel together.
    bytes: Vec<[u8; STEP]>,
    /// Lowest and scale.
    ranges: Vec<(f32, f32)>,
}

impl Int8Linear {
    /// Rounds and lays out a map.
    ///
    /// # Panics
    ///
    /// If it has more than 66,000 inputs.
    pub fn new(map: Part<'_>) -> Self {
        Self::by(Kernel::get(), map)
    }

    fn by(kernel: Kernel, map: Part<'_>) -> Self {
        let (inputs, outputs) = (map.inputs(), map.bias().len());
        assert!(inputs <= MOST_DEPTH, "{inputs} inputs, at most {MOST_DEPTH}");
        let weights = map.weight().chunks(WIDTH * inputs);
        let panels = weights.zip(map.bias().chunks(WIDTH));
        Self {
            panels: panels
                .map(|(weights, bias)| Panel::new(weights, bias, inputs, kernel.steps(inputs)))
                .collect(),
            inputs,
            outputs,
            kernel,
        }
    }

    /// How many outputs it has.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `out = x Wᵀ + b`, row by row, on one thread. A row with a number that is not finite makes one of no numbers.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn apply(&self, x: &[f32], out: &mut [f32], rows: &mut Int8Rows) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        assert!(
            x.len().is_multiple_of(inputs) && x.len() / inputs * outputs == out.len(),
            "{} numbers by a map of {inputs} to {outputs} into {}",
            x.len(),
            out.len()
        );
        let (kernel, together) = (self.kernel, self.kernel.rows());
        rows.round(x, inputs, kernel);
        let bytes = together * kernel.steps(inputs);
        let mut sums = [[0; WIDTH]; MOST_ROWS];
        kernel.begin();
        for (i, panel) in self.panels.iter().enumerate() {
            let tiles = rows.bytes.chunks_exact(bytes).zip(rows.ranges.chunks(together));
            for (out, (tile, ranges)) in out.chunks_mut(together * outputs).zip(tiles) {
                kernel.multiply(tile, &panel.steps, &mut sums);
                panel.finish(&sums, ranges, i * WIDTH, out.chunks_exact_mut(outputs));
            }
        }
        kernel.end();
    }
}

impl Panel {
    /// Rounds rows of weights of length `inputs`, which are the panel's columns, filled up with zeros to so many steps.
    fn new(weights: &[f32], bias: &[f32], inputs: usize, steps: usize) -> Self {
        let mut panel = Self {
            steps: vec![[[0; STEP]; WIDTH]; steps],
            scales: [0.0; WIDTH],
            totals: [0.0; WIDTH],
            biases: [0.0; WIDTH],
        };
        panel.biases[..bias.len()].copy_from_slice(bias);
        for (j, weights) in weights.chunks_exact(inputs).enumerate() {
            let largest = weights.iter().fold(0.0f32, |largest, w| largest.max(w.abs()));
            let per_number = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let mut total = 0;
            for (step, weights) in panel.steps.iter_mut().zip(weights.chunks(STEP)) {
                for (byte, w) in step[j].iter_mut().zip(weights) {
                    *byte = (w * per_number).round() as i8;
                    total += i32::from(*byte);
                }
            }
            // A weight that is not finite leaves no number: zero times it is none.
            panel.scales[j] = largest / 127.0 + weights.iter().map(|w| 0.0 * w).sum::<f32>();
            panel.totals[j] = panel.scales[j] * total as f32;
        }
        panel
    }

    /// Makes outputs of sums, in place of those from `first` on in each of these rows.
    fn finish<'a>(
        &self,
        sums: &Sums,
        ranges: &[(f32, f32)],
        first: usize,
        mut out: impl Iterator<Item = &'a mut [f32]>,
    ) {
        wide(
            #[inline(always)]
            || {
                for ((sums, &(low, scale)), out) in sums.iter().zip(ranges).zip(&mut out) {
                    let mut row = [0.0; WIDTH];
                    for (j, (x, sum)) in row.iter_mut().zip(sums).enumerate() {
                        let begin = low.mul_add(self.totals[j], self.biases[j]);
                        *x = (scale * self.scales[j]).mul_add(*sum as f32, begin);
                    }
                    let out = &mut out[first..];
                    if let Some(out) = out.first_chunk_mut() {
                        *out = row;
                    } else {
                        out.copy_from_slice(&row[..out.len()]);
                    }
                }
            },
        );
    }
}

impl Int8Rows {
    /// Takes rows of length `cols` in place of those that are here.
    fn round(&mut self, rows: &[f32], cols: usize, kernel: Kernel) {
        // Adding 2^23 leaves the nearest whole number in the last bits.
        const ROUND: f32 = 8_388_608.0;
        let (count, steps) = (rows.len() / cols, kernel.steps(cols));
        self.bytes
            .resize(count.next_multiple_of(kernel.rows()) * steps, [0; STEP]);
        self.ranges.resize(count, (0.0, 0.0));
        let bytes = self.bytes.as_flattened_mut();
        let ranges = &mut self.ranges;
        wide(
            #[inline(always)]
            || {
                let rows = rows.chunks_exact(cols).zip(ranges.iter_mut());
                for ((row, range), bytes) in rows.zip(bytes.chunks_exact_mut(steps * STEP)) {
                    let (low, high) = ends(row);
                    let scale = (high - low) / 255.0;
                    *range = (low, scale);
                    let per_number = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                    for (byte, x) in bytes.iter_mut().zip(row) {
                        *byte = (x - low).mul_add(per_number, ROUND).to_bits() as u8;
                    }
                    bytes[cols..].fill(0);
                }
            },
        );
    }
}

/// The lowest and the highest of a row's numbers; no numbers if one of them is not finite.
#[inline(always)]
fn ends(row: &[f32]) -> (f32, f32) {
    // Zero times a number that is not finite is none. Comparisons alone pass over it.
    let zero = sum(
        row,
        #[inline(always)]
        |x| 0.0 * x,
    );
    let low = across(
        row,
        #[inline(always)]
        |low, x| if x < low { x } else { low },
    );
    let high = across(
        row,
        #[inline(always)]
        |high, x| if x > high { x } else { high },
    );
    (low + zero, high + zero)
}

/// The number that is left when of any two of a row's one is taken.
#[inline(always)]
fn across(row: &[f32], take: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [row[0]; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = take(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = take(*lane, *x);
    }
    lanes.into_iter().fold(row[0], take)
}

/// How rows are multiplied by a panel; all make the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
}

impl Kernel {
    /// The best first.
    const ALL: &[Self] = &[
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Self::Amx,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        Self::Plain,
    ];

    /// The machine's best.
    fn get() -> Self {
        let best = Self::ALL.iter().find(|kernel| kernel.is_there());
        *best.expect("plain code runs everywhere")
    }

    fn is_there(self) -> bool {
        match self {
            Self::Plain => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => amx::multiplies_bytes(),
        }
    }

    /// Rows that pass a panel together.
    fn rows(self) -> usize {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => MOST_ROWS,
            _ => ROWS,
        }
    }

    /// The steps of so many inputs.
    fn steps(self, inputs: usize) -> usize {
        let steps = inputs.div_ceil(STEP);
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => steps.next_multiple_of(tiles::STEPS),
            _ => steps,
        }
    }

    /// Before a thread's products.
    fn begin(self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self == Self::Amx {
            amx::configure();
        }
    }

    /// After them.
    fn end(self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self == Self::Amx {
            amx::release();
        }
    }

    /// Multiplies `rows()` rows, one after the other, by a panel, which has as many steps as a row, in place of as many rows of sums.
    fn multiply(self, rows: &[[u8; STEP]], panel: &[PanelStep], sums: &mut Sums) {
        assert_eq!(rows.len(), self.rows() * panel.len(), "rows as deep as the panel");
        match self {
            Self::Plain => plain(rows, panel, &mut sums[..ROWS]),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions that the kernel is compiled for (`is_there`).
            Self::Avx2 => unsafe { x86::by_pairs(rows, panel, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { x86::by_bytes(rows, panel, sums) },
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => tiles::multiply(rows, panel, sums),
        }
    }
}

/// The kernel for any machine.
fn plain(rows: &[[u8; STEP]], panel: &[PanelStep], sums: &mut [[i32; WIDTH]]) {
    sums.fill([0; WIDTH]);
    for (k, step) in panel.iter().enumerate() {
        for (row, sums) in rows.chunks_exact(panel.len()).zip(&mut *sums) {
            let x = row[k].map(i32::from);
            for (sum, w) in sums.iter_mut().zip(step) {
                let w = w.map(i32::from);
                *sum += x[0] * w[0] + x[1] * w[1] + x[2] * w[2] + x[3] * w[3];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_add_epi32, _mm256_and_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi16,
        _mm256_set1_epi32, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srli_epi16,
        _mm256_storeu_si256, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512,
        _mm512_storeu_si512,
    };

    use crate::kernels::int8::{PanelStep, ROWS, STEP, Sums, WIDTH};

    /// Bytes by bytes, four products added up in one instruction. No closures, which would not be compiled for it.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(crate) fn by_bytes(tile: &[[u8; STEP]], panel: &[PanelStep], out: &mut Sums) {
        const VECTORS: usize = WIDTH / 16;
        let rows = rows(tile, panel.len());
        let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
        for (k, step) in panel.iter().enumerate() {
            let mut right = [_mm512_setzero_si512(); VECTORS];
            for (right, columns) in right.iter_mut().zip(step.as_chunks::<16>().0) {
                // SAFETY: 16 columns of four bytes are 64 bytes, which may lie anywhere.
                *right = unsafe { _mm512_loadu_si512(columns.as_ptr().cast()) };
            }
            for (row, sums) in rows.iter().zip(&mut sums) {
                let left = _mm512_set1_epi32(i32::from_le_bytes(row[k]));
                for (sum, right) in sums.iter_mut().zip(&right) {
                    *sum = _mm512_dpbusd_epi32(*sum, left, *right);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(&sums) {
            for (out, sum) in out.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
                // SAFETY: 16 numbers of four bytes.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), *sum) }
            }
        }
    }

    /// Bytes widened to pairs of 16 bits, the even ones and the odd ones of a step.
    #[target_feature(enable = "avx2")]
    pub(crate) fn by_pairs(tile: &[[u8; STEP]], panel: &[PanelStep], out: &mut Sums) {
        let rows = rows(tile, panel.len());
        let low = _mm256_set1_epi16(255);
        for v in 0..WIDTH / 8 {
            let mut sums = [_mm256_setzero_si256(); ROWS];
            for (k, step) in panel.iter().enumerate() {
                let columns = &step.as_chunks::<8>().0[v];
                // SAFETY: 8 columns of four bytes are 32 bytes, which may lie anywhere.
                let right = unsafe { _mm256_loadu_si256(columns.as_ptr().cast()) };
                let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(right));
                let odd = _mm256_srai_epi16::<8>(right);
                for (row, sum) in rows.iter().zip(&mut sums) {
                    let left = _mm256_set1_epi32(i32::from_le_bytes(row[k]));
                    let evens = _mm256_madd_epi16(even, _mm256_and_si256(left, low));
                    let odds = _mm256_madd_epi16(odd, _mm256_srli_epi16::<8>(left));
                    *sum = _mm256_add_epi32(*sum, _mm256_add_epi32(evens, odds));
                }
            }
            for (out, sum) in out.iter_mut().zip(&sums) {
                let out = &mut out.as_chunks_mut::<8>().0[v];
                // SAFETY: 8 numbers of four bytes.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), *sum) }
            }
        }
    }

    /// The rows of a tile, each of so many steps: slices of their own, so that each has an address of its own in the loop.
    #[inline(always)]
    fn rows(tile: &[[u8; STEP]], steps: usize) -> [&[[u8; STEP]]; ROWS] {
        std::array::from_fn(|r| &tile[r * steps..][..steps])
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles {
    use std::arch::asm;

    use crate::kernels::int8::{MOST_ROWS, PanelStep, STEP, Sums};

    /// Steps of the depth in a tile: of a row its 64 bytes, of a panel 16 rows of 16 columns.
    pub(crate) const STEPS: usize = 64 / STEP;

    /// Tiles 0 to 3 are sums of 16 columns each, 4 the rows, 5 and 6 columns.
    pub(crate) fn multiply(rows: &[[u8; STEP]], panel: &[PanelStep], sums: &mut Sums) {
        let (count, row) = (panel.len() / STEPS, size_of_val(rows) / MOST_ROWS);
        assert!(count > 0 && panel.len().is_multiple_of(STEPS), "whole tiles");
        // SAFETY: `rows` has 16 rows of `row` bytes, 64 for each time the loop runs; the panel has for each 16 steps of 256 bytes; `sums`
        // has 16 rows of 256 bytes. The thread's tiles are configured.
        unsafe {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{rows} + {row}*1]",
                "tileloadd tmm5, [{panel} + {width}*1]",
                "tdpbusd tmm0, tmm4, tmm5",
                "tileloadd tmm6, [{panel} + {width}*1 + 64]",
                "tdpbusd tmm1, tmm4, tmm6",
                "tileloadd tmm5, [{panel} + {width}*1 + 128]",
                "tdpbusd tmm2, tmm4, tmm5",
                "tileloadd tmm6, [{panel} + {width}*1 + 192]",
                "tdpbusd tmm3, tmm4, tmm6",
                "add {rows}, 64", "add {panel}, 4096",
                "dec {count}", "jnz 2b",
                "tilestored [{sums} + {width}*1], tmm0",
                "tilestored [{sums} + {width}*1 + 64], tmm1",
                "tilestored [{sums} + {width}*1 + 128], tmm2",
                "tilestored [{sums} + {width}*1 + 192], tmm3",
                rows = inout(reg) rows.as_ptr() => _,
                panel = inout(reg) panel.as_ptr() => _,
                count = inout(reg) count => _,
                sums = in(reg) sums.as_mut_ptr(),
                row = in(reg) row,
                width = in(reg) 256usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _,
                options(nostack),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Matrix, kernels::linear::Linear};

    fn numbers(count: usize, shift: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 1.3 + shift).sin()).collect()
    }

    #[test]
    fn a_map_worked_by_hand() {
        // Weights (127, -64) and (0.5, 1) are (127, -64) times 1 and (64, 127) times 1 / 127, the first rounded from 63.5. Inputs (0, 255)
        // and (-1, 50) are bytes 0 and 255 times 1, and 0 and 255 times 0.2 above -1.
        let map = Linear {
            weight: Matrix::from_vec(vec![127.0, -64.0, 0.5, 1.0], 2, 2),
            bias: vec![1.0, 0.0],
        };
        let mut out = [9.0; 4];
        Int8Linear::new(map.whole()).apply(&[0.0, 255.0, -1.0, 50.0], &mut out, &mut Int8Rows::default());
        let want = [
            1.0 - 64.0 * 255.0,
            255.0,
            1.0 - 127.0 - 64.0 * 50.0,
            -64.0 / 127.0 + 50.0,
        ];
        for (out, want) in out.iter().zip(want) {
            assert!((out / want - 1.0).abs() < 1e-6, "{out} {want}");
        }
    }

    #[test]
    fn every_shape_is_near_the_exact_map_and_rows_do_not_depend_on_others() {
        let mut room = Int8Rows::default();
        for (rows, inputs, outputs) in [(1, 1, 1), (5, 3, 2), (6, 16, 64), (13, 18, 65), (25, 130, 200)] {
            let map = Linear {
                weight: Matrix::from_vec(numbers(inputs * outputs, 0.7), outputs, inputs),
                bias: numbers(outputs, 0.3),
            };
            let x = numbers(rows * inputs, 0.1);
            let mut exact = Vec::new();
            map.whole().apply(&x, &mut exact);
            let bytes = Int8Linear::new(map.whole());
            let mut out = vec![9.0; exact.len()];
            bytes.apply(&x, &mut out, &mut room);
            for &kernel in Kernel::ALL.iter().filter(|kernel| kernel.is_there()) {
                let mut by_kernel = vec![9.0; exact.len()];
                Int8Linear::by(kernel, map.whole()).apply(&x, &mut by_kernel, &mut room);
                assert_eq!(by_kernel, out, "{kernel:?}");
            }
            // A product of numbers up to 1 is off by half a step of each, and errors add up as a random walk.
            let bound = 4.0 * (1.0 / 254.0 + 1.0 / 255.0) * (inputs as f32).sqrt();
            for (i, (out, exact)) in out.iter().zip(&exact).enumerate() {
                assert!(
                    (out - exact).abs() < bound,
                    "({rows}, {inputs}, {outputs}), {i}: {out} {exact}"
                );
            }
            for (x, out) in x.chunks(inputs).zip(out.chunks(outputs)) {
                let mut alone = vec![9.0; outputs];
                bytes.apply(x, &mut alone, &mut room);
                assert_eq!(alone, out);
            }
        }
    }

    /// As many steps of rows and of a panel, with the ends of both ranges among them.
    fn drawn(rows: usize, steps: usize) -> (Vec<[u8; STEP]>, Vec<PanelStep>) {
        let byte = |i: usize, k: usize| {
            if i.is_multiple_of(3) {
                255
            } else {
                (i * 31 + k * 7) as u8
            }
        };
        let weight = |i: usize, j: usize, k: usize| [127, -127, (i * 7 + j * 3 + k) as i8][(i + j / 2) % 3];
        (
            (0..rows * steps).map(|i| std::array::from_fn(|k| byte(i, k))).collect(),
            (0..steps)
                .map(|i| std::array::from_fn(|j| std::array::from_fn(|k| weight(i, j, k))))
                .collect(),
        )
    }

    #[test]
    fn kernels_agree_to_the_bit_at_the_ends_of_their_ranges() {
        for &kernel in Kernel::ALL.iter().filter(|kernel| kernel.is_there()) {
            let (rows, steps) = (kernel.rows(), kernel.steps(200));
            let (bytes, panel) = drawn(rows, steps);
            let (mut want, mut sums) = ([[1; WIDTH]; MOST_ROWS], [[2; WIDTH]; MOST_ROWS]);
            plain(&bytes, &panel, &mut want[..rows]);
            let by_hand: i32 = (0..steps)
                .flat_map(|k| (0..STEP).map(move |i| (k, i)))
                .map(|(k, i)| i32::from(bytes[2 * steps + k][i]) * i32::from(panel[k][5][i]))
                .sum();
            assert_eq!(want[2][5], by_hand);
            kernel.begin();
            kernel.multiply(&bytes, &panel, &mut sums);
            kernel.end();
            assert_eq!(sums[..rows], want[..rows], "{kernel:?}");
        }
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn tiles_lie_where_their_kernel_loads_them() {
        // What the instructions do, a byte at a time, on machines without them: Intel's manual, TILELOADD, TDPBUSD and TILESTORED.
        let (steps, stride) = (Kernel::Amx.steps(130), size_of::<PanelStep>());
        assert_eq!(steps, 48);
        let (bytes, panel) = drawn(MOST_ROWS, steps);
        let rows = bytes.as_flattened();
        let columns: Vec<i8> = panel.iter().flatten().flatten().copied().collect();
        let mut sums = [[0; WIDTH]; MOST_ROWS];
        for block in 0..steps / tiles::STEPS {
            for tile in 0..4 {
                let left = |m: usize, byte: usize| i32::from(rows[64 * block + m * steps * STEP + byte]);
                let right = |k: usize, byte: usize| i32::from(columns[4096 * block + 64 * tile + k * stride + byte]);
                for (m, sums) in sums.iter_mut().enumerate() {
                    for (n, sum) in sums[16 * tile..][..16].iter_mut().enumerate() {
                        for (k, i) in (0..16).flat_map(|k| (0..4).map(move |i| (k, i))) {
                            *sum += left(m, 4 * k + i) * right(k, 4 * n + i);
                        }
                    }
                }
            }
        }
        let mut want = [[0; WIDTH]; MOST_ROWS];
        plain(&bytes, &panel, &mut want);
        assert_eq!(sums, want);
    }

    #[test]
    fn what_is_not_finite_leaves_no_number() {
        let mut map = Linear {
            weight: Matrix::from_vec(numbers(15, 0.7), 3, 5),
            bias: vec![0.0; 3],
        };
        let mut out = [0.0; 6];
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let x = [numbers(5, 0.1), vec![0.2, 0.1, wrong, 0.3, 0.1]].concat();
            Int8Linear::new(map.whole()).apply(&x, &mut out, &mut Int8Rows::default());
            assert!(
                out[..3].iter().all(|x| x.is_finite()) && out[3..].iter().all(|x| x.is_nan()),
                "{out:?}"
            );
        }
        map.weight.as_mut_slice()[7] = f32::NAN;
        Int8Linear::new(map.whole()).apply(&numbers(10, 0.1), &mut out, &mut Int8Rows::default());
        assert!(out[1].is_nan() && out[4].is_nan() && out[0].is_finite());
        // Of equal numbers nothing is lost, be they zeros.
        for x in [0.0, -3.0] {
            Int8Linear::new(map.part(0..1)).apply(&[x; 5], &mut out[..1], &mut Int8Rows::default());
            let want: f32 = map.weight.row(0).iter().map(|w| x * w).sum();
            assert!((out[0] - want).abs() < 0.02, "{} {want}", out[0]);
        }
    }
}
