//! The few directions in which gradients are compared: those in which the pool's sketches are largest.

use faer::MatRef;
use tamis_nn::{
    Matrix, Seed,
    kernels::product::{Layout, product},
    train::ResponseLoss,
};

use crate::{
    Result,
    data::RowId,
    linalg::{Eigen, symmetric_eigen},
    scorer::{
        gradient::gradient_data::{GradientData, root_of_tokens},
        ridge::projection::sample,
    },
};

/// Rows that directions are found from.
const SAMPLE: usize = 2048;
/// The smallest mean square of a direction, as a share of the largest one's.
const SMALLEST: f32 = 1e-4;

/// Directions of sketches, orthonormal.
#[derive(Debug, Clone, PartialEq)]
pub struct Basis {
    /// Shape `(directions, sketch width)`, the largest first.
    directions: Matrix,
}

impl Basis {
    /// The at most `width` directions of greatest mean square of the pool's sketches over the roots of their tokens, not centred, from a
    /// sample of 2,048 rows.
    ///
    /// # Errors
    ///
    /// If a sketch is not finite.
    pub fn fit(sketches: &Matrix, losses: &[ResponseLoss], pool: &[RowId], width: usize, seed: Seed) -> Result<Self> {
        let rows = sample(pool.len(), SAMPLE, seed);
        let (count, numbers) = (rows.len(), sketches.cols());
        let mut x = Vec::with_capacity(count * numbers);
        for i in rows {
            let row = pool[i] as usize;
            let share = 1.0 / root_of_tokens(&losses[row]);
            x.extend(sketches.row(row).iter().map(|g| g * share));
        }
        // The rows' Gram matrix has the same eigenvalues as the directions': X Xᵀ u = s u gives the direction Xᵀ u / √s.
        let mut gram = vec![0.0; count * count];
        let shape = (count, numbers, count);
        product(&mut gram, shape, &x, Layout::Plain, &x, Layout::Transposed, 0.0);
        let gram = MatRef::from_row_major_slice(&gram, count, count);
        let Eigen { values, vectors } = symmetric_eigen(gram, "gradients of the pool")?;
        // Eigenvalues ascend. Those near what 32 bits round to have no direction that could be told.
        let largest = values.last().copied().unwrap_or(0.0);
        let kept = (values.iter().rev().take(width)).take_while(|&&value| value > SMALLEST * largest);
        let kept = kept.count();
        let mut along = Vec::with_capacity(kept * count);
        for k in 0..kept {
            let vector = vectors.col(count - 1 - k);
            // The sign of an eigenvector is arbitrary: its largest entry is made positive.
            let peak = (0..count).fold(0, |best, i| if vector[i].abs() > vector[best].abs() { i } else { best });
            let scale = values[count - 1 - k].sqrt().recip().copysign(vector[peak]);
            along.extend((0..count).map(|i| scale * vector[i]));
        }
        let mut directions = Matrix::zeros(kept, numbers);
        let shape = (kept, count, numbers);
        product(
            directions.as_mut_slice(),
            shape,
            &along,
            Layout::Plain,
            &x,
            Layout::Plain,
            0.0,
        );
        Ok(Self { directions })
    }

    /// A split's gradients in these directions.
    ///
    /// # Panics
    ///
    /// If the sketches are of another width, or there is not one loss a row.
    pub fn project(&self, sketches: &Matrix, losses: Vec<ResponseLoss>) -> GradientData {
        let (rows, width) = (sketches.rows(), self.directions.rows());
        let mut gradients = Matrix::zeros(rows, width);
        product(
            gradients.as_mut_slice(),
            (rows, sketches.cols(), width),
            sketches.as_slice(),
            Layout::Plain,
            self.directions.as_slice(),
            Layout::Transposed,
            0.0,
        );
        GradientData::new(gradients, losses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_three_directions_are_told_apart_by_three() {
        // Rows along (1, 0, 0, 0) and (0, .6, .8, 0) and nearly none along (0, 0, 0, 1); one token each.
        let rows = [
            [3.0, 0.0, 0.0, 0.0],
            [-3.0, 0.0, 0.0, 0.0],
            [0.0, 1.2, 1.6, 0.0],
            [0.0, 0.0, 0.0, 0.2],
        ];
        let sketches = Matrix::from_vec(rows.concat(), 4, 4);
        let losses = vec![ResponseLoss { sum: 1.0, tokens: 1 }; 4];
        let basis = Basis::fit(&sketches, &losses, &[0, 1, 2, 3], 8, Seed(0)).expect("finite");
        assert_eq!(basis.directions.rows(), 3);
        for (direction, want) in
            basis
                .directions
                .iter_rows()
                .zip([[1.0, 0.0, 0.0, 0.0], [0.0, 0.6, 0.8, 0.0], [0.0, 0.0, 0.0, 1.0]])
        {
            let along: f32 = direction.iter().zip(want).map(|(a, b)| a * b).sum();
            assert!((along.abs() - 1.0).abs() < 1e-5, "{direction:?}");
        }
        // Lengths stay as they are; four tokens halve them.
        let losses = vec![ResponseLoss { sum: 1.0, tokens: 4 }; 4];
        let data = basis.project(&sketches, losses);
        let length = |row: usize| data.gradient(row).iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length(0) - 1.5).abs() < 1e-5 && (length(2) - 1.0).abs() < 1e-5);
    }
}
