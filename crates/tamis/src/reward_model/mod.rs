//! Models of a state's score, learned from scores that were paid for: what they predict costs no evaluation.

pub mod trees;
