//! Our training steps against PyTorch's: the losses of 20 steps of all-MiniLM-L6-v2 with a new head, as `oracle/finetune.py` recorded
//! them, from the same weights, without dropout; in 32 bits and in bfloat16.
//!
//! The weights are not in the repository. `TAMIS_MINILM` names their folder; without it the test says so and passes.

use std::{io::Write, path::Path};

use serde::Deserialize;
use tamis_nn::{
    Silent,
    hub::{
        classifier::{HeadKind, Request, load},
        config::DropoutRates,
    },
    kernels::packed::ProductDtype,
    seed::Seed,
    train::{ClassifierTrainer, EncoderClassifier, Examples, Objective, TokenizedSplit, TrainSettings, Trainer},
};

#[derive(Deserialize)]
struct Recorded {
    losses: Vec<f64>,
    bfloat16_losses: Vec<f64>,
    logits: Vec<Vec<f64>>,
}

#[test]
fn twenty_steps_have_the_losses_of_pytorch() {
    let Some(folder) = std::env::var_os("TAMIS_MINILM") else {
        // Past libtest, which keeps what a passing test prints to itself.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: TAMIS_MINILM does not name the folder of all-MiniLM-L6-v2"
        );
        return;
    };
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    let read = |name: &str| std::fs::read_to_string(oracle.join(name)).expect("reads");
    let recorded: Recorded = serde_json::from_str(&read("finetune.json")).expect("JSON");
    let labels: Vec<String> = (0..4).map(|label| label.to_string()).collect();
    let loaded = load(&Request {
        name: &folder.to_string_lossy(),
        setting: "--model",
        head: HeadKind::Labels(&labels),
        new_head: true,
        longest: Some(128),
        seed: Seed(0),
    })
    .expect("loads");
    let mut data = TokenizedSplit::new(4);
    for (i, line) in read("sentences.txt").lines().enumerate() {
        let text = line.replace("\\n", "\n");
        let tokens = loaded.tokenizer.one(&text).expect("tokenizes");
        data.push(
            [(tokens.tokens, tokens.types)],
            Objective::Class(((i * 7 + text.chars().count()) % 4) as u32),
        );
    }
    let mut model = loaded.model;
    model.dropout = DropoutRates {
        hidden: 0.0,
        attention: 0.0,
        classifier: 0.0,
    };
    let hidden = model.encoder.shape.hidden;
    for (k, weight) in model.head.scores.weight.as_mut_slice().iter_mut().enumerate() {
        *weight = (0.05 * ((k / hidden * 384 + k % hidden) as f64).sin()) as f32;
    }
    model.head.scores.bias.fill(0.0);

    let steps = |model: &mut EncoderClassifier, dtype: ProductDtype| -> Vec<f64> {
        let settings = TrainSettings {
            dtype,
            ..TrainSettings::default()
        };
        let mut trainer = ClassifierTrainer::new(model, &settings);
        let mut step = |t: usize| {
            let rows: Vec<u32> = (0..16).map(|j| ((16 * t + j) % 200) as u32).collect();
            trainer.step(model, Examples::new(&data, &rows), 1e-4, Seed(0))
        };
        (0..recorded.losses.len()).map(|t| step(t).expect("trains")).collect()
    };
    let in_bfloat16 = steps(&mut model.clone(), ProductDtype::Bfloat16);
    let losses = steps(&mut model, ProductDtype::Float32);
    for (t, (loss, want)) in losses.iter().zip(&recorded.losses).enumerate() {
        assert!((loss - want).abs() < 1e-4, "step {t}: {loss:.6} and PyTorch {want:.6}");
    }
    // In bfloat16 the losses are off by no more than PyTorch's.
    let furthest = |others: &[f64]| {
        let gaps = recorded
            .losses
            .iter()
            .zip(others)
            .map(|(loss, other)| (loss - other).abs());
        gaps.fold(0.0, f64::max)
    };
    let (ours, theirs) = (furthest(&in_bfloat16), furthest(&recorded.bfloat16_losses));
    assert!(
        0.0 < ours && ours <= theirs && losses != in_bfloat16,
        "{ours} and PyTorch {theirs}"
    );
    println!("step, in 32 bits, PyTorch, in bfloat16, PyTorch");
    for (t, loss) in losses.iter().enumerate() {
        let (in_bfloat16, of_pytorch) = (in_bfloat16[t], recorded.bfloat16_losses[t]);
        println!(
            "{t} {loss:.5} {:.5} {in_bfloat16:.5} {of_pytorch:.5}",
            recorded.losses[t]
        );
    }
    let probabilities = model
        .predict(Examples::new(&data, &[0, 1, 2, 3]), &Silent)
        .expect("predicts");
    for (row, logits) in probabilities.iter_rows().zip(&recorded.logits) {
        let sum: f64 = logits.iter().map(|z| z.exp()).sum();
        for (p, z) in row.iter().zip(logits) {
            assert!(
                (f64::from(*p) - z.exp() / sum).abs() < 1e-3,
                "{row:?} and PyTorch {logits:?}"
            );
        }
    }
}
