//! The chosen rows, written back as they came in: byte for byte, in their original order.

use std::{
    fs::File,
    io::{BufRead, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use arrow_array::BooleanArray;
use parquet::{arrow::ArrowWriter, basic::Compression as ParquetCompression, file::properties::WriterProperties};
use tamis_nn::{Fingerprint, atomic_write::write_whole};

use crate::{
    Error, Place, Result,
    data::{
        Format, Reject, RowId, SourceFile, Split,
        source::{csv_reader, parquet_failure, parquet_reader, text_of},
    },
};

/// Writes the rows of a split to `selected.jsonl`, `.csv` or `.parquet` in a folder, and returns the file.
///
/// Lines keep their bytes (a last line without an end gets one); CSV keeps its header and quoting; Parquet keeps its
/// schema and values. The sources are read again, so nothing but the row numbers has to be kept in memory.
///
/// # Errors
///
/// If a source changed since it was read, or the file cannot be written.
pub fn export(split: &Split, rows: &[RowId], folder: &Path) -> Result<PathBuf> {
    let mut wanted: Vec<Vec<u64>> = vec![Vec::new(); split.files.len()];
    for &row in rows {
        let origin = split.examples[row as usize].origin;
        wanted[origin.file as usize].push(origin.record);
    }
    wanted.iter_mut().for_each(|records| records.sort_unstable());
    for file in &split.files {
        if Fingerprint::of_file(&file.path)? != file.hash {
            return Err(Error::data(
                Place::file(&file.path),
                "the file as it was when the run began",
                "one that changed meanwhile",
            )
            .with_hint("start again into another folder: the selection belongs to the old rows"));
        }
    }
    let format = split.files.first().map_or(Format::JsonLines, |file| file.format);
    let path = folder.join("selected").with_extension(format.extension());
    write_whole(&path, &mut |out| match format {
        Format::JsonLines => split
            .files
            .iter()
            .zip(&wanted)
            .try_for_each(|(file, records)| copy_lines(file, records, &path, out)),
        Format::Csv => split
            .files
            .iter()
            .zip(&wanted)
            .enumerate()
            .try_for_each(|(i, (file, records))| copy_csv(file, records, i == 0, &path, out)),
        Format::Parquet => copy_parquet(&split.files, &wanted, &path, out),
    })?;
    Ok(path)
}

/// Lists rows that could not be used in `rejects.jsonl`, one JSON object a line; an empty file says that there were none.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write_rejects(rejects: &[Reject], folder: &Path) -> Result<()> {
    let path = folder.join("rejects.jsonl");
    write_whole(&path, &mut |out| {
        rejects.iter().try_for_each(|reject| {
            serde_json::to_writer(&mut *out, reject).map_err(|error| Error::io(&path, "write")(error.into()))?;
            out.write_all(b"\n").map_err(Error::io(&path, "write"))
        })
    })
}

fn copy_lines(file: &SourceFile, records: &[u64], path: &Path, out: &mut BufWriter<File>) -> Result<()> {
    let mut reader = text_of(&file.path, file.compression)?;
    let mut line = Vec::new();
    let mut number = 0;
    for &record in records {
        loop {
            line.clear();
            reader
                .read_until(b'\n', &mut line)
                .map_err(Error::io(&file.path, "read"))?;
            number += 1;
            if number > record {
                break;
            }
        }
        write_line(&line, path, out)?;
    }
    Ok(())
}

fn write_line(line: &[u8], path: &Path, out: &mut BufWriter<File>) -> Result<()> {
    let end: &[u8] = if line.ends_with(b"\n") { b"" } else { b"\n" };
    out.write_all(line)
        .and_then(|()| out.write_all(end))
        .map_err(Error::io(path, "write"))
}

/// Finds where the records begin and end, then copies these bytes.
fn copy_csv(file: &SourceFile, records: &[u64], header: bool, path: &Path, out: &mut BufWriter<File>) -> Result<()> {
    let mut reader = csv_reader(text_of(&file.path, file.compression)?);
    let failed = |error: csv::Error| Error::data(Place::file(&file.path), "a CSV file", error.to_string());
    reader.byte_headers().map_err(failed)?;
    let mut ranges = Vec::with_capacity(records.len() + 1);
    if header {
        ranges.push(0..reader.position().byte());
    }
    let mut row = csv::ByteRecord::new();
    let mut number = 0;
    for &record in records {
        loop {
            if !reader.read_byte_record(&mut row).map_err(failed)? {
                break;
            }
            number += 1;
            if number > record {
                break;
            }
        }
        let start = row.position().map_or(0, csv::Position::byte);
        ranges.push(start..reader.position().byte());
    }
    let mut bytes = text_of(&file.path, file.compression)?;
    let mut at = 0;
    let mut line = Vec::new();
    for range in ranges {
        let read = Error::io(&file.path, "read");
        // The parser ends a record at CR and begins the next with its LF, which may be copied already.
        let start = range.start.max(at);
        let mut skip = || -> std::io::Result<()> {
            std::io::copy(&mut bytes.by_ref().take(start - at), &mut std::io::sink())?;
            line.clear();
            bytes.by_ref().take(range.end - start).read_to_end(&mut line)?;
            Ok(())
        };
        skip().map_err(read)?;
        at = range.end;
        if line.ends_with(b"\r") && bytes.fill_buf().map_err(Error::io(&file.path, "read"))?.first() == Some(&b'\n') {
            bytes.consume(1);
            at += 1;
            line.push(b'\n');
        }
        let body = line.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
        write_line(&line[body..], path, out)?;
    }
    Ok(())
}

fn copy_parquet(files: &[SourceFile], wanted: &[Vec<u64>], path: &Path, out: &mut BufWriter<File>) -> Result<()> {
    let Some(first) = files.first() else { return Ok(()) };
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |error: parquet::errors::ParquetError| parquet_failure(&path, &error)
    };
    let schema = parquet_reader(&first.path)?.schema().clone();
    let properties = WriterProperties::builder()
        .set_compression(ParquetCompression::SNAPPY)
        .build();
    let unwritten = |error: parquet::errors::ParquetError| Error::io(path, "write")(source_of(error));
    let mut writer = ArrowWriter::try_new(&mut *out, schema, Some(properties)).map_err(unwritten)?;
    for (file, records) in files.iter().zip(wanted) {
        let mut wanted = records.iter().copied().peekable();
        let mut start = 0;
        for batch in parquet_reader(&file.path)?.build().map_err(failed(&file.path))? {
            let batch = batch.map_err(|error| parquet_failure(&file.path, &error))?;
            let mask: BooleanArray = (start..start + batch.num_rows() as u64)
                .map(|row| Some(wanted.next_if_eq(&row).is_some()))
                .collect();
            start += batch.num_rows() as u64;
            let kept = arrow_select::filter::filter_record_batch(&batch, &mask)
                .map_err(|error| parquet_failure(&file.path, &error))?;
            writer.write(&kept).map_err(unwritten)?;
        }
    }
    writer.close().map(|_| ()).map_err(unwritten)
}

