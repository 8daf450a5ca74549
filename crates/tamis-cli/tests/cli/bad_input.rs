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
        &["--budget", "-5"],
        &["--budget", "99999k tokens"],
        &["--budget", "2 tokens"],
        &["--chunk", "0"],
        &["--clusters", "0"],
        &["--clusters", "481"],
        &["--agent", "oracle"],
        &["--metric", "f1"],
        &["--reward", "firm"],
        &["--leaks", "maybe"],
        &["--max-bad", "2"],
        &["--label-error-share", "1"],
        &["--label-error-share", "120%"],
        &["--label-error-share", "a few"],
        &["--candidates", "0.5x"],
        &["--max-evaluations", "0"],
        &["--max-evaluations", "5", "--agent", "dqn"],
        &["--max-time", "-1"],
        &["--threads", "0"],
        &["--field", "text"],
        &["--field", "body=text"],
        &["--embedder", "nowhere.npy"],
        &["--embed-dtype", "float16"],
        &["--embed-dtype", "int8"],
        &["--embedder", "nowhere.npy", "--embed-dtype", "int8"],
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
fn a_settings_file_with_mistakes_says_where_and_what() {
    let fixture = Fixture::new();
    fixture.write("tamis.toml", "seed = 1\nbudget = 5%\n");
    let complaint = said(&fixture, &["--config", "tamis.toml"]);
    assert!(
        complaint.starts_with("error: tamis.toml, line 2: expected TOML"),
        "{complaint}"
    );
    for (settings, want) in [
        (
            "[lexical]\ndim = 0\n",
            "error: lexical.dim: expected from 1 to 4096, found 0",
        ),
        (
            "[lexical]\ndim = 100000\n",
            "error: lexical.dim: expected from 1 to 4096, found 100000",
        ),
        (
            "[dqn]\nbatch_size = 9223372036854775807\n",
            "error: dqn.batch_size: expected from 1 to 65536, found 9223372036854775807",
        ),
    ] {
        fixture.write("tamis.toml", settings);
        assert_eq!(said(&fixture, &["--config", "tamis.toml"]), want);
    }
}

#[test]
fn training_files_that_cannot_be_used_say_why() {
    let fixture = Fixture::new();
    let good = fixture.read("train.jsonl");
    fixture.write("empty.jsonl", "");
    fixture.write("unpacked.jsonl.gz", &good);
    fixture.write(
        "one_label.jsonl",
        &good.replace("refund\"", "login\"").replace("delivery\"", "login\""),
    );
    fixture.write("other_names.jsonl", &good.replace("\"text\"", "\"body\""));
    fixture.write("cut.jsonl", &format!("{}\n", good[..60].trim_end()));
    fixture.write("twice.csv", "text,label,text\na,b,c\n");
    fixture.write("quote.csv", "text,label\n\"a,b\nc,d\n");
    // A quote left open far behind the beginning is no bad row, however many are borne: it takes all rows after it.
    let rows = "some words,yes\nother words,no\n".repeat(200);
    fixture.write("late_quote.csv", &format!("text,label\n{rows}\"open,yes\n{rows}"));
    fixture.write("only_header.csv", "text,label\n");
    std::fs::create_dir(fixture.path("folder.jsonl")).expect("a folder");
    let train = |more: &[&str]| {
        let mut command = fixture.tamis();
        command.args(["select", "--validation", "validation.jsonl", "--out", "run", "--train"]);
        command.args(more);
        complains(&fixture, command, 2)
    };
    let all: Vec<String> = [
        &["empty.jsonl"][..],
        &["unpacked.jsonl.gz"],
        &["one_label.jsonl"],
        &["other_names.jsonl", "--field", "text=words"],
        &["cut.jsonl"],
        &["twice.csv"],
        &["quote.csv"],
        &["late_quote.csv"],
        &["only_header.csv"],
        &["folder.jsonl"],
    ]
    .into_iter()
    .map(train)
    .collect();
    insta::assert_snapshot!(all.join("\n\n"));
    assert!(!exists(&fixture, "run"));
}

#[test]
fn text_from_the_data_cannot_steer_the_terminal() {
    let fixture = Fixture::new();
    let validation = fixture.read("validation.jsonl");
    fixture.write(
        "validation.jsonl",
        &format!("{validation}{{\"text\": \"t\", \"label\": \"\\u001b[2Jx\"}}\n"),
    );
    let complaint = said(&fixture, &[]);
    assert!(complaint.contains("1 row with `\u{fffd}[2Jx`"), "{complaint}");
}

