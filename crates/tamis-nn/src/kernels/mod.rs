//! Numeric kernels: products, and what happens between them.

mod amx;
pub mod attention;
pub mod bfloat16;
pub mod bfloat16_linear;
pub mod causal_attention;
pub mod dropout;
pub mod elementwise;
pub mod int8;
pub mod layer_norm;
pub mod linear;
pub mod low_rank;
pub mod packed;
pub mod prepacked;
pub mod prepacked_transposed;
pub mod product;
pub mod rms_norm;
pub mod rotary;
pub mod swiglu;
