//! The `tamis` command: reads what the user typed, runs one subcommand, says how it ended. The Python package reads its arguments as
//! the same command line, and runs it by [`Invocation`].
//!
//! Exit status: 0 done, 1 the run failed, 2 the user's input (usage, settings, data) is at fault, 130 interrupted.

mod cli;
mod commands;
mod flags;
mod invocation;
mod keys;
mod messages;
mod outcome;
mod output;
mod progress;
#[cfg(test)]
mod reference;
mod repeat;
mod summary;
mod threads;
mod values;

use std::process::ExitCode;

use clap::FromArgMatches;
use cli::{Cli, Command};
use commands::{demo, report};
use tamis::{commands::Outside, unwind::say_nothing_of_caught_panics};

pub use invocation::{Invocation, flags, messages};
pub use messages::Messages;
pub use outcome::Outcome;

/// Runs what the process's arguments say.
pub fn main() -> ExitCode {
    run(std::env::args_os()).into()
}

/// Runs what these arguments say, the first of which is the program's own name; returns the exit status. Ends the process itself where
/// they ask for help or cannot be read.
pub fn run(arguments: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>) -> u8 {
    #[cfg(unix)]
    keep_file_size_limit_an_error();
    say_nothing_of_caught_panics();
    let command = cli::command();
    let matches = command.clone().get_matches_from(arguments);
    let messages = messages::Messages::new(cli::typed(&command, &matches), messages::Style::Flags, repeat::command);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let progress = progress::Progress::new(&messages);
    let ended = match cli.command {
        Command::Report(args) => report::run(&args),
        Command::Demo(args) => demo::run(&args, &messages, &progress),
        Command::Completions { shell } => completions(command, shell),
        command => {
            invocation::run(command, &messages, &Outside::default(), &progress).and_then(|outcome| print(&outcome))
        }
    };
    match ended {
        Ok(()) => 0,
        Err(error) => {
            progress.clear();
            let Some(error) = error.downcast_ref::<tamis::Error>() else {
                output::say(&format!("error: {error:#}"));
                return 1;
            };
            messages.say_error(error);
            match error {
                tamis::Error::Interrupted => 130,
                error if error.is_input() => 2,
                _ => 1,
            }
        }
    }
}

/// Prints what a command found.
fn print(outcome: &Outcome) -> anyhow::Result<()> {
    output::print(outcome.summary.trim_end())?;
    match &outcome.failure {
        None => Ok(()),
        Some(failure) => anyhow::bail!("{failure}"),
    }
}

/// A write beyond the limit on the size of files fails with an error that names the file. The signal that comes with it would end the
/// process before anybody is told.
#[cfg(unix)]
fn keep_file_size_limit_an_error() {
    // Where no handler can be set, the limit ends the process, as it does without one.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
}

/// Prints what makes this shell complete the command.
fn completions(mut command: clap::Command, shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "tamis", &mut script);
    Ok(output::print_bytes(&script)?)
}
