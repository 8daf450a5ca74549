//! What a run writes and prints.

use serde_json::Value;

use crate::{
    bad_vectors::npy,
    fixture::{Fixture, exists, succeeds},
};

#[test]
fn the_chosen_rows_are_the_users_own_in_their_order() {
    let fixture = Fixture::new();
    let summary = succeeds(fixture.select("run", &[]));
    let train = fixture.read("train.jsonl");
    let chosen = fixture.read("run/selected.jsonl");
    let places: Vec<usize> = chosen
        .lines()
        .map(|line| train.lines().position(|row| row == line).expect("a row of the file"))
        .collect();
    assert_eq!(places.len(), 48, "10% of 480 rows");
    assert!(places.is_sorted());
    assert!(
        summary.contains("48 of 480 rows") && summary.contains("cheap probe"),
        "{summary}"
    );

    let record: Value = serde_json::from_str(&fixture.read("run/selection.json")).expect("JSON");
    let rows: Vec<usize> = record["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["row"].as_u64().expect("a row") as usize - 1)
        .collect();
    assert_eq!(rows, places, "selection.json names the same rows");
    assert_eq!(record["version"], 1);
    assert_eq!(record["budget"]["rows"], 48);
    assert_eq!(record["evaluations"], 300);
    // Less than a fifth, since the probe gets no more than 60 of 480 rows wrong.
    assert_eq!(record["data"]["label_errors"], 60);
    for fold in ["reward", "confirm", "test"] {
        for value in ["chosen", "random_mean", "random_sd", "everything"] {
            assert!(record["scores"][fold][value].is_f64(), "scores.{fold}.{value}");
        }
    }
    assert!(
        record["stages"]
            .as_array()
            .is_some_and(|stages| stages.iter().any(|stage| stage["name"] == "select"))
    );
    assert_eq!(fixture.read("run/rejects.jsonl"), "");
}

/// Every second row with the label of the next topic, and words that no other has.
fn half_mislabelled(train: &str) -> String {
    let labels = ["refund", "login", "delivery", "refund"];
    let row = |(i, line): (usize, &str)| {
        let mut row: Value = serde_json::from_str(line).expect("JSON");
        if i % 2 == 0 {
            let at = labels.iter().position(|label| row["label"] == *label).expect("a label");
            row["label"] = labels[at + 1].into();
            row["text"] = format!("{} zork blarg quux", row["text"].as_str().expect("a text")).into();
        }
        format!("{row}\n")
    };
    train.lines().enumerate().map(row).collect()
}

#[test]
fn the_simplest_that_cannot_be_told_from_the_best_is_chosen() {
    let fixture = Fixture::new();
    // By the words of topics every rule does well. Where half of the pool has the next topic's label, random rows do not.
    let train = fixture.read("train.jsonl");
    for out in ["words", "mislabelled"] {
        if out == "mislabelled" {
            fixture.write("train.jsonl", &half_mislabelled(&train));
        }
        let summary = succeeds(fixture.select(out, &[]));
        let record: Value = serde_json::from_str(&fixture.read(&format!("{out}/selection.json"))).expect("JSON");
        let portfolio = &record["portfolio"];
        let entrants = portfolio["entrants"].as_array().expect("entrants");
        let number = |entrant: &Value, name: &str| entrant[name].as_f64().expect("a number");
        let confirm = |entrant: &Value| number(entrant, "confirm");
        let best = entrants
            .iter()
            .max_by(|a, b| confirm(a).total_cmp(&confirm(b)))
            .expect("a best");
        let near = |entrant: &&Value| confirm(best) - confirm(entrant) <= number(entrant, "standard_error");
        let simplest = entrants.iter().find(near).expect("one");
        assert_eq!(
            entrants[portfolio["chosen"].as_u64().expect("a place") as usize],
            *simplest
        );
        let searched = entrants.iter().filter(|entrant| entrant["evaluations"] != 0);
        assert_eq!(searched.clone().count(), 2, "300 evaluations are enough for two modes");
        let spent: u64 = searched
            .map(|entrant| entrant["evaluations"].as_u64().expect("a number"))
            .sum();
        assert!((200..=300).contains(&spent), "{out}: {spent}");
        assert!(
            summary.contains(&format!("Of {} rules and searches", entrants.len())),
            "{summary}"
        );
        let random = simplest["name"] == "random";
        let ahead = confirm(simplest) - confirm(&entrants[0]);
        assert_eq!(ahead > 0.1, out == "mislabelled", "{out}: {ahead}");
        assert_eq!(
            summary.contains("nothing could be told from random rows"),
            random,
            "{summary}"
        );
    }
}

#[test]
fn what_validation_rows_teach_has_nothing_to_do_with_training_labels() {
    let fixture = Fixture::new();
    let scores = |out: &str| -> Value {
        succeeds(fixture.select(out, &["--metric", "log-loss"]));
        let record: Value = serde_json::from_str(&fixture.read(&format!("{out}/selection.json"))).expect("JSON");
        record["scores"].clone()
    };
    let right = scores("right");
    // Every label stands for another.
    let (names, others) = (["refund", "login", "delivery"], ["login", "delivery", "refund"]);
    let label = |name: &str| format!("\"label\":\"{name}\"");
    let train = fixture.read("train.jsonl").replace("\"label\": ", "\"label\":");
    let marked = names.iter().zip(&others).fold(train, |text, (name, other)| {
        text.replace(&label(name), &label(&format!("#{other}")))
    });
    fixture.write("train.jsonl", &marked.replace("\"#", "\""));
    let wrong = scores("wrong");
    for fold in ["reward", "confirm", "test"] {
        let of = |scores: &Value, what: &str| scores[fold][what].as_f64().expect("a number");
        assert_eq!(of(&right, "validation"), of(&wrong, "validation"), "{fold}");
        assert!(of(&right, "everything") > of(&wrong, "everything") + 0.5, "{fold}");
    }
    // Both halves of the validation rows teach more than one.
    assert!(
        right["test"]["validation"].as_f64() > right["confirm"]["validation"].as_f64(),
        "{right}"
    );
}

#[test]
fn learning_curves_stand_in_one_pair_of_files_however_often_the_run_is_started() {
    let fixture = Fixture::new();
    let points = |agent: &str| -> Vec<Value> {
        let text = fixture.read(&format!("{agent}/metrics.jsonl"));
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let event_files = |agent: &str| -> Vec<String> {
        let files = std::fs::read_dir(fixture.path(&format!("{agent}/tensorboard"))).expect("a folder");
        files
            .map(|file| file.expect("a file").file_name().to_string_lossy().into_owned())
            .collect()
    };
    for agent in ["dqn", "greedy", "random"] {
        succeeds(fixture.select(agent, &["--agent", agent]));
        let first = points(agent);
        let (best, episodes): (Vec<&Value>, Vec<&Value>) = first.iter().partition(|point| point["event"] == "best");
        let column = |points: &[&Value], name: &str| -> Vec<f64> {
            points
                .iter()
                .map(|point| point[name].as_f64().expect("a number"))
                .collect()
        };
        assert!(column(&first.iter().collect::<Vec<_>>(), "evaluations").is_sorted());
        assert!(column(&best, "seconds").is_sorted() && column(&best, "confirm").len() == best.len());
        let rewards = column(&best, "reward");
        assert!(rewards.windows(2).all(|two| two[0] < two[1]), "{agent}: {rewards:?}");
        assert_eq!(episodes.is_empty(), agent != "dqn");
        assert!(column(&episodes, "return").len() == episodes.len());
        assert!(
            agent != "dqn" || episodes[0]["loss"].is_null(),
            "nothing is learned in the first episode"
        );
        let files = event_files(agent);
        assert!(files.len() == 1 && files[0].contains("tfevents"), "{files:?}");

        // Started again, it tells the same points, and of the best states the same seconds.
        succeeds(fixture.select(agent, &["--agent", agent]));
        let again = points(agent);
        let told = |points: &[Value]| -> Vec<Value> {
            let mut points = points.to_vec();
            for point in points.iter_mut().filter(|point| point["event"] == "episode") {
                point["seconds"] = Value::Null;
            }
            points
        };
        assert_eq!(told(&again), told(&first));
        assert_eq!(event_files(agent), files);
    }
}

#[test]
fn every_way_to_spend_the_budget_meets_it() {
    let fixture = Fixture::new();
    for (out, more) in [
        ("greedy", &["--agent", "greedy"][..]),
        ("random", &["--agent", "random"]),
        ("flat", &["--network", "flat"]),
        ("clusters", &["--chunk", "cluster"]),
        ("hard", &["--reward", "hard", "--metric", "macro-f1"]),
        ("auc", &["--reward", "auc"]),
        ("calibrated", &["--reward", "calibrated", "--agent", "greedy"]),
        ("matched", &["--reward", "matched", "--metric", "macro-f1"]),
        ("loss", &["--metric", "log-loss"]),
        ("proper", &["--reward", "log-loss"]),
        ("relevant", &["--row-order", "relevance"]),
        ("candidates", &["--candidates", "1x"]),
        ("tokens", &["--budget", "400 tokens"]),
        ("time", &["--max-time", "30"]),
    ] {
        succeeds(fixture.select(out, more));
        let rows = fixture.read(&format!("{out}/selected.jsonl")).lines().count();
        let record: Value = serde_json::from_str(&fixture.read(&format!("{out}/selection.json"))).expect("JSON");
        let rewarded_by = match out {
            "hard" => "macro_f1",
            "auc" => "auc",
            "calibrated" => "calibrated_log_loss",
            "matched" => "matched_macro_f1",
            "loss" | "proper" => "log_loss",
            _ => "soft_accuracy",
        };
        assert_eq!(record["scores"]["reward"]["metric"], rewarded_by);
        if out == "tokens" {
            let tokens = record["budget"]["tokens"].as_u64().expect("tokens");
            assert!((370..=400).contains(&tokens), "{tokens} tokens of 400");
        } else {
            assert_eq!(rows, 48, "{out}");
        }
    }
}

#[test]
fn what_auto_means_depends_on_whether_validation_rows_are_of_the_pools_kind() {
    let fixture = Fixture::new();
    // One vector a row of the three files. A quarter of the training rows stand on the side where, if they differ, all others do.
    let vectors = |differ: bool| -> Vec<f32> {
        let side = |row: usize| {
            let other = differ && row < 480 && !row.is_multiple_of(4);
            if other { -1.0 } else { 1.0 }
        };
        let noise = |row: usize, axis: usize| ((row * 31 + axis * 17 + 1) as f32 * 12.9898).sin();
        (0..480 + 90 + 60)
            .flat_map(|row| [side(row), noise(row, 1), noise(row, 2), noise(row, 3)])
            .collect()
    };
    let run = |vectors: &str, out: &str, more: &[&str]| -> (String, Value) {
        let summary = succeeds(fixture.select(out, &[&["--agent", "dqn", "--embedder", vectors], more].concat()));
        let record = serde_json::from_str(&fixture.read(&format!("{out}/selection.json"))).expect("JSON");
        (summary, record)
    };
    let decided =
        |record: &Value| ["row_order", "reward"].map(|name| record["settings"][name].as_str().map(str::to_owned));
    let [coverage, relevance] =
        [["coverage", "soft"], ["relevance", "log-loss"]].map(|two| two.map(|name| Some(name.to_owned())));

    std::fs::write(fixture.path("alike.npy"), npy(&vectors(false))).expect("writes");
    let (summary, record) = run("alike.npy", "alike", &[]);
    assert_eq!(decided(&record), coverage);
    assert!(!summary.contains("most like validation rows"), "{summary}");
    assert_eq!(record["data"]["candidates"], 480);
    // These vectors say nothing of labels, and of 480 rows that the probe gets wrong more than a fifth, a fifth is taken last.
    assert_eq!(record["data"]["label_errors"], 96);
    assert!(
        summary.contains("\n96 of the pool's 480 rows are used last"),
        "{summary}"
    );

    std::fs::write(fixture.path("other.npy"), npy(&vectors(true))).expect("writes");
    let (summary, record) = run("other.npy", "other", &[]);
    assert_eq!(decided(&record), relevance);
    assert!(summary.contains("with an AUC of 0.8"), "{summary}");
    // An eighth of the pool is as much like validation rows as half of these are, and two budgets are a fifth.
    assert_eq!(record["data"]["candidates"], 96);
    assert!(summary.contains("among the 96 of the pool's 480 rows"), "{summary}");
    // Of these vectors a probe of 45 validation rows knows as little: a fifth again.
    assert_eq!(record["data"]["label_errors"], 96);
    // With a single cluster there is nothing to decide: the rows most like those of validation are taken. Nor is another taken where the
    // agent chooses among few enough, which here are in several clusters.
    for (out, more) in [("one", ["--clusters", "1"]), ("few", ["--candidates", "1.5x"])] {
        let (_, record) = run("other.npy", out, &more);
        let rows = record["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 48);
        assert!(
            rows.iter().all(|row| row["row"].as_u64().expect("a row") % 4 == 1),
            "{out}: {rows:?}"
        );
    }

    // A second start is the same run, and what the user says stands.
    run("other.npy", "other", &[]);
    let (_, record) = run("other.npy", "told", &["--row-order", "coverage", "--reward", "soft"]);
    assert_eq!(decided(&record), coverage);
    assert_eq!(record["data"]["candidates"], 96);
    let (_, record) = run("other.npy", "all", &["--candidates", "all"]);
    assert_eq!(
        (decided(&record), &record["data"]["candidates"]),
        (relevance, &480.into())
    );
}

#[test]
fn of_a_rare_label_an_agent_has_as_many_rows_to_choose_from_as_the_metric_may_want() {
    let fixture = Fixture::new();
    // The quarter of the training rows that are like validation rows are all of one label, validation rows nine tenths.
    let is_like = |row: usize| row.is_multiple_of(4);
    let rows = |rows: usize, is_common: &dyn Fn(usize) -> bool| -> String {
        (0..rows)
            .map(|row| {
                let label = if is_common(row) { "common" } else { "rare" };
                format!("{{\"text\": \"row {row} of {rows}\", \"label\": \"{label}\"}}\n")
            })
            .collect()
    };
    fixture.write("train.jsonl", &rows(480, &|row| is_like(row) || row % 2 == 1));
    fixture.write("validation.jsonl", &rows(90, &|row| !row.is_multiple_of(10)));
    fixture.write("test.jsonl", &rows(60, &|row| !row.is_multiple_of(10)));
    let side = |row: usize| if row >= 480 || is_like(row) { 1.0 } else { -1.0 };
    let noise = |row: usize, axis: usize| ((row * 31 + axis * 17 + 1) as f32 * 12.9898).sin() / 10.0;
    let vectors: Vec<f32> = (0..480 + 90 + 60)
        .flat_map(|row| [side(row), noise(row, 1), noise(row, 2), noise(row, 3)])
        .collect();
    std::fs::write(fixture.path("vectors.npy"), npy(&vectors)).expect("writes");
    let among = |metric: &str| {
        let more = [
            "--embedder",
            "vectors.npy",
            "--label-error-share",
            "0",
            "--metric",
            metric,
            "--max-evaluations",
            "50",
            "--agent",
            "dqn",
        ];
        succeeds(fixture.select(metric, &more));
        let record: Value = serde_json::from_str(&fixture.read(&format!("{metric}/selection.json"))).expect("JSON");
        record["data"]["candidates"].as_u64().expect("a number")
    };
    // Two budgets of 48 rows, and half of a budget or 4 or 5 of 45 of the other label.
    assert_eq!(among("macro-f1"), 96 + 24);
    assert!((96 + 4..=96 + 5).contains(&among("accuracy")));
}

#[test]
fn other_tasks_and_formats_run_end_to_end() {
    let fixture = Fixture::new();
    let pair = |i: usize| {
        let (premise, hypothesis, label) = match i % 3 {
            0 => ("a man eats", "somebody eats", "yes"),
            1 => ("a man eats", "nobody eats", "no"),
            _ => ("a man eats", "it is noon", "open"),
        };
        format!("{premise} {i},\"{hypothesis}, {}\",{label}\n", i * 7)
    };
    let pairs =
        |range: std::ops::Range<usize>| format!("premise,hypothesis,label\n{}", range.map(pair).collect::<String>());
    fixture.write("pairs.csv", &pairs(0..240));
    fixture.write("pairs_validation.csv", &pairs(240..300));
    let question = |i: usize| {
        format!(
            "{{\"question\": \"what is {i} plus {i}\", \"choices\": [\"{}\", \"{}\", \"none\"], \"answer\": \"{}\"}}\n",
            2 * i,
            2 * i + 1,
            ["A", "B", "C"][i % 3]
        )
    };
    fixture.write("questions.jsonl", &(0..240).map(question).collect::<String>());
    fixture.write(
        "questions_validation.jsonl",
        &(240..300).map(question).collect::<String>(),
    );
    for (name, ending) in [("pairs", "csv"), ("questions", "jsonl")] {
        let mut command = fixture.tamis();
        command.args([
            "select",
            "--train",
            &format!("{name}.{ending}"),
            "--validation",
            &format!("{name}_validation.{ending}"),
        ]);
        command.args([
            "--budget",
            "24",
            "--chunk",
            "6",
            "--max-evaluations",
            "100",
            "--out",
            name,
        ]);
        succeeds(command);
        let header = usize::from(ending == "csv");
        assert_eq!(
            fixture.read(&format!("{name}/selected.{ending}")).lines().count(),
            24 + header
        );
    }
}

#[test]
fn flags_and_a_settings_file_say_the_same_things() {
    let fixture = Fixture::new();
    succeeds(fixture.select("flags", &["--agent", "greedy", "--seed", "3"]));
    fixture.write(
        "tamis.toml",
        r#"
        budget = "10%"
        chunk = "8"
        clusters = 12
        max_evaluations = 300
        agent = "greedy"
        seed = 4
        out = "file"
        [data]
        train = ["train.jsonl"]
        validation = ["validation.jsonl"]
        test = ["test.jsonl"]
        "#,
    );
    let mut command = fixture.tamis();
    command.args(["select", "--config", "tamis.toml", "--seed", "3"]);
    succeeds(command);
    assert_eq!(
        fixture.read("flags/selected.jsonl"),
        fixture.read("file/selected.jsonl")
    );
}

#[test]
fn the_command_that_a_run_names_makes_it_again() {
    let fixture = Fixture::new();
    let toml = "embedder = \"lexical\"\nlabel_error_share = 0.1\ndqn.double = false\nreward = \"hard\"\n";
    fixture.write("it's.toml", toml);
    fixture.write("my train.jsonl", &fixture.read("train.jsonl"));
    let more = [
        "--train",
        "my train.jsonl",
        "--config",
        "it's.toml",
        "--budget",
        "400 tokens",
    ];
    succeeds(fixture.select("first", &more));
    let record: Value = serde_json::from_str(&fixture.read("first/selection.json")).expect("JSON");
    let command = record["command"].as_str().expect("a command");
    assert!(
        command.starts_with("cat > repeat.toml") && command.contains("'my train.jsonl'"),
        "{command}"
    );
    let mut shell = std::process::Command::new("sh");
    let tamis = std::path::PathBuf::from(fixture.tamis().get_program());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(tamis.parent().expect("a folder").to_path_buf()).chain(std::env::split_paths(&path));
    shell
        .args(["-c", &command.replace("--out first", "--out second")])
        .env("PATH", std::env::join_paths(folders).expect("a path"))
        .env("XDG_CACHE_HOME", fixture.path("cache"))
        .current_dir(fixture.path(""));
    succeeds(shell);
    for file in ["settings.json", "selected.jsonl", "map.json"] {
        assert_eq!(
            fixture.read(&format!("first/{file}")),
            fixture.read(&format!("second/{file}")),
            "{file}"
        );
    }
    assert!(exists(&fixture, "second/report.html"));
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let fixture = Fixture::new();
    for agent in ["auto", "dqn", "greedy", "random"] {
        for threads in ["1", "2"] {
            succeeds(fixture.select(&format!("{agent}{threads}"), &["--agent", agent, "--threads", threads]));
        }
        for file in ["selected.jsonl", "rejects.jsonl", "map.json"] {
            assert_eq!(
                fixture.read(&format!("{agent}1/{file}")),
                fixture.read(&format!("{agent}2/{file}")),
                "{agent} {file}"
            );
        }
        let scores = |out: String| -> Value {
            let record: Value = serde_json::from_str(&fixture.read(&out)).expect("JSON");
            record["scores"].clone()
        };
        assert_eq!(
            scores(format!("{agent}1/selection.json")),
            scores(format!("{agent}2/selection.json"))
        );
    }
}

#[test]
fn the_demo_runs_and_says_where_things_are() {
    let fixture = Fixture::new();
    let mut command = fixture.tamis();
    command.arg("demo");
    let said = succeeds(command);
    assert!(
        said.contains("runs/demo/run/selected.jsonl") && said.contains("standard deviations"),
        "{said}"
    );
    assert!(exists(&fixture, "runs/demo/data/train.jsonl") && exists(&fixture, "runs/demo/run/selection.json"));
}
