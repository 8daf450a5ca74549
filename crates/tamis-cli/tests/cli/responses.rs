//! `tamis select` and what is built on it, on prompts with responses and a tiny language model.

use std::process::Command;

use serde_json::{Value, json};

use crate::fixture::{Fixture, complains, succeeds};

/// A tiny Llama.
const LLAMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tamis-nn/tests/oracle/decoders/llama");

/// A pool of two kinds of rows, of which validation and test rows ask for one: letters that are said again, or turned round.
fn two_kinds() -> Fixture {
    let fixture = Fixture::new();
    let row = |i: usize, turned: bool| {
        // Five letters that no other row has: the digits of a number to the base of 20.
        let number = 7919 * (i + 1);
        let digits = (0..5).map(|k| number / 20usize.pow(k) % 20);
        let letters: String = digits.map(|digit| char::from(b'a' + digit as u8)).collect();
        let said: String = if turned {
            letters.chars().rev().collect()
        } else {
            letters.clone()
        };
        let asked = if turned { "turn round" } else { "say again" };
        format!(
            "{}\n",
            json!({"prompt": format!("{asked}: {letters}"), "completion": said})
        )
    };
    let train = (0..120).map(|i| row(i, i % 2 == 0));
    fixture.write("train.jsonl", &train.collect::<String>());
    for (name, from) in [("validation", 1000), ("test", 2000)] {
        fixture.write(
            &format!("{name}.jsonl"),
            &(from..from + 24).map(|i| row(i, true)).collect::<String>(),
        );
    }
    fixture
}

fn on_files(fixture: &Fixture, command: &[&str], out: &str, more: &[&str]) -> Command {
    let mut made = fixture.on_files(command);
    made.args(["--model", LLAMA, "--out", out]).args(more);
    made
}

fn select(fixture: &Fixture, out: &str, more: &[&str]) -> Command {
    let few = ["--budget", "20%", "--max-evaluations", "150", "--clusters", "6"];
    on_files(fixture, &["select"], out, &[&few[..], more].concat())
}

fn record(fixture: &Fixture, file: &str) -> Value {
    serde_json::from_str(&fixture.read(file)).expect("JSON")
}

#[test]
fn responses_are_chosen_by_the_language_models_gradients() {
    let fixture = two_kinds();
    let said = succeeds(select(&fixture, "first", &[]));
    let words = [
        "Chosen: 24 of 120 rows",
        "prompts with responses",
        "Fine-tuned, log_loss on the confirm fold",
    ];
    for words in words {
        assert!(said.contains(words), "{words}: {said}");
    }
    let first = record(&fixture, "first/selection.json");
    assert_eq!(first["settings"]["embedder"], "hidden-states");
    assert_eq!(first["scores"]["test"]["metric"], "log_loss");
    assert_eq!(fixture.read("first/selected.jsonl").lines().count(), 24);
    // Whatever the number of threads, and where the pass over the rows was kept or is made again.
    succeeds(select(&fixture, "threads", &["--threads", "3"]));
    succeeds(select(&fixture, "anew", &["--cache", "empty"]));
    for other in ["threads", "anew"] {
        let other = record(&fixture, &format!("{other}/selection.json"));
        assert_eq!((&other["rows"], &other["scores"]), (&first["rows"], &first["scores"]));
    }

    // What was chosen is fine-tuned on.
    let finetune = || {
        let mut finetune = fixture.tamis();
        finetune.args(["finetune", "--selection", "first", "--epochs", "1"]);
        finetune.args(["--model", LLAMA, "--out", "target"]);
        finetune
    };
    assert!(succeeds(finetune()).contains("Trained: 24 rows"));
    // As many other rows are another run.
    let mut other = first;
    let rows = other["rows"].as_array_mut().expect("rows");
    let taken: Vec<u64> = rows.iter().filter_map(|row| row["row"].as_u64()).collect();
    let free = (1..=120)
        .find(|line| !taken.contains(line))
        .expect("a row that is left");
    rows[0]["row"] = json!(free);
    fixture.write("first/selection.json", &other.to_string());
    let said = complains(&fixture, finetune(), 2);
    assert!(said.contains("of the selection"), "{said}");
}

