//! `--trainer`: a command of the user's that chooses among the best states, and what is said of one that does not answer.

use std::process::Command;

use serde_json::Value;

use crate::fixture::{Fixture, complains, exists, succeeds};

/// A trainer in shell: its score is the number of chosen rows about refunds. It notes every trial in `asked`.
const COUNTS: &str = r#"
while read -r line; do
  trial=$(printf '%s' "$line" | sed 's/.*"trial":"\([^"]*\)".*/\1/')
  rows=$(printf '%s' "$line" | sed 's/.*"rows_file":"\([^"]*\)".*/\1/')
  echo "$trial" >> asked
  echo "training on $rows"
  printf '{"trial": "%s", "score": %s%s}\n' "$trial" "$(grep -c '"label": "refund"' "$rows")" "$1"
done
"#;

fn select(fixture: &Fixture, out: &str, trainer: &str, more: &[&str]) -> Command {
    fixture.select(out, &[&["--trainer", trainer, "--rerank-top", "3"], more].concat())
}

fn finetuned(fixture: &Fixture, out: &str) -> Value {
    let record: Value = serde_json::from_str(&fixture.read(&format!("{out}/selection.json"))).expect("JSON");
    record["scores"]["finetuned"].clone()
}

fn numbers(scores: &Value) -> Vec<f64> {
    let scores = scores.as_array().expect("a list");
    scores.iter().map(|score| score.as_f64().expect("a number")).collect()
}

#[test]
fn the_users_trainer_chooses_among_the_best_states_and_is_asked_once_for_each() {
    let fixture = Fixture::new();
    fixture.write("count.sh", COUNTS);
    let said = succeeds(select(&fixture, "run", "sh count.sh", &[]));
    assert!(said.contains("By your trainer: "), "{said}");
    let scores = finetuned(&fixture, "run");
    let finalists = numbers(&scores["finalists"]);
    let best = finalists.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let chosen = finalists[scores["chosen"].as_u64().expect("a number") as usize];
    assert_eq!(
        (finalists.len(), numbers(&scores["random"]).len(), chosen),
        (3, 3, best)
    );
    // The score is that of the rows that were written.
    let refunds = fixture
        .read("run/selected.jsonl")
        .matches("\"label\": \"refund\"")
        .count();
    assert_eq!(refunds as f64, chosen);
    assert_eq!(fixture.read("asked").lines().count(), 6);
    assert!(fixture.read("run/trials/trainer-0.log").contains("training on"));
    // What was answered is not asked again.
    succeeds(select(&fixture, "run", "sh count.sh", &[]));
    assert_eq!(fixture.read("asked").lines().count(), 6);

    // Two at once, of a command as shells take them, answer the same; of a loss the least is chosen.
    let in_shell = "cd . && sh count.sh";
    succeeds(select(&fixture, "two", in_shell, &["--parallel", "2"]));
    assert_eq!(finetuned(&fixture, "two"), scores);
    succeeds(select(
        &fixture,
        "loss",
        "sh count.sh ', \"higher_is_better\": false'",
        &["--parallel", "2"],
    ));
    let least = finetuned(&fixture, "loss");
    assert_eq!(
        numbers(&least["finalists"]),
        finalists.iter().map(|score| -score).collect::<Vec<_>>()
    );
}

#[test]
fn a_trainer_that_fails_at_first_is_asked_again_and_each_process_has_a_number() {
    let fixture = Fixture::new();
    fixture.write("count.sh", COUNTS);
    // Every process ends once at its first trial.
    fixture.write(
        "fails.sh",
        "if [ -e failed-$1 ]; then exec sh count.sh; fi; touch failed-$1; read -r line; exit 3",
    );
    succeeds(select(&fixture, "run", "sh fails.sh {slot}", &["--parallel", "2"]));
    assert!(exists(&fixture, "failed-0") && exists(&fixture, "failed-1"));
    assert_eq!(
        finetuned(&fixture, "run")["finalists"].as_array().map(Vec::len),
        Some(3)
    );
}

#[test]
fn a_trainer_that_gives_no_score_is_told_apart() {
    let fixture = Fixture::new();
    let mut said = Vec::new();
    let answer = |answer: &str| {
        format!(
            "while read -r line; do trial=$(printf '%s' \"$line\" | sed 's/.*\"trial\":\"\\([^\"]*\\)\".*/\\1/'); {answer}; done"
        )
    };
    for (name, script) in [
        ("ends", "echo 'no GPU is left' >&2; exit 7".to_owned()),
        ("leaves", "sleep 60 & exit 3".to_owned()),
        ("late", "echo waiting; exec sleep 60".to_owned()),
        (
            "says",
            answer(r#"printf '{"trial": "%s", "error": "out of memory"}\n' "$trial""#),
        ),
        ("nan", answer(r#"printf '{"trial": "%s", "score": NaN}\n' "$trial""#)),
        (
            "other",
            answer(r#"printf '{"trial": "%s", "accuracy": 0.5}\n' "$trial""#),
        ),
    ] {
        fixture.write(&format!("{name}.sh"), &script);
        let command = select(
            &fixture,
            name,
            &format!("sh {name}.sh"),
            &["--agent", "dqn", "--trial-timeout", "0.5", "--retries", "0"],
        );
        said.push(complains(&fixture, command, 2));
    }
    said.push(complains(
        &fixture,
        select(&fixture, "a", "true", &["--parallel", "0"]),
        2,
    ));
    said.push(complains(&fixture, fixture.select("b", &["--rerank", "trainer"]), 2));
    let unasked = select(&fixture, "a", "true", &["--rerank", "probe"]);
    said.push(complains(&fixture, unasked, 2));
    let mut study = fixture.on_files(&["study"]);
    study.args(["--trainer", "true"]);
    said.push(complains(&fixture, study, 2));
    let trial = |text: &str| {
        // A trial's name is of its rows; which they are is no matter of this test.
        let words = text.split(' ').collect::<Vec<_>>();
        let hidden = words.iter().map(|word| {
            let name = word.rsplit('/').next().unwrap_or(word);
            let is_name = name.len() == 12 && name.chars().all(|c| c.is_ascii_hexdigit());
            if is_name { "TRIAL" } else { word }
        });
        hidden.collect::<Vec<_>>().join(" ")
    };
    insta::assert_snapshot!(trial(&said.join("\n")));
}
