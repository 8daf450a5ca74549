//! A command line that was read and checked, ready to run: what the `tamis` command and the Python package share.

use clap::{
    FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};
use tamis::{Error, Monitor, commands::Outside, data::DataSettings};

use crate::{
    cli::{self, Cli, Command},
    commands::{check, finetune, select, study},
    messages::{Messages, Style},
    outcome::Outcome,
    repeat,
};

/// A command of those that have settings, by its arguments, with messages that speak of keyword arguments.
pub struct Invocation {
    command: Command,
    messages: Messages,
}

impl Invocation {
    /// Reads the arguments, which begin with the subcommand.
    ///
    /// # Errors
    ///
    /// If there is no such argument, or a value is none of its kind.
    pub fn read(arguments: &[String]) -> Result<Self, Error> {
        let command = cli::command();
        let typed = std::iter::once("tamis").chain(arguments.iter().map(String::as_str));
        let read = command
            .clone()
            .try_get_matches_from(typed)
            .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
        let (cli, matches) = read.map_err(|error| told(&error))?;
        Ok(Self {
            command: cli.command,
            messages: Messages::new(cli::typed(&command, &matches), Style::Keywords, repeat::command),
        })
    }

    /// The words for what the library says of this command.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// The data that it is about.
    ///
    /// # Errors
    ///
    /// If its settings file cannot be read.
    pub fn data(self) -> Result<DataSettings, Error> {
        match self.command {
            Command::Select(args) => Ok(args.into_settings()?.data),
            _ => Ok(DataSettings::default()),
        }
    }

    /// Runs it; `outside` does parts of it, in place of the command that `--trainer` names for one.
    ///
    /// # Errors
    ///
    /// If it fails, or the user stopped it.
    pub fn run(self, outside: &Outside<'_>, monitor: &dyn Monitor) -> anyhow::Result<Outcome> {
        run(self.command, &self.messages, outside, monitor)
    }
}

/// Runs a command that has settings.
pub(crate) fn run(
    command: Command,
    messages: &Messages,
    outside: &Outside<'_>,
    monitor: &dyn Monitor,
) -> anyhow::Result<Outcome> {
    match command {
        Command::Select(args) => select::run(*args, messages, outside, monitor),
        Command::Finetune(args) => finetune::run(*args, messages, monitor),
        Command::Study(args) => study::run(*args, messages, monitor),
        Command::Check(command) => check::run(command, messages, monitor),
        Command::Report(_) | Command::Demo(_) | Command::Completions { .. } => {
            anyhow::bail!("expected a command that has settings")
        }
    }
}

/// The flags of a subcommand and what each is for, in the order of its help.
pub fn flags(subcommand: &str) -> Vec<(String, String)> {
    let command = cli::command();
    let arguments = cli::find(&command, subcommand).map(|command| command.get_arguments().collect::<Vec<_>>());
    let flag = |argument: &&clap::Arg| {
        let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let values = argument
            .get_possible_values()
            .into_iter()
            .map(|value| value.get_name().to_owned());
        let values: Vec<String> = values.filter(|_| argument.get_action().takes_values()).collect();
        if !values.is_empty() {
            help += &format!(" [possible values: {}]", values.join(", "));
        }
        Some((argument.get_long()?.to_owned(), help))
    };
    arguments.iter().flatten().filter_map(flag).collect()
}

/// The words for what the library says of a subcommand to those who give keyword arguments.
pub fn messages(subcommand: &str) -> Messages {
    let command = cli::command();
    Messages::new(
        cli::find(&command, subcommand).unwrap_or(&command),
        Style::Keywords,
        repeat::command,
    )
}

/// What is wrong with the arguments, as an error about a setting.
fn told(error: &clap::Error) -> Error {
    let of = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join("`, `")),
        _ => None,
    };
    let name = |flag: &str| {
        let flag = flag.split([' ', '=']).next().unwrap_or_default();
        flag.trim_start_matches('-').replace('-', "_")
    };
    let argument = of(ContextKind::InvalidArg).map_or_else(|| "arguments".to_owned(), |flag| name(&flag));
    if error.kind() == ErrorKind::UnknownArgument {
        let unknown = Error::setting(argument, "a setting that there is", "one that is not known");
        return match of(ContextKind::SuggestedArg) {
            Some(flag) => unknown.with_hint(format!("did you mean `{}`?", name(&flag))),
            None => unknown.with_hint("help() lists the settings"),
        };
    }
    let found = of(ContextKind::InvalidValue).map_or_else(
        || error.kind().to_string(),
        |value| {
            if value.is_empty() {
                "none".to_owned()
            } else {
                format!("`{value}`")
            }
        },
    );
    if let Some(valid) = of(ContextKind::ValidValue) {
        return Error::setting(argument, format!("one of `{valid}`"), found);
    }
    // What a value's own reader says stands behind the last colon of the first line.
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let said = line
        .rsplit_once("': ")
        .map_or_else(|| line.trim_start_matches("error: "), |(_, said)| said);
    let said = said.trim_start_matches("expected ");
    match said.split_once(", found ") {
        Some((expected, found)) => Error::setting(argument, expected, found),
        None => Error::setting(argument, said, found),
    }
}
