//! One file of the user's: its format, its bytes, its records.
//!
//! Whatever the format, a record comes out as a JSON object, so that tasks and field names are looked at in one place.

pub(crate) mod columns;
pub(crate) mod csv;
pub(crate) mod format;
pub(crate) mod json;
pub(crate) mod records;
pub(crate) mod text;

use std::path::Path;

use tamis_nn::Fingerprint;

use crate::{Result, data::source::records::Layout};

pub use format::{Compression, Format, SourceFile};
pub(crate) use format::{Fields, Record, name_of, names_of};

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
