//! Where scores that were paid for are kept.

pub mod ledger;
