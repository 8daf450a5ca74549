//! `finetune`: the target trained on a selection or on everything, evaluated, and written as a folder that transformers loads.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::{
    folder,
    judge::{limit_of, random_rows},
    record::VERSION,
    stages::{Stages, bytes_in},
};
use crate::{
    Error, Fingerprint, Matrix, Monitor, Place, Result,
    budget::{Budget, Limit},
    data::{self, DataSettings, Dataset, RowId, Split, TaskKind},
    finetune::{Beneath, Classifier, Encoded, TrainSettings, Trainer, checkpoint, encode, fit},
    metric::{LabelBiases, Metric, MetricKind},
    model::{
        classifier::{self as model_files, HeadKind, Loaded, Request},
        config::Config,
        files::TokenizerFiles,
    },
    seed::Seed,
};

/// What the checkpoint of a run is called.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// Seconds between checkpoints.
const CHECKPOINT_SECONDS: f64 = 60.0;

/// The settings of one fine-tune of the target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FinetuneSettings {
    /// The files.
    pub data: DataSettings,
    /// The folder of a `select` run whose chosen rows are trained on; none: all rows of the training files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<PathBuf>,
    /// How much of the pool is trained on, drawn at random: the control of a selection. Default (none): all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Budget>,
    /// Whether the validation rows are trained on, too. Default: false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub with_validation: bool,
    /// The folder or hub id of a BERT-family model.
    pub model: String,
    /// Whether a head that the model has is replaced by a new one.
    pub new_head: bool,
    /// How it is trained.
    pub train: TrainSettings,
    /// How many validation rows are scored after every epoch. Default: 1000.
    pub epoch_rows: usize,
    /// The most bytes that the output of frozen layers may take in memory. Default: 1 GiB.
    pub frozen_memory: u64,
    /// The source of all randomness. Default: 0.
    pub seed: Seed,
    /// Where the model is written. Default: `runs/finetune`.
    pub out: PathBuf,
}

impl Default for FinetuneSettings {
    fn default() -> Self {
        Self {
            data: DataSettings::default(),
            selection: None,
            sample: None,
            with_validation: false,
            model: String::new(),
            new_head: false,
            train: TrainSettings::default(),
            epoch_rows: 1000,
            frozen_memory: 1 << 30,
            seed: Seed(0),
            out: PathBuf::from("runs/finetune"),
        }
    }
}

/// `metrics.json`: what was trained, how well it does, and what it cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FinetuneRecord {
    /// The format's version.
    pub version: u32,
    /// The program's version.
    pub tamis: String,
    /// Of the data, the model and the settings: a run is gone on with only where all are the same.
    pub fingerprint: Fingerprint,
    /// The source of all randomness.
    pub seed: u64,
    /// Rows trained on.
    pub rows: u64,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Sequences that were cut to the longest length, over all splits.
    pub truncated: u64,
    /// The most tokens of a sequence.
    pub max_length: usize,
    /// Losses and scores by epoch; those that this start of the run trained to the end.
    pub epochs: Vec<EpochRecord>,
    /// On all validation rows, at the end; where the settings say that they were trained on, too, it flatters.
    pub validation: TargetScores,
    /// On the test rows, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<TargetScores>,
    /// On each test file alone, by the end of its path, where there are several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tests: BTreeMap<String, TargetScores>,
    /// The label biases behind `tuned_accuracy` and `tuned_macro_f1`, which are the metrics' names here: what is added to each label's logit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label_biases: BTreeMap<String, BTreeMap<String, f64>>,
    /// Seconds of training steps, over all starts of the run.
    pub train_seconds: f64,
    /// Rows trained on a second.
    pub rows_per_second: f64,
    /// Their tokens a second.
    pub tokens_per_second: f64,
    /// The most memory that the process held; none where the system does not tell.
    pub peak_bytes: Option<u64>,
    /// The settings as resolved.
    pub settings: serde_json::Value,
}

/// One pass over the rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: u32,
    /// The mean loss of its steps, each before the step.
    pub train_loss: f64,
    /// On some validation rows, the same ones every time.
    pub validation: TargetScores,
}

