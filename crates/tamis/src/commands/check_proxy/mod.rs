//! `check proxy`: does a cheap score rank selections as the fine-tuned target does, and what does it cost?
//!
//! Selections of several kinds are scored by every rung of a ladder from cheap to dear, on the reward fold, and by the target, fine-tuned
//! on them and scored on rows that no rung sees. A rung is worth what its ranking keeps of the target's.

mod record;
mod verdict;

pub use record::{CheckedState, Costs, DetectableEffect, Rung};

use std::{path::PathBuf, time::Instant};

use rand::{RngExt, seq::SliceRandom};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tamis_nn::{Fingerprint, Matrix, Monitor, Silent, seed::Seed};

use crate::{
    Error, Result,
    budget::{Budget, random_rows},
    commands::check_proxy::verdict::{RANDOM, chosen_by, verdict},
    data::{self, Dataset, RowId},
    env::pool::Pool,
    metrics::Metric,
    pipeline::{
        describe, embed,
        prepare::{Prepared, prepare, read},
        probe_features::{Features, ProbeFolds, Tuned},
        search::search,
        stages::Stages,
        target::{Target, adapt_rows, trained_on_each},
    },
    problem::{FeatureContext, Limits, Problem},
    records::selection::{ReadRecord, StageRecord, VERSION},
    scorer::{finetune::FinetuneScorer, ridge::regression::train_and_score},
    settings::select::{ProxyKind, RewardKind, SelectSettings},
    stats::agreement::Agreement,
    workspace::{folder, json},
};

/// The forms in which every rung's probabilities are scored.
const FORMS: [RewardKind; 6] = [
    RewardKind::Soft,
    RewardKind::Hard,
    RewardKind::Auc,
    RewardKind::Calibrated,
    RewardKind::Matched,
    RewardKind::LogLoss,
];

/// The settings of a check of the proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckProxySettings {
    /// The selection whose proxy is in question. Its `adapt` is the rung of adapted features, 5% where it is not set.
    pub select: SelectSettings,
    /// How many selections of each kind that is drawn. Default: 4.
    pub states: usize,
    /// How many rows the target is scored on at most. Default: 4000.
    pub target_rows: usize,
    /// How many more times the target is fine-tuned on one random selection, each time with another training seed. Default: 3.
    pub repeats: usize,
    /// Whether rungs that fine-tune are measured too. Default: yes.
    pub dear: bool,
}

/// What the models of rungs are called.
const FROZEN: &str = "probe, frozen features";
const ADAPTED: &str = "probe, adapted features";
const ITSELF: &str = "the target itself";

impl Default for CheckProxySettings {
    fn default() -> Self {
        Self {
            select: SelectSettings::default(),
            states: 4,
            target_rows: 4000,
            repeats: 3,
            dear: true,
        }
    }
}

/// `check_proxy.json`: every selection with its scores, and how well each rung agrees with the target.
#[derive(Debug, Clone, Serialize)]
pub struct CheckProxyRecord {
    /// The format's version.
    pub version: u32,
    /// The program's version.
    pub tamis: String,
    /// What became of the rows of the training files.
    pub read: ReadRecord,
    /// The metric of the target.
    pub metric: String,
    /// Rows of a selection.
    pub rows: u64,
    /// Rows on which the target is scored.
    pub target_rows: u64,
    /// The selections.
    pub states: Vec<CheckedState>,
    /// The rungs, cheap ones first.
    pub rungs: Vec<Rung>,
    /// Seconds of one fine-tune of the target and its scoring, on one core.
    pub target_seconds: f64,
    /// What the search costs beside training.
    pub costs: Costs,
    /// What it takes to tell two selections apart; none without repeats.
    pub telling: Option<DetectableEffect>,
    /// What to make of it, in a sentence or two.
    pub verdict: String,
    /// Seconds and memory by stage.
    pub stages: Vec<StageRecord>,
    /// The settings as resolved.
    pub settings: serde_json::Value,
}

