//! Rows that cannot be used: why, and what is said where they are many.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{Error, Place, Result, data::Dataset};

/// A row that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reject {
    /// Its file.
    pub file: PathBuf,
    /// Its line or row, from 1.
    pub line: u64,
    /// What was expected and what was found.
    pub reason: String,
    #[serde(skip)]
    pub(crate) kind: FaultKind,
}

impl Reject {
    /// A row that was read, and that a model cannot learn from.
    pub(crate) fn new(file: &Path, line: u64, reason: &str) -> Self {
        Self {
            file: file.to_path_buf(),
            line,
            reason: reason.to_owned(),
            kind: FaultKind::Other,
        }
    }
}

/// Why a record holds no example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    /// What was expected and what was found.
    pub(crate) reason: String,
}

/// The mistakes that whole files have, each with a remedy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FaultKind {
    /// Text in another encoding.
    Encoding,
    /// NaN or Infinity among JSON.
    NotANumber,
    BrokenJson,
    /// JSON that goes on in the next line, or was cut off.
    BrokenOff,
    TooLong,
    /// Fields of other names.
    Fields,
    /// Rows of test files whose labels were kept back.
    Unlabelled,
    /// A list in the place of a label.
    ManyLabels,
    /// A label with a fraction.
    Score,
    /// A list as Python shows it.
    PythonList,
    Answer,
    /// Any other; alike are those with the same words.
    Other,
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }

    pub(crate) fn other(reason: impl Into<String>) -> Self {
        Self::new(FaultKind::Other, reason)
    }
}

impl FaultKind {
    /// Whether it comes from how a file was made, even if it shows in few rows.
    fn is_of_whole_files(self) -> bool {
        !matches!(
            self,
            Self::BrokenJson | Self::BrokenOff | Self::TooLong | Self::Answer | Self::Other
        )
    }

    /// What to do where most rows have this fault.
    pub(crate) fn way_out(self) -> &'static str {
        match self {
            Self::Encoding => "write the text in UTF-8, for instance with `iconv -f WINDOWS-1252 -t UTF-8 old > new`",
            Self::NotANumber => {
                "write null, or leave the field out: pandas does so with `to_json(orient='records', lines=True)`, Python's json \
                 refuses NaN with `allow_nan=False`"
            }
            Self::BrokenJson | Self::BrokenOff => {
                "write one JSON object a line, for instance with `jq -c . old.json > new.jsonl`"
            }
            Self::TooLong => "cut these texts, or split the rows",
            Self::Fields => {
                "the fields are called alike in all files: rename them, or name them with `field <role>=<name>`"
            }
            Self::Unlabelled => {
                "rows without a label (null, or -1 in Hugging Face datasets) teach and judge nothing: give a file whose rows have \
                 theirs, often the split named validation in place of the one named test"
            }
            Self::ManyLabels => {
                "rows with several labels are not supported: keep one label a row, or make a data set for each label"
            }
            Self::Score => {
                "numbers with fractions are scores and no classes: write each row's class, for instance a range of scores"
            }
            Self::PythonList => "write lists as JSON: in Python `json.dumps(value)` before `to_csv`, or as JSON Lines",
            Self::Answer => {
                "say how answers are to be read: `field answer=<name>:letter`, `:text`, `:from-0` or `:from-1`"
            }
            Self::Other => "mend the files: the rows fail alike",
        }
    }
}

/// Stops where more rows are bad than the share `max_bad`, of all that were read or of a split.
///
/// # Errors
///
/// If so.
pub(crate) fn check_rejects(rejects: &[Reject], dataset: &Dataset, max_bad: f64) -> Result<()> {
    let mut all: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for split in [Some(&dataset.train), Some(&dataset.validation), dataset.test.as_ref()]
        .into_iter()
        .flatten()
    {
        let mut rows: BTreeMap<PathBuf, u64> = BTreeMap::new();
        let paths: Vec<&Path> = split.files.iter().map(|file| &*file.path).collect();
        let read = split.examples.iter().map(|example| example.origin.file);
        let read = read.map(|file| &split.files[file as usize].path);
        let refused = rejects_of(&dataset.rejects, &paths)
            .into_iter()
            .map(|reject| &reject.file);
        for path in read.chain(refused) {
            *rows.entry(path.clone()).or_default() += 1;
        }
        check_split(rejects_of(rejects, &paths), &rows, max_bad)?;
        rows.into_iter()
            .for_each(|(path, count)| *all.entry(path).or_default() += count);
    }
    let allowed = (max_bad * all.values().sum::<u64>() as f64) as u64;
    if rejects.len() as u64 > allowed {
        return Err(too_many_bad(rejects, &all, allowed));
    }
    Ok(())
}

