//! Files as people have them: what is read, and what one message says of a file that was made otherwise.

use std::{collections::HashMap, fmt::Write as _, fs::File, path::Path, sync::Arc};

use arrow_array::{ArrayRef, Int64Array, LargeStringArray, NullArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;

use crate::fixture::{Fixture, complains, exists, succeeds};

/// `tamis select` on these files.
fn select(fixture: &Fixture, train: &[&str], validation: &str, more: &[&str]) -> std::process::Command {
    let mut command = fixture.tamis();
    command.arg("select").arg("--train").args(train);
    command.args(["--validation", validation, "--budget", "20%", "--max-evaluations", "60"]);
    if !more.contains(&"--out") {
        command.args(["--out", "run"]);
    }
    command.args(more);
    command
}

fn said(fixture: &Fixture, train: &[&str], validation: &str) -> String {
    complains(fixture, select(fixture, train, validation, &[]), 2)
}

const FRUITS: [&str; 4] = [
    "apple pear plum",
    "carrot leek bean",
    "hammer saw nail",
    "violin drum horn",
];

/// Texts of four kinds, each with the number of its kind.
fn texts(rows: usize, seed: usize) -> Vec<(String, usize)> {
    (0..rows)
        .map(|row| {
            let kind = (row * 7 + seed) % 4;
            let words: Vec<&str> = FRUITS[kind].split(' ').collect();
            (
                format!("{} {} {}", words[row % 3], words[(row / 3) % 3], row + seed * 1000),
                kind,
            )
        })
        .collect()
}

/// JSON Lines of texts whose labels are made so from their kinds.
fn json_lines(rows: usize, seed: usize, label: impl Fn(usize) -> String) -> String {
    let line = |(text, kind): (String, usize)| format!("{{\"text\": \"{text}\", \"label\": {}}}\n", label(kind));
    texts(rows, seed).into_iter().map(line).collect()
}

/// Questions whose right choice has the word `right`; `answer` writes it.
fn questions(rows: usize, seed: usize, answer: impl Fn(usize, usize) -> String) -> String {
    let mut lines = String::new();
    for row in 0..rows {
        let right = (row * 5 + seed) % 4;
        let choices: Vec<String> = (0..4)
            .map(|i| {
                format!(
                    "\"{} {}\"",
                    if i == right { "right" } else { "wrong" },
                    (row * 4 + i) * 3 + seed
                )
            })
            .collect();
        let (choices, answer) = (choices.join(", "), answer(row, right));
        let _ = writeln!(
            lines,
            "{{\"question\": \"case {row} {seed}\", \"choices\": [{choices}], \"answer\": {answer}}}"
        );
    }
    lines
}

fn write_parquet(path: &Path, batch: &RecordBatch) {
    let file = File::create(path).expect("creates");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(batch).expect("writes");
    writer.close().expect("closes");
}

/// Texts with numbers for labels, whose names stand in the metadata as the `datasets` library writes them.
fn with_label_names(rows: usize, seed: usize, names: [&str; 4]) -> RecordBatch {
    let rows = texts(rows, seed);
    let number = |kind: usize| {
        let name = ["fruit", "green", "tool", "sound"][kind];
        names.iter().position(|other| *other == name).expect("is one") as i64
    };
    let told = serde_json::json!({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}});
    let schema = Schema::new(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("label", DataType::Int64, true),
    ])
    .with_metadata(HashMap::from([("huggingface".to_owned(), told.to_string())]));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(text, _)| text)));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, kind)| number(*kind))));
    RecordBatch::try_new(Arc::new(schema), vec![texts, labels]).expect("a batch")
}

#[test]
fn answers_are_read_in_one_way_that_all_rows_tell() {
    let letters = |_: usize, right: usize| format!("\"{}\"", ["A", "B", "C", "D"][right]);
    let from_1 = |_: usize, right: usize| (right + 1).to_string();
    let mixed = move |row: usize, right: usize| {
        if row.is_multiple_of(3) {
            format!("\"{}\"", right + 1)
        } else {
            letters(row, right)
        }
    };
    for (answer, told) in [
        (&letters as &dyn Fn(usize, usize) -> String, "answers are letters"),
        (&from_1, "answers are numbers from 1"),
        (&mixed, "answers are letters, or numbers from 1"),
    ] {
        let fixture = Fixture::new();
        fixture.write("t.jsonl", &questions(60, 1, answer));
        fixture.write("v.jsonl", &questions(24, 2, answer));
        let said = succeeds(select(&fixture, &["t.jsonl"], "v.jsonl", &[]));
        assert!(said.contains(told), "{said}");
        let everything = fixture
            .read("run/selection.json")
            .parse::<serde_json::Value>()
            .expect("JSON")["scores"]["confirm"]["everything"]
            .as_f64();
        assert_eq!(everything, Some(1.0), "{told}");
    }
}

