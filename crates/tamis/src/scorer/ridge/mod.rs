//! The default scorer: a ridge probe on fixed features, trained in closed form in about a millisecond.

pub(crate) mod chunk_moments;
pub mod probe;
pub mod probe_data;
pub mod projection;
pub mod regression;
pub(crate) mod scaling;
pub mod tune;
