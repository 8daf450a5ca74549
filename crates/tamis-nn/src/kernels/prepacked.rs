//! The product of many rows with one matrix that is packed for it beforehand: the kernel of linear layers.
//!
//! The matrix is cut into panels of as many columns as the machine's registers hold sums of for six rows, and a panel's numbers lie in
//! the order in which they are read. Some panels stay in the second cache while all rows pass them, six at a time, which are in the first.
//! Rows are read as they lie; where they are the columns of a matrix, they are packed in tiles before ([`PrepackedTransposed`]).
//! Every number of the result is one chain of fused multiplications and additions in the order of the depth: it has the same bits
//! whatever rows are beside it and however they are shared out between threads.
//!
//! Source of the scheme: Goto & van de Geijn 2008 and Van Zee & van de Geijn 2015 (BLIS). What packing beforehand gains over a general
//! product: a matrix that is used again, or by several threads, is copied once, sums can begin at a bias, and few rows cost no more a row.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::{
    prepacked_transposed::{PrepackedTransposed, TILE},
    product::Layout,
};

/// Numbers of the panels that all rows pass before the next ones come: 768 KiB. Measured: with fewer, rows come from too far too often;
/// with more, panels do.
const GROUP: usize = 196_608;
/// Steps of the depth that are written out, so that addresses are worked out once for them.
const STEPS: usize = 4;

/// The right side of a product, packed in panels.
#[derive(Debug, Clone, Default)]
pub struct PrepackedMatrix {
    /// Panel after panel, each of shape `(depth, width)`, the last filled up with zeros; behind them what larger panels have left.
    numbers: Vec<f32>,
    depth: usize,
    columns: usize,
    width: usize,
}

/// What a product is added to.
#[derive(Debug, Clone, Copy)]
pub enum Begin<'a> {
    /// Nothing: what is there is written over.
    Zero,
    /// Every row to these numbers, such as a bias.
    Row(&'a [f32]),
    /// What is there.
    There,
}

impl<'a> Begin<'a> {
    /// Every row to a layer's bias, or nothing where that is empty.
    pub fn bias(bias: &'a [f32]) -> Self {
        if bias.is_empty() { Self::Zero } else { Self::Row(bias) }
    }
}

impl PrepackedMatrix {
    /// Packs `matrix`, which, read in its layout, has shape `(depth, columns)`, on one thread.
    ///
    /// # Panics
    ///
    /// If it has not so many numbers, or none.
    pub fn new(matrix: &[f32], shape: (usize, usize), layout: Layout) -> Self {
        let mut panels = Self::default();
        let (length, panel) = panels.resize(matrix, shape);
        for (i, numbers) in panels.numbers[..length].chunks_mut(panel).enumerate() {
            fill(numbers, i, matrix, shape, layout);
        }
        panels
    }

    /// The same on all threads, in the room of other panels.
    ///
    /// # Panics
    ///
    /// As [`PrepackedMatrix::new`].
    pub fn prepack(&mut self, matrix: &[f32], shape: (usize, usize), layout: Layout) {
        let (length, panel) = self.resize(matrix, shape);
        self.numbers[..length]
            .par_chunks_mut(panel)
            .enumerate()
            .for_each(|(i, numbers)| fill(numbers, i, matrix, shape, layout));
    }

    /// Makes room for a matrix: the numbers of all panels and of one.
    fn resize(&mut self, matrix: &[f32], (depth, columns): (usize, usize)) -> (usize, usize) {
        assert!(
            depth * columns > 0 && matrix.len() == depth * columns,
            "panels of {depth} x {columns}: {} numbers",
            matrix.len()
        );
        let width = Arch::new().dispatch(Width { columns });
        (self.depth, self.columns, self.width) = (depth, columns, width);
        let length = self.length();
        if self.numbers.len() < length {
            self.numbers.resize(length, 0.0);
        }
        (length, width * depth)
    }

    /// The numbers of all panels.
    fn length(&self) -> usize {
        self.columns.div_ceil(self.width) * self.width * self.depth
    }

