//! `finetune`: the target trained on a selection or on everything, evaluated, and written as a folder that transformers loads.

mod chosen;

use std::{collections::BTreeMap, path::Path, time::Instant};

use serde::{Deserialize, Serialize};
use tamis_nn::{
    Fingerprint, Matrix, Monitor,
    hub::{
        classifier::{self as model_files, Loaded, Request},
        config::Config,
        files::TokenizerFiles,
        tokenizer::TextTokenizer,
    },
    train::{EncoderClassifier, FrozenLayerCache, TokenizedSplit, Trainer, checkpoint, fit},
};

use crate::{
    Error, Result,
    budget::{Limit, limit_of, random_rows},
    data::{self, Dataset, LeakPolicy, RowId, Split, TaskKind},
    metrics::{LabelBiases, MetricKind, only_answer},
    pipeline::{
        memory::{check_freeze, check_memory, head_kind},
        stages::Stages,
    },
    records::{
        finetune::{EpochRecord, FinetuneRecord, TargetScores, TunedBiases},
        selection::{ReadRecord, VERSION},
    },
    settings::finetune::FinetuneSettings,
    target::tokenize::encode,
    workspace::{folder, json},
};

pub use chosen::selection_data;

/// What the checkpoint of a run is called.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// What the weights of the best epoch so far are called.
const BEST: &str = "best.safetensors";
/// Seconds between checkpoints.
const CHECKPOINT_SECONDS: f64 = 60.0;

/// Trains the target, evaluates it and writes it. The same call goes on after a kill and ends with the same weights.
///
/// # Errors
///
/// If the data, the model, the settings or the folder are not as they must be, a pass does not fit in memory, a loss is not finite,
/// a file cannot be written, or the user stopped the run.
pub fn finetune(settings: &FinetuneSettings, monitor: &dyn Monitor) -> Result<FinetuneRecord> {
    settings.check()?;
    let stages = Stages::new(monitor);
    let dataset = stages.run("read", None, || data::read(&settings.data, monitor))?;
    settings.check_against(&dataset)?;
    let Loaded {
        config,
        encoder,
        head,
        tokenizer,
        tokenizer_files,
        fingerprint,
        ..
    } = load_model(settings, &dataset)?;
    let mut model = EncoderClassifier {
        encoder,
        head,
        dropout: config.dropout,
    };
    check_freeze(settings.train.freeze, model.encoder.layers.len())?;
    let material = stages.run("tokenize", None, || Material::of(settings, &dataset, &tokenizer))?;
    check_memory(&model, &material.train, &settings.train, 1)?;

    let what_matters = json::without(settings, &["out", "frozen_memory"])?;
    folder::claim(&settings.out, &what_matters)?;
    let rows: Vec<u8> = material.rows.iter().flat_map(|row| row.to_le_bytes()).collect();
    let run = Fingerprint::of([
        fingerprint.as_ref(),
        dataset.fingerprint.as_ref(),
        what_matters.to_string().as_bytes(),
        &rows,
    ]);
    if let Some(record) = finished(&settings.out) {
        clean(&settings.out)?;
        return if record.fingerprint == run {
            Ok(record)
        } else {
            Err(other_run(settings))
        };
    }
    data::write_rejects(&dataset.rejects, &settings.out)?;

    let frozen = Frozen::new(settings);
    let steps = settings.train.steps(material.rows.len());
    let trained = stages.run("train", Some(steps), || {
        train(settings, &run, (&material, &frozen), &mut model, monitor)
    })?;
    let evaluated = stages.run("evaluate", Some(material.judging()), || {
        evaluate(settings, &dataset, (&material, &frozen), &model, monitor)
    })?;
    if let Some(biases) = &evaluated.added {
        let added = model.head.scores.bias.iter_mut().zip(biases.as_slice());
        added.for_each(|(bias, by)| *bias += *by as f32);
    }
    let per_second =
        |count: usize| count as f64 * f64::from(settings.train.epochs) / trained.progress.seconds.max(1e-9);
    let biases = evaluated.biases.as_ref();
    let record = FinetuneRecord {
        version: VERSION,
        tamis: env!("CARGO_PKG_VERSION").to_owned(),
        fingerprint: run,
        seed: settings.seed.0,
        read: Some(ReadRecord::of(&dataset)),
        rows: material.rows.len() as u64,
        steps,
        truncated: material.splits().map(|split| split.truncated).sum(),
        max_length: tokenizer.longest(),
        epochs: trained.progress.epochs,
        kept_epoch: trained.kept,
        validation: evaluated.validation,
        test: evaluated.test,
        tests: evaluated.tests,
        only_label: evaluated
            .only_label
            .map(|label| dataset.task.labels[label as usize].clone()),
        label_biases: biases.map_or_else(BTreeMap::new, |biases| biases.by_label(&dataset.task.labels)),
        train_seconds: trained.progress.seconds,
        rows_per_second: per_second(material.rows.len()),
        tokens_per_second: per_second(material.tokens()),
        peak_bytes: stages.records().iter().filter_map(|stage| stage.peak_bytes).max(),
        settings: serde_json::to_value(settings).unwrap_or_default(),
    };
    save(settings, &dataset, (&config, &tokenizer_files), &model)?;
    json::write_json(&settings.out.join("metrics.json"), &record)?;
    clean(&settings.out)?;
    Ok(record)
}

