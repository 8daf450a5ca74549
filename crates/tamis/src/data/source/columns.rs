//! Columnar files: Parquet, and Arrow's own formats, as the `datasets` library keeps them.

use std::{collections::HashMap, fs::File, io::BufReader, io::Read, path::Path, sync::Arc};

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rayon::prelude::*;
use serde_json::Value;
use tamis_nn::unwind::unless_it_panics;

use crate::{
    Error, Place, Result,
    data::{
        rejects::Fault,
        source::format::{Fields, Format, Record},
    },
};

/// How many rows are handed on together.
const BLOCK_ROWS: usize = 8192;

/// A columnar file that is read batch by batch.
pub(crate) struct Columnar {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Box<dyn Iterator<Item = Result<RecordBatch>>>,
}

/// Opens a file.
///
/// # Errors
///
/// If it cannot be read, or is none of this format.
pub(crate) fn open(path: &Path, format: Format) -> Result<Columnar> {
    unless_it_panics(|| open_unguarded(path, format)).unwrap_or_else(|said| Err(failure(path, format, &said)))
}

fn open_unguarded(path: &Path, format: Format) -> Result<Columnar> {
    let opened = || File::open(path).map_err(Error::io(path, "read"));
    if format == Format::Parquet {
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(opened()?).map_err(|error| failure(path, format, &error))?;
        let schema = builder.schema().clone();
        let reader = builder
            .with_batch_size(BLOCK_ROWS)
            .build()
            .map_err(|error| failure(path, format, &error))?;
        return Ok(Columnar {
            schema,
            batches: guarded(path, format, reader),
        });
    }
    let mut begins = [0; 6];
    let in_file_format = opened()?.read_exact(&mut begins).is_ok() && &begins == b"ARROW1";
    let (schema, batches): (_, Box<dyn Iterator<Item = _>>) = if in_file_format {
        let reader = FileReader::try_new(opened()?, None).map_err(|error| failure(path, format, &error))?;
        (reader.schema(), Box::new(reader))
    } else {
        let reader =
            StreamReader::try_new(BufReader::new(opened()?), None).map_err(|error| failure(path, format, &error))?;
        (reader.schema(), Box::new(reader))
    };
    Ok(Columnar {
        schema,
        batches: guarded(path, format, batches),
    })
}

/// The batches of a reader, whose panics on damaged files are errors; after one it is not asked again.
fn guarded(
    path: &Path,
    format: Format,
    mut batches: impl Iterator<Item = Result<RecordBatch, ArrowError>> + 'static,
) -> Box<dyn Iterator<Item = Result<RecordBatch>>> {
    let (path, mut gave_up) = (path.to_path_buf(), false);
    Box::new(std::iter::from_fn(move || {
        if gave_up {
            return None;
        }
        match unless_it_panics(|| batches.next()) {
            Ok(batch) => Some(batch?.map_err(|error| failure(&path, format, &error))),
            Err(said) => {
                gave_up = true;
                Some(Err(failure(&path, format, &said)))
            }
        }
    }))
}

/// An error of the readers in our words.
pub(crate) fn failure(path: &Path, format: Format, error: &dyn std::fmt::Display) -> Error {
    let expected = if format == Format::Parquet {
        "a Parquet file"
    } else {
        "an Arrow file"
    };
    Error::data(
        Place::file(path),
        expected,
        format!("one that cannot be read ({error})"),
    )
}

/// Reads the rows of a file, `each` a block; returns how many there are.
pub(crate) fn read(path: &Path, format: Format, each: &mut dyn FnMut(Vec<Record>) -> Result<()>) -> Result<u64> {
    let Columnar { schema, batches } = open(path, format)?;
    let names = label_names(&schema);
    let mut records = 0;
    for batch in batches {
        let batch = batch?;
        let block: Vec<Record> = (0..batch.num_rows())
            .into_par_iter()
            .map(|row| Record {
                line: records + row as u64 + 1,
                record: records + row as u64,
                fields: unless_it_panics(|| row_of(&batch, row, &names))
                    .unwrap_or_else(|said| Err(Fault::other(format!("expected a row that can be read, found {said}")))),
            })
            .collect();
        records += batch.num_rows() as u64;
        each(block)?;
    }
    Ok(records)
}