#[test]
fn too_many_bad_rows_stop_the_run_and_few_are_listed() {
    let fixture = Fixture::new();
    let good = fixture.read("train.jsonl");
    fixture.write("train.jsonl", &format!("{good}{}", "oops\n".repeat(30)));
    let complaint = said(&fixture, &[]);
    assert!(
        complaint.contains("30 of 510 rows are bad, more than the 6 that are allowed"),
        "{complaint}"
    );
    assert_eq!(complaint.matches("train.jsonl, line").count(), 5, "{complaint}");
    assert!(!exists(&fixture, "run/selected.jsonl"));

    fixture.write("train.jsonl", &format!("{good}oops\n"));
    let read = "Read: 480 training rows, texts with labels; 0 repeat another, 0 also stand in validation or test, 1 were bad (rejects.jsonl)";
    let said = crate::fixture::succeeds(fixture.select("run", &[]));
    assert!(said.contains(read), "{said}");
    // A check reads as a selection does, and says so, too.
    let mut check = fixture.tamis();
    check.args([
        "check",
        "clusters",
        "--train",
        "train.jsonl",
        "--validation",
        "validation.jsonl",
        "--out",
        "check",
    ]);
    let said = crate::fixture::succeeds(check);
    assert!(said.contains(read), "{said}");
    assert_eq!(fixture.read("run/rejects.jsonl"), fixture.read("check/rejects.jsonl"));
    assert_eq!(
        fixture.read("run/rejects.jsonl"),
        "{\"file\":\"train.jsonl\",\"line\":481,\"reason\":\"expected a JSON object, found broken JSON at column 1 (expected value)\"}\n"
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
    // Other programs call their settings so as well.
    std::fs::create_dir(fixture.path("other")).expect("a folder");
    fixture.write("other/settings.json", "{}");
    let complaint = said(&fixture, &["--out", "other"]);
    assert!(complaint.contains("other, which holds other files"), "{complaint}");
    assert_eq!(fixture.read("other/settings.json"), "{}");
    let complaint = said(&fixture, &["--out", "test.jsonl"]);
    assert_eq!(complaint, "error: --out: expected a folder, found test.jsonl, a file");
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_that_leaves_early_is_no_error_and_a_full_disk_is_one() {
    use std::{fs::File, process::Stdio};
    let fixture = Fixture::new();
    let mut child = fixture
        .select("run", &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop((child.stdout.take(), child.stderr.take()));
    assert!(child.wait().expect("ends").success());
    let mut command = fixture.select("run", &[]);
    command.stdout(File::options().write(true).open("/dev/full").expect("is there"));
    let output = command
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
        .wait_with_output()
        .expect("ends");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.contains("error: standard output: could not write"),
        "{complaint}"
    );
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_how_to_go_on() {
    let fixture = Fixture::new();
    let long = &["--max-evaluations", "1000000", "--budget", "50%", "--chunk", "1"];
    is_interrupted(&fixture, "run", fixture.select("run", long));
    let mut check = fixture.tamis();
    check.args([
        "check",
        "agent",
        "--train",
        "train.jsonl",
        "--validation",
        "validation.jsonl",
    ]);
    check.args(["--agents", "dqn", "--seeds", "100000", "--out", "check"]);
    is_interrupted(&fixture, "check", check);
}

/// Ctrl-C ends this command, which would run for minutes, soon and with a word on how to go on.
#[cfg(unix)]
fn is_interrupted(fixture: &Fixture, out: &str, mut command: std::process::Command) {
    use std::{
        process::Stdio,
        time::{Duration, Instant},
    };
    let ledger = format!("{out}/ledger.sqlite");
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    while !exists(fixture, &ledger) {
        assert!(child.try_wait().expect("can be asked").is_none(), "ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    let id = child.id().to_string();
    let asked = Instant::now();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &id])
            .status()
            .expect("kill runs")
            .success()
    );
    while child.try_wait().expect("can be asked").is_none() {
        if asked.elapsed() > Duration::from_secs(30) {
            child.kill().expect("can be killed");
            panic!("{command:?} does not stop");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("has ended");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{complaint}");
    assert!(
        complaint.contains("error: interrupted\nhint: repeat the command to go on"),
        "{complaint}"
    );
}
