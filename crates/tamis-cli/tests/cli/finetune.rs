//! `tamis finetune`, and what `select` and `check` do with a model that can be fine-tuned: on a tiny BERT.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::Value;

use crate::fixture::{Fixture, complains, exists, succeeds};

/// The folder of a tiny model of two labels.
pub(crate) const TINY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tamis/tests/oracle/classifiers/bert-labels"
);

fn finetune(fixture: &Fixture, out: &str, more: &[&str]) -> Command {
    let mut command = fixture.tamis();
    command.args(["finetune", "--out", out]);
    for (flag, value) in [
        ("--train", "train.jsonl"),
        ("--validation", "validation.jsonl"),
        ("--test", "test.jsonl"),
        ("--model", TINY),
        ("--learning-rate", "0.003"),
        ("--max-length", "32"),
    ] {
        if !more.contains(&flag) && !more.contains(&"--selection") || flag == "--model" && !more.contains(&flag) {
            command.args([flag, value]);
        }
    }
    command.arg("--new-head").args(more);
    command
}

#[test]
fn the_target_is_trained_on_a_selection_and_written_as_transformers_reads_it() {
    let fixture = Fixture::new();
    succeeds(fixture.select("run", &[]));
    let said = succeeds(finetune(&fixture, "target", &["--selection", "run", "--epochs", "2"]));
    assert!(said.contains("Trained: 48 rows, 2 epochs, 6 steps"), "{said}");
    let metrics: Value = serde_json::from_str(&fixture.read("target/metrics.json")).expect("JSON");
    for split in ["validation", "test"] {
        for score in ["accuracy", "macro_f1", "log_loss"] {
            assert!(metrics[split][score].is_f64(), "{split}.{score}");
        }
    }
    for cost in ["train_seconds", "rows_per_second", "tokens_per_second"] {
        assert!(metrics[cost].as_f64().is_some_and(|cost| cost > 0.0), "{cost}");
    }
    assert_eq!(metrics["epochs"].as_array().map(Vec::len), Some(2));
    let config: Value = serde_json::from_str(&fixture.read("target/config.json")).expect("JSON");
    assert_eq!(config["architectures"][0], "BertForSequenceClassification");
    assert_eq!(config["id2label"]["2"], "refund");
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(exists(&fixture, &format!("target/{file}")), "{file}");
    }
    // Another choice in the same folder is another run.
    let record = fixture.read("run/selection.json");
    let mut other: Value = serde_json::from_str(&record).expect("JSON");
    other["rows"].as_array_mut().expect("rows").pop();
    fixture.write("run/selection.json", &other.to_string());
    let more = ["--selection", "run", "--epochs", "2"];
    let said = complains(&fixture, finetune(&fixture, "target", &more), 2);
    assert!(said.contains("of the selection"), "{said}");
    fixture.write("run/selection.json", &record);
    succeeds(finetune(&fixture, "target", &more));
    // Chosen rows that stand in a test file which the selection did not know are not trained on, and counted.
    let chosen = fixture.read("run/selected.jsonl");
    let leaked: String = chosen.split_inclusive('\n').take(6).collect();
    fixture.write("leaked.jsonl", &(leaked + &fixture.read("test.jsonl")));
    // A settings file that says something else of the data leaves the files to the selection.
    fixture.write("bad.toml", "[data]\nmax_bad = 0.02\n[train]\nepochs = 1\n");
    let more = ["--selection", "run", "--test", "leaked.jsonl", "--config", "bad.toml"];
    let said = succeeds(finetune(&fixture, "without", &more));
    assert!(said.contains("Trained: 42 rows, 1 epoch"), "{said}");
    // Files that have changed since may have other rows on these lines; a settings file need not name them again.
    let train = fixture.read("train.jsonl");
    let (first, rest) = train.split_once('\n').expect("lines");
    fixture.write("train.jsonl", &format!("{rest}{first}\n"));
    fixture.write("short.toml", "[train]\nepochs = 1\n");
    let short = || finetune(&fixture, "short", &["--selection", "run", "--config", "short.toml"]);
    let said = complains(&fixture, short(), 2);
    assert!(
        said.contains("train.jsonl: expected the file that run chose rows from"),
        "{said}"
    );
    fixture.write("train.jsonl", &train);
    let said = succeeds(short());
    assert!(
        said.contains("Trained: 48 rows, 1 epoch,") && said.contains("Read: 480 training rows"),
        "{said}"
    );
    // What was trained can be trained on, head and all.
    let mut again = fixture.tamis();
    again.args([
        "finetune",
        "--selection",
        "run",
        "--model",
        "target",
        "--out",
        "again",
        "--epochs",
        "1",
    ]);
    succeeds(again);
}