/// What is trained and judged on, as tokens.
struct Material {
    /// The training rows, and behind them the validation rows, where they are trained on, too.
    train: TokenizedSplit,
    validation: TokenizedSplit,
    test: Option<TokenizedSplit>,
    /// Those of `train` that are trained on.
    rows: Vec<RowId>,
}

impl Material {
    fn of(settings: &FinetuneSettings, dataset: &Dataset, tokenizer: &TextTokenizer) -> Result<Self> {
        let of = |split: &Split| encode(&split.examples, &dataset.task, tokenizer);
        let (mut train, validation) = (of(&dataset.train)?, of(&dataset.validation)?);
        let mut rows = match (&settings.selection, settings.sample) {
            (Some(run), _) => chosen::chosen_rows(run, dataset)?,
            (None, Some(sample)) => {
                let tokens: Vec<u32> = dataset.pool.iter().map(|&row| train.tokens_of(row) as u32).collect();
                let limit = limit_of(sample, &tokens).map_err(|error| error.of_setting("sample"))?;
                random_rows(&dataset.pool, &tokens, limit, settings.seed.derive("sample"))
            }
            (None, None) => dataset.pool.clone(),
        };
        if settings.with_validation {
            let own = train.len() as RowId;
            train.append(&validation);
            let judges = |row: &RowId| dataset.in_test.binary_search(&(row - own)).is_ok();
            let kept = settings.data.leaks != LeakPolicy::Drop;
            rows.extend((own..train.len() as RowId).filter(|row| kept || !judges(row)));
        }
        Ok(Self {
            train,
            validation,
            test: dataset.test.as_ref().map(of).transpose()?,
            rows,
        })
    }

    fn splits(&self) -> impl Iterator<Item = &TokenizedSplit> {
        [&self.train, &self.validation].into_iter().chain(&self.test)
    }

    /// Those of the rows that are trained on.
    fn tokens(&self) -> usize {
        self.rows.iter().map(|&row| self.train.tokens_of(row)).sum()
    }

    /// How many rows are judged on.
    fn judging(&self) -> u64 {
        self.splits().skip(1).map(TokenizedSplit::len).sum::<usize>() as u64
    }
}

/// The output of the frozen layers for each split, where there are any.
struct Frozen {
    train: Option<FrozenLayerCache>,
    validation: Option<FrozenLayerCache>,
    test: Option<FrozenLayerCache>,
}

impl Frozen {
    fn new(settings: &FinetuneSettings) -> Self {
        let beneath = |share: u64| {
            let memory = (settings.frozen_memory / share) as usize;
            settings
                .train
                .freeze
                .map(|layers| FrozenLayerCache::new(layers, memory))
        };
        Self {
            train: beneath(2),
            validation: beneath(4),
            test: beneath(4),
        }
    }
}

