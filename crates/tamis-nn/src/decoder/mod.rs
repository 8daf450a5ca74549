//! Llama-family decoders: their weights, low-rank adapters, the training pass, and the loss on what is to be said.
//!
//! Sequences lie one behind the other in one matrix, as in [`crate::encoder`]. Source: Touvron et al. 2023, pre-norm, with grouped queries,
//! rotary positions and SwiGLU; the biases of Qwen2 and the query and key norms of Qwen3.

pub mod lora;
pub mod loss;
pub mod sketch;
pub mod training_pass;
pub mod weights;

pub use lora::{Adapter, Lora, LoraSettings};
pub use sketch::{GradientSketch, Sides, SketchSettings};
pub use weights::{DecoderLayer, DecoderShape, DecoderWeights, HeadNorms, Projection};
