//! Ridge regression on one-hot targets, in closed form, from sums that can be added.
//!
//! The rows taken enter only through their [`SufficientStatistics`]: the number of items n, Σx, Σxxᵀ, Σyxᵀ and Σy. The intercept is not
//! penalised; it is eliminated exactly by centring on the rows taken:
//!
//! ```text
//! A = Σxxᵀ − Σx Σxᵀ/n + λI        W = (Σyxᵀ − Σy Σxᵀ/n) A⁻¹        b = (Σy − W Σx)/n
//! ```
//!
//! so a model costs one Cholesky factorisation of a `(width, width)` matrix (faer, in place, one thread, `f32`). Scores
//! `W x + b` become probabilities by a softmax with a temperature. No rows at all give W = 0, b = 0: every answer is
//! equally probable.
//!
//! Precision: products of up to 1,024 rows are summed in `f32`, blocks of them in `f64`; [`ProbeData`] features are centred and
//! scaled to mean square 1, so nothing large cancels. Where the `f32` factorisation meets a pivot that is not positive, the same
//! system is solved in `f64`. The example `probe_precision` measures what is left of the error on real embeddings.
//!
//! Source: Hoerl & Kennard 1970 (ridge); Hastie, Tibshirani, Friedman, section 4.2 (regression on indicators).

use faer::{
    Accum, MatMut, MatRef, Par,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{
        cholesky::llt,
        matmul::triangular::{BlockStructure, matmul},
    },
    traits::RealField,
};
use rayon::prelude::*;
use tamis_nn::{
    Matrix,
    kernels::product::{Layout, product},
};

use crate::{
    Error, Result,
    data::RowId,
    linalg::JITTERS,
    metrics::{Metric, MetricKind, row_losses},
    scorer::ridge::probe_data::ProbeData,
    vectors::blocks,
};

/// Rows whose products are summed in `f32`.
const BLOCK: usize = 1024;
/// Items that are scored together.
const SCORED: usize = 4096;
/// Groups whose sums are in memory at once.
const GROUPS_A_WAVE: usize = 64;
/// Blocks that one thread sums in a row; fixed, so that the number of threads does not change the sums.
const BLOCKS_A_GROUP: usize = 8;

/// All that ridge regression needs to know of a set of rows; moments of disjoint sets add.
#[derive(Debug, Clone, PartialEq)]
pub struct SufficientStatistics {
    width: usize,
    outputs: usize,
    /// The number of items.
    count: f64,
    /// Σxxᵀ, the lower triangle packed by columns; then Σx, shape `(width,)`; Σyxᵀ, `(outputs, width)`; Σy, `(outputs,)`.
    sums: Vec<f32>,
}

/// Room for one evaluation, to be used again and again.
pub struct Scratch {
    /// The matrix to factor, column-major with columns `stride` apart.
    square: Vec<f32>,
    stride: usize,
    stack: MemBuffer,
    gathered: Vec<f32>,
    targets: Vec<f32>,
    /// Set where the factor is in `f64`, because `f32` did not do.
    double: Option<Vec<f64>>,
}

/// A trained probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Shape `(outputs, width)`.
    pub weights: Matrix,
    /// Shape `(outputs,)`.
    pub intercept: Vec<f32>,
}

/// The packed lower triangle of a square matrix has this many numbers.
fn packed(width: usize) -> usize {
    width * (width + 1) / 2
}

impl SufficientStatistics {
    /// The moments of no rows.
    pub fn empty(width: usize, outputs: usize) -> Self {
        let len = packed(width) + width + outputs * width + outputs;
        Self {
            width,
            outputs,
            count: 0.0,
            sums: vec![0.0; len],
        }
    }

