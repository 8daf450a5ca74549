//! Every proxy score paid for, on disk, so that a killed run pays for nothing twice.
//!
//! A SQLite database of five tables: `scores` (key, value, seconds), `failures` (key, reason, seconds), `moments` (scope,
//! evaluations, seconds), `answers` (key, numbers, seconds) and `meta` (name, value). Keys are content: proxy, settings, data,
//! state and seed; a key stands either among the scores or among the failures. A database that lacks one of the tables gets it
//! when it is opened. Scores are looked up in memory and written in groups: a group is committed as soon as its scores together
//! cost [`AT_RISK_SECONDS`]. So a score that costs a millisecond shares its commit with many others, one that costs minutes is on
//! disk before it is used, and a kill never loses more than about a second of paid work. An answer, which is what one fine-tuned
//! model said, is on disk before it is used.
//!
//! A ledger carries SQLite's application id from its first bytes on, so that no other program's database is taken for one.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    Error, Place, Result,
    store::{Answer, Key, ScoreStore},
};

/// SQLite's application id of a ledger.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"tami");
/// What a SQLite database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Where its header holds the application id, big-endian.
const ID_AT: usize = 68;

/// How many seconds of proxy time may wait for their commit.
pub const AT_RISK_SECONDS: f64 = 1.0;

/// What stands where a ledger is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LedgerFile {
    /// Nothing.
    Missing,
    /// A file without a byte: what a kill leaves while the first of them are written.
    Empty,
    /// A ledger.
    Ledger,
    /// Something else, in words.
    Foreign(&'static str),
}

impl LedgerFile {
    /// Looks at the first bytes; opens nothing for writing.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let metadata = match fs::metadata(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Self::Missing);
            }
            metadata => metadata.map_err(Error::io(path, "read"))?,
        };
        if !metadata.is_file() {
            return Ok(Self::Foreign("something that is not a file"));
        }
        let mut header = Vec::new();
        File::open(path)
            .and_then(|file| file.take((ID_AT + 4) as u64).read_to_end(&mut header))
            .map_err(Error::io(path, "read"))?;
        Ok(if header.is_empty() {
            Self::Empty
        } else if !header.starts_with(MAGIC) {
            Self::Foreign("a file that is no database")
        } else if header.get(ID_AT..) == Some(&APPLICATION_ID.to_be_bytes()) {
            Self::Ledger
        } else {
            Self::Foreign("another program's database")
        })
    }
}

/// The scores of one run directory.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    connection: Connection,
    scores: HashMap<Key, f64>,
    /// Why states could not be scored.
    failures: HashMap<Key, String>,
    /// Scored, not yet on disk.
    waiting: Vec<(Key, f64, f64)>,
    /// Failed, not yet on disk; the reasons are in `failures`.
    waiting_failures: Vec<(Key, f64)>,
    waiting_timestamps: Vec<(String, u64, f64)>,
    waiting_seconds: f64,
}

