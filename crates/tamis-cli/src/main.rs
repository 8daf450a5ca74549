//! The `tamis` command: reads what the user typed, runs one subcommand, says how it ended.
//!
//! Exit status: 0 done, 1 the run failed, 2 the user's input (usage, settings, data) is at fault, 130 interrupted.

mod cli;
mod commands;
mod flags;
mod output;
mod progress;
mod summary;
mod threads;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};
use commands::{check, demo, finetune, report, select, study};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let progress = progress::Progress::new();
    let outcome = match cli.command {
        Command::Select(args) => select::run(*args, &progress),
        Command::Finetune(args) => finetune::run(*args, &progress),
        Command::Study(args) => study::run(*args, &progress),
        Command::Check(command) => check::run(command, &progress),
        Command::Report(args) => report::run(&args),
        Command::Demo(args) => demo::run(&args, &progress),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress.clear();
            let Some(error) = error.downcast_ref::<tamis::Error>() else {
                output::say(&format!("error: {error:#}"));
                return ExitCode::FAILURE;
            };
            // Its message holds what it was caused by.
            output::say(&format!("error: {error}"));
            if let Some(hint) = error.hint() {
                output::say(&format!("hint: {hint}"));
            }
            ExitCode::from(match error {
                tamis::Error::Interrupted => 130,
                error if error.is_input() => 2,
                _ => 1,
            })
        }
    }
}
