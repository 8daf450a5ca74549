//! The page of a run, or a study, that has not ended: how far it is, and how it goes on.

use std::{fs, path::Path};

use askama::Template;
use rusqlite::ErrorCode;
use serde_json::Value;

use crate::{
    Error, Result,
    report::page::{self, STYLE},
    store::{ScoreStore, SqliteStore},
};

/// See the template.
#[derive(Debug, Template)]
#[template(path = "unfinished.html")]
pub(crate) struct Page {
    folder: String,
    /// Whether some process works in the folder at this moment; then its ledger cannot be looked into.
    at_work: bool,
    /// Scores paid for.
    scores: u64,
    /// Evaluations that the run may spend.
    asked: Option<u64>,
    /// The command that goes on with it.
    command: Option<String>,
    settings: String,
}

impl Page {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("settings.json");
        let text = fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let settings: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut this = Self {
            folder: folder.display().to_string(),
            at_work: false,
            scores: 0,
            asked: settings["max_evaluations"].as_u64(),
            command: None,
            settings: text,
        };
        match SqliteStore::open(&folder.join("ledger.sqlite")) {
            Ok(ledger) => {
                this.scores = ledger.len() as u64;
                this.command = ledger.meta("command")?;
            }
            Err(Error::Ledger { source, .. })
                if matches!(
                    source.sqlite_error_code(),
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
                ) =>
            {
                this.at_work = true;
            }
            Err(error) => return Err(error),
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::write;

    #[test]
    fn a_run_that_was_stopped_has_a_page_that_says_how_far_it_is_and_how_it_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("settings.json"), r#"{"max_evaluations": 5000, "embedder": "<b>"}"#).expect("writes");
        let mut ledger = SqliteStore::open(&at("ledger.sqlite")).expect("a ledger");
        ledger.record([1; 16], 0.5, 2.0).expect("records");
        ledger.set_meta("command", "tamis select --out 'a b'").expect("notes");
        let page = || fs::read_to_string(write(folder.path()).expect("writes")).expect("a page");
        assert!(page().contains("A run is at work in this folder"));
        drop(ledger);
        let page = page();
        for said in [
            "is not finished",
            "<b>1</b> score of at most <b>5,000</b>",
            "tamis select --out &#39;a b&#39;",
            "&#60;b&#62;",
        ] {
            assert!(page.contains(said), "{said}: {page}");
        }
    }

    #[test]
    fn a_folder_of_something_else_or_of_another_version_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = write(folder.path()).expect_err("is empty");
        assert!(error.is_input() && error.hint().is_some_and(|hint| hint.contains("out")));
        for name in ["selection.json", "study.json"] {
            fs::write(folder.path().join(name), r#"{"version": 9, "tamis": "7.0.0"}"#).expect("writes");
            let error = write(folder.path()).expect_err("is another version's");
            assert!(
                error
                    .to_string()
                    .ends_with("expected format version 1, found version 9, written by tamis 7.0.0"),
                "{error}"
            );
            assert!(
                error
                    .hint()
                    .is_some_and(|hint| hint.contains("tamis 7.0.0") && hint.contains("out"))
            );
            fs::write(folder.path().join(name), r#"{"version": 1}"#).expect("writes");
            assert!(write(folder.path()).expect_err("is not whole").is_input());
        }
    }
}
