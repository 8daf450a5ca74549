//! Numeric kernels: products and what happens between them, encoders forward and backward, the optimiser, small networks.

pub mod adamw;
pub mod attention;
pub mod dropout;
pub mod elementwise;
pub mod encoder;
pub mod gradient;
pub mod head;
pub mod int8;
pub mod linear;
pub mod loss;
pub mod mlp;
pub mod norm;
pub mod panels;
pub mod product;
pub mod tiles;
pub mod training;