/// Scores selections by every rung and by the target, and compares.
///
/// # Errors
///
/// If the data, the settings or the folder are not as they must be, a file cannot be written, or the user stopped the run.
pub fn check_proxy(settings: &CheckProxySettings, monitor: &dyn Monitor) -> Result<CheckProxyRecord> {
    for (name, value) in [("selections", settings.states), ("target_rows", settings.target_rows)] {
        if value == 0 {
            return Err(Error::setting(name, "a number above 0", "0"));
        }
    }
    let mut stages = Stages::new(monitor);
    let mut select = settings.select.clone();
    let adapt = select.finetune_features.unwrap_or(Budget::Percent(5.0));
    select.finetune_features = Some(adapt);
    let (dataset, folds) = read(&select, &mut stages, monitor)?;
    let target = Target::load(&select, &dataset)?;
    target.check_side_by_side(&select)?;
    let mut ledger = folder::open(&select, &embed::sources(&select, &dataset)?)?;
    data::write_rejects(&dataset.rejects, &select.out)?;
    // Selections are made of what the embedder says; adapted features are a rung of their own.
    let embedder = SelectSettings {
        finetune_features: None,
        ..select.clone()
    };
    let (prepared, frozen) = prepare(&embedder, (&dataset, &folds), &mut stages, monitor)?;
    let (tokens, limit) = (prepared.tokens.as_slice(), prepared.limit);
    let both = (&dataset, &folds);
    let frozen = Tuned::new(&select, &dataset, frozen, (tokens, limit), &mut stages, monitor)?;
    let rows = adapt_rows(adapt, (&dataset.pool, tokens), &prepared.doubted, select.seed)?;
    let adapted_features = target.adapted_features(&select, &rows, &mut stages, monitor)?;
    let adapted = ProbeFolds::new(&select, both, Features::Adapted(&adapted_features), &mut stages)?;
    let adapted = Tuned::new(&select, &dataset, adapted, (tokens, limit), &mut stages, monitor)?;
    let probes = [(FROZEN, &frozen), (ADAPTED, &adapted)];

    // The selections: drawn ones, and what the search makes of each reward.
    let mut states = drawn(settings, &dataset, &prepared, &frozen)?;
    let searches = probes.len() * FORMS.len();
    let traits = describe::traits(&dataset, &folds, &prepared.embedded[1], &prepared.clusters);
    let features = FeatureContext::new(traits, &prepared.pool);
    let began = Instant::now();
    stages.run("search", Some(select.max_evaluations * searches as u64), || {
        for (name, tuned) in probes {
            for form in FORMS {
                let probe = tuned.probe(form.of(select.metric))?;
                let limits = Limits {
                    evaluations: select.max_evaluations,
                    seconds: None,
                };
                let seed = select.seed.derive("check");
                let (pool, features) = (&prepared.pool, features.clone());
                let problem = Problem::new(pool, &probe, &mut ledger, features, limits, seed, monitor)?;
                if let Some((state, _)) = search(problem, &select, seed)?.finalists.first() {
                    let mut rows = prepared.pool.rows_of(state);
                    rows.sort_unstable();
                    states.push((chosen_by(name, &form.of(select.metric).to_string()), rows));
                }
            }
        }
        Ok(())
    })?;
    let search_seconds = began.elapsed().as_secs_f64() * rayon::current_num_threads() as f64 / searches as f64;

    let metrics: Vec<Metric> = FORMS.iter().map(|form| form.of(select.metric)).collect();
    let mut rungs: Vec<(String, String, f64, Vec<f64>)> = Vec::new();
    for (name, tuned) in probes {
        let began = Instant::now();
        // Each metric at the temperature that rewards have there.
        let scores: Vec<Vec<f64>> = states
            .par_iter()
            .map(|(_, rows)| {
                metrics
                    .iter()
                    .map(|&metric| {
                        let at = (tuned.at_budget.ridge, tuned.at_budget.temperature_for(metric));
                        let designs = &tuned.designs;
                        let score = train_and_score(&designs.train, rows, at, &[&designs.reward], &[metric])?;
                        Ok(score[0][0])
                    })
                    .collect::<Result<Vec<f64>>>()
            })
            .collect::<Result<_>>()?;
        let all = began.elapsed().as_secs_f64() * rayon::current_num_threads() as f64;
        let seconds = all / (states.len() * metrics.len()) as f64;
        push(&mut rungs, name, &metrics, seconds, &scores);
    }
    let report = select.report_metric();
    let rung = |freeze, epochs| target.rung(&folds.reward, &select, (freeze, epochs), &dataset.fingerprint);
    let whole = rung(None, None);
    let layers = target.layers();
    let mut dear: Vec<(String, FinetuneScorer)> = Vec::new();
    if settings.dear {
        for top in [1, 2].into_iter().filter(|&top| top < layers) {
            dear.push((
                format!("fine-tune, top {top} of {layers} layers"),
                rung(Some(layers - top), None),
            ));
        }
        dear.push(("fine-tune, one epoch".into(), rung(None, Some(1))));
    }
    let seed = select.seed.derive("proxy");
    let mut selections: Vec<(&[RowId], Seed)> = states.iter().map(|(_, rows)| (rows.as_slice(), seed)).collect();
    let count = Some(states.len() as u64);
    let asked = Fingerprint::of(metrics.iter().map(Metric::to_string));
    for (name, proxy) in &dear {
        let scored = stages.run("rung", count, || {
            let known = (&mut ledger, &asked);
            trained_on_each(proxy, &selections, known, monitor, &|model| {
                proxy.scores(model, &metrics)
            })
        })?;
        let (scores, seconds) = with_mean_seconds(scored);
        push(&mut rungs, name, &metrics, seconds, &scores);
    }
    let (judge_data, judge_rows) = target.judging_rows(&folds.confirm, settings.target_rows, &select);
    // The first selection is a random one; it is trained on with other seeds as well.
    let again = (0..settings.repeats as u64).map(|i| (states[0].1.as_slice(), seed.derive("repeats").index(i)));
    selections.extend(again);
    let judged: Vec<u8> = judge_rows.iter().flat_map(|row| row.to_le_bytes()).collect();
    let asked = Fingerprint::of([asked.as_ref(), &judged]);
    let mut scored = stages.run("target", Some(selections.len() as u64), || {
        let known = (&mut ledger, &asked);
        // The scores on the reward fold, the core-seconds of predicting the judged rows, and the probabilities there.
        trained_on_each(&whole, &selections, known, monitor, &|model| {
            let began = Instant::now();
            let probabilities = model.predict(judge_data, &judge_rows, None, &Silent)?;
            let seconds = began.elapsed().as_secs_f64() * rayon::current_num_threads() as f64;
            let mut numbers = whole.scores(model, &metrics)?;
            numbers.push(seconds);
            numbers.extend(probabilities.as_slice().iter().copied().map(f64::from));
            Ok(numbers)
        })
    })?;
    let predicted_of = |numbers: &[f64]| {
        let probabilities = numbers[metrics.len() + 1..].iter().map(|&p| p as f32).collect();
        Matrix::from_vec(probabilities, judge_rows.len(), judge_data.answers())
    };
    let repeats = scored.split_off(states.len());
    let (numbers, target_seconds) = with_mean_seconds(scored);
    let scoring = numbers.iter().map(|numbers| numbers[metrics.len()]).sum::<f64>() / states.len() as f64;
    let predicted: Vec<Matrix> = numbers.iter().map(|numbers| predicted_of(numbers)).collect();
    let on_fold: Vec<Vec<f64>> = numbers
        .iter()
        .map(|numbers| numbers[..metrics.len()].to_vec())
        .collect();
    let targets = judge_data.targets_of(&judge_rows);
    let truth: Vec<f64> = predicted
        .iter()
        .map(|probabilities| report.score(probabilities, &targets))
        .collect();
    push(&mut rungs, ITSELF, &metrics, target_seconds, &on_fold);
    let size = states[0].1.len();
    let train_seconds = (target_seconds - scoring).max(0.0);
    let costs = Costs {
        search_seconds,
        train_seconds,
        everything_seconds: train_seconds * dataset.pool.len() as f64 / size.max(1) as f64,
    };
    let repeats: Vec<Matrix> = repeats.iter().map(|(numbers, _)| predicted_of(numbers)).collect();
    let repeats: Vec<&Matrix> = predicted.iter().take(1).chain(&repeats).collect();
    let telling = DetectableEffect::of(&predicted, &repeats, &targets, report, select.seed.derive("telling"));

    let seed = select.seed.derive("bootstrap");
    let checked: Vec<CheckedState> = states
        .iter()
        .enumerate()
        .map(|(i, (kind, _))| CheckedState {
            kind: kind.clone(),
            target: truth[i],
            rungs: rungs.iter().map(|rung| rung.3[i]).collect(),
        })
        .collect();
    let rungs: Vec<Rung> = rungs
        .into_iter()
        .map(|(model, metric, seconds, scores)| Rung {
            model,
            metric,
            agreement: Agreement::of(&scores, &truth, seed),
            seconds,
        })
        .collect();
    let record = CheckProxyRecord {
        version: VERSION,
        tamis: env!("CARGO_PKG_VERSION").to_owned(),
        read: ReadRecord::of(&dataset),
        metric: report.to_string(),
        rows: size as u64,
        target_rows: judge_rows.len() as u64,
        verdict: verdict(
            &rungs,
            &checked,
            (in_use(&settings.select), &prepared.settings.reward_metric().to_string()),
            &costs,
        ),
        states: checked,
        rungs,
        target_seconds,
        costs,
        telling,
        stages: stages.into_records(),
        settings: serde_json::to_value(settings).unwrap_or_default(),
    };
    json::write_json(&select.out.join("check_proxy.json"), &record)?;
    Ok(record)
}