#[test]
fn a_model_that_has_learned_one_label_is_called_that() {
    let fixture = Fixture::new();
    let said = succeeds(finetune(
        &fixture,
        "target",
        &["--learning-rate", "1e-7", "--epochs", "1"],
    ));
    let metrics: Value = serde_json::from_str(&fixture.read("target/metrics.json")).expect("JSON");
    let label = metrics["only_label"].as_str().expect("a label");
    assert!(
        said.contains(&format!("Every validation row is given the label `{label}`")),
        "{said}"
    );
}

#[test]
fn with_validation_rows_the_target_is_that_of_a_file_that_holds_both() {
    let fixture = Fixture::new();
    let both = fixture.read("train.jsonl") + &fixture.read("validation.jsonl");
    fixture.write("both.jsonl", &both);
    fixture.write("keep.toml", "data.leaks = \"keep\"\n");
    let said = succeeds(finetune(&fixture, "flag", &["--with-validation", "--epochs", "1"]));
    assert!(said.contains("* Trained on") && !said.contains("tuned"), "{said}");
    let metrics: Value = serde_json::from_str(&fixture.read("flag/metrics.json")).expect("JSON");
    assert!(metrics["test"]["tuned_macro_f1"].is_null() && metrics["label_biases"].is_null());
    let file = ["--config", "keep.toml", "--train", "both.jsonl", "--epochs", "1"];
    succeeds(finetune(&fixture, "file", &file));
    let model = |out: &str| std::fs::read(fixture.path(&format!("{out}/model.safetensors"))).expect("reads");
    assert!(model("flag") == model("file"), "another model");

    // What judges in the end is not trained on.
    fixture.write("same.jsonl", &fixture.read("validation.jsonl"));
    let files = [
        "--train",
        "train.jsonl",
        "--validation",
        "validation.jsonl",
        "--test",
        "same.jsonl",
        "--epochs",
        "1",
    ];
    let said = succeeds(finetune(
        &fixture,
        "judges",
        &[&files[..], &["--with-validation"]].concat(),
    ));
    assert!(said.contains("90 validation rows also stand in test"), "{said}");
    succeeds(finetune(&fixture, "without", &files));
    assert!(model("judges") == model("without"), "test rows were trained on");
}