/// A model's scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TargetScores {
    /// The share of right answers; higher is better.
    pub accuracy: f64,
    /// The mean over the labels of the F1 score; higher is better.
    pub macro_f1: f64,
    /// The mean negative log probability of the right answer; lower is better.
    pub log_loss: f64,
    /// The accuracy with the label biases that are best for it on the validation rows; none of those rows themselves, where they were
    /// trained on, and of questions, whose answers' letters are no labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned_accuracy: Option<f64>,
    /// Macro-F1 likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned_macro_f1: Option<f64>,
}

/// What label biases are tuned for.
const TUNED: [MetricKind; 2] = [MetricKind::Accuracy, MetricKind::MacroF1];
/// Those that are best for each of them.
type Biases = [LabelBiases; TUNED.len()];

impl TargetScores {
    /// Of a model on these examples.
    ///
    /// # Errors
    ///
    /// If a score is not finite, or the user stopped.
    pub(super) fn of(
        model: &Classifier,
        data: &Encoded,
        examples: &[u32],
        beneath: Option<&Beneath>,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let probabilities = model.predict(data, examples, beneath, monitor)?;
        Ok(Self::of_predictions(&probabilities, &data.targets_of(examples), None))
    }

    /// Of a model's probabilities, shape `(examples, answers)`.
    fn of_predictions(probabilities: &Matrix, targets: &[u32], biases: Option<&Biases>) -> Self {
        let score = |kind| Metric::hard(kind).score(probabilities, targets);
        let tuned = |kind: usize| {
            let biased = biases?[kind].apply(probabilities);
            Some(Metric::hard(TUNED[kind]).score(&biased, targets))
        };
        Self {
            accuracy: score(MetricKind::Accuracy),
            macro_f1: score(MetricKind::MacroF1),
            log_loss: -score(MetricKind::LogLoss),
            tuned_accuracy: tuned(0),
            tuned_macro_f1: tuned(1),
        }
    }
}

