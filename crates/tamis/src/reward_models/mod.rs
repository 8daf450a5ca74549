//! Models of a state's score, learned from scores that were paid for. A prediction costs no evaluation.

pub(crate) mod baseline;
pub mod gaussian_process;
pub mod trees;

/// Predictions for several states, in units of the score; shapes `(states,)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Expected scores.
    pub mean: Vec<f64>,
    /// Standard deviations of the predictions.
    pub spread: Vec<f64>,
}
