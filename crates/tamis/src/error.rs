//! The one error type: what went wrong, where, what was expected, what was found, and the way out.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

pub use tamis_nn::Place;

pub(crate) mod range;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, in the words a user reads.
///
/// Messages name the file, line, field or setting, then what was expected and what was found. The remedy, where there is one, is
/// [`Error::hint`]. Settings go by their names; what a hint or an expectation has between backticks begins with one where it advises one,
/// as in `max_bad <share>`, so that a program can show it as its users type it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something: a missing file, no permission, a full disk.
    #[error("{}: could not {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted: `read`, `write`, `create`, ...
        action: &'static str,
        /// The system's own words.
        source: std::io::Error,
    },
    /// The user's data are not what they must be.
    #[error("{place}: expected {expected}, found {found}")]
    Data {
        /// Where.
        place: Place,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
        /// The way out.
        hint: Option<String>,
    },
    /// A setting is out of range, unknown, or contradicts another.
    #[error("{name}: expected {expected}, found {found}")]
    Setting {
        /// The setting's name, such as `max_evaluations` or `finetune.fold_rows`.
        name: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
        /// The way out.
        hint: Option<String>,
    },
    /// More bad rows than `max_bad` allows.
    #[error(
        "{bad} of {rows} rows are bad, more than the {allowed} that are allowed; the first:{}",
        bullets(first)
    )]
    TooManyBad {
        /// Bad rows over all files.
        bad: u64,
        /// Rows read over all files.
        rows: u64,
        /// How many bad rows would have been accepted.
        allowed: u64,
        /// The first five, as `file, line n: reason`.
        first: Vec<String>,
    },
    /// The ledger's database failed.
    #[error("{}: the ledger failed: {source}", path.display())]
    Ledger {
        /// The database file.
        path: PathBuf,
        /// The database's own words.
        source: rusqlite::Error,
    },
    /// The output folder holds a run with other settings or data.
    #[error("{}: expected an empty folder or this same run, found a run that differs in {difference}", path.display())]
    OtherRun {
        /// The output folder.
        path: PathBuf,
        /// The settings that differ, as `name (there: a, now: b)`.
        difference: String,
    },
    /// Something that is read but has no reward yet, such as a prompt/response task under the probe.
    #[error("{what} is not supported: {why}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why it cannot be done.
        why: String,
        /// The way out.
        hint: Option<String>,
    },
    /// A model's file could not be had from the Hugging Face hub.
    #[error("{model}: could not fetch {file} from the hub: {reason}")]
    Hub {
        /// The model's id.
        model: String,
        /// The file.
        file: String,
        /// The client's own words.
        reason: String,
    },
    /// A number came out as NaN or infinite where a finite one is needed.
    #[error("{place}: expected finite numbers, found {found}")]
    NotFinite {
        /// The stage and item.
        place: String,
        /// The value.
        found: String,
    },
    /// Too many states could not be scored for the rest to be worth anything.
    #[error(
        "the proxy failed on {failed} of {evaluations} evaluations, more than the {allowed}% that are accepted; the last time: {last}"
    )]
    TooManyFailures {
        /// States that could not be scored.
        failed: u64,
        /// States for which a score was asked.
        evaluations: u64,
        /// The most failures that are accepted, in percent of the evaluations.
        allowed: u64,
        /// What the proxy said the last time.
        last: String,
    },
    /// The user stopped the run.
    #[error("interrupted")]
    Interrupted,
}

impl From<tamis_nn::Error> for Error {
    fn from(error: tamis_nn::Error) -> Self {
        use tamis_nn::Error as Engine;
        match error {
            Engine::Io { path, action, source } => Self::Io { path, action, source },
            Engine::Data {
                place,
                expected,
                found,
                hint,
            } => Self::Data {
                place,
                expected,
                found,
                hint,
            },
            Engine::Setting {
                name,
                expected,
                found,
                hint,
            } => Self::Setting {
                name,
                expected,
                found,
                hint,
            },
            Engine::Hub { model, file, reason } => Self::Hub { model, file, reason },
            Engine::NotFinite { place, found } => Self::NotFinite { place, found },
            Engine::Interrupted => Self::Interrupted,
        }
    }
}

impl Error {
    /// For `map_err`: an [`Error::Io`] that names the file and what was attempted.
    pub fn io(path: impl AsRef<Path>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    /// An [`Error::Data`] without a hint.
    pub fn data(place: Place, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Data {
            place,
            expected: expected.into(),
            found: found.into(),
            hint: None,
        }
    }

    /// An [`Error::Setting`] without a hint.
    pub fn setting(name: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Setting {
            name: name.into(),
            expected: expected.into(),
            found: found.into(),
            hint: None,
        }
    }

    /// The same error of another setting, whose value is read as that one's is; errors that name no setting stay as they are.
    #[must_use]
    pub fn of_setting(mut self, setting: &str) -> Self {
        if let Self::Setting { name, .. } = &mut self {
            setting.clone_into(name);
        }
        self
    }

    /// The same error with a remedy; errors whose remedy is fixed stay as they are.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Data { hint, .. } | Self::Setting { hint, .. } | Self::Unsupported { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data { hint, .. } | Self::Setting { hint, .. } | Self::Unsupported { hint, .. } => hint.clone(),
            Self::TooManyBad { .. } => {
                Some("mend the rows, or allow more of them with `max_bad <share>`: they are then left out and listed in rejects.jsonl".into())
            }
            Self::OtherRun { .. } => Some(
                "choose another folder with `out`, or repeat the command with the settings of the first run to go on with it"
                    .into(),
            ),
            Self::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
                Some("free some space and repeat the command: what is done is kept".into())
            }
            Self::Io { source, .. } if source.kind() == ErrorKind::FileTooLarge => Some(
                "files may not grow any larger here: raise the limit on their size (`ulimit -f`) and repeat the command: what is done is kept"
                    .into(),
            ),
            Self::Ledger { source, .. } => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                    Some("another run is working in this folder: wait for it, or choose another with `out`".into())
                }
                Some(rusqlite::ErrorCode::DiskFull) => {
                    Some("free some space and repeat the command: what is done is kept".into())
                }
                Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
                    Some("this file is no longer a ledger: choose another folder with `out`".into())
                }
                Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly) => {
                    Some("this folder cannot be written to: choose another with `out`".into())
                }
                _ => None,
            },
            Self::Hub { .. } => Some(
                "check the name and the network (HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_CACHE are honoured), or give a folder that holds the model's files"
                    .into(),
            ),
            Self::TooManyFailures { .. } => Some(
                "look for what these states have in common (a training rate that is too high, too little memory), then start again in another folder with `out`"
                    .into(),
            ),
            Self::Interrupted => Some("repeat the command to go on: what is done is kept".into()),
            _ => None,
        }
    }

    /// Whether the user's input (usage, settings, data) is at fault, rather than the run.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Data { .. }
            | Self::Setting { .. }
            | Self::TooManyBad { .. }
            | Self::OtherRun { .. }
            | Self::Unsupported { .. } => true,
            Self::Io { source, action, .. } => match source.kind() {
                ErrorKind::NotFound | ErrorKind::PermissionDenied => matches!(*action, "read" | "create"),
                ErrorKind::NotADirectory | ErrorKind::AlreadyExists => *action == "create",
                // A decoder's complaint about what the file holds has no number of the system's.
                _ => *action == "read" && source.raw_os_error().is_none(),
            },
            _ => false,
        }
    }
}

fn bullets(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["\n  ", line]).collect()
}
