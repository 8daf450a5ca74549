//! Bad input: a clear error with the right exit status, nothing lost, never a panic.

use crate::fixture::{Fixture, complains, exists};

/// What `tamis select` says with these arguments in place of good ones.
fn said(fixture: &Fixture, more: &[&str]) -> String {
    complains(fixture, fixture.select("run", more), 2)
}

#[test]
fn settings_that_mean_nothing_are_named() {
    let fixture = Fixture::new();
    let all: Vec<String> = [
        &["--budget", "0%"][..],
        &["--budget", "481"],
        &["--budget", "99999k tokens"],
        &["--chunk", "0"],
        &["--clusters", "0"],
        &["--clusters", "481"],
        &["--agent", "oracle"],
        &["--metric", "f1"],
        &["--reward", "firm"],
        &["--leaks", "maybe"],
        &["--max-bad", "2"],
        &["--max-evaluations", "0"],
        &["--max-evaluations", "5"],
        &["--max-time", "-1"],
        &["--threads", "0"],
        &["--field", "text"],
        &["--field", "body=text"],
        &["--embedder", "nowhere.npy"],
    ]
    .into_iter()
    .map(|more| format!("{}\n{}", more.join(" "), said(&fixture, more)))
    .collect();
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn missing_files_are_named() {
    let fixture = Fixture::new();
    insta::assert_snapshot!(said(&fixture, &["--train", "trian.jsonl"]), @"error: trian.jsonl: could not read: No such file or directory (os error 2)");
    insta::assert_snapshot!(said(&fixture, &["--config", "tamis.toml"]), @"error: tamis.toml: could not read: No such file or directory (os error 2)");
}

#[test]
fn an_unknown_setting_in_the_file_is_named_with_its_line() {
    let fixture = Fixture::new();
    fixture.write("tamis.toml", "seed = 1\nbudgte = \"5%\"\n");
    let complaint = said(&fixture, &["--config", "tamis.toml"]);
    assert!(
        complaint
            .starts_with("error: tamis.toml, line 2: expected settings that tamis knows, found unknown field `budgte`"),
        "{complaint}"
    );
}

#[test]
fn too_many_bad_rows_stop_the_run_and_few_are_listed() {
    let fixture = Fixture::new();
    let good = fixture.read("train.jsonl");
    fixture.write("train.jsonl", &format!("{good}{}", "oops\n".repeat(30)));
    let complaint = said(&fixture, &[]);
    assert!(
        complaint.contains("30 of 660 rows are bad, more than the 6 that --max-bad allows"),
        "{complaint}"
    );
    assert_eq!(complaint.matches("train.jsonl, line").count(), 5, "{complaint}");
    assert!(!exists(&fixture, "run/selected.jsonl"));

    fixture.write("train.jsonl", &format!("{good}oops\n"));
    crate::fixture::succeeds(fixture.select("run", &[]));
    assert_eq!(
        fixture.read("run/rejects.jsonl"),
        "{\"file\":\"train.jsonl\",\"line\":481,\"reason\":\"expected a JSON object, found broken JSON at column 1\"}\n"
    );
}

#[test]
fn prompt_and_response_rows_say_that_their_reward_comes_later() {
    let fixture = Fixture::new();
    for name in ["train.jsonl", "validation.jsonl", "test.jsonl"] {
        let rows: String = (0..40)
            .map(|i| format!("{{\"prompt\": \"{name} {i}\", \"completion\": \"yes\"}}\n"))
            .collect();
        fixture.write(name, &rows);
    }
    let complaint = said(&fixture, &[]);
    assert!(
        complaint.contains("prompt/response") && complaint.contains("hint:"),
        "{complaint}"
    );
}

#[test]
fn an_output_folder_with_other_files_is_left_alone() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("run")).expect("a folder");
    fixture.write("run/selected.jsonl", "mine");
    let complaint = said(&fixture, &[]);
    assert!(
        complaint.contains("--out: expected a new or empty folder"),
        "{complaint}"
    );
    assert_eq!(fixture.read("run/selected.jsonl"), "mine");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_how_to_go_on() {
    use std::{process::Stdio, time::Duration};
    let fixture = Fixture::new();
    let mut child = fixture
        .select(
            "run",
            &["--max-evaluations", "1000000", "--budget", "50%", "--chunk", "1"],
        )
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    while !exists(&fixture, "run/ledger.sqlite") {
        assert!(child.try_wait().expect("can be asked").is_none(), "ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    let id = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &id])
            .status()
            .expect("kill runs")
            .success()
    );
    let output = child.wait_with_output().expect("ends");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{complaint}");
    assert!(
        complaint.contains("error: interrupted\nhint: repeat the command to go on"),
        "{complaint}"
    );
}