impl SqliteStore {
    /// Opens the database, or makes it, and takes it for this process alone.
    ///
    /// # Errors
    ///
    /// If the file is not a ledger, another process holds it, or it cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        if let LedgerFile::Foreign(found) = LedgerFile::at(path)? {
            return Err(Error::data(Place::file(path), "a ledger of tamis", found)
                .with_hint("choose another folder with `out`"));
        }
        let failed = |source| failure(path, source);
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(std::time::Duration::ZERO).map_err(failed)?;
        connection
            .pragma_update(None, "locking_mode", "EXCLUSIVE")
            .map_err(failed)?;
        // The first bytes that are written, so that a kill at any moment leaves a ledger or an empty file.
        let id: i32 = connection
            .pragma_query_value(None, "application_id", |row| row.get(0))
            .map_err(failed)?;
        if id != APPLICATION_ID {
            connection
                .pragma_update(None, "application_id", APPLICATION_ID)
                .map_err(failed)?;
        }
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection
            .pragma_update(None, "synchronous", "NORMAL")
            .map_err(failed)?;
        connection
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, value REAL NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS failures (key BLOB PRIMARY KEY, reason TEXT NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS moments (scope TEXT, evaluations INTEGER, seconds REAL NOT NULL, PRIMARY KEY (scope, evaluations)) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, numbers BLOB NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;",
            )
            .map_err(failed)?;
        let scores = all(&connection, "SELECT key, value FROM scores").map_err(failed)?;
        let failures = all(&connection, "SELECT key, reason FROM failures").map_err(failed)?;
        Ok(Self {
            path: path.to_path_buf(),
            connection,
            scores,
            failures,
            waiting: Vec::new(),
            waiting_failures: Vec::new(),
            waiting_timestamps: Vec::new(),
            waiting_seconds: 0.0,
        })
    }

    fn commit_if_at_risk(&mut self) -> Result<()> {
        if self.waiting_seconds >= AT_RISK_SECONDS {
            self.commit()
        } else {
            Ok(())
        }
    }

    /// All proxy seconds on disk, those of failures and answers as well.
    ///
    /// # Errors
    ///
    /// If the database cannot be read.
    pub fn paid_seconds(&self) -> Result<f64> {
        self.connection
            .query_row(
                "SELECT COALESCE(SUM(seconds), 0.0) FROM (SELECT seconds FROM scores UNION ALL SELECT seconds FROM failures
                 UNION ALL SELECT seconds FROM answers)",
                [],
                |row| row.get(0),
            )
            .map_err(|source| failure(&self.path, source))
    }
}

impl ScoreStore for SqliteStore {
    fn get(&self, key: &Key) -> Option<f64> {
        self.scores.get(key).copied()
    }

    fn failure(&self, key: &Key) -> Option<&str> {
        self.failures.get(key).map(String::as_str)
    }

    fn len(&self) -> usize {
        self.scores.len()
    }

    fn is_empty(&self) -> bool {
        let asked = "SELECT 1 FROM answers LIMIT 1";
        self.scores.is_empty()
            && !self
                .connection
                .prepare(asked)
                .and_then(|mut asked| asked.exists([]))
                .unwrap_or(false)
    }

    fn record(&mut self, key: Key, value: f64, seconds: f64) -> Result<()> {
        if self.scores.insert(key, value).is_none() {
            self.waiting.push((key, value, seconds));
            self.waiting_seconds += seconds;
        }
        self.commit_if_at_risk()
    }

    fn record_failure(&mut self, key: Key, reason: &str, seconds: f64) -> Result<()> {
        if self.failures.insert(key, reason.to_owned()).is_none() {
            self.waiting_failures.push((key, seconds));
            self.waiting_seconds += seconds;
        }
        self.commit_if_at_risk()
    }