    /// The moments of these examples. Many rows are shared out over threads in groups that do not depend on their number.
    ///
    /// # Errors
    ///
    /// If features cannot be read.
    pub fn of(design: &ProbeData, rows: &[RowId], scratch: &mut Scratch) -> Result<Self> {
        let (width, outputs) = (design.width(), design.outputs);
        if rows.len() <= BLOCK {
            let mut moments = Self::empty(width, outputs);
            moments.set_block(design, rows, scratch)?;
            return Ok(moments);
        }
        let mut total = vec![0.0; Self::empty(width, outputs).sums.len()];
        let mut count = 0.0;
        let sums_of = |group: &[RowId]| -> Result<(f64, Vec<f64>)> {
            let mut scratch = Scratch::new(width);
            let mut block = Self::empty(width, outputs);
            let mut sums = vec![0.0; block.sums.len()];
            let mut count = 0.0;
            for rows in group.chunks(BLOCK) {
                block.set_block(design, rows, &mut scratch)?;
                count += block.count;
                add_all(&mut sums, &block.sums);
            }
            Ok((count, sums))
        };
        for wave in rows.chunks(BLOCK * BLOCKS_A_GROUP * GROUPS_A_WAVE) {
            let groups = wave.par_chunks(BLOCK * BLOCKS_A_GROUP).map(sums_of);
            for (group_count, sums) in groups.collect::<Result<Vec<_>>>()? {
                count += group_count;
                add_all(&mut total, &sums);
            }
        }
        Ok(Self {
            width,
            outputs,
            count,
            sums: total.iter().map(|&x| x as f32).collect(),
        })
    }

    /// Overwrites with the moments of at most [`BLOCK`] examples.
    fn set_block(&mut self, design: &ProbeData, rows: &[RowId], scratch: &mut Scratch) -> Result<()> {
        let (d, outputs) = (self.width, self.outputs);
        scratch.gathered.clear();
        scratch.targets.clear();
        let mut items = Vec::with_capacity(rows.len());
        for &row in rows {
            items.extend(design.items_of(row as usize).map(|item| item as u32));
            design.push_one_hot(row as usize, &mut scratch.targets);
        }
        design.rows.gather_into(&items, &mut scratch.gathered)?;
        let x = &scratch.gathered;
        let n = x.len() / d.max(1);
        self.count = n as f64;
        // Row-major (n, d) is column-major (d, n).
        let columns = MatRef::from_column_major_slice(x, d, n);
        let stride = scratch.stride;
        matmul(
            MatMut::from_column_major_slice_with_stride_mut(&mut scratch.square, d, d, stride),
            BlockStructure::TriangularLower,
            Accum::Replace,
            columns,
            BlockStructure::Rectangular,
            columns.transpose(),
            BlockStructure::Rectangular,
            1.0,
            Par::Seq,
        );
        let (gram, rest) = self.sums.split_at_mut(packed(d));
        let mut at = 0;
        for j in 0..d {
            gram[at..at + d - j].copy_from_slice(&scratch.square[j * stride + j..j * stride + d]);
            at += d - j;
        }
        let (sum, rest) = rest.split_at_mut(d);
        let (cross, target_sum) = rest.split_at_mut(outputs * d);
        sum.fill(0.0);
        target_sum.fill(0.0);
        for (x, y) in x.chunks_exact(d).zip(scratch.targets.chunks_exact(outputs)) {
            add_all(sum, x);
            add_all(target_sum, y);
        }
        product(
            cross,
            (outputs, n, d),
            &scratch.targets,
            Layout::Transposed,
            x,
            Layout::Plain,
            0.0,
        );
        Ok(())
    }

    /// Adds the moments of further rows.
    ///
    /// # Panics
    ///
    /// If they are of another shape.
    pub fn add(&mut self, more: &Self) {
        assert_eq!(
            (self.width, self.outputs),
            (more.width, more.outputs),
            "moments of one shape add"
        );
        self.count += more.count;
        add_all(&mut self.sums, &more.sums);
    }

    /// Adds `weight` times the moments of further rows.
    #[cfg(test)]
    pub(crate) fn add_weighted(&mut self, more: &Self, weight: f32) {
        self.count += more.count * f64::from(weight);
        for (sum, &more) in self.sums.iter_mut().zip(&more.sums) {
            *sum += weight * more;
        }
    }

