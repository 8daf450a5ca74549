//! What commands leave in their folders, for programs and for the report.

pub mod finetune;
pub mod portfolio;
pub mod selection;
pub mod study;