/// The bad rows of these files, each once: a file that is of two splits is read twice.
pub(crate) fn rejects_of<'a>(rejects: &'a [Reject], files: &[&Path]) -> Vec<&'a Reject> {
    let of_files = |reject: &&Reject| files.contains(&&*reject.file);
    let mut of_files: Vec<&Reject> = rejects.iter().filter(of_files).collect();
    let mut met = HashSet::new();
    of_files.retain(|reject| met.insert((&reject.file, reject.line)));
    of_files
}

/// Stops where more rows of a split are bad than this share of it, rounded up: `rejects` are its bad rows, `rows` how many rows each of its
/// files has.
///
/// # Errors
///
/// If so.
pub(crate) fn check_split(rejects: Vec<&Reject>, rows: &BTreeMap<PathBuf, u64>, max_bad: f64) -> Result<()> {
    let allowed = (max_bad * rows.values().sum::<u64>() as f64).ceil() as u64;
    if rejects.len() as u64 > allowed {
        let rejects: Vec<Reject> = rejects.into_iter().cloned().collect();
        return Err(too_many_bad(&rejects, rows, allowed));
    }
    Ok(())
}

/// What is said where the model can read no row of these files, though as many bad rows are allowed. What the model could not read stands
/// behind what could not be parsed.
pub(crate) fn none_readable(files: &[&Path], rejects: &[Reject]) -> Error {
    let expected = "a row that the model can read";
    match rejects_of(rejects, files).last() {
        Some(last) => {
            let found = format!("none; what is wrong with this one: {}", last.reason);
            Error::data(Place::line(&last.file, last.line), expected, found)
        }
        None => Error::data(Place::file(files[0]), expected, "none"),
    }
}

/// What is said where more rows are bad than are allowed: one reason, where it is a mistake of a whole file, else the first five. `rows` says
/// how many rows each file has.
pub(crate) fn too_many_bad(rejects: &[Reject], rows: &BTreeMap<PathBuf, u64>, allowed: u64) -> Error {
    let mut groups: HashMap<(&PathBuf, FaultKind, &str), Vec<&Reject>> = HashMap::new();
    for reject in rejects {
        let words = if reject.kind == FaultKind::Other {
            reject.reason.as_str()
        } else {
            ""
        };
        groups
            .entry((&reject.file, reject.kind, words))
            .or_default()
            .push(reject);
    }
    let of_file = |group: &&Vec<&Reject>| {
        let first = group[0];
        group.len() > 1
            && (first.kind.is_of_whole_files() || 2 * group.len() as u64 > rows.get(&first.file).copied().unwrap_or(0))
    };
    // Of as many, the one that comes first.
    let most = groups
        .values()
        .filter(of_file)
        .max_by_key(|group| (group.len(), std::cmp::Reverse((&group[0].file, group[0].line))));
    if let Some(group) = most {
        let first = group[0];
        let (expected, found) = first
            .reason
            .strip_prefix("expected ")
            .and_then(|reason| reason.split_once(", found "))
            .unwrap_or(("a row that can be used", &first.reason));
        let all = rows.get(&first.file).copied().unwrap_or(0);
        return Error::data(
            Place::line(&first.file, first.line),
            expected,
            format!("{found}; {} of the file's {all} rows are alike", group.len()),
        )
        .with_hint(first.kind.way_out());
    }
    Error::TooManyBad {
        bad: rejects.len() as u64,
        rows: rows.values().sum(),
        allowed,
        first: rejects
            .iter()
            .take(5)
            .map(|reject| format!("{}: {}", Place::line(&reject.file, reject.line), reject.reason))
            .collect(),
    }
}