    /// The memory they take, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.sums.len() * size_of::<f32>()
    }

    /// The mean of the centred Gram matrix's diagonal: the natural unit of the ridge strength for these rows.
    pub fn mean_diagonal(&self) -> f64 {
        self.mean_diagonal_less(1.0 / self.count.max(1.0))
    }

    /// The mean of the diagonal of `Σxxᵀ` less `share` times `Σx Σxᵀ`.
    fn mean_diagonal_less(&self, share: f64) -> f64 {
        let (gram, sum) = (self.gram(), self.sum());
        let mut at = 0;
        let mut trace = 0.0;
        for (j, &s) in sum.iter().enumerate() {
            trace += f64::from(gram[at]) - f64::from(s) * f64::from(s) * share;
            at += self.width - j;
        }
        trace / self.width.max(1) as f64
    }

    fn gram(&self) -> &[f32] {
        &self.sums[..packed(self.width)]
    }

    /// Σx, shape `(width,)`.
    pub(crate) fn sum(&self) -> &[f32] {
        &self.sums[packed(self.width)..][..self.width]
    }

    fn cross(&self) -> &[f32] {
        &self.sums[packed(self.width) + self.width..][..self.outputs * self.width]
    }

    fn target_sum(&self) -> &[f32] {
        &self.sums[packed(self.width) + self.width * (1 + self.outputs)..]
    }

    /// The number of items, at least 1: what sums are divided by.
    pub(crate) fn divisor(&self) -> f32 {
        self.count.max(1.0) as f32
    }

    /// Factors `A` of the module's formula and leaves the factor in `scratch`, for [`Scratch::solve`]. Where the ridge is too weak for the
    /// rows there are, it is made stronger until `f64` can factor it.
    ///
    /// # Errors
    ///
    /// If the features hold NaN or infinities.
    pub fn factor(&self, ridge: f64, scratch: &mut Scratch) -> Result<()> {
        self.factor_less(1.0 / self.count.max(1.0), ridge, scratch)
    }

    /// Factors `Σxxᵀ + λI`, which is not centred, in the same way.
    ///
    /// # Errors
    ///
    /// As [`SufficientStatistics::factor`].
    pub(crate) fn factor_around_zero(&self, ridge: f64, scratch: &mut Scratch) -> Result<()> {
        self.factor_less(0.0, ridge, scratch)
    }

    /// Factors `Σxxᵀ + λI` less `share` times `Σx Σxᵀ`.
    fn factor_less(&self, share: f64, ridge: f64, scratch: &mut Scratch) -> Result<()> {
        let (d, stride) = (self.width, scratch.stride);
        scratch.double = None;
        self.gram_less(share, ridge, &mut scratch.square, stride, |x| x, |x| x as f32);
        if cholesky(&mut scratch.square, d, stride, &mut scratch.stack) {
            return Ok(());
        }
        let mut stack = MemBuffer::new(llt::factor::cholesky_in_place_scratch::<f64>(
            d,
            Par::Seq,
            Default::default(),
        ));
        let diagonal = self.mean_diagonal_less(share);
        let unit = if diagonal > 0.0 { diagonal } else { 1.0 };
        scratch.double = JITTERS.iter().find_map(|jitter| {
            let mut double = vec![0.0; d * stride];
            self.gram_less(share, ridge + jitter * unit, &mut double, stride, f64::from, |x| x);
            cholesky(&mut double, d, stride, &mut stack).then_some(double)
        });
        if scratch.double.is_none() {
            return Err(Error::NotFinite {
                place: "ridge probe".into(),
                found: format!(
                    "a Gram matrix of {} rows that cannot be factored with ridge {ridge:e}",
                    self.count
                ),
            });
        }
        Ok(())
    }

    /// Writes the lower triangle of the matrix that [`SufficientStatistics::factor_less`] factors.
    fn gram_less<T>(
        &self,
        share: f64,
        ridge: f64,
        out: &mut [T],
        stride: usize,
        up: impl Fn(f32) -> T,
        of: impl Fn(f64) -> T,
    ) where
        T: Copy + std::ops::Mul<Output = T> + std::ops::Sub<Output = T> + std::ops::AddAssign,
    {
        let (d, gram, sum) = (self.width, self.gram(), self.sum());
        let (share, ridge) = (of(share), of(ridge));
        let mut at = 0;
        for j in 0..d {
            let column = &mut out[j * stride + j..j * stride + d];
            let by = up(sum[j]) * share;
            for ((out, &g), &s) in column.iter_mut().zip(&gram[at..at + d - j]).zip(&sum[j..]) {
                *out = up(g) - by * up(s);
            }
            column[0] += ridge;
            at += d - j;
        }
    }

    /// The model, from the factor that [`SufficientStatistics::factor`] left in `scratch`.
    pub fn model(&self, scratch: &mut Scratch) -> Model {
        let (d, n) = (self.width, self.divisor());
        let (sum, targets) = (self.sum(), self.target_sum());
        let mut weights = Matrix::from_vec(self.cross().to_vec(), self.outputs, d);
        for (c, &target) in targets.iter().enumerate() {
            for (w, &s) in weights.row_mut(c).iter_mut().zip(sum) {
                *w -= s * (target / n);
            }
        }
        scratch.solve(weights.as_mut_slice(), d);
        let intercept = targets
            .iter()
            .zip(weights.iter_rows())
            .map(|(&t, w)| (t - dot(w, sum)) / n)
            .collect();
        Model { weights, intercept }
    }
}

