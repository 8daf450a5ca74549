//! Our forward passes against those of the Python libraries, on the models and texts of `oracle/`.
//!
//! sentence-transformers: all-MiniLM-L6-v2 on 200 sentences. The weights are not in the repository. `TAMIS_MINILM` names their
//! folder; without it the test says so and passes. transformers: a tiny classifier and a tiny multiple-choice model of each family.

use std::{io::Write, path::Path};

use serde_json::Value;
use tamis::embed::{Embedder, encoder::Encoder};
use tamis_nn::{
    Silent,
    encoder::{Dtype, OutputTokens, Packed, Scratch, head::HeadTape},
    hub::classifier::{ClassifierFiles, HeadKind, Loaded, Request, load},
    kernels::dropout::Dropout,
    seed::Seed,
};

#[test]
fn vectors_agree_with_sentence_transformers() {
    let Some(model) = std::env::var_os("TAMIS_MINILM") else {
        // Past libtest, which keeps what a passing test prints to itself.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: TAMIS_MINILM does not name the folder of all-MiniLM-L6-v2"
        );
        return;
    };
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    let sentences = std::fs::read_to_string(oracle.join("sentences.txt")).expect("reads");
    let texts: Vec<String> = sentences.lines().map(|line| line.replace("\\n", "\n")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(texts.len(), 200);

    let encoder = Encoder::load(&model.to_string_lossy(), Dtype::Float32).expect("loads");
    let ours = encoder.embed(&texts, &Silent).expect("embeds");
    let recorded = std::fs::read(oracle.join("minilm.npy")).expect("reads");
    let numbers = &recorded[recorded.len() - 4 * 200 * 384..];
    let theirs: Vec<f32> = numbers
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();

    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let mut least = 1.0f64;
    for ((a, b), text) in ours.iter_rows().zip(theirs.chunks_exact(384)).zip(&texts) {
        let cosine = cosine(a, b);
        assert!(cosine >= 0.99999, "{cosine} for {text:?}");
        least = least.min(cosine);
    }
    println!("least cosine {least:.8}");

    for (dtype, least_allowed, mean_allowed) in [(Dtype::Bfloat16, 0.9999, 0.9999), (Dtype::Int8, 0.97, 0.99)] {
        let rounded = Encoder::load(&model.to_string_lossy(), dtype).expect("loads");
        assert_ne!(rounded.fingerprint(), encoder.fingerprint());
        let near = rounded.embed(&texts, &Silent).expect("embeds");
        let cosines: Vec<f64> = near
            .iter_rows()
            .zip(ours.iter_rows())
            .map(|(a, b)| cosine(a, b))
            .collect();
        let least = cosines.iter().copied().fold(1.0, f64::min);
        let mean = cosines.iter().sum::<f64>() / 200.0;
        println!("in {dtype}: least cosine {least:.5}, mean {mean:.5}");
        assert!(
            least > least_allowed && mean > mean_allowed,
            "{dtype}: least {least}, mean {mean}"
        );
    }

    // A vector does not depend on the texts beside it, so a run that was killed while it embedded ends with the same ones.
    for i in [0, 14, 57, 199] {
        let alone = encoder.embed(&texts[i..=i], &Silent).expect("embeds");
        assert_eq!(alone.row(0), ours.row(i), "sentence {i} alone and among others");
    }
}

/// The scores of a packed batch, one row a sequence.
fn scores(loaded: &Loaded, packed: Packed<'_>) -> Vec<f32> {
    let (encoder, head) = (&loaded.model.encoder, &loaded.model.head);
    let (mut scratch, mut tape) = (Scratch::default(), HeadTape::default());
    let layers = encoder.prepack(0..encoder.layers.len(), Dtype::Float32);
    let firsts = encoder.forward(&layers, packed, OutputTokens::First, &mut scratch);
    head.forward(firsts, Dropout::new(0.0, 0), &mut tape).to_vec()
}

#[test]
fn tokens_and_scores_agree_with_transformers() {
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/classifiers");
    let recorded: Value =
        serde_json::from_str(&std::fs::read_to_string(oracle.join("scores.json")).expect("reads")).expect("JSON");
    let recorded = recorded.as_object().expect("an object");
    assert_eq!(recorded.len(), 6);
    // The file's order is entailment, neutral, contradiction.
    let labels = ["contradiction", "entailment", "neutral"].map(ToOwned::to_owned);
    for (name, rows) in recorded {
        let kind = if name.ends_with("-choice") {
            HeadKind::Choice
        } else {
            HeadKind::Labels(&labels)
        };
        let read = |folder: &Path| {
            load(&Request {
                name: &folder.to_string_lossy(),
                setting: "--model",
                head: kind,
                new_head: false,
                longest: None,
                seed: Seed(0),
            })
            .expect("loads")
        };
        let model = read(&oracle.join(name));
        let (mut tokens, mut types, mut starts, mut want) = (Vec::new(), Vec::new(), vec![0], Vec::new());
        for row in rows.as_array().expect("rows") {
            let numbers = |key: &str| row[key].as_array().expect("numbers").clone();
            let pair = model
                .tokenizer
                .pair(
                    row["pair"][0].as_str().expect("a text"),
                    row["pair"][1].as_str().expect("a text"),
                )
                .expect("tokens");
            assert_eq!(pair.tokens, numbers("tokens"), "{name}: {}", row["pair"]);
            assert_eq!(pair.types, numbers("types"), "{name}: {}", row["pair"]);
            tokens.extend(pair.tokens);
            types.extend(pair.types);
            starts.push(tokens.len());
            let mut theirs: Vec<f64> = numbers("scores").iter().filter_map(Value::as_f64).collect();
            if kind != HeadKind::Choice {
                theirs.rotate_right(1);
            }
            want.extend(theirs);
        }
        let packed = Packed {
            tokens: &tokens,
            types: &types,
            starts: &starts,
        };
        let ours = scores(&model, packed);
        assert_eq!(ours.len(), want.len());
        for (ours, theirs) in ours.iter().zip(want) {
            assert!(
                (f64::from(*ours) - theirs).abs() < 1e-5,
                "{name}: {ours} against {theirs}"
            );
        }
        // What is saved again scores the same, bit for bit.
        let folder = tempfile::tempdir().expect("a folder");
        ClassifierFiles {
            config: &model.config,
            model: &model.model,
            kind,
            tokenizer_files: &model.tokenizer_files,
        }
        .save(folder.path())
        .expect("saves");
        assert_eq!(scores(&read(folder.path()), packed), ours);
    }
}
