//! `tamis check clusters`, from the command line.

use std::process::Command;

use serde_json::Value;

use crate::fixture::{Fixture, complains, succeeds};

fn check(fixture: &Fixture, out: &str, more: &[&str]) -> Command {
    let mut command = fixture.tamis();
    command.args(["check", "clusters", "--train", "train.jsonl"]);
    command.args(["--validation", "validation.jsonl", "--out", out]);
    command.args(more);
    command
}

#[test]
fn clusters_are_measured_beside_random_ones_and_repeat_themselves() {
    let fixture = Fixture::new();
    let said = succeeds(check(&fixture, "check", &["--clusters", "6", "--threads", "1"]));
    for part in [
        "silhouette",
        "adjusted Rand index",
        "labels: purity",
        "least coherent",
        "Sound",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let mut report = fixture.tamis();
    report.args(["report", "check"]);
    let complaint = complains(&fixture, report, 2);
    assert!(
        complaint.contains("found that of a check") && complaint.contains("check_clusters.json"),
        "{complaint}"
    );
    let record = |out: &str| -> Value {
        serde_json::from_str(&fixture.read(&format!("{out}/check_clusters.json"))).expect("JSON")
    };
    let one = record("check");
    let counts: Vec<u64> = one["counts"]
        .as_array()
        .expect("counts")
        .iter()
        .filter_map(|count| count["clusters"].as_u64())
        .collect();
    assert_eq!(counts, [6, 3, 12]);
    let number = |value: &Value| value.as_f64().expect("a number");
    assert!(number(&one["counts"][0]["silhouette"]) > number(&one["counts"][0]["silhouette_random"]) + 0.1);
    assert!(number(&one["labels"]["purity"]) > number(&one["labels"]["purity_random"]) + 0.1);
    let clusters = one["clusters"].as_array().expect("clusters");
    assert_eq!(
        clusters
            .iter()
            .filter_map(|cluster| cluster["rows"].as_u64())
            .sum::<u64>(),
        480
    );
    let near = &clusters[0]["nearest"][0];
    assert!(
        near["text"].as_str().is_some_and(|text| text.starts_with("train ")),
        "{near}"
    );
    // The row that is named is the one whose text it is.
    let line = near["row"].as_u64().expect("a line") as usize;
    let rows = fixture.read("train.jsonl");
    assert!(
        rows.lines()
            .nth(line - 1)
            .is_some_and(|row| row.contains(near["text"].as_str().unwrap_or("-")))
    );

    succeeds(check(&fixture, "again", &["--clusters", "6", "--threads", "2"]));
    let two = record("again");
    for part in ["counts", "labels", "clusters", "verdict"] {
        assert_eq!(one[part], two[part], "{part}");
    }
}

#[test]
fn clusters_of_noise_are_told_of() {
    let fixture = Fixture::new();
    // Every row has its own words and no others.
    let rows = |split: &str, count: u32| -> String {
        let row = |i: u32| {
            format!(
                r#"{{"text": "{split}{i} {split}x{i}", "label": "{}"}}"#,
                ["a", "b"][i as usize % 2]
            )
        };
        (0..count).map(|i| row(i) + "\n").collect()
    };
    fixture.write("train.jsonl", &rows("t", 300));
    fixture.write("validation.jsonl", &rows("v", 60));
    let said = succeeds(check(&fixture, "check", &["--clusters", "8"]));
    assert!(!said.contains("Sound"), "{said}");
}

#[test]
fn the_sample_can_be_set_and_one_seed_is_refused() {
    let fixture = Fixture::new();
    let said = succeeds(check(
        &fixture,
        "check",
        &["--clusters", "4", "--sample", "100", "--seeds", "2"],
    ));
    assert!(said.contains("silhouettes on 100 of them"), "{said}");
    let complaint = complains(&fixture, check(&fixture, "other", &["--seeds", "1"]), 2);
    assert!(
        complaint.starts_with("error: --seeds: expected 2 or more, found 1"),
        "{complaint}"
    );
}
