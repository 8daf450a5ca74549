//! How far rows point where a fold does, within the subspace that the fold's own gradients span.
//!
//! The directions are those of greatest mean square of the fold's gradients, not centred. What of a row's gradient is outside of them counts
//! neither for it nor against it: its score is the cosine, inside, with the fold's mean gradient. Source: Min et al. 2026, arXiv 2602.18584
//! (GIST), with one task, one checkpoint, and gradients that are sketched before.

use tamis_nn::{Seed, train::ResponseLoss};

use crate::{
    Result,
    data::RowId,
    scorer::{
        gradient::{basis::Basis, gradient_data::GradientData},
        ridge::regression::dot,
    },
};

/// The most directions of the subspace.
const DIRECTIONS: usize = 32;

/// The cosine of each of these rows with a fold's mean gradient, in the subspace of the fold; shape `(rows,)`.
///
/// # Errors
///
/// If a gradient is not finite.
pub fn alignment_in_subspace(train: &GradientData, rows: &[RowId], fold: &GradientData) -> Result<Vec<f32>> {
    // Gradients are over the roots of their tokens already.
    let plain = |rows: usize| vec![ResponseLoss { sum: 0.0, tokens: 1 }; rows];
    let all: Vec<RowId> = (0..fold.losses.len() as RowId).collect();
    let directions = DIRECTIONS.min(fold.losses.len());
    let basis = Basis::fit(&fold.gradients, &plain(all.len()), &all, directions, Seed(0))?;
    let inside = |data: &GradientData| basis.project(&data.gradients, plain(data.losses.len()));
    let (target, chosen) = (inside(fold), inside(&train.select(rows)));
    let mut mean = vec![0.0; target.width()];
    for i in 0..all.len() {
        let share = 1.0 / all.len() as f32;
        mean.iter_mut()
            .zip(target.gradient(i))
            .for_each(|(mean, g)| *mean += share * g);
    }
    let unit = |gradient: &[f32]| dot(gradient, gradient).sqrt().max(f32::MIN_POSITIVE).recip();
    let cosine = |i: usize| {
        let gradient = chosen.gradient(i);
        unit(gradient) * unit(&mean) * dot(gradient, &mean)
    };
    Ok((0..rows.len()).map(cosine).collect())
}

#[cfg(test)]
mod tests {
    use tamis_nn::Matrix;

    use super::*;

    #[test]
    fn what_is_outside_of_the_folds_directions_counts_for_nothing() {
        let data = |rows: &[[f32; 3]]| {
            let losses = vec![ResponseLoss { sum: 1.0, tokens: 1 }; rows.len()];
            GradientData::new(Matrix::from_vec(rows.concat(), rows.len(), 3), losses)
        };
        // The fold spans the first two directions; its mean points to (1, 1) / √2.
        let fold = data(&[[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]);
        let pool = data(&[[1.0, 1.0, 9.0], [1.0, 0.0, 0.0], [-3.0, -3.0, 1.0], [0.0, 0.0, 5.0]]);
        let found = alignment_in_subspace(&pool, &[0, 1, 2, 3], &fold).expect("finite");
        let want = [1.0, 0.5f32.sqrt(), -1.0, 0.0];
        assert!(found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
        // By all directions the first row would point elsewhere.
        assert!(pool.alignment(&[0], &fold)[0] < 0.2);
    }
}
