//! Numeric kernels: products and what happens between them, encoders forward and backward, the optimiser, small networks.

//adamw
pub mod attention;
pub mod dropout;
pub mod elementwise;
pub mod encoder;
pub mod head;
pub mod linear;
//loss
pub mod mlp;
pub mod norm;
pub mod product;
//training