    /// `out = begin + x b`, on one thread: `x` of shape `(rows, depth)`, `out` of shape `(rows, columns)`, both row-major.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn multiply(&self, x: &[f32], begin: Begin<'_>, out: &mut [f32]) {
        let rows: Vec<&[f32]> = x.chunks_exact(self.depth).collect();
        assert_eq!(x.len(), rows.len() * self.depth, "rows of length {}", self.depth);
        self.run(Left::Rows(&rows), rows.len(), begin, out);
    }

    /// The same on all threads.
    ///
    /// # Panics
    ///
    /// As [`PrepackedMatrix::multiply`].
    pub fn multiply_in_parallel(&self, x: &[f32], begin: Begin<'_>, out: &mut [f32]) {
        assert_eq!(
            out.len() * self.depth,
            x.len() * self.columns,
            "rows of length {}",
            self.depth
        );
        let rows = share(x.len() / self.depth);
        out.par_chunks_mut(rows * self.columns)
            .zip(x.par_chunks(rows * self.depth))
            .for_each(|(out, x)| self.multiply(x, begin, out));
    }

    /// The same with the columns in `tiles` in place of rows: `out = begin + uᵀ b`, `u` being what was packed in tiles.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn multiply_columns_in_parallel(&self, tiles: &PrepackedTransposed, begin: Begin<'_>, out: &mut [f32]) {
        let shapes = (tiles.depth(), tiles.columns() * self.columns);
        assert_eq!(shapes, (self.depth, out.len()), "columns of length {}", self.depth);
        let columns = share(tiles.columns());
        out.par_chunks_mut(columns * self.columns)
            .enumerate()
            .for_each(|(i, out)| {
                let left = Left::PrepackedTransposed(tiles.from(i * columns));
                self.run(left, out.len() / self.columns, begin, out);
            });
    }

    fn run(&self, left: Left<'_>, rows: usize, begin: Begin<'_>, out: &mut [f32]) {
        assert_eq!(
            rows * self.columns,
            out.len(),
            "{rows} products with {} x {}",
            self.depth,
            self.columns
        );
        if let Begin::Row(row) = begin {
            assert_eq!(row.len(), self.columns, "a row to begin with");
        }
        Arch::new().dispatch(Product {
            panels: self,
            left,
            begin,
            out,
        });
    }
}

/// How many of so many rows one thread takes at a time: two shares a thread, so that one which is held up hands some on.
fn share(rows: usize) -> usize {
    let rows = rows.div_ceil(2 * rayon::current_num_threads()).max(1);
    rows.next_multiple_of(TILE)
}

/// Fills panel `i` of a matrix.
fn fill(panel: &mut [f32], i: usize, matrix: &[f32], (depth, columns): (usize, usize), layout: Layout) {
    let width = panel.len() / depth;
    let first = i * width;
    let count = width.min(columns - first);
    match layout {
        Layout::Plain => {
            for (to, from) in panel.chunks_exact_mut(width).zip(matrix.chunks_exact(columns)) {
                to[..count].copy_from_slice(&from[first..first + count]);
                to[count..].fill(0.0);
            }
        }
        Layout::Transposed => {
            let rows = &matrix[first * depth..(first + count) * depth];
            // A few steps of the depth at a time, so that what is read and what is written stay in the cache.
            for (block, panel) in panel.chunks_mut(16 * width).enumerate() {
                for (j, row) in rows.chunks_exact(depth).enumerate() {
                    for (to, x) in panel.chunks_exact_mut(width).zip(&row[16 * block..]) {
                        to[j] = *x;
                    }
                }
                for to in panel.chunks_exact_mut(width) {
                    to[count..].fill(0.0);
                }
            }
        }
    }
}

/// The most vectors and numbers that a panel is wide.
const MOST_VECTORS: usize = 4;
const MOST_WIDTH: usize = MOST_VECTORS * 16;

/// How many columns a panel has, of a matrix with so many: few columns, as a low-rank adapter's, have narrow panels.
struct Width {
    columns: usize,
}

