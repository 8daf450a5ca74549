//! Rows that another program holds in memory, kept as a file of the run: it can then be made again, and gone on with.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use arrow_array::RecordBatchReader;
use arrow_ipc::writer::StreamWriter;
use serde_json::{Map, Value};
use tamis_nn::{Fingerprint, atomic_write::write_whole};

use crate::{
    Error, Place, Result,
    data::{
        Split, files,
        source::{Fields, read_records},
    },
};

/// The folder of tables in that of a run.
pub(crate) const TABLES: &str = "tables";
/// How much of its hash a table's name has.
const HASH: usize = 12;

/// Whether a file in `tables` is named as those are that [`named_by_hash`] names, or was being written when a run was killed.
pub(crate) fn is_table(name: &str) -> bool {
    let hash = name.split_once('.').and_then(|(stem, _)| stem.rsplit_once('-'));
    let named = hash.is_some_and(|(_, hash)| hash.len() == HASH && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
    named || (name.starts_with(".tamis-") && name.ends_with(".partial"))
}

/// Writes a table to a file, batch by batch; the same rows make the same bytes.
///
/// # Errors
///
/// If a batch cannot be had, or the file cannot be written.
pub(crate) fn write_table(table: &mut dyn RecordBatchReader, name: &str, path: &Path) -> Result<()> {
    let place = || Place::file(format!("{name} rows in memory"));
    write_whole(path, &mut |file| {
        let unwritten = |error: arrow_schema::ArrowError| match error {
            arrow_schema::ArrowError::IoError(_, source) => Error::io(path, "write")(source),
            other => Error::data(place(), "columns that an Arrow file can hold", other.to_string()),
        };
        let mut writer = StreamWriter::try_new(file, &table.schema()).map_err(unwritten)?;
        for batch in &mut *table {
            let batch = batch.map_err(|error| Error::data(place(), "rows that can be read", error.to_string()))?;
            writer.write(&batch).map_err(unwritten)?;
        }
        writer.finish().map_err(unwritten)
    })
}

/// Gives a file its name, with a hash of its bytes before the ending; where it is there already this one takes its place.
///
/// # Errors
///
/// If it cannot be read or renamed.
pub fn named_by_hash(path: &Path, name: &str) -> Result<PathBuf> {
    let hash = Fingerprint::of_file(path)?;
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let named = path.with_file_name(format!("{stem}-{}.{extension}", &hash.as_str()[..HASH]));
    // Over a file of the same bytes, where there is one.
    fs::rename(path, &named).map_err(Error::io(&named, "write"))?;
    Ok(named)
}

/// The texts of every record of a split, in the order of its files, and how many there are of each: rows that could not be used, and choices
/// that a question has fewer of than others, are empty. A prompt and its response are one text.
pub(crate) fn texts_by_record(split: &Split) -> (Vec<String>, usize) {
    let texts = |row: usize| match &split.examples[row].input {
        crate::data::Input::Response { prompt, response, .. } => vec![format!("{prompt}\n\n{response}")],
        input => input.texts().into_iter().map(str::to_owned).collect(),
    };
    let rows = 0..split.examples.len();
    let each = rows.clone().map(|row| texts(row).len()).max().unwrap_or(1);
    let mut all = vec![String::new(); split.records() * each];
    for row in rows {
        let first = split.record_number(row as u32) as usize * each;
        for (place, text) in texts(row).into_iter().enumerate() {
            all[first + place] = text;
        }
    }
    (all, each)
}

/// Records of files by their numbers, counted from 0 over all files, in the order in which they are asked for; each with its fields as they
/// stand there.
///
/// # Errors
///
/// If a file cannot be read, or has no such record, or one that is broken.
pub fn records(files: &[PathBuf], numbers: &[u64]) -> Result<Vec<Map<String, Value>>> {
    let wanted: HashMap<u64, usize> = numbers.iter().copied().zip(0..).collect();
    let mut found: Vec<Option<Fields>> = vec![None; numbers.len()];
    let mut before = 0;
    for file in files::resolve(files)? {
        let read = read_records(&file.path, file.format, file.compression, &mut |block| {
            for record in block {
                if let Some(&place) = wanted.get(&(before + record.record)) {
                    let fields = record.fields.map_err(|fault| {
                        let place = Place::line(&file.path, record.line);
                        Error::data(place, "a row that can be read", fault.reason)
                    });
                    found[place] = Some(fields?);
                }
            }
            Ok(())
        })?;
        before += read.records;
    }
    let place = || Place::file(files.first().cloned().unwrap_or_default());
    let missing = || Error::data(place(), "as many rows as there were", format!("{before}"));
    found.into_iter().map(|fields| fields.ok_or_else(missing)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, RecordBatch, RecordBatchIterator, StringArray};
    use tamis_nn::Silent;

    use super::*;
    use crate::{
        commands::keep_table,
        data::{DataSettings, read},
    };

    fn kept(rows: &[(&str, &str)], name: &str, out: &Path) -> Result<PathBuf> {
        let column =
            |of: fn(&(&str, &str)) -> String| Arc::new(StringArray::from_iter_values(rows.iter().map(of))) as ArrayRef;
        let columns = [
            ("text", column(|row| row.0.to_owned())),
            ("label", column(|row| row.1.to_owned())),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        let schema = batch.schema();
        keep_table(&mut RecordBatchIterator::new([Ok(batch)], schema), name, out)
    }

    #[test]
    fn the_same_rows_have_the_same_file_and_are_read_as_from_any_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("run");
        let rows = [("one", "a"), ("", "a"), ("two", "b")];
        let train = kept(&rows, "train", &out).expect("is kept");
        let name = train.file_name().expect("a name").to_string_lossy();
        assert!(
            name.starts_with("train-") && train.extension().is_some_and(|end| end == "arrow"),
            "{name}"
        );
        assert_eq!(kept(&rows, "train", &out).expect("again"), train);
        assert_ne!(kept(&rows[..1], "train", &out).expect("others"), train);
        let validation = kept(&[("three", "b")], "validation", &out).expect("is kept");
        assert_eq!(fs::read_dir(out.join(TABLES)).expect("a folder").count(), 3);
        // Nobody else's files are taken for tables.
        let other = folder.path().join("other");
        fs::create_dir_all(other.join(TABLES)).expect("a folder");
        fs::write(other.join(TABLES).join("train.arrow"), "mine").expect("writes");
        let error = kept(&rows, "train", &other).expect_err("another's folder").to_string();
        assert!(error.contains("which holds other files"), "{error}");

        let settings = DataSettings {
            train: vec![train.clone(), train],
            validation: vec![validation],
            max_bad: 0.9,
            ..DataSettings::default()
        };
        let dataset = read(&settings, &Silent).expect("reads");
        // The empty text is a bad row: the others keep their numbers.
        let numbers: Vec<u64> = (0..4).map(|row| dataset.train.record_number(row)).collect();
        assert_eq!(numbers, [0, 2, 3, 5]);
        let (texts, each) = texts_by_record(&dataset.train);
        assert_eq!((each, texts.join("|").as_str()), (1, "one||two|one||two"));
    }
}
