//! The library's words in the words of its users: where it names a setting, they typed a flag, or a keyword argument.

use std::collections::BTreeSet;

use clap::Command;
use serde::Serialize;
use serde_json::Value;
use tamis::Error;

use crate::output;

/// Shows what the library says to somebody who typed one of the subcommands.
#[derive(Debug, Clone)]
pub struct Messages {
    /// The subcommand's flags, without their dashes.
    flags: BTreeSet<String>,
    style: Style,
    repeat: Repeat,
}

/// Makes the command that makes a run of a subcommand with these settings again.
pub(crate) type Repeat = fn(subcommand: &str, settings: &Value) -> Option<String>;

/// How users give settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// `--max-evaluations 100`
    Flags,
    /// `max_evaluations=100`
    Keywords,
}

impl Messages {
    /// For the flags of this subcommand.
    pub(crate) fn new(command: &Command, style: Style, repeat: Repeat) -> Self {
        let flags = command.get_arguments().filter_map(|argument| argument.get_long());
        Self {
            flags: flags.map(str::to_owned).collect(),
            style,
            repeat,
        }
    }

    /// The command that makes a run of this subcommand with these settings again.
    pub(crate) fn command(&self, subcommand: &str, settings: &impl Serialize) -> Option<String> {
        (self.repeat)(subcommand, &serde_json::to_value(settings).ok()?)
    }

    /// The flag of a setting, such as `--max-evaluations` for `max_evaluations`; where the subcommand has none, the setting's name, as
    /// the settings file has it.
    fn setting(&self, name: &str) -> String {
        let flag = name.replace('_', "-");
        if self.style == Style::Flags && self.flags.contains(&flag) {
            format!("--{flag}")
        } else {
            name.to_owned()
        }
    }

    /// What stands between two backticks and begins with a setting's name, as users type it.
    fn advice(&self, name: &str, value: &str) -> String {
        let is_flag = self.flags.contains(&name.replace('_', "-"));
        if self.style == Style::Flags || !is_flag || value.is_empty() {
            return format!("{}{value}", self.setting(name));
        }
        let value = value.trim_start();
        if let Some((role, field)) = value.split_once('=') {
            return format!("{name}={{\"{role}\": \"{field}\"}}");
        }
        if value.starts_with('<') || value.parse::<f64>().is_ok() {
            return format!("{name}={value}");
        }
        format!("{name}=\"{value}\"")
    }

    /// A text in which a setting that opens what stands between two backticks becomes its flag: `` `chunk <rows>` `` is then
    /// `` `--chunk <rows>` ``, or `` `chunk=<rows>` ``.
    pub fn text(&self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        for (i, part) in text.split('`').enumerate() {
            if i > 0 {
                shown.push('`');
            }
            // Every other part stands between backticks.
            let (name, rest) = part.split_at(part.find(' ').unwrap_or(part.len()));
            if i % 2 == 1 {
                shown.push_str(&self.advice(name, rest));
            } else {
                shown.push_str(part);
            }
        }
        shown
    }

    /// What went wrong. What was found stays as it is: it is the user's own, even where it reads like a setting.
    pub fn error(&self, error: &Error) -> String {
        match error {
            Error::Setting {
                name, expected, found, ..
            } => format!(
                "{}: expected {}, found {found}",
                self.setting(name),
                self.text(expected)
            ),
            // Its message holds what it was caused by.
            error => error.to_string(),
        }
    }

    /// Says on standard error what went wrong, and the way out.
    pub(crate) fn say_error(&self, error: &Error) {
        output::say(&format!("error: {}", self.error(error)));
        if let Some(hint) = error.hint() {
            output::say(&format!("hint: {}", self.text(&hint)));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn messages_in(style: Style) -> Messages {
        let flag = |name| Arg::new(name).long(name);
        let command = Command::new("select").args([flag("max-evaluations"), flag("chunk"), flag("out")]);
        Messages::new(&command, style, |_, _| None)
    }

    #[test]
    fn a_setting_between_backticks_becomes_its_flag_where_there_is_one() {
        for (text, want) in [
            ("fewer steps: `chunk <rows>`", "fewer steps: `--chunk <rows>`"),
            ("`max_evaluations 9`, or `out`", "`--max-evaluations 9`, or `--out`"),
            ("`pass_tokens`, `chunks`, out", "`pass_tokens`, `chunks`, out"),
            ("`finetune.fold_rows 5`", "`finetune.fold_rows 5`"),
            ("no end: `out", "no end: `--out"),
            ("", ""),
        ] {
            assert_eq!(messages().text(text), want);
        }
    }

    fn messages() -> Messages {
        messages_in(Style::Flags)
    }

    #[test]
    fn in_python_it_is_a_keyword_argument() {
        let messages = messages_in(Style::Keywords);
        for (text, want) in [
            ("fewer steps: `chunk <rows>`", "fewer steps: `chunk=<rows>`"),
            ("`max_evaluations 9`, or `out`", "`max_evaluations=9`, or `out`"),
            ("`out runs/first`", "`out=\"runs/first\"`"),
            ("`chunk text=<name>`", "`chunk={\"text\": \"<name>\"}`"),
            ("`finetune.fold_rows 5`", "`finetune.fold_rows 5`"),
            ("`jq -c .x`", "`jq -c .x`"),
        ] {
            assert_eq!(messages.text(text), want);
        }
    }

    #[test]
    fn what_was_found_is_the_users_own() {
        let error = Error::setting("chunk", "less than `out`", "`out`");
        assert_eq!(
            messages().error(&error),
            "--chunk: expected less than `--out`, found `out`"
        );
        let error = Error::setting("dqn.batch_size", "a number above 0", "0");
        assert_eq!(
            messages().error(&error),
            "dqn.batch_size: expected a number above 0, found 0"
        );
    }
}