    fn answer(&self, key: &Key) -> Result<Option<Answer>> {
        let query = "SELECT numbers, seconds FROM answers WHERE key = ?";
        let row = |row: &rusqlite::Row<'_>| {
            let bytes: Vec<u8> = row.get(0)?;
            let numbers = bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
            Ok(Answer {
                numbers: numbers.collect(),
                seconds: row.get(1)?,
            })
        };
        self.connection
            .query_row(query, [key], row)
            .optional()
            .map_err(|source| failure(&self.path, source))
    }

    fn record_answer(&mut self, key: &Key, answer: &Answer) -> Result<()> {
        let bytes: Vec<u8> = answer.numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.connection
            .execute(
                "INSERT OR REPLACE INTO answers (key, numbers, seconds) VALUES (?, ?, ?)",
                params![key, bytes, answer.seconds],
            )
            .map(|_| ())
            .map_err(|source| failure(&self.path, source))
    }

    fn record_timestamp(&mut self, scope: &str, evaluations: u64, seconds: f64) {
        self.waiting_timestamps.push((scope.to_owned(), evaluations, seconds));
    }

    fn timestamps(&self, scope: &str) -> Result<Vec<(u64, f64)>> {
        let query = "SELECT evaluations, seconds FROM moments WHERE scope = ? ORDER BY evaluations";
        let read = || {
            self.connection
                .prepare(query)?
                .query_map([scope], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|source| failure(&self.path, source))
    }

    fn meta(&self, name: &str) -> Result<Option<String>> {
        self.connection
            .query_row("SELECT value FROM meta WHERE name = ?", [name], |row| row.get(0))
            .optional()
            .map_err(|source| failure(&self.path, source))
    }

    fn set_meta(&mut self, name: &str, value: &str) -> Result<()> {
        self.connection
            .execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", [name, value])
            .map(|_| ())
            .map_err(|source| failure(&self.path, source))
    }

    fn commit(&mut self) -> Result<()> {
        let (waiting, failures, reasons) = (&self.waiting, &self.waiting_failures, &self.failures);
        let moments = &self.waiting_timestamps;
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            {
                let mut insert = transaction
                    .prepare_cached("INSERT OR REPLACE INTO scores (key, value, seconds) VALUES (?, ?, ?)")?;
                for (key, value, seconds) in waiting {
                    insert.execute(params![key, value, seconds])?;
                }
                let mut insert = transaction
                    .prepare_cached("INSERT OR REPLACE INTO failures (key, reason, seconds) VALUES (?, ?, ?)")?;
                for (key, seconds) in failures {
                    insert.execute(params![key, reasons[key], seconds])?;
                }
                let mut insert = transaction
                    .prepare_cached("INSERT OR REPLACE INTO moments (scope, evaluations, seconds) VALUES (?, ?, ?)")?;
                for (scope, evaluations, seconds) in moments {
                    insert.execute(params![scope, *evaluations as i64, seconds])?;
                }
            }
            transaction.commit()
        };
        write(&mut self.connection).map_err(|source| failure(&self.path, source))?;
        self.waiting.clear();
        self.waiting_failures.clear();
        self.waiting_timestamps.clear();
        self.waiting_seconds = 0.0;
        Ok(())
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // A run that ends by an error keeps what it paid for; if even this fails, that error is the one to show.
        let _ = self.commit();
    }
}

