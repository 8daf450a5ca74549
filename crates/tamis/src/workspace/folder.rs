//! The run directory: taken only if it is empty or holds this same run.
//!
//! It may hold `tables/`, the rows that were given in memory. It holds `tamis.toml`'s values as `settings.json` (resolved), `ledger.sqlite`, and at the end `selected.*`,
//! `selection.json`, `map.json`, `report.html`, `metrics.jsonl`, `tensorboard/` and `rejects.jsonl`.

use std::{
    fs::{self, DirEntry, File, TryLockError},
    path::Path,
};

use serde_json::Value;
use tamis_nn::{Fingerprint, atomic_write::remove_leftovers, file_lock::try_lock};

use crate::{
    Error, Place, Result,
    data::{TABLES, is_table},
    settings::select::SelectSettings,
    store::{LedgerFile, ScoreStore, SqliteStore},
    workspace::json::{compare, without, write_json, write_json_if_new},
};

/// Settings of a selection that never change a result, so that a run may go on with others.
pub(crate) const NEUTRAL: [&str; 6] = ["out", "cache", "frozen_memory", "parallel", "trial_timeout", "retries"];
/// What the settings file is called.
const SETTINGS: &str = "settings.json";
/// The note in a study's ledger that is there as soon as a cell is filed: core-seconds.
pub(crate) const FILED: &str = "core_seconds";
/// The note in a ledger of a check that files no score, once it is done.
pub(crate) const CHECKED: &str = "checked";
/// What that of a fine-tune is called.
const FINETUNE: &str = "finetune.json";

/// Makes the directory, or goes on with the run that it holds. A run that stopped before it paid for a score, for instance
/// at a mistake in the settings, leaves nothing to go on with: its folder is taken over.
///
/// # Errors
///
/// If it holds something else, or cannot be written.
pub(crate) fn open(settings: &SelectSettings, data: &Fingerprint) -> Result<SqliteStore> {
    let now = without(settings, &NEUTRAL)?;
    let files = (SETTINGS, "ledger.sqlite");
    let begun = |ledger: &SqliteStore| Ok(!ledger.is_empty() || ledger.meta(CHECKED)?.is_some());
    let (mut ledger, fresh) = hold(&settings.out, files, &now, data, &begun)?;
    if let Some(command) = settings.command.as_ref().filter(|_| fresh) {
        ledger.set_meta("command", command)?;
    }
    Ok(ledger)
}

/// Makes the directory of a fine-tune with these settings, or goes on with the run that has the same ones. Returns the settings as that
/// run's first start wrote them, since a path may be written in several ways, and what keeps others out until it is dropped.
///
/// # Errors
///
/// If it holds something else, another process works in it, or it cannot be written.
pub(crate) fn claim(out: &Path, settings: &Value) -> Result<(Value, Lock)> {
    let path = out.join(FINETUNE);
    // Two that begin at once both find nothing: whose settings are there first is told by the file itself.
    if !path.exists() {
        create(out, &[]).or_else(|error| if path.exists() { Ok(()) } else { Err(error) })?;
        write_json_if_new(&path, settings)?;
    }
    let there = same_run(out, FINETUNE, settings)?;
    let lock = Lock::on(out, &path)?;
    remove_leftovers(out)?;
    Ok((there, lock))
}

/// Nobody else works in a folder while this is held.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Lock {
    fn on(out: &Path, path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "read"))?;
        match try_lock(&file) {
            Err(TryLockError::WouldBlock) => {
                let expected = "a folder that no other run is working in";
                Err(Error::setting("out", expected, out.display().to_string())
                    .with_hint("wait for the other run, or choose another folder with `out`"))
            }
            // Some file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Self(file)),
        }
    }
}

/// Makes the directory of a study that keeps its settings in a file of this name, and a ledger beside it, or goes on with the one that
/// has the same settings and data. A study that filed nothing, for instance for a mistake in the settings, is taken over.
///
/// # Errors
///
/// If it holds something else, or cannot be written.
pub(crate) fn claim_with_ledger(out: &Path, name: &str, settings: &Value, data: &Fingerprint) -> Result<SqliteStore> {
    let begun = |ledger: &SqliteStore| Ok(ledger.meta(FILED)?.is_some());
    Ok(hold(out, (name, "study.sqlite"), settings, data, &begun)?.0)
}

