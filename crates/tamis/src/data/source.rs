//! One file of the user's: its format, its bytes, its records.
//!
//! Whatever the format, a record comes out as a JSON object, so that tasks and field names are looked at in one place.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rayon::prelude::*;
use serde_json::{Map, Value};
use tamis_nn::Fingerprint;

use crate::{Error, Place, Result};

/// A record's fields by name.
pub(crate) type Fields = Map<String, Value>;

/// How rows lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    JsonLines,
    /// Comma-separated values with a header line.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// The ending of an uncompressed file of this format.
    pub fn extension(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
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
    /// Where it is, as the user wrote it.
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
    /// Line (text) or row (Parquet), from 1.
    pub(crate) line: u64,
    /// Place in the file, from 0.
    pub(crate) record: u64,
    pub(crate) fields: Result<Fields, String>,
}

/// How many bytes of lines are parsed side by side.
const BLOCK_BYTES: usize = 8 << 20;

/// How many rows of CSV or Parquet are handed on together.
const BLOCK_ROWS: usize = 8192;

/// Tells format and compression from a file's name.
pub(crate) fn kind_of(path: &Path) -> Result<(Format, Compression)> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let (stem, compression) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Compression::Gzip),
        Some((stem, "zst")) => (stem, Compression::Zstd),
        _ => (name.as_str(), Compression::Plain),
    };
    match (stem.rsplit_once('.').map(|(_, ending)| ending), compression) {
        (Some("jsonl" | "ndjson" | "json"), compression) => Ok((Format::JsonLines, compression)),
        (Some("csv"), compression) => Ok((Format::Csv, compression)),
        (Some("parquet"), Compression::Plain) => Ok((Format::Parquet, Compression::Plain)),
        _ => Err(Error::data(
            Place::file(path),
            "a file named .jsonl, .csv or .parquet (text also with .gz or .zst)",
            format!("`{name}`"),
        )
        .with_hint("rename the file to what it holds, or convert it to JSON Lines: one JSON object a line")),
    }
}

/// Reads a file block by block; `each` gets the records in order. Returns the file as it was found.
pub(crate) fn read_records(path: &Path, each: &mut dyn FnMut(Vec<Record>) -> Result<()>) -> Result<SourceFile> {
    let (format, compression) = kind_of(path)?;
    let records = match format {
        Format::JsonLines => read_json_lines(path, compression, each)?,
        Format::Csv => read_csv(path, compression, each)?,
        Format::Parquet => read_parquet(path, each)?,
    };
    Ok(SourceFile {
        path: path.to_path_buf(),
        format,
        compression,
        records,
        hash: Fingerprint::of_file(path)?,
    })
}

/// Refuses what is no file, or a pointer to one; asked of every file before the first is read. A pipe that nobody writes to would be waited
/// for without end, and every file is read more than once.
pub(crate) fn check_file(path: &Path) -> Result<()> {
    let kind = std::fs::metadata(path).map_err(Error::io(path, "read"))?;
    if !kind.is_file() {
        let found = if kind.is_dir() {
            "a folder"
        } else {
            "a pipe or a device"
        };
        return Err(Error::data(Place::file(path), "a file", found));
    }
    let mut begins = Vec::new();
    File::open(path)
        .and_then(|file| file.take(64).read_to_end(&mut begins))
        .map_err(Error::io(path, "read"))?;
    Ok(tamis_nn::Error::unless_pointer(path, "rows", &begins)?)
}

/// The unpacked bytes of a text file, less a byte order mark.
pub(crate) fn text_of(path: &Path, compression: Compression) -> Result<Box<dyn BufRead>> {
    let file = BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::io(path, "read"))?);
    let mut reader: Box<dyn BufRead> = match compression {
        Compression::Plain => Box::new(file),
        Compression::Gzip => Box::new(BufReader::with_capacity(
            1 << 20,
            flate2::bufread::MultiGzDecoder::new(file),
        )),
        Compression::Zstd => Box::new(BufReader::with_capacity(
            1 << 20,
            zstd::stream::read::Decoder::with_buffer(file).map_err(Error::io(path, "read"))?,
        )),
    };
    let mut first = [0; 3];
    let mut filled = 0;
    while filled < 3 {
        match reader.read(&mut first[filled..]).map_err(Error::io(path, "read"))? {
            0 => break,
            n => filled += n,
        }
    }
    let kept = if first == [0xEF, 0xBB, 0xBF] { 0 } else { filled };
    Ok(Box::new(BufReader::with_capacity(
        1 << 20,
        std::io::Cursor::new(first[..kept].to_vec()).chain(reader),
    )))
}

