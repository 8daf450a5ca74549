//! Learned predictors of a proxy's score: what a state is worth, told from what was taken, without training the proxy on it.

pub(crate) mod baseline;
pub mod ensemble;