#[test]
fn most_rows_are_left_aside_unread_and_those_chosen_keep_their_lines() {
    let fixture = two_kinds();
    let few = ["--budget", "5%", "--prefilter", "60", "--rerank", "probe"];
    let said = succeeds(on_files(&fixture, &["select"], "few", &few));
    for words in [
        "Chosen: 6 of 120 rows",
        "of the pool's 120 rows were read",
        "`--rerank finetune` lets fine-tunes choose",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let record = record(&fixture, "few/selection.json");
    let train = fixture.read("train.jsonl");
    let lines: Vec<&str> = train.lines().collect();
    let named = record["rows"].as_array().expect("rows").iter();
    let named = named.map(|row| lines[row["row"].as_u64().expect("a line") as usize - 1]);
    let (selected, named) = (fixture.read("few/selected.jsonl"), named.collect::<Vec<_>>());
    assert_eq!(selected.lines().collect::<Vec<_>>(), named);
    // Half of the pool has the validation rows' words: 24 rows are drawn from all, and 36 more have these words.
    let clusters = record["clusters"].as_array().expect("clusters");
    let rows = clusters.iter().map(|cluster| cluster["rows"].as_u64().expect("rows"));
    let rows: u64 = rows.sum();
    assert!((40..=60).contains(&rows), "{rows}");
    let nearest = clusters
        .iter()
        .flat_map(|cluster| cluster["nearest"].as_array().expect("rows"));
    let lines_near = nearest.map(|place| lines[place[1].as_u64().expect("a line") as usize - 1]);
    let (turned, others): (Vec<&str>, Vec<&str>) = lines_near.partition(|line| line.contains("turn round"));
    assert!(turned.len() > others.len(), "{turned:?} {others:?}");
    assert!(record["scores"]["test"]["random_sd"].as_f64() > Some(0.0));
    // As many rows were drawn at random as four budgets have.
    let warm = ["--budget", "5%", "--prefilter", "60", "--finetune-features", "50%"];
    let refused = complains(&fixture, on_files(&fixture, &["select"], "warm", &warm), 2);
    assert!(
        refused.contains("--finetune-features: expected at most the 24 rows that `--prefilter` drew at random"),
        "{refused}"
    );
    let whole = ["--budget", "5%", "--prefilter", "120", "--rerank", "probe"];
    assert!(!succeeds(on_files(&fixture, &["select"], "whole", &whole)).contains("were read by the model"));
}

#[test]
fn a_fine_tune_chooses_among_the_best_and_warms_gradients_up() {
    let fixture = two_kinds();
    fixture.write("quick.toml", "[finetune.train]\nepochs = 1\nlearning_rate = 0.01\n");
    let said = succeeds(select(
        &fixture,
        "judged",
        &[
            "--config",
            "quick.toml",
            "--rerank-top",
            "2",
            "--finetune-features",
            "10%",
        ],
    ));
    assert!(said.contains("Fine-tuned, log_loss on the confirm fold"), "{said}");
    let judged = record(&fixture, "judged/selection.json");
    assert_eq!(
        judged["scores"]["finetuned"]["finalists"].as_array().map(Vec::len),
        Some(2)
    );
    // All searches and rules end with the same rows: one model is trained on them.
    let whole = ["--config", "quick.toml", "--budget", "100%"];
    succeeds(on_files(&fixture, &["select"], "whole", &whole));
    let finetuned = &record(&fixture, "whole/selection.json")["scores"]["finetuned"];
    assert_eq!(finetuned["finalists"].as_array().map(Vec::len), Some(1));
    // A fine-tune as the reward itself.
    let mut slow = ["--config", "quick.toml", "--proxy", "finetune", "--agent", "random"].to_vec();
    slow.extend(["--max-evaluations", "3"]);
    succeeds(on_files(
        &fixture,
        &["select"],
        "slow",
        &[&["--budget", "20%"], &slow[..]].concat(),
    ));
}

#[test]
fn rules_and_rewards_are_compared_on_responses() {
    let fixture = two_kinds();
    fixture.write("quick.toml", "[finetune.train]\nepochs = 1\nlearning_rate = 0.01\n");
    let quick = ["--config", "quick.toml", "--max-evaluations", "60", "--clusters", "6"];
    let methods = [
        "--seeds",
        "1",
        "--methods",
        "random,similarity,shortest,less,gist,ifd,greedy,everything",
        "--rerank",
        "finetune",
    ];
    let said = succeeds(on_files(
        &fixture,
        &["study"],
        "study",
        &[&quick[..], &methods].concat(),
    ));
    assert!(said.contains("similarity") && said.contains("greedy"), "{said}");
    let checked = ["--selections", "1", "--repeats", "1", "--skip-finetunes"];
    let said = succeeds(on_files(
        &fixture,
        &["check", "proxy"],
        "proxy",
        &[&quick[..], &checked].concat(),
    ));
    assert!(said.contains("log_loss"), "{said}");
}

#[test]
fn what_responses_need_is_told_at_once() {
    let fixture = two_kinds();
    let mut said = vec![complains(&fixture, fixture.on_files(&["select", "--out", "a"]), 2)];
    let refused = |more: &[&str]| complains(&fixture, select(&fixture, "b", more), 2);
    said.push(refused(&["--metric", "macro-f1"]));
    said.push(refused(&["--max-length", "1"]));
    said.push(refused(&["--prefilter", "40"]));
    said.push(complains(
        &fixture,
        on_files(&fixture, &["check", "proxy"], "b", &["--prefilter", "40"]),
        2,
    ));
    fixture.write("brief.toml", "[finetune.train]\nfreeze_layers = 1\n");
    said.push(refused(&["--config", "brief.toml"]));
    std::fs::create_dir(fixture.path("encoder")).expect("a folder");
    fixture.write("encoder/config.json", "{\"model_type\": \"bert\"}");
    let mut encoder = fixture.on_files(&["select", "--out", "b"]);
    encoder.args(["--model", "encoder"]);
    said.push(complains(&fixture, encoder, 2));
    let short = on_files(&fixture, &["select"], "b", &["--budget", "3 tokens"]);
    said.push(complains(&fixture, short, 2));
    let one = fixture.read("validation.jsonl").lines().take(1).collect::<String>();
    fixture.write("validation.jsonl", &one);
    said.push(refused(&[]));
    fixture.write("validation.jsonl", "{\"text\": \"a\", \"label\": \"b\"}\n");
    said.push(refused(&[]));
    insta::assert_snapshot!(said.join("\n"));
}
