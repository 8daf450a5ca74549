//! Decompositions of symmetric matrices that do not give up on data of low rank.

use faer::{
    Mat, MatRef, Side,
    traits::{RealField, math_utils::from_f64},
};

use crate::{Error, Result};

/// What is added to the diagonal of a matrix that cannot be decomposed as it is, one after the other, relative to its entries.
///
/// A matrix of low rank has eigenvalues that are nothing but rounding noise, among which iterations may go round for ever and roots may
/// be taken of numbers below zero. On top of a multiple of the identity the noise is small again. At 1 nothing is left to fail.
pub(crate) const JITTERS: [f64; 6] = [0.0, 1e-12, 1e-9, 1e-6, 1e-3, 1.0];

/// The eigenvalues and eigenvectors of a symmetric matrix.
pub(crate) struct Eigen<T> {
    /// In ascending order, shape `(size,)`.
    pub(crate) values: Vec<T>,
    /// One a column, shape `(size, size)`.
    pub(crate) vectors: Mat<T>,
}

/// Decomposes a symmetric matrix, of which the lower triangle is read: as it is, or where that does not converge, in f64 and with more and
/// more on its diagonal, which is taken from the eigenvalues again.
///
/// # Errors
///
/// If the matrix, which `place` names, holds a number that is not finite.
pub(crate) fn symmetric_eigen<T: RealField + Copy + Into<f64>>(matrix: MatRef<'_, T>, place: &str) -> Result<Eigen<T>> {
    let size = matrix.nrows();
    let entry = |i: usize, j: usize| -> f64 { matrix[(i.max(j), i.min(j))].into() };
    let lower = || (0..size).flat_map(|i| (0..=i).map(move |j| entry(i, j)));
    let undone = |found: String| Error::NotFinite {
        place: place.to_owned(),
        found,
    };
    if let Some(found) = lower().find(|x| !x.is_finite()) {
        return Err(undone(found.to_string()));
    }
    if let Some(eigen) = converged(matrix) {
        return Ok(eigen);
    }
    let largest = lower().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let unit = if largest > 0.0 { largest } else { 1.0 };
    let jittered = JITTERS.iter().find_map(|jitter| {
        let on_diagonal = |i, j| if i == j { *jitter } else { 0.0 };
        let Eigen { values, vectors } =
            converged(Mat::from_fn(size, size, |i, j| entry(i, j) / unit + on_diagonal(i, j)).as_ref())?;
        Some(Eigen {
            values: values.iter().map(|value| from_f64((value - jitter) * unit)).collect(),
            vectors: Mat::from_fn(size, size, |i, j| from_f64(vectors[(i, j)])),
        })
    });
    jittered.ok_or_else(|| undone("a matrix without eigenvectors".into()))
}

/// The decomposition as the library makes it; none if it does not converge, or to numbers that are not finite.
fn converged<T: RealField + Copy + Into<f64>>(matrix: MatRef<'_, T>) -> Option<Eigen<T>> {
    let eigen = matrix.self_adjoint_eigen(Side::Lower).ok()?;
    let values: Vec<T> = eigen.S().column_vector().iter().copied().collect();
    let is_finite = |x: T| x.into().is_finite();
    (values.iter().all(|&x| is_finite(x)) && eigen.U().is_all_finite()).then(|| Eigen {
        values,
        vectors: eigen.U().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::RngExt;
    use tamis_nn::seed::Seed;

    use super::*;

    /// The Gram matrix of `rows` random vectors, of which only so many differ; `kind` says which vectors.
    fn gram(size: usize, rows: usize, distinct: usize, kind: u32, seed: u64) -> Mat<f32> {
        let mut rng = Seed(seed).rng();
        let of_kind = |x: f32| match kind {
            0 => 0.0,
            1 => 1.0,
            2 => x.round(),
            3 => x * 1e-12,
            _ => x,
        };
        let vectors = Mat::from_fn(distinct, size, |_, _| of_kind(rng.random::<f32>() * 2.0 - 1.0));
        Mat::from_fn(size, size, |i, j| {
            (0..rows)
                .map(|row| vectors[(row % distinct, i)] * vectors[(row % distinct, j)])
                .sum()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_gram_matrix_of_finite_numbers_is_decomposed(
            size in 1usize..80, rows in 1usize..60, distinct in 1usize..8, kind in 0u32..5, seed in any::<u64>()
        ) {
            let matrix = gram(size, rows, distinct, kind, seed);
            let Eigen { values, vectors } = symmetric_eigen(matrix.as_ref(), "a test").expect("is finite");
            prop_assert!(values.is_sorted());
            let scale = values[size - 1].abs().max(f32::MIN_POSITIVE);
            let error = 1e-5 * size as f32;
            let lambda = Mat::from_fn(size, size, |i, j| if i == j { values[i] } else { 0.0 });
            let again = &vectors * &lambda * vectors.transpose();
            let unit = vectors.transpose() * &vectors;
            for i in 0..size {
                for j in 0..size {
                    prop_assert!((again[(i, j)] - matrix[(i, j)]).abs() <= error * scale);
                    prop_assert!((unit[(i, j)] - f32::from(u8::from(i == j))).abs() <= error);
                }
            }
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_named() {
        let matrix = Mat::from_fn(3, 3, |i, j| if i + j == 4 { f32::NAN } else { 1.0 });
        let error = symmetric_eigen(matrix.as_ref(), "the test's matrix")
            .err()
            .expect("is not finite");
        assert_eq!(
            error.to_string(),
            "the test's matrix: expected finite numbers, found NaN"
        );
    }
}
