//! Products of numbers rounded to bfloat16, summed in float32: by Intel's AMX tiles where the processor has them, else by AVX-512's dot
//! products of pairs, else in plain code.
//!
//! The right side is packed once, in tiles of 32 steps of the depth by 32 columns, neighbouring steps side by side as dot products read
//! them. Tiles and plain code sum even and odd ones of 32 steps apart, then both join the sum; AVX-512 adds pair after pair. So the last
//! bits are the processor's, and on one processor the order is the same whatever the rows beside and the number of threads.
//!
//! Sources: Intel Architecture Instruction Set Extensions, chapter 3 (TDPBF16PS); Intel 64 and IA-32 Architectures Software Developer's
//! Manual, volume 2 (VDPBF16PS).

#![expect(
    unsafe_code,
    reason = "tile instructions are assembly, which reads and writes by pointer; lengths are checked first"
)]

use rayon::prelude::*;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::kernels::amx;
use crate::kernels::{elementwise::wide, prepacked::Begin, product::Layout};

/// Rows, columns and steps of the depth that are worked on together: four tiles of sums.
const BLOCK: usize = 32;
/// Rows that pass all columns before the next do: they stay in the second cache.
const GROUP: usize = 8 * BLOCK;

/// The nearest bfloat16, to even where two are as near.
#[inline(always)]
fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        // Rounding could make an infinity of it.
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Two numbers as the two halves of a word, the first one low.
#[inline(always)]
fn pair(a: f32, b: f32) -> u32 {
    u32::from(round(a)) | u32::from(round(b)) << 16
}

/// 16 pairs in a line of the cache: a row of a tile that lay across two would take twice as long.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([u32; BLOCK / 2]);

/// 32 steps of the depth by 32 columns, shape `(16 pairs of steps, 32 columns)`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Block([[u32; BLOCK]; BLOCK / 2]);

const EMPTY: Block = Block([[0; BLOCK]; BLOCK / 2]);

/// 32 rows of 32 sums.
#[repr(C, align(64))]
struct Sums([[f32; BLOCK]; BLOCK]);

/// The right side of a product.
#[derive(Debug, Clone, Default)]
pub struct Bfloat16Matrix {
    /// All steps of 32 columns before the next columns.
    blocks: Vec<Block>,
    depth: usize,
    columns: usize,
}

/// The left side: rows of pairs, filled up with zeros to whole blocks. All steps of 32 rows come before the next rows, and a step's 32 lines
/// lie side by side, so that they are read in the order of memory.
#[derive(Debug, Default)]
pub struct Bfloat16Rows {
    lines: Vec<Line>,
    /// Lines of a row.
    steps: usize,
    rows: usize,
    depth: usize,
}

impl Bfloat16Rows {
    /// Empty room for so many rows of so many numbers.
    fn clear(&mut self, rows: usize, depth: usize) {
        (self.rows, self.depth, self.steps) = (rows, depth, depth.div_ceil(BLOCK));
        self.lines
            .resize(rows.next_multiple_of(BLOCK) * self.steps, Line::default());
        // Whatever is not written over below.
        let filling = rows / BLOCK * BLOCK * self.steps;
        self.lines[filling..].fill(Line::default());
    }

    /// Packs `x`, rows of length `depth`, on all threads, in the room of others.
    ///
    /// # Panics
    ///
    /// If it does not consist of whole rows.
    pub fn pack(&mut self, x: &[f32], depth: usize) {
        assert_eq!(x.len() % depth, 0, "rows of {depth}");
        self.clear(x.len() / depth, depth);
        self.lines
            .par_chunks_mut(BLOCK * self.steps)
            .zip(x.par_chunks(BLOCK * depth))
            .for_each(|(lines, rows)| fill_lines(lines, rows, depth));
    }

    /// The same on one thread.
    ///
    /// # Panics
    ///
    /// If it does not consist of whole rows.
    pub(super) fn pack_alone(&mut self, x: &[f32], depth: usize) {
        assert_eq!(x.len() % depth, 0, "rows of {depth}");
        self.clear(x.len() / depth, depth);
        let lines = self.lines.chunks_mut(BLOCK * self.steps);
        for (lines, rows) in lines.zip(x.chunks(BLOCK * depth)) {
            fill_lines(lines, rows, depth);
        }
    }

