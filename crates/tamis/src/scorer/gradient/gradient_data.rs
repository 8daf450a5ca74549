//! The gradients of a split's rows in few directions, and their losses.

use std::sync::Arc;

use tamis_nn::{Fingerprint, Matrix, train::ResponseLoss};

use crate::{
    Error, Result,
    data::RowId,
    scorer::ridge::{probe_data::ProbeData, regression::dot},
};

/// The rows of a split as the gradient probe sees them.
#[derive(Debug, Clone)]
pub struct GradientData {
    /// A row's gradient over the root of its tokens, shape `(rows, directions)`.
    pub(crate) gradients: Arc<Matrix>,
    /// The same as an example of one item and one output each, whose target is 1, so that its moments are the sums of gradients and of
    /// their outer products.
    pub(crate) design: Arc<ProbeData>,
    /// What the model that the gradients are of thinks of each row.
    pub losses: Vec<ResponseLoss>,
}

impl GradientData {
    /// From the gradients of the summed losses, shape `(rows, directions)`. Each is divided by the root of its row's tokens: the sum would
    /// let long rows decide alone, the mean short ones.
    ///
    /// # Panics
    ///
    /// If there is not one loss a row.
    pub fn new(mut gradients: Matrix, losses: Vec<ResponseLoss>) -> Self {
        assert_eq!(gradients.rows(), losses.len(), "a loss a row");
        for (i, loss) in losses.iter().enumerate() {
            let share = 1.0 / root_of_tokens(loss);
            gradients.row_mut(i).iter_mut().for_each(|x| *x *= share);
        }
        Self::scaled(gradients, losses)
    }

    /// From gradients that are divided by the roots of tokens already.
    fn scaled(gradients: Matrix, losses: Vec<ResponseLoss>) -> Self {
        let (rows, gradients) = (gradients.rows(), Arc::new(gradients));
        let design = ProbeData::new(Arc::clone(&gradients), (0..=rows as u32).collect(), vec![0; rows], 1);
        Self {
            design: Arc::new(design),
            gradients,
            losses,
        }
    }

    /// How many directions there are.
    pub fn width(&self) -> usize {
        self.design.width()
    }

    /// The rows named, in the order named, such as a fold.
    #[must_use]
    pub fn select(&self, rows: &[RowId]) -> Self {
        let losses = rows.iter().map(|&row| self.losses[row as usize]).collect();
        Self::scaled(self.gradients.gather(rows), losses)
    }

    /// These rows, and behind them those of another split in the same directions.
    #[must_use]
    pub fn joined(&self, more: &Self) -> Self {
        let numbers = [self.gradients.as_slice(), more.gradients.as_slice()].concat();
        let losses = [&*self.losses, &*more.losses].concat();
        Self::scaled(Matrix::from_vec(numbers, losses.len(), self.width()), losses)
    }

    /// A row's gradient.
    pub(crate) fn gradient(&self, row: usize) -> &[f32] {
        self.gradients.row(row)
    }

    /// The mean square of these rows' gradients along a direction: the mean eigenvalue of their F.
    ///
    /// # Errors
    ///
    /// If it is zero, or not finite.
    pub fn mean_eigenvalue(&self, rows: &[RowId]) -> Result<f64> {
        let square = |&row: &RowId| f64::from(dot(self.gradient(row as usize), self.gradient(row as usize)));
        let mean = rows.iter().map(square).sum::<f64>() / (rows.len() * self.width()).max(1) as f64;
        if mean.is_finite() && mean > 0.0 {
            return Ok(mean);
        }
        Err(Error::NotFinite {
            place: "gradients of the pool".into(),
            found: format!("a mean square of {mean}"),
        })
    }

    /// The mean cosine of the gradients of these rows with those of all rows of a fold, shape `(rows,)`.
    pub fn alignment(&self, rows: &[RowId], fold: &Self) -> Vec<f32> {
        let unit = |gradient: &[f32]| dot(gradient, gradient).sqrt().max(f32::MIN_POSITIVE).recip();
        let mut mean = vec![0.0; fold.width()];
        for gradient in fold.gradients.iter_rows() {
            let share = unit(gradient) / fold.losses.len() as f32;
            mean.iter_mut().zip(gradient).for_each(|(mean, g)| *mean += share * g);
        }
        let cosine = |&row: &RowId| {
            let gradient = self.gradient(row as usize);
            unit(gradient) * dot(gradient, &mean)
        };
        rows.iter().map(cosine).collect()
    }

    /// The loss a token of a row after a step along these directions, in nats.
    pub(crate) fn row_loss_after(&self, row: usize, step: &[f32]) -> f32 {
        let (loss, along) = (&self.losses[row], dot(self.gradient(row), step));
        loss.a_token() as f32 + along * (1.0 + 0.5 * along) / root_of_tokens(loss)
    }

    /// The mean of that over all rows.
    pub(crate) fn loss_after(&self, step: &[f32]) -> f64 {
        let rows = self.losses.len();
        let sum: f64 = (0..rows).map(|row| f64::from(self.row_loss_after(row, step))).sum();
        sum / rows.max(1) as f64
    }

    /// Equal fingerprints, equal gradients and losses.
    ///
    /// # Errors
    ///
    /// As that of [`ProbeData`].
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let losses = self.losses.iter();
        let losses: Vec<u8> = losses
            .flat_map(|loss| [loss.sum.to_le_bytes(), loss.tokens.to_le_bytes()].concat())
            .collect();
        Ok(Fingerprint::of([self.design.fingerprint()?.as_ref(), &losses]))
    }
}

/// The root of a response's tokens, at least 1.
pub(crate) fn root_of_tokens(loss: &ResponseLoss) -> f32 {
    (loss.tokens.max(1) as f32).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_of_directions_whatever_the_lengths() {
        let data = |rows: &[[f32; 2]]| {
            let losses = vec![ResponseLoss { sum: 1.0, tokens: 1 }; rows.len()];
            GradientData::new(Matrix::from_vec(rows.concat(), rows.len(), 2), losses)
        };
        // The fold points to (1, 0) and, ten times as far, to (0, 1).
        let fold = data(&[[1.0, 0.0], [0.0, 10.0]]);
        let pool = data(&[[3.0, 0.0], [0.1, 0.1], [-4.0, 3.0], [0.0, 0.0]]);
        let found = pool.alignment(&[0, 1, 2, 3], &fold);
        let want = [0.5, 0.5f32.sqrt(), -0.1, 0.0];
        assert!(found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        assert_eq!(fold.joined(&pool).losses.len(), 6);
    }
}