#[test]
fn answers_that_can_be_read_in_two_ways_are_asked_about() {
    let fixture = Fixture::new();
    let from_1 = |_: usize, right: usize| (right.clamp(1, 2)).to_string();
    fixture.write("t.jsonl", &questions(40, 1, from_1));
    fixture.write("v.jsonl", &questions(24, 2, from_1));
    let complaint = said(&fixture, &["t.jsonl"], "v.jsonl");
    assert!(
        complaint.contains("no row tells which") && complaint.contains("--field answer=<name>:from-0`, or `:from-1"),
        "{complaint}"
    );
    succeeds(select(
        &fixture,
        &["t.jsonl"],
        "v.jsonl",
        &["--field", "answer=answer:from-0"],
    ));
}

#[test]
fn labels_are_the_same_whatever_the_format() {
    let fixture = Fixture::new();
    fixture.write("t.jsonl", &json_lines(80, 1, |kind| kind.to_string()));
    let csv = |rows, seed| {
        let lines = texts(rows, seed)
            .into_iter()
            .map(|(text, kind)| format!("{text},{kind}.0\n"));
        format!("text,label\n{}", lines.collect::<String>())
    };
    fixture.write("v.csv", &csv(40, 2));
    succeeds(select(&fixture, &["t.jsonl"], "v.csv", &[]));
    let from_lines = fixture.read("run/selected.jsonl");
    std::fs::remove_dir_all(fixture.path("run")).expect("removes");
    fixture.write("t.csv", &csv(80, 1));
    succeeds(select(&fixture, &["t.csv"], "v.csv", &[]));
    let texts = |chosen: &str, from: char, to: char| -> Vec<String> {
        let text = |line: &str| {
            Some(
                line.split(from)
                    .nth(if from == ',' { 0 } else { 3 })?
                    .split(to)
                    .next()?
                    .to_owned(),
            )
        };
        chosen
            .lines()
            .filter(|line| !line.starts_with("text,"))
            .filter_map(text)
            .collect()
    };
    assert_eq!(
        texts(&fixture.read("run/selected.csv"), ',', ','),
        texts(&from_lines, '"', '"')
    );
}

#[test]
fn labels_with_names_are_compared_and_shown_by_name() {
    let fixture = Fixture::new();
    write_parquet(
        &fixture.path("t.parquet"),
        &with_label_names(80, 1, ["fruit", "green", "tool", "sound"]),
    );
    write_parquet(
        &fixture.path("v.parquet"),
        &with_label_names(40, 2, ["sound", "tool", "green", "fruit"]),
    );
    let said = succeeds(select(&fixture, &["t.parquet"], "v.parquet", &[]));
    assert!(said.contains("  fruit  "), "{said}");
    fixture.write("v.jsonl", &json_lines(40, 2, |kind| kind.to_string()));
    let complaint = complains(
        &fixture,
        select(&fixture, &["t.parquet"], "v.jsonl", &["--out", "other"]),
        2,
    );
    assert!(complaint.contains("expected labels by name"), "{complaint}");
}

#[test]
fn shards_differ_in_metadata_order_and_kinds_of_text() {
    let fixture = Fixture::new();
    let first = with_label_names(40, 1, ["fruit", "green", "tool", "sound"]);
    let second = with_label_names(40, 3, ["fruit", "green", "tool", "sound"]);
    let large: ArrayRef = Arc::new(LargeStringArray::from_iter_values(
        texts(40, 3).iter().map(|(text, _)| text),
    ));
    let nothing: ArrayRef = Arc::new(NullArray::new(40));
    let fields = vec![
        Field::new("note", DataType::Null, true),
        Field::new("label", DataType::Int64, true),
        Field::new("text", DataType::LargeUtf8, true),
    ];
    let schema = Schema::new(fields).with_metadata(second.schema().metadata().clone());
    let second =
        RecordBatch::try_new(Arc::new(schema), vec![nothing, second.column(1).clone(), large]).expect("a batch");
    let note: ArrayRef = Arc::new(StringArray::from_iter_values((0..40).map(|row| format!("note {row}"))));
    let mut fields: Vec<_> = first.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("note", DataType::Utf8, true)));
    let schema = Schema::new(fields).with_metadata(first.schema().metadata().clone());
    let columns = vec![first.column(0).clone(), first.column(1).clone(), note];
    let first = RecordBatch::try_new(Arc::new(schema), columns).expect("a batch");
    std::fs::create_dir(fixture.path("shards")).expect("a folder");
    write_parquet(&fixture.path("shards/part-0.parquet"), &first);
    write_parquet(&fixture.path("shards/part-1.parquet"), &second);
    fixture.write(
        "v.jsonl",
        &json_lines(40, 2, |kind| {
            format!("\"{}\"", ["fruit", "green", "tool", "sound"][kind])
        }),
    );
    for (train, out) in [("shards", "folder"), ("shards/part-*.parquet", "pattern")] {
        succeeds(select(&fixture, &[train], "v.jsonl", &["--out", out]));
        assert!(exists(&fixture, &format!("{out}/selected.parquet")));
    }
}

