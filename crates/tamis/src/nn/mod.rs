//! The numeric kernels: products, norms, attention, encoders, small networks, optimisers.

pub mod mlp;
pub mod product;