/// How far training is, besides weights and moments.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// Of training steps, over all starts of the run.
    seconds: f64,
    /// Those done.
    epochs: Vec<EpochRecord>,
    /// The sum of the losses of the present epoch's steps, and how many they are.
    losses: (f64, u64),
}

impl Progress {
    fn mean_loss(&self) -> f64 {
        self.losses.0 / self.losses.1 as f64
    }

    /// The epoch that scores best by this metric; of equals the first.
    fn best(&self, kind: MetricKind) -> Option<u32> {
        let score = |record: &EpochRecord| record.validation.by(kind);
        let better = |best: &EpochRecord, next: &EpochRecord| score(best).total_cmp(&score(next)).is_lt();
        let epochs = self.epochs.iter().copied();
        let best = epochs.reduce(|best, next| if better(&best, &next) { next } else { best });
        best.map(|record| record.epoch)
    }
}

/// What training tells at its end.
struct Trained {
    progress: Progress,
    /// The epoch whose weights the model has, where the best are kept.
    kept: Option<u32>,
}

/// Trains the model from the run's checkpoint on, if there is one. Advances `monitor` by one a step.
fn train(
    settings: &FinetuneSettings,
    run: &Fingerprint,
    (material, frozen): (&Material, &Frozen),
    model: &mut EncoderClassifier,
    monitor: &dyn Monitor,
) -> Result<Trained> {
    let (checkpoint, best) = (settings.out.join(CHECKPOINT), settings.out.join(BEST));
    let validation = &material.validation;
    let limit = Limit::Rows(settings.epoch_rows as u64);
    let sample = random_rows(&validation.all(), &[], limit, settings.seed.derive("epoch rows"));
    let mut trainer = Trainer::new(model, &settings.train);
    let mut progress = Progress::default();
    if let Some(before) = checkpoint::load(&checkpoint, run, model, &mut trainer)? {
        progress = before;
        monitor.advance(trainer.optimiser().steps());
    } else if checkpoint.exists() {
        return Err(other_run(settings));
    }
    let (mut began, mut kept) = (Instant::now(), Instant::now());
    fit(
        model,
        &mut trainer,
        (&material.train, &material.rows),
        frozen.train.as_ref(),
        settings.seed.derive("finetune"),
        &mut |step, model, trainer| {
            progress.seconds += began.elapsed().as_secs_f64();
            progress.losses = (progress.losses.0 + step.loss, progress.losses.1 + 1);
            monitor.advance(1);
            monitor.note(&format!("loss {:.3}", progress.mean_loss()));
            if step.ends_epoch {
                let beneath = frozen.validation.as_ref();
                progress.epochs.push(EpochRecord {
                    epoch: step.epoch,
                    train_loss: progress.mean_loss(),
                    validation: TargetScores::of(model, validation, &sample, beneath, &tamis_nn::Silent)?,
                });
                progress.losses = (0.0, 0);
                if settings.load_best.and_then(|kind| progress.best(kind)) == Some(step.epoch) {
                    checkpoint::save_weights(&best, model, trainer)?;
                }
            }
            let stopped = monitor.cancelled();
            if stopped || kept.elapsed().as_secs_f64() > CHECKPOINT_SECONDS {
                checkpoint::save(&checkpoint, run, &progress, model, trainer)?;
                kept = Instant::now();
            }
            if stopped {
                return Err(Error::Interrupted);
            }
            began = Instant::now();
            Ok(())
        },
    )?;
    let kept = settings.load_best.and_then(|kind| progress.best(kind));
    if kept.is_some_and(|epoch| epoch < settings.train.epochs) {
        checkpoint::load_weights(&best, model, &trainer)?;
    }
    Ok(Trained { progress, kept })
}

/// What the trained model does on rows that it has not seen.
struct Evaluated {
    biases: Option<TunedBiases>,
    /// Those of them that are added to the head; the scores are with them.
    added: Option<LabelBiases>,
    /// The label that every validation row is given, where it is one and they have several.
    only_label: Option<u32>,
    validation: TargetScores,
    test: Option<TargetScores>,
    tests: BTreeMap<String, TargetScores>,
}

