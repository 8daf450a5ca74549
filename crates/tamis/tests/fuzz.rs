//! Every parser of the user's files on damaged inputs: each is read or refused, and none makes it panic.
//!
//! Inputs are small good files, cut, spliced and overwritten at random. `TAMIS_FUZZ_SECONDS` says how long each parser is tried (1 by default),
//! `TAMIS_FUZZ_SEED` with which numbers. An input that panics is kept in the folder that the message names.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tamis::{
    Seed, SelectSettings, Silent,
    data::{DataSettings, LeakPolicy, read},
    embed::precomputed,
    unwind::say_nothing_of_caught_panics,
};
use tamis_nn::{hub::tokenizer::TextTokenizer, test_util::tiny_encoder};

/// What an input may be made worse with.
const WORDS: [&[u8]; 14] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\n",
    b"\r\n",
    b"\0",
    b"NaN",
    b"\xff\xfe",
    b"1e999",
    b"-9223372036854775808",
    b"\\u0000",
];

/// Panics that readers are allowed are not shown.
static SILENCED: Once = Once::new();

/// Tries a parser on damaged copies of good inputs for as long as is asked, and prints on how many.
fn fuzz(name: &str, good: &[Vec<u8>], parse: &dyn Fn(&[u8])) {
    let told =
        |variable: &str, default: u64| std::env::var(variable).map_or(default, |text| text.parse().expect("a number"));
    SILENCED.call_once(say_nothing_of_caught_panics);
    let mut rng = Seed(told("TAMIS_FUZZ_SEED", 0)).derive(name).rng();
    let (began, limit) = (Instant::now(), Duration::from_secs(told("TAMIS_FUZZ_SECONDS", 1)));
    let mut inputs = 0u64;
    while began.elapsed() < limit {
        let input = damaged(good, &mut rng);
        if catch_unwind(AssertUnwindSafe(|| parse(&input))).is_err() {
            let kept = std::env::temp_dir().join(format!("tamis-fuzz-{name}-{inputs}"));
            fs::write(&kept, &input).expect("writes");
            panic!("{name}: input {inputs} made it panic; it is kept as {}", kept.display());
        }
        inputs += 1;
    }
    println!("{name}: {inputs} inputs");
}

/// A copy of one of the inputs with one to eight injuries.
fn damaged(good: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut input = good.choose(rng).expect("some").clone();
    for _ in 0..rng.random_range(1..=8) {
        let at = rng.random_range(0..=input.len());
        let end = rng.random_range(at..=input.len().min(at + 40));
        match rng.random_range(0..7) {
            0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            1 if at < input.len() => input[at] = rng.random(),
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => drop(input.splice(at..at, WORDS.choose(rng).expect("some").iter().copied())),
            5 => {
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            _ => {
                let other = good.choose(rng).expect("some");
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input
}

/// Reads a training file of this name; the validation file is good.
fn read_as(folder: &Path, name: &str, bytes: &[u8]) {
    let (train, validation) = (folder.join(name), folder.join("validation.jsonl"));
    fs::write(&train, bytes).expect("writes");
    if !validation.exists() {
        fs::write(&validation, "{\"text\": \"unseen\", \"label\": \"yes\"}\n").expect("writes");
    }
    let settings = DataSettings {
        train: vec![train],
        validation: vec![validation],
        leaks: LeakPolicy::Keep,
        max_bad: 1.0,
        ..DataSettings::default()
    };
    drop(read(&settings, &Silent));
}

fn good(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn rows() -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..20).map(|row| format!("text {row}"))));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values((0..20).map(|row| row % 3)));
    RecordBatch::try_from_iter([("text", texts), ("label", labels)]).expect("a batch")
}

fn in_folder(name: &str, file: &str, good: &[Vec<u8>]) {
    let folder = tempfile::tempdir().expect("a folder");
    fuzz(name, good, &|bytes| read_as(folder.path(), file, bytes));
}