#[test]
fn label_biases_are_those_that_suit_the_validation_rows() {
    let fixture = Fixture::new();
    // Test rows that are the validation rows: there tuned biases cannot lose, and after one epoch they gain.
    fixture.write("same.jsonl", &fixture.read("validation.jsonl"));
    fixture.write("keep.toml", "data.leaks = \"keep\"\n");
    let files = ["--train", "train.jsonl", "--validation", "validation.jsonl"];
    let same = ["--config", "keep.toml", "--test", "same.jsonl", "--epochs", "1"];
    let said = succeeds(finetune(&fixture, "target", &[&files[..], &same[..]].concat()));
    assert!(said.contains("\n  test, tuned*"), "{said}");
    let metrics: Value = serde_json::from_str(&fixture.read("target/metrics.json")).expect("JSON");
    for metric in ["accuracy", "macro_f1"] {
        let of = |name: &str| metrics["test"][name].as_f64().expect("a number");
        let (as_is, tuned) = (of(metric), of(&format!("tuned_{metric}")));
        assert!(tuned > as_is + 0.01, "{metric}: {as_is}, tuned {tuned}");
        let labels = metrics["label_biases"][metric].as_object().expect("an object");
        assert!(labels["refund"].is_f64() && labels.values().any(|bias| bias.as_f64() != Some(0.0)));
    }
    assert!(metrics["validation"]["tuned_accuracy"].is_null());

    // Added to the head they are what transformers loads, and nothing else is another.
    let more = [&files[..], &same[..], &["--label-biases", "macro-f1"]].concat();
    let said = succeeds(finetune(&fixture, "biased", &more));
    assert!(said.contains("biases that are best for macro_f1"), "{said}");
    let biased: Value = serde_json::from_str(&fixture.read("biased/metrics.json")).expect("JSON");
    assert_eq!(biased["test"]["macro_f1"], metrics["test"]["tuned_macro_f1"]);
    assert_eq!(biased["test"]["tuned_macro_f1"], metrics["test"]["tuned_macro_f1"]);
    assert_eq!(biased["validation"]["macro_f1"], biased["test"]["macro_f1"]);
    let weights = |out: &str| std::fs::read(fixture.path(&format!("{out}/model.safetensors"))).expect("reads");
    let (before, after) = (weights("target"), weights("biased"));
    let of = |file| safetensors::SafeTensors::deserialize(file).expect("tensors");
    let (before, after) = (of(&before), of(&after));
    for name in before.names() {
        let numbers = |tensors: &safetensors::SafeTensors<'_>| -> Vec<f32> {
            let tensor = tensors.tensor(name).expect("is there");
            let bytes = tensor.data().chunks_exact(4);
            bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        let (before, after) = (numbers(&before), numbers(&after));
        if name == "classifier.bias" {
            let biases = metrics["label_biases"]["macro_f1"].as_object().expect("labels");
            assert_eq!(biases.len(), before.len());
            for ((label, bias), (a, b)) in biases.iter().zip(before.iter().zip(&after)) {
                let bias = bias.as_f64().expect("a number");
                assert!((f64::from(b - a) - bias).abs() < 1e-6, "{label}: {a}, {b}, {bias}");
            }
        } else {
            assert!(before == after, "{name}");
        }
    }
}

#[test]
fn the_best_epoch_is_kept() {
    let fixture = Fixture::new();
    // Validation rows whose labels are another's: the more is learned, the worse.
    let text = fixture.read("validation.jsonl");
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let shifted = rows.iter().zip(rows.iter().skip(1)).map(|(row, next)| {
        let mut row = row.clone();
        row["label"] = next["label"].clone();
        row.to_string()
    });
    fixture.write("shifted.jsonl", &shifted.collect::<Vec<_>>().join("\n"));
    let more = [
        "--train",
        "train.jsonl",
        "--validation",
        "shifted.jsonl",
        "--epochs",
        "6",
        "--load-best",
        "log-loss",
    ];
    let said = succeeds(finetune(&fixture, "target", &more));
    let metrics: Value = serde_json::from_str(&fixture.read("target/metrics.json")).expect("JSON");
    let epochs = metrics["epochs"].as_array().expect("epochs");
    let loss = |i: usize| epochs[i]["validation"]["log_loss"].as_f64().expect("a number");
    let best = (0..6).min_by(|&a, &b| loss(a).total_cmp(&loss(b))).expect("epochs");
    assert!(best < 5, "the last epoch is the best: the test proves nothing");
    assert_eq!(metrics["kept_epoch"], best + 1);
    assert!(
        said.contains(&format!(
            "epoch {} of 6, the best on validation rows by log_loss",
            best + 1
        )),
        "{said}"
    );
    // All validation rows were scored after each epoch, and the model that is written is the one that had the score.
    assert_eq!(metrics["validation"], epochs[best]["validation"]);
    assert!(!exists(&fixture, "target/best.safetensors"));
}

