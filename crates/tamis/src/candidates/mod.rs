//! Which rows may be chosen, and in which order a cluster gives them.

mod candidate_set;
pub mod domain;
pub mod facility_location;
pub mod label_errors;

pub use candidate_set::Within;
