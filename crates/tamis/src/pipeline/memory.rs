//! Whether a pass of training fits in memory, told before it starts.

use std::path::Path;

use tamis_nn::{
    Seed,
    decoder::{DecoderWeights, GradientSketch, SketchSettings},
    hub::classifier::HeadKind,
    train::{TokenizedSplit, TrainSettings},
};

use crate::{
    Error, Result,
    data::{Dataset, TaskKind},
    pipeline::stages::bytes_in,
    target::TargetModel,
    vectors::{BYTES_ON_DISK, Collector},
};

/// What the head of a model for this data scores.
pub(crate) fn head_kind(dataset: &Dataset) -> HeadKind<'_> {
    if dataset.task.kind == TaskKind::Choice {
        HeadKind::Choice
    } else {
        HeadKind::Labels(&dataset.task.labels)
    }
}

/// At least one layer has to be trained.
pub(crate) fn check_freeze(freeze: Option<usize>, layers: usize) -> Result<()> {
    match freeze {
        Some(frozen) if frozen >= layers => Err(Error::setting(
            "freeze_layers",
            format!("fewer than the model's {layers} layers"),
            frozen.to_string(),
        )),
        _ => Ok(()),
    }
}

/// As the settings say, but with nothing frozen, which would leave the features as they are.
pub(crate) fn unfrozen(settings: &TrainSettings) -> TrainSettings {
    TrainSettings {
        freeze_layers: None,
        ..settings.clone()
    }
}

/// Says before it starts that passes will not fit in memory, so many models being trained at once, rather than being killed in the middle.
pub(crate) fn check_memory(
    model: &dyn TargetModel,
    train: &TokenizedSplit,
    settings: &TrainSettings,
    at_once: usize,
) -> Result<()> {
    let bytes = |tokens| model.training_bytes(tokens, settings.freeze_layers, at_once);
    let (models, fewer) = match at_once {
        1 => (String::new(), ""),
        several => (
            format!(" of {several} models at once"),
            "fewer models at once with `threads`, ",
        ),
    };
    let freeze = if model.freezable_layers() > 0 {
        ", or freeze layers with `freeze_layers`"
    } else {
        ""
    };
    check_passes(&bytes, train, settings, &models, &format!("{fewer}{CUT}{freeze}"))
}

/// How many copies of a model, at least one and at most so many, can be trained side by side in the memory that is free.
pub(crate) fn copies_that_fit(
    model: &dyn TargetModel,
    train: &TokenizedSplit,
    settings: &TrainSettings,
    most: usize,
) -> usize {
    let Some(free) = free_bytes() else { return most };
    let tokens = tokens_of_a_pass(train, settings);
    let fit = |&copies: &usize| model.training_bytes(tokens, settings.freeze_layers, copies) as u64 <= free;
    (2..=most).rev().find(fit).unwrap_or(1)
}

/// The most tokens that a pass of training has.
fn tokens_of_a_pass(train: &TokenizedSplit, settings: &TrainSettings) -> usize {
    let longest = train.longest();
    let batch = longest.saturating_mul(settings.batch_size);
    settings.pass_tokens.min(batch).max(longest)
}

/// The same as [`check_memory`] for a language model, `bytes` being what training takes with passes of so many tokens; `full` where all
/// weights are trained.
pub(crate) fn check_memory_of(
    bytes: &dyn Fn(usize) -> usize,
    train: &TokenizedSplit,
    settings: &TrainSettings,
    full: bool,
) -> Result<()> {
    let adapters = if full {
        ", or train adapters, without `full`"
    } else {
        ""
    };
    check_passes(bytes, train, settings, "", &format!("{CUT}{adapters}"))
}

const CUT: &str = "cut long texts with `max_length`, take fewer tokens a pass (`pass_tokens` in the settings file)";

