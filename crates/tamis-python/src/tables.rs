//! Rows and vectors in memory, kept as files of a run.

use std::{collections::BTreeMap, path::PathBuf};

use arrow_array::ffi_stream::RecordBatchStreamReader;
use arrow_pyarrow::FromPyArrow;
use pyo3::prelude::*;
use tamis::{
    Result,
    commands::{self, Conversation},
    data,
};
use tamis_cli::Invocation;

use crate::{errors::Failure, job::Signals};

fn raised<T>(py: Python<'_>, result: Result<T>) -> PyResult<T> {
    result.map_err(|error| Failure::of_library(&error, &tamis_cli::messages("select")).into_exception(py))
}

/// Writes a table that has `__arrow_c_stream__` to a file of the run in `out`, batch by batch, and returns its path.
#[pyfunction]
pub(crate) fn keep_table(py: Python<'_>, table: &Bound<'_, PyAny>, name: &str, out: PathBuf) -> PyResult<PathBuf> {
    let mut reader = RecordBatchStreamReader::from_pyarrow_bound(table)?;
    let kept = py.detach(|| commands::keep_table(&mut reader, name, &out));
    raised(py, kept)
}

/// Where a file may be written for the run in `out`.
#[pyfunction]
pub(crate) fn table_path(py: Python<'_>, out: PathBuf) -> PyResult<PathBuf> {
    raised(py, commands::table_path(&out))
}

/// Gives such a file its name, with a hash of its bytes before the ending.
#[pyfunction]
pub(crate) fn keep_file(py: Python<'_>, path: PathBuf, name: &str) -> PyResult<PathBuf> {
    raised(py, py.detach(|| data::named_by_hash(&path, name)))
}

/// The texts of every record of each split, and how many there are of each record, by the arguments of a command on them.
#[pyfunction]
pub(crate) fn texts(py: Python<'_>, arguments: Vec<String>) -> PyResult<Vec<(Vec<String>, usize)>> {
    let invocation = raised(py, Invocation::read(&arguments))?;
    let settings = raised(py, invocation.data())?;
    let signals = Signals::default();
    let read = py.detach(|| commands::texts(&settings, &signals));
    raised(py, read)
}

/// Records of files by their numbers, counted from 0 over all files, each as JSON.
#[pyfunction]
pub(crate) fn records(py: Python<'_>, files: Vec<PathBuf>, numbers: Vec<u64>) -> PyResult<Vec<String>> {
    let read = py.detach(|| data::records(&files, &numbers));
    let told = raised(py, read)?.into_iter();
    Ok(told
        .map(|fields| serde_json::Value::Object(fields).to_string())
        .collect())
}

/// Every record of files of prompts with responses as the tokens that a language model reads, at most `longest` of each, and which of them
/// are to be said; None of a row that cannot be read or learned from.
#[pyfunction]
pub(crate) fn conversations(
    py: Python<'_>,
    files: Vec<PathBuf>,
    field: BTreeMap<String, String>,
    model: &str,
    longest: usize,
) -> PyResult<Vec<Conversation>> {
    let signals = Signals::default();
    let read = py.detach(|| commands::conversations(&files, field, model, longest, &signals));
    raised(py, read)
}
