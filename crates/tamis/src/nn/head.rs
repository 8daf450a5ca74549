//! What stands on an encoder to tell classes apart.

use super::{elementwise::Activation, linear::Linear};

/// The layers between a sequence's first token and its scores: a map, an activation, dropout while it trains, the scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// `hidden` to `hidden`.
    pub dense: Linear,
    /// What follows it: tanh in BERT and RoBERTa, ReLU in DistilBERT.
    pub activation: Activation,
    /// `hidden` to one score a class, or to a single one.
    pub scores: Linear,
}
