//! The command that makes a run again: its flags for what differs from the defaults, and a `tamis.toml` for what has no flag.

use serde_json::Value;

use super::{folder, settings::SelectSettings};
use crate::Result;

/// Settings and their flags, in the order in which they are typed.
const FLAGS: [(&str, &str); 26] = [
    ("data.train", "--train"),
    ("data.validation", "--validation"),
    ("data.test", "--test"),
    ("budget", "--budget"),
    ("data.field", "--field"),
    ("data.task", "--task"),
    ("data.leaks", "--leaks"),
    ("data.max_bad", "--max-bad"),
    ("embedder", "--embedder"),
    ("cache", "--cache"),
    ("clusters", "--clusters"),
    ("agent", "--agent"),
    ("reward_model", "--reward-model"),
    ("network", "--network"),
    ("chunk", "--chunk"),
    ("metric", "--metric"),
    ("reward", "--reward"),
    ("proxy", "--proxy"),
    ("max_evaluations", "--max-evaluations"),
    ("max_time", "--max-time"),
    ("model", "--model"),
    ("adapt", "--adapt"),
    ("judge", "--judge"),
    ("finalists", "--finalists"),
    ("seed", "--seed"),
    ("out", "--out"),
];

/// The command, for a POSIX shell.
pub(super) fn command(settings: &SelectSettings) -> Result<String> {
    let ours = folder::without(settings, &["gram_memory", "frozen_memory"])?;
    let defaults = folder::without(&SelectSettings::default(), &["gram_memory", "frozen_memory"])?;
    let mut differences = Vec::new();
    compare("", &ours, &defaults, &mut differences);
    // One flag sets both networks.
    let networks: Vec<usize> = ["dqn.network", "ppo.network"]
        .iter()
        .filter_map(|name| differences.iter().position(|(there, _)| there == name))
        .collect();
    if let [dqn, ppo] = networks[..]
        && differences[dqn].1 == differences[ppo].1
    {
        differences[dqn].0 = "network".into();
        differences.remove(ppo);
    }

    let mut line = String::from("tamis select");
    let mut file = String::new();
    if differences.iter().any(|(name, _)| flag(name).is_none()) {
        line += " --config tamis.toml";
    }
    differences.sort_by_key(|(name, _)| FLAGS.iter().position(|(there, _)| there == name));
    for (name, value) in &differences {
        match flag(name) {
            Some(flag) => add_flag(&mut line, flag, value),
            // JSON's values are TOML's, and dotted keys need no tables.
            None => file += &format!("{name} = {value}\n"),
        }
    }
    Ok(if file.is_empty() {
        line
    } else {
        format!("cat > tamis.toml <<'END'\n{file}END\n{line}")
    })
}

fn flag(name: &str) -> Option<&'static str> {
    FLAGS.iter().find(|(there, _)| *there == name).map(|(_, flag)| *flag)
}

fn add_flag(line: &mut String, flag: &str, value: &Value) {
    let mut add = |word: &str| {
        line.push(' ');
        line.push_str(&quoted(word));
    };
    match value {
        Value::Array(values) => {
            add(flag);
            values.iter().for_each(|value| add(&plain(value)));
        }
        Value::Object(fields) => fields.iter().for_each(|(role, name)| {
            add(flag);
            add(&format!("{role}={}", plain(name)));
        }),
        value => {
            add(flag);
            add(&plain(value));
        }
    }
}

/// A value as it is typed.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
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

/// The settings that differ, by their full names; what fields are called is one setting.
fn compare(name: &str, ours: &Value, default: &Value, differences: &mut Vec<(String, Value)>) {
    match (ours, default) {
        (Value::Object(fields), Value::Object(defaults)) if name != "data.field" => {
            for (key, value) in fields {
                let full = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                compare(&full, value, defaults.get(key).unwrap_or(&Value::Null), differences);
            }
        }
        _ if ours == default => {}
        _ => differences.push((name.to_owned(), ours.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::network::NetworkKind, budget::Budget, metric::MetricKind};

    #[test]
    fn a_command_says_what_differs_and_the_shell_reads_it_as_it_was_meant() {
        let mut settings = SelectSettings {
            budget: Budget::Tokens(200_000),
            metric: MetricKind::MacroF1,
            clusters: Some(12),
            out: "runs/it's here".into(),
            ..SelectSettings::default()
        };
        settings.data.train = vec!["a.jsonl".into(), "my rows $HOME.jsonl".into()];
        settings.data.field.insert("text".into(), "the review".into());
        settings.dqn.network = NetworkKind::Flat;
        settings.ppo.network = NetworkKind::Flat;
        settings.gram_memory = 1;
        assert_eq!(
            command(&settings).expect("a command"),
            "tamis select --train a.jsonl 'my rows $HOME.jsonl' --budget '200000 tokens' --field 'text=the review' \
             --clusters 12 --network flat --metric macro-f1 --out 'runs/it'\\''s here'"
        );
        settings = SelectSettings::default();
        settings.dqn.duelling = !settings.dqn.duelling;
        settings.ppo.network = NetworkKind::Flat;
        assert_eq!(
            command(&settings).expect("a command"),
            format!(
                "cat > tamis.toml <<'END'\ndqn.duelling = {}\nppo.network = \"flat\"\nEND\ntamis select --config tamis.toml",
                settings.dqn.duelling
            )
        );
    }
}
