//! Models of a state's score, learned from scores that were paid for: what they predict costs no evaluation.

pub(crate) mod baseline;
pub mod gaussian_process;
pub mod trees;

/// Predictions for several states, in units of the score; shapes `(states,)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// What is expected.
    pub mean: Vec<f64>,
    /// How unsure that is: a standard deviation.
    pub spread: Vec<f64>,
}
