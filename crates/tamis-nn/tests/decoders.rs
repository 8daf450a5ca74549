//! Tiny decoders of each family against transformers, their gradients against finite differences, and what training must not change.
//!
//! `oracle/decoders.py` made the models and recorded what transformers makes of them.

use std::path::Path;

use serde_json::Value;
use tamis_nn::{
    Error, Fingerprint, Seed, Silent,
    decoder::{GradientSketch, LoraSettings, Projection, SketchSettings},
    hub::{
        files::ModelFiles,
        language_model::{LanguageModelFiles, LoadedLanguageModel, load},
    },
    kernels::packed::ProductDtype,
    train::{
        Examples, LanguageModel, LanguageModelTrainer, Objective, TokenizedSplit, TrainSettings, Trainer, checkpoint,
        train,
    },
};

const FAMILIES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

fn loaded(folder: &Path) -> LoadedLanguageModel {
    load(
        &ModelFiles::Folder(folder.to_path_buf()),
        ProductDtype::Float32,
        usize::MAX,
        "",
    )
    .expect("loads")
}

fn tiny(family: &str) -> LoadedLanguageModel {
    loaded(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/oracle/decoders")
            .join(family),
    )
}

/// Sequences of which some tokens are learned.
fn sequences(lengths: &[usize]) -> TokenizedSplit {
    let mut split = TokenizedSplit::new(1);
    for (k, &length) in lengths.iter().enumerate() {
        let tokens = (0..length)
            .map(|i| ((7 * i * i + 3 * i + 11 * k) % 260) as u32)
            .collect();
        let learned = (0..length).map(|i| u8::from(i > 0 && (i + k) % 3 > 0)).collect();
        split.push([(tokens, learned)], Objective::Response);
    }
    split
}

fn loss(model: &LanguageModel, split: &TokenizedSplit) -> f64 {
    let losses = model
        .losses(Examples::new(split, &split.all()), &Silent)
        .expect("losses");
    losses.iter().map(|loss| loss.sum).sum()
}

#[test]
fn losses_of_every_family_are_those_of_transformers() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/decoders.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(recorded).expect("reads")).expect("JSON");
    for family in FAMILIES {
        let model = tiny(family).model;
        let tokens: Vec<u32> = (0..30).map(|i| (7 * i * i + 3 * i) % 260).collect();
        let wanted = recorded[family].as_array().expect("a list");
        for (i, want) in (1..30).zip(wanted) {
            let mut learned = vec![0; 30];
            learned[i] = 1;
            let mut split = TokenizedSplit::new(1);
            split.push([(tokens.clone(), learned)], Objective::Response);
            let (loss, want) = (loss(&model, &split), want.as_f64().expect("a number"));
            assert!((loss - want).abs() < 1e-4, "{family}, token {i}: {loss} {want}");
        }
    }
}

