//! The stages of a run, which the commands put together.

pub(crate) mod candidates;
pub(crate) mod context;
pub(crate) mod curves;
pub(crate) mod describe;
pub(crate) mod embed;
pub(crate) mod evidence;
pub(crate) mod finetuned_features;
pub(crate) mod gradient_probe;
pub(crate) mod gradients;
pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod portfolio;
mod prefilter;
pub(crate) mod probe;
pub(crate) mod rerank;
pub(crate) mod responses;
pub(crate) mod ridge_probe;
pub(crate) mod rules;
pub(crate) mod search;
pub(crate) mod session;
pub(crate) mod stages;
pub(crate) mod target;
pub(crate) mod trainer;