    /// Packs the columns of `x`, `depth` rows, as rows.
    fn pack_transposed(&mut self, x: &[f32], depth: usize) {
        let columns = x.len() / depth;
        self.clear(columns, depth);
        let half = BLOCK / 2;
        self.lines
            .par_chunks_mut(BLOCK * self.steps)
            .enumerate()
            .for_each(|(i, lines)| {
                let rows = i * BLOCK..((i + 1) * BLOCK).min(columns);
                for (pair_of, two) in x.chunks(2 * columns).enumerate() {
                    let (even, odd) = two.split_at(columns);
                    let (step, place) = (pair_of / half, pair_of % half);
                    for (line, c) in lines[step * BLOCK..].iter_mut().zip(rows.clone()) {
                        let odd = odd.get(c).copied().unwrap_or(0.0);
                        line.0[place] = pair(even[c], odd);
                    }
                }
                // The last line of a row may have been another's.
                if !depth.is_multiple_of(BLOCK) {
                    let from = (depth % BLOCK).div_ceil(2);
                    let last = (self.steps - 1) * BLOCK;
                    lines[last..].iter_mut().for_each(|line| line.0[from..].fill(0));
                }
            });
    }

    /// 32 rows, a line each for every step.
    fn block(&self, i: usize) -> &[Line] {
        &self.lines[i * BLOCK * self.steps..][..BLOCK * self.steps]
    }
}

/// Lines of at most 32 rows of length `depth`.
fn fill_lines(lines: &mut [Line], rows: &[f32], depth: usize) {
    for (r, row) in rows.chunks_exact(depth).enumerate() {
        for (step, from) in row.chunks(BLOCK).enumerate() {
            fill_line(&mut lines[step * BLOCK + r].0, from);
        }
    }
}

/// Pairs of at most 32 numbers.
#[inline(always)]
fn fill_line(to: &mut [u32; BLOCK / 2], from: &[f32]) {
    if let Some(whole) = from.first_chunk::<BLOCK>() {
        wide(
            #[inline(always)]
            || {
                for (to, two) in to.iter_mut().zip(whole.as_chunks::<2>().0) {
                    *to = pair(two[0], two[1]);
                }
            },
        );
        return;
    }
    for (i, to) in to.iter_mut().enumerate() {
        let number = |i: usize| from.get(i).copied().unwrap_or(0.0);
        *to = pair(number(2 * i), number(2 * i + 1));
    }
}

impl Bfloat16Matrix {
    /// Packs `matrix`, which, read in its layout, has shape `(depth, columns)`, on all threads, in the room of another.
    ///
    /// # Panics
    ///
    /// If it has not so many numbers, or none.
    pub fn prepack(&mut self, matrix: &[f32], (depth, columns): (usize, usize), layout: Layout) {
        assert!(
            depth * columns > 0 && matrix.len() == depth * columns,
            "blocks of {depth} x {columns}: {} numbers",
            matrix.len()
        );
        (self.depth, self.columns) = (depth, columns);
        let steps = depth.div_ceil(BLOCK);
        self.blocks.resize(columns.div_ceil(BLOCK) * steps, EMPTY);
        self.blocks.par_chunks_mut(steps).enumerate().for_each(|(j, blocks)| {
            let first = j * BLOCK;
            let count = BLOCK.min(columns - first);
            for (k, block) in blocks.iter_mut().enumerate() {
                if count < BLOCK || (k + 1) * BLOCK > depth {
                    *block = EMPTY;
                }
                match layout {
                    Layout::Plain => {
                        let rows = &matrix[k * BLOCK * columns..((k + 1) * BLOCK).min(depth) * columns];
                        fill_from_rows(block, rows, columns, first, count);
                    }
                    Layout::Transposed => {
                        let (from, to) = (k * BLOCK, ((k + 1) * BLOCK).min(depth));
                        for c in 0..count {
                            let row = &matrix[(first + c) * depth..][from..to];
                            fill_column(block, c, row);
                        }
                    }
                }
            }
        });
    }

