//! How labels are written: decided once for all files, from all their rows, so that a label is the same one whatever the file's format.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde_json::Value;

use crate::{
    Error, Place, Result,
    data::{
        rejects::{Fault, FaultKind},
        source::name_of,
    },
};

/// How many labels a message names.
const NAMED: usize = 8;

/// A label as it stands in a file: a text, as numbers and truth values are too in some formats, or a number. Rows of one label share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Label(pub(crate) Arc<str>);

impl Label {
    /// The label in a field.
    pub(crate) fn of(field: &str, value: &Value) -> Result<Self, Fault> {
        let expected = "expected a label (a text, a whole number, true or false)";
        match value {
            Value::String(text) if text.trim().is_empty() => Err(Fault::other(format!(
                "{expected} in `{field}`, found {}",
                name_of(value)
            ))),
            Value::String(text) => Ok(Self(text.as_str().into())),
            Value::Number(number) => Ok(Self(number.to_string().into())),
            Value::Bool(truth) => Ok(Self(truth.to_string().into())),
            Value::Null => Err(Fault::new(
                FaultKind::Unlabelled,
                format!("{expected} in `{field}`, found null"),
            )),
            Value::Array(_) => Err(Fault::new(
                FaultKind::ManyLabels,
                format!("{expected} in `{field}`, found a list"),
            )),
            other @ Value::Object(_) => Err(Fault::other(format!(
                "{expected} in `{field}`, found {}",
                name_of(other)
            ))),
        }
    }
}

/// The labels of some rows of one file.
pub(crate) struct Labels<'a> {
    pub(crate) place: Place,
    /// Each with how often it is there.
    pub(crate) counts: BTreeMap<&'a str, u64>,
}

/// How all labels of a run are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// As they stand.
    AsIs,
    /// Whole numbers that are written with a fraction in some files: 1.0 is the label 1.
    WholeNumbers,
    /// True and false, which Python and JSON begin differently.
    Truth,
}

impl Spelling {
    /// How the labels of these files are written.
    ///
    /// # Errors
    ///
    /// If they are numbers of which some have fractions, or numbers in one file and names in another.
    pub(crate) fn decide(files: &[Labels<'_>]) -> Result<Self> {
        let all = || files.iter().flat_map(|file| file.counts.keys().copied());
        if all().all(|label| matches!(label.to_ascii_lowercase().as_str(), "true" | "false")) {
            return Ok(Self::Truth);
        }
        if all().all(|label| number(label).is_some()) {
            let score = |label: &str| number(label).is_some_and(|number| number.fract() != 0.0);
            if let Some((file, label)) = files
                .iter()
                .find_map(|file| Some((file, file.counts.keys().find(|label| score(label))?)))
            {
                let expected = "labels: texts, whole numbers, true or false";
                return Err(Error::data(
                    file.place.clone(),
                    expected,
                    format!("numbers with fractions, such as {label}"),
                )
                .with_hint(FaultKind::Score.way_out()));
            }
            return Ok(Self::WholeNumbers);
        }
        let numbers =
            |file: &&Labels<'_>| !file.counts.is_empty() && file.counts.keys().all(|label| number(label).is_some());
        let names = |file: &&Labels<'_>| file.counts.keys().all(|label| number(label).is_none());
        if let (Some(numbered), Some(named)) = (files.iter().find(numbers), files.iter().find(names)) {
            let some = |file: &Labels<'_>| listed(file.counts.keys().copied());
            return Err(Error::data(
                numbered.place.clone(),
                format!("labels by name, as in {} ({})", named.place, some(named)),
                format!("numbers ({})", some(numbered)),
            )
            .with_hint("write the labels alike in all files: which number stands for which name is not told"));
        }
        Ok(Self::AsIs)
    }

    /// A label in this spelling.
    pub(crate) fn of(self, label: &Label) -> String {
        match self {
            Self::AsIs => label.0.to_string(),
            Self::Truth => label.0.to_ascii_lowercase(),
            // Whole numbers keep their digits, such as the zeros in front.
            Self::WholeNumbers if label.0.parse::<i64>().is_ok() => label.0.to_string(),
            Self::WholeNumbers => number(&label.0).map_or_else(|| label.0.to_string(), |number| format!("{number:.0}")),
        }
    }
}

/// A label that is a number.
fn number(label: &str) -> Option<f64> {
    let digits = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E');
    let number: f64 = label.trim().bytes().all(digits).then(|| label.trim().parse().ok())??;
    number.is_finite().then_some(number)
}

/// The labels of the training rows: in order of value where all are whole numbers, else of spelling.
pub(crate) fn in_order<'a>(labels: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<&str> = labels.collect::<HashSet<_>>().into_iter().collect();
    names.sort_unstable();
    if names.iter().all(|name| name.parse::<i64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<i64>().unwrap_or(0));
    }
    names.into_iter().map(str::to_owned).collect()
}

