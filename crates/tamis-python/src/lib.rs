//! The native half of the Python package `tamis`: commands run in threads of their own, and rows in memory that become files of a run.
//!
//! Python's arguments are read as the command line's are, so that both give the same run; what a person reads is the command's summary.

#![expect(
    clippy::needless_pass_by_value,
    reason = "what Python hands over is made for the call"
)]

mod errors;
mod job;
mod tables;

use pyo3::prelude::*;

/// The native half of tamis; use the package `tamis`.
#[pymodule]
mod _tamis {
    use super::PyResult;
    use pyo3::pyfunction;

    #[pymodule_export]
    use super::{
        job::Job,
        tables::{conversations, keep_file, keep_table, records, table_path, texts},
    };

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's own spelling")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// The settings of a command, each with what it is for.
    #[pyfunction]
    fn settings(command: &str) -> Vec<(String, String)> {
        let flags = tamis_cli::flags(command).into_iter();
        flags.map(|(flag, help)| (flag.replace('-', "_"), help)).collect()
    }

    /// Runs the `tamis` command with these arguments, the first of which is its own name; returns the exit status.
    #[pyfunction]
    #[expect(clippy::unnecessary_wraps, reason = "what a pyfunction returns may fail")]
    fn command_line(arguments: Vec<String>) -> PyResult<u8> {
        Ok(tamis_cli::run(arguments))
    }
}
