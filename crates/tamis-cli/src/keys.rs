//! Which flag sets which setting: they have the same name, with `-` for `_`, and the flag leaves out the table that the setting is in.

use clap::{Arg, Command};
use serde_json::Value;

/// Flags that are called otherwise than their setting.
const OTHERS: [(&str, &str); 2] = [("finetune", "skip-finetunes"), ("selections", "selection")];
/// Tables whose settings have flags: of the selection in a study or a check, of the data, of how models are trained, and of language models.
const TABLES: [&str; 5] = ["select", "data", "finetune", "train", "language_model"];
/// A table whose name stands before its settings' in their flags.
const PREFIXED: &str = "lora";
/// The two settings that one flag sets.
pub(crate) const NETWORKS: [&str; 2] = ["dqn.network", "ppo.network"];
/// Settings that hold names and what they stand for, and are no tables.
pub(crate) const MAPS: [&str; 2] = ["data.field", "selections"];

/// The flag of a setting, if the subcommand has one.
pub(crate) fn flag<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let mut name = key;
    let mut prefix = String::new();
    while let Some((table, rest)) = name.split_once('.') {
        if table == PREFIXED {
            prefix = format!("{PREFIXED}-");
        } else if !TABLES.contains(&table) {
            return None;
        }
        name = rest;
    }
    let named = |long: &str| {
        command
            .get_arguments()
            .find(|argument| argument.get_long() == Some(long))
    };
    let other = OTHERS.iter().find(|(setting, _)| *setting == name);
    other
        .and_then(|(_, flag)| named(flag))
        .or_else(|| named(&format!("{prefix}{}", name.replace('_', "-"))))
}

/// Calls a function with every setting that is no table, by its full name.
pub(crate) fn for_each(settings: &Value, name: &str, of: &mut impl FnMut(&str, &Value)) {
    match settings {
        Value::Object(fields) if !MAPS.contains(&name.trim_start_matches("select.")) => {
            for (key, value) in fields {
                let full = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                for_each(value, &full, of);
            }
        }
        value => of(name, value),
    }
}

/// A value as it is shown and typed.
pub(crate) fn plain(value: &Value) -> String {
    if let Value::String(text) = value {
        return text.clone();
    }
    // What was an f32 is shown with an f32's digits.
    match value.as_f64() {
        Some(number) if value.is_f64() && f64::from(number as f32) == number => (number as f32).to_string(),
        _ => value.to_string(),
    }
}
