//! Where the records of a text file begin and end: lines, rows of CSV, items of a JSON list.
//!
//! A record's bytes are found before they are parsed, so that parsing is shared out between threads, a chosen record is copied as it
//! stands, and one that is too long is passed over without being held.

use std::{io::BufRead, ops::Range, path::Path};

use rayon::prelude::*;

use crate::{
    Error, Place, Result,
    data::{
        rejects::{Fault, FaultKind},
        source::{
            format::{Compression, Fields, Record},
            text::{MOST_BYTES, read_failure},
        },
    },
};

/// How many bytes of records are handed on together.
const BLOCK_BYTES: usize = 8 << 20;

/// What ends a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A line end.
    Lines,
    /// A line end outside of quotes, the columns being separated by this byte.
    Csv { delimiter: u8 },
    /// The comma behind an item of a list.
    Items,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its bytes in the block, with its line end; of an item, without what stands around it.
    pub(crate) bytes: Range<usize>,
    /// The line on which it begins, from 1.
    pub(crate) line: u64,
    /// Whether it is longer than may be held; it then has no bytes.
    pub(crate) too_long: bool,
}

/// Some records, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) bytes: Vec<u8>,
    pub(crate) spans: Vec<Span>,
}

impl Block {
    pub(crate) fn of(&self, span: &Span) -> &[u8] {
        &self.bytes[span.bytes.clone()]
    }
}

/// Reads a text file record by record.
pub(crate) struct Records<'a> {
    path: &'a Path,
    compression: Compression,
    reader: Box<dyn BufRead>,
    layout: Layout,
    state: State,
    line: u64,
    most_bytes: usize,
}

/// Where in a record the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Of CSV: at the beginning of a cell, or within one without quotes.
    CellStart,
    Cell,
    /// Within quotes; behind a quote within quotes, which ends them or is one of two.
    Quoted,
    QuoteInQuotes,
    /// Behind a carriage return, which ends a record with the line feed that may follow.
    Return,
    /// Of a list: before the bracket that begins it; behind an item; within the spaces and the comma before the next.
    Begin,
    Between,
    Separators,
    /// Within an item, so many brackets deep.
    Item {
        depth: u32,
    },
    /// Within a text of an item; behind a backslash there.
    Text {
        depth: u32,
    },
    Escape {
        depth: u32,
    },
    /// Behind the bracket that ends the list.
    End,
}

impl<'a> Records<'a> {
    pub(crate) fn new(path: &'a Path, compression: Compression, reader: Box<dyn BufRead>, layout: Layout) -> Self {
        Self {
            path,
            compression,
            reader,
            layout,
            state: if layout == Layout::Items {
                State::Begin
            } else {
                State::CellStart
            },
            line: 1,
            most_bytes: MOST_BYTES,
        }
    }

    /// The next records; none at the end of the file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or ends within quotes or within a list.
    pub(crate) fn block(&mut self) -> Result<Option<Block>> {
        let mut block = Block::default();
        while block.bytes.len() < BLOCK_BYTES {
            match self.record(&mut block.bytes)? {
                Some(span) => block.spans.push(span),
                None => break,
            }
        }
        Ok(if block.spans.is_empty() { None } else { Some(block) })
    }

    /// Reads all records that are left, a block at a time on all threads, and hands them on; `parse` passes over a record by none.
    /// Returns how many there were, those that were passed over with them.
    pub(crate) fn read(
        mut self,
        parse: impl Fn(&[u8]) -> Option<Result<Fields, Fault>> + Sync,
        each: &mut dyn FnMut(Vec<Record>) -> Result<()>,
    ) -> Result<u64> {
        let mut before = 0;
        while let Some(block) = self.block()? {
            let record = |(i, span): (usize, &Span)| {
                Some(Record {
                    line: span.line,
                    record: before + i as u64,
                    fields: if span.too_long {
                        Err(too_long())
                    } else {
                        parse(block.of(span))?
                    },
                })
            };
            let parsed: Vec<Record> = block.spans.par_iter().enumerate().filter_map(record).collect();
            before += block.spans.len() as u64;
            each(parsed)?;
        }
        Ok(before)
    }