#[test]
fn rows_do_not_see_one_another_and_answers_share_their_prompt() {
    for family in FAMILIES {
        let model = tiny(family).model;
        let split = sequences(&[20, 7, 90]);
        let together = loss(&model, &split);
        let apart: f64 = split
            .all()
            .iter()
            .map(|&row| model.losses(Examples::new(&split, &[row]), &Silent).expect("losses")[0].sum)
            .sum();
        assert!((together - apart).abs() < 1e-4, "{family}: {together} {apart}");

        // One prompt of twelve tokens, three answers: two with a common beginning, one that is longer.
        let prompt: Vec<u32> = (0..12).map(|i| (i * 31 + 5) % 260).collect();
        let answers: [&[u32]; 3] = [&[9, 4, 3], &[9, 8, 3], &[7, 7, 7, 7, 3]];
        let mut questions = TokenizedSplit::new(1);
        let sequence = |answer: &[u32]| {
            (
                [&prompt, answer].concat(),
                [vec![0; 12], vec![1; answer.len()]].concat(),
            )
        };
        questions.push(answers.map(sequence), Objective::Class(1));
        let probabilities = model
            .predict(Examples::new(&questions, &[0]), &Silent)
            .expect("predicts");
        let likelihoods: Vec<f64> = answers
            .iter()
            .map(|answer| {
                let mut one = TokenizedSplit::new(1);
                one.push([sequence(answer)], Objective::Response);
                (-loss(&model, &one)).exp()
            })
            .collect();
        let all: f64 = likelihoods.iter().sum();
        for (share, likelihood) in probabilities.row(0).iter().zip(&likelihoods) {
            let want = likelihood / all;
            assert!((f64::from(*share) - want).abs() < 1e-4, "{family}: {share} {want}");
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let split = sequences(&[9, 14]);
    let rows = split.all();
    for family in FAMILIES {
        for adapters in [false, true] {
            let mut model = tiny(family).model;
            if adapters {
                let settings = LoraSettings {
                    rank: 2,
                    ..LoraSettings::default()
                };
                model.adapt(&settings, Seed(1));
                // B begins at zero, where A has no gradient.
                for adapter in model
                    .lora
                    .iter_mut()
                    .flat_map(|lora| &mut lora.layers)
                    .flatten()
                    .flatten()
                {
                    let b = adapter.b.as_mut_slice().iter_mut().enumerate();
                    b.for_each(|(i, x)| *x = 0.1 * (i as f32 * 1.7).sin());
                }
            }
            let trainer = LanguageModelTrainer::new(&model, &TrainSettings::default());
            let gradient = trainer.gradient(&model, Examples::new(&split, &rows));
            let tokens: u64 = model
                .losses(Examples::new(&split, &rows), &Silent)
                .expect("losses")
                .iter()
                .map(|loss| loss.tokens)
                .sum();
            for (t, (name, slopes)) in gradient.iter().enumerate() {
                for i in (0..slopes.len()).step_by(slopes.len().div_ceil(3)) {
                    let along = |by: f32| {
                        let mut moved = model.clone();
                        trainer.trained(&mut moved)[t].1[i] += by;
                        loss(&moved, &split) / tokens as f64
                    };
                    let numeric = (along(1e-3) - along(-1e-3)) / 2e-3;
                    let analytic = f64::from(slopes[i]);
                    assert!(
                        (analytic - numeric).abs() < 2e-2 * (0.02 + numeric.abs()),
                        "{family}, {name}, {i}: {analytic} {numeric}"
                    );
                }
            }
        }
    }
}

#[test]
fn sketches_are_those_of_the_gradients_of_single_rows() {
    let split = sequences(&[9, 14, 5]);
    let settings = SketchSettings {
        layers: 1,
        side: 3,
        target_modules: vec![Projection::Query, Projection::Value, Projection::Up, Projection::Down],
    };
    for family in FAMILIES {
        let model = tiny(family).model;
        let layers = model.weights().layers.len();
        let sketch = GradientSketch::new(&model.weights().shape, layers, &settings, Seed(5));
        assert_eq!(sketch.width(), 4 * 9);
        let all = model
            .gradients(Examples::new(&split, &split.all()), &sketch, &Silent)
            .expect("gradients");
        let losses = model
            .losses(Examples::new(&split, &split.all()), &Silent)
            .expect("losses");
        assert_eq!(all.losses, losses);
        let trainer = LanguageModelTrainer::new(&model, &TrainSettings::default());
        for row in split.all() {
            let mean = trainer.gradient(&model, Examples::new(&split, &[row]));
            let tokens = losses[row as usize].tokens as f32;
            for &projection in &settings.target_modules {
                let name = format!("model.layers.{}.{}.weight", layers - 1, projection.path());
                let (_, slopes) = mean.iter().find(|(of, _)| *of == name).expect("a gradient");
                let sides = sketch.sides(layers - 1, projection).expect("sketched");
                for (i, a) in sides.a.iter_rows().enumerate() {
                    for (j, b) in sides.b.iter_rows().enumerate() {
                        let row_of = slopes.chunks_exact(b.len()).zip(a);
                        let sum: f32 = row_of
                            .map(|(slopes, a)| a * slopes.iter().zip(b).map(|(x, b)| x * b).sum::<f32>())
                            .sum();
                        let ours = all.sketches.row(row as usize)[sides.at + 3 * i + j];
                        assert!(
                            (ours - tokens * sum).abs() < 1e-4 * (1.0 + sum.abs() * tokens),
                            "{family}, row {row}, {name}, {i}, {j}: {ours} {}",
                            tokens * sum
                        );
                    }
                }
            }
        }
    }
}

fn trained(model: &mut LanguageModel, settings: &TrainSettings, threads: usize) -> f64 {
    let split = sequences(&[30, 12, 25, 40, 8, 19]);
    let rows = split.all();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("a pool");
    pool.install(|| {
        let mut trainer = LanguageModelTrainer::new(model, settings);
        let examples = Examples::new(&split, &rows);
        train::<_, Error>(model, &mut trainer, examples, Seed(3), &mut |_, _, _| Ok(())).expect("trains");
        loss(model, &split)
    })
}

#[test]
fn it_learns_the_same_way_with_any_number_of_threads_and_passes() {
    for dtype in [ProductDtype::Float32, ProductDtype::Bfloat16] {
        for adapters in [true, false] {
            let settings = TrainSettings {
                epochs: 20,
                batch_size: 3,
                learning_rate: Some(if adapters { 0.02 } else { 0.01 }),
                ..TrainSettings::default()
            };
            let start = || {
                let mut model = tiny("qwen3").model;
                model.dtype = dtype;
                let lora = LoraSettings {
                    dropout: 0.1,
                    ..LoraSettings::default()
                };
                if adapters {
                    model.adapt(&lora, Seed(1));
                }
                model
            };
            let before = loss(&start(), &sequences(&[30, 12, 25, 40, 8, 19]));
            let (mut one, mut three) = (start(), start());
            let (after, again) = (trained(&mut one, &settings, 1), trained(&mut three, &settings, 3));
            assert!(
                after < 0.6 * before,
                "{dtype}, adapters {adapters}: {before} to {after}"
            );
            assert_eq!(after, again, "another number of threads");
        }
    }
}

#[test]
fn copies_with_adapters_share_the_weights_in_memory() {
    let mut model = tiny("llama").model;
    let whole = [1, 2, 3].map(|copies| model.training_bytes(64, copies));
    assert_eq!(whole, [whole[0], 2 * whole[0], 3 * whole[0]]);
    model.adapt(&LoraSettings::default(), Seed(1));
    let [one, two, three] = [1, 2, 3].map(|copies| model.training_bytes(64, copies));
    assert_eq!(three - two, two - one);
    assert!(two - one < one);
}

#[test]
fn a_run_that_goes_on_ends_with_the_same_weights() {
    let split = sequences(&[30, 12, 25, 40]);
    let rows = split.all();
    let folder = tempfile::tempdir().expect("a folder");
    let (path, run) = (folder.path().join("checkpoint.safetensors"), Fingerprint::of(["run"]));
    for adapters in [true, false] {
        let settings = TrainSettings {
            epochs: 2,
            batch_size: 2,
            ..TrainSettings::default()
        };
        let start = || {
            let mut model = tiny("llama").model;
            if adapters {
                model.adapt(&LoraSettings::default(), Seed(1));
            }
            model
        };
        let train_on = |model: &mut LanguageModel, trainer: &mut LanguageModelTrainer, save_at: u64| {
            train::<_, Error>(
                model,
                trainer,
                Examples::new(&split, &rows),
                Seed(1),
                &mut |step, model, trainer| {
                    if step.step == save_at {
                        checkpoint::save(&path, &run, &1.5, model, trainer)?;
                    }
                    Ok(())
                },
            )
            .expect("trains");
        };
        let (mut whole, mut resumed) = (start(), start());
        let mut trainer = LanguageModelTrainer::new(&whole, &settings);
        train_on(&mut whole, &mut trainer, 3);
        let mut trainer = LanguageModelTrainer::new(&resumed, &settings);
        let told: Option<f64> = checkpoint::load(&path, &run, &mut resumed, &mut trainer).expect("loads");
        assert_eq!((told, trainer.optimiser().steps()), (Some(1.5), 3));
        train_on(&mut resumed, &mut trainer, u64::MAX);
        assert_eq!(whole.lora, resumed.lora);
        assert!(whole.weights() == resumed.weights());
    }
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    for family in FAMILIES {
        let mut loaded_model = tiny(family);
        loaded_model.model.adapt(&LoraSettings::default(), Seed(1));
        let settings = TrainSettings {
            epochs: 2,
            ..TrainSettings::default()
        };
        let after = trained(&mut loaded_model.model, &settings, 2);
        let files = LanguageModelFiles {
            config: &loaded_model.config,
            tokenizer_files: &loaded_model.tokenizer_files,
        };
        let (adapters, whole) = (
            folder.path().join(family).join("a"),
            folder.path().join(family).join("m"),
        );
        let lora = loaded_model.model.lora.as_mut().expect("adapters");
        files.save_adapters(lora, "base", &adapters).expect("saves");
        loaded_model.model.merge();
        files
            .save_model(loaded_model.model.weights_mut(), &whole)
            .expect("saves");
        let merged = loss(&loaded(&whole).model, &sequences(&[30, 12, 25, 40, 8, 19]));
        assert!((merged - after).abs() < 1e-3, "{family}: {merged} {after}");
        let config = std::fs::read_to_string(adapters.join("adapter_config.json")).expect("reads");
        assert!(
            config.contains(r#""peft_type": "LORA""#) && config.contains("gate_proj"),
            "{config}"
        );
        for file in ["adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            assert!(adapters.join(file).exists(), "{file}");
        }
    }
}