/// What `select` would train with these settings to score a selection.
fn in_use(settings: &SelectSettings) -> &'static str {
    match settings.proxy {
        ProxyKind::Finetune => ITSELF,
        ProxyKind::Probe if settings.finetune_features.is_some() => ADAPTED,
        ProxyKind::Probe => FROZEN,
    }
}

/// Appends a rung for every metric; `scores[state][metric]`.
fn push(
    rungs: &mut Vec<(String, String, f64, Vec<f64>)>,
    name: &str,
    metrics: &[Metric],
    seconds: f64,
    scores: &[Vec<f64>],
) {
    for (i, metric) in metrics.iter().enumerate() {
        let column = scores.iter().map(|scores| scores[i]).collect();
        rungs.push((name.to_owned(), metric.to_string(), seconds, column));
    }
}

/// The scores, and the mean of their seconds.
fn with_mean_seconds<T>(scored: Vec<(T, f64)>) -> (Vec<T>, f64) {
    let count = scored.len().max(1) as f64;
    let (scores, seconds): (Vec<T>, Vec<f64>) = scored.into_iter().unzip();
    (scores, seconds.iter().sum::<f64>() / count)
}

/// Selections of the budget's size: random ones, and ones of another label mix, with more noise, with less variety.
fn drawn(
    settings: &CheckProxySettings,
    dataset: &Dataset,
    prepared: &Prepared,
    tuned: &Tuned,
) -> Result<Vec<(String, Vec<RowId>)>> {
    let seed = settings.select.seed.derive("states");
    let random = |i: usize| random_rows(&dataset.pool, &prepared.tokens, prepared.limit, seed.index(i as u64));
    let size = random(0).len();
    let mut states: Vec<(String, Vec<RowId>)> = (0..settings.states).map(|i| (RANDOM.to_owned(), random(i))).collect();
    for i in 0..settings.states {
        if !dataset.task.labels.is_empty() {
            let seed = seed.derive("tilted").index(i as u64);
            states.push(("another label mix".into(), tilted(dataset, size, seed)));
        }
    }
    let hard = hardest(dataset, tuned)?;
    for i in 0..settings.states {
        let seed = seed.derive("noisy").index(i as u64);
        let share = (i + 1) as f64 / (settings.states + 1) as f64;
        let mut some = hard.clone();
        some.shuffle(&mut seed.rng());
        some.truncate((size as f64 * share) as usize);
        let taken: std::collections::HashSet<RowId> = some.iter().copied().collect();
        let mut rest = dataset.pool.clone();
        rest.shuffle(&mut seed.derive("rest").rng());
        some.extend(
            rest.into_iter()
                .filter(|row| !taken.contains(row))
                .take(size - taken.len()),
        );
        some.sort_unstable();
        let share = taken.len() as f64 / size.max(1) as f64;
        states.push((format!("{:.0}% noisy", 100.0 * share), some));
    }
    for i in 0..settings.states {
        let seed = seed.derive("redundant").index(i as u64);
        states.push(("from few clusters".into(), redundant(&prepared.pool, size, seed)));
    }
    Ok(states)
}