/// Whether a run may be kept here: the directory is empty or not there, or holds a run, of whatever settings.
///
/// # Errors
///
/// If it holds something else, or cannot be made.
pub(crate) fn check_free(out: &Path) -> Result<()> {
    let is_ledger = |name| Ok::<_, Error>(matches!(LedgerFile::at(&out.join(name))?, LedgerFile::Ledger));
    if is_ledger("ledger.sqlite")? || is_ledger("study.sqlite")? || out.join(FINETUNE).exists() {
        return Ok(());
    }
    create(out, &[])
}

/// Makes the directory, takes it over where nothing has `begun`, or goes on with the run that has these settings and data. Returns the
/// ledger, and whether it is a fresh start. The files are those of the settings and of the ledger.
fn hold(
    out: &Path,
    (settings_file, ledger_file): (&str, &str),
    settings: &Value,
    data: &Fingerprint,
    begun: &dyn Fn(&SqliteStore) -> Result<bool>,
) -> Result<(SqliteStore, bool)> {
    let path = out.join(ledger_file);
    // The ledger is what makes it ours: other programs have a settings.json as well.
    match LedgerFile::at(&path)? {
        LedgerFile::Ledger => {}
        LedgerFile::Empty => {
            let own = ["", "-journal", "-wal", "-shm"].map(|end| format!("{ledger_file}{end}"));
            create(out, &own)?;
        }
        LedgerFile::Missing | LedgerFile::Foreign(_) => create(out, &[])?,
    }
    let mut ledger = SqliteStore::open(&path)?;
    remove_leftovers(out)?;
    if !begun(&ledger)? {
        write_json(&out.join(settings_file), settings)?;
        ledger.set_meta("data", data.as_str())?;
        return Ok((ledger, true));
    }
    same_run(out, settings_file, settings)?;
    if ledger.meta("data")?.is_some_and(|there| there != data.as_str()) {
        return Err(other_data(out));
    }
    Ok((ledger, false))
}

fn other_data(out: &Path) -> Error {
    Error::OtherRun {
        path: out.to_path_buf(),
        difference: "the contents of the data files, of the vectors or of the model".into(),
    }
}

/// Makes the directory if it is not there; one with files in it is somebody else's. Files that a kill left while the run's first ones were
/// written, and the empty ledger among them, whose names are `own`, are no others.
fn create(out: &Path, own: &[String]) -> Result<()> {
    if out.exists() && !out.is_dir() {
        return Err(Error::setting("out", "a folder", format!("{}, a file", out.display())));
    }
    let mut entries = fs::read_dir(out).into_iter().flatten().flatten();
    let Some(other) = entries.find(|entry| !is_torn(entry, own) && !holds_tables(entry)) else {
        return fs::create_dir_all(out).map_err(Error::io(out, "create"));
    };
    let found = match own.first() {
        None => "other files".to_owned(),
        Some(ledger) => format!("{} beside an empty {ledger}", other.file_name().display()),
    };
    Err(Error::setting(
        "out",
        "a new or empty folder, or one that holds a run",
        format!("{}, which holds {found}", out.display()),
    )
    .with_hint("name a folder of its own for the run, such as `out runs/first`"))
}

/// Whether this is the folder of the rows that were given in memory, and holds nothing else.
fn holds_tables(entry: &DirEntry) -> bool {
    let is_table = |file: DirEntry| file.file_name().to_str().is_some_and(is_table);
    let mut files = fs::read_dir(entry.path()).into_iter().flatten().flatten();
    entry.file_name() == TABLES && files.all(is_table)
}

/// Whether a kill may have left this in a folder while the run's first files were written.
fn is_torn(entry: &DirEntry, own: &[String]) -> bool {
    let name = entry.file_name();
    let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
    is_file && (name.as_encoded_bytes().ends_with(b".partial") || own.iter().any(|own| name == own.as_str()))
}

