//! The fine-tune of a language model: of adapters, or of all its weights.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use tamis_nn::{
    Matrix, Monitor, Silent,
    hub::{
        chat_template::PromptTemplate,
        files::ModelFiles,
        language_model::{LanguageModelFiles, LoadedLanguageModel, load, loading_bytes},
    },
    train::{Examples, LanguageModel, LanguageModelTrainer, ResponseLoss, TokenizedSplit, TrainSettings},
};

use crate::{
    Result,
    commands::finetune::{
        run::{Outcome, claim, finished_or_other, rows_of},
        training::{epoch_rows, train},
    },
    data::{self, Dataset, LeakPolicy, Reject, RowId, Split, TaskKind},
    pipeline::{
        memory::{check_loading, check_memory_of},
        stages::Stages,
    },
    records::finetune::{FinetuneRecord, ResponseScores, Scores, TargetScores},
    settings::finetune::FinetuneSettings,
    target::responses::{Answers, EncodedResponses, ResponseEncoder, answers_of, has_answers},
};

/// Trains, evaluates and writes a language model.
pub(super) fn finetune(
    settings: &FinetuneSettings,
    files: &ModelFiles,
    dataset: &Dataset,
    stages: &Stages<'_>,
) -> Result<FinetuneRecord> {
    let monitor = stages.monitor();
    let own = &settings.language_model;
    let resolved = FinetuneSettings {
        train: TrainSettings {
            learning_rate: settings.train.learning_rate.or(Some(own.learning_rate())),
            max_length: settings.train.max_length.or(Some(1024)),
            ..settings.train.clone()
        },
        ..settings.clone()
    };
    let settings = &resolved;
    let mut loaded = stages.run("load", None, || load_model(settings, files))?;
    let material = stages.run("tokenize", None, || Material::of(settings, dataset, &loaded))?;
    let model = &mut loaded.model;
    if !own.full {
        model.adapt(&own.lora, settings.seed.derive("adapters"));
    }
    check_memory_of(
        &|tokens| model.training_bytes(tokens, 1),
        &material.train,
        &settings.train,
        own.full,
    )?;

    let (run, _lock) = claim(settings, dataset, &loaded.fingerprint, &material.chosen)?;
    if let Some(record) = finished_or_other(settings, &run)? {
        return Ok(record);
    }
    data::write_rejects(&material.rejects, &settings.out)?;
    let model = &mut loaded.model;
    // Before any step: what the same model scores that was not trained.
    let untrained = stages.run("evaluate", Some(material.test_rows.len() as u64), || {
        let test = material.test.as_ref();
        test.map(|test| material.score(model, test, &material.test_rows, monitor))
            .transpose()
    })?;
    let sample = epoch_rows(settings, &material.validation_rows);
    let trainer = LanguageModelTrainer::new(model, &settings.train);
    let trained = stages.run("train", Some(settings.train.steps(material.rows.len())), || {
        let score = |model: &LanguageModel| material.score(model, &material.validation, &sample, &Silent);
        let examples = Examples::new(&material.train, &material.rows);
        train(settings, &run, examples, model, trainer, &score, monitor)
    })?;
    let judging = (material.validation_rows.len() + material.test_rows.len()) as u64;
    let (validation, test, tests) =
        stages.run("evaluate", Some(judging), || material.evaluate(model, dataset, monitor))?;
    save(settings, &mut loaded)?;
    Outcome {
        run,
        trained,
        rows: material.rows.len(),
        tokens: material.rows.iter().map(|&row| material.train.tokens_of(row)).sum(),
        truncated: material.splits().map(|split| split.truncated).sum(),
        max_length: loaded.tokenizer.longest(),
        untrained,
        validation,
        test,
        tests,
        only_label: None,
        label_biases: BTreeMap::new(),
        rejects: &material.rejects,
    }
    .file(settings, dataset, stages)
}

/// What is trained and judged on, as tokens.
struct Material {
    /// The training rows, and behind them the validation rows, where they are trained on, too.
    train: TokenizedSplit,
    validation: TokenizedSplit,
    test: Option<TokenizedSplit>,
    /// Those of `train` that are trained on.
    rows: Vec<u32>,
    /// The training rows that were asked for.
    chosen: Vec<RowId>,
    validation_rows: Vec<u32>,
    test_rows: Vec<u32>,
    /// Whether rows have answers to choose from, and whether their responses are what they are scored by.
    answers: bool,
    responses: bool,
    /// Rows that could not be read, or that the model cannot learn from.
    rejects: Vec<Reject>,
}

