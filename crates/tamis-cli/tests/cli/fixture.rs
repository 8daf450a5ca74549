//! A small data set in a folder of its own, and the command on it.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A folder that holds train, validation and test files, and whatever a run makes.
pub(crate) struct Fixture {
    folder: tempfile::TempDir,
}

const TOPICS: [(&str, &str); 3] = [
    ("refund", "money back charge paid invoice card"),
    ("login", "password account reset locked mail code"),
    ("delivery", "parcel late courier address box street"),
];

impl Fixture {
    /// 480 training, 90 validation and 60 test rows of three topics; a fifth of the training rows carry a wrong label.
    pub(crate) fn new() -> Self {
        let fixture = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        for (name, rows, noise) in [("train", 480, true), ("validation", 90, false), ("test", 60, false)] {
            fs::write(fixture.path(&format!("{name}.jsonl")), rows_of(name, rows, noise)).expect("writes");
        }
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("writes");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The command, run inside the folder.
    pub(crate) fn tamis(&self) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tamis"));
        command
            .current_dir(self.folder.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("RAYON_NUM_THREADS");
        command
    }

    /// A subcommand on the three files.
    pub(crate) fn on_files(&self, subcommand: &[&str]) -> Command {
        let mut command = self.tamis();
        command.args(subcommand).args([
            "--train",
            "train.jsonl",
            "--validation",
            "validation.jsonl",
            "--test",
            "test.jsonl",
        ]);
        command
    }

    /// `tamis select` on the three files, into `out`, with more arguments.
    pub(crate) fn select(&self, out: &str, more: &[&str]) -> Command {
        let mut command = self.on_files(&["select"]);
        for (flag, value) in [
            ("--budget", "10%"),
            ("--chunk", "8"),
            ("--clusters", "12"),
            ("--max-evaluations", "300"),
            ("--out", out),
        ] {
            if !more.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command.args(more);
        command
    }
}

/// Runs a command to its end.
pub(crate) fn finished(mut command: Command) -> Output {
    command.output().expect("the command starts")
}

/// Runs a command that has to succeed; returns what it printed.
pub(crate) fn succeeds(command: Command) -> String {
    let output = finished(command);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Runs a command that has to fail with this status; returns its complaint with the folder's name taken out.
pub(crate) fn complains(fixture: &Fixture, command: Command, status: i32) -> String {
    let output = finished(command);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{err}");
    assert!(!err.contains("panicked"), "{err}");
    let folder = format!("{}{}", fixture.folder.path().display(), std::path::MAIN_SEPARATOR);
    // Stages that took long enough to be told of are no part of the complaint.
    let lines: Vec<&str> = err.lines().skip_while(|line| !line.starts_with("error:")).collect();
    lines.join("\n").replace(&folder, "")
}

/// Rows of the three topics, the same every time.
fn rows_of(split: &str, rows: usize, noise: bool) -> String {
    let mut text = String::new();
    let mut state = split.len() as u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for row in 0..rows {
        let (label, words) = TOPICS[next(3)];
        let words: Vec<&str> = words.split(' ').collect();
        let said = if noise && next(5) == 0 {
            TOPICS[next(3)].0
        } else {
            label
        };
        let body: Vec<&str> = (0..4 + next(5)).map(|_| words[next(words.len())]).collect();
        writeln!(
            text,
            r#"{{"id": {row}, "text": "{split} {row} {}", "label": "{said}"}}"#,
            body.join(" ")
        )
        .expect("writes");
    }
    text
}

/// Whether a file of a run is there.
pub(crate) fn exists(fixture: &Fixture, name: &str) -> bool {
    Path::new(&fixture.path(name)).exists()
}