#[test]
fn several_test_files_are_scored_together_and_each_alone() {
    let fixture = Fixture::new();
    let text = fixture.read("test.jsonl");
    let lines: Vec<&str> = text.lines().collect();
    let (few, many) = lines.split_at(lines.len() / 3);
    fixture.write("few.jsonl", &few.join("\n"));
    fixture.write("many.jsonl", &many.join("\n"));
    let tests = ["--test", "few.jsonl", "many.jsonl", "--epochs", "8"];
    let said = succeeds(finetune(&fixture, "target", &tests));
    for row in ["\n  test ", "\n  few ", "\n  many "] {
        assert!(said.contains(row), "{said}");
    }
    let metrics: Value = serde_json::from_str(&fixture.read("target/metrics.json")).expect("JSON");
    let of = |scores: &Value, rows: usize| scores["accuracy"].as_f64().expect("a number") * rows as f64;
    let (on_few, on_many) = (&metrics["tests"]["few"], &metrics["tests"]["many"]);
    let apart = of(on_few, few.len()) + of(on_many, many.len());
    let together = of(&metrics["test"], lines.len());
    assert!(
        (apart - together).abs() < 1e-6,
        "{apart} right answers apart, {together} together"
    );
    assert!(on_few != on_many, "one file's scores stand for both");
}

