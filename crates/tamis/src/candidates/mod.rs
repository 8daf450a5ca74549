//! Which rows may be chosen, and in which order a cluster gives them.

mod candidate_set;
pub mod domain;
pub mod facility_location;
pub mod in_domain;
pub mod label_errors;
pub mod mismatched;
pub(crate) mod row_order;

pub use candidate_set::CandidateSet;
pub use row_order::RowOrder;
