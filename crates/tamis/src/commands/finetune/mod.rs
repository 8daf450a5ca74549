//! `finetune`: the target trained on a selection or on everything, evaluated, and written as a folder that transformers loads.

mod chosen;
mod evaluation;
mod material;
mod training;

use std::{collections::BTreeMap, path::Path};

use tamis_nn::{
    Fingerprint, Monitor,
    hub::classifier::{self as model_files, Loaded, Request},
};

use crate::{
    Result,
    commands::finetune::{
        evaluation::{Evaluated, evaluate},
        material::Material,
        training::{CHECKPOINT, Trained, clean, other_run, train},
    },
    data::{self, Dataset},
    pipeline::{
        memory::{check_freeze, check_memory, head_kind},
        stages::Stages,
    },
    records::{
        finetune::FinetuneRecord,
        selection::{ReadRecord, VERSION},
    },
    settings::finetune::FinetuneSettings,
    target::TargetModel,
    workspace::{folder, json},
};

pub use chosen::selection_data;

/// Trains the target, evaluates it and writes it. The same call goes on after a kill and ends with the same weights.
///
/// # Errors
///
/// If the data, the model, the settings or the folder are not as they must be, a pass does not fit in memory, a loss is not finite,
/// a file cannot be written, or the user stopped the run.
pub fn finetune(settings: &FinetuneSettings, monitor: &dyn Monitor) -> Result<FinetuneRecord> {
    settings.check()?;
    let stages = Stages::new(monitor);
    let dataset = stages.run("read", None, || data::read_with_responses(&settings.data, monitor))?;
    settings.check_against(&dataset)?;
    let mut loaded = load_model(settings, &dataset)?;
    check_freeze(settings.train.freeze_layers, loaded.model.layers())?;
    let material = stages.run("tokenize", None, || Material::of(settings, &dataset, &loaded.tokenizer))?;
    check_memory(&loaded.model, &material.train, &settings.train, 1)?;

    let run = claim(settings, &dataset, &loaded, &material)?;
    if let Some(record) = finished(&settings.out) {
        clean(&settings.out)?;
        return if record.fingerprint == run {
            Ok(record)
        } else {
            Err(other_run(&settings.out))
        };
    }
    data::write_rejects(&dataset.rejects, &settings.out)?;
    let trained = stages.run("train", Some(settings.train.steps(material.rows.len())), || {
        train(settings, &run, &material, &mut loaded.model, monitor)
    })?;
    let evaluated = stages.run("evaluate", Some(material.judging()), || {
        evaluate(settings, &dataset, &material, &loaded.model, monitor)
    })?;
    if let Some(biases) = &evaluated.added {
        let added = loaded.model.head.scores.bias.iter_mut().zip(biases.as_slice());
        added.for_each(|(bias, by)| *bias += *by as f32);
    }
    save(settings, &dataset, &loaded)?;
    let outcome = Outcome {
        run,
        trained,
        evaluated,
        max_length: loaded.tokenizer.longest(),
        peak_bytes: stages.records().iter().filter_map(|stage| stage.peak_bytes).max(),
    };
    let record = outcome.record(settings, &dataset, &material);
    json::write_json(&settings.out.join("metrics.json"), &record)?;
    clean(&settings.out)?;
    Ok(record)
}

/// Takes the folder for this run, which the fingerprint tells from runs with the same settings on other contents.
fn claim(settings: &FinetuneSettings, dataset: &Dataset, loaded: &Loaded, material: &Material) -> Result<Fingerprint> {
    let what_matters = json::without(settings, &["out", "frozen_memory"])?;
    let what_matters = folder::claim(&settings.out, &what_matters)?;
    let rows: Vec<u8> = material.rows.iter().flat_map(|row| row.to_le_bytes()).collect();
    Ok(Fingerprint::of([
        loaded.fingerprint.as_ref(),
        dataset.fingerprint.as_ref(),
        what_matters.to_string().as_bytes(),
        &rows,
    ]))
}

/// What came of a run.
struct Outcome {
    run: Fingerprint,
    trained: Trained,
    evaluated: Evaluated,
    max_length: usize,
    peak_bytes: Option<u64>,
}

impl Outcome {
    /// What was trained, how well it does, and what it cost.
    fn record(self, settings: &FinetuneSettings, dataset: &Dataset, material: &Material) -> FinetuneRecord {
        let Self { trained, evaluated, .. } = self;
        let labels = &dataset.task.labels;
        let seconds = trained.progress.seconds;
        let per_second = |count: usize| count as f64 * f64::from(settings.train.epochs) / seconds.max(1e-9);
        let biases = evaluated.biases.as_ref();
        FinetuneRecord {
            version: VERSION,
            tamis: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: self.run,
            seed: settings.seed.0,
            read: Some(ReadRecord::of(dataset)),
            rows: material.rows.len() as u64,
            steps: settings.train.steps(material.rows.len()),
            truncated: material.splits().map(|split| split.truncated).sum(),
            max_length: self.max_length,
            epochs: trained.progress.epochs,
            kept_epoch: trained.kept,
            validation: evaluated.validation,
            test: evaluated.test,
            tests: evaluated.tests,
            only_label: evaluated.only_label.map(|label| labels[label as usize].clone()),
            label_biases: biases.map_or_else(BTreeMap::new, |biases| biases.by_label(labels)),
            train_seconds: seconds,
            rows_per_second: per_second(material.rows.len()),
            tokens_per_second: per_second(material.tokens()),
            peak_bytes: self.peak_bytes,
            settings: serde_json::to_value(settings).unwrap_or_default(),
        }
    }
}

fn load_model(settings: &FinetuneSettings, dataset: &Dataset) -> Result<Loaded> {
    Ok(model_files::load(&Request {
        name: &settings.model,
        setting: "model",
        head: head_kind(dataset),
        new_head: settings.new_head,
        longest: Some(settings.train.max_length),
        seed: settings.seed.derive("head"),
    })?)
}

fn save(settings: &FinetuneSettings, dataset: &Dataset, loaded: &Loaded) -> Result<()> {
    let files = model_files::ClassifierFiles {
        config: &loaded.config,
        model: &loaded.model,
        kind: head_kind(dataset),
        tokenizer_files: &loaded.tokenizer_files,
    };
    Ok(files.save(&settings.out)?)
}

/// The record of a run that is finished already.
fn finished(out: &Path) -> Option<FinetuneRecord> {
    let there = out.join("model.safetensors").exists() && !out.join(CHECKPOINT).exists();
    let text = there.then(|| std::fs::read_to_string(out.join("metrics.json")).ok());
    serde_json::from_str(&text.flatten()?).ok()
}