    /// `out += uᵀ b`, `u` of shape `(depth, rows)`, packed in `left`, `out` of shape `(rows, columns)`; on all threads.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn add_transposed_in_parallel(&self, u: &[f32], left: &mut Bfloat16Rows, out: &mut [f32]) {
        left.pack_transposed(u, self.depth);
        sum_of_products(&[(left, self)], Begin::There, out);
    }

    /// All steps of 32 columns, the first of them `first`.
    fn blocks(&self, first: usize) -> &[Block] {
        let steps = self.depth.div_ceil(BLOCK);
        &self.blocks[first / BLOCK * steps..][..steps]
    }
}

/// `out = begin + Σ x b`: every `x` of shape `(rows, depth)`, every `b` of shape `(depth, columns)` with a depth of its own, `out` of shape
/// `(rows, columns)`, row-major; on all threads. Terms are added in their order.
///
/// # Panics
///
/// If the shapes do not fit, or there is no term.
pub fn sum_of_products(terms: &[(&Bfloat16Rows, &Bfloat16Matrix)], begin: Begin<'_>, out: &mut [f32]) {
    let (rows, columns) = (terms[0].0.rows, terms[0].1.columns);
    for (x, b) in terms {
        assert!(
            x.rows == rows && b.columns == columns && x.depth == b.depth && out.len() == rows * columns,
            "{rows} x {columns} products of {} x {} with {} x {}: {} numbers",
            x.rows,
            x.depth,
            b.depth,
            b.columns,
            out.len()
        );
    }
    if out.is_empty() {
        return;
    }
    // Two shares a thread, so that one which is held up hands some on. Where columns are more they are cut, and every thread reads its own
    // columns and all rows; else the other way round.
    let shares = 2 * rayon::current_num_threads();
    if columns > rows {
        let share = columns.div_ceil(shares).next_multiple_of(BLOCK);
        let mut parts: Vec<Vec<&mut [f32]>> = Vec::new();
        parts.resize_with(columns.div_ceil(share), Vec::new);
        for row in out.chunks_exact_mut(columns) {
            for (part, columns) in parts.iter_mut().zip(row.chunks_mut(share)) {
                part.push(columns);
            }
        }
        parts
            .into_par_iter()
            .enumerate()
            .for_each(|(i, mut out)| sum_of_blocks(terms, 0, begin, &mut out, i * share));
    } else {
        let share = rows.div_ceil(shares).next_multiple_of(BLOCK);
        out.par_chunks_mut(share * columns).enumerate().for_each(|(i, out)| {
            let mut out: Vec<&mut [f32]> = out.chunks_exact_mut(columns).collect();
            for (g, out) in out.chunks_mut(GROUP).enumerate() {
                sum_of_blocks(terms, (i * share + g * GROUP) / BLOCK, begin, out, 0);
            }
        });
    }
}

/// `out = bias + x b`, as [`sum_of_products`], on one thread.
///
/// # Panics
///
/// If the shapes do not fit.
pub(super) fn product_alone(x: &Bfloat16Rows, b: &Bfloat16Matrix, bias: &[f32], out: &mut [f32]) {
    assert!(
        x.depth == b.depth && bias.len() == b.columns && out.len() == x.rows * b.columns,
        "{} x {} by {} x {}: {} numbers",
        x.rows,
        x.depth,
        b.depth,
        b.columns,
        out.len()
    );
    let mut out: Vec<&mut [f32]> = out.chunks_exact_mut(b.columns).collect();
    for (g, out) in out.chunks_mut(GROUP).enumerate() {
        sum_of_blocks(&[(x, b)], g * GROUP / BLOCK, Begin::Row(bias), out, 0);
    }
}

