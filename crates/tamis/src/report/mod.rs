//! A page that shows a run or a study, made from the files in its folder: self-contained, no network, light and dark.
//!
//! Pages are templates with automatic escaping (`templates/`), so that a row which holds markup shows as text. What plots draw is
//! embedded as JSON in which no markup can stand (`page::embed`).

mod page;
mod run;
mod study;
mod unfinished;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use askama::Template;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tamis_nn::atomic_write::write_whole;

use crate::{Error, Place, Result, records::selection};

/// What a page is called.
const PAGE: &str = "report.html";
/// What checks leave, which have no page.
const CHECKS: [&str; 3] = ["check_clusters.json", "check_agent.json", "check_proxy.json"];

/// Writes the page of whatever stands in the folder: a study, a run, or a run that is not finished, whose page says so.
/// Returns the page's path.
///
/// # Errors
///
/// If the folder holds none of them, another version's, or a file cannot be read or written.
pub fn write(folder: &Path) -> Result<PathBuf> {
    let holds = |name: &str| folder.join(name).exists();
    let of_another = |what: &str, hint: String| {
        let expected = "the folder of a selection or a study";
        Err(Error::data(Place::file(folder), expected, what).with_hint(hint))
    };
    if holds("study.json") {
        write_study(folder)
    } else if holds("selection.json") {
        write_run(folder)
    } else if let Some(check) = CHECKS.into_iter().find(|name| holds(name)) {
        of_another("that of a check", format!("what the check found is in its {check}"))
    } else if holds("settings.json") && holds("ledger.sqlite") {
        save(folder, &unfinished::Page::read(folder)?)
    } else if holds("finetune.json") {
        let hint = "the scores of a fine-tune are in its metrics.json";
        of_another("that of a fine-tune", hint.into())
    } else {
        let found = if folder.is_dir() {
            "other files or none"
        } else {
            "no folder"
        };
        Err(
            Error::data(Place::file(folder), "the folder of a run or a study", found)
                .with_hint("name the folder that `out` named, such as `tamis report runs/select`"),
        )
    }
}

/// Writes the page of a finished run. Returns its path.
///
/// # Errors
///
/// If the run is another version's, or a file cannot be read or written.
pub fn write_run(folder: &Path) -> Result<PathBuf> {
    let record = read(&folder.join("selection.json"), selection::VERSION)?;
    save(folder, &run::Page::read(folder, &record)?)
}

/// Writes the page of a study, also of one some of whose cells are still to come. Returns its path.
///
/// # Errors
///
/// If the study is another version's, or a file cannot be read or written.
pub fn write_study(folder: &Path) -> Result<PathBuf> {
    let record = read(&folder.join("study.json"), crate::records::study::VERSION)?;
    save(folder, &study::Page::new(&record))
}

/// Reads a record of this version.
fn read<T: DeserializeOwned>(path: &Path, version: u32) -> Result<T> {
    let text = fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    let broken = |error: serde_json::Error| {
        Error::data(
            Place::line(path, error.line() as u64),
            "what tamis writes here",
            error.to_string(),
        )
        .with_hint("repeat the command of the run, which writes this file again")
    };
    // The version is looked at first: another version's fields may differ.
    let value: Value = serde_json::from_str(&text).map_err(broken)?;
    let there = value["version"].as_u64();
    if there != Some(u64::from(version)) {
        let by = value["tamis"].as_str().unwrap_or("of an unknown version");
        let found = there.map_or("none".to_owned(), |there| there.to_string());
        return Err(Error::data(
            Place::file(path),
            format!("format version {version}"),
            format!("version {found}, written by tamis {by}"),
        )
        .with_hint(format!(
            "show it with tamis {by}, or run its command again with this one and another `out`"
        )));
    }
    serde_json::from_str(&text).map_err(broken)
}

fn save(folder: &Path, page: &impl Template) -> Result<PathBuf> {
    let path = folder.join(PAGE);
    let html = page
        .render()
        .map_err(|error| Error::io(&path, "write")(std::io::Error::other(error)))?;
    write_whole(&path, &mut |out| {
        out.write_all(html.as_bytes()).map_err(Error::io(&path, "write"))
    })?;
    Ok(path)
}
