//! The stages of a run, which every command puts together.

pub(crate) mod curves;
pub(crate) mod describe;
pub(crate) mod embed;
pub(crate) mod evidence;
pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod prepare;
pub(crate) mod probe_features;
pub(crate) mod search;
pub(crate) mod stages;
pub(crate) mod target;
pub(crate) mod worker_pool;
