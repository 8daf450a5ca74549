//! The command that makes a run again: its flags for what differs from the defaults, and a `repeat.toml` for what has no flag.

use serde_json::Value;

use crate::{
    Result,
    settings::{StudySettings, select::SelectSettings},
    workspace::json::without,
};

/// Settings that never change a result, and so are not told.
const SILENT: [&str; 2] = ["gram_memory", "frozen_memory"];

/// Settings and their flags, in the order in which they are typed.
const FLAGS: [(&str, &str); 35] = [
    ("data.train", "--train"),
    ("data.validation", "--validation"),
    ("data.test", "--test"),
    ("budget", "--budget"),
    ("budgets", "--budgets"),
    ("methods", "--methods"),
    ("seeds", "--seeds"),
    ("selections", "--selection"),
    ("data.field", "--field"),
    ("data.task", "--task"),
    ("data.leaks", "--leaks"),
    ("data.max_bad", "--max-bad"),
    ("embedder", "--embedder"),
    ("embed_dtype", "--embed-dtype"),
    ("cache", "--cache"),
    ("clusters", "--clusters"),
    ("agent", "--agent"),
    ("reward_model", "--reward-model"),
    ("network", "--network"),
    ("chunk", "--chunk"),
    ("order", "--order"),
    ("doubtful", "--doubtful"),
    ("within", "--within"),
    ("metric", "--metric"),
    ("reward", "--reward"),
    ("proxy", "--proxy"),
    ("max_evaluations", "--max-evaluations"),
    ("max_time", "--max-time"),
    ("model", "--model"),
    ("adapt", "--adapt"),
    ("judge", "--judge"),
    ("finalists", "--finalists"),
    ("judge_rows", "--judge-rows"),
    ("seed", "--seed"),
    ("out", "--out"),
];

/// The command of a selection, for a POSIX shell.
pub(crate) fn command(settings: &SelectSettings) -> Result<String> {
    let values = |settings| without(settings, &SILENT);
    Ok(typed(
        "tamis select",
        &values(settings)?,
        &values(&SelectSettings::default())?,
    ))
}

/// The command of a study.
pub(crate) fn study_command(settings: &StudySettings) -> Result<String> {
    // As the flags have it, the selection's settings stand beside the study's; its agent does not count, and one budget is its own.
    let values = |settings: &StudySettings| -> Result<Value> {
        let mut silent = SILENT.to_vec();
        silent.push("agent");
        let one = settings.budgets == [settings.select.budget];
        silent.extend((!one).then_some("budget"));
        let mut all = without(&settings.select, &silent)?;
        let mut own = without(settings, if one { &["select", "budgets"] } else { &["select"] })?;
        if let (Some(all), Some(own)) = (all.as_object_mut(), own.as_object_mut()) {
            all.append(own);
        }
        Ok(all)
    };
    Ok(typed(
        "tamis study",
        &values(settings)?,
        &values(&StudySettings::default())?,
    ))
}

/// The command whose settings are ours where others are the defaults.
fn typed(program: &str, ours: &Value, defaults: &Value) -> String {
    let mut differences = Vec::new();
    compare("", ours, defaults, &mut differences);
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

    let mut line = program.to_owned();
    let mut file = String::new();
    if differences.iter().any(|(name, _)| flag(name).is_none()) {
        line += " --config repeat.toml";
    }
    differences.sort_by_key(|(name, _)| FLAGS.iter().position(|(there, _)| there == name));
    for (name, value) in &differences {
        match flag(name) {
            Some(flag) => add_flag(&mut line, flag, value),
            // JSON's values are TOML's, and dotted keys need no tables.
            None => file += &format!("{name} = {value}\n"),
        }
    }
    if file.is_empty() {
        line
    } else {
        format!("cat > repeat.toml <<'END'\n{file}END\n{line}")
    }
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
        Value::Array(values) if matches!(flag, "--methods" | "--budgets") => {
            add(flag);
            add(&values.iter().map(plain).collect::<Vec<_>>().join(","));
        }
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

/// The settings that differ, by their full names; a list of names and what they stand for is one setting.
fn compare(name: &str, ours: &Value, default: &Value, differences: &mut Vec<(String, Value)>) {
    match (ours, default) {
        (Value::Object(fields), Value::Object(defaults)) if name != "data.field" && name != "selections" => {
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
    use crate::{
        agents::network::NetworkKind, budget::Budget, metrics::MetricKind, settings::study_method::StudyMethod,
    };

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
        settings.dqn.double = !settings.dqn.double;
        settings.ppo.network = NetworkKind::Flat;
        assert_eq!(
            command(&settings).expect("a command"),
            format!(
                "cat > repeat.toml <<'END'\ndqn.double = {}\nppo.network = \"flat\"\nEND\ntamis select --config repeat.toml",
                settings.dqn.double
            )
        );
    }
    #[test]
    fn a_studys_command_has_its_flags_and_those_of_its_selections() {
        let mut settings = StudySettings::default();
        assert_eq!(study_command(&settings).expect("a command"), "tamis study");
        settings.select.budget = Budget::Percent(2.0);
        settings.budgets = vec![Budget::Percent(2.0)];
        settings.seeds = 3;
        assert_eq!(
            study_command(&settings).expect("a command"),
            "tamis study --budget 2% --seeds 3"
        );
        settings.select = StudySettings::default().select;
        settings.budgets = vec![Budget::Percent(1.0), Budget::Rows(500)];
        settings.methods = vec![StudyMethod::Random, StudyMethod::Everything];
        settings.selections.insert("mine".into(), "rows {seed}.txt".into());
        assert_eq!(
            study_command(&settings).expect("a command"),
            "tamis study --budgets 1%,500 --methods random,everything --seeds 3 --selection 'mine=rows {seed}.txt'"
        );
    }
}
