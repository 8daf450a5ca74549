//! One file a subcommand: its flags, its run, its words.

pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod finetune;
pub(crate) mod report;
pub(crate) mod select;
pub(crate) mod study;