#[test]
fn lists_of_json_and_tabs_are_read_and_written_as_they_came() {
    let fixture = Fixture::new();
    let lines = json_lines(60, 1, |kind| kind.to_string());
    let items: Vec<&str> = lines.lines().collect();
    fixture.write("t.json", &format!("[\n  {}\n]\n", items.join(",\n  ")));
    fixture.write("v.jsonl", &json_lines(40, 2, |kind| kind.to_string()));
    succeeds(select(&fixture, &["t.json"], "v.jsonl", &[]));
    let chosen: Vec<serde_json::Value> = serde_json::from_str(&fixture.read("run/selected.json")).expect("a list");
    assert_eq!(chosen.len(), 12);

    let rows = texts(60, 1).into_iter().map(|(text, kind)| format!("{text}\t{kind}\n"));
    fixture.write("t.tsv", &format!("text\tlabel\n{}", rows.collect::<String>()));
    succeeds(select(&fixture, &["t.tsv"], "v.jsonl", &["--out", "tabs"]));
    assert_eq!(fixture.read("tabs/selected.tsv").lines().count(), 13);
}

#[test]
fn a_mistake_of_a_whole_file_is_told_once_with_its_remedy() {
    let fixture = Fixture::new();
    let good = json_lines(40, 2, |kind| kind.to_string());
    fixture.write("v.jsonl", &good);
    let all: Vec<String> = [
        (
            "nan.jsonl",
            json_lines(40, 1, |kind| if kind == 0 { "NaN".into() } else { kind.to_string() }),
        ),
        ("scores.jsonl", json_lines(40, 1, |kind| format!("0.{kind}5"))),
        ("many.jsonl", json_lines(40, 1, |kind| format!("[\"{kind}\", \"x\"]"))),
        ("unlabelled.jsonl", json_lines(40, 1, |_| "null".into())),
        ("other.jsonl", good.replace("\"text\"", "\"body\"")),
        (
            "pretty.jsonl",
            good.replace("{\"text\"", "{\n  \"text\"").replace('}', "\n}"),
        ),
        (
            "within.json",
            format!("{{\"rows\": [{}]}}", good.trim().replace('\n', ", ")),
        ),
        ("broken.jsonl", good.replace("}\n", "\n")),
    ]
    .into_iter()
    .map(|(name, text)| {
        fixture.write(name, &text);
        let complaint = said(&fixture, &[name], "v.jsonl");
        assert!(!complaint.contains("--max-bad"), "{complaint}");
        complaint
    })
    .collect();
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn other_encodings_and_packings_are_named() {
    let fixture = Fixture::new();
    let good = json_lines(40, 2, |kind| kind.to_string());
    fixture.write("v.jsonl", &good);
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut behind = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut behind, good.as_bytes()).expect("packs");
    let packed = behind.finish().expect("packs");
    let all: Vec<String> = [
        ("wide.jsonl", utf16),
        (
            "latin.jsonl",
            good.replace("violin", "viol\u{ed}n").chars().map(|c| c as u8).collect(),
        ),
        ("behind.jsonl.gz", [&packed[..], b"junk"].concat()),
        ("cut.jsonl.gz", packed[..packed.len() / 2].to_vec()),
    ]
    .into_iter()
    .map(|(name, bytes)| {
        std::fs::write(fixture.path(name), bytes).expect("writes");
        said(&fixture, &[name], "v.jsonl")
    })
    .collect();
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn all_labels_that_training_rows_lack_are_named_in_one_message() {
    let fixture = Fixture::new();
    fixture.write(
        "t.jsonl",
        &json_lines(40, 1, |kind| format!("\"{}\"", ["a", "b"][kind % 2])),
    );
    fixture.write(
        "v.jsonl",
        &json_lines(40, 2, |kind| format!("\"{}\"", ["a", "b", "c", "d"][kind])),
    );
    insta::assert_snapshot!(said(&fixture, &["t.jsonl"], "v.jsonl"), @r"
    error: v.jsonl, line 1: expected labels that the training rows know (`a`, `b`), found 20 rows with 2 others (`c`, `d`)
    hint: add training rows of these labels, or write the labels alike in the training and the validation files; a name of another field goes into `--field label=<name>`
    ");
}
