//! JSON: one object a line, or a list of objects.

use std::{io::BufRead, path::Path};

use serde_json::Value;

use crate::{
    Error, Place, Result,
    data::{
        rejects::{Fault, FaultKind},
        source::{
            format::{Compression, Fields, Format, Record, name_of},
            records::{Layout, Records},
            text::{read_failure, text_of},
        },
    },
};

/// Whether a JSON file holds a list or one object a line, told from its first bytes.
///
/// # Errors
///
/// If it cannot be read, or holds one object over several lines.
pub(crate) fn format_of(path: &Path, compression: Compression) -> Result<Format> {
    let mut reader = text_of(path, compression)?;
    let mut begins = Vec::new();
    // As much as tells an object over several lines from one that is cut off.
    while begins.len() < 1 << 16 && !has_two_lines(&begins) {
        let next = reader
            .fill_buf()
            .map_err(|error| read_failure(path, compression, error))?;
        if next.is_empty() {
            break;
        }
        let count = next.len().min(1 << 16);
        begins.extend_from_slice(&next[..count]);
        reader.consume(count);
    }
    let begins = begins.trim_ascii_start();
    if begins.starts_with(b"[") {
        return Ok(Format::JsonList);
    }
    let mut lines = begins.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.next().unwrap_or_default();
    let second = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let breaks_off = serde_json::from_slice::<Value>(first).is_err_and(|error| error.is_eof());
    if breaks_off && first.starts_with(b"{") && !second.is_empty() && !second.starts_with(b"{\"") {
        return Err(
            Error::data(Place::file(path), "one JSON object a line", "JSON over several lines").with_hint(
                "write one object a line with `jq -c . old.json > new.jsonl`; if the rows are a list within an object, \
                 with `jq -c '.data[]'` and its name in the place of `data`",
            ),
        );
    }
    Ok(Format::JsonLines)
}

fn has_two_lines(bytes: &[u8]) -> bool {
    let mut lines = bytes.trim_ascii_start().split(|byte| *byte == b'\n').skip(1);
    lines.any(|line| !line.trim_ascii().is_empty())
}

/// Reads the records of a file, `each` a block; returns how many there are, in JSON Lines the number of lines.
pub(crate) fn read(
    path: &Path,
    compression: Compression,
    layout: Layout,
    each: &mut dyn FnMut(Vec<Record>) -> Result<()>,
) -> Result<u64> {
    let records = Records::new(path, compression, text_of(path, compression)?, layout);
    records.read(
        |bytes| {
            let bytes = bytes.trim_ascii();
            (!bytes.is_empty()).then(|| parse(bytes))
        },
        each,
    )
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Fields, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Fault::new(
            FaultKind::Encoding,
            format!(
                "expected UTF-8 text, found a broken byte at column {}",
                error.valid_up_to() + 1
            ),
        )
    })?;
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(Fault::other(format!(
            "expected a JSON object, found {}",
            name_of(&other)
        ))),
        Err(error) if error.is_eof() => Err(Fault::new(
            FaultKind::BrokenOff,
            format!(
                "expected a JSON object, found JSON that breaks off after column {}",
                error.column()
            ),
        )),
        Err(error) => {
            // The parser's own words end in a line number, that of this one line.
            let (column, said) = (error.column(), error.to_string());
            let why = said.rsplit_once(" at line ").map_or(&*said, |(why, _)| why);
            let at = text.get(column.saturating_sub(2)..).unwrap_or_default();
            let not_a_number = ["NaN", "Infinity"]
                .iter()
                .any(|word| at.get(..at.len().min(10)).is_some_and(|at| at.contains(&word[..2])));
            let kind = if not_a_number {
                FaultKind::NotANumber
            } else {
                FaultKind::BrokenJson
            };
            let found = if not_a_number {
                format!("NaN or Infinity at column {column}, which JSON does not have")
            } else {
                format!("broken JSON at column {column} ({why})")
            };
            Err(Fault::new(kind, format!("expected a JSON object, found {found}")))
        }
    }
}
