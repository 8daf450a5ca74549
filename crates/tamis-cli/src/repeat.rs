//! The command that makes a run again: its flags for what differs from the defaults, and a `repeat.toml` for what has no flag.

use std::collections::BTreeMap;

use clap::Arg;
use serde_json::Value;

use crate::{
    cli,
    keys::{self, NETWORKS, plain},
};

/// Settings that never change a result, and so are left out.
const SILENT: [&str; 1] = ["frozen_memory"];

/// What is set otherwise than by default.
struct Difference {
    /// The setting, as a settings file has it.
    key: String,
    value: Value,
}

/// The command of a run with these settings, for a POSIX shell; the subcommand is one [`cli::WITH_SETTINGS`] lists.
pub(crate) fn command(subcommand: &str, ours: &Value) -> Option<String> {
    let command = cli::command();
    let command = cli::find(&command, subcommand)?;
    let (mut with_flag, mut file) = (Vec::new(), String::new());
    for Difference { key, value } in differences(subcommand, ours) {
        match keys::flag(command, &key) {
            Some(flag) => with_flag.push((flag, value)),
            // JSON's values are TOML's, and dotted keys need no tables.
            None => file += &format!("{key} = {value}\n"),
        }
    }
    let place = |flag: &Arg| {
        command
            .get_arguments()
            .position(|there| there.get_id() == flag.get_id())
    };
    with_flag.sort_by_key(|(flag, _)| place(flag));

    let mut line = format!("tamis {subcommand}");
    if !file.is_empty() {
        line += " --config repeat.toml";
    }
    for (flag, value) in &with_flag {
        for word in words(flag, value) {
            line.push(' ');
            line += &quoted(&word);
        }
    }
    Some(if file.is_empty() {
        line
    } else {
        format!("cat > repeat.toml <<'END'\n{file}END\n{line}")
    })
}

/// The settings that differ from the defaults; those of the selection in a study or a check go by the names that they have alone.
fn differences(subcommand: &str, ours: &Value) -> Vec<Difference> {
    let mut defaults = BTreeMap::new();
    keys::for_each(&cli::defaults(subcommand), "", &mut |key, value| {
        defaults.insert(key.to_owned(), value.clone());
    });
    let mut differences = Vec::new();
    let one_budget = ours["budgets"] == Value::Array(vec![ours["select"]["budget"].clone()]);
    keys::for_each(ours, "", &mut |full, value| {
        let key = full.strip_prefix("select.").unwrap_or(full);
        // In a study one budget is the selection's; where several agents are named, the one of the selection does not count.
        let beside = match (subcommand, full) {
            ("study" | "check agent", "select.agent") => true,
            ("study", "select.budget") => !one_budget,
            ("study", "budgets") => one_budget,
            _ => false,
        };
        if !beside && !SILENT.contains(&key) && value != defaults.get(full).unwrap_or(&Value::Null) {
            let (key, value) = (key.to_owned(), value.clone());
            differences.push(Difference { key, value });
        }
    });

    // One flag sets both networks.
    let place = |differences: &[Difference], name| differences.iter().position(|there| there.key == name);
    if let (Some(dqn), Some(ppo)) = (place(&differences, NETWORKS[0]), place(&differences, NETWORKS[1]))
        && differences[dqn].value == differences[ppo].value
    {
        differences[dqn].key = "network".into();
        differences.remove(ppo);
    }
    differences
}

/// What is typed to give a flag this value.
fn words(flag: &Arg, value: &Value) -> Vec<String> {
    let name = format!("--{}", flag.get_long().unwrap_or_default());
    match value {
        Value::Bool(_) => vec![name],
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(plain).collect();
            match flag.get_value_delimiter() {
                Some(delimiter) => vec![name, values.join(&delimiter.to_string())],
                None => [vec![name], values].concat(),
            }
        }
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(role, value)| [name.clone(), format!("{role}={}", plain(value))])
            .collect(),
        value => vec![name, plain(value)],
    }
}

/// A word that the shell reads as it stands here.
fn quoted(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use tamis::{
        agents::network::NetworkKind,
        budget::Budget,
        commands::CheckProxySettings,
        metrics::MetricKind,
        settings::{SelectSettings, StudyMethod, StudySettings},
    };

    use super::*;

    fn repeated(subcommand: &str, settings: &impl serde::Serialize) -> String {
        let settings = serde_json::to_value(settings).expect("JSON");
        command(subcommand, &settings).expect("a command")
    }

    fn select(settings: &SelectSettings) -> String {
        repeated("select", settings)
    }

    fn study(settings: &StudySettings) -> String {
        repeated("study", settings)
    }

    #[test]
    fn a_command_says_what_differs_and_the_shell_reads_it_as_it_was_meant() {
        let mut settings = SelectSettings {
            budget: Budget::Tokens(200_000),
            metric: MetricKind::MacroF1,
            clusters: Some(12),
            out: "runs/it's here".into(),
            frozen_memory: 1,
            ..SelectSettings::default()
        };
        settings.data.train = vec!["a.jsonl".into(), "my rows $HOME.jsonl".into()];
        settings.data.field.insert("text".into(), "the review".into());
        settings.dqn.network = NetworkKind::Flat;
        settings.ppo.network = NetworkKind::Flat;
        assert_eq!(
            select(&settings),
            "tamis select --train a.jsonl 'my rows $HOME.jsonl' --field 'text=the review' --budget '200000 tokens' \
             --out 'runs/it'\\''s here' --clusters 12 --network flat --metric macro-f1"
        );
        settings = SelectSettings::default();
        settings.k_means.max_iterations += 1;
        settings.ppo.network = NetworkKind::Flat;
        assert_eq!(
            select(&settings),
            format!(
                "cat > repeat.toml <<'END'\nk_means.max_iterations = {}\nppo.network = \"flat\"\nEND\ntamis select --config repeat.toml",
                settings.k_means.max_iterations
            )
        );
    }

    #[test]
    fn a_studys_command_has_its_flags_and_those_of_its_selections() {
        let mut settings = StudySettings::default();
        assert_eq!(study(&settings), "tamis study");
        settings.select.budget = Budget::Percent(2.0);
        settings.budgets = vec![Budget::Percent(2.0)];
        settings.seeds = 3;
        assert_eq!(study(&settings), "tamis study --budget 2% --seeds 3");
        settings.select = StudySettings::default().select;
        settings.budgets = vec![Budget::Percent(1.0), Budget::Rows(500)];
        settings.methods = vec![StudyMethod::Random, StudyMethod::Everything];
        settings.selections.insert("mine".into(), "rows {seed}.txt".into());
        assert_eq!(
            study(&settings),
            "tamis study --methods random,everything --budgets 1%,500 --seeds 3 --selection 'mine=rows {seed}.txt'"
        );
    }

    #[test]
    fn a_checks_command_has_flags_that_take_no_value() {
        let mut settings = CheckProxySettings {
            finetune: false,
            selections: 2,
            ..CheckProxySettings::default()
        };
        settings.select.out = "runs/check-proxy".into();
        assert_eq!(
            repeated("check proxy", &settings),
            "tamis check proxy --selections 2 --skip-finetunes"
        );
    }
}
