//! The stages of a run, which the commands put together.

pub(crate) mod candidates;
pub(crate) mod context;
pub(crate) mod curves;
pub(crate) mod describe;
pub(crate) mod embed;
pub(crate) mod evidence;
pub(crate) mod finetuned_features;
pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod probe_features;
pub(crate) mod rerank;
pub(crate) mod search;
pub(crate) mod session;
pub(crate) mod stages;
pub(crate) mod target;
