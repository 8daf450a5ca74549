//! A run that is killed at any moment, and started again, ends with the same selection.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    bad_vectors::npy,
    fixture::{Fixture, complains, exists, succeeds},
};

#[test]
fn ten_kills_at_any_moment_change_nothing() {
    let fixture = Fixture::new();
    let more = ["--max-evaluations", "2000"];
    let began = Instant::now();
    succeeds(fixture.select("whole", &more));
    let whole = began.elapsed();
    let want = fixture.read("whole/selected.jsonl");

    let mut cut_short = 0;
    for kill in 1..=10u32 {
        let mut child = fixture
            .select("killed", &more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        // From the first moments of a run to its last.
        std::thread::sleep(whole.mul_f64(f64::from(kill) / 10.5).max(Duration::from_millis(5)));
        // On Unix this is SIGKILL: nothing can be tidied up.
        child.kill().expect("can be killed");
        cut_short += u32::from(!child.wait().expect("ends").success());
        // A result is whole or not there.
        if exists(&fixture, "killed/selected.jsonl") {
            assert_eq!(fixture.read("killed/selected.jsonl"), want);
        }
        if kill % 3 == 0 {
            // What three kills left is gone on with to the end; the next kills hit a fresh run.
            succeeds(fixture.select("killed", &more));
            assert_eq!(fixture.read("killed/selected.jsonl"), want);
            fs::remove_dir_all(fixture.path("killed")).expect("can be removed");
        }
    }
    assert!(
        cut_short >= 5,
        "only {cut_short} of 10 runs were cut short: the test proves nothing"
    );
    succeeds(fixture.select("killed", &more));
    assert_eq!(fixture.read("killed/selected.jsonl"), want);
}

/// A shell lets no file grow beyond `blocks` of 512 bytes, which refuses writes as a full disk does.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full_loses_nothing_that_was_paid_for() {
    let fixture = Fixture::new();
    let more = ["--max-evaluations", "2000", "--chunk", "2"];
    succeeds(fixture.select("whole", &more));
    // From one that holds no ledger to one that holds all but the last files.
    for blocks in [8, 80, 160] {
        let run = fixture.select("full", &more);
        let mut limited = std::process::Command::new("sh");
        limited
            .args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" \"$@\"")])
            .arg(run.get_program())
            .args(run.get_args())
            .current_dir(fixture.path("."));
        let complaint = complains(&fixture, limited, 1);
        assert!(complaint.starts_with("error: full/"), "{complaint}");
        assert!(!exists(&fixture, "full/selected.jsonl"));
    }
    succeeds(fixture.select("full", &more));
    assert_eq!(
        fixture.read("full/selected.jsonl"),
        fixture.read("whole/selected.jsonl")
    );
}

#[test]
fn a_finished_run_started_again_pays_for_nothing() {
    let fixture = Fixture::new();
    succeeds(fixture.select("run", &[]));
    let paid = |fixture: &Fixture| -> i64 {
        let ledger = rusqlite::Connection::open(fixture.path("run/ledger.sqlite")).expect("opens");
        ledger
            .query_row("SELECT COUNT(*) FROM scores", [], |row| row.get(0))
            .expect("counts")
    };
    let (scores, selected) = (paid(&fixture), fixture.read("run/selected.jsonl"));
    succeeds(fixture.select("run", &[]));
    assert_eq!((paid(&fixture), fixture.read("run/selected.jsonl")), (scores, selected));
    assert_eq!(scores, 300);
}

#[test]
fn a_file_of_vectors_that_was_written_anew_makes_another_run() {
    let fixture = Fixture::new();
    let write = |scale: f32| {
        let values: Vec<f32> = (0..4 * (480 + 90 + 60)).map(|i| (i as f32 * scale).sin()).collect();
        fs::write(fixture.path("vectors.npy"), npy(&values)).expect("writes");
    };
    write(1.7);
    let run = || fixture.select("run", &["--embedder", "vectors.npy"]);
    succeeds(run());
    let there = fixture.read("run/selected.jsonl");
    succeeds(run());
    write(2.3);
    let complaint = complains(&fixture, run(), 2);
    assert!(complaint.contains("of the vectors or of the model"), "{complaint}");
    assert_eq!(fixture.read("run/selected.jsonl"), there);
}

#[test]
fn a_folder_of_another_run_is_refused_with_the_way_out() {
    let fixture = Fixture::new();
    succeeds(fixture.select("run", &[]));
    let complaint = complains(&fixture, fixture.select("run", &["--seed", "5"]), 2);
    insta::assert_snapshot!(complaint, @r"
    error: run: expected an empty folder or this same run, found a run that differs in seed (there: 0, now: 5)
    hint: choose another folder with `--out`, or repeat the command with the settings of the first run to go on with it
    ");
    fixture.write(
        "train.jsonl",
        &format!(
            "{}{}",
            fixture.read("train.jsonl"),
            "{\"text\": \"new\", \"label\": \"login\"}\n"
        ),
    );
    let complaint = complains(&fixture, fixture.select("run", &[]), 2);
    assert!(
        complaint.contains("differs in the contents of the data files"),
        "{complaint}"
    );
}
