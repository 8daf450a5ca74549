//! The `tamis` command: reads what the user typed, runs one subcommand, says how it ended.
//!
//! Exit status: 0 done, 1 the run failed, 2 the user's input (usage, settings, data) is at fault, 130 interrupted.

mod cli;
mod commands;
mod flags;
mod keys;
mod messages;
mod output;
mod progress;
#[cfg(test)]
mod reference;
mod repeat;
mod summary;
mod threads;
mod values;

use std::process::ExitCode;

use clap::{ArgMatches, FromArgMatches};
use cli::{Cli, Command};
use commands::{check, demo, finetune, report, select, study};
use messages::Messages;

fn main() -> ExitCode {
    #[cfg(unix)]
    keep_file_size_limit_an_error();
    say_nothing_of_caught_panics();
    let command = cli::command();
    let matches = command.clone().get_matches();
    let messages = Messages::new(typed(&command, &matches), repeat::command);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let progress = progress::Progress::new(&messages);
    let outcome = match cli.command {
        Command::Select(args) => select::run(*args, &messages, &progress),
        Command::Finetune(args) => finetune::run(*args, &progress),
        Command::Study(args) => study::run(*args, &messages, &progress),
        Command::Check(command) => check::run(command, &messages, &progress),
        Command::Report(args) => report::run(&args),
        Command::Demo(args) => demo::run(&args, &messages, &progress),
        Command::Completions { shell } => completions(command, shell),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress.clear();
            let Some(error) = error.downcast_ref::<tamis::Error>() else {
                output::say(&format!("error: {error:#}"));
                return ExitCode::FAILURE;
            };
            messages.say_error(error);
            ExitCode::from(match error {
                tamis::Error::Interrupted => 130,
                error if error.is_input() => 2,
                _ => 1,
            })
        }
    }
}

/// A reader that panics on a damaged file is an error with a message of its own.
fn say_nothing_of_caught_panics() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !tamis::unwind::catches() {
            say(panic);
        }
    }));
}

/// A write beyond the limit on the size of files fails with an error that names the file. The signal that comes with it would end the
/// process before anybody is told.
#[cfg(unix)]
fn keep_file_size_limit_an_error() {
    // Where no handler can be set, the limit ends the process, as it does without one.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
}

/// The subcommand that was typed, or the subcommand's own.
fn typed<'a>(command: &'a clap::Command, matches: &ArgMatches) -> &'a clap::Command {
    match matches.subcommand() {
        Some((name, matches)) => command
            .find_subcommand(name)
            .map_or(command, |command| typed(command, matches)),
        None => command,
    }
}

/// Prints what makes this shell complete the command.
fn completions(mut command: clap::Command, shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "tamis", &mut script);
    Ok(output::print_bytes(&script)?)
}
