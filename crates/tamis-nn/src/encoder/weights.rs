//! The weights of a BERT-family encoder, and their sizes.

use crate::{
    Matrix,
    kernels::{attention::Heads, elementwise::Activation, linear::Linear},
};

/// The sizes and choices of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderShape {
    /// The length of a token's vector.
    pub hidden: usize,
    /// Attention heads a layer; a divisor of `hidden`.
    pub heads: usize,
    /// What the intermediate layer is passed through.
    pub activation: Activation,
    /// Added to the variance in every layer norm.
    pub norm_epsilon: f32,
    /// The position of a sequence's first token: 0, or 2 for RoBERTa and its kin.
    pub first_position: usize,
}

/// The scale and bias of a layer norm, shapes `(hidden,)`.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    /// What a normalised number is multiplied by.
    pub weight: Vec<f32>,
    /// What is added then.
    pub bias: Vec<f32>,
}

/// One transformer layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Queries, keys and values in one map: `hidden` to `3 * hidden`.
    pub qkv: Linear,
    /// What follows the heads: `hidden` to `hidden`.
    pub attention_output: Linear,
    /// After the attention and its residual.
    pub attention_norm: LayerNorm,
    /// `hidden` to the intermediate size.
    pub intermediate: Linear,
    /// The intermediate size to `hidden`.
    pub output: Linear,
    /// After the intermediate layers and their residual.
    pub output_norm: LayerNorm,
}

/// An encoder's weights.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderWeights {
    /// The sizes and choices.
    pub shape: EncoderShape,
    /// Shape `(vocabulary, hidden)`.
    pub token_embeddings: Matrix,
    /// Shape `(positions, hidden)`.
    pub position_embeddings: Matrix,
    /// One row a token type, such as first and second sentence of a pair; no row where the model has none.
    pub token_type_embeddings: Matrix,
    /// After the sum of all three.
    pub norm: LayerNorm,
    /// From first to last.
    pub layers: Vec<Layer>,
}

impl EncoderShape {
    /// How attention divides a token's vector.
    pub fn attention(&self) -> Heads {
        Heads {
            hidden: self.hidden,
            count: self.heads,
        }
    }
}