impl WithSimd for Width {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        let narrow = [1, 2]
            .into_iter()
            .find(|vectors| vectors * S::F32_LANES >= self.columns);
        narrow.unwrap_or(MOST_VECTORS).min(vectors::<S>()) * S::F32_LANES
    }
}

/// How many vectors wide a panel is: with six rows twelve sums where there are 16 registers, twenty-four where there are 32.
const fn vectors<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { MOST_VECTORS } else { 2 }
}

/// The left side of a product.
#[derive(Clone, Copy)]
enum Left<'a> {
    /// Row by row: slices of their own, and not a stride, so that each has an address of its own in the loop.
    Rows(&'a [&'a [f32]]),
    /// Columns in tiles, the first of them the first row.
    PrepackedTransposed(&'a [f32]),
}

/// Rows and panels.
struct Product<'a> {
    panels: &'a PrepackedMatrix,
    left: Left<'a>,
    begin: Begin<'a>,
    out: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.panels.width / S::F32_LANES {
            1 => self.run::<S, 1>(simd),
            2 => self.run::<S, 2>(simd),
            _ => self.run::<S, MOST_VECTORS>(simd),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn run<S: Simd, const VECTORS: usize>(self, simd: S) {
        let PrepackedMatrix {
            depth, columns, width, ..
        } = *self.panels;
        let numbers = &self.panels.numbers[..self.panels.length()];
        let add = matches!(self.begin, Begin::There);
        let zeros = [0.0; MOST_WIDTH];
        let group = (GROUP / (width * depth)).max(1);
        for (i, panels) in numbers.chunks(group * width * depth).enumerate() {
            for (t, out) in self.out.chunks_mut(TILE * columns).enumerate() {
                for (j, panel) in panels.chunks_exact(width * depth).enumerate() {
                    let first = (i * group + j) * width;
                    let count = width.min(columns - first);
                    let rows = out.len() / columns;
                    let begin = match self.begin {
                        Begin::Row(row) => &row[first..],
                        Begin::Zero | Begin::There => &zeros,
                    };
                    if count == width {
                        let out = &mut out[first..];
                        self.left
                            .tile::<S, VECTORS>(simd, t, rows, panel, begin, add, out, columns);
                        continue;
                    }
                    // The last panel is wider than what is left.
                    let (mut wide_begin, mut wide_out) = (zeros, [0.0; TILE * MOST_WIDTH]);
                    wide_begin[..count].copy_from_slice(&begin[..count]);
                    self.left
                        .tile::<S, VECTORS>(simd, t, rows, panel, &wide_begin, false, &mut wide_out, width);
                    for (out, wide) in out.chunks_mut(columns).zip(wide_out.chunks_exact(width)) {
                        for (out, x) in out[first..][..count].iter_mut().zip(wide) {
                            *out = if add { *out + x } else { *x };
                        }
                    }
                }
            }
        }
    }
}
/// Runs an expression with a count, at most that of a tile, as a constant.
macro_rules! for_known {
    ($count:expr, $constant:ident => $run:expr) => {
        for_known!($count, $constant => $run, 1 2 3 4 5)
    };
    ($count:expr, $constant:ident => $run:expr, $($known:literal)*) => {
        match $count {
            $($known => {
                const $constant: usize = $known;
                $run
            })*
            _ => {
                const $constant: usize = TILE;
                $run
            }
        }
    };
}

impl Left<'_> {
    /// At most six rows, from row `6 t` on, and one panel, each row's sums from those in `begin` on: the result in place of the first
    /// columns of the rows of `out`, which are `stride` apart, or added to them.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
    fn tile<S: Simd, const VECTORS: usize>(
        self,
        simd: S,
        t: usize,
        count: usize,
        panel: &[f32],
        begin: &[f32],
        add: bool,
        out: &mut [f32],
        stride: usize,
    ) {
        let depth = panel.len() / (VECTORS * S::F32_LANES);
        match self {
            Self::Rows(rows) => {
                let rows = &rows[TILE * t..][..count];
                for_known!(count, ROWS => {
                    let rows = Rows::<ROWS>::new(rows, depth);
                    tile_of::<S, ROWS, VECTORS>(simd, rows, panel, begin, add, out, stride);
                });
            }
            Self::PrepackedTransposed(tiles) => {
                let tile = Tile::new(&tiles[t * TILE * depth..][..TILE * depth]);
                for_known!(count, ROWS => tile_of::<S, ROWS, VECTORS>(simd, tile, panel, begin, add, out, stride));
            }
        }
    }
}