#[test]
fn json() {
    let lines = "{\"text\": \"a cat\", \"label\": \"yes\"}\n{\"text\": \"a d\\u00f6g\", \"label\": 1.0}\r\n\n{\"text\": \"z\", \"label\": true}\n";
    let questions = "{\"question\": \"q\", \"choices\": [\"a\", \"b\"], \"answer\": \"B\"}\n{\"question\": \"q\", \"choices\": {\"text\": [\"a\", \"b\"], \"label\": [\"1\", \"2\"]}, \"answer\": 2}\n";
    in_folder("JSON Lines", "t.jsonl", &good(&[lines, questions]));
    let list = "[\n {\"text\": \"a\", \"label\": \"yes\"},\n {\"text\": \"b ]}\\\"\", \"label\": \"no\"}\n]\n";
    in_folder(
        "JSON list",
        "t.json",
        &good(&[list, "{\"data\": [{\"text\": \"a\", \"label\": 1}]}"]),
    );
}

#[test]
fn csv_and_tsv() {
    let csv = "text,label\na,yes\n\"two\nlines, \"\"q\"\"\",no\r\nc,1.0\n";
    let questions = "question,A,B,C,answer\nq,x,y,,B\nq,x,y,z,C\n";
    in_folder("CSV", "t.csv", &good(&[csv, questions]));
    in_folder("TSV", "t.tsv", &good(&[&csv.replace(',', "\t")]));
}

#[test]
fn columns() {
    let batch = rows();
    let mut parquet = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("writes");
    writer.close().expect("closes");
    in_folder("Parquet", "t.parquet", &[parquet]);
    let mut stream = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).expect("a writer");
    stream.write(&batch).expect("writes");
    let mut file = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).expect("a writer");
    file.write(&batch).expect("writes");
    let files = [stream.into_inner().expect("ends"), file.into_inner().expect("ends")];
    in_folder("Arrow", "t.arrow", &files);
}

#[test]
fn vectors() {
    let folder = tempfile::tempdir().expect("a folder");
    let (train, validation) = (folder.path().join("t.jsonl"), folder.path().join("v.jsonl"));
    fs::write(
        &train,
        "{\"text\": \"a\", \"label\": 0}\n{\"text\": \"b\", \"label\": 1}\n",
    )
    .expect("writes");
    fs::write(&validation, "{\"text\": \"c\", \"label\": 0}\n").expect("writes");
    let settings = DataSettings {
        train: vec![train],
        validation: vec![validation],
        ..DataSettings::default()
    };
    let data = read(&settings, &Silent).expect("reads");
    let load = |path: PathBuf, bytes: &[u8]| {
        fs::write(&path, bytes).expect("writes");
        drop(precomputed::load(
            &path,
            &[&data.train, &data.validation],
            folder.path(),
        ));
    };
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend(
        format!(
            "{:<117}\n",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"
        )
        .bytes(),
    );
    npy.extend([0.5f32; 6].iter().flat_map(|x| x.to_le_bytes()));
    fuzz("npy", &[npy], &|bytes| load(folder.path().join("v.npy"), bytes));
    let header = "{\"train\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},\"validation\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[16,24]}}";
    let mut tensors = (header.len() as u64).to_le_bytes().to_vec();
    tensors.extend(header.bytes());
    tensors.extend([0.5f32; 6].iter().flat_map(|x| x.to_le_bytes()));
    fuzz("safetensors", &[tensors], &|bytes| {
        load(folder.path().join("v.safetensors"), bytes);
    });
}

#[test]
fn tokenizer() {
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 0, "content": "[UNK]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                  "vocab": {"[UNK]": 0, "a": 1, "b": 2, "##c": 3}}
    });
    let encoder = tiny_encoder(20, 9);
    fuzz("tokenizer.json", &[json.to_string().into_bytes()], &|bytes| {
        if let Ok(tokenizer) = TextTokenizer::read(Path::new("tokenizer.json"), bytes, &encoder, 9) {
            drop(tokenizer.one("a bc d"));
        }
    });
}

#[test]
fn settings() {
    let text = "budget = \"5%\"\nseed = 3\nembedder = \"v.npy\"\n[data]\ntrain = [\"a.jsonl\"]\nfield = { text = \"review\" }\n[dqn]\nlookahead = 14\n";
    fuzz("settings", &[text.as_bytes().to_vec()], &|bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            drop(toml::from_str::<SelectSettings>(text));
        }
    });
}
