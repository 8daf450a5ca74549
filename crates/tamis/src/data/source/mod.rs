//! One file of the user's: its format, its bytes, its records.
//!
//! Whatever the format, a record comes out as a JSON object, so that tasks and field names are looked at in one place.

pub(crate) mod columns;
pub(crate) mod csv;
pub(crate) mod json;
pub(crate) mod records;
pub(crate) mod text;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tamis_nn::Fingerprint;

use crate::{
    Result,
    data::{rejects::Fault, source::records::Layout},
};

/// A record's fields by name.
pub(crate) type Fields = Map<String, Value>;

/// How rows lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    JsonLines,
    /// A JSON list of objects.
    JsonList,
    /// Comma-separated values with a header line.
    Csv,
    /// Tab-separated values with a header line.
    Tsv,
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow, as a stream or as a file.
    Arrow,
}

impl Format {
    /// The ending of an uncompressed file of this format.
    pub fn extension(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::JsonList => "json",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
        }
    }

    /// Whether its rows lie column by column.
    pub(crate) fn is_columnar(self) -> bool {
        matches!(self, Self::Parquet | Self::Arrow)
    }
}

/// How a file's bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A file that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// How its rows lie.
    pub format: Format,
    /// How its bytes are packed.
    pub compression: Compression,
    /// How many records it holds, bad ones included; for JSON Lines the number of lines.
    pub records: u64,
    /// The fingerprint of its bytes.
    pub hash: Fingerprint,
}

/// One record, or why it could not be read.
pub(crate) struct Record {
    /// Line (text) or row (columnar files), from 1.
    pub(crate) line: u64,
    /// Place in the file, from 0.
    pub(crate) record: u64,
    pub(crate) fields: Result<Fields, Fault>,
}

/// Reads a file block by block; `each` gets the records in order. Returns the file as it was found.
pub(crate) fn read_records(
    path: &Path,
    format: Format,
    compression: Compression,
    each: &mut dyn FnMut(Vec<Record>) -> Result<()>,
) -> Result<SourceFile> {
    let records = match format {
        Format::JsonLines => json::read(path, compression, Layout::Lines, each)?,
        Format::JsonList => json::read(path, compression, Layout::Items, each)?,
        Format::Csv | Format::Tsv => csv::read(path, compression, format, each)?,
        Format::Parquet | Format::Arrow => columns::read(path, format, each)?,
    };
    Ok(SourceFile {
        path: path.to_path_buf(),
        format,
        compression,
        records,
        hash: Fingerprint::of_file(path)?,
    })
}

/// What a value is called in a message.
pub(crate) fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(text) if text.trim().is_empty() => "an empty text",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
