//! Relevance: how much a row looks like one of the reward fold and not like one of the pool.
//!
//! Fisher's linear discriminant between the two:
//!
//! ```text
//! w = (S + λI)⁻¹ (mean of the fold − mean of the pool)      relevance of x = w·x
//! ```
//!
//! with S the covariance within the two and λ the mean of its diagonal. Of two Gaussians of one covariance, w·x is the logarithm of
//! their density ratio but for a constant. Where fold and pool are alike, w is noise; [`contrast`] says how far it is more.
//!
//! Sources: Fisher 1936; Bickel, Brückner & Scheffer 2009 (a classifier between two samples gives their density ratio);
//! Aharoni & Goldberg, arXiv 2004.02105, section 4 (training data chosen by a classifier that knows only which rows are of the
//! wanted domain). We differ from the last in one way: the classifier is linear and in closed form, on the embedder's vectors.

use faer::{Mat, Side, prelude::Solve};
use rand::seq::SliceRandom;
use tamis_nn::{
    Matrix,
    kernels::product::{Layout, product},
    seed::Seed,
};

use crate::{
    Error, Result,
    budget::{BudgetTracker, Limit},
    metrics::Metric,
    stats::ranking::{falling, sample},
    vectors::{VectorStore, blocks},
};

/// The most rows of either side that a discriminant is fitted on.
const MOST: usize = 20_000;

/// Rows that are read together.
const BLOCK: usize = 4096;

/// The least λ: what rounding makes of the covariance of unit vectors that are all alike. They have no other, and w is then the difference of
/// the means.
const LEAST_RIDGE: f64 = 1e-14;

/// The relevance of each row of the pool, shape `(rows,)`, only to be compared with each other; higher is more like the fold.
///
/// # Errors
///
/// If the vectors hold a number that is not finite, or cannot be read.
pub fn relevance(pool: &dyn VectorStore, fold: &Matrix, seed: Seed) -> Result<Vec<f32>> {
    let seed = seed.derive("relevance");
    let direction = discriminant(&drawn(pool, seed)?, &drawn(fold, seed)?)?;
    let mut relevance = Vec::with_capacity(pool.count());
    for block in blocks(pool.count(), BLOCK) {
        relevance.extend(along(&pool.rows(block)?, &direction));
    }
    Ok(relevance)
}

/// How far the fold differs from the pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contrast {
    /// How well rows of the fold are told from rows of the pool: the AUC, from 0.5 (alike) to 1 (nothing in common).
    pub domain_auc: f64,
    /// The share of the pool that is at least as relevant as the fold's median row: 0.5 where they are alike, less the more they differ.
    pub typical: f64,
}

/// How far the fold differs from the pool, by rows that no discriminant was fitted on: each half is judged by that of the other.
///
/// # Errors
///
/// If the vectors hold a number that is not finite, or cannot be read.
pub fn contrast(pool: &dyn VectorStore, fold: &Matrix, seed: Seed) -> Result<Contrast> {
    let seed = seed.derive("separability");
    let (pool, fold) = (halves(&drawn(pool, seed)?, seed), halves(&drawn(fold, seed)?, seed));
    if [&pool, &fold].iter().any(|halves| halves[1].rows() == 0) {
        return Ok(Contrast {
            domain_auc: 0.5,
            typical: 0.5,
        });
    }
    let (mut domain_auc, mut typical) = (0.0, 0.0);
    for (fitted, judged) in [(0, 1), (1, 0)] {
        let direction = discriminant(&pool[fitted], &fold[fitted])?;
        let [pool, mut fold] =
            [&pool, &fold].map(|halves| along(halves[judged].as_slice(), &direction).collect::<Vec<f32>>());
        let targets: Vec<u32> = (0..pool.len() + fold.len())
            .map(|i| u32::from(i >= pool.len()))
            .collect();
        let both = pool.iter().chain(&fold).flat_map(|&score| [-score, score]).collect();
        domain_auc += Metric::Auc.score(&Matrix::from_vec(both, targets.len(), 2), &targets) / 2.0;
        fold.sort_by(f32::total_cmp);
        let median = fold[fold.len() / 2];
        typical += pool.iter().filter(|&&score| score >= median).count() as f64 / pool.len() as f64 / 2.0;
    }
    Ok(Contrast { domain_auc, typical })
}

