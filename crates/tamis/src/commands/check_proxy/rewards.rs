//! What each reward says of the selections.

use std::time::Instant;

use rayon::prelude::*;
use tamis_nn::{Fingerprint, Seed};

use crate::{
    Result,
    commands::check_proxy::{
        forms,
        record::{CheckedReward, Fidelity, RowScore},
        selections::Selection,
    },
    data::RowId,
    metrics::Metric,
    pipeline::{
        candidates::Candidates,
        context::Context,
        probe::{Fold, TunedProbe},
        stages::cpu_seconds,
        target::Target,
    },
    scorer::{
        batch::{self, score_all},
        finetune::FinetuneScorer,
    },
    stats::agreement::Agreement,
    store::{Answer, ScoreStore},
    target::TargetModel,
};

/// The scores of every selection by one reward.
pub(super) struct Reward {
    pub(super) fidelity: Fidelity,
    metric: Metric,
    /// Of one score, on one core.
    seconds: f64,
    /// Shape `(selections,)`.
    pub(super) scores: Vec<f64>,
}

impl Reward {
    /// How well it ranks the selections as the target does.
    pub(super) fn compared(self, target: &[f64], seed: Seed) -> CheckedReward {
        CheckedReward {
            fidelity: self.fidelity,
            metric: self.metric,
            agreement: Agreement::of(&self.scores, target, seed),
            seconds: self.seconds,
        }
    }
}

/// The metrics that every model's probabilities are scored by.
pub(super) fn metrics(context: Context<'_>) -> Vec<Metric> {
    forms(context)
        .iter()
        .map(|form| form.of(context.settings.metric))
        .collect()
}

/// A reward for every metric; `scores[selection][metric]`.
pub(super) fn each_metric(fidelity: Fidelity, metrics: &[Metric], seconds: f64, scores: &[Vec<f64>]) -> Vec<Reward> {
    let reward = |(i, &metric): (usize, &Metric)| Reward {
        fidelity,
        metric,
        seconds,
        scores: scores.iter().map(|scores| scores[i]).collect(),
    };
    metrics.iter().enumerate().map(reward).collect()
}

/// Rewards of responses for which nothing is trained: means over a selection of what a row is by itself.
pub(super) fn of_rows(context: Context<'_>, candidates: &Candidates, selections: &[Selection]) -> Result<Vec<Reward>> {
    let (pool, clustered) = (&context.dataset.pool, &candidates.clustered);
    let Some(alignment) = candidates.probe.alignment(pool) else {
        return Ok(Vec::new());
    };
    let mut centre = vec![0.0; clustered.fold.cols()];
    for vector in clustered.fold.iter_rows() {
        let share = 1.0 / clustered.fold.rows() as f32;
        centre.iter_mut().zip(vector).for_each(|(mean, x)| *mean += share * x);
    }
    let similarity = |vector: &[f32]| vector.iter().zip(&centre).map(|(x, c)| x * c).sum::<f32>();
    let tokens = candidates.vectors.tokens.iter().map(|&tokens| tokens as f32);
    let scores = [
        (
            RowScore::Similarity,
            clustered.pool.to_matrix()?.iter_rows().map(similarity).collect(),
        ),
        (RowScore::Alignment, alignment),
        (RowScore::Tokens, tokens.collect::<Vec<f32>>()),
    ];
    let place = |row: &RowId| pool.binary_search(row).expect("a row of the pool");
    let reward = |(score, of_row): (RowScore, Vec<f32>)| {
        let began = Instant::now();
        let mean = |selection: &Selection| {
            let sum: f64 = selection.rows.iter().map(|row| f64::from(of_row[place(row)])).sum();
            sum / selection.rows.len().max(1) as f64
        };
        Reward {
            fidelity: Fidelity::Rows(score),
            metric: context.settings.report_metric(),
            scores: selections.iter().map(mean).collect(),
            seconds: began.elapsed().as_secs_f64() / selections.len().max(1) as f64,
        }
    };
    Ok(scores.into_iter().map(reward).collect())
}

/// The rewards of a probe.
pub(super) fn of_probe(
    context: Context<'_>,
    fidelity: Fidelity,
    probe: &dyn TunedProbe,
    selections: &[Selection],
) -> Result<Vec<Reward>> {
    let (began, metrics) = (cpu_seconds(), metrics(context));
    // Each metric at the temperature that rewards have there.
    let score = |rows: &[u32], metric: Metric| Ok(probe.scores(rows, metric, &[Fold::Reward], &[metric])?[0][0]);
    let scores: Vec<Vec<f64>> = selections
        .par_iter()
        .map(|selection| metrics.iter().map(|&metric| score(&selection.rows, metric)).collect())
        .collect::<Result<_>>()?;
    let seconds = (cpu_seconds() - began) / (selections.len() * metrics.len()) as f64;
    Ok(each_metric(fidelity, &metrics, seconds, &scores))
}

/// Fine-tunes that cost less than the target's.
pub(super) fn lower_fidelities(context: Context<'_>, target: &Target) -> Vec<(Fidelity, FinetuneScorer)> {
    let layers = target.freezable_layers();
    let scorer = |change: &dyn Fn(&mut crate::settings::SelectSettings)| {
        let mut changed = context.settings.clone();
        change(&mut changed);
        whole_fold(context.with(&changed), target)
    };
    let mut lower: Vec<(Fidelity, FinetuneScorer)> = [1, 2]
        .into_iter()
        .filter(|&top| top < layers)
        .map(|top| {
            let scorer = scorer(&|settings| settings.finetune.train.freeze_layers = Some(layers - top));
            (Fidelity::TopLayers { top, layers }, scorer)
        })
        .collect();
    lower.push((
        Fidelity::OneEpoch,
        scorer(&|settings| settings.finetune.train.epochs = 1),
    ));
    lower
}

/// The slow scorer on all of the reward fold.
pub(super) fn whole_fold(context: Context<'_>, target: &Target) -> FinetuneScorer {
    let fold = &context.folds.reward;
    target.scorer(context, fold, fold.len(), context.settings.report_metric())
}

/// The rewards of a fine-tune.
pub(super) fn of_finetune(
    context: Context<'_>,
    fidelity: Fidelity,
    (target, scorer): (&Target, &FinetuneScorer),
    selections: &[Selection],
    store: &mut dyn ScoreStore,
) -> Result<Vec<Reward>> {
    let metrics = metrics(context);
    let question = |model: &dyn TargetModel| scorer.scores(model, &metrics);
    let name = Fingerprint::of(metrics.iter().map(Metric::to_string));
    let batch = target.batch(context.settings, scorer, &name, &question);
    let asked = trainings(context, selections);
    let answers = context.stages.run("fine-tune", Some(asked.len() as u64), || {
        score_all(&batch, &asked, store, context.monitor())
    })?;
    let seconds = mean_seconds(&answers);
    let scores: Vec<Vec<f64>> = answers.into_iter().map(|answer| answer.numbers).collect();
    Ok(each_metric(fidelity, &metrics, seconds, &scores))
}

/// A training on every selection, all with the seed that rewards have.
pub(super) fn trainings<'s>(context: Context<'_>, selections: &'s [Selection]) -> Vec<batch::Selection<'s>> {
    let seed = context.settings.seed.derive("proxy");
    let training = |selection: &'s Selection| batch::Selection {
        rows: &selection.rows,
        seed,
    };
    selections.iter().map(training).collect()
}

/// The mean of the answers' seconds.
pub(super) fn mean_seconds(answers: &[Answer]) -> f64 {
    answers.iter().map(|answer| answer.seconds).sum::<f64>() / answers.len().max(1) as f64
}