/// Rows whose labels are drawn with random weights, e to the power of a number from -2 to 2.
fn tilted(dataset: &Dataset, size: usize, seed: Seed) -> Vec<RowId> {
    let mut rng = seed.rng();
    let weights: Vec<f64> = dataset
        .task
        .labels
        .iter()
        .map(|_| (4.0 * rng.random::<f64>() - 2.0).exp())
        .collect();
    // The rows of the largest u^(1/w) are a weighted sample (Efraimidis & Spirakis 2006).
    let mut keys: Vec<(f64, RowId)> = dataset
        .pool
        .iter()
        .map(|&row| {
            let weight = weights[dataset.train.examples[row as usize].target as usize];
            (rng.random::<f64>().ln() / weight, row)
        })
        .collect();
    keys.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut rows: Vec<RowId> = keys.into_iter().take(size).map(|(_, row)| row).collect();
    rows.sort_unstable();
    rows
}

/// The tenth of the pool that a probe trained on everything finds hardest: where labels are wrong, they are here.
fn hardest(dataset: &Dataset, tuned: &Tuned) -> Result<Vec<RowId>> {
    let losses = tuned.designs.losses(dataset, &tuned.at_everything)?;
    let mut rows = dataset.pool.clone();
    rows.sort_by(|&a, &b| losses[b as usize].total_cmp(&losses[a as usize]));
    rows.truncate(dataset.pool.len().div_ceil(10));
    Ok(rows)
}

/// Rows of as few random clusters as hold enough.
fn redundant(pool: &Pool, size: usize, seed: Seed) -> Vec<RowId> {
    let mut clusters: Vec<usize> = (0..pool.clusters()).collect();
    clusters.shuffle(&mut seed.rng());
    let mut rows: Vec<RowId> = Vec::new();
    for cluster in clusters {
        if rows.len() >= size {
            break;
        }
        rows.extend_from_slice(pool.cluster(cluster));
    }
    rows.truncate(size);
    rows.sort_unstable();
    rows
}

/// Where the record of a check is.
pub fn check_proxy_path(settings: &CheckProxySettings) -> PathBuf {
    settings.select.out.join("check_proxy.json")
}
