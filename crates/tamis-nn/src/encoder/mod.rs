//! BERT-family encoders: their weights, the forward pass, and the training pass.
//!
//! Tokens of several sequences lie one after the other in one matrix, so that every linear layer is one product; only
//! attention looks at one sequence at a time. Source: Devlin et al. 2019 and Vaswani et al. 2017, post-norm.

pub mod forward;
pub mod gradient;
pub mod head;
pub mod loss;
pub mod training_pass;
pub mod weights;

pub use forward::{Dtype, OutputTokens, Packed, PrepackedLayers, Scratch};
pub use weights::{EncoderShape, EncoderWeights, Layer, LayerNorm};