/// Whether the run in the directory has these settings. Returns those that it has.
fn same_run(out: &Path, name: &str, now: &Value) -> Result<Value> {
    let path = out.join(name);
    let text = fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
    let there: Value = serde_json::from_str(&text).map_err(|error| {
        Error::data(
            Place::file(&path),
            "the settings of a run",
            format!("broken JSON ({error})"),
        )
        .with_hint("choose another folder with `out`")
    })?;
    let mut differences = Vec::new();
    compare("", &there, now, &mut differences);
    if differences.is_empty() {
        return Ok(there);
    }
    Err(Error::OtherRun {
        path: out.to_path_buf(),
        difference: differences.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use tamis_nn::seed::Seed;

    #[test]
    fn a_folder_is_gone_on_with_only_by_the_same_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings = SelectSettings {
            out: folder.path().join("run"),
            ..SelectSettings::default()
        };
        let data = Fingerprint::of(["rows"]);
        settings.seed = Seed(9);
        drop(open(&settings, &data).expect("a new folder"));
        settings.seed = Seed(0);
        let mut ledger = open(&settings, &data).expect("nothing was paid for");
        ledger.record([1; 16], 0.5, 0.1).expect("records");
        ledger.commit().expect("commits");
        drop(ledger);
        // A check that files no score is a run as well.
        let check = SelectSettings {
            out: folder.path().join("check"),
            ..SelectSettings::default()
        };
        open(&check, &data)
            .expect("a new folder")
            .set_meta(CHECKED, "yes")
            .expect("notes");
        let error = open(&check, &Fingerprint::of(["other rows"])).expect_err("other data");
        assert!(error.to_string().contains("the contents of the data files"), "{error}");
        settings.frozen_memory = 1;
        drop(open(&settings, &data).expect("memory changes no result"));
        let error = open(&settings, &Fingerprint::of(["other rows"])).expect_err("other data");
        assert!(error.to_string().contains("the contents of the data files"), "{error}");
        settings.seed = Seed(3);
        settings.budget = Budget::Rows(10);
        let error = open(&settings, &data).expect_err("other settings");
        assert!(error.is_input() && error.hint().is_some());
        assert!(
            error
                .to_string()
                .ends_with(r#"budget (there: "5%", now: "10"), seed (there: 0, now: 3)"#),
            "{error}"
        );
    }

    #[test]
    fn a_folder_with_other_files_is_left_alone() {
        let foreign = |path: &Path| {
            let database = rusqlite::Connection::open(path).expect("opens");
            database.execute_batch("CREATE TABLE mine (x)").expect("a database");
        };
        let write = |text: &'static str| move |path: &Path| fs::write(path, text).expect("writes");
        for (name, make, found) in [
            ("settings.json", &write("{}") as &dyn Fn(&Path), "other files"),
            ("ledger.sqlite", &foreign, "other files"),
            ("ledger.sqlite", &write("mine"), "other files"),
            (
                "ledger.sqlite",
                &write(""),
                "selected.jsonl beside an empty ledger.sqlite",
            ),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let paths = [name, "selected.jsonl"].map(|name| folder.path().join(name));
            fs::write(&paths[1], "precious").expect("writes");
            make(&paths[0]);
            let settings = SelectSettings {
                out: folder.path().to_path_buf(),
                ..SelectSettings::default()
            };
            let read = || paths.each_ref().map(|path| fs::read(path).expect("reads"));
            let before = read();
            let error = open(&settings, &Fingerprint::of(["rows"])).expect_err("is taken");
            assert!(error.is_input() && error.to_string().ends_with(found), "{error}");
            assert_eq!(read(), before);
            assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 2);
        }
    }

    #[test]
    fn what_a_kill_leaves_of_the_first_files_is_gone_on_with() {
        let settings = serde_json::json!({"epochs": 1});
        for torn in [
            &["finetune.json.partial"][..],
            &[".tamis-abc.partial"],
            &["study.sqlite", "study.sqlite-journal", ".tamis-abc.partial"],
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let out = folder.path();
            let write = |name: &&str| fs::write(out.join(name), if *name == "study.sqlite" { "" } else { "{" });
            torn.iter().for_each(|name| write(name).expect("writes"));
            if torn.contains(&"study.sqlite") {
                claim_with_ledger(out, "settings.json", &settings, &Fingerprint::of(["rows"])).expect("goes on");
            } else {
                let (there, lock) = claim(out, &settings).expect("goes on");
                assert_eq!(there, settings);
                let busy = claim(out, &settings).expect_err("another works here");
                assert!(busy.is_input() && busy.to_string().contains("no other run"), "{busy}");
                drop(lock);
                claim(out, &settings).expect("the other is done");
            }
            assert!(!out.join(".tamis-abc.partial").exists());
        }
    }
}
