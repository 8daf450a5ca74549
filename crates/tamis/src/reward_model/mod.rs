//! Models of a state's score, learned from scores that were paid for: what they predict costs no evaluation.

pub(crate) mod baseline;
pub mod ensemble;
pub mod trees;