    /// Puts the next record behind `bytes`.
    pub(crate) fn record(&mut self, bytes: &mut Vec<u8>) -> Result<Option<Span>> {
        loop {
            let (start, line) = (bytes.len(), self.line);
            let (mut length, mut more, mut ended) = (0, false, false);
            while !ended {
                let next = self
                    .reader
                    .fill_buf()
                    .map_err(|error| read_failure(self.path, self.compression, error))?;
                if next.is_empty() {
                    break;
                }
                more = true;
                let end = find_end(next, self.layout, &mut self.state);
                ended = end.is_some();
                let part = &next[..end.unwrap_or(next.len())];
                length += part.len();
                if length <= self.most_bytes {
                    bytes.extend_from_slice(part);
                } else {
                    bytes.truncate(start);
                }
                self.line += bytecount(part);
                let count = part.len();
                self.reader.consume(count);
            }
            if !more {
                self.check_end(line)?;
                return Ok(None);
            }
            let span = Span {
                bytes: start..bytes.len(),
                line,
                too_long: length > self.most_bytes,
            };
            match self.layout {
                Layout::Lines => return Ok(Some(span)),
                Layout::Csv { .. } => {
                    if !ended {
                        self.check_end(line)?;
                    }
                    // Blank lines are no records.
                    if span.too_long || bytes[start..].iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
                        return Ok(Some(span));
                    }
                }
                Layout::Items => {
                    if let Some(span) = self.item(bytes, span)? {
                        return Ok(Some(span));
                    }
                }
            }
            bytes.truncate(start);
        }
    }

    /// An item; nothing where this is what stands before, between or behind items.
    fn item(&self, bytes: &[u8], span: Span) -> Result<Option<Span>> {
        let found = bytes[span.bytes.clone()].trim_ascii();
        if self.state == State::End {
            // The last bracket, in an empty list with the first one, and what is behind it.
            let last = found.strip_prefix(b"[").unwrap_or(found).trim_ascii_start();
            return match last.strip_prefix(b"]") {
                Some(b"") => Ok(None),
                None if last.is_empty() => Ok(None),
                _ if last.starts_with(b",") => Err(self.broken_list(span.line, "a comma behind the last item")),
                _ => Err(self.broken_list(span.line, "something behind it")),
            };
        }
        if span.too_long {
            return Ok(Some(span));
        }
        match found {
            b"" | b"[" | b"," => Ok(None),
            _ if found.iter().all(|byte| *byte == b',' || byte.is_ascii_whitespace()) => {
                Err(self.broken_list(span.line, "two commas between its items"))
            }
            item => Ok(Some(Span {
                bytes: span.bytes.start..span.bytes.start + item.len(),
                ..span
            })),
        }
    }

    /// Refuses an end of the file within quotes or within a list.
    fn check_end(&self, line: u64) -> Result<()> {
        match self.state {
            State::Quoted => Err(Error::data(
                Place::line(self.path, line),
                "every quoted cell to end in a quote",
                "a quote that is still open at the end of the file",
            )
            .with_hint("close the quote; within a quoted cell a quote is written twice")),
            State::Begin
            | State::Between
            | State::Separators
            | State::Item { .. }
            | State::Text { .. }
            | State::Escape { .. } => Err(self.broken_list(line, "the end of the file within it")),
            _ => Ok(()),
        }
    }

    fn broken_list(&self, line: u64, found: &str) -> Error {
        Error::data(Place::line(self.path, line), "a JSON list of objects", found)
            .with_hint("write it anew, or one object a line as JSON Lines")
    }
}

/// That a record is longer than may be held.
pub(crate) fn too_long() -> Fault {
    Fault::new(
        FaultKind::TooLong,
        format!("expected a row of at most {} MiB, found a longer one", MOST_BYTES >> 20),
    )
}

/// Where the record that goes on with these bytes ends among them: just behind its last byte.
fn find_end(bytes: &[u8], layout: Layout, state: &mut State) -> Option<usize> {
    match layout {
        Layout::Lines => memchr::memchr(b'\n', bytes).map(|at| at + 1),
        Layout::Csv { delimiter } => find_csv_end(bytes, delimiter, state),
        Layout::Items => find_item_end(bytes, state),
    }
}

fn find_csv_end(bytes: &[u8], delimiter: u8, state: &mut State) -> Option<usize> {
    for (i, &byte) in bytes.iter().enumerate() {
        *state = match (*state, byte) {
            (State::Return, b'\n') => {
                *state = State::CellStart;
                return Some(i + 1);
            }
            (State::Return, _) => {
                *state = State::CellStart;
                return Some(i);
            }
            (State::Quoted, b'"') => State::QuoteInQuotes,
            (State::Quoted, _) | (State::QuoteInQuotes | State::CellStart, b'"') => State::Quoted,
            (_, b'\n') => {
                *state = State::CellStart;
                return Some(i + 1);
            }
            (_, b'\r') => State::Return,
            (_, byte) if byte == delimiter => State::CellStart,
            _ => State::Cell,
        };
    }
    None
}

