//! Relevance: how much a row looks like one of the reward fold and not like one of the pool.
//!
//! Fisher's linear discriminant between the two:
//!
//! ```text
//! w = (S + λI)⁻¹ (mean of the fold − mean of the pool)      relevance of x = w·x
//! ```
//!
//! with S the covariance within the two and λ the mean of its diagonal. Of two Gaussians of one covariance, w·x is the logarithm of
//! their density ratio but for a constant. Where fold and pool are alike, w is noise; [`separability`] says how far it is more.
//!
//! Sources: Fisher 1936; Bickel, Brückner & Scheffer 2009 (a classifier between two samples gives their density ratio);
//! Aharoni & Goldberg, arXiv 2004.02105, section 4 (training data chosen by a classifier that knows only which rows are of the
//! wanted domain). We differ from the last in one way: the classifier is linear and in closed form, on the embedder's vectors.

use faer::{Mat, Side, prelude::Solve};
use rand::seq::SliceRandom;

use super::{Purse, order::falling, sample};
use crate::{
    Error, Matrix, Result,
    budget::Limit,
    metric::Metric,
    nn::product::{Layout, product},
    seed::Seed,
};

/// The most rows of either side that a discriminant is fitted on.
const MOST: usize = 20_000;

/// The relevance of each row of the pool, shape `(rows,)`, only to be compared with each other; higher is more like the fold.
///
/// # Errors
///
/// If the vectors hold a number that is not finite.
pub fn relevance(pool: &Matrix, fold: &Matrix, seed: Seed) -> Result<Vec<f32>> {
    let seed = seed.derive("relevance");
    let direction = discriminant(&drawn(pool, seed), &drawn(fold, seed))?;
    Ok(along(pool, &direction))
}

/// How well rows of the fold are told from rows of the pool that no discriminant was fitted on: the AUC, from 0.5 (alike) to 1 (nothing
/// in common). Each half of the rows is judged by the discriminant of the other.
///
/// # Errors
///
/// If the vectors hold a number that is not finite.
pub fn separability(pool: &Matrix, fold: &Matrix, seed: Seed) -> Result<f64> {
    let seed = seed.derive("separability");
    let (pool, fold) = (halves(&drawn(pool, seed), seed), halves(&drawn(fold, seed), seed));
    if [&pool, &fold].iter().any(|halves| halves[1].rows() == 0) {
        return Ok(0.5);
    }
    let mut sum = 0.0;
    for (fitted, judged) in [(0, 1), (1, 0)] {
        let direction = discriminant(&pool[fitted], &fold[fitted])?;
        let mut scores = along(&pool[judged], &direction);
        scores.extend(along(&fold[judged], &direction));
        let targets: Vec<u32> = (0..scores.len()).map(|i| u32::from(i >= pool[judged].rows())).collect();
        let both = scores.iter().flat_map(|&score| [-score, score]).collect();
        sum += Metric::Auc.score(&Matrix::from_vec(both, targets.len(), 2), &targets);
    }
    Ok(sum / 2.0)
}

/// The rows by falling relevance, ties by number.
pub(super) fn order(pool: &Matrix, fold: &Matrix, seed: Seed) -> Result<Vec<u32>> {
    Ok(falling(&relevance(pool, fold, seed)?))
}

/// The most relevant rows that the limit pays for, doubted ones last, in ascending order; `tokens[i]` is what row `i` costs, and is read
/// only where the limit is in tokens.
pub fn most_relevant(relevance: &[f32], doubted: &[bool], tokens: &[u32], limit: Limit) -> Vec<u32> {
    let mut order = falling(relevance);
    order.sort_by_key(|&row| doubted[row as usize]);
    let mut purse = Purse::new(tokens, limit);
    purse.spend(order);
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
    // Rows that are all alike have no covariance, and then no direction is better than another.
    let ridge = ((0..dim).map(|i| square[(i, i)]).sum::<f64>() / dim as f64).max(f64::MIN_POSITIVE);
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

/// w·x of each row.
fn along(rows: &Matrix, direction: &[f32]) -> Vec<f32> {
    rows.iter_rows()
        .map(|row| row.iter().zip(direction).map(|(x, w)| x * w).sum())
        .collect()
}

/// At most [`MOST`] of the rows, in their order.
fn drawn(rows: &Matrix, seed: Seed) -> Matrix {
    rows.gather(&sample(rows.rows(), MOST, seed))
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
    fn separability_is_chance_where_fold_and_pool_are_alike_and_1_where_they_do_not_meet() {
        let pool = around([0.0, 0.0], 2000, 1);
        let of = |fold: Matrix| separability(&pool, &fold, Seed(3)).expect("is finite");
        let alike = of(around([0.0, 0.0], 1000, 2));
        assert!((alike - 0.5).abs() < 0.03, "{alike}");
        // Two squares whose sides are half apart: a row of the fold is above one of the pool along that side with probability 7/8.
        let half = of(around([0.5, 0.0], 1000, 2));
        assert!((half - 0.875).abs() < 0.02, "{half}");
        assert!((of(around([2.0, 0.0], 1000, 2)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_most_relevant_rows_are_as_many_as_the_budgets_pay_for_and_doubted_ones_come_last() {
        let relevance = [0.1, 0.9, 0.5, -0.3, 0.9];
        let doubted = [false, true, false, false, false];
        let among = |times, limit: Limit| {
            let rows = most_relevant(&relevance, &doubted, &[1, 1, 4, 2, 3], limit.times(times));
            [0, 1, 2, 3, 4].map(|row| rows.contains(&row))
        };
        assert_eq!(among(1.0, Limit::Rows(2)), [false, false, true, false, true]);
        assert_eq!(among(1.5, Limit::Rows(2)), [true, false, true, false, true]);
        assert_eq!(among(9.0, Limit::Rows(2)), [true; 5]);
        assert!(!among(2.0, Limit::Rows(2))[1]);
        // Rows 4 and 2 cost 7 tokens, row 0 one more.
        assert_eq!(among(2.0, Limit::Tokens(4)), [true, false, true, false, true]);
        assert_eq!(among(1.0, Limit::Tokens(6)), [false, false, false, false, true]);
    }

    #[test]
    fn too_little_to_tell_is_chance_and_what_is_not_finite_an_error() {
        let pool = around([0.0, 0.0], 5, 1);
        let none = Matrix::zeros(0, 2);
        assert_eq!(relevance(&pool, &none, Seed(0)).expect("is finite"), [0.0; 5]);
        assert_eq!(
            separability(&pool, &around([9.0, 0.0], 1, 2), Seed(0)).expect("is finite"),
            0.5
        );
        let same = Matrix::from_vec(vec![0.5; 8], 4, 2);
        assert_eq!(relevance(&same, &same, Seed(0)).expect("is finite"), [0.0; 4]);
        let broken = Matrix::from_vec(vec![f32::NAN; 2], 1, 2);
        assert!(relevance(&pool, &broken, Seed(0)).is_err());
    }
}