/// The system's own error in one of Parquet's, so that a full disk is told as such.
fn source_of(error: parquet::errors::ParquetError) -> std::io::Error {
    match error {
        parquet::errors::ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => *source,
            Err(source) => std::io::Error::other(source),
        },
        other => std::io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use arrow_array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, types::Int64Type};
    use proptest::prelude::*;

    use super::*;
    use crate::data::{DataSettings, read};
    use tamis_nn::Silent;

    /// Reads `bytes` as a training file of this name and exports these rows.
    fn exported(name: &str, bytes: &[u8], rows: &[RowId]) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let (train, validation) = (folder.path().join(name), folder.path().join("v.jsonl"));
        fs::write(&train, bytes).expect("writes");
        fs::write(&validation, "{\"text\": \"unseen\", \"label\": \"1\"}\n").expect("writes");
        let settings = DataSettings {
            train: vec![train.clone()],
            validation: vec![validation],
            max_bad: 0.9,
            ..DataSettings::default()
        };
        let data = read(&settings, &Silent).expect("reads");
        let path = export(&data.train, rows, folder.path()).expect("exports");
        assert_eq!(
            fs::read(&train).expect("is there"),
            bytes,
            "the user's file was touched"
        );
        fs::read(path).expect("was written")
    }

    #[test]
    fn lines_keep_their_bytes_and_their_order() {
        let bytes = "\u{feff}{\"text\":\"a\",  \"label\":1, \"x\":[1]}\r\n\n{\"label\":2,\"text\":\"\\u00e9\"}\nbroken\n{\"text\":\"c\",\"label\":1}";
        let out = exported("t.jsonl", bytes.as_bytes(), &[2, 0]);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "{\"text\":\"a\",  \"label\":1, \"x\":[1]}\r\n{\"text\":\"c\",\"label\":1}\n"
        );
    }

    #[test]
    fn packed_lines_come_out_unpacked() {
        let line = "{\"text\":\"a\",\"label\":1}\n";
        let other = "{\"text\":\"b\",\"label\":2}\n";
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(format!("{line}{other}").as_bytes()).expect("packs");
        assert_eq!(
            exported("t.jsonl.gz", &gz.finish().expect("packs"), &[1]),
            other.as_bytes()
        );
        let zst = zstd::encode_all(format!("{line}{other}").as_bytes(), 1).expect("packs");
        assert_eq!(exported("t.jsonl.zst", &zst, &[0]), line.as_bytes());
    }

    #[test]
    fn csv_keeps_its_header_and_its_quoting() {
        let bytes = "text,label,note\r\n\"a, \"\"quoted\"\"\r\nline\",1,x\r\nplain,2,\r\nshort\r\n'last',1,\"\"";
        let out = exported("t.csv", bytes.as_bytes(), &[0, 2]);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "text,label,note\r\n\"a, \"\"quoted\"\"\r\nline\",1,x\r\n'last',1,\"\"\n"
        );
    }

    #[test]
    fn parquet_keeps_its_schema_and_values() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        let labels: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 1]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(1)]),
            None,
            Some(vec![None]),
        ]));
        let batch = RecordBatch::try_from_iter([("text", texts), ("label", labels), ("ids", lists)]).expect("a batch");
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("writes");
        writer.close().expect("closes");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.parquet");
        fs::write(&path, exported("t.parquet", &bytes, &[2, 0])).expect("writes");
        let mut out = parquet_reader(&path).expect("reads").build().expect("reads");
        let want = arrow_select::concat::concat_batches(&batch.schema(), [&batch.slice(0, 1), &batch.slice(2, 1)]);
        assert_eq!(out.next().expect("a batch").expect("reads"), want.expect("a batch"));
    }

    #[test]
    fn a_source_that_changed_is_not_exported_from() {
        let folder = tempfile::tempdir().expect("a folder");
        let (train, validation) = (folder.path().join("t.jsonl"), folder.path().join("v.jsonl"));
        fs::write(&train, "{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\",\"label\":2}\n").expect("writes");
        fs::write(&validation, "{\"text\":\"c\",\"label\":1}\n").expect("writes");
        let settings = DataSettings {
            train: vec![train.clone()],
            validation: vec![validation],
            ..DataSettings::default()
        };
        let data = read(&settings, &Silent).expect("reads");
        fs::write(&train, "{\"text\":\"z\",\"label\":1}\n{\"text\":\"b\",\"label\":2}\n").expect("writes");
        assert!(
            export(&data.train, &[0], folder.path())
                .expect_err("changed")
                .to_string()
                .contains("changed meanwhile")
        );
        assert!(!folder.path().join("selected.jsonl").exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn exporting_every_row_gives_the_file_back(
            texts in proptest::collection::vec("[^\\p{Cc}\"\\\\]{1,20}", 2..12), crlf: bool
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let lines: Vec<String> = texts
                .iter()
                .enumerate()
                .map(|(i, text)| format!("{{\"text\": \"x{text}\", \"label\": {}}}{end}", i % 2))
                .collect();
            let rows: Vec<RowId> = (0..texts.len() as u32).collect();
            prop_assert_eq!(String::from_utf8(exported("t.jsonl", lines.concat().as_bytes(), &rows)).expect("UTF-8"), lines.concat());
        }
    }
}
