//! Whose a folder is, and what stands in it that a run must not touch, or can do without.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    finetune::TINY,
    fixture::{Fixture, complains, exists, finished, succeeds},
};

/// The contents of these files of a folder.
fn contents(fixture: &Fixture, folder: &str, names: &[&str]) -> Vec<Vec<u8>> {
    let read = |name: &&str| fs::read(fixture.path(&format!("{folder}/{name}"))).expect("reads");
    names.iter().map(read).collect()
}

fn finetune(fixture: &Fixture, out: &str, epochs: &str) -> Command {
    let mut command = fixture.on_files(&["finetune"]);
    command.args(finetune_flags(out, epochs));
    command
}

/// A short fine-tune of a tiny model.
fn finetune_flags<'a>(out: &'a str, epochs: &'a str) -> [&'a str; 11] {
    [
        "--model",
        TINY,
        "--new-head",
        "--max-length",
        "16",
        "--learning-rate",
        "0.001",
        "--epochs",
        epochs,
        "--out",
        out,
    ]
}

#[test]
fn another_programs_files_are_never_taken_for_a_run() {
    let fixture = Fixture::new();
    let names = [
        "ledger.sqlite",
        "study.sqlite",
        "settings.json",
        "report.html",
        "selected.jsonl",
    ];
    let database = |path: &str| {
        let database = rusqlite::Connection::open(fixture.path(path)).expect("opens");
        database
            .execute_batch("CREATE TABLE mine (x); INSERT INTO mine VALUES (42)")
            .expect("a database");
    };
    for (folder, make) in [
        ("databases", &database as &dyn Fn(&str)),
        ("texts", &|path: &str| fixture.write(path, "precious")),
        ("empty", &|path: &str| fixture.write(path, "")),
    ] {
        fs::create_dir(fixture.path(folder)).expect("a folder");
        for name in &names[..2] {
            make(&format!("{folder}/{name}"));
        }
        for name in &names[2..] {
            fixture.write(&format!("{folder}/{name}"), "precious");
        }
        let before = contents(&fixture, folder, &names);
        for subcommand in ["select", "study"] {
            let mut command = fixture.on_files(&[subcommand]);
            command.args(["--out", folder, "--max-evaluations", "5"]);
            let complaint = complains(&fixture, command, 2);
            assert!(
                complaint.contains("--out: expected a new or empty folder"),
                "{complaint}"
            );
        }
        assert_eq!(contents(&fixture, folder, &names), before);
        assert_eq!(fs::read_dir(fixture.path(folder)).expect("reads").count(), names.len());
    }
}

#[test]
fn a_ledger_that_lost_its_bytes_does_not_give_a_finished_run_away() {
    let fixture = Fixture::new();
    succeeds(fixture.select("run", &["--agent", "random"]));
    let before = fixture.read("run/selected.jsonl");
    fixture.write("run/ledger.sqlite", "");
    let complaint = complains(&fixture, fixture.select("run", &["--seed", "7"]), 2);
    assert!(complaint.contains("beside an empty ledger.sqlite"), "{complaint}");
    assert_eq!(fixture.read("run/selected.jsonl"), before);
}

#[test]
fn a_start_that_was_killed_at_its_first_files_goes_on() {
    let fixture = Fixture::new();
    for (folder, torn) in [
        ("f", "finetune.json.partial"),
        ("g", ".tamis-Ab12cd.partial"),
        ("s", "ledger.sqlite"),
    ] {
        fs::create_dir(fixture.path(folder)).expect("a folder");
        fixture.write(&format!("{folder}/{torn}"), "");
        if folder == "s" {
            fixture.write("s/ledger.sqlite-journal", "");
            succeeds(fixture.select(folder, &["--agent", "random"]));
        } else {
            succeeds(finetune(&fixture, folder, "1"));
        }
    }
    assert!(!exists(&fixture, "g/.tamis-Ab12cd.partial"));
}

