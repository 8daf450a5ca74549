//! Numeric kernels: products, what happens between them, encoders, small networks.

pub mod elementwise;
pub mod encoder;
pub mod mlp;
pub mod product;
