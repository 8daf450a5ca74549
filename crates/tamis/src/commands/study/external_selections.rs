//! Selections that were made elsewhere: text files that name training rows, one a line.
//!
//! A line is the number of a row in its file, from 1, with the file's path and a colon before it where there are several training
//! files. The lists that a study writes have this form too.

use std::{collections::HashMap, fs, path::Path};

use crate::{
    Error, Place, Result,
    data::{Dataset, RowId},
};

/// The rows that a file names, in ascending order.
///
/// # Errors
///
/// If the file cannot be read, or a line names no row of the pool, or one that an earlier line named.
pub(crate) fn read(path: &Path, dataset: &Dataset) -> Result<Vec<RowId>> {
    let text = fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    let text = text.trim_start_matches('\u{feff}');
    let files = &dataset.train.files;
    let by_line: HashMap<(usize, u64), RowId> = dataset
        .pool
        .iter()
        .map(|&row| {
            let origin = dataset.train.examples[row as usize].origin;
            ((origin.file as usize, origin.line), row)
        })
        .collect();
    let mut named = HashMap::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let place = Place::line(path, i as u64 + 1);
        let (file, number) = match line.rsplit_once(':') {
            Some((file, number)) => (files.iter().position(|there| there.path == Path::new(file)), number),
            None => ((files.len() == 1).then_some(0), line),
        };
        let (Some(file), Ok(number)) = (file, number.parse::<u64>()) else {
            let expected = if files.len() == 1 {
                "the number of a training row"
            } else {
                "a training file, a colon and the number of one of its rows"
            };
            return Err(Error::data(place, expected, format!("`{line}`")));
        };
        let Some(&row) = by_line.get(&(file, number)) else {
            return Err(Error::data(place, "a row that may be chosen", format!("row {number}"))
                .with_hint("rows that are bad, or also stand in validation or test, may not be chosen"));
        };
        if let Some(earlier) = named.insert(row, i + 1) {
            return Err(Error::data(
                place,
                "a row that no earlier line names",
                format!("row {number}, as on line {earlier}"),
            ));
        }
    }
    if named.is_empty() {
        return Err(Error::data(Place::file(path), "at least one row", "none"));
    }
    let mut rows: Vec<RowId> = named.into_keys().collect();
    rows.sort_unstable();
    Ok(rows)
}

/// The lines of a file that names these rows.
pub(crate) fn lines(rows: &[RowId], dataset: &Dataset) -> String {
    let line = |&row: &RowId| {
        let (file, line) = crate::pipeline::describe::origin(&dataset.train, row);
        if dataset.train.files.len() == 1 {
            format!("{line}\n")
        } else {
            format!("{}:{line}\n", file.display())
        }
    };
    rows.iter().map(line).collect()
}
