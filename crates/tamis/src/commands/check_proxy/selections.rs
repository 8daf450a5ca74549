//! The selections that rewards are compared on: drawn ones of several kinds, and what a search makes of each reward.

use std::{collections::HashSet, sync::Arc};

use rand::{RngExt, seq::SliceRandom};
use tamis_nn::Seed;

use crate::{
    Result,
    baselines::Baseline,
    budget::random_rows,
    commands::check_proxy::{
        forms,
        record::{Fidelity, SelectionKind},
    },
    data::{Dataset, RowId},
    env::pool::Pool,
    pipeline::{
        candidates::Candidates,
        context::Context,
        probe::{MOMENTS_MEMORY, TunedProbe},
        rules::by_rule,
        search::{Chunks, Finalist, Rewards, search},
    },
    problem::Limits,
    store::ScoreStore,
};

/// Rows of the budget's size, and how they were made.
pub(super) struct Selection {
    pub(super) kind: SelectionKind,
    /// In ascending order.
    pub(super) rows: Vec<RowId>,
}

/// Selections of the budget's size, so many of each kind: random ones, and ones of another label mix, with more noise, with less variety.
pub(super) fn drawn(
    context: Context<'_>,
    each: usize,
    candidates: &Candidates,
    chunks: &Chunks,
    at_everything: &dyn TunedProbe,
) -> Result<Vec<Selection>> {
    let (dataset, tokens) = (context.dataset, &candidates.vectors.tokens);
    let seed = context.settings.seed.derive("states");
    let random = |i: usize| random_rows(&dataset.pool, tokens, chunks.limit, seed.index(i as u64));
    let size = random(0).len();
    let hard = hardest(&dataset.pool, at_everything)?;
    let selection = |kind, rows| Selection { kind, rows };
    let mut drawn: Vec<Selection> = (0..each).map(|i| selection(SelectionKind::Random, random(i))).collect();
    if !dataset.task.labels.is_empty() {
        drawn.extend((0..each).map(|i| {
            let seed = seed.derive("tilted").index(i as u64);
            selection(SelectionKind::OtherLabelMix, tilted(dataset, size, seed))
        }));
    }
    drawn.extend((0..each).map(|i| {
        let share = (i + 1) as f64 / (each + 1) as f64;
        noisy(&dataset.pool, &hard, size, share, seed.derive("noisy").index(i as u64))
    }));
    drawn.extend((0..each).map(|i| {
        let seed = seed.derive("redundant").index(i as u64);
        selection(SelectionKind::FewClusters, redundant(&chunks.pool, size, seed))
    }));
    Ok(drawn)
}

/// The rules whose choices are compared beside drawn selections, where rows have responses.
const RULES: [Baseline; 7] = [
    Baseline::Similarity,
    Baseline::Less,
    Baseline::Gist,
    Baseline::Frequency,
    Baseline::Shortest,
    Baseline::Longest,
    Baseline::Easiest,
];

/// What rules choose of responses.
pub(super) fn by_rules(
    context: Context<'_>,
    candidates: &Candidates,
    chunks: &Chunks,
    at_everything: &dyn TunedProbe,
) -> Result<Vec<Selection>> {
    let (rules, all) = (context.responses.map_or(&[][..], |_| &RULES), candidates.all());
    rules
        .iter()
        .map(|&rule| {
            Ok(Selection {
                kind: SelectionKind::Rule(rule),
                rows: by_rule(rule, context, candidates, at_everything, chunks.limit, &all)?,
            })
        })
        .collect()
}

/// What the agent of the settings chooses under each probe and form of the metric.
pub(super) fn searched(
    context: Context<'_>,
    chunks: &Chunks,
    probes: &[(Fidelity, Arc<dyn TunedProbe>)],
    store: &mut dyn ScoreStore,
) -> Result<Vec<Selection>> {
    // One seed for all searches, which is not that of a selection.
    let mut settings = context.settings.clone();
    settings.seed = context.settings.seed.derive("check");
    let limits = Limits::evaluations(settings.max_evaluations);
    let total = settings.max_evaluations * (probes.len() * forms(context).len()) as u64;
    context.stages.run("search", Some(total), || {
        let mut found = Vec::new();
        for (fidelity, probe) in probes {
            for form in forms(context) {
                let metric = form.of(settings.metric);
                let scorer = probe.scorer(metric, MOMENTS_MEMORY)?;
                let rewards = Rewards {
                    probe: &*scorer,
                    slow: None,
                };
                let problem = rewards.pose(context, chunks, &mut *store, limits, settings.seed)?;
                if let Some(Finalist { mut rows, .. }) =
                    search(problem, chunks, &settings)?.finalists.into_iter().next()
                {
                    rows.sort_unstable();
                    let fidelity = *fidelity;
                    found.push(Selection {
                        kind: SelectionKind::Searched { fidelity, metric },
                        rows,
                    });
                }
            }
        }
        Ok(found)
    })
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

/// Rows of which a share is drawn from the hardest ones, the rest from all others.
fn noisy(pool: &[RowId], hard: &[RowId], size: usize, share: f64, seed: Seed) -> Selection {
    let mut rows = hard.to_vec();
    rows.shuffle(&mut seed.rng());
    rows.truncate((size as f64 * share) as usize);
    let taken: HashSet<RowId> = rows.iter().copied().collect();
    let mut rest = pool.to_vec();
    rest.shuffle(&mut seed.derive("rest").rng());
    let others = rest.into_iter().filter(|row| !taken.contains(row));
    rows.extend(others.take(size - taken.len()));
    rows.sort_unstable();
    let share = taken.len() as f64 / size.max(1) as f64;
    Selection {
        kind: SelectionKind::Noisy {
            percent: (100.0 * share).round() as u32,
        },
        rows,
    }
}

/// The tenth of the pool that a probe trained on everything finds hardest: where labels are wrong, they are here.
fn hardest(pool: &[RowId], at_everything: &dyn TunedProbe) -> Result<Vec<RowId>> {
    let losses = at_everything.losses(pool)?;
    let mut rows = pool.to_vec();
    rows.sort_by(|&a, &b| losses[b as usize].total_cmp(&losses[a as usize]));
    rows.truncate(pool.len().div_ceil(10));
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