/// Some of the sum's rows and columns, on one thread: rows from a block of 32 on, columns from `first` on, as many as `out` has.
fn sum_of_blocks(
    terms: &[(&Bfloat16Rows, &Bfloat16Matrix)],
    block: usize,
    begin: Begin<'_>,
    out: &mut [&mut [f32]],
    first: usize,
) {
    let width = out[0].len();
    let kernel = Kernel::get();
    kernel.begin();
    let mut sums = Sums([[0.0; BLOCK]; BLOCK]);
    for at in (0..width).step_by(BLOCK) {
        let count = BLOCK.min(width - at);
        let begin = begin_from(begin, first + at);
        for (i, out) in out.chunks_mut(BLOCK).enumerate() {
            for (t, (x, b)) in terms.iter().enumerate() {
                kernel.multiply(x.block(block + i), b.blocks(first + at), t > 0, &mut sums);
            }
            wide(
                #[inline(always)]
                || {
                    for (out, sums) in out.iter_mut().zip(&sums.0) {
                        write_row(&mut out[at..at + count], sums, begin);
                    }
                },
            );
        }
    }
    kernel.end();
}

/// What the columns from `first` on begin with.
fn begin_from(begin: Begin<'_>, first: usize) -> Begin<'_> {
    match begin {
        Begin::Row(row) => Begin::Row(&row[first..]),
        other => other,
    }
}

/// Some sums of a row into their places.
#[inline(always)]
fn write_row(out: &mut [f32], sums: &[f32; BLOCK], begin: Begin<'_>) {
    // Whole lines apart, so that the compiler knows their length.
    if let Some(out) = out.first_chunk_mut::<BLOCK>() {
        match begin {
            Begin::Zero => *out = *sums,
            Begin::There => {
                for j in 0..BLOCK {
                    out[j] += sums[j];
                }
            }
            Begin::Row(row) => {
                let row: &[f32; BLOCK] = row.first_chunk().expect("a row as long as the sums");
                for j in 0..BLOCK {
                    out[j] = row[j] + sums[j];
                }
            }
        }
        return;
    }
    match begin {
        Begin::Zero => out.copy_from_slice(&sums[..out.len()]),
        Begin::There => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
        Begin::Row(row) => {
            for ((out, sum), begin) in out.iter_mut().zip(sums).zip(row) {
                *out = begin + sum;
            }
        }
    }
}

/// A block from rows of length `columns`, of which it takes `count` columns from `first` on.
fn fill_from_rows(block: &mut Block, rows: &[f32], columns: usize, first: usize, count: usize) {
    wide(
        #[inline(always)]
        || {
            for (to, two) in block.0.iter_mut().zip(rows.chunks(2 * columns)) {
                let (even, odd) = two.split_at(columns);
                let (to, even) = (&mut to[..count], &even[first..first + count]);
                if odd.is_empty() {
                    to.iter_mut().zip(even).for_each(|(to, a)| *to = pair(*a, 0.0));
                } else {
                    for ((to, a), b) in to.iter_mut().zip(even).zip(&odd[first..first + count]) {
                        *to = pair(*a, *b);
                    }
                }
            }
        },
    );
}

/// Column `c` of a block from its steps.
#[inline(always)]
fn fill_column(block: &mut Block, c: usize, steps: &[f32]) {
    let mut pairs = [0; BLOCK / 2];
    fill_line(&mut pairs, steps);
    for (row, pair) in block.0.iter_mut().zip(pairs) {
        row[c] = pair;
    }
}

/// How a block of sums is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
}

/// Which of the kernels this machine has, since their last bits differ.
pub(super) fn kernel_class() -> &'static str {
    match Kernel::get() {
        Kernel::Plain => "plain",
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 => "pairs",
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Kernel::Amx => "tiles",
    }
}

impl Kernel {
    /// The best first.
    const ALL: &[Self] = &[
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Self::Amx,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
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
            Self::Avx512 => avx512::is_there(),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => amx::multiplies_bfloat16(),
        }
    }

    /// Before the first product of a thread's share.
    fn begin(self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self == Self::Amx {
            amx::configure();
        }
    }

    /// After the last: tiles in use slow every switch between threads.
    fn end(self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self == Self::Amx {
            amx::release();
        }
    }

    /// The products of 32 rows with 32 columns, in place of the sums or added to them: `left` has 32 lines, a row each, for each block.
    fn multiply(self, left: &[Line], blocks: &[Block], add: bool, sums: &mut Sums) {
        assert_eq!(left.len(), BLOCK * blocks.len(), "rows as deep as the blocks");
        match self {
            Self::Plain => plain(left, blocks, add, sums),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::multiply(left, blocks, add, sums),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => tiles::multiply(left, blocks, add, sums),
        }
    }
}

