//! JSON files of a run: read with an error that names file and line, written whole, compared by name.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, absolute},
};

use serde_json::Value;
use tamis_nn::atomic_write::{write_whole, write_whole_if_new};

use crate::{Error, Place, Result};

/// The settings, less those named, which never change a result.
pub(crate) fn without(settings: &impl serde::Serialize, names: &[&str]) -> Result<Value> {
    let mut value = serde_json::to_value(settings)
        .map_err(|error| Error::setting("settings", "values that can be written as JSON", error.to_string()))?;
    strip(&mut value, names);
    Ok(value)
}

/// Takes the named fields out, also out of a selection's settings within.
fn strip(value: &mut Value, names: &[&str]) {
    if let Value::Object(fields) = value {
        for name in names {
            fields.remove(*name);
        }
        if let Some(select) = fields.get_mut("select") {
            strip(select, names);
        }
    }
}

/// Lists the settings that differ, by their full names.
pub(crate) fn compare(name: &str, there: &Value, now: &Value, differences: &mut Vec<String>) {
    match (there, now) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in names {
                let full = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                compare(
                    &full,
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                    differences,
                );
            }
        }
        _ if same(there, now) => {}
        _ => differences.push(format!("{name} (there: {there}, now: {now})")),
    }
}

/// Whether two values are the same; texts also where they are two ways to write one path, such as `x` and `./x`.
fn same(there: &Value, now: &Value) -> bool {
    match (there, now) {
        (Value::String(a), Value::String(b)) => a == b || absolute(a).is_ok_and(|a| absolute(b).is_ok_and(|b| a == b)),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => there == now,
    }
}

/// Reads a JSON file that holds `expected`.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, expected: &str) -> Result<T> {
    let text = fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    serde_json::from_str(&text)
        .map_err(|error| Error::data(Place::line(path, error.line() as u64), expected, error.to_string()))
}

/// Writes a JSON file whole, for programs alone: without a space.
pub(crate) fn write_compact(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    write_whole(path, &mut |out| {
        serde_json::to_writer(out, value).map_err(|error| Error::io(path, "write")(error.into()))
    })
}

/// Writes a JSON file whole.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    write_whole(path, &mut |out| pretty(path, value, out))
}

/// The same where no file of this name is there; one that is stays as it is.
///
/// # Errors
///
/// If it cannot be written.
pub(crate) fn write_json_if_new(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    write_whole_if_new(path, &mut |out| pretty(path, value, out))
}

fn pretty(path: &Path, value: &impl serde::Serialize, out: &mut BufWriter<File>) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(|error| Error::io(path, "write")(error.into()))?;
    out.write_all(b"\n").map_err(Error::io(path, "write"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_ways_to_write_a_path_are_no_difference() {
        let here = std::env::current_dir().expect("a folder").join("x");
        let settings = |path: &str| json!({"data": {"train": [path, "y"]}, "model": path, "seed": 1});
        let differences = |path: &str| {
            let mut differences = Vec::new();
            compare("", &settings("x"), &settings(path), &mut differences);
            differences
        };
        for path in ["x", "./x", "././x", &here.display().to_string()] {
            assert!(differences(path).is_empty(), "{path}");
        }
        assert_eq!(differences("z/x").len(), 2);
    }
}