impl Scratch {
    /// Room for evaluations of this width.
    pub fn new(width: usize) -> Self {
        // Columns that start a power of two apart fall into the same few cache lines; 8 more numbers were measured to be 5% faster.
        let stride = width.next_multiple_of(8) + 8;
        Self {
            square: vec![0.0; width * stride],
            stride,
            stack: MemBuffer::new(llt::factor::cholesky_in_place_scratch::<f32>(
                width,
                Par::Seq,
                Default::default(),
            )),
            gathered: Vec::new(),
            targets: Vec::new(),
            double: None,
        }
    }

    /// Overwrites each row of `right`, shape `(rows, width)`, by `A⁻¹` times it; `A` is what was factored last.
    pub fn solve(&self, right: &mut [f32], width: usize) {
        let rows = right.len() / width.max(1);
        if let Some(double) = &self.double {
            let mut wide: Vec<f64> = right.iter().map(|&x| f64::from(x)).collect();
            solve_factored(double, self.stride, &mut wide, width, rows);
            for (out, &x) in right.iter_mut().zip(&wide) {
                *out = x as f32;
            }
        } else {
            solve_factored(&self.square, self.stride, right, width, rows);
        }
    }
}

fn cholesky<T: RealField>(square: &mut [T], width: usize, stride: usize, stack: &mut MemBuffer) -> bool {
    let matrix = MatMut::from_column_major_slice_with_stride_mut(square, width, width, stride);
    let stack = MemStack::new(stack);
    llt::factor::cholesky_in_place(matrix, Default::default(), Par::Seq, stack, Default::default()).is_ok()
}

fn solve_factored<T: RealField>(square: &[T], stride: usize, right: &mut [T], width: usize, rows: usize) {
    llt::solve::solve_in_place(
        MatRef::from_column_major_slice_with_stride(square, width, width, stride),
        MatMut::from_column_major_slice_mut(right, width, rows),
        Par::Seq,
        MemStack::new(&mut []),
    );
}

impl Model {
    /// Trains on these examples.
    ///
    /// # Errors
    ///
    /// As [`SufficientStatistics::factor`], and if features cannot be read.
    pub fn fit(train: &ProbeData, rows: &[RowId], ridge: f64) -> Result<Self> {
        let mut scratch = Scratch::new(train.width());
        let moments = SufficientStatistics::of(train, rows, &mut scratch)?;
        Self::of(&moments, ridge, &mut scratch)
    }

