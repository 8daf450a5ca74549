//! The rows that a `select` run chose, read back from its record.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tamis_nn::Fingerprint;

use crate::{
    Error, Place, Result,
    data::{DataSettings, Dataset, RowId, SourceFile},
    workspace::json,
};

/// What a `selection.json` is expected to be.
const RECORD: &str = "the record of a finished selection";

/// What of a `selection.json` says which rows were chosen.
#[derive(Deserialize)]
struct Selected {
    rows: Vec<SelectedRow>,
    data: SelectedFrom,
}

#[derive(Deserialize)]
struct SelectedFrom {
    /// Nothing in the record of an earlier version.
    #[serde(default)]
    files: BTreeMap<PathBuf, Fingerprint>,
}

#[derive(Deserialize)]
struct SelectedRow {
    file: PathBuf,
    row: u64,
}

/// The data settings of a `select` run, so that its target can be trained without naming the files again.
///
/// # Errors
///
/// If the folder holds no finished run.
pub fn selection_data(run: &Path) -> Result<DataSettings> {
    #[derive(Deserialize)]
    struct Settings {
        data: DataSettings,
    }
    #[derive(Deserialize)]
    struct Record {
        settings: Settings,
    }
    Ok(json::read_json::<Record>(&record_path(run)?, RECORD)?.settings.data)
}

/// Where the record of a selection is, if there is one.
fn record_path(run: &Path) -> Result<PathBuf> {
    let path = run.join("selection.json");
    if path.exists() {
        return Ok(path);
    }
    Err(Error::setting(
        "selection",
        "the folder of a finished selection",
        format!("no {}", path.display()),
    )
    .with_hint("name the folder of a run of `tamis select`, once it has ended"))
}

/// The rows that a `select` run chose, found in the training files by file and line. Those that stand in validation or test files which the
/// selection did not know are not in the pool, and left out.
pub(crate) fn chosen_rows(run: &Path, dataset: &Dataset) -> Result<Vec<RowId>> {
    let path = record_path(run)?;
    let mut rows = recorded_rows(&path, run, dataset)?;
    rows.retain(|row| dataset.pool.binary_search(row).is_ok());
    if rows.is_empty() {
        let found = "rows that stand in the validation or test files, all of them";
        return Err(Error::data(Place::file(&path), "chosen rows to train on", found)
            .with_hint("give other validation and test files, or keep such rows with `leaks keep`"));
    }
    Ok(rows)
}

fn recorded_rows(path: &Path, run: &Path, dataset: &Dataset) -> Result<Vec<RowId>> {
    let selected: Selected = json::read_json(path, RECORD)?;
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let files: Vec<PathBuf> = dataset.train.files.iter().map(|file| whole(&file.path)).collect();
    let place_of: HashMap<(u32, u64), RowId> = dataset
        .train
        .examples
        .iter()
        .zip(0..)
        .map(|(example, row)| ((example.origin.file, example.origin.line), row))
        .collect();
    let mut names: HashMap<PathBuf, u32> = HashMap::new();
    let (mut rows, mut there) = (Vec::with_capacity(selected.rows.len()), HashSet::new());
    for chosen in &selected.rows {
        let missing = |expected: &str, found: String| {
            Error::data(Place::file(path), expected, found)
                .with_hint("give the training files that the selection was made from with `train`")
        };
        let file = if let Some(&file) = names.get(&chosen.file) {
            file
        } else {
            let name = whole(&chosen.file);
            let found = || format!("a row of {}", chosen.file.display());
            // Rows in memory are written for each run anew, into its own folder.
            let then = selected.data.files.get(&chosen.file);
            let same = |file: &SourceFile| then.is_some_and(|then| *then == file.hash);
            let place = files.iter().position(|file| *file == name);
            let place = place.or_else(|| dataset.train.files.iter().position(same));
            let file = place.ok_or_else(|| missing("rows of the training files", found()))? as u32;
            let now = &dataset.train.files[file as usize];
            if then.is_some_and(|then| *then != now.hash) {
                let expected = format!("the file that {} chose rows from", run.display());
                let found = "one that has changed since, so that its lines may be other rows";
                return Err(Error::data(Place::file(&now.path), expected, found)
                    .with_hint("select again, or bring back the file as it was"));
            }
            names.insert(chosen.file.clone(), file);
            file
        };
        let row = place_of.get(&(file, chosen.row)).ok_or_else(|| {
            missing(
                "rows that the training files have",
                format!("line {} of {}", chosen.row, chosen.file.display()),
            )
        })?;
        if !there.insert(*row) {
            let found = format!("line {} of {} twice", chosen.row, chosen.file.display());
            return Err(Error::data(Place::file(path), "each chosen row once", found));
        }
        rows.push(*row);
    }
    if rows.is_empty() {
        return Err(Error::data(Place::file(path), "at least one chosen row", "none"));
    }
    Ok(rows)
}