fn find_item_end(bytes: &[u8], state: &mut State) -> Option<usize> {
    for (i, &byte) in bytes.iter().enumerate() {
        *state = match (*state, byte) {
            (State::End, _) => return Some(bytes.len()),
            (State::Begin, b'[') | (State::Between | State::Separators, b',') => State::Separators,
            (State::Begin, _) => State::Begin,
            (State::Between | State::Separators, b']') => State::End,
            (State::Between | State::Separators, byte) if byte.is_ascii_whitespace() => State::Separators,
            (State::Separators, _) | (State::Item { depth: 0 }, b',' | b']') => {
                *state = State::Between;
                return Some(i);
            }
            (State::Between, b'{' | b'[') => State::Item { depth: 1 },
            (State::Between, b'"') => State::Text { depth: 0 },
            (State::Between, _) => State::Item { depth: 0 },
            (State::Item { depth }, b'{' | b'[') => State::Item { depth: depth + 1 },
            (State::Item { depth }, b'}' | b']') if depth > 1 => State::Item { depth: depth - 1 },
            (State::Item { .. }, b'}' | b']') => {
                *state = State::Between;
                return Some(i + 1);
            }
            (State::Item { depth }, b'"') | (State::Escape { depth }, _) => State::Text { depth },
            (State::Text { depth }, b'\\') => State::Escape { depth },
            (State::Text { depth }, b'"') => State::Item { depth },
            (same, _) => same,
        };
    }
    None
}

fn bytecount(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use proptest::prelude::*;

    use super::*;

    /// The records of a text that is read so many bytes at a time: line, and bytes where it is not too long.
    fn records(text: &str, layout: Layout, at_a_time: usize, most_bytes: usize) -> Result<Vec<(u64, Option<String>)>> {
        let reader = BufReader::with_capacity(at_a_time, Cursor::new(text.as_bytes().to_vec()));
        let mut records = Records::new(Path::new("t"), Compression::Plain, Box::new(reader), layout);
        records.most_bytes = most_bytes;
        let mut out = Vec::new();
        while let Some(block) = records.block()? {
            out.extend(block.spans.iter().map(|span| {
                let text = String::from_utf8_lossy(block.of(span)).into_owned();
                (span.line, (!span.too_long).then_some(text))
            }));
        }
        Ok(out)
    }

    fn whole(lines: &[(u64, &str)]) -> Vec<(u64, Option<String>)> {
        lines
            .iter()
            .map(|(line, text)| (*line, Some((*text).to_owned())))
            .collect()
    }

    #[test]
    fn records_end_where_their_layout_says_however_the_bytes_come() {
        let csv = Layout::Csv { delimiter: b',' };
        for at_a_time in [1, 2, 3, 100] {
            let of = |text: &str, layout| records(text, layout, at_a_time, 100).expect("reads");
            assert_eq!(
                of("a\n\nb\r\nc", Layout::Lines),
                whole(&[(1, "a\n"), (2, "\n"), (3, "b\r\n"), (4, "c")])
            );
            assert_eq!(
                of("a,b\r\n\n\"x\n\"\"y\",5\"\n\rz\r\nlast", csv),
                whole(&[(1, "a,b\r\n"), (3, "\"x\n\"\"y\",5\"\n"), (5, "z\r\n"), (6, "last")])
            );
            assert_eq!(
                of(" [ {\"a\": \"]}\\\"\"},\n[1, {}] ,2,\"x\" ] \n", Layout::Items),
                whole(&[(1, "{\"a\": \"]}\\\"\"}"), (2, "[1, {}]"), (2, "2"), (2, "\"x\"")])
            );
            assert_eq!(of("[]", Layout::Items), []);
        }
    }

    #[test]
    fn a_record_that_is_too_long_is_passed_over() {
        let csv = Layout::Csv { delimiter: b',' };
        for at_a_time in [1, 3, 100] {
            for (text, layout) in [
                ("12\n12345678\n3\n", Layout::Lines),
                ("12\n\"123\n5678\"\n3\n", csv),
                ("[12,\n[1,2,3,4],\n3\n]", Layout::Items),
            ] {
                let found = records(text, layout, at_a_time, 5).expect("reads");
                let long: Vec<bool> = found.iter().map(|(_, text)| text.is_none()).collect();
                assert_eq!(long, [false, true, false], "{text} {found:?}");
                assert_eq!(found[1].0, 2);
            }
        }
    }

    #[test]
    fn a_file_that_ends_too_early_is_refused() {
        for (text, layout) in [
            ("a\n\"b", Layout::Csv { delimiter: b',' }),
            ("[{}, {\"a\"", Layout::Items),
            ("[{}", Layout::Items),
            ("[{},,{}]", Layout::Items),
            ("[{}] {}", Layout::Items),
            ("[{},]", Layout::Items),
        ] {
            assert!(records(text, layout, 4, 100).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn rows_of_csv_are_those_of_the_parser(text in "[a,\"\n\r]{0,40}", at_a_time in 1usize..5) {
            let mut parser = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
            let parsed: Vec<_> = parser.byte_records().map(|row| row.expect("reads")).collect();
            let layout = Layout::Csv { delimiter: b',' };
            if let Ok(found) = records(&text, layout, at_a_time, 100) {
                let alone: Vec<_> = found.iter().map(|(_, text)| {
                    let text = text.clone().expect("is short");
                    let mut parser = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
                    parser.byte_records().next().expect("is a row").expect("reads")
                }).collect();
                prop_assert_eq!(alone, parsed);
            }
        }
    }
}