/// Trains the target, evaluates it and writes it. The same call goes on after a kill and ends with the same weights.
///
/// # Errors
///
/// If the data, the model, the settings or the folder are not as they must be, a pass does not fit in memory, a loss is not finite,
/// a file cannot be written, or the user stopped the run.
pub fn finetune(settings: &FinetuneSettings, monitor: &dyn Monitor) -> Result<FinetuneRecord> {
    settings.train.check()?;
    let mut stages = Stages::new(monitor);
    let dataset = stages.run("read", None, || data::read(&settings.data, monitor))?;
    if dataset.task.kind != TaskKind::Choice && dataset.task.kind != TaskKind::Response && dataset.task.labels.len() < 2
    {
        let found = format!("{:?} alone", dataset.task.labels);
        return Err(Error::setting("--train", "rows of at least two labels", found));
    }
    if settings.selection.is_some() && settings.sample.is_some() {
        return Err(Error::setting(
            "--sample",
            "no selection beside it",
            "`--selection` as well",
        ));
    }
    let Loaded {
        config,
        encoder,
        head,
        tokenizer,
        tokenizer_files,
        fingerprint,
        ..
    } = load_model(settings, &dataset)?;
    let mut model = Classifier {
        encoder,
        head,
        dropout: config.dropout,
    };
    check_freeze(settings.train.freeze, model.encoder.layers.len())?;
    let encoded = stages.run("tokenize", None, || {
        let of = |split: &Split| encode(&split.examples, &dataset.task, &tokenizer);
        Ok((
            of(&dataset.train)?,
            of(&dataset.validation)?,
            dataset.test.as_ref().map(of).transpose()?,
        ))
    })?;
    let (mut train, validation, test) = encoded;
    let own = train.len() as RowId;
    if settings.with_validation {
        train.append(&validation);
    }
    check_memory(&model, &train, &settings.train)?;
    let mut rows = match (&settings.selection, settings.sample) {
        (Some(run), _) => chosen_rows(run, &dataset)?,
        (None, Some(sample)) => {
            let tokens: Vec<u32> = dataset.pool.iter().map(|&row| train.tokens_of(row) as u32).collect();
            random_rows(
                &dataset.pool,
                &tokens,
                limit_of(sample, &tokens)?,
                settings.seed.derive("sample"),
            )
        }
        (None, None) => dataset.pool.clone(),
    };
    rows.extend(own..train.len() as RowId);

    let what_matters = folder::without(settings, &["out", "frozen_memory"])?;
    folder::claim(&settings.out, &what_matters)?;
    let metrics = settings.out.join("metrics.json");
    let run = Fingerprint::of([
        fingerprint.as_str(),
        dataset.fingerprint.as_str(),
        &what_matters.to_string(),
    ]);
    let other_run = || Error::OtherRun {
        path: settings.out.clone(),
        difference: "the contents of the data files or of the model".into(),
    };
    match finished(&metrics, &settings.out) {
        Some(record) if record.fingerprint == run => return Ok(record),
        Some(_) => return Err(other_run()),
        None => {}
    }
    data::write_rejects(&dataset.rejects, &settings.out)?;

    let beneath = |share: u64| {
        let memory = (settings.frozen_memory / share) as usize;
        settings.train.freeze.map(|layers| Beneath::new(layers, memory))
    };
    let (beneath_train, beneath_validation, beneath_test) = (beneath(2), beneath(4), beneath(4));
    let sample = random_rows(
        &validation.all(),
        &[],
        Limit::Rows(settings.epoch_rows as u64),
        settings.seed.derive("epoch rows"),
    );
    let path = settings.out.join(CHECKPOINT);
    let mut trainer = Trainer::new(&model, &settings.train);
    let seed = settings.seed.derive("finetune");
    let mut seconds = 0.0;
    let mut epochs = Vec::new();
    let steps = settings.train.steps(rows.len());
    stages.run("train", Some(steps), || {
        if let Some(before) = checkpoint::load(&path, &run, &mut model, &mut trainer)? {
            seconds = before;
            monitor.advance(trainer.optimiser().steps());
        } else if path.exists() {
            return Err(other_run());
        }
        let (mut began, mut kept) = (Instant::now(), Instant::now());
        let mut losses = (0.0, 0u64);
        fit(
            &mut model,
            &mut trainer,
            (&train, &rows),
            beneath_train.as_ref(),
            seed,
            &mut |step, model, trainer| {
                seconds += began.elapsed().as_secs_f64();
                losses = (losses.0 + step.loss, losses.1 + 1);
                monitor.advance(1);
                monitor.note(&format!("loss {:.3}", losses.0 / losses.1 as f64));
                let stopped = monitor.cancelled();
                if stopped || kept.elapsed().as_secs_f64() > CHECKPOINT_SECONDS {
                    checkpoint::save(&path, &run, seconds, model, trainer)?;
                    kept = Instant::now();
                }
                if stopped {
                    return Err(Error::Interrupted);
                }
                if step.ends_epoch {
                    epochs.push(EpochRecord {
                        epoch: step.epoch,
                        train_loss: losses.0 / losses.1 as f64,
                        validation: TargetScores::of(
                            model,
                            &validation,
                            &sample,
                            beneath_validation.as_ref(),
                            &crate::Silent,
                        )?,
                    });
                    losses = (0.0, 0);
                }
                began = Instant::now();
                Ok(())
            },
        )
    })?;
    let total = (validation.len() + test.as_ref().map_or(0, Encoded::len)) as u64;
    let (biases, on_validation, on_test, on_tests) = stages.run("evaluate", Some(total), || {
        let probabilities = model.predict(&validation, &validation.all(), beneath_validation.as_ref(), monitor)?;
        let targets = validation.targets();
        let on_validation = TargetScores::of_predictions(&probabilities, targets, None);
        // Rows that were trained on would have them tuned to what is known by heart.
        let biases = (!settings.with_validation && dataset.task.kind != TaskKind::Choice)
            .then(|| TUNED.map(|kind| LabelBiases::tune(kind, &probabilities, targets)));
        let (Some(test), Some(split)) = (&test, &dataset.test) else {
            return Ok((biases, on_validation, None, BTreeMap::new()));
        };
        let probabilities = model.predict(test, &test.all(), beneath_test.as_ref(), monitor)?;
        let score = |probabilities: &Matrix, targets: &[u32]| {
            TargetScores::of_predictions(probabilities, targets, biases.as_ref())
        };
        let on = |rows: &[u32]| score(&probabilities.gather(rows), &test.targets_of(rows));
        let files = split.by_file();
        let on_tests = match files.as_slice() {
            [_] => BTreeMap::new(),
            several => several.iter().map(|(name, rows)| (name.clone(), on(rows))).collect(),
        };
        let on_test = score(&probabilities, test.targets());
        Ok((biases, on_validation, Some(on_test), on_tests))
    })?;
    let tokens: usize = rows.iter().map(|&row| train.tokens_of(row)).sum();
    let per_second = |count: usize| count as f64 * f64::from(settings.train.epochs) / seconds.max(1e-9);
    let record = FinetuneRecord {
        version: VERSION,
        tamis: env!("CARGO_PKG_VERSION").to_owned(),
        fingerprint: run,
        seed: settings.seed.0,
        rows: rows.len() as u64,
        steps,
        truncated: train.truncated + validation.truncated + test.as_ref().map_or(0, |test| test.truncated),
        max_length: tokenizer.longest(),
        epochs,
        validation: on_validation,
        test: on_test,
        tests: on_tests,
        label_biases: biases.map_or_else(BTreeMap::new, |biases| by_label(&biases, &dataset.task.labels)),
        train_seconds: seconds,
        rows_per_second: per_second(rows.len()),
        tokens_per_second: per_second(tokens),
        peak_bytes: stages.into_records().iter().filter_map(|stage| stage.peak_bytes).max(),
        settings: serde_json::to_value(settings).unwrap_or_default(),
    };
    save(settings, &dataset, (&config, &tokenizer_files), &model)?;
    folder::write_json(&metrics, &record)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path, "remove")(error)),
        _ => Ok(record),
    }
}