fn read_json_lines(
    path: &Path,
    compression: Compression,
    each: &mut dyn FnMut(Vec<Record>) -> Result<()>,
) -> Result<u64> {
    let mut reader = text_of(path, compression)?;
    let start = reader.fill_buf().map_err(Error::io(path, "read"))?.trim_ascii_start();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if start.starts_with(b"[") && (name.ends_with(".json") || name.contains(".json.")) {
        return Err(Error::data(Place::file(path), "one JSON object a line", "a JSON list")
            .with_hint("write its items one a line, for instance with `jq -c '.[]'`, and name the file .jsonl"));
    }
    let mut line = 0;
    loop {
        let (mut block, mut ends) = (Vec::new(), Vec::new());
        while block.len() < BLOCK_BYTES {
            if reader.read_until(b'\n', &mut block).map_err(Error::io(path, "read"))? == 0 {
                break;
            }
            ends.push(block.len());
        }
        if ends.is_empty() {
            return Ok(line);
        }
        let records: Vec<Record> = ends
            .par_iter()
            .enumerate()
            .filter_map(|(i, &end)| {
                let bytes = &block[if i == 0 { 0 } else { ends[i - 1] }..end];
                if bytes.iter().all(u8::is_ascii_whitespace) {
                    return None;
                }
                let record = line + i as u64;
                Some(Record {
                    line: record + 1,
                    record,
                    fields: parse_json(bytes),
                })
            })
            .collect();
        line += ends.len() as u64;
        each(records)?;
    }
}

fn parse_json(bytes: &[u8]) -> Result<Fields, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        format!(
            "expected UTF-8 text, found a broken byte at column {}",
            error.valid_up_to() + 1
        )
    })?;
    match serde_json::from_str::<Value>(text.trim_end()) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(format!("expected a JSON object, found {}", name_of(&other))),
        Err(error) if error.is_eof() => Err(format!(
            "expected a JSON object, found JSON that breaks off after column {}",
            error.column()
        )),
        Err(error) => {
            // The parser's own words end in a line number, that of this one line.
            let (column, said) = (error.column(), error.to_string());
            let why = said.rsplit_once(" at line ").map_or(&*said, |(why, _)| why);
            Err(format!(
                "expected a JSON object, found broken JSON at column {column} ({why})"
            ))
        }
    }
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

/// A CSV reader over unpacked bytes; ragged records are reported by us, row by row.
pub(crate) fn csv_reader<R: Read>(text: R) -> csv::Reader<R> {
    csv::ReaderBuilder::new().flexible(true).from_reader(text)
}

fn read_csv(path: &Path, compression: Compression, each: &mut dyn FnMut(Vec<Record>) -> Result<()>) -> Result<u64> {
    let mut reader = csv_reader(text_of(path, compression)?.chain(END));
    let failed = |error: csv::Error| {
        let said = error.to_string();
        match error.into_kind() {
            csv::ErrorKind::Io(source) => Error::io(path, "read")(source),
            _ => Error::data(Place::file(path), "a CSV file in UTF-8", format!("a {said}")),
        }
    };
    let header = reader.headers().map_err(failed)?.clone();
    if is_end(header.as_byte_record()) {
        return Ok(0);
    }
    if let Some((_, twice)) = header
        .iter()
        .enumerate()
        .find(|(i, name)| !name.is_empty() && header.iter().take(*i).any(|before| before == *name))
    {
        return Err(Error::data(
            Place::line(path, 1),
            "a header that names every column once",
            format!("`{twice}` twice"),
        )
        .with_hint("rename one of the two columns"));
    }
    if let (1, Some(separator)) = (
        header.len(),
        [";", "\t", "|"].into_iter().find(|&s| header[0].contains(s)),
    ) {
        return Err(Error::data(
            Place::line(path, 1),
            "columns with commas between them",
            format!("one column with {separator:?} in its name"),
        )
        .with_hint("write the file anew with commas between its columns, or as JSON Lines"));
    }
    let late = u64::from(ends_in_crlf(path, compression)?);
    let (mut records, mut line, mut ended) = (0, 1, false);
    let mut row = csv::ByteRecord::new();
    loop {
        let mut block = Vec::new();
        while block.len() < BLOCK_ROWS && reader.read_byte_record(&mut row).map_err(failed)? {
            ended = is_end(&row);
            if ended {
                break;
            }
            line = row.position().map_or(0, csv::Position::line) + late;
            let fields = if row.len() == header.len() {
                header
                    .iter()
                    .zip(&row)
                    .map(|(name, cell)| cell_of(name, cell))
                    .collect()
            } else {
                let long = row.iter().any(|cell| cell.contains(&b'\n'));
                let why = if long {
                    " and a cell of several lines: is a quote left open?"
                } else {
                    ""
                };
                Err(format!("expected {} fields, found {}{why}", header.len(), row.len()))
            };
            block.push(Record {
                line,
                record: records,
                fields,
            });
            records += 1;
        }
        if !ended && block.len() < BLOCK_ROWS {
            return Err(Error::data(
                Place::line(path, line),
                "every quoted cell to end in a quote",
                "a quote that is still open at the end of the file",
            )
            .with_hint("close the quote; within a quoted cell a quote is written twice"));
        }
        each(block)?;
        if ended {
            return Ok(records);
        }
    }
}