#[cfg(unix)]
#[test]
fn links_that_wait_for_a_run_lead_nowhere() {
    let fixture = Fixture::new();
    let run = || fixture.select("run", &["--agent", "random"]);
    succeeds(run());
    fixture.write("victim", "precious");
    let link = |name: &str| std::os::unix::fs::symlink(fixture.path("victim"), fixture.path(name)).expect("links");
    for name in ["report.html.partial", "selected.jsonl.partial", ".tamis-1.partial"] {
        link(&format!("run/{name}"));
    }
    fixture.write("run/.tamis-Ab12cd.partial", "half a file");
    succeeds(run());
    assert_eq!(fixture.read("victim"), "precious");
    assert!(!fixture.path("run/report.html").is_symlink());
    assert!(!exists(&fixture, "run/.tamis-Ab12cd.partial"));

    // The vectors' file, whose name is that of a cache that was made.
    let embed = |cache: &str, out: &str| {
        let mut command = fixture.select(out, &["--agent", "random", "--embedder", TINY, "--cache", cache]);
        command.stdin(Stdio::null());
        command
    };
    succeeds(embed("good", "first"));
    let file = fs::read_dir(fixture.path("good"))
        .expect("reads")
        .next()
        .expect("a file")
        .expect("reads");
    let name = file.file_name().to_string_lossy().into_owned();
    fs::create_dir(fixture.path("linked")).expect("a folder");
    link(&format!("linked/{name}"));
    let output = finished(embed("linked", "second"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("warning: ") && said.contains("found a link"),
        "{said}"
    );
    assert_eq!(fixture.read("victim"), "precious");
    assert_eq!(
        fixture.read("first/selected.jsonl"),
        fixture.read("second/selected.jsonl")
    );
}

#[test]
fn a_cache_that_cannot_be_made_costs_a_warning() {
    let fixture = Fixture::new();
    fixture.write("file", "mine");
    let more = ["--agent", "random", "--embedder", TINY, "--cache", "file"];
    let output = finished(fixture.select("run", &more));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("warning: file: could not create").count(), 1, "{said}");
    assert!(said.contains("`--cache <folder>`"), "{said}");
    // An empty variable is as good as none.
    let mut command = fixture.select("other", &more[..4]);
    command.env("XDG_CACHE_HOME", "").env("HOME", fixture.path("home"));
    succeeds(command);
    assert!(exists(&fixture, "home/.cache/tamis"));
    assert_eq!(fixture.read("run/selected.jsonl"), fixture.read("other/selected.jsonl"));
}

#[cfg(unix)]
#[test]
fn a_checkpoint_with_a_flipped_bit_is_refused() {
    let fixture = Fixture::new();
    let mut child = finetune(&fixture, "run", "1000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    while !exists(&fixture, "run/rejects.jsonl") {
        assert!(child.try_wait().expect("can be asked").is_none(), "ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    let asked = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(asked.expect("kill runs").success());
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    let path = fixture.path("run/checkpoint.safetensors");
    let whole = fs::read(&path).expect("a checkpoint");
    for place in [9, 40, whole.len() / 2, whole.len() * 3 / 4, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << 6;
        fs::write(&path, flipped).expect("writes");
        let complaint = complains(&fixture, finetune(&fixture, "run", "1000"), 2);
        assert!(
            complaint.contains("run/checkpoint.safetensors: expected a checkpoint of this run")
                && complaint.contains("hint: delete the file"),
            "byte {place}: {complaint}"
        );
    }
}

#[test]
fn a_path_may_be_written_in_several_ways() {
    let fixture = Fixture::new();
    succeeds(fixture.select("run", &["--agent", "random"]));
    succeeds(finetune(&fixture, "tuned", "1"));
    let whole = fixture.path("train.jsonl").display().to_string();
    for train in ["./train.jsonl", &whole] {
        for (subcommand, mut command) in [("select", fixture.tamis()), ("finetune", fixture.tamis())] {
            command.args([
                subcommand,
                "--train",
                train,
                "--validation",
                "./validation.jsonl",
                "--test",
                "test.jsonl",
            ]);
            if subcommand == "select" {
                command.args([
                    "--budget",
                    "10%",
                    "--chunk",
                    "8",
                    "--clusters",
                    "12",
                    "--max-evaluations",
                    "300",
                ]);
                command.args(["--agent", "random", "--out", "run"]);
            } else {
                command.args(finetune_flags("tuned", "1"));
            }
            succeeds(command);
        }
    }
}
