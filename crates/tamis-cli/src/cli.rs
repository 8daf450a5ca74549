//! What the user typed.

use clap::{ArgAction, ArgMatches, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use serde_json::Value;
use tamis::{
    commands::{CheckAgentSettings, CheckClustersSettings, CheckProxySettings},
    settings::{FinetuneSettings, SelectSettings, StudySettings},
};

use crate::{
    commands::{check::CheckCommand, demo::DemoArgs, finetune::FinetuneArgs, report::ReportArgs, study::StudyArgs},
    flags::SelectArgs,
    keys,
};

/// Picks the small part of a fine-tuning set that is worth training on.
///
/// Training rows are clustered; an agent decides, chunk by chunk, what to add, rewarded by the change of a fast probe's validation
/// score; the chosen rows are written back verbatim, with evidence beside random and full-data controls.
#[derive(Debug, Parser)]
#[command(name = "tamis", version, max_term_width = 110, disable_help_flag = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print help
    #[arg(short, long, global = true, action = ArgAction::HelpShort, display_order = 1000)]
    help: Option<bool>,
    /// Print help with all flags, and what their values mean
    #[arg(long, global = true, action = ArgAction::HelpLong, display_order = 1000)]
    help_all: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Choose rows from training files within a budget
    Select(Box<SelectArgs>),
    /// Fine-tune a model on a selection, or on everything, and evaluate it
    Finetune(Box<FinetuneArgs>),
    /// Compare methods, budgets and seeds on your data: a table with controls, intervals and costs
    Study(Box<StudyArgs>),
    /// Check whether a part of the method does its work on your data
    #[command(subcommand)]
    Check(CheckCommand),
    /// Write report.html of a run or a study again, and print where it is
    Report(ReportArgs),
    /// Make a small synthetic data set and select from it, in well under a minute
    Demo(DemoArgs),
    /// Print the script that completes commands, flags and values in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// The subcommands that have settings, as they are typed.
pub(crate) const WITH_SETTINGS: [&str; 6] = [
    "select",
    "finetune",
    "study",
    "check clusters",
    "check proxy",
    "check agent",
];

/// The settings of such a subcommand where nothing is typed.
pub(crate) fn defaults(subcommand: &str) -> Value {
    let out = |out: &str| SelectSettings {
        out: out.into(),
        ..SelectSettings::default()
    };
    let value = match subcommand {
        "select" => serde_json::to_value(SelectSettings::default()),
        "finetune" => serde_json::to_value(FinetuneSettings::default()),
        "study" => serde_json::to_value(StudySettings::default()),
        "check clusters" => serde_json::to_value(CheckClustersSettings {
            select: out("runs/check-clusters"),
            ..CheckClustersSettings::default()
        }),
        "check proxy" => serde_json::to_value(CheckProxySettings {
            select: out("runs/check-proxy"),
            ..CheckProxySettings::default()
        }),
        _ => serde_json::to_value(CheckAgentSettings {
            select: out("runs/check-agent"),
            ..CheckAgentSettings::default()
        }),
    };
    value.unwrap_or_default()
}

/// The subcommands that take several agents, and so no `--agent`.
const WITHOUT_AGENT: [&str; 2] = ["study", "check agent"];

/// The command with all that it takes; help says the defaults, which are the library's.
pub(crate) fn command() -> clap::Command {
    WITH_SETTINGS.iter().fold(Cli::command(), |command, subcommand| {
        let path: Vec<&str> = subcommand.split(' ').collect();
        at(command, &path, &|command| {
            let command = with_defaults(command, &defaults(subcommand));
            if WITHOUT_AGENT.contains(subcommand) {
                command.mut_args(|argument| {
                    let hidden = argument.get_id() == "agent";
                    argument.hide(hidden)
                })
            } else {
                command
            }
        })
    })
}

/// Changes a subcommand's subcommand.
fn at(command: clap::Command, path: &[&str], change: &dyn Fn(clap::Command) -> clap::Command) -> clap::Command {
    match path {
        [] => change(command),
        [name, path @ ..] => command.mut_subcommand(name, |command| at(command, path, change)),
    }
}

fn with_defaults(command: clap::Command, defaults: &Value) -> clap::Command {
    let mut shown: Vec<(String, String)> = Vec::new();
    keys::for_each(defaults, "", &mut |key, value| {
        let one = value.is_string() || value.is_number();
        let key = if key == keys::NETWORKS[0] || key == format!("select.{}", keys::NETWORKS[0]) {
            "network"
        } else {
            key
        };
        if let Some(argument) = keys::flag(&command, key).filter(|_| one && *value != Value::String(String::new())) {
            shown.push((argument.get_id().to_string(), keys::plain(value)));
        }
    });
    // All at once: an argument that is changed alone goes to the end of the list.
    command.mut_args(|argument| match shown.iter().find(|(id, _)| argument.get_id() == id) {
        Some((_, default)) => {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            argument.help(format!("{help} [default: {default}]"))
        }
        None => argument,
    })
}

/// The subcommand that was typed, or the subcommand's own.
pub(crate) fn typed<'a>(command: &'a clap::Command, matches: &ArgMatches) -> &'a clap::Command {
    match matches.subcommand() {
        Some((name, matches)) => command
            .find_subcommand(name)
            .map_or(command, |command| typed(command, matches)),
        None => command,
    }
}

/// The subcommand of this path, such as `check proxy`.
pub(crate) fn find<'a>(command: &'a clap::Command, path: &str) -> Option<&'a clap::Command> {
    path.split(' ')
        .try_fold(command, |command, name| command.find_subcommand(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_well_formed() {
        command().debug_assert();
        for path in WITH_SETTINGS {
            assert!(find(&command(), path).is_some(), "{path}");
        }
    }
}
