//! `tamis study`: every cell judged alike, nothing lost, failures told.

use std::{process::Command, process::Stdio, time::Duration};

use serde_json::Value;

use crate::{
    finetune::TINY,
    fixture::{Fixture, complains, exists, finished, succeeds},
};

/// A study of small searches, into `out`.
fn study(fixture: &Fixture, out: &str, more: &[&str]) -> Command {
    let mut command = fixture.tamis();
    command.args(["study", "--train", "train.jsonl", "--validation", "validation.jsonl"]);
    for (flag, value) in [
        ("--test", "test.jsonl"),
        ("--budget", "10%"),
        ("--chunk", "8"),
        ("--clusters", "12"),
        ("--max-evaluations", "300"),
        (
            "--methods",
            "everything,random,stratified,facility-location,greedy,dqn,auto",
        ),
        ("--seeds", "2"),
        ("--out", out),
    ] {
        let another = flag == "--budget" && more.contains(&"--budgets");
        if !more.contains(&flag) && !another {
            command.args([flag, value]);
        }
    }
    command.args(more);
    command
}

fn record(fixture: &Fixture, out: &str) -> Value {
    serde_json::from_str(&fixture.read(&format!("{out}/study.json"))).expect("JSON")
}

/// What does not depend on the clock: budget, method, seed, rows and scores of every cell.
fn cells(fixture: &Fixture, out: &str) -> Vec<String> {
    let cells = record(fixture, out)["cells"].as_array().expect("cells").clone();
    cells
        .iter()
        .map(|cell| {
            format!(
                "{} {} {} {} {}",
                cell["budget"], cell["method"], cell["seed"], cell["rows"], cell["draws"]
            )
        })
        .collect()
}

#[test]
fn a_study_is_a_table_and_its_agents_choose_as_select_does() {
    let fixture = Fixture::new();
    let told = succeeds(study(&fixture, "study", &["--threads", "2"]));
    assert!(
        told.contains("facility-location") && told.contains("At 10%, `"),
        "{told}"
    );
    let csv = fixture.read("study/study.csv");
    assert!(csv.starts_with("method,budget,family,rows,"), "{csv}");
    assert_eq!(csv.lines().count(), 8, "{csv}");
    assert!(fixture.read("study/study.md").contains("| facility-location |"));
    let whole = record(&fixture, "study");
    assert_eq!(
        (whole["cells"].as_array().map(Vec::len), whole["expected"].as_u64()),
        (Some(14), Some(14))
    );
    assert!(
        !exists(&fixture, "study/cells/10%/dqn-0.sqlite"),
        "a finished cell leaves no ledger of its own"
    );

    for agent in ["dqn", "auto"] {
        succeeds(fixture.select(agent, &["--agent", agent, "--seed", "1"]));
        let selection: Value = serde_json::from_str(&fixture.read(&format!("{agent}/selection.json"))).expect("JSON");
        let rows = selection["rows"].as_array().expect("rows");
        let lines: String = rows.iter().map(|row| format!("{}\n", row["row"])).collect();
        assert_eq!(fixture.read(&format!("study/selections/10%/{agent}-1.txt")), lines);
    }
    assert!(told.contains("`auto` chose: "), "{told}");
    let selection: Value = serde_json::from_str(&fixture.read("dqn/selection.json")).expect("JSON");
    let cell = |method: &str| {
        let cells = whole["cells"].as_array().expect("cells");
        cells
            .iter()
            .find(|cell| cell["method"] == method && cell["seed"] == 1)
            .expect("a cell")
            .clone()
    };
    assert_eq!(cell("dqn")["draws"][0][1], selection["scores"]["test"]["chosen"]);
    assert_eq!(
        cell("everything")["draws"][0][1],
        selection["scores"]["test"]["everything"]
    );
    let draws: Vec<f64> = cell("random")["draws"]
        .as_array()
        .expect("draws")
        .iter()
        .filter_map(|draw| draw[1].as_f64())
        .collect();
    let mean = draws.iter().sum::<f64>() / draws.len() as f64;
    let control = selection["scores"]["test"]["random_mean"].as_f64().expect("a number");
    assert!((mean - control).abs() < 1e-12, "{mean} {control}");

    succeeds(study(&fixture, "one", &["--threads", "1"]));
    assert_eq!(
        cells(&fixture, "study"),
        cells(&fixture, "one"),
        "threads change nothing"
    );
}

#[test]
fn a_reward_model_is_for_the_agents_that_take_one() {
    let fixture = Fixture::new();
    let more = [
        "--reward-model",
        "climb-disc",
        "--methods",
        "random,cluster-greedy,greedy,dqn",
        "--seeds",
        "1",
    ];
    succeeds(study(&fixture, "study", &more));
    let failed = |line: &Value| line["failed"].as_array().map(Vec::len);
    let record = record(&fixture, "study");
    let lines = record["methods"].as_array().expect("lines");
    assert!(
        lines.len() == 4 && lines.iter().all(|line| failed(line) == Some(0)),
        "{lines:?}"
    );
}

