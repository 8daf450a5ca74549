//! From the paths that a user gives to files: patterns, folders of files, and files of the Hugging Face hub.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tamis_nn::hub::datasets;

use crate::{
    Error, Place, Result,
    data::source::{Compression, Format, columns, csv, json},
};

/// A file that is there to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    pub(crate) compression: Compression,
}

/// The files that these paths stand for, in order; nothing is read but how each begins.
///
/// # Errors
///
/// If a path leads to no file, or to one that holds no rows in a known format.
pub(crate) fn resolve(paths: &[PathBuf]) -> Result<Vec<DataFile>> {
    let mut files = Vec::new();
    for path in paths {
        for path in expand(path)? {
            check_file(&path)?;
            let (format, compression) = kind_of(&path)?;
            files.push(DataFile {
                path,
                format,
                compression,
            });
        }
    }
    Ok(files)
}

/// What is chosen goes into one file as it came in, so all training files have to be of one make.
///
/// # Errors
///
/// If their formats or columns differ.
pub(crate) fn check_alike(files: &[DataFile]) -> Result<()> {
    let Some((first, others)) = files.split_first() else {
        return Ok(());
    };
    let mut make = Make::of(first)?;
    for file in others {
        let joined = if file.format == first.format {
            make.with(Make::of(file)?)
        } else {
            Err(format!("a .{} file", file.format.extension()))
        };
        make = joined.map_err(|found| {
            Error::data(
                Place::file(&file.path),
                format!("the same format and columns as {}", first.path.display()),
                found,
            )
            .with_hint("the chosen rows are written to one file: convert the training files to one format first")
        })?;
    }
    Ok(())
}

/// What the training files have to have in common.
enum Make {
    Any,
    Header(Vec<String>),
    Columns(arrow_schema::SchemaRef),
}

impl Make {
    fn of(file: &DataFile) -> Result<Self> {
        Ok(match file.format {
            Format::JsonLines | Format::JsonList => Self::Any,
            Format::Csv | Format::Tsv => Self::Header(csv::open(&file.path, file.compression, file.format)?.1.names),
            Format::Parquet | Format::Arrow => Self::Columns(columns::open(&file.path, file.format)?.schema),
        })
    }

    /// What these files and another have in common, or what the other has that these have not, or the other way round.
    fn with(self, other: Self) -> std::result::Result<Self, String> {
        match (self, other) {
            (Self::Header(names), Self::Header(other)) if names != other => {
                Err(format!("the columns {}", other.join(", ")))
            }
            (Self::Columns(schema), Self::Columns(other)) => {
                columns::common_schema(&schema, &other).map(|common| Self::Columns(common.into()))
            }
            (make, _) => Ok(make),
        }
    }
}

/// The files that one path stands for.
fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    let text = path.to_string_lossy();
    if let Some(name) = text.strip_prefix("hf://") {
        return Ok(datasets::files(name)?);
    }
    if path.is_dir() {
        return in_folder(path);
    }
    if path.exists() || !text.contains(['*', '?', '[']) {
        return Ok(vec![path.to_path_buf()]);
    }
    let wrong = |found: String| Error::data(Place::file(path), "a pattern that some files fit", found);
    let mut files = Vec::new();
    for file in glob::glob(&text).map_err(|error| wrong(error.to_string()))? {
        let file = file.map_err(|error| Error::io(error.path(), "read")(std::io::Error::other(error.to_string())))?;
        if file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(wrong("none".to_owned()));
    }
    Ok(files)
}

