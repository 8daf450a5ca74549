//! What turns a sequence's first token into scores: the head of a classification or multiple-choice model.

use crate::kernels::{
    dropout::Dropout,
    elementwise::{Activation, activate, activate_with_slope},
    linear::{Linear, Workspace},
    prepacked::Begin,
};

/// The layers between a sequence's first token and its scores: dense, activation, dropout, scores.
///
/// A classification model has one score a label, a multiple-choice model one score a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// `hidden` to `hidden`.
    pub dense: Linear,
    /// What follows it: tanh in BERT and RoBERTa, a rectified linear unit in DistilBERT.
    pub activation: Activation,
    /// `hidden` to the scores.
    pub scores: Linear,
}

/// What a forward pass leaves for the backward pass.
#[derive(Debug, Default)]
pub struct HeadTape {
    input: Vec<f32>,
    dense: Vec<f32>,
    features: Vec<f32>,
    scores: Vec<f32>,
    workspace: Workspace,
}

impl Head {
    /// Its tensors, and whether weight decay is for them.
    pub fn tensors_mut(&mut self) -> [(&mut [f32], bool); 4] {
        [
            (self.dense.weight.as_mut_slice(), true),
            (&mut self.dense.bias, false),
            (self.scores.weight.as_mut_slice(), true),
            (&mut self.scores.bias, false),
        ]
    }

    /// A head of zeros, of this one's shape.
    pub fn zeros_like(&self) -> Self {
        Self {
            dense: self.dense.zeros_like(),
            activation: self.activation,
            scores: self.scores.zeros_like(),
        }
    }

    /// The scores of each sequence, shape `(sequences, scores)`, from its first token's vector in `input`, shape
    /// `(sequences, hidden)`.
    pub fn forward<'t>(&self, input: &[f32], dropout: Dropout, tape: &'t mut HeadTape) -> &'t [f32] {
        tape.input.clear();
        tape.input.extend_from_slice(input);
        self.dense.whole().apply(input, &mut tape.dense);
        tape.features.clear();
        tape.features.extend_from_slice(&tape.dense);
        activate(&mut tape.features, self.activation);
        dropout.apply(&mut tape.features, 0);
        self.scores.whole().apply(&tape.features, &mut tape.scores);
        &tape.scores
    }

    /// What the scores are read from: the dense layer's output behind its activation, shape `(sequences, hidden)`.
    pub fn features<'t>(&self, input: &[f32], tape: &'t mut HeadTape) -> &'t [f32] {
        self.dense.whole().apply(input, &mut tape.features);
        activate(&mut tape.features, self.activation);
        &tape.features
    }

    /// The derivative by `input` from that by the scores, once a forward pass; adds those by the parameters to `gradient`.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit the last forward pass.
    pub fn backward(&self, upstream: &[f32], dropout: Dropout, tape: &mut HeadTape, gradient: &mut Self) -> Vec<f32> {
        let (outputs, hidden) = (self.scores.bias.len(), self.dense.bias.len());
        let workspace = &mut tape.workspace;
        gradient
            .scores
            .add_gradient(0, &tape.features, upstream, outputs, workspace);
        let mut down = vec![0.0; tape.features.len()];
        let scores = self.scores.whole();
        scores.backward(upstream, Begin::Zero, &mut down, workspace);
        dropout.apply(&mut down, 0);
        activate_with_slope(&mut tape.dense, &mut tape.features, self.activation);
        down.iter_mut().zip(&tape.dense).for_each(|(u, slope)| *u *= slope);
        gradient.dense.add_gradient(0, &tape.input, &down, hidden, workspace);
        let mut d_input = vec![0.0; tape.input.len()];
        self.dense.whole().backward(&down, Begin::Zero, &mut d_input, workspace);
        d_input
    }
}