/// Columns whose values are no JSON, with what they hold and how to turn them into something that is.
pub(crate) fn unreadable(path: &Path, format: Format) -> Result<HashMap<String, Unreadable>> {
    let schema = open(path, format)?.schema;
    let of = |field: &Arc<Field>| Some((field.name().clone(), Unreadable::of(field.data_type())?));
    Ok(schema.fields().iter().filter_map(of).collect())
}

/// Why a column cannot be read as texts, labels or numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) found: &'static str,
    pub(crate) way_out: &'static str,
}

impl Unreadable {
    fn of(kind: &DataType) -> Option<Self> {
        let (found, way_out) = match kind {
            DataType::Null => ("no value in any row", "fill the column, or name another with `field`"),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => (
                "bytes",
                "write texts in the place of bytes, in pandas with `df[name] = df[name].str.decode('utf-8')`",
            ),
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                (
                    "decimal numbers",
                    "write whole numbers, in pandas with `df[name] = df[name].astype('int64')`",
                )
            }
            kind if kind.is_temporal() => ("dates or times", "write texts in their place"),
            DataType::Map(..)
            | DataType::Union(..)
            | DataType::RunEndEncoded(..)
            | DataType::ListView(_)
            | DataType::LargeListView(_) => (
                "values of a kind that is not read",
                "write texts, numbers or lists in their place",
            ),
            _ => return None,
        };
        Some(Self { found, way_out })
    }
}

/// The names of the labels of each column of whole numbers that has some, as the `datasets` library keeps them in a schema's metadata.
pub(crate) fn label_names(schema: &Schema) -> HashMap<String, Vec<String>> {
    let told = schema
        .metadata()
        .get("huggingface")
        .and_then(|told| serde_json::from_str::<Value>(told).ok());
    let features = told.as_ref().and_then(|told| told["info"]["features"].as_object());
    features
        .into_iter()
        .flatten()
        .filter(|(_, feature)| feature["_type"] == "ClassLabel")
        .filter_map(|(column, feature)| {
            let names = feature["names"].as_array()?.iter();
            let names: Option<Vec<String>> = names.map(|name| name.as_str().map(str::to_owned)).collect();
            Some((column.clone(), names?))
        })
        .collect()
}

/// The schema that the rows of two files can be written in, or what keeps them from being written into one file. Metadata and the order
/// of columns do not: they are the first's.
pub(crate) fn common_schema(first: &Schema, other: &Schema) -> Result<Schema, String> {
    let lacks = |schema: &Schema, field: &&Arc<Field>| schema.column_with_name(field.name()).is_none();
    if let Some(field) = first.fields().iter().find(|field| lacks(other, field)) {
        return Err(format!("no column `{}`", field.name()));
    }
    if let Some(field) = other.fields().iter().find(|field| lacks(first, field)) {
        return Err(format!("a column `{}` more", field.name()));
    }
    let common = |field: &Arc<Field>| {
        let there = other.field_with_name(field.name()).map_err(|error| error.to_string())?;
        let (kind, other) = (field.data_type(), there.data_type());
        common_field(field, there).ok_or_else(|| format!("`{}` of type {other}, not {kind}", field.name()))
    };
    let fields: Vec<Field> = first.fields().iter().map(common).collect::<Result<_, _>>()?;
    Ok(Schema::new_with_metadata(fields, first.metadata().clone()))
}

fn common_field(first: &Field, other: &Field) -> Option<Field> {
    let kind = common_type(first.data_type(), other.data_type())?;
    let nullable = first.is_nullable() || other.is_nullable();
    Some(Field::new(first.name(), kind, nullable).with_metadata(first.metadata().clone()))
}

/// The type that takes the values of both as they are, if there is one.
fn common_type(first: &DataType, other: &DataType) -> Option<DataType> {
    match (first, other) {
        _ if first == other => Some(first.clone()),
        (DataType::Null, typed) | (typed, DataType::Null) => Some(typed.clone()),
        (DataType::List(first), DataType::List(other)) => Some(DataType::List(common_field(first, other)?.into())),
        (DataType::List(first) | DataType::LargeList(first), DataType::List(other) | DataType::LargeList(other)) => {
            Some(DataType::LargeList(common_field(first, other)?.into()))
        }
        (DataType::Struct(fields), DataType::Struct(others)) if fields.len() == others.len() => {
            let common = |field: &Arc<Field>| common_field(field, others.find(field.name())?.1);
            Some(DataType::Struct(fields.iter().map(common).collect::<Option<_>>()?))
        }
        _ if is_text(first) && is_text(other) => Some(first.clone()),
        _ if first.is_integer() && other.is_integer() => common_integer(first, other),
        _ => None,
    }
}