#[test]
fn a_study_that_is_killed_goes_on() {
    let fixture = Fixture::new();
    let more = ["--max-evaluations", "1500", "--methods", "random,similarity,greedy,dqn"];
    succeeds(study(&fixture, "whole", &more));
    let mut cut_short = 0;
    for milliseconds in [60, 300, 600, 900] {
        let mut child = study(&fixture, "killed", &more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().expect("can be killed");
        cut_short += u32::from(!child.wait().expect("ends").success());
        if exists(&fixture, "killed/study.json") {
            // What is there can be read, finished or not.
            assert_eq!(record(&fixture, "killed")["expected"], 8);
        }
    }
    assert!(
        cut_short >= 2,
        "only {cut_short} of 4 were cut short: the test proves nothing"
    );
    succeeds(study(&fixture, "killed", &more));
    assert_eq!(cells(&fixture, "whole"), cells(&fixture, "killed"));
}

#[test]
fn a_cell_that_fails_says_why_and_the_rest_goes_on() {
    let fixture = Fixture::new();
    fixture.write("mine.txt", "3\n1\n2000\n");
    let more = [
        "--methods",
        "random,exhaustive,stratified",
        "--seeds",
        "1",
        "--selection",
        "mine=mine.txt",
    ];
    let output = finished(study(&fixture, "study", &more));
    let (told, complaint) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        complaint.ends_with("error: 2 of 4 cells failed; the same command tries them again\n"),
        "{complaint}"
    );
    assert!(told.contains("failed: exhaustive with seed 0: "), "{told}");
    assert!(
        told.contains("failed: mine with seed 0: mine.txt, line 3: expected a row that may be chosen, found row 2000"),
        "{told}"
    );
    let before = record(&fixture, "study");
    assert_eq!(before["cells"].as_array().map(Vec::len), Some(4));
    // Mended, the failed cells are tried again, and no other.
    fixture.write("mine.txt", "3\n1\n200\n");
    assert_eq!(finished(study(&fixture, "study", &more)).status.code(), Some(1));
    let after = record(&fixture, "study");
    let of = |record: &Value, method: &str| {
        let cells = record["cells"].as_array().expect("cells");
        cells
            .iter()
            .find(|cell| cell["method"] == method)
            .expect("a cell")
            .clone()
    };
    assert_eq!(
        (of(&after, "mine")["rows"].as_u64(), &of(&after, "mine")["error"]),
        (Some(3), &Value::Null)
    );
    assert_eq!(of(&after, "stratified"), of(&before, "stratified"));
}

#[test]
fn every_test_file_is_a_column_and_every_budget_a_table() {
    let fixture = Fixture::new();
    let test = fixture.read("test.jsonl");
    fixture.write(
        "hard.jsonl",
        &test
            .lines()
            .take(30)
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    );
    let more = [
        "--test",
        "test.jsonl",
        "hard.jsonl",
        "--budgets",
        "5%,20%",
        "--methods",
        "everything,random,longest",
    ];
    succeeds(study(&fixture, "study", &more));
    let record = record(&fixture, "study");
    assert_eq!(record["columns"], serde_json::json!(["confirm", "test", "hard"]));
    assert_eq!(record["column_rows"], serde_json::json!([45, 60, 30]));
    assert_eq!(
        record["methods"].as_array().map(Vec::len),
        Some(6),
        "everything stands in both tables"
    );
    assert_eq!(
        record["cells"].as_array().map(Vec::len),
        Some(10),
        "and is computed once a seed"
    );
    assert!(exists(&fixture, "study/selections/20%/longest-1.txt"));
}

#[test]
fn the_target_can_be_the_judge() {
    let fixture = Fixture::new();
    fixture.write("tamis.toml", "[finetune.train]\nepochs = 1\nmax_length = 32\n");
    let flags = [
        "--config",
        "tamis.toml",
        "--model",
        TINY,
        "--rerank",
        "finetune",
        "--eval-rows",
        "40",
    ];
    let methods = ["--methods", "everything,random,greedy"];
    let said = succeeds(study(&fixture, "study", &[&flags[..], &methods[..]].concat()));
    assert!(said.contains("by the fine-tuned target"), "{said}");
    let record = record(&fixture, "study");
    assert_eq!(record["column_rows"], serde_json::json!([40, 40]));
    for cell in record["cells"].as_array().expect("cells") {
        assert_eq!(cell["draws"].as_array().map(Vec::len), Some(1), "{cell}");
    }
    let pays = |page: &str| {
        fixture
            .read(&format!("study/{page}"))
            .to_lowercase()
            .contains("pays after")
    };
    assert!(pays("study.md") && pays("report.html"));
}