/// All of a query's rows, each a key and what is filed under it.
fn all<T: rusqlite::types::FromSql>(connection: &Connection, query: &str) -> rusqlite::Result<HashMap<Key, T>> {
    let mut statement = connection.prepare(query)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn failure(path: &Path, source: rusqlite::Error) -> Error {
    Error::Ledger {
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_there_after_a_restart_to_the_last_bit() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.sqlite");
        let value = 0.1 + 0.2;
        {
            let mut ledger = SqliteStore::open(&path).expect("opens");
            ledger.record([1; 16], value, 0.001).expect("records");
            ledger.set_meta("data", "abc").expect("notes");
        }
        let ledger = SqliteStore::open(&path).expect("opens again");
        assert_eq!(ledger.get(&[1; 16]).map(f64::to_bits), Some(value.to_bits()));
        assert_eq!(ledger.get(&[2; 16]), None);
        assert_eq!(ledger.meta("data").expect("reads").as_deref(), Some("abc"));
        assert!((ledger.paid_seconds().expect("sums") - 0.001).abs() < 1e-12);
    }

    #[test]
    fn an_answer_is_there_after_a_restart_to_the_last_bit() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.sqlite");
        let numbers = [0.1 + 0.2, -0.0, f64::MIN_POSITIVE];
        let mut ledger = SqliteStore::open(&path).expect("opens");
        ledger
            .record_answer(
                &[1; 16],
                &Answer {
                    numbers: numbers.to_vec(),
                    seconds: 40.0,
                },
            )
            .expect("records");
        drop(ledger);
        let ledger = SqliteStore::open(&path).expect("opens again");
        let Answer {
            numbers: again,
            seconds,
        } = ledger.answer(&[1; 16]).expect("reads").expect("is there");
        assert_eq!(
            again.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            numbers.map(f64::to_bits)
        );
        assert_eq!(seconds, 40.0);
        assert_eq!(ledger.answer(&[2; 16]).expect("reads"), None);
        assert_eq!(ledger.paid_seconds().expect("sums"), 40.0);
    }

    #[test]
    fn dear_scores_are_on_disk_before_use_and_cheap_ones_in_groups() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut ledger = SqliteStore::open(&folder.path().join("ledger.sqlite")).expect("opens");
        ledger.record([1; 16], 0.5, 0.4).expect("records");
        assert_eq!(ledger.waiting.len(), 1);
        ledger.record([2; 16], 0.5, 30.0).expect("records");
        assert_eq!(ledger.waiting.len(), 0, "a score of 30 s waited for its commit");
    }

    #[test]
    fn failures_and_moments_are_there_after_a_restart_and_an_old_ledger_gets_their_tables() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.sqlite");
        // A ledger as it was before failures were kept.
        let old = Connection::open(&path).expect("opens");
        old.execute_batch(
            "PRAGMA application_id = 1952542057;
             CREATE TABLE scores (key BLOB PRIMARY KEY, value REAL NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID;
             CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
             INSERT INTO scores VALUES (x'01010101010101010101010101010101', 0.5, 0.25);",
        )
        .expect("makes an old ledger");
        drop(old);
        {
            let mut ledger = SqliteStore::open(&path).expect("opens an old ledger");
            assert_eq!((ledger.get(&[1; 16]), ledger.failure(&[1; 16])), (Some(0.5), None));
            ledger.record_failure([2; 16], "no memory", 0.5).expect("records");
            for (scope, evaluations, seconds) in [("a", 20, 2.0), ("a", 10, 1.0), ("b", 5, 9.0)] {
                ledger.record_timestamp(scope, evaluations, seconds);
            }
        }
        let ledger = SqliteStore::open(&path).expect("opens again");
        assert_eq!(ledger.failure(&[2; 16]), Some("no memory"));
        assert_eq!((ledger.len(), ledger.get(&[2; 16])), (1, None));
        assert_eq!(ledger.timestamps("a").expect("reads"), [(10, 1.0), (20, 2.0)]);
        assert_eq!(ledger.paid_seconds().expect("sums"), 0.75);
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.sqlite");
        let mut first = SqliteStore::open(&path).expect("opens");
        first.record([1; 16], 0.5, 5.0).expect("records");
        let error = SqliteStore::open(&path).expect_err("the ledger is taken");
        assert!(error.hint().is_some_and(|hint| hint.contains("another")), "{error}");
    }

    #[test]
    fn what_is_no_ledger_is_refused_and_stays_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let foreign = Connection::open(at("foreign")).expect("opens");
        foreign
            .execute_batch("CREATE TABLE meta (x)")
            .expect("makes a database");
        drop(foreign);
        fs::write(at("text"), "not a database").expect("writes");
        fs::create_dir(at("folder")).expect("a folder");
        for (name, found) in [
            ("foreign", "another program's database"),
            ("text", "a file that is no database"),
            ("folder", "something that is not a file"),
        ] {
            let before = fs::read(at(name)).ok();
            let error = SqliteStore::open(&at(name)).expect_err("is no ledger");
            assert!(error.is_input() && error.to_string().ends_with(found), "{error}");
            assert_eq!(fs::read(at(name)).ok(), before);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 3);
    }

    #[test]
    fn a_ledger_is_known_by_its_first_bytes_while_it_is_open_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.sqlite");
        let kind = || LedgerFile::at(&path).expect("reads");
        assert_eq!(kind(), LedgerFile::Missing);
        fs::write(&path, "").expect("writes");
        assert_eq!(kind(), LedgerFile::Empty);
        let ledger = SqliteStore::open(&path).expect("an empty file is taken up");
        assert_eq!(kind(), LedgerFile::Ledger);
        drop(ledger);
        assert_eq!(kind(), LedgerFile::Ledger);
    }
}