fn check_passes(
    bytes: &dyn Fn(usize) -> usize,
    train: &TokenizedSplit,
    settings: &TrainSettings,
    models: &str,
    hint: &str,
) -> Result<()> {
    let tokens = tokens_of_a_pass(train, settings);
    let needed = bytes(tokens) as u64;
    let Some(free) = free_bytes() else { return Ok(()) };
    if needed <= free {
        return Ok(());
    }
    let takes = gigabytes(needed);
    Err(Error::setting(
        "finetune.pass_tokens",
        format!("passes that fit in the {} of free memory", gigabytes(free)),
        format!("passes of {tokens} tokens{models}, which take about {takes}"),
    )
    .with_hint(hint.to_owned()))
}

/// Says before it starts that the vectors of so many texts, a number a split, will not fit: in memory, or on the folder's disk where they
/// go there.
pub(crate) fn check_vectors(texts: &[usize], dim: usize, kind: TaskKind, folder: &Path) -> Result<()> {
    // What else is made of them where rows have several texts: a vector a row, and the probe's features.
    let copies = if kind == TaskKind::Classification { 1 } else { 3 };
    let bytes = |on_disk: bool, each: usize| -> u64 {
        let there = texts
            .iter()
            .filter(|&&count| Collector::goes_to_disk(count, dim) == on_disk);
        there.map(|count| (copies * count * dim * each) as u64).sum()
    };
    let places = [
        (
            "memory",
            free_bytes(),
            bytes(false, size_of::<f32>()),
            "use a machine with more of it",
        ),
        (
            "disk",
            free_on_disk(folder),
            bytes(true, BYTES_ON_DISK),
            "name another with `out`",
        ),
    ];
    for (place, free, needed, way_out) in places {
        if free.is_some_and(|free| needed > free) {
            return Err(Error::setting(
                "embedder",
                format!("vectors that fit in the {} of free {place}", gigabytes(free.unwrap_or(0))),
                format!("vectors of {dim} numbers that take {} with what is made of them", gigabytes(needed)),
            )
            .with_hint(format!(
                "take shorter vectors (`lexical.dim` in the settings file, or a smaller encoder), give fewer rows, or {way_out}"
            )));
        }
    }
    Ok(())
}

/// Says before it starts that a language model's gradients of so many rows will not fit in memory.
pub(crate) fn check_gradients(rows: u64, weights: &DecoderWeights, settings: &SketchSettings) -> Result<()> {
    settings.check()?;
    let sketch = GradientSketch::new(&weights.shape, weights.layers.len(), settings, Seed(0));
    let numbers = (weights.shape.hidden + sketch.width()) as u64;
    // As they are read and as they are kept.
    let needed = 2 * rows * numbers * 4;
    let Some(free) = free_bytes() else { return Ok(()) };
    if needed <= free {
        return Ok(());
    }
    let taken = gigabytes(needed);
    Err(Error::setting(
        "gradients.sketch",
        format!("gradients that fit in the {} of free memory", gigabytes(free)),
        format!("{numbers} numbers of each of {rows} rows, which take about {taken}"),
    )
    .with_hint(
        "set a smaller `gradients.sketch.side` or fewer `gradients.sketch.layers` in the settings file, or give fewer rows",
    ))
}

/// Says before it is loaded that a model which takes so many bytes then will not fit in memory.
pub(crate) fn check_loading(needed: u64) -> Result<()> {
    match free_bytes() {
        Some(free) if needed > free => Err(Error::setting(
            "model",
            format!("a model that fits in the {} of free memory", gigabytes(free)),
            format!("one that takes about {} while it is loaded", gigabytes(needed)),
        )
        .with_hint("take a smaller model, or a machine with more memory")),
        _ => Ok(()),
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// Room that is left on the disk of a folder.
#[cfg(unix)]
fn free_on_disk(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free_on_disk(_: &Path) -> Option<u64> {
    None
}

/// Memory that the process may still take, from Linux's own account and its control group's limit.
fn free_bytes() -> Option<u64> {
    let available = bytes_in("/proc/meminfo", "MemAvailable:")?;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .map(|most| most.saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    Some(available.min(group.unwrap_or(u64::MAX)))
}