/// The files of a folder: of a data set that `save_to_disk` wrote those that it names, else all that hold rows.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let state = folder.join("state.json");
    if state.is_file() {
        return saved_to_disk(folder, &state);
    }
    let place = || Place::file(folder);
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(Error::io(folder, "read"))?.path());
    }
    paths.sort_unstable();
    if folder.join("dataset_dict.json").is_file() {
        let splits = paths
            .iter()
            .filter(|path| path.is_dir())
            .map(|path| path.display().to_string());
        return Err(
            Error::data(place(), "the folder of one split", "a data set with several splits")
                .with_hint(format!("name the split: {}", splits.collect::<Vec<_>>().join(", "))),
        );
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let holds_rows = |path: &PathBuf| {
        let told = name(path);
        path.is_file() && !told.starts_with(['.', '_']) && !told.ends_with("_infos.json") && by_name(&told).is_some()
    };
    let files: Vec<PathBuf> = paths.into_iter().filter(holds_rows).collect();
    let hint = "name the files one by one, or with a pattern: `'data/train-*.parquet'`";
    if files.is_empty() {
        return Err(Error::data(place(), "a folder of files with rows", "none in it").with_hint(hint));
    }
    // Repositories of data sets hold the files of all splits side by side.
    let splits: BTreeSet<&str> = files
        .iter()
        .filter_map(|path| {
            let name = name(path);
            ["train", "validation", "valid", "dev", "test"]
                .into_iter()
                .find(|split| name.starts_with(split))
        })
        .collect();
    if splits.len() > 1 {
        let found = splits.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Error::data(place(), "the files of one split", format!("files of {found}")).with_hint(hint));
    }
    Ok(files)
}

fn saved_to_disk(folder: &Path, state: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(state).map_err(Error::io(state, "read"))?;
    let told: Value = serde_json::from_str(&text)
        .map_err(|error| Error::data(Place::file(state), "the state of a saved data set", error.to_string()))?;
    let names = told["_data_files"].as_array().into_iter().flatten();
    let files: Vec<PathBuf> = names
        .filter_map(|file| file["filename"].as_str())
        // A name that leads out of the folder is none that the library writes.
        .filter(|name| !name.contains(['/', '\\']))
        .map(|name| folder.join(name))
        .collect();
    let kept_apart = told["_indices_data_files"]
        .as_array()
        .is_some_and(|files| !files.is_empty());
    if files.is_empty() || kept_apart {
        let found = if kept_apart {
            "an order of rows that is kept apart"
        } else {
            "none"
        };
        return Err(
            Error::data(Place::file(state), "the data files of a saved data set", found)
                .with_hint("load it and write it as Parquet: `load_from_disk(folder).to_parquet(\"rows.parquet\")`"),
        );
    }
    Ok(files)
}

/// Tells format and compression from a file's name, and a JSON list from JSON Lines by how the file begins.
fn kind_of(path: &Path) -> Result<(Format, Compression)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match by_name(&name) {
        Some((Format::JsonLines, compression)) => Ok((json::format_of(path, compression)?, compression)),
        Some(kind) => Ok(kind),
        None => Err(Error::data(
            Place::file(path),
            "a file named .jsonl, .json, .csv, .tsv, .parquet or .arrow (text also with .gz or .zst)",
            format!("`{}`", name.to_lowercase()),
        )
        .with_hint("rename the file to what it holds, or convert it to JSON Lines: one JSON object a line")),
    }
}

fn by_name(name: &str) -> Option<(Format, Compression)> {
    let name = name.to_lowercase();
    let (stem, compression) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Compression::Gzip),
        Some((stem, "zst")) => (stem, Compression::Zstd),
        _ => (name.as_str(), Compression::Plain),
    };
    let format = match stem.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" | "json" => Format::JsonLines,
        "csv" => Format::Csv,
        "tsv" => Format::Tsv,
        "parquet" if compression == Compression::Plain => Format::Parquet,
        "arrow" if compression == Compression::Plain => Format::Arrow,
        _ => return None,
    };
    Some((format, compression))
}

/// Refuses what is no file, or a pointer to one; asked of every file before the first is read. A pipe that nobody writes to would be waited
/// for without end, and every file is read more than once.
fn check_file(path: &Path) -> Result<()> {
    let kind = std::fs::metadata(path).map_err(Error::io(path, "read"))?;
    if !kind.is_file() {
        return Err(Error::data(Place::file(path), "a file", "a pipe or a device"));
    }
    let mut begins = Vec::new();
    File::open(path)
        .and_then(|file| file.take(64).read_to_end(&mut begins))
        .map_err(Error::io(path, "read"))?;
    Ok(tamis_nn::Error::unless_pointer(path, "rows", &begins)?)
}