/// Some rows' numbers by steps of the depth.
trait Numbers: Copy {
    /// Row `r`'s at step `k` of the `i`th [`STEPS`].
    fn at(self, i: usize, k: usize, r: usize) -> f32;
    /// Row `r`'s at the `i`th of the steps behind them.
    fn behind(self, i: usize, r: usize) -> f32;
}

#[derive(Clone, Copy)]
struct Rows<'a, const ROWS: usize> {
    steps: [&'a [[f32; STEPS]]; ROWS],
    rest: [&'a [f32]; ROWS],
}

impl<'a, const ROWS: usize> Rows<'a, ROWS> {
    #[inline(always)]
    fn new(rows: &[&'a [f32]], depth: usize) -> Self {
        let rows: [&[f32]; ROWS] = std::array::from_fn(|r| &rows[r][..depth]);
        Self {
            steps: std::array::from_fn(|r| rows[r].as_chunks().0),
            rest: std::array::from_fn(|r| rows[r].as_chunks::<STEPS>().1),
        }
    }
}

impl<const ROWS: usize> Numbers for Rows<'_, ROWS> {
    #[inline(always)]
    fn at(self, i: usize, k: usize, r: usize) -> f32 {
        self.steps[r][i][k]
    }

    #[inline(always)]
    fn behind(self, i: usize, r: usize) -> f32 {
        self.rest[r][i]
    }
}

#[derive(Clone, Copy)]
struct Tile<'a> {
    steps: &'a [[[f32; TILE]; STEPS]],
    rest: &'a [[f32; TILE]],
}

impl<'a> Tile<'a> {
    #[inline(always)]
    fn new(tile: &'a [f32]) -> Self {
        let (steps, rest) = tile.as_chunks().0.as_chunks();
        Self { steps, rest }
    }
}

impl Numbers for Tile<'_> {
    #[inline(always)]
    fn at(self, i: usize, k: usize, r: usize) -> f32 {
        self.steps[i][k][r]
    }

    #[inline(always)]
    fn behind(self, i: usize, r: usize) -> f32 {
        self.rest[i][r]
    }
}

/// [`Left::tile`] for a known number of rows. Loops count to what is known when this is compiled and index arrays, and nothing branches
/// before them: only so are the sums kept in registers.
#[inline(always)]
fn tile_of<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    left: impl Numbers,
    panel: &[f32],
    begin: &[f32],
    add: bool,
    out: &mut [f32],
    stride: usize,
) {
    let begin = S::as_simd_f32s(begin).0.as_chunks::<VECTORS>().0[0];
    let mut sums = [begin; ROWS];

    let panel = S::as_simd_f32s(panel).0.as_chunks::<VECTORS>().0;
    let (steps, rest) = panel.as_chunks::<STEPS>();
    for (i, step) in steps.iter().enumerate() {
        for (k, right) in step.iter().enumerate() {
            add_step(
                simd,
                &mut sums,
                right,
                #[inline(always)]
                |r| left.at(i, k, r),
            );
        }
    }
    for (i, right) in rest.iter().enumerate() {
        add_step(
            simd,
            &mut sums,
            right,
            #[inline(always)]
            |r| left.behind(i, r),
        );
    }

    for r in 0..ROWS {
        let out = &mut S::as_mut_simd_f32s(&mut out[r * stride..]).0[..VECTORS];
        for v in 0..VECTORS {
            out[v] = if add {
                simd.add_f32s(out[v], sums[r][v])
            } else {
                sums[r][v]
            };
        }
    }
}