/// Scores the model on validation and test rows. Advances `monitor` by one a row.
fn evaluate(
    settings: &FinetuneSettings,
    dataset: &Dataset,
    (material, frozen): (&Material, &Frozen),
    model: &EncoderClassifier,
    monitor: &dyn Monitor,
) -> Result<Evaluated> {
    let predict = |split: &TokenizedSplit, beneath: &Option<FrozenLayerCache>| {
        model.predict(split, &split.all(), beneath.as_ref(), monitor)
    };
    let probabilities = predict(&material.validation, &frozen.validation)?;
    let targets = material.validation.targets();
    // Rows that were trained on would have them tuned to what is known by heart.
    let biases = (!settings.with_validation && dataset.task.kind != TaskKind::Choice)
        .then(|| TunedBiases::tune(&probabilities, targets));
    let added = settings
        .label_biases
        .and_then(|kind| biases.as_ref()?.of(kind).cloned());
    let as_written = |probabilities: &Matrix, targets: &[u32]| match &added {
        Some(biases) => TargetScores::of_predictions(&biases.apply(probabilities), targets),
        None => TargetScores::of_predictions(probabilities, targets),
    };
    let validation = as_written(&probabilities, targets);
    let several = dataset.task.kind != TaskKind::Choice && targets.iter().any(|&label| label != targets[0]);
    let biased = added.as_ref().map(|biases| biases.apply(&probabilities));
    let only_label = only_answer(biased.as_ref().unwrap_or(&probabilities)).filter(|_| several);
    let (Some(test), Some(split)) = (&material.test, &dataset.test) else {
        return Ok(Evaluated {
            biases,
            added,
            only_label,
            validation,
            test: None,
            tests: BTreeMap::new(),
        });
    };
    let probabilities = predict(test, &frozen.test)?;
    let both = |probabilities: &Matrix, targets: &[u32]| {
        let tuned = |kind| biases.as_ref()?.score(kind, probabilities, targets);
        TargetScores {
            tuned_accuracy: tuned(MetricKind::Accuracy),
            tuned_macro_f1: tuned(MetricKind::MacroF1),
            ..as_written(probabilities, targets)
        }
    };
    let on = |rows: &[u32]| both(&probabilities.gather(rows), &test.targets_of(rows));
    let tests = match split.by_file().as_slice() {
        [_] => BTreeMap::new(),
        several => several.iter().map(|(name, rows)| (name.clone(), on(rows))).collect(),
    };
    let test = Some(both(&probabilities, test.targets()));
    Ok(Evaluated {
        biases,
        added,
        only_label,
        validation,
        test,
        tests,
    })
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

fn save(
    settings: &FinetuneSettings,
    dataset: &Dataset,
    (config, tokenizer_files): (&Config, &TokenizerFiles),
    model: &EncoderClassifier,
) -> Result<()> {
    let files = model_files::ClassifierFiles {
        config,
        encoder: &model.encoder,
        head: &model.head,
        kind: head_kind(dataset),
        tokenizer_files,
    };
    Ok(files.save(&settings.out)?)
}

/// The record of a run that is finished already.
fn finished(out: &Path) -> Option<FinetuneRecord> {
    let there = out.join("model.safetensors").exists() && !out.join(CHECKPOINT).exists();
    let text = there.then(|| std::fs::read_to_string(out.join("metrics.json")).ok());
    serde_json::from_str(&text.flatten()?).ok()
}

/// Removes what only an unfinished run needs; the checkpoint first, without which the other is not asked for.
fn clean(out: &Path) -> Result<()> {
    for path in [CHECKPOINT, BEST].map(|name| out.join(name)) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(&path, "remove")(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn other_run(settings: &FinetuneSettings) -> Error {
    Error::OtherRun {
        path: settings.out.clone(),
        difference: "the contents of the data files, of the model or of the selection".into(),
    }
}