#[test]
fn a_study_may_grow() {
    let fixture = Fixture::new();
    succeeds(study(
        &fixture,
        "study",
        &["--methods", "random,longest", "--seeds", "1"],
    ));
    let small = record(&fixture, "study");
    let more = [
        "--methods",
        "everything,random,longest,shortest",
        "--seeds",
        "2",
        "--budgets",
        "10%,20%",
    ];
    succeeds(study(&fixture, "study", &more));
    let grown = record(&fixture, "study");
    assert_eq!(grown["cells"].as_array().map(Vec::len), Some(14));
    for cell in small["cells"].as_array().expect("cells") {
        let mut cells = grown["cells"].as_array().expect("cells").iter();
        assert!(
            cells.any(|there| there == cell),
            "{cell} was made again, its seconds say"
        );
    }
    succeeds(study(&fixture, "at once", &more));
    assert_eq!(cells(&fixture, "study"), cells(&fixture, "at once"));
}

#[test]
fn a_selection_is_judged_as_its_file_is_now() {
    let fixture = Fixture::new();
    let more = ["--methods", "random", "--seeds", "1", "--selection", "mine=mine.txt"];
    succeeds(study(&fixture, "study", &more[..4]));
    let rows = |lines: &str| {
        fixture.write("mine.txt", lines);
        let output = finished(study(&fixture, "study", &more));
        let cells = record(&fixture, "study")["cells"].as_array().expect("cells").clone();
        assert_eq!(cells.len(), 2);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), cells[1]["rows"].as_u64(), told)
    };
    let (status, two, _) = rows("3\n1\n");
    assert_eq!((status, two), (Some(0), Some(2)));
    assert_eq!(rows("3\n1\n7\n").1, Some(3));
    // 10% of 480 rows are 48.
    let many: String = (1..=49).map(|line| format!("{line}\n")).collect();
    let (status, _, told) = rows(&many);
    assert_eq!(status, Some(1));
    assert!(
        told.contains("mine.txt: expected no more than the budget's 48 rows, found 49"),
        "{told}"
    );
}

#[test]
fn a_study_that_stopped_at_a_mistake_is_taken_over() {
    let fixture = Fixture::new();
    let wrong = ["--methods", "random", "--seeds", "1", "--rerank", "finetune"];
    complains(&fixture, study(&fixture, "study", &wrong), 2);
    let unread = [&wrong[..4], &["--rerank-top", "9"]].concat();
    let said = complains(&fixture, study(&fixture, "study", &unread), 2);
    assert!(said.contains("only `tamis select` compares the best few"), "{said}");
    succeeds(study(&fixture, "study", &wrong[..4]));
}

#[test]
fn a_folder_that_is_taken_is_left_alone() {
    let fixture = Fixture::new();
    let small = ["--methods", "random", "--seeds", "1"];
    succeeds(study(&fixture, "study", &small));
    let said = complains(
        &fixture,
        study(&fixture, "study", &[&small[..], &["--clusters", "13"]].concat()),
        2,
    );
    assert!(said.contains("select.clusters (there: 12, now: 13)"), "{said}");
    assert!(complains(&fixture, fixture.select("study", &[]), 2).contains("which holds other files"));
    succeeds(fixture.select("run", &[]));
    assert!(complains(&fixture, study(&fixture, "run", &small), 2).contains("which holds other files"));
}

#[test]
fn settings_of_a_study_that_mean_nothing_are_named() {
    let fixture = Fixture::new();
    for (flags, complaint) in [
        (
            &["--seeds", "0"][..],
            "error: --seeds: expected a number above 0, found 0",
        ),
        (
            &["--agent", "ppo"],
            "error: --agent: expected `--methods`, which takes several, found `ppo`",
        ),
        (
            &["--methods", "dqn,best"],
            "error: invalid value 'best' for '--methods <NAMES>'\n  [possible values: everything, random, ",
        ),
        (
            &["--methods", "random,dqn,random"],
            "error: --methods: expected each name once, found `random` twice",
        ),
        (
            &["--selection", "mine"],
            "error: invalid value 'mine' for '--selection <NAME=FILE>': expected two words with `=`",
        ),
        (
            &["--selection", "dqn=rows.txt"],
            "error: --selection: expected a name that no method has, found `dqn`",
        ),
        (
            &["--selection", "../mine=rows.txt"],
            "error: --selection: expected a name of letters, digits, `-`, `_` and `.`, found `../mine`",
        ),
        (
            &["--selection", "mine=rows-{seed}.txt"],
            "error: --selection: expected a file that names rows, found nothing at rows-0.txt",
        ),
        (
            &["--budgets", "5%,some"],
            "error: invalid value 'some' for '--budgets <BUDGETS>': expected a percentage above 0% and up to 100%",
        ),
        (
            &["--max-time", "5"],
            "error: --max-time: expected no time limit in a study",
        ),
    ] {
        let said = complains(&fixture, study(&fixture, "study", flags), 2);
        assert!(said.starts_with(complaint), "{said}");
    }
}