/// The same in plain code.
fn plain(left: &[Line], blocks: &[Block], add: bool, sums: &mut Sums) {
    let low = |pair: u32| f32::from_bits(pair << 16);
    let high = |pair: u32| f32::from_bits(pair & 0xffff_0000);
    wide(
        #[inline(always)]
        || {
            for (r, sums) in sums.0.iter_mut().enumerate() {
                if !add {
                    *sums = [0.0; BLOCK];
                }
                for (Line(pairs), Block(block)) in left[r..].iter().step_by(BLOCK).zip(blocks) {
                    let (mut even, mut odd) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
                    for (&a, right) in pairs.iter().zip(block) {
                        let (a, b) = (low(a), high(a));
                        for j in 0..BLOCK {
                            even[j] = f32::mul_add(a, low(right[j]), even[j]);
                            odd[j] = f32::mul_add(b, high(right[j]), odd[j]);
                        }
                    }
                    for j in 0..BLOCK {
                        sums[j] += even[j] + odd[j];
                    }
                }
            }
        },
    );
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    //! Vectors of 16 pairs: each adds the products of both numbers of a pair to a sum.

    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::{BLOCK, Block, Line, Sums};

    /// Rows that are worked on together: 16 vectors of sums, half of all there are.
    const ROWS: usize = 8;

    pub(super) fn is_there() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
    }

    pub(super) fn multiply(left: &[Line], blocks: &[Block], add: bool, sums: &mut Sums) {
        // SAFETY: the processor has the features (`is_there`).
        unsafe { multiply_rows(left, blocks, add, sums) }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn multiply_rows(left: &[Line], blocks: &[Block], add: bool, sums: &mut Sums) {
        for (r, sums) in sums.0.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
            let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
            if add {
                for (acc, sums) in acc.iter_mut().zip(&*sums) {
                    *acc = load(sums);
                }
            }
            for (lines, Block(block)) in left.as_chunks::<BLOCK>().0.iter().zip(blocks) {
                let lines: &[Line; ROWS] = lines[r * ROWS..].first_chunk().expect("32 lines");
                for (p, right) in block.iter().enumerate() {
                    let [b, c] = columns(right);
                    for (acc, Line(pairs)) in acc.iter_mut().zip(lines) {
                        let a = pairs_of(_mm512_set1_epi32(pairs[p].cast_signed()));
                        *acc = [_mm512_dpbf16_ps(acc[0], a, b), _mm512_dpbf16_ps(acc[1], a, c)];
                    }
                }
            }
            for (sums, [low, high]) in sums.iter_mut().zip(acc) {
                // SAFETY: 16 numbers from the front on, and 16 from the middle on, of 32.
                unsafe {
                    _mm512_storeu_ps(sums.as_mut_ptr(), low);
                    _mm512_storeu_ps(sums[BLOCK / 2..].as_mut_ptr(), high);
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn load(sums: &[f32; BLOCK]) -> [__m512; 2] {
        // SAFETY: 16 numbers from the front on, and 16 from the middle on, of 32.
        unsafe {
            [
                _mm512_loadu_ps(sums.as_ptr()),
                _mm512_loadu_ps(sums[BLOCK / 2..].as_ptr()),
            ]
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn columns(pairs: &[u32; BLOCK]) -> [__m512bh; 2] {
        // SAFETY: 16 pairs from the front on, and 16 from the middle on, of 32.
        unsafe {
            [
                pairs_of(_mm512_loadu_si512(pairs.as_ptr().cast())),
                pairs_of(_mm512_loadu_si512(pairs[BLOCK / 2..].as_ptr().cast())),
            ]
        }
    }

    /// The same bits as pairs of numbers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn pairs_of(bits: __m512i) -> __m512bh {
        // SAFETY: both are 64 bytes, of which every pattern is one.
        unsafe { std::mem::transmute(bits) }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles {
    use std::arch::asm;

    use super::{Block, Line, Sums};

    /// Tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 columns.
    pub(super) fn multiply(left: &[Line], blocks: &[Block], add: bool, sums: &mut Sums) {
        // SAFETY: `left` has 32 lines of 64 bytes for each block (the caller checked it); each block has 16 rows of 128 bytes; `sums` has 32
        // rows of 128 bytes. The thread's tiles are configured.
        unsafe {
            asm!(
                "test {add:e}, {add:e}", "jz 3f",
                "tileloadd tmm0, [{sums} + {width}*1]",
                "tileloadd tmm1, [{sums} + {width}*1 + 64]",
                "tileloadd tmm2, [{sums} + {width}*1 + 2048]",
                "tileloadd tmm3, [{sums} + {width}*1 + 2112]",
                "jmp 2f",
                "3:",
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{left} + {line}*1]",
                "tileloadd tmm6, [{block} + {width}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{block} + {width}*1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{left} + {line}*1 + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {left}, 2048", "add {block}, 2048",
                "dec {count}", "jnz 2b",
                "tilestored [{sums} + {width}*1], tmm0",
                "tilestored [{sums} + {width}*1 + 64], tmm1",
                "tilestored [{sums} + {width}*1 + 2048], tmm2",
                "tilestored [{sums} + {width}*1 + 2112], tmm3",
                left = inout(reg) left.as_ptr() => _,
                block = inout(reg) blocks.as_ptr() => _,
                count = inout(reg) blocks.len() => _,
                sums = in(reg) &raw mut *sums,
                add = in(reg) u32::from(add),
                line = in(reg) 64usize,
                width = in(reg) 128usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
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

    fn rounded(numbers: &[f32]) -> Vec<f32> {
        numbers
            .iter()
            .map(|&x| f32::from_bits(u32::from(round(x)) << 16))
            .collect()
    }

    #[test]
    fn rounding_is_to_the_nearest_and_to_even() {
        // One bit of bfloat16 above 1 is 1 + 1/128.
        for (x, want) in [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 2.0 / 128.0),
            (1.0 + 1.01 / 256.0, 1.0 + 1.0 / 128.0),
            (-2.5, -2.5),
            (f32::INFINITY, f32::INFINITY),
        ] {
            assert_eq!(f32::from_bits(u32::from(round(x)) << 16), want);
        }
        assert!(f32::from_bits(u32::from(round(f32::from_bits(0x7f80_0001))) << 16).is_nan());
    }

    #[test]
    fn every_shape_layout_and_beginning_agrees_with_the_product_of_rounded_numbers() {
        for (m, k, n) in [
            (0, 3, 2),
            (1, 1, 1),
            (5, 3, 2),
            (32, 32, 32),
            (33, 65, 70),
            (300, 96, 64),
            (131, 40, 200),
        ] {
            let (x, b, bias) = (numbers(m * k, 0.1), numbers(k * n, 0.7), numbers(n, 0.3));
            for layout in [Layout::Plain, Layout::Transposed] {
                // In the room of another that was larger.
                let mut packed = Bfloat16Matrix::default();
                packed.prepack(&vec![7.0; 90 * 400], (90, 400), Layout::Plain);
                packed.prepack(&b, (k, n), layout);
                let begun: Vec<f32> = bias.iter().copied().cycle().take(m * n).collect();
                for (begin, from) in [
                    (Begin::Zero, vec![0.0; m * n]),
                    (Begin::Row(&bias), begun),
                    (Begin::There, numbers(m * n, 0.9)),
                ] {
                    let (mut want, mut out) = (from, numbers(m * n, 0.9));
                    product(
                        &mut want,
                        (m, k, n),
                        &rounded(&x),
                        Layout::Plain,
                        &rounded(&b),
                        layout,
                        1.0,
                    );
                    let mut rows = Bfloat16Rows::default();
                    rows.pack(&vec![7.0; 90 * 400], 400);
                    rows.pack(&x, k);
                    sum_of_products(&[(&rows, &packed)], begin, &mut out);
                    for (i, (out, want)) in out.iter().zip(&want).enumerate() {
                        assert!(
                            (out - want).abs() < 1e-4,
                            "({m}, {k}, {n}) {layout:?}, {i}: {out} {want}"
                        );
                    }
                }
            }
            let u = numbers(k * m, 0.4);
            let mut packed = Bfloat16Matrix::default();
            packed.prepack(&b, (k, n), Layout::Plain);
            let mut want = numbers(m * n, 0.9);
            let mut out = want.clone();
            product(
                &mut want,
                (m, k, n),
                &rounded(&u),
                Layout::Transposed,
                &rounded(&b),
                Layout::Plain,
                1.0,
            );
            let mut left = Bfloat16Rows::default();
            left.pack(&vec![7.0; 90 * 400], 400);
            packed.add_transposed_in_parallel(&u, &mut left, &mut out);
            for (i, (out, want)) in out.iter().zip(&want).enumerate() {
                assert!(
                    (out - want).abs() < 1e-4,
                    "({m}, {k}, {n}) transposed, {i}: {out} {want}"
                );
            }
        }
    }

    #[test]
    fn a_sum_of_products_of_different_depths_is_that_of_the_products() {
        for (rows, columns) in [(3, 70), (100, 40)] {
            let (mut left, mut other) = (Bfloat16Rows::default(), Bfloat16Rows::default());
            left.pack(&numbers(rows * 70, 0.2), 70);
            other.pack(&numbers(rows * 3, 0.5), 3);
            let (mut b, mut c) = (Bfloat16Matrix::default(), Bfloat16Matrix::default());
            b.prepack(&numbers(70 * columns, 0.3), (70, columns), Layout::Plain);
            c.prepack(&numbers(3 * columns, 0.6), (3, columns), Layout::Plain);
            let mut want = numbers(rows * columns, 0.9);
            let mut out = want.clone();
            sum_of_products(&[(&left, &b)], Begin::There, &mut want);
            sum_of_products(&[(&other, &c)], Begin::There, &mut want);
            sum_of_products(&[(&left, &b), (&other, &c)], Begin::There, &mut out);
            for (i, (out, want)) in out.iter().zip(&want).enumerate() {
                assert!((out - want).abs() < 1e-5, "({rows}, {columns}), {i}: {out} {want}");
            }
        }
    }

    #[test]
    fn plain_code_gives_what_the_processors_instructions_give() {
        let mut left = Bfloat16Rows::default();
        left.pack(&numbers(32 * 96, 0.2), 96);
        let block = |k: usize| {
            let number = |p: usize, j: usize| ((p * 31 + j) as f32 * 0.7 + k as f32).sin();
            Block(std::array::from_fn(|p| {
                std::array::from_fn(|j| pair(number(p, j), number(j, p)))
            }))
        };
        let blocks: Vec<Block> = (0..3).map(block).collect();
        let sums_by = |kernel: Kernel| {
            let mut sums = Sums([[2.0; 32]; 32]);
            kernel.begin();
            kernel.multiply(left.block(0), &blocks, false, &mut sums);
            kernel.multiply(left.block(0), &blocks, true, &mut sums);
            kernel.end();
            sums.0
        };
        let plain = sums_by(Kernel::Plain);
        for &kernel in Kernel::ALL.iter().filter(|kernel| kernel.is_there()) {
            for (a, b) in plain.as_flattened().iter().zip(sums_by(kernel).as_flattened()) {
                assert!((a - b).abs() <= 1e-6 * (1.0 + a.abs()), "{kernel:?}: {a} {b}");
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (x, b) = (numbers(300 * 70, 0.1), numbers(70 * 100, 0.7));
        let mut packed = Bfloat16Matrix::default();
        packed.prepack(&b, (70, 100), Layout::Plain);
        let with = |threads: usize, rows: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            let mut out = vec![0.0; rows * 100];
            pool.install(|| {
                let mut left = Bfloat16Rows::default();
                left.pack(&x[..rows * 70], 70);
                sum_of_products(&[(&left, &packed)], Begin::Zero, &mut out);
            });
            out
        };
        for rows in [300, 40] {
            assert_eq!(with(1, rows), with(3, rows));
        }
        assert_eq!(with(2, 40), with(2, 300)[..4000]);
    }
}
