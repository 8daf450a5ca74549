//! The gradients of a split's rows in few directions, and their losses.

use std::sync::Arc;

use tamis_nn::{Fingerprint, Matrix, train::ResponseLoss};

use crate::{data::RowId, scorer::ridge::probe_data::ProbeData};

/// The rows of a split as the gradient probe sees them.
#[derive(Debug, Clone, PartialEq)]
pub struct GradientData {
    /// A row's gradient over the root of its tokens, shape `(rows, directions)`: an example of one item and one output each, whose target
    /// is 1, so that its moments are the sums of gradients and of their outer products.
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
        let rows = losses.len();
        Self {
            design: Arc::new(ProbeData::new(gradients, (0..=rows as u32).collect(), vec![0; rows], 1)),
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
        Self {
            design: Arc::new(self.design.select(rows)),
            losses: rows.iter().map(|&row| self.losses[row as usize]).collect(),
        }
    }

    /// A row's gradient.
    pub(crate) fn gradient(&self, row: usize) -> &[f32] {
        self.design.rows.row(row)
    }

    /// Equal fingerprints, equal gradients and losses.
    pub fn fingerprint(&self) -> Fingerprint {
        let losses = self.losses.iter();
        let losses: Vec<u8> = losses
            .flat_map(|loss| [loss.sum.to_le_bytes(), loss.tokens.to_le_bytes()].concat())
            .collect();
        Fingerprint::of([self.design.fingerprint().as_ref(), &losses])
    }
}

/// The root of a response's tokens, at least 1.
pub(crate) fn root_of_tokens(loss: &ResponseLoss) -> f32 {
    (loss.tokens.max(1) as f32).sqrt()
}
