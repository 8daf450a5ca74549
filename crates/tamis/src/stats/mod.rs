//! What the checks measure: whether cheap scores rank as dear ones do, what it takes to tell two of these apart, and whether clusters
//! are any.

pub mod agreement;
pub mod gain;
pub mod null_cloud;
pub(crate) mod one_standard_error;
pub mod partition;
pub mod power;
pub(crate) mod ranking;