    /// Trains on the examples that these moments are of.
    ///
    /// # Errors
    ///
    /// As [`SufficientStatistics::factor`].
    pub fn of(moments: &SufficientStatistics, ridge: f64, scratch: &mut Scratch) -> Result<Self> {
        moments.factor(ridge, scratch)?;
        Ok(moments.model(scratch))
    }

    /// Scores of a design's items, shape `(items, outputs)`, before any softmax.
    ///
    /// # Errors
    ///
    /// If features cannot be read.
    pub fn scores(&self, design: &ProbeData) -> Result<Matrix> {
        let (n, d, outputs) = (design.rows.count(), design.width(), design.outputs);
        let mut scores = Matrix::zeros(n, outputs);
        for block in blocks(n, SCORED) {
            let (from, rows) = (block.start, block.len());
            product(
                &mut scores.as_mut_slice()[from * outputs..(from + rows) * outputs],
                (rows, d, outputs),
                &design.rows.rows(block)?,
                Layout::Plain,
                self.weights.as_slice(),
                Layout::Transposed,
                0.0,
            );
        }
        for row in scores.as_mut_slice().chunks_exact_mut(outputs.max(1)) {
            add_all(row, &self.intercept);
        }
        Ok(scores)
    }

    /// The probability of each answer, shape `(examples, design.answers())`.
    ///
    /// # Errors
    ///
    /// If features cannot be read.
    pub fn probabilities(&self, design: &ProbeData, temperature: f64) -> Result<Matrix> {
        Ok(design.probabilities(self.scores(design)?.as_slice(), temperature))
    }

    /// The loss of each example's target, and how many targets are the most probable answers; of as many examples as there are, some at a
    /// time.
    ///
    /// # Errors
    ///
    /// If features cannot be read.
    pub fn losses(&self, design: &ProbeData, temperature: f64) -> Result<(Vec<f32>, u64)> {
        let (mut losses, mut right) = (Vec::with_capacity(design.examples()), 0);
        for block in blocks(design.examples(), SCORED) {
            let some = design.select(&(block.start as u32..block.end as u32).collect::<Vec<_>>())?;
            let probabilities = self.probabilities(&some, temperature)?;
            losses.extend(row_losses(&probabilities, &some.targets));
            let accuracy = Metric::hard(MetricKind::Accuracy).score(&probabilities, &some.targets);
            right += (accuracy * some.examples() as f64).round() as u64;
        }
        Ok((losses, right))
    }
}

/// How a probe is regularised, and how sure its probabilities are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strength {
    /// The ridge strength λ, absolute; greater than 0.
    pub ridge: f64,
    /// What scores are divided by before the softmax; greater than 0.
    pub temperature: f64,
}

/// Trains once on `rows` of `train` and scores every fold by every metric: `result[fold][metric]`, higher is better.
///
/// # Errors
///
/// As [`SufficientStatistics::factor`].
pub fn train_and_score(
    train: &ProbeData,
    rows: &[RowId],
    strength: Strength,
    folds: &[&ProbeData],
    metrics: &[Metric],
) -> Result<Vec<Vec<f64>>> {
    let model = Model::fit(train, rows, strength.ridge)?;
    let score = |fold: &&ProbeData| score(&model, strength.temperature, fold, metrics);
    folds.iter().map(score).collect()
}

/// A model's score on a fold by every metric; higher is better.
///
/// # Errors
///
/// If features cannot be read.
pub fn score(model: &Model, temperature: f64, fold: &ProbeData, metrics: &[Metric]) -> Result<Vec<f64>> {
    let probabilities = model.probabilities(fold, temperature)?;
    let scores = metrics.iter().map(|metric| metric.score(&probabilities, &fold.targets));
    Ok(scores.collect())
}