/// Each metric's biases by label.
fn by_label(biases: &Biases, labels: &[String]) -> BTreeMap<String, BTreeMap<String, f64>> {
    let of = |biases: &LabelBiases| labels.iter().cloned().zip(biases.as_slice().iter().copied()).collect();
    let named = |(kind, biases): (&MetricKind, &LabelBiases)| (Metric::hard(*kind).to_string(), of(biases));
    TUNED.iter().zip(biases).map(named).collect()
}

/// What the head of a model for this data scores.
pub(super) fn head_kind(dataset: &Dataset) -> HeadKind<'_> {
    if dataset.task.kind == TaskKind::Choice {
        HeadKind::Choice
    } else {
        HeadKind::Labels(&dataset.task.labels)
    }
}

fn load_model(settings: &FinetuneSettings, dataset: &Dataset) -> Result<Loaded> {
    model_files::load(&Request {
        name: &settings.model,
        setting: "--model",
        head: head_kind(dataset),
        new_head: settings.new_head,
        longest: Some(settings.train.max_length),
        seed: settings.seed.derive("head"),
    })
}

fn save(
    settings: &FinetuneSettings,
    dataset: &Dataset,
    (config, tokenizer_files): (&Config, &TokenizerFiles),
    model: &Classifier,
) -> Result<()> {
    model_files::Classifier {
        config,
        encoder: &model.encoder,
        head: &model.head,
        kind: head_kind(dataset),
        tokenizer_files,
    }
    .save(&settings.out)
}

/// At least one layer has to be trained.
pub(super) fn check_freeze(freeze: Option<usize>, layers: usize) -> Result<()> {
    match freeze {
        Some(frozen) if frozen >= layers => Err(Error::setting(
            "--freeze",
            format!("fewer than the model's {layers} layers"),
            frozen.to_string(),
        )),
        _ => Ok(()),
    }
}