/// The wider of two types; one without a sign beside one with it takes more bits.
fn common_integer(first: &DataType, other: &DataType) -> Option<DataType> {
    let (wide, narrow) = if first.primitive_width() < other.primitive_width() {
        (other, first)
    } else {
        (first, other)
    };
    let fits = wide.is_signed_integer() == narrow.is_signed_integer()
        || wide.is_signed_integer() && wide.primitive_width() > narrow.primitive_width();
    match wide.primitive_width() {
        _ if fits => Some(wide.clone()),
        Some(1..=4) => Some(DataType::Int64),
        _ => None,
    }
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// A batch with the columns of this schema, in its order and of its types; a value that its type cannot take is an error.
pub(crate) fn to_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let column = batch
                .column_by_name(field.name())
                .ok_or_else(|| ArrowError::SchemaError(format!("there is no column `{}`", field.name())))?;
            cast_with_options(column, field.data_type(), &options)
        })
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

fn row_of(batch: &RecordBatch, row: usize, names: &HashMap<String, Vec<String>>) -> Result<Fields, Fault> {
    batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| {
            let value = value_of(column, row).map_err(Fault::other)?;
            let value = match (names.get(field.name()), value.as_i64()) {
                (Some(names), Some(label)) => named(field.name(), names, label)?,
                _ => value,
            };
            Ok((field.name().clone(), value))
        })
        .collect()
}

/// The name of a label that is kept as a number; -1 marks a row without one.
fn named(column: &str, names: &[String], label: i64) -> Result<Value, Fault> {
    match usize::try_from(label).ok().and_then(|label| names.get(label)) {
        Some(name) => Ok(Value::from(name.as_str())),
        None if label == -1 => Ok(Value::Null),
        None => Err(Fault::other(format!(
            "expected one of the {} labels of `{column}`, found {label}",
            names.len()
        ))),
    }
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
        DataType::LargeUtf8 => Value::from(one.as_string::<i64>().value(0)),
        DataType::Utf8View => Value::from(one.as_string_view().value(0)),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn list(item: DataType) -> DataType {
        DataType::List(Field::new("item", item, true).into())
    }

    fn message(more: &[(&str, DataType)]) -> DataType {
        let fields = [("role", DataType::Utf8), ("content", DataType::Utf8)];
        let fields = fields.iter().chain(more);
        DataType::Struct(
            fields
                .map(|(name, kind)| Field::new(*name, kind.clone(), true))
                .collect(),
        )
    }

    #[test]
    fn columns_of_two_files_are_written_as_the_type_that_takes_both() {
        let tools = |kind| list(message(&[("tools", kind)]));
        for (first, other, common) in [
            (DataType::Int32, DataType::Int64, Some(DataType::Int64)),
            (DataType::UInt8, DataType::Int8, Some(DataType::Int64)),
            (DataType::UInt8, DataType::Int16, Some(DataType::Int16)),
            (DataType::UInt64, DataType::Int64, None),
            (DataType::Utf8, DataType::LargeUtf8, Some(DataType::Utf8)),
            (DataType::Utf8, DataType::Int8, None),
            (list(DataType::Null), list(DataType::Utf8), Some(list(DataType::Utf8))),
            (
                tools(DataType::Null),
                tools(list(DataType::Utf8)),
                Some(tools(list(DataType::Utf8))),
            ),
            (list(message(&[])), tools(DataType::Utf8), None),
            (tools(DataType::Utf8), list(message(&[])), None),
        ] {
            let schema = |kind: &DataType| Schema::new(vec![Field::new("a", kind.clone(), true)]);
            let found = common_schema(&schema(&first), &schema(&other));
            assert_eq!(found.ok(), common.as_ref().map(schema), "{first} and {other}");
        }
    }

    #[test]
    fn a_value_that_its_type_cannot_take_is_an_error() {
        let column: ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![3_000_000_000]));
        let batch = RecordBatch::try_from_iter([("a", column)]).expect("a batch");
        let narrow = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]));
        assert!(to_schema(&batch, &narrow).is_err());
    }
}