/// That rows have labels which no training row has: how many have which, in one message.
pub(crate) fn unknown_to_training(unknown: &Labels<'_>, labels: &[String], split: &str) -> Error {
    let place = unknown.place.clone();
    let unknown: Vec<(&str, u64)> = unknown.counts.iter().map(|(label, count)| (*label, *count)).collect();
    let rows: u64 = unknown.iter().map(|(_, count)| count).sum();
    let rows = if rows == 1 {
        "1 row".to_owned()
    } else {
        format!("{rows} rows")
    };
    let names = listed(unknown.iter().map(|(label, _)| *label));
    let hint = if let [("-1", _)] = unknown[..] {
        FaultKind::Unlabelled.way_out().to_owned()
    } else {
        format!(
            "add training rows of these labels, or write the labels alike in the training and the {split} files; a name of another \
             field goes into `field label=<name>`"
        )
    };
    Error::data(
        place,
        format!(
            "labels that the training rows know ({})",
            listed(labels.iter().map(String::as_str))
        ),
        format!(
            "{rows} with {}",
            if unknown.len() == 1 {
                names
            } else {
                format!("{} others ({names})", unknown.len())
            }
        ),
    )
    .with_hint(hint)
}

/// A label's first characters, where it is long: a column that was named by mistake may hold whole texts.
fn shortened(label: &str) -> String {
    match label.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &label[..end]),
        None => label.to_owned(),
    }
}

/// The first few labels.
fn listed<'a>(labels: impl Iterator<Item = &'a str>) -> String {
    let labels: Vec<&str> = labels.take(NAMED + 1).collect();
    let mut names: Vec<String> = labels
        .iter()
        .take(NAMED)
        .map(|label| format!("`{}`", shortened(label)))
        .collect();
    if labels.len() > NAMED {
        names.push("...".to_owned());
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(files: &[(&str, &[&'static str])]) -> Result<Spelling> {
        let files: Vec<Labels<'_>> = files
            .iter()
            .map(|(path, labels)| Labels {
                place: Place::file(*path),
                counts: labels.iter().map(|label| (*label, 1)).collect(),
            })
            .collect();
        Spelling::decide(&files)
    }

    #[test]
    fn one_spelling_holds_for_all_files() {
        let of = |spelling: Spelling, label: &str| spelling.of(&Label(label.into()));
        let numbers = decided(&[("a.csv", &["0.0", "1.0"]), ("b.jsonl", &["0", "01"])]).expect("are numbers");
        assert_eq!(
            [of(numbers, "1.0"), of(numbers, "1"), of(numbers, "01")],
            ["1", "1", "01"]
        );
        let truth = decided(&[("a.csv", &["True", "False"]), ("b.jsonl", &["true"])]).expect("are truth values");
        assert_eq!(of(truth, "True"), "true");
        let names = decided(&[("a.csv", &["1.0", "new"]), ("b.jsonl", &["new", "2"])]).expect("are names");
        assert_eq!(of(names, "1.0"), "1.0");
    }

    #[test]
    fn scores_and_numbers_beside_names_are_refused() {
        let said = |files: &[(&str, &[&'static str])]| {
            let error = decided(files).expect_err("do not fit");
            format!("{error}\nhint: {}", error.hint().unwrap_or_default())
        };
        insta::assert_snapshot!(said(&[("a.csv", &["0.5", "1.0"])]), @r"
        a.csv: expected labels: texts, whole numbers, true or false, found numbers with fractions, such as 0.5
        hint: numbers with fractions are scores and no classes: write each row's class, for instance a range of scores
        ");
        insta::assert_snapshot!(said(&[("a.parquet", &["no", "yes"]), ("b.csv", &["0", "1"])]), @r"
        b.csv: expected labels by name, as in a.parquet (`no`, `yes`), found numbers (`0`, `1`)
        hint: write the labels alike in all files: which number stands for which name is not told
        ");
    }
}