/// The rows by falling relevance, ties by number.
pub(crate) fn order(pool: &dyn VectorStore, fold: &Matrix, seed: Seed) -> Result<Vec<u32>> {
    Ok(falling(&relevance(pool, fold, seed)?))
}

/// The rows by falling relevance, ties by number, those behind all others that are doubted.
pub fn ranked(relevance: &[f32], doubted: &[bool]) -> Vec<u32> {
    let mut order = falling(relevance);
    order.sort_by_key(|&row| doubted[row as usize]);
    order
}

/// The first of [`ranked`] rows that the limit pays for, in ascending order, without those that cost more than all of it; `tokens[i]` is
/// what row `i` costs, and is read only where the limit is in tokens.
pub fn most_relevant(ranked: &[u32], tokens: &[u32], limit: Limit) -> Vec<u32> {
    let fits = |row: &u32| match limit {
        Limit::Rows(_) => true,
        Limit::Tokens(most) => u64::from(tokens[*row as usize]) <= most,
    };
    let mut purse = BudgetTracker::new(tokens, limit);
    purse.spend(ranked.iter().copied().filter(fits));
    purse.into_rows()
}

/// w, shape `(dim,)`; all 0 where a side has no rows.
fn discriminant(pool: &Matrix, fold: &Matrix) -> Result<Vec<f32>> {
    let dim = pool.cols();
    if pool.rows() == 0 || fold.rows() == 0 || dim == 0 {
        return Ok(vec![0.0; dim]);
    }
    let mut within = vec![0.0; dim * dim];
    let means = [pool, fold].map(|rows| {
        let mean = mean(rows);
        let mut centred = rows.clone();
        for row in centred.as_mut_slice().chunks_exact_mut(dim) {
            row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= *mean as f32);
        }
        let (x, shape) = (centred.as_slice(), (dim, rows.rows(), dim));
        product(&mut within, shape, x, Layout::Transposed, x, Layout::Plain, 1.0);
        mean
    });
    let rows = (pool.rows() + fold.rows()) as f64;
    let mut square = Mat::from_fn(dim, dim, |i, j| f64::from(within[i * dim + j]) / rows);
    let ridge = ((0..dim).map(|i| square[(i, i)]).sum::<f64>() / dim as f64).max(LEAST_RIDGE);
    (0..dim).for_each(|i| square[(i, i)] += ridge);
    let factor = square.llt(Side::Lower).map_err(|_| Error::NotFinite {
        place: "relevance of the pool's rows".into(),
        found: "a covariance that cannot be factored".into(),
    })?;
    let [pool, fold] = &means;
    let apart = Mat::from_fn(dim, 1, |i, _| fold[i] - pool[i]);
    let solved = factor.solve(&apart);
    Ok((0..dim).map(|i| solved[(i, 0)] as f32).collect())
}

/// The mean of the rows, shape `(dim,)`.
fn mean(rows: &Matrix) -> Vec<f64> {
    let mut sum = vec![0.0; rows.cols()];
    for row in rows.iter_rows() {
        sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    sum.iter_mut().for_each(|sum| *sum /= rows.rows() as f64);
    sum
}

/// w·x of each row; shape `(rows, dim)`.
fn along<'a>(rows: &'a [f32], direction: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    rows.chunks_exact(direction.len())
        .map(move |row| row.iter().zip(direction).map(|(x, w)| x * w).sum())
}

/// At most [`MOST`] of the rows, in their order.
fn drawn(rows: &dyn VectorStore, seed: Seed) -> Result<Matrix> {
    rows.gather(&sample(rows.count(), MOST, seed))
}

