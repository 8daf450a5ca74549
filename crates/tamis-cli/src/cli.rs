//! What the user typed.

use clap::{Parser, Subcommand};

use crate::{
    commands::{check::CheckCommand, demo::DemoArgs, finetune::FinetuneArgs, report::ReportArgs, study::StudyArgs},
    flags::SelectArgs,
};

/// Picks the small part of a fine-tuning set that is worth training on.
///
/// Training rows are clustered; an agent decides, chunk by chunk, what to add, rewarded by the change of a cheap proxy
/// model's validation score; the chosen rows are written back verbatim, with evidence beside random and full-data controls.
#[derive(Debug, Parser)]
#[command(name = "tamis", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Choose rows from a training file within a budget
    Select(Box<SelectArgs>),
    /// Train the target on a selection, or on everything, and evaluate it
    Finetune(Box<FinetuneArgs>),
    /// Compare methods, budgets and seeds on your data: a table with controls, intervals and costs
    Study(Box<StudyArgs>),
    /// Check whether a part of the method does its work on your data
    #[command(subcommand)]
    Check(CheckCommand),
    /// Write report.html of a run or a study again, and say where it is
    Report(ReportArgs),
    /// Make a small synthetic data set and select from it, in well under a minute
    Demo(DemoArgs),
}