/// Says before it starts that a pass will not fit in memory, rather than being killed in the middle.
pub(super) fn check_memory(model: &Classifier, train: &Encoded, settings: &TrainSettings) -> Result<()> {
    let longest = train.longest();
    let tokens = settings.pass_tokens.min(longest * settings.batch).max(longest);
    let needed = model.training_bytes(tokens, settings.freeze) as u64;
    let Some(free) = free_bytes() else { return Ok(()) };
    if needed <= free {
        return Ok(());
    }
    let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    Err(Error::setting(
        "finetune.pass_tokens",
        format!("passes that fit in the {} of free memory", gigabytes(free)),
        format!("passes of {tokens} tokens, which take about {}", gigabytes(needed)),
    )
    .with_hint(
        "cut long texts with `--max-length`, take fewer tokens a pass (`pass_tokens` in the settings file), or freeze layers with `--freeze`",
    ))
}

/// Memory that the process may still take, from Linux's own account and its control group's limit.
fn free_bytes() -> Option<u64> {
    let available = bytes_in("/proc/meminfo", "MemAvailable:")?;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .map(|most| most.saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    Some(available.min(group.unwrap_or(u64::MAX)))
}

/// The record of a run that is finished already.
fn finished(metrics: &Path, out: &Path) -> Option<FinetuneRecord> {
    let there = out.join("model.safetensors").exists() && !out.join(CHECKPOINT).exists();
    let text = there.then(|| std::fs::read_to_string(metrics).ok()).flatten()?;
    serde_json::from_str(&text).ok()
}

/// What of a `selection.json` says which rows were chosen.
#[derive(Deserialize)]
struct Selected {
    rows: Vec<SelectedRow>,
}

#[derive(Deserialize)]
struct SelectedRow {
    file: PathBuf,
    row: u64,
}

/// The data settings of a `select` run, so that its target can be trained without naming the files again.
///
/// # Errors
///
/// If the folder holds no finished run.
pub fn selection_data(run: &Path) -> Result<DataSettings> {
    #[derive(Deserialize)]
    struct Settings {
        data: DataSettings,
    }
    #[derive(Deserialize)]
    struct Record {
        settings: Settings,
    }
    Ok(
        folder::read_json::<Record>(&run.join("selection.json"), "the record of a finished selection")?
            .settings
            .data,
    )
}

/// The rows that a `select` run chose, found in the training files by file and line.
fn chosen_rows(run: &Path, dataset: &Dataset) -> Result<Vec<RowId>> {
    let path = run.join("selection.json");
    let selected: Selected = folder::read_json(&path, "the record of a finished selection")?;
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let files: Vec<PathBuf> = dataset.train.files.iter().map(|file| whole(&file.path)).collect();
    let place_of: HashMap<(u32, u64), RowId> = dataset
        .train
        .examples
        .iter()
        .zip(0..)
        .map(|(example, row)| ((example.origin.file, example.origin.line), row))
        .collect();
    let mut names: HashMap<PathBuf, u32> = HashMap::new();
    let mut rows = Vec::with_capacity(selected.rows.len());
    for chosen in &selected.rows {
        let missing = |expected: &str, found: String| {
            Error::data(Place::file(&path), expected, found)
                .with_hint("give the training files that the selection was made from with `--train`")
        };
        let file = if let Some(&file) = names.get(&chosen.file) {
            file
        } else {
            let name = whole(&chosen.file);
            let found = || format!("a row of {}", chosen.file.display());
            let place = files.iter().position(|file| *file == name);
            let file = place.ok_or_else(|| missing("rows of the training files", found()))? as u32;
            names.insert(chosen.file.clone(), file);
            file
        };
        let row = place_of.get(&(file, chosen.row)).ok_or_else(|| {
            missing(
                "rows that the training files have",
                format!("line {} of {}", chosen.row, chosen.file.display()),
            )
        })?;
        rows.push(*row);
    }
    if rows.is_empty() {
        return Err(Error::data(Place::file(&path), "at least one chosen row", "none"));
    }
    debug_assert_eq!(rows.iter().collect::<HashSet<_>>().len(), rows.len());
    Ok(rows)
}
