//! Vectors and models that do not fit the rows or each other.

use std::fs;

use crate::fixture::{Fixture, complains, succeeds};

/// Rows of the fixture's three files together.
const ROWS: usize = 480 + 90 + 60;

/// What `tamis select` says with this embedder.
fn said(fixture: &Fixture, embedder: &str) -> String {
    complains(fixture, fixture.select("run", &["--embedder", embedder]), 2)
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// A NumPy array of four columns.
pub(crate) fn npy(values: &[f32]) -> Vec<u8> {
    let header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 4), }}\n",
        values.len() / 4
    );
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &bytes(values)].concat()
}

/// A safetensors file of these tensors: name, rows, columns; all numbers are a tenth of their place in the row.
fn safetensors(tensors: &[(&str, usize, usize)]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for &(name, rows, columns) in tensors {
        let values: Vec<f32> = (0..rows * columns).map(|i| (i % columns) as f32 / 10.0).collect();
        let begin = data.len();
        data.extend(bytes(&values));
        let shape = if rows == 1 {
            format!("{columns}")
        } else {
            format!("{rows},{columns}")
        };
        entries.push(format!(
            r#""{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{begin},{}]}}"#,
            data.len()
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &data].concat()
}

#[test]
fn vectors_that_do_not_fit_the_rows_are_refused() {
    let fixture = Fixture::new();
    let write = |name: &str, bytes: &[u8]| fs::write(fixture.path(name), bytes).expect("writes");
    let mut values: Vec<f32> = (0..ROWS * 4).map(|i| (i * i % 17) as f32).collect();
    write("short.npy", &npy(&values[..4 * (ROWS - 1)]));
    // Large enough for its square not to be an f32, and a number all the same.
    values[0] = 1e30;
    write("large.npy", &npy(&values));
    values[4 * 500 + 1] = f32::NAN;
    write("nan.npy", &npy(&values));
    write("cut.npy", &npy(&values)[..400]);
    let whole = safetensors(&[("train", 480, 4), ("validation", 90, 4), ("test", 60, 4)]);
    write("broken.safetensors", &[&[0xff; 8], &whole[8..]].concat());
    write("cut.safetensors", &whole[..whole.len() - 9]);
    let rows = [("train", 479, 4), ("validation", 90, 4), ("test", 60, 4)];
    write("rows.safetensors", &safetensors(&rows));
    let lengths = [("train", 480, 4), ("validation", 90, 3), ("test", 60, 4)];
    write("lengths.safetensors", &safetensors(&lengths));
    let names = [("train", 480, 4), ("valid", 90, 4), ("test", 60, 4)];
    write("names.safetensors", &safetensors(&names));
    let all: Vec<String> = [
        "short.npy",
        "nan.npy",
        "cut.npy",
        "broken.safetensors",
        "cut.safetensors",
        "rows.safetensors",
        "lengths.safetensors",
        "names.safetensors",
    ]
    .into_iter()
    .map(|name| said(&fixture, name))
    .collect();
    insta::assert_snapshot!(all.join("\n\n"));
    succeeds(fixture.select("large", &["--embedder", "large.npy"]));
}

#[test]
fn a_tokenizer_or_weights_that_do_not_fit_the_model_are_refused() {
    let fixture = Fixture::new();
    let tokenizer = |vocabulary: &str| {
        format!(
            r#"{{"version": "1.0", "added_tokens": [], "model": {{"type": "WordLevel", "vocab": {vocabulary}, "unk_token": "[UNK]"}}}}"#
        )
    };
    let config = |layers: usize| {
        format!(
            r#"{{"model_type": "bert", "hidden_size": 4, "num_hidden_layers": {layers}, "num_attention_heads": 1, "hidden_act": "gelu"}}"#
        )
    };
    let weights = |tokens: usize| {
        let mut tensors = vec![
            ("embeddings.word_embeddings.weight".to_owned(), tokens, 4),
            ("embeddings.position_embeddings.weight".to_owned(), 16, 4),
            ("embeddings.LayerNorm.weight".to_owned(), 1, 4),
            ("embeddings.LayerNorm.bias".to_owned(), 1, 4),
        ];
        for (part, outputs, inputs) in [
            ("attention.self.query", 4, 4),
            ("attention.self.key", 4, 4),
            ("attention.self.value", 4, 4),
            ("attention.output.dense", 4, 4),
            ("attention.output.LayerNorm", 1, 4),
            ("intermediate.dense", 8, 4),
            ("output.dense", 4, 8),
            ("output.LayerNorm", 1, 4),
        ] {
            let biases = if outputs == 1 { inputs } else { outputs };
            tensors.push((format!("encoder.layer.0.{part}.weight"), outputs, inputs));
            tensors.push((format!("encoder.layer.0.{part}.bias"), 1, biases));
        }
        let named: Vec<(&str, usize, usize)> = tensors
            .iter()
            .map(|(name, rows, cols)| (name.as_str(), *rows, *cols))
            .collect();
        safetensors(&named)
    };
    let good = r#"{"[UNK]": 0, "money": 1}"#;
    for (name, config, weights, tokenizer) in [
        ("fits", config(1), weights(2), tokenizer(good)),
        (
            "unknown_token",
            config(1),
            weights(2),
            tokenizer(r#"{"[UNK]": 0, "money": 7}"#),
        ),
        ("other_model", config(1), weights(3000), tokenizer(good)),
        ("no_tokenizer", config(1), weights(2), "{}".to_owned()),
        ("layer_missing", config(2), weights(2), tokenizer(good)),
        ("cut", config(1), weights(2)[..90].to_vec(), tokenizer(good)),
    ] {
        fs::create_dir(fixture.path(name)).expect("a folder");
        fixture.write(&format!("{name}/config.json"), &config);
        fixture.write(&format!("{name}/tokenizer.json"), &tokenizer);
        fs::write(fixture.path(&format!("{name}/model.safetensors")), weights).expect("writes");
    }
    let all: Vec<String> = ["unknown_token", "other_model", "no_tokenizer", "layer_missing", "cut"]
        .into_iter()
        .map(|name| said(&fixture, &format!("./{name}")))
        .collect();
    insta::assert_snapshot!(all.join("\n\n"));
    succeeds(fixture.select("run", &["--embedder", "./fits"]));
}