impl Material {
    fn of(settings: &FinetuneSettings, dataset: &Dataset, loaded: &LoadedLanguageModel) -> Result<Self> {
        let prompt = settings
            .language_model
            .template
            .as_deref()
            .map(PromptTemplate::read)
            .transpose()?;
        let answers = if dataset.task.kind == TaskKind::Response {
            answers_of(&dataset.train.examples, &dataset.pool)
        } else {
            Vec::new()
        };
        let encoder = |answers| ResponseEncoder {
            template: &loaded.template,
            tokenizer: &loaded.tokenizer,
            prompt: prompt.as_ref(),
            task: &dataset.task,
            answers,
        };
        // Responses that training rows do not have are no answers among which one could be right.
        let known: HashSet<&str> = answers.iter().map(String::as_str).collect();
        let judged = [Some(&dataset.validation), dataset.test.as_ref()].into_iter().flatten();
        let all_known = judged
            .clone()
            .flat_map(|split| &split.examples)
            .all(|example| match &example.input {
                data::Input::Response { response, chat, .. } => chat.is_none() && known.contains(&**response),
                _ => true,
            });
        let answers = if all_known { answers } else { Vec::new() };
        let encoder = encoder(&answers);
        let judge = if has_answers(&dataset.task, &answers) {
            Answers::All
        } else {
            Answers::Right
        };
        let count = |row: RowId| encoder.tokens(&dataset.train.examples[row as usize]);
        let chosen = rows_of(settings, dataset, &count)?;
        let of_split = |split: &Split| {
            let all: Vec<u32> = (0..split.examples.len() as u32).collect();
            encoder.encode(split, &all, judge)
        };
        let mut train = encoder.encode(&dataset.train, &chosen, Answers::Right)?;
        let validation = of_split(&dataset.validation)?;
        let test = dataset.test.as_ref().map(of_split).transpose()?;
        let encoded = [Some(&train), Some(&validation), test.as_ref()].into_iter().flatten();
        let bad = encoded.flat_map(|encoded| encoded.bad.iter().map(|(_, reject)| reject.clone()));
        let rejects: Vec<Reject> = dataset.rejects.iter().cloned().chain(bad).collect();
        data::check_rejects(&rejects, dataset, settings.data.max_bad)?;

        let mut rows = good_rows(&train);
        let validation_rows = good_rows(&validation);
        if settings.with_validation {
            let own = train.split.len() as RowId;
            train.split.append(&validation.split);
            let kept = settings.data.leaks != LeakPolicy::Drop;
            let judges = |row: &&RowId| kept || dataset.in_test.binary_search(row).is_err();
            rows.extend(validation_rows.iter().filter(judges).map(|row| own + row));
        }
        let test_rows = test.as_ref().map(good_rows).unwrap_or_default();
        let splits = [(&dataset.train, &rows), (&dataset.validation, &validation_rows)];
        if let Some((split, _)) = splits.into_iter().find(|(_, rows)| rows.is_empty()) {
            let files: Vec<&Path> = split.files.iter().map(|file| &*file.path).collect();
            return Err(data::none_readable(&files, &rejects));
        }
        Ok(Self {
            train: train.split,
            validation: validation.split,
            test: test.map(|test| test.split),
            rows,
            chosen,
            validation_rows,
            test_rows,
            answers: judge == Answers::All,
            responses: dataset.task.kind == TaskKind::Response,
            rejects,
        })
    }

    fn splits(&self) -> impl Iterator<Item = &TokenizedSplit> {
        [&self.train, &self.validation].into_iter().chain(&self.test)
    }

    /// What a model makes of some rows. Advances `monitor` by one a row.
    fn predict(
        &self,
        model: &LanguageModel,
        split: &TokenizedSplit,
        rows: &[u32],
        monitor: &dyn Monitor,
    ) -> Result<Predictions> {
        let examples = Examples::new(split, rows);
        let answers = if self.answers {
            Some((model.predict(examples, monitor)?, examples.classes()))
        } else {
            None
        };
        let losses = if self.responses {
            let monitor = if self.answers { &Silent } else { monitor };
            Some(model.losses(examples, monitor)?)
        } else {
            None
        };
        Ok(Predictions { answers, losses })
    }

