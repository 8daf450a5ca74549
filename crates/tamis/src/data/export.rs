//! The chosen rows, written back as they came in: byte for byte, in their original order.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, SchemaRef};
use parquet::{arrow::ArrowWriter, basic::Compression as ParquetCompression, file::properties::WriterProperties};
use tamis_nn::{Fingerprint, atomic_write::write_whole};

use crate::{
    Error, Place, Result,
    data::{
        Format, Reject, RowId, SourceFile, Split,
        source::{
            columns, csv,
            records::{Layout, Records},
            text::text_of,
        },
    },
};

/// Writes the rows of a split to `selected.jsonl`, or the ending of its format, in a folder, and returns the file.
///
/// Lines and items of a list keep their bytes (a last line without an end gets one); CSV keeps its header and quoting; columnar files keep
/// their schema and values, those of several the first one's. The sources are read again, so nothing but the row numbers has to be kept in memory.
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
    let files: Vec<(&SourceFile, &[u64])> = split.files.iter().zip(wanted.iter().map(Vec::as_slice)).collect();
    write_whole(&path, &mut |out| {
        let mut out = Out { file: out, path: &path };
        match format {
            Format::JsonLines => files.iter().try_for_each(|(file, records)| {
                copy(&mut text(file, Layout::Lines)?, records, &mut |line| out.line(line))
            }),
            Format::JsonList => copy_items(&files, &mut out),
            Format::Csv | Format::Tsv => copy_csv(&files, &mut out),
            Format::Parquet | Format::Arrow => copy_columns(&files, format, &mut out),
        }
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

/// The file that is written.
struct Out<'a> {
    file: &'a mut BufWriter<File>,
    path: &'a Path,
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(self.path, "write"))
    }

    /// A line, with an end where it has none.
    fn line(&mut self, line: &[u8]) -> Result<()> {
        self.write(line)?;
        if line.ends_with(b"\n") || line.ends_with(b"\r") {
            Ok(())
        } else {
            self.write(b"\n")
        }
    }
}

fn text(file: &SourceFile, layout: Layout) -> Result<Records<'_>> {
    let text = text_of(&file.path, file.compression)?;
    Ok(Records::new(&file.path, file.compression, text, layout))
}

/// Hands on the bytes of these records.
fn copy(records: &mut Records<'_>, wanted: &[u64], each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut wanted = wanted.iter().copied().peekable();
    let mut number = 0;
    while wanted.peek().is_some()
        && let Some(block) = records.block()?
    {
        for span in &block.spans {
            if wanted.next_if_eq(&number).is_some() {
                each(block.of(span))?;
            }
            number += 1;
        }
    }
    Ok(())
}

fn copy_items(files: &[(&SourceFile, &[u64])], out: &mut Out<'_>) -> Result<()> {
    let mut before: &[u8] = b"[\n";
    for (file, wanted) in files {
        copy(&mut text(file, Layout::Items)?, wanted, &mut |item| {
            out.write(before)?;
            before = b",\n";
            out.write(item)
        })?;
    }
    out.write(if before == b"[\n" { b"[]\n" } else { b"\n]\n" })
}

fn copy_csv(files: &[(&SourceFile, &[u64])], out: &mut Out<'_>) -> Result<()> {
    for (i, (file, wanted)) in files.iter().enumerate() {
        let (mut records, header) = csv::open(&file.path, file.compression, file.format)?;
        if i == 0 {
            out.line(&header.bytes)?;
        }
        copy(&mut records, wanted, &mut |row| out.line(row))?;
    }
    Ok(())
}

fn copy_columns(files: &[(&SourceFile, &[u64])], format: Format, out: &mut Out<'_>) -> Result<()> {
    let opened = |file: &SourceFile| columns::open(&file.path, format);
    let mut schema = opened(files[0].0)?.schema;
    for (file, _) in &files[1..] {
        let common = columns::common_schema(&schema, &opened(file)?.schema);
        schema = Arc::new(common.map_err(|found| columns::failure(&file.path, format, &found))?);
    }
    let mut writer = BatchWriter::new(format, &schema, out)?;
    for (file, wanted) in files {
        let mut wanted = wanted.iter().copied().peekable();
        let mut start = 0;
        for batch in opened(file)?.batches {
            let batch = batch?;
            let mask: BooleanArray = (start..start + batch.num_rows() as u64)
                .map(|row| Some(wanted.next_if_eq(&row).is_some()))
                .collect();
            start += batch.num_rows() as u64;
            let kept = arrow_select::filter::filter_record_batch(&batch, &mask)
                .and_then(|kept| columns::to_schema(&kept, &schema))
                .map_err(|error| columns::failure(&file.path, format, &error))?;
            writer.write(&kept)?;
        }
    }
    writer.finish()
}

/// Writes columns in the format that they came in.
enum BatchWriter<'o, 'a> {
    Parquet(ArrowWriter<&'o mut BufWriter<File>>, &'a Path),
    Arrow(StreamWriter<&'o mut BufWriter<File>>, &'a Path),
}

impl<'o, 'a> BatchWriter<'o, 'a> {
    fn new(format: Format, schema: &SchemaRef, out: &'o mut Out<'a>) -> Result<Self> {
        let path = out.path;
        if format == Format::Arrow {
            return StreamWriter::try_new(&mut *out.file, schema)
                .map(|writer| Self::Arrow(writer, path))
                .map_err(|error| unwritten_arrow(path, error));
        }
        let properties = WriterProperties::builder()
            .set_compression(ParquetCompression::SNAPPY)
            .build();
        ArrowWriter::try_new(&mut *out.file, Arc::clone(schema), Some(properties))
            .map(|writer| Self::Parquet(writer, path))
            .map_err(|error| unwritten(path, error))
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Parquet(writer, path) => writer.write(batch).map_err(|error| unwritten(path, error)),
            Self::Arrow(writer, path) => writer.write(batch).map_err(|error| unwritten_arrow(path, error)),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Parquet(writer, path) => writer.close().map(|_| ()).map_err(|error| unwritten(path, error)),
            Self::Arrow(mut writer, path) => writer.finish().map_err(|error| unwritten_arrow(path, error)),
        }
    }
}

fn unwritten(path: &Path, error: parquet::errors::ParquetError) -> Error {
    Error::io(path, "write")(source_of(error))
}

fn unwritten_arrow(path: &Path, error: ArrowError) -> Error {
    Error::io(path, "write")(match error {
        ArrowError::IoError(_, source) => source,
        other => std::io::Error::other(other),
    })
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
        let mut out = columns::open(&path, Format::Parquet).expect("reads").batches;
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
