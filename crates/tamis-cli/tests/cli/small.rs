//! Data so small or so much alike that little can be told from it, and valid all the same.

use std::process::Command;

use crate::fixture::{Fixture, finished};

/// Rows of pairs, of which only so many premises and hypotheses differ.
fn pairs(rows: usize, premises: usize, hypotheses: usize) -> String {
    let row = |i: usize| {
        let (premise, hypothesis) = (i * 7 % premises, i % hypotheses);
        let label = if (premise + hypothesis).is_multiple_of(2) {
            "yes"
        } else {
            "no"
        };
        format!(
            "{{\"premise\": \"box {premise} is on shelf {premise}\", \"hypothesis\": \"it holds {hypothesis}\", \"label\": \"{label}\"}}\n"
        )
    };
    (0..rows).map(row).collect()
}

/// Yes/no questions.
fn questions(rows: usize, distinct: usize) -> String {
    let row = |i: usize| {
        let (about, answer) = (i % distinct, ["A", "B"][i * 5 % 7 % 2]);
        format!(
            "{{\"question\": \"is {about} odd? case {i}\", \"choices\": [\"yes\", \"no\"], \"answer\": \"{answer}\"}}\n"
        )
    };
    (0..rows).map(row).collect()
}

fn select(fixture: &Fixture, name: &str) -> Command {
    let mut command = fixture.tamis();
    let [train, validation] = ["train", "validation"].map(|split| format!("{name}-{split}.jsonl"));
    command.args(["select", "--train", &train, "--validation", &validation, "--out", name]);
    command.args(["--budget", "20%", "--max-evaluations", "20", "--agent", "random"]);
    command
}

#[test]
fn few_distinct_texts_are_data_like_any_other() {
    let fixture = Fixture::new();
    let validation = [pairs(24, 5, 2), questions(24, 3)];
    for rows in [12, 17, 24, 33, 60, 150] {
        for (kind, train) in [
            ("pairs", pairs(rows, 4, 2)),
            ("few", pairs(rows, 9, 3)),
            ("questions", questions(rows, 3)),
        ] {
            let name = format!("{kind}{rows}");
            fixture.write(&format!("{name}-train.jsonl"), &train);
            fixture.write(
                &format!("{name}-validation.jsonl"),
                &validation[usize::from(kind == "questions")],
            );
            let output = finished(select(&fixture, &name));
            let said = String::from_utf8_lossy(&output.stderr);
            let named = output.status.code() == Some(2) && said.contains("hint: ");
            assert!(output.status.success() || named, "{name}: {said}");
            assert!(!said.contains("finite"), "{name}: {said}");
        }
    }
}

#[test]
fn texts_that_are_all_alike_are_warned_of() {
    let fixture = Fixture::new();
    let rows = |rows: usize, text: &dyn Fn(usize) -> String| -> String {
        let row = |i: usize| format!("{{\"text\": \"{}\", \"label\": \"{}\"}}\n", text(i), ["a", "b"][i % 2]);
        (0..rows).map(row).collect()
    };
    fixture.write("same-train.jsonl", &rows(60, &|_| "one and the same".to_owned()));
    fixture.write("same-validation.jsonl", &rows(24, &|i| format!("another {i}")));
    let output = finished(select(&fixture, "same"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let warning = "warning: the vectors of the training rows are all the same";
    assert!(
        said.contains(warning) && said.contains("another `--embedder`"),
        "{said}"
    );
}