/// One step of the depth: each row's number there times a row of the panel.
#[inline(always)]
fn add_step<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    sums: &mut [[S::f32s; VECTORS]; ROWS],
    right: &[S::f32s; VECTORS],
    left: impl Fn(usize) -> f32,
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        let left = simd.splat_f32s(left(r));
        for (sum, right) in sums.iter_mut().zip(right) {
            *sum = simd.mul_add_f32s(left, *right, *sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::product::product;

    fn numbers(count: usize, shift: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 1.3 + shift).sin()).collect()
    }

    #[test]
    fn every_shape_layout_and_beginning_agrees_with_the_general_product() {
        for (m, k, n) in [
            (1, 1, 1),
            (5, 3, 2),
            (6, 16, 64),
            (7, 18, 65),
            (13, 33, 130),
            (200, 5, 70),
        ] {
            let (x, b, bias) = (numbers(m * k, 0.1), numbers(k * n, 0.7), numbers(n, 0.3));
            for layout in [Layout::Plain, Layout::Transposed] {
                // In room that other panels have left full.
                let mut panels = PrepackedMatrix::new(&vec![7.0; 9000], (90, 100), Layout::Plain);
                panels.prepack(&b, (k, n), layout);
                let begun: Vec<f32> = bias.iter().copied().cycle().take(m * n).collect();
                for (begin, from) in [
                    (Begin::Zero, vec![0.0; m * n]),
                    (Begin::Row(&bias), begun),
                    (Begin::There, numbers(m * n, 0.9)),
                ] {
                    let mut want = from;
                    let mut out = numbers(m * n, 0.9);
                    product(&mut want, (m, k, n), &x, Layout::Plain, &b, layout, 1.0);
                    panels.multiply(&x, begin, &mut out);
                    for (i, (out, want)) in out.iter().zip(&want).enumerate() {
                        assert!(
                            (out - want).abs() < 1e-5,
                            "({m}, {k}, {n}) {layout:?} {begin:?}, number {i}: {out} {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn columns_agree_with_the_general_product() {
        for (m, k, n) in [(1, 1, 1), (7, 3, 2), (50, 18, 65), (12, 90, 128)] {
            let (u, b) = (numbers(k * m, 0.1), numbers(k * n, 0.7));
            let mut tiles = PrepackedTransposed::default();
            tiles.prepack(&u, m, &mut vec![0.0; m]);
            let mut want = numbers(m * n, 0.9);
            let mut out = want.clone();
            product(&mut want, (m, k, n), &u, Layout::Transposed, &b, Layout::Plain, 1.0);
            PrepackedMatrix::new(&b, (k, n), Layout::Plain).multiply_columns_in_parallel(
                &tiles,
                Begin::There,
                &mut out,
            );
            for (i, (out, want)) in out.iter().zip(&want).enumerate() {
                assert!((out - want).abs() < 1e-5, "({m}, {k}, {n}), number {i}: {out} {want}");
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others_on_any_number_of_threads() {
        let (m, k, n) = (211, 37, 130);
        let (x, b) = (numbers(m * k, 0.1), numbers(k * n, 0.7));
        let panels = PrepackedMatrix::new(&b, (k, n), Layout::Plain);
        let mut together = vec![0.0; m * n];
        panels.multiply(&x, Begin::Zero, &mut together);
        for (x, want) in x.chunks(k).zip(together.chunks(n)) {
            let mut alone = vec![0.0; n];
            panels.multiply(x, Begin::Zero, &mut alone);
            assert_eq!(alone, want);
        }
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            let mut shared = vec![0.0; m * n];
            pool.install(|| panels.multiply_in_parallel(&x, Begin::Zero, &mut shared));
            assert_eq!(shared, together);
        }
    }

    #[test]
    #[should_panic(expected = "rows of length 3")]
    fn rows_that_do_not_fit_are_refused() {
        PrepackedMatrix::new(&[0.0; 6], (3, 2), Layout::Plain).multiply(&[0.0; 4], Begin::Zero, &mut [0.0; 2]);
    }
}
