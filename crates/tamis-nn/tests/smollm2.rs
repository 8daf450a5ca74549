//! SmolLM2-135M-Instruct against transformers, PyTorch and peft: logits, losses, and 20 steps of training.
//!
//! `oracle/smollm2.json` is what `experiments/peers/language_model.py oracle` writes, without what its docstring gives a formula for;
//! `oracle/smollm2_chats.jsonl` has beside each conversation what `template` prints of it. The weights are not in the repository:
//! `experiments/smollm2.py` makes their folder, and `TAMIS_SMOLLM2` names it; without it the tests say so and pass.

use std::{io::Write, path::Path};

use serde_json::Value;
use tamis_nn::{
    Seed, Silent,
    decoder::LoraSettings,
    hub::{
        files::ModelFiles,
        language_model::{self, LoadedLanguageModel},
    },
    kernels::packed::ProductDtype,
    train::{Examples, LanguageModel, LanguageModelTrainer, Objective, TokenizedSplit, TrainSettings, Trainer},
};

/// The tokens of each sequence.
const LENGTHS: [usize; 10] = [1, 2, 3, 5, 8, 13, 19, 26, 33, 40];

/// The model; none where it is not there, which is said.
fn smollm2() -> Option<LoadedLanguageModel> {
    let Some(folder) = std::env::var_os("TAMIS_SMOLLM2") else {
        // Past libtest, which keeps what a passing test prints to itself.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: TAMIS_SMOLLM2 does not name the folder of SmolLM2-135M-Instruct"
        );
        return None;
    };
    let files = ModelFiles::Folder(folder.into());
    Some(language_model::load(&files, ProductDtype::Float32, usize::MAX, "").expect("loads"))
}

/// A file that PyTorch or transformers made.
fn recorded(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(name);
    std::fs::read_to_string(path).expect("reads")
}

#[test]
fn conversations_have_the_tokens_of_transformers() {
    let Some(LoadedLanguageModel {
        template, tokenizer, ..
    }) = smollm2()
    else {
        return;
    };
    for line in recorded("smollm2_chats.jsonl").lines() {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let text = template
            .render(list(&row["messages"]), None, false)
            .expect("a conversation");
        let tokens = tokenizer.with_places(&text, false).expect("tokens");
        let theirs: Vec<u32> = serde_json::from_value(row["tokens"].clone()).expect("token ids");
        assert_eq!(
            tokens.into_iter().map(|(id, _)| id).collect::<Vec<_>>(),
            theirs,
            "{line}"
        );
    }
}

#[test]
fn logits_losses_and_training_are_those_of_pytorch() {
    let Some(LoadedLanguageModel { model, .. }) = smollm2() else {
        return;
    };
    let oracle: Value = serde_json::from_str(&recorded("smollm2.json")).expect("JSON");
    let split = sequences();

    let losses = model
        .losses(Examples::new(&split, &split.all()), &Silent)
        .expect("losses");
    for (i, (ours, theirs)) in losses.iter().zip(list(&oracle["sequences"])).enumerate() {
        let theirs = theirs["loss_sum"].as_f64().expect("a number");
        let far = (ours.sum - theirs).abs() / ours.tokens.max(1) as f64;
        assert!(far < 1e-4, "sequence {i}: {} {theirs}", ours.sum);
    }
    logits_agree(&model, list(&oracle["sequences"]), 5e-5, 0);

    let mut adapted = model.clone();
    adapted.adapt(&LoraSettings::default(), Seed(0));
    set_factors(&mut adapted);
    trains_alike(adapted, &oracle["lora"], 2e-4, 2e-4);
    // Steps of all weights make more of what differs by rounding: sequences of two tokens have activations of thousands.
    trains_alike(model, &oracle["full"], 2e-5, 2e-3);
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn tokens_of(k: usize) -> Vec<u32> {
    (0..LENGTHS[k])
        .map(|i| ((7 * i * i + 3 * i + k) % 49152) as u32)
        .collect()
}

/// The recipe's sequences.
fn sequences() -> TokenizedSplit {
    let mut split = TokenizedSplit::new(1);
    for (k, length) in LENGTHS.into_iter().enumerate() {
        let learned = (0..length).map(|i| u8::from(i > 0 && (i + k) % 4 > 0)).collect();
        split.push([(tokens_of(k), learned)], Objective::Response);
    }
    split
}

/// The logits behind the last token of the sequences from `first` on: what each of eight tokens would lose there, told from the sum of all.
fn logits_agree(model: &LanguageModel, recorded: &[Value], tolerance: f64, first: usize) {
    let mut split = TokenizedSplit::new(1);
    for k in 0..LENGTHS.len() {
        let tokens = tokens_of(k);
        let answers = (0..8).map(|token| {
            let mut learned = vec![0; tokens.len()];
            learned.push(1);
            ([&tokens[..], &[token]].concat(), learned)
        });
        split.push(answers, Objective::Class(0));
    }
    for (k, recorded) in recorded.iter().enumerate().skip(first) {
        let log_sum = recorded["log_sum_exp"].as_f64().expect("a number");
        for (token, logit) in list(&recorded["logits"]).iter().enumerate() {
            let mut one = TokenizedSplit::new(1);
            one.push(
                split
                    .sequences_of(k as u32)
                    .map(|(tokens, types)| (tokens.to_vec(), types.to_vec())),
                Objective::Class(token as u32),
            );
            let loss = model.losses(Examples::new(&one, &[0]), &Silent).expect("losses")[0].sum;
            let want = log_sum - logit.as_f64().expect("a number");
            assert!(
                (loss - want).abs() < tolerance * (1.0 + want),
                "sequence {k}, token {token}: {loss} {want}"
            );
        }
    }
}

/// What peft would draw at random, by the recipe's formula.
fn set_factors(model: &mut LanguageModel) {
    let layers = model.lora.as_mut().expect("adapters").layers.iter_mut();
    for (l, layer) in layers.enumerate() {
        for (p, adapter) in layer.iter_mut().flatten().enumerate() {
            let inputs = adapter.a.cols();
            for i in 0..adapter.a.rows() {
                for (j, x) in adapter.a.row_mut(i).iter_mut().enumerate() {
                    let angle = 0.37 * i as f64 + 0.11 * j as f64 + 0.05 * l as f64 + 0.01 * p as f64;
                    *x = (angle.sin() / (inputs as f64).sqrt()) as f32;
                }
            }
        }
    }
}

/// The recipe's 20 steps.
fn trains_alike(mut model: LanguageModel, recorded: &Value, rate: f32, tolerance: f64) {
    let split = sequences();
    let mut trainer = LanguageModelTrainer::new(&model, &TrainSettings::default());
    for (step, want) in list(&recorded["losses"]).iter().enumerate() {
        let rows: Vec<u32> = (0..4).map(|j| ((4 * step + j) % LENGTHS.len()) as u32).collect();
        let rate = rate * (step as f32 / 2.0).min((20 - step) as f32 / 18.0);
        let loss = trainer
            .step(&mut model, Examples::new(&split, &rows), rate, Seed(0))
            .expect("steps");
        let want = want.as_f64().expect("a number");
        assert!((loss - want).abs() < tolerance, "step {step}: {loss} {want}");
    }
    // Behind one or two tokens alone activations are in the thousands, and so is what rounding makes of them.
    logits_agree(&model, list(&recorded["moved"]), 5.0 * tolerance, 3);
}
