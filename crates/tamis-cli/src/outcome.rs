//! What a command found, for whoever ran it.

use std::path::PathBuf;

/// What a command found.
pub struct Outcome {
    /// For a person.
    pub summary: String,
    /// For a program: the JSON that is in the run's folder as well.
    pub record: String,
    /// The run's folder.
    pub out: PathBuf,
    /// What of it failed, though the rest was done.
    pub failure: Option<String>,
}
