//! A run at each of whose system calls that write the disk is full, or the process is killed, ends as any other when it is started again.
//!
//! Needs `strace`, and says so where there is none. One call in several is tried; `TAMIS_FAULTS=all` tries each.

use std::{collections::BTreeMap, fs, process::Command};

use crate::fixture::{Fixture, finished, succeeds};

/// System calls that change what is on disk.
const CALLS: [&str; 10] = [
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "renameat2",
    "unlink",
    "mkdir",
    "openat",
];
/// How many of each call are tried at most, unless all are.
const TRIED: usize = 2;

fn tiny(fixture: &Fixture) -> Command {
    let more = [
        "--max-evaluations",
        "5",
        "--agent",
        "random",
        "--budget",
        "16",
        "--threads",
        "1",
    ];
    fixture.select("run", &more)
}

/// The command, its system calls traced and changed as these arguments say.
fn traced(command: &Command, arguments: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq"])
        .args(arguments)
        .arg(command.get_program())
        .args(command.get_args());
    strace.current_dir(command.get_current_dir().expect("a folder"));
    strace
}

/// How often the process's first thread makes each call.
fn counts(fixture: &Fixture) -> BTreeMap<&'static str, usize> {
    let all = format!("trace={}", CALLS.join(","));
    let log = fixture.path("log").display().to_string();
    succeeds(traced(&tiny(fixture), &["-o", &log, "-e", &all]));
    let text = fixture.read("log");
    let first = text.split_whitespace().next().expect("a process").to_owned();
    let own = text
        .lines()
        .filter_map(|line| line.strip_prefix(&first))
        .map(str::trim_start);
    let mut counts = BTreeMap::new();
    for line in own {
        if let Some(call) = CALLS.iter().find(|call| line.starts_with(&format!("{call}("))) {
            *counts.entry(*call).or_default() += 1;
        }
    }
    counts
}

#[test]
fn a_fault_at_any_call_that_writes_loses_nothing() {
    if !can_trace() {
        println!("skipped: there is no strace, or it may not trace");
        return;
    }
    let all = std::env::var("TAMIS_FAULTS").is_ok_and(|value| value == "all");
    let fixture = Fixture::new();
    for (name, rows) in [("train", 40), ("validation", 20), ("test", 20)] {
        let name = format!("{name}.jsonl");
        let lines: Vec<String> = fixture
            .read(&name)
            .lines()
            .take(rows)
            .map(|line| format!("{line}\n"))
            .collect();
        fixture.write(&name, &lines.concat());
    }
    let files = ["train.jsonl", "validation.jsonl", "test.jsonl"].map(|name| (name, fixture.read(name)));
    let counts = counts(&fixture);
    let want = fixture.read("run/selected.jsonl");
    for (call, count) in counts {
        let step = if all { 1 } else { count.div_ceil(TRIED) };
        // The last calls of a kind write results, the first claim the folder: from a different place for each kind of fault.
        for (fault, from) in [("error=ENOSPC", step), ("signal=KILL", 1)] {
            for n in (from..=count).step_by(step) {
                fs::remove_dir_all(fixture.path("run")).ok();
                let inject = format!("inject={call}:{fault}:when={n}");
                let trace = format!("trace={call}");
                let output = finished(traced(
                    &tiny(&fixture),
                    &["-o", "/dev/null", "-e", &trace, "-e", &inject],
                ));
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(!said.contains("panicked"), "{inject}: {said}");
                succeeds(tiny(&fixture));
                assert_eq!(fixture.read("run/selected.jsonl"), want, "{inject}");
                let partial = fs::read_dir(fixture.path("run")).expect("reads").flatten();
                let left = partial.filter(|entry| entry.file_name().as_encoded_bytes().ends_with(b".partial"));
                assert_eq!(left.count(), 0, "{inject} left a torn file");
                for (name, text) in &files {
                    assert_eq!(fixture.read(name), *text, "{inject} changed {name}");
                }
            }
        }
    }
}

/// Whether strace is there and may trace.
fn can_trace() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "true"]);
    strace.status().is_ok_and(|status| status.success())
}