    /// A model's scores on some rows. Advances `monitor` by one a row.
    fn score(
        &self,
        model: &LanguageModel,
        split: &TokenizedSplit,
        rows: &[u32],
        monitor: &dyn Monitor,
    ) -> Result<Scores> {
        let predictions = self.predict(model, split, rows, monitor)?;
        Ok(predictions.scores(&(0..rows.len() as u32).collect::<Vec<_>>()))
    }

    /// On validation rows, test rows, and those of each test file.
    fn evaluate(
        &self,
        model: &LanguageModel,
        dataset: &Dataset,
        monitor: &dyn Monitor,
    ) -> Result<(Scores, Option<Scores>, BTreeMap<String, Scores>)> {
        let validation = self.score(model, &self.validation, &self.validation_rows, monitor)?;
        let (Some(test), Some(split)) = (&self.test, &dataset.test) else {
            return Ok((validation, None, BTreeMap::new()));
        };
        let predictions = self.predict(model, test, &self.test_rows, monitor)?;
        let place_of = |row: u32| self.test_rows.binary_search(&row).ok().map(|place| place as u32);
        let of_file = |rows: Vec<u32>| predictions.scores(&rows.into_iter().filter_map(place_of).collect::<Vec<_>>());
        let files = split.by_file();
        let tests = if files.len() > 1 {
            files.into_iter().map(|(name, rows)| (name, of_file(rows))).collect()
        } else {
            BTreeMap::new()
        };
        let all: Vec<u32> = (0..self.test_rows.len() as u32).collect();
        Ok((validation, Some(predictions.scores(&all)), tests))
    }
}

/// What a model makes of some rows.
struct Predictions {
    /// The probabilities of their answers and the right ones, where they have answers to choose from.
    answers: Option<(Matrix, Vec<u32>)>,
    /// What their responses lose, where they have responses.
    losses: Option<Vec<ResponseLoss>>,
}

impl Predictions {
    /// The scores on some of them.
    fn scores(&self, rows: &[u32]) -> Scores {
        let answers = self.answers.as_ref().map(|(probabilities, classes)| {
            let classes: Vec<u32> = rows.iter().map(|&row| classes[row as usize]).collect();
            TargetScores::of_predictions(&probabilities.gather(rows), &classes)
        });
        match (answers, &self.losses) {
            (Some(scores), None) => Scores::Labels(scores),
            (answers, losses) => {
                let of = |&row: &u32| {
                    losses
                        .as_ref()
                        .map_or_else(Default::default, |losses| losses[row as usize])
                };
                Scores::Responses(ResponseScores::of(&rows.iter().map(of).collect::<Vec<_>>(), answers))
            }
        }
    }
}

/// The rows that the model can read.
fn good_rows(encoded: &EncodedResponses) -> Vec<u32> {
    let bad: HashSet<u32> = encoded.bad.iter().map(|(row, _)| *row).collect();
    (0..encoded.split.len() as u32)
        .filter(|row| !bad.contains(row))
        .collect()
}

fn load_model(settings: &FinetuneSettings, files: &ModelFiles) -> Result<LoadedLanguageModel> {
    let way_out = "name a model of one of these kinds with `model`";
    check_loading(loading_bytes(files, way_out)?)?;
    Ok(load(files, settings.train.dtype, settings.train.max_length(), way_out)?)
}

/// Writes adapters, or the whole model where its weights are trained or adapters are to be merged into them.
fn save(settings: &FinetuneSettings, loaded: &mut LoadedLanguageModel) -> Result<()> {
    let files = LanguageModelFiles {
        config: &loaded.config,
        tokenizer_files: &loaded.tokenizer_files,
    };
    let model = &mut loaded.model;
    if settings.language_model.merge {
        model.merge();
    }
    match &mut model.lora {
        Some(lora) => {
            let folder = Path::new(&settings.model).canonicalize().ok();
            let base = folder.map_or_else(|| settings.model.clone(), |folder| folder.display().to_string());
            files.save_adapters(lora, &base, &settings.out)?;
        }
        None => files.save_model(model.weights_mut(), &settings.out)?,
    }
    Ok(())
}