/// Two random halves; the second may have a row less.
fn halves(rows: &Matrix, seed: Seed) -> [Matrix; 2] {
    let mut order: Vec<u32> = (0..rows.rows() as u32).collect();
    order.shuffle(&mut seed.derive("halves").rng());
    let (first, second) = order.split_at(order.len().div_ceil(2));
    [rows.gather(first), rows.gather(second)]
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    /// Rows in a square around a place.
    fn around(centre: [f32; 2], rows: usize, seed: u64) -> Matrix {
        let mut rng = Seed(seed).rng();
        let rows_of = (0..rows).flat_map(|_| centre.map(|at| at + rng.random::<f32>() - 0.5));
        Matrix::from_vec(rows_of.collect(), rows, 2)
    }

    #[test]
    fn the_direction_is_that_of_the_formula() {
        // Pool (±1, 0), (0, ±2): mean 0, covariance sums diag(2, 8). Fold (3, 1), (1, 1): mean (2, 1), sums diag(2, 0).
        // S = diag(4, 8) / 6, λ = 1; w = (2 / (1 + 2/3), 1 / (1 + 4/3)) = (1.2, 3/7).
        let pool = Matrix::from_vec(vec![1.0, 0.0, -1.0, 0.0, 0.0, 2.0, 0.0, -2.0], 4, 2);
        let fold = Matrix::from_vec(vec![3.0, 1.0, 1.0, 1.0], 2, 2);
        let relevance = relevance(&pool, &fold, Seed(0)).expect("is finite");
        for (found, want) in relevance.iter().zip([1.2, -1.2, 6.0 / 7.0, -6.0 / 7.0]) {
            assert!((found - want).abs() < 1e-6, "{relevance:?}");
        }
        assert_eq!(order(&pool, &fold, Seed(0)).expect("is finite"), [0, 2, 3, 1]);
    }

    #[test]
    fn what_is_alike_is_told_by_chance_and_what_never_meets_for_sure() {
        let pool = around([0.0, 0.0], 2000, 1);
        let near = |place: [f32; 2], domain_auc: f64, typical: f64| {
            let found = contrast(&pool, &around(place, 1000, 2), Seed(3)).expect("is finite");
            assert!((found.domain_auc - domain_auc).abs() < 0.03, "{found:?}");
            assert!((found.typical - typical).abs() < 0.05, "{found:?}");
        };
        near([0.0, 0.0], 0.5, 0.5);
        // Two squares whose sides are apart by d: a row of the fold is above one of the pool along that side with probability 1 - (1 - d)²/2,
        // and the half - d of the pool is above the fold's middle.
        near([0.25, 0.0], 0.719, 0.25);
        near([0.5, 0.0], 0.875, 0.0);
        near([2.0, 0.0], 1.0, 0.0);
    }

    #[test]
    fn the_most_relevant_rows_are_as_many_as_the_budgets_pay_for_and_doubted_ones_come_last() {
        let relevance = [0.1, 0.9, 0.5, -0.3, 0.9];
        let doubted = [false, true, false, false, false];
        let among = |times, limit: Limit| {
            let ranked = ranked(&relevance, &doubted);
            let rows = most_relevant(&ranked, &[1, 1, 4, 2, 3], limit.times(times));
            [0, 1, 2, 3, 4].map(|row| rows.contains(&row))
        };
        assert_eq!(among(1.0, Limit::Rows(2)), [false, false, true, false, true]);
        assert_eq!(among(1.5, Limit::Rows(2)), [true, false, true, false, true]);
        assert_eq!(among(9.0, Limit::Rows(2)), [true; 5]);
        assert!(!among(2.0, Limit::Rows(2))[1]);
        // Rows 4 and 2 cost 7 tokens, row 0 one more.
        assert_eq!(among(2.0, Limit::Tokens(4)), [true, false, true, false, true]);
        assert_eq!(among(1.0, Limit::Tokens(6)), [false, false, false, false, true]);
        // Row 4 costs more than there is, and stands in no other's way.
        assert_eq!(among(1.0, Limit::Tokens(2)), [true, false, false, false, false]);
    }

    #[test]
    fn too_little_to_tell_is_chance_and_what_is_not_finite_an_error() {
        let pool = around([0.0, 0.0], 5, 1);
        let none = Matrix::zeros(0, 2);
        assert_eq!(relevance(&pool, &none, Seed(0)).expect("is finite"), [0.0; 5]);
        let of = |pool: &Matrix, fold: &Matrix| {
            let found = contrast(pool, fold, Seed(0)).expect("is finite");
            [found.domain_auc, found.typical]
        };
        assert_eq!(of(&pool, &around([9.0, 0.0], 1, 2)), [0.5, 0.5]);
        let same = |x| Matrix::from_vec(vec![x; 8], 4, 2);
        assert_eq!(relevance(&same(0.5), &same(0.5), Seed(0)).expect("is finite"), [0.0; 4]);
        assert_eq!(of(&same(0.5), &same(0.5)), [0.5, 1.0]);
        assert_eq!(of(&same(0.5), &same(-0.5)), [1.0, 0.0]);
        let broken = Matrix::from_vec(vec![f32::NAN; 2], 1, 2);
        assert!(relevance(&pool, &broken, Seed(0)).is_err());
    }
}
