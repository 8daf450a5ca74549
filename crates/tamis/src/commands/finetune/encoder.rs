//! The fine-tune of an encoder with a head.

use std::collections::BTreeMap;

use tamis_nn::{
    Silent,
    hub::classifier::{self as model_files, Loaded, Request},
    train::ClassifierTrainer,
};

use crate::{
    Result,
    commands::finetune::{
        evaluation::evaluate,
        material::Material,
        run::{Outcome, claim, finished_or_other},
        training::{epoch_rows, train},
    },
    data::{self, Dataset},
    pipeline::{
        memory::{check_freeze, check_memory, head_kind},
        stages::Stages,
    },
    records::finetune::{FinetuneRecord, Scores, TargetScores},
    settings::finetune::FinetuneSettings,
    target::TargetModel,
};

/// Trains, evaluates and writes an encoder with a head.
pub(super) fn finetune(settings: &FinetuneSettings, dataset: &Dataset, stages: &Stages<'_>) -> Result<FinetuneRecord> {
    let monitor = stages.monitor();
    let mut loaded = load_model(settings, dataset)?;
    check_freeze(settings.train.freeze_layers, loaded.model.freezable_layers())?;
    let material = stages.run("tokenize", None, || Material::of(settings, dataset, &loaded.tokenizer))?;
    check_memory(&loaded.model, &material.train, &settings.train, 1)?;

    let (run, _lock) = claim(settings, dataset, &loaded.fingerprint, &material.rows)?;
    if let Some(record) = finished_or_other(settings, &run)? {
        return Ok(record);
    }
    data::write_rejects(&dataset.rejects, &settings.out)?;
    let sample = epoch_rows(settings, &material.validation.all());
    let trainer = ClassifierTrainer::new(&loaded.model, &settings.train);
    let trained = stages.run("train", Some(settings.train.steps(material.rows.len())), || {
        let score = |model: &_| {
            let examples = material.of_validation(&sample);
            Ok(Scores::Labels(TargetScores::of(model, examples, &Silent)?))
        };
        let model = &mut loaded.model;
        train(settings, &run, material.training(), model, trainer, &score, monitor)
    })?;
    let evaluated = stages.run("evaluate", Some(material.judging()), || {
        evaluate(settings, dataset, &material, &loaded.model, monitor)
    })?;
    if let Some(biases) = &evaluated.added {
        let added = loaded.model.head.scores.bias.iter_mut().zip(biases.as_slice());
        added.for_each(|(bias, by)| *bias += *by as f32);
    }
    save(settings, dataset, &loaded)?;
    let labels = &dataset.task.labels;
    let biases = evaluated.biases.as_ref();
    Outcome {
        run,
        trained,
        rows: material.rows.len(),
        tokens: material.tokens(),
        truncated: material.splits().map(|split| split.truncated).sum(),
        max_length: loaded.tokenizer.longest(),
        untrained: None,
        validation: Scores::Labels(evaluated.validation),
        test: evaluated.test.map(Scores::Labels),
        tests: evaluated
            .tests
            .into_iter()
            .map(|(name, scores)| (name, Scores::Labels(scores)))
            .collect(),
        only_label: evaluated.only_label.map(|label| labels[label as usize].clone()),
        label_biases: biases.map_or_else(BTreeMap::new, |biases| biases.by_label(labels)),
        rejects: &dataset.rejects,
    }
    .file(settings, dataset, stages)
}

fn load_model(settings: &FinetuneSettings, dataset: &Dataset) -> Result<Loaded> {
    Ok(model_files::load(&Request {
        name: &settings.model,
        setting: "model",
        head: head_kind(dataset),
        new_head: settings.new_head,
        longest: Some(settings.train.max_length()),
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
