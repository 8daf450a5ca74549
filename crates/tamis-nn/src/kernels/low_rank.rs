//! The gradient of a matrix with few rows or columns, such as a low-rank adapter's: few numbers a token times many, summed over the tokens.
//!
//! What is read is large and what is made is small, so nothing is packed: the many numbers are read where they lie.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Columns whose sums one thread makes at a time, and rows of sums that stay in registers.
const COLUMNS: usize = 32;
const ROWS: usize = 8;

/// Buffers, used again by the next gradient.
#[derive(Debug, Default)]
pub struct LowRankWorkspace {
    few: Vec<[f32; ROWS]>,
    sums: Vec<[[f32; COLUMNS]; ROWS]>,
}

/// Which side the few are in the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Few {
    /// `d += fewᵀ many`, shape `(rank, outputs of many)`.
    Rows,
    /// `d += manyᵀ few`, shape `(outputs of many, rank)`.
    Columns,
}

impl LowRankWorkspace {
    /// Adds to `gradient` the sum over tokens of every product of one of the `few`, shape `(tokens, rank)`, with one of the `many`, shape
    /// `(tokens, columns)`; on all threads, in the order of the tokens.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    pub fn add_gradient(&mut self, few: &[f32], rank: usize, many: &[f32], side: Few, gradient: &mut [f32]) {
        let tokens = few.len() / rank;
        let columns = gradient.len() / rank;
        assert!(
            few.len() == tokens * rank && many.len() == tokens * columns && gradient.len() == rank * columns,
            "{tokens} tokens, {rank} by {columns}: {} numbers",
            many.len()
        );
        if tokens == 0 {
            return;
        }
        let blocks = rank.div_ceil(ROWS);
        // Block after block of the few, so that a block's lie side by side.
        self.few.clear();
        for block in 0..blocks {
            let from = block * ROWS..rank.min((block + 1) * ROWS);
            self.few.extend(few.chunks_exact(rank).map(|few| {
                let mut numbers = [0.0; ROWS];
                numbers[..from.len()].copy_from_slice(&few[from.clone()]);
                numbers
            }));
        }
        let few = &self.few;
        let panels = columns.div_ceil(COLUMNS);
        self.sums.resize(panels * blocks, [[0.0; COLUMNS]; ROWS]);
        self.sums.par_chunks_mut(blocks).enumerate().for_each(|(panel, sums)| {
            let first = panel * COLUMNS;
            for (sums, few) in sums.iter_mut().zip(few.chunks_exact(tokens)) {
                *sums = Arch::new().dispatch(PanelSums {
                    few,
                    many: &many[first..],
                    stride: columns,
                    count: COLUMNS.min(columns - first),
                });
            }
        });
        for (panel, sums) in self.sums.chunks_exact(blocks).enumerate() {
            let first = panel * COLUMNS;
            let rows = sums.as_flattened();
            for (r, row) in rows[..rank].iter().enumerate() {
                for (c, sum) in (first..columns).zip(row) {
                    let at = match side {
                        Few::Rows => r * columns + c,
                        Few::Columns => c * rank + r,
                    };
                    gradient[at] += sum;
                }
            }
        }
    }
}

/// The sums of one block of the few with one panel of the many, rows of which are `stride` apart.
struct PanelSums<'a> {
    few: &'a [[f32; ROWS]],
    many: &'a [f32],
    stride: usize,
    /// The panel's columns.
    count: usize,
}

impl WithSimd for PanelSums<'_> {
    type Output = [[f32; COLUMNS]; ROWS];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        if S::REGISTER_COUNT >= 32 {
            self.run::<S, 2>(simd)
        } else {
            self.run::<S, 1>(simd)
        }
    }
}

impl PanelSums<'_> {
    /// So many vectors of columns at a time that their sums stay in registers.
    #[inline(always)]
    fn run<S: Simd, const VECTORS: usize>(self, simd: S) -> [[f32; COLUMNS]; ROWS] {
        let mut all = [[0.0; COLUMNS]; ROWS];
        let step = VECTORS * S::F32_LANES;
        for first in (0..self.count).step_by(step) {
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
            let count = step.min(self.count - first);
            for (few, row) in self.few.iter().zip(self.many[first..].chunks(self.stride)) {
                let mut partial = [0.0; COLUMNS];
                let row = if count == step {
                    row
                } else {
                    partial[..count].copy_from_slice(&row[..count]);
                    &partial
                };
                let row = &S::as_simd_f32s(row).0[..VECTORS];
                for r in 0..ROWS {
                    let number = simd.splat_f32s(few[r]);
                    for v in 0..VECTORS {
                        sums[r][v] = simd.mul_add_f32s(number, row[v], sums[r][v]);
                    }
                }
            }
            for r in 0..ROWS {
                let all = S::as_mut_simd_f32s(&mut all[r][first..]).0;
                all[..VECTORS].copy_from_slice(&sums[r]);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, shift: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 1.3 + shift).sin()).collect()
    }

    #[test]
    fn every_rank_and_width_agrees_with_one_product_at_a_time() {
        let mut workspace = LowRankWorkspace::default();
        for (tokens, rank, columns) in [(0, 2, 3), (1, 1, 1), (5, 8, 32), (40, 16, 70), (7, 3, 33), (9, 20, 64)] {
            let (few, many) = (numbers(tokens * rank, 0.1), numbers(tokens * columns, 0.7));
            for side in [Few::Rows, Few::Columns] {
                let begun = numbers(rank * columns, 0.3);
                let mut gradient = begun.clone();
                workspace.add_gradient(&few, rank, &many, side, &mut gradient);
                for r in 0..rank {
                    for c in 0..columns {
                        let at = if side == Few::Rows {
                            r * columns + c
                        } else {
                            c * rank + r
                        };
                        let sum: f32 = (0..tokens).map(|t| few[t * rank + r] * many[t * columns + c]).sum();
                        assert!(
                            (gradient[at] - begun[at] - sum).abs() < 1e-5,
                            "({tokens}, {rank}, {columns}) {side:?}, {r}, {c}"
                        );
                    }
                }
            }
        }
    }
}
