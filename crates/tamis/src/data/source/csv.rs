//! Comma- or tab-separated values with a header line.

use std::path::Path;

use serde_json::Value;

use crate::{
    Error, Place, Result,
    data::{
        rejects::{Fault, FaultKind},
        source::{
            format::{Compression, Fields, Format, Record},
            records::{Layout, Records, too_long},
            text::text_of,
        },
    },
};

/// What separates the columns of a format.
pub(crate) fn delimiter_of(format: Format) -> u8 {
    if format == Format::Tsv { b'\t' } else { b',' }
}

/// A file's records and the names of its columns. The records begin behind the header.
pub(crate) fn open(path: &Path, compression: Compression, format: Format) -> Result<(Records<'_>, Header)> {
    let layout = Layout::Csv {
        delimiter: delimiter_of(format),
    };
    let mut records = Records::new(path, compression, text_of(path, compression)?, layout);
    let mut bytes = Vec::new();
    let Some(span) = records.record(&mut bytes)? else {
        return Ok((records, Header::default()));
    };
    if span.too_long {
        return Err(Error::data(Place::line(path, 1), "a header line", too_long().reason));
    }
    let names = cells(&bytes, format)
        .iter()
        .map(|cell| std::str::from_utf8(cell).map(str::to_owned))
        .collect::<Result<Vec<String>, _>>()
        .map_err(|_| {
            Error::data(Place::line(path, span.line), "a header in UTF-8", "broken bytes")
                .with_hint(FaultKind::Encoding.way_out())
        })?;
    let header = Header { names, bytes };
    header.check(path, span.line, format)?;
    Ok((records, header))
}

/// The first line of a file.
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub(crate) names: Vec<String>,
    /// As it stands there.
    pub(crate) bytes: Vec<u8>,
}

impl Header {
    fn check(&self, path: &Path, line: u64, format: Format) -> Result<()> {
        let names = &self.names;
        let twice = |i: usize| !names[i].is_empty() && names[..i].contains(&names[i]);
        if let Some(i) = (0..names.len()).find(|&i| twice(i)) {
            return Err(Error::data(
                Place::line(path, line),
                "a header that names every column once",
                format!("`{}` twice", names[i]),
            )
            .with_hint("rename one of the two columns"));
        }
        let (own, others) = match format {
            Format::Tsv => ("tabs", [",", ";", "|"]),
            _ => ("commas", ["\t", ";", "|"]),
        };
        if let (1, Some(separator)) = (names.len(), others.into_iter().find(|&s| names[0].contains(s))) {
            let rename = match (format, separator) {
                (Format::Csv, "\t") => "name the file .tsv",
                (Format::Tsv, ",") => "name the file .csv",
                _ => "write the file anew with commas between its columns, or as JSON Lines",
            };
            return Err(Error::data(
                Place::line(path, line),
                format!("columns with {own} between them"),
                format!("one column with {separator:?} in its name"),
            )
            .with_hint(rename));
        }
        Ok(())
    }
}

/// Reads the rows of a file, `each` a block; returns how many there are.
pub(crate) fn read(
    path: &Path,
    compression: Compression,
    format: Format,
    each: &mut dyn FnMut(Vec<Record>) -> Result<()>,
) -> Result<u64> {
    let (records, header) = open(path, compression, format)?;
    records.read(|row| Some(fields_of(&header.names, &cells(row, format))), each)
}

/// The cells of one row.
fn cells(row: &[u8], format: Format) -> csv::ByteRecord {
    let mut cells = csv::ByteRecord::new();
    let read = csv::ReaderBuilder::new()
        .delimiter(delimiter_of(format))
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(row.len().max(1))
        .from_reader(row)
        .read_byte_record(&mut cells);
    debug_assert!(read.is_ok(), "bytes in memory are read as rows of any length");
    cells
}

fn fields_of(names: &[String], cells: &csv::ByteRecord) -> Result<Fields, Fault> {
    if cells.len() != names.len() {
        let long = cells.iter().any(|cell| cell.contains(&b'\n'));
        let why = if long {
            " and a cell of several lines: is a quote left open?"
        } else {
            ""
        };
        return Err(Fault::other(format!(
            "expected {} fields, found {}{why}",
            names.len(),
            cells.len()
        )));
    }
    names
        .iter()
        .zip(cells)
        .map(|(name, cell)| {
            let text = std::str::from_utf8(cell).map_err(|_| {
                let reason = format!("expected UTF-8 text in `{name}`, found broken bytes");
                Fault::new(FaultKind::Encoding, reason)
            })?;
            Ok((name.clone(), Value::String(text.to_owned())))
        })
        .collect()
}
