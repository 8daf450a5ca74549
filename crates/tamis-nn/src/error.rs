//! What can go wrong in the engine: where, what was expected, what was found, and the way out.

use std::path::{Path, PathBuf};

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong here. The library that is built on the engine turns each into an error of its own.
#[derive(Debug, thiserror::Error)]
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
    /// A file does not hold what it must.
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
        /// The setting's name, such as `epochs`.
        name: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
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
    /// The user stopped the work.
    #[error("interrupted")]
    Interrupted,
}

/// Where in the user's input something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file or folder.
    pub path: PathBuf,
    /// The line (text formats) or row (Parquet), counted from 1.
    pub line: Option<u64>,
}

impl Place {
    /// A whole file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            line: None,
        }
    }

    /// One line or row of a file, counted from 1.
    pub fn line(path: impl Into<PathBuf>, line: u64) -> Self {
        Self {
            path: path.into(),
            line: Some(line),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        match self.line {
            Some(line) => write!(f, ", line {line}"),
            None => Ok(()),
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

    /// The same error with a remedy; errors whose remedy is fixed stay as they are.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Data { hint, .. } | Self::Setting { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Data { hint, .. } | Self::Setting { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }

    /// Refuses a file that begins like what a clone without Git LFS has in the place of a large file.
    ///
    /// # Errors
    ///
    /// If it does.
    pub fn unless_pointer(path: &Path, expected: &str, begins: &[u8]) -> Result<()> {
        if !begins.starts_with(b"version https://git-lfs") {
            return Ok(());
        }
        Err(Self::data(Place::file(path), expected, "a pointer of Git LFS")
            .with_hint("fetch the file itself: `git lfs pull` in the folder that was cloned"))
    }
}
