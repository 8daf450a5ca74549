//! How rows lie in a file, and what comes out of it.

use std::path::PathBuf;

use serde_json::{Map, Value};
use tamis_nn::Fingerprint;

use crate::data::rejects::Fault;

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

/// The fields that a record has, for people.
pub(crate) fn names_of(fields: &Fields) -> String {
    let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.sort_unstable();
    names.join(", ")
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
