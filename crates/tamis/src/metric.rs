//! Scores of predictions: accuracy, macro-F1, log loss; hard and soft.

use serde::{Deserialize, Serialize};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricKind {
    /// The share of right answers.
    Accuracy,
    /// The mean over the classes of the F1 score.
    MacroF1,
    /// The mean of the negative log probability of the right answer.
    LogLoss,
}