/// `sum += more`, element by element.
fn add_all<T, U>(sum: &mut [T], more: &[U])
where
    T: std::ops::AddAssign + From<U>,
    U: Copy,
{
    for (sum, &more) in sum.iter_mut().zip(more) {
        *sum += T::from(more);
    }
}

/// The scalar product, summed in eight lanes.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a_whole, b_whole) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_whole
        .remainder()
        .iter()
        .zip(b_whole.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (a, b) in a_whole.zip(b_whole) {
        for (lane, (x, y)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use rand::RngExt;

    use super::*;

    /// Random features of this width, three classes that depend on them.
    pub(crate) fn random_design(examples: usize, width: usize, seed: u64) -> ProbeData {
        let mut rng = tamis_nn::seed::Seed(seed).rng();
        let rows: Vec<f32> = (0..examples * width).map(|_| 2.0 * rng.random::<f32>() - 1.0).collect();
        let class = |x: &[f32]| {
            if x[0] + 0.3 * x[1] > 0.4 {
                2
            } else {
                u32::from(x[1] > 0.0)
            }
        };
        let targets = rows.chunks_exact(width).map(class).collect();
        ProbeData::new(
            Matrix::from_vec(rows, examples, width),
            (0..=examples as u32).collect(),
            targets,
            3,
        )
    }

    #[test]
    fn two_features_give_the_weights_worked_by_hand() {
        // Items (1, 0), (-1, 0), (0, 2), (0, -2), classes 0, 1, 0, 1, ridge 2. Σx = 0, so A = diag(2 + 2, 8 + 2).
        // Σyxᵀ of class 0 is (1, 2), of class 1 (-1, -2); W = [1/4, 2/10; -1/4, -2/10]; b = (1/2, 1/2).
        let rows = Matrix::from_vec(vec![1.0, 0.0, -1.0, 0.0, 0.0, 2.0, 0.0, -2.0], 4, 2);
        let design = ProbeData::new(rows, vec![0, 1, 2, 3, 4], vec![0, 1, 0, 1], 2);
        let model = Model::fit(&design, &[0, 1, 2, 3], 2.0).expect("fits");
        for (a, b) in model.weights.as_slice().iter().zip([0.25, 0.2, -0.25, -0.2]) {
            assert!((a - b).abs() < 1e-6, "{model:?}");
        }
        assert_eq!(model.intercept, [0.5, 0.5]);
        // Without the last row: n = 3, Σx = (0, 2), A = [2 + 2, 0; 0, 4 - 4/3 + 2] = diag(4, 14/3); Σy = (2, 1).
        // Class 0: R = (1, 2) - 2 (0, 2)/3 = (1, 2/3); W = (1/4, 1/7); b = (2 - 2/7)/3 = 4/7.
        let model = Model::fit(&design, &[0, 1, 2], 2.0).expect("fits");
        assert!((model.weights.row(0)[1] - 1.0 / 7.0).abs() < 1e-6, "{model:?}");
        assert!((model.intercept[0] - 4.0 / 7.0).abs() < 1e-6, "{model:?}");
    }

    #[test]
    fn no_rows_make_every_answer_equally_probable() {
        let design = random_design(5, 4, 1);
        let p = Model::fit(&design, &[], 1.0)
            .expect("fits")
            .probabilities(&design, 0.3)
            .expect("reads");
        assert!(p.as_slice().iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-6));
    }

    #[test]
    fn the_moments_of_parts_add_up_to_those_of_the_whole() {
        let design = random_design(2500, 19, 2);
        let mut scratch = Scratch::new(19);
        let rows: Vec<u32> = (0..2500).rev().collect();
        let whole = SufficientStatistics::of(&design, &rows, &mut scratch).expect("reads");
        let mut sum = SufficientStatistics::empty(19, 3);
        for part in rows.chunks(700) {
            sum.add(&SufficientStatistics::of(&design, part, &mut scratch).expect("reads"));
        }
        assert_eq!(whole.divisor(), sum.divisor());
        for (a, b) in whole.sums.iter().zip(&sum.sums) {
            assert!((a - b).abs() < 1e-2, "{a} is not {b}");
        }
        // The first number is Σ x₀².
        let naive: f64 = design
            .rows
            .to_matrix()
            .expect("reads")
            .iter_rows()
            .map(|x| f64::from(x[0]).powi(2))
            .sum();
        assert!((f64::from(whole.sums[0]) - naive).abs() < 1e-3);
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let design = random_design(20_000, 12, 3);
        let rows: Vec<u32> = (0..20_000).collect();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            pool.install(|| SufficientStatistics::of(&design, &rows, &mut Scratch::new(12)).expect("reads"))
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn nearly_equal_features_are_solved_as_well_as_in_f64() {
        // Column 2k + 1 is column 2k plus noise of 1e-4: the Gram matrix's condition is near 1e8, more than f32 holds.
        let (n, d) = (400, 24);
        let mut design = random_design(n, d, 4);
        let mut features = design.rows.to_matrix().expect("reads");
        let mut rng = tamis_nn::seed::Seed(9).rng();
        for i in 0..n {
            let row = features.row_mut(i);
            for k in 0..d / 2 {
                row[2 * k + 1] = row[2 * k] + 1e-4 * (rng.random::<f32>() - 0.5);
            }
        }
        design.rows = Arc::new(features);
        let rows: Vec<u32> = (0..n as u32).collect();
        let mut scratch = Scratch::new(d);
        let moments = SufficientStatistics::of(&design, &rows, &mut scratch).expect("reads");
        for ridge in [1.0, 1e-2, 1e-4] {
            moments.factor(ridge, &mut scratch).expect("factors");
            let single = moments.model(&mut scratch).probabilities(&design, 0.3).expect("reads");
            let mut double = vec![0.0; d * scratch.stride];
            let share = 1.0 / moments.count;
            moments.gram_less(share, ridge, &mut double, scratch.stride, f64::from, |x| x);
            let mut stack = MemBuffer::new(llt::factor::cholesky_in_place_scratch::<f64>(
                d,
                Par::Seq,
                Default::default(),
            ));
            assert!(cholesky(&mut double, d, scratch.stride, &mut stack));
            scratch.double = Some(double);
            let exact = moments.model(&mut scratch).probabilities(&design, 0.3).expect("reads");
            let worst = single
                .as_slice()
                .iter()
                .zip(exact.as_slice())
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 2e-2 * (1e-2 / ridge as f32).max(0.1), "ridge {ridge}: {worst}");
        }
    }

    #[test]
    fn what_f32_cannot_factor_f64_can_and_nonsense_is_an_error() {
        // [1 1; 1 1] + 1e-9: in f32 the second pivot is 0. Two rows (1, 1), (-1, -1) over √2 give this Gram matrix.
        let h = 0.5f32.sqrt();
        let design = |first| {
            ProbeData::new(
                Matrix::from_vec(vec![first, h, -h, -h], 2, 2),
                vec![0, 1, 2],
                vec![0, 1],
                2,
            )
        };
        let mut scratch = Scratch::new(2);
        let moments = SufficientStatistics::of(&design(h), &[0, 1], &mut scratch).expect("reads");
        moments.factor(1e-9, &mut scratch).expect("f64 does it");
        assert!(scratch.double.is_some());
        // W = (h, h)·1 / (1 + 1 + λ): half of it on each of two equal features.
        let model = moments.model(&mut scratch);
        assert!((model.weights.row(0)[0] - 0.5 * h).abs() < 1e-4, "{model:?}");
        let moments = SufficientStatistics::of(&design(f32::NAN), &[0, 1], &mut scratch).expect("reads");
        assert!(matches!(
            moments.factor(1.0, &mut scratch),
            Err(Error::NotFinite { .. })
        ));
    }
}