/// Put behind a CSV file, so that it is seen whether the parser is within quotes there.
const END: &[u8] = b"\n\x01end of the file\x01\n";

fn is_end(row: &csv::ByteRecord) -> bool {
    row.len() == 1 && row[0] == END[1..END.len() - 1]
}

/// Whether a CSV file's header ends in CR LF. The parser ends a record at the CR, so that it takes the next record to begin
/// on the line before its own.
fn ends_in_crlf(path: &Path, compression: Compression) -> Result<bool> {
    let mut header = Vec::new();
    text_of(path, compression)?
        .read_until(b'\n', &mut header)
        .map_err(Error::io(path, "read"))?;
    Ok(header.ends_with(b"\r\n"))
}

/// A CSV cell; a cell that holds a JSON list, as choices and messages do, is read as one.
fn cell_of(name: &str, cell: &[u8]) -> Result<(String, Value), String> {
    let text = std::str::from_utf8(cell).map_err(|_| format!("expected UTF-8 text in `{name}`, found broken bytes"))?;
    let value = match serde_json::from_str(text) {
        Ok(list @ Value::Array(_))
            if matches!(name, "choices" | "messages" | "conversations") || text.starts_with("[\"") =>
        {
            list
        }
        _ => Value::String(text.to_owned()),
    };
    Ok((name.to_owned(), value))
}

/// A reader of a Parquet file's rows, in blocks.
pub(crate) fn parquet_reader(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    ParquetRecordBatchReaderBuilder::try_new(File::open(path).map_err(Error::io(path, "read"))?)
        .map(|builder| builder.with_batch_size(BLOCK_ROWS))
        .map_err(|error| parquet_failure(path, &error))
}

/// A Parquet error in our words.
pub(crate) fn parquet_failure(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::data(
        Place::file(path),
        "a Parquet file",
        format!("one that cannot be read ({error})"),
    )
}

fn read_parquet(path: &Path, each: &mut dyn FnMut(Vec<Record>) -> Result<()>) -> Result<u64> {
    let reader = parquet_reader(path)?
        .build()
        .map_err(|error| parquet_failure(path, &error))?;
    let mut records = 0;
    for batch in reader {
        let batch = batch.map_err(|error| parquet_failure(path, &error))?;
        let block: Vec<Record> = (0..batch.num_rows())
            .into_par_iter()
            .map(|row| {
                let record = records + row as u64;
                Record {
                    line: record + 1,
                    record,
                    fields: row_of(&batch, row),
                }
            })
            .collect();
        records += batch.num_rows() as u64;
        each(block)?;
    }
    Ok(records)
}

fn row_of(batch: &RecordBatch, row: usize) -> Result<Fields, String> {
    batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| Ok((field.name().clone(), value_of(column, row)?)))
        .collect()
}

/// One cell as JSON. Columns of kinds that no task uses come out as null.
fn value_of(column: &ArrayRef, row: usize) -> Result<Value, String> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    let one = column.slice(row, 1);
    let cast = |to: &DataType| arrow_cast::cast(&one, to).map_err(|error| error.to_string());
    Ok(match column.data_type() {
        DataType::Utf8 => Value::from(one.as_string::<i32>().value(0)),
        DataType::LargeUtf8 | DataType::Utf8View => Value::from(cast(&DataType::Utf8)?.as_string::<i32>().value(0)),
        DataType::Dictionary(_, values) => return value_of(&cast(values)?, 0),
        DataType::Boolean => Value::from(one.as_boolean().value(0)),
        kind if kind.is_integer() => Value::from(cast(&DataType::Int64)?.as_primitive::<Int64Type>().value(0)),
        kind if kind.is_floating() => Value::from(cast(&DataType::Float64)?.as_primitive::<Float64Type>().value(0)),
        DataType::List(_) => list_of(&one.as_list::<i32>().value(0))?,
        DataType::LargeList(_) => list_of(&one.as_list::<i64>().value(0))?,
        DataType::FixedSizeList(..) => list_of(&one.as_fixed_size_list().value(0))?,
        DataType::Struct(fields) => {
            let object: Result<Fields, String> = fields
                .iter()
                .zip(one.as_struct().columns())
                .map(|(field, column)| Ok((field.name().clone(), value_of(column, 0)?)))
                .collect();
            Value::Object(object?)
        }
        _ => Value::Null,
    })
}

fn list_of(items: &ArrayRef) -> Result<Value, String> {
    (0..items.len())
        .map(|i| value_of(items, i))
        .collect::<Result<Vec<_>, _>>()
        .map(Value::Array)
}