#[test]
fn one_seed_gives_one_model_whatever_the_threads_and_however_often_it_was_stopped() {
    let fixture = Fixture::new();
    let epochs = ["--epochs", "160", "--load-best", "log-loss"];
    succeeds(finetune(&fixture, "one", &[&epochs[..], &["--threads", "1"]].concat()));
    let began = Instant::now();
    succeeds(finetune(&fixture, "two", &[&epochs[..], &["--threads", "2"]].concat()));
    // Nearly all of that is training, on slow machines and on fast ones.
    let soon = began.elapsed() / 3;
    let model = |out: &str| std::fs::read(fixture.path(&format!("{out}/model.safetensors"))).expect("reads");
    assert!(
        model("one") == model("two"),
        "another number of threads gave another model"
    );

    let mut stopped = 0;
    for _ in 0..3 {
        let child = finetune(&fixture, "stopped", &epochs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        std::thread::sleep(soon);
        // Ctrl-C: the run keeps a checkpoint and ends with status 130.
        let pid = child.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let output = child.wait_with_output().expect("ends");
        stopped += u32::from(output.status.code() == Some(130) && exists(&fixture, "stopped/checkpoint.safetensors"));
    }
    assert!(
        stopped > 0,
        "no run was stopped while it trained: the test proves nothing"
    );
    succeeds(finetune(&fixture, "stopped", &epochs));
    assert!(model("one") == model("stopped"), "going on gave another model");
    let metrics =
        |out: &str| -> Value { serde_json::from_str(&fixture.read(&format!("{out}/metrics.json"))).expect("JSON") };
    let (one, stopped) = (metrics("one"), metrics("stopped"));
    assert_eq!(one["epochs"], stopped["epochs"]);
    assert!(
        one["kept_epoch"].as_u64().is_some_and(|epoch| epoch < 160),
        "{}",
        one["kept_epoch"]
    );
    assert_eq!(one["kept_epoch"], stopped["kept_epoch"]);
    for file in ["checkpoint", "best"] {
        assert!(!exists(&fixture, &format!("stopped/{file}.safetensors")), "{file}");
    }
}

#[test]
fn frozen_layers_and_select_by_fine_tuning_work_together() {
    let fixture = Fixture::new();
    succeeds(finetune(&fixture, "frozen", &["--freeze-layers", "1", "--epochs", "1"]));
    let settings = "[finetune.train]\nepochs = 1\nlearning_rate = 0.003\nmax_length = 32\n[finetune]\nfold_rows = 20\n";
    fixture.write("tamis.toml", settings);
    let dear = [
        "--config",
        "tamis.toml",
        "--model",
        TINY,
        "--proxy",
        "finetune",
        "--max-evaluations",
        "20",
        "--agent",
        "random",
    ];
    succeeds(fixture.select("dear", &dear));
    let two_stages = [
        "--config",
        "tamis.toml",
        "--model",
        TINY,
        "--finetune-features",
        "10%",
        "--rerank",
        "finetune",
        "--rerank-top",
        "2",
    ];
    let said = succeeds(fixture.select("staged", &two_stages));
    assert!(said.contains("2 random selections"), "{said}");
    let record: Value = serde_json::from_str(&fixture.read("staged/selection.json")).expect("JSON");
    assert_eq!(
        record["scores"]["finetuned"]["finalists"].as_array().map(Vec::len),
        Some(2)
    );
    // A run that was killed between two fine-tunes goes on with what is left of them, to the same end.
    assert_eq!(forget_answers(&fixture, "staged", 3), 4);
    succeeds(fixture.select("staged", &two_stages));
    let again: Value = serde_json::from_str(&fixture.read("staged/selection.json")).expect("JSON");
    assert_eq!(again["scores"]["finetuned"], record["scores"]["finetuned"]);
    assert_eq!(answers(&fixture, "staged"), (4, 3));
    let stages: Vec<&str> = record["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .filter_map(|stage| stage["name"].as_str())
        .collect();
    assert!(
        stages.contains(&"fine-tune features") && stages.contains(&"features"),
        "{stages:?}"
    );
    // By the embedder's vectors before, by the fine-tuned features after.
    let doubts = stages.iter().filter(|&&stage| stage == "label errors").count();
    assert_eq!(doubts, 2, "{stages:?}");
}

#[test]
fn the_proxy_is_checked_against_the_target() {
    let fixture = Fixture::new();
    fixture.write(
        "tamis.toml",
        "[finetune.train]\nepochs = 1\nlearning_rate = 0.003\nmax_length = 32\n",
    );
    let check = || {
        let mut command = fixture.on_files(&["check", "proxy"]);
        command.args([
            "--config",
            "tamis.toml",
            "--out",
            "check",
            "--selections",
            "1",
            "--model",
            TINY,
        ]);
        command.args([
            "--budget",
            "10%",
            "--chunk",
            "8",
            "--clusters",
            "12",
            "--max-evaluations",
            "100",
            "--finetune-features",
            "10%",
        ]);
        command
    };
    let said = succeeds(check());
    assert!(
        said.contains("probe, fine-tuned features") && said.contains("Spearman"),
        "{said}"
    );
    let record: Value = serde_json::from_str(&fixture.read("check/check_proxy.json")).expect("JSON");
    // one of each of four kinds, and one by each of two probes and six rewards
    assert_eq!(record["selections"].as_array().map(Vec::len), Some(16));
    assert!(record["rewards"][0]["agreement"]["spearman"]["value"].is_f64());
    assert!(said.contains("To tell apart two selections"), "{said}");
    let effect = &record["detectable_effect"];
    assert_eq!(effect["noise"]["rows"].as_u64(), Some(60));
    assert!(effect["found"].as_f64().is_some_and(f64::is_finite), "{effect}");
    let costs = &record["costs"];
    assert!(
        costs["everything_seconds"].as_f64() > costs["train_seconds"].as_f64(),
        "{costs}"
    );
    // Killed with 20 fine-tunes done, it goes on with the others, to the same scores.
    let all = forget_answers(&fixture, "check", 20);
    succeeds(check());
    let again: Value = serde_json::from_str(&fixture.read("check/check_proxy.json")).expect("JSON");
    assert_eq!(again["selections"], record["selections"]);
    assert_eq!(again["detectable_effect"], record["detectable_effect"]);
    assert_eq!(answers(&fixture, "check"), (all, 20));
}

/// Takes all answers of fine-tuned models but some from a run's ledger, as if it had been killed before them, and gives those left a
/// cost that no run measures. Returns how many there were.
fn forget_answers(fixture: &Fixture, run: &str, left: u32) -> u32 {
    let ledger = rusqlite::Connection::open(fixture.path(&format!("{run}/ledger.sqlite"))).expect("opens");
    let all = ledger
        .query_row("SELECT COUNT(*) FROM answers", [], |row| row.get(0))
        .expect("counts");
    let keys = "SELECT key FROM answers ORDER BY key LIMIT ?";
    ledger
        .execute(&format!("DELETE FROM answers WHERE key NOT IN ({keys})"), [left])
        .expect("deletes");
    ledger
        .execute("UPDATE answers SET seconds = 12345.0", [])
        .expect("updates");
    all
}

/// How many answers a run's ledger has, and how many of them still have that cost.
fn answers(fixture: &Fixture, run: &str) -> (u32, u32) {
    let ledger = rusqlite::Connection::open(fixture.path(&format!("{run}/ledger.sqlite"))).expect("opens");
    let query = "SELECT COUNT(*), COUNT(*) FILTER (WHERE seconds = 12345.0) FROM answers";
    ledger
        .query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("counts")
}

#[test]
fn a_wrong_model_is_told_before_hours_may_go_into_vectors() {
    let fixture = Fixture::new();
    let embedded = || exists(&fixture, "cache/tamis");
    let adapt = |model| {
        [
            "--embedder",
            TINY,
            "--finetune-features",
            "10%",
            "--config",
            "tamis.toml",
            "--model",
            model,
        ]
    };
    fixture.write("tamis.toml", "[finetune.train]\nepochs = 1\nmax_length = 32\n");
    std::fs::create_dir(fixture.path("alien")).expect("a folder");
    fixture.write("alien/config.json", r#"{"model_type": "mamba", "hidden_size": 8}"#);
    let said = complains(&fixture, fixture.select("wrong", &adapt("alien")), 2);
    assert!(said.contains("mamba") && !embedded(), "{said}");
    succeeds(fixture.select("right", &adapt(TINY)));
    assert!(embedded());
}

#[test]
fn what_cannot_be_fine_tuned_says_why() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("alien")).expect("a folder");
    fixture.write("alien/config.json", r#"{"model_type": "mamba", "hidden_size": 8}"#);
    let mut complaints = Vec::new();
    for (out, more) in [
        ("a", &["--model", "alien"][..]),
        ("b", &["--freeze-layers", "9"]),
        ("c", &["--epochs", "0"]),
        ("d", &["--learning-rate", "-1"]),
        ("e", &["--selection", "nowhere"]),
        (
            "f",
            &[
                "--selection",
                "nowhere",
                "--train",
                "train.jsonl",
                "--validation",
                "validation.jsonl",
            ],
        ),
        ("g", &["--load-best", "f1"]),
        ("h", &["--label-biases", "log-loss"]),
        ("i", &["--load-best", "accuracy", "--with-validation"]),
        ("j", &["--sample", "100000"]),
        ("k", &["--sample", "some"]),
    ] {
        complaints.push(complains(&fixture, finetune(&fixture, out, more), 2));
    }
    let mut without = fixture.tamis();
    without.args(["finetune", "--train", "train.jsonl", "--validation", "validation.jsonl"]);
    complaints.push(complains(&fixture, without, 2));
    let mut with_head = fixture.tamis();
    with_head.args([
        "finetune",
        "--train",
        "train.jsonl",
        "--validation",
        "validation.jsonl",
        "--model",
        TINY,
    ]);
    complaints.push(complains(&fixture, with_head, 2));
    complaints.push(complains(&fixture, fixture.select("f", &["--proxy", "finetune"]), 2));
    succeeds(finetune(&fixture, "same", &["--epochs", "1"]));
    complaints.push(complains(&fixture, finetune(&fixture, "same", &["--epochs", "2"]), 2));
    // So high a rate that the weights overflow.
    complaints.push(complains(
        &fixture,
        finetune(&fixture, "nan", &["--learning-rate", "1e38"]),
        1,
    ));
    let all = complaints.join("\n\n").replace(TINY, "<tiny>");
    insta::assert_snapshot!(all);
}
