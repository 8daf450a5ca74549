//! What the target itself says of the selections: fine-tuned on each, and scored on rows that no reward is made from.

use std::time::Instant;

use tamis_nn::{Fingerprint, Matrix, Silent};

use crate::{
    Result,
    commands::check_proxy::{
        CheckProxySettings,
        record::{DetectableEffect, Fidelity},
        rewards::{Reward, each_metric, mean_seconds, metrics, trainings, whole_fold},
        selections::Selection,
    },
    metrics::Metric,
    pipeline::{
        context::Context,
        target::{ScoredRows, Target},
    },
    scorer::batch::{self, score_all},
    store::{Answer, ScoreStore},
    target::TargetModel,
};

/// The target's scores.
pub(super) struct Truth {
    /// Shape `(selections,)`.
    pub(super) scores: Vec<f64>,
    /// What the fine-tuned targets score on the reward fold: rewards of the highest fidelity.
    pub(super) rewards: Vec<Reward>,
    /// On how many rows the target was scored.
    pub(super) rows: usize,
    /// Core-seconds of one fine-tune with its scoring, and of the scoring alone.
    pub(super) seconds: f64,
    pub(super) scoring_seconds: f64,
    pub(super) detectable_effect: Option<DetectableEffect>,
}

impl Truth {
    /// Fine-tunes the target on every selection, and on the first one with other seeds as well.
    pub(super) fn measure(
        context: Context<'_>,
        settings: &CheckProxySettings,
        target: &Target,
        selections: &[Selection],
        store: &mut dyn ScoreStore,
    ) -> Result<Self> {
        let scored = target.unrewarded_rows(context, settings.target_rows);
        let metrics = metrics(context);
        let mut answers = answers(context, settings, target, selections, &scored, store)?;
        let repeats = answers.split_off(selections.len());
        let probabilities = |answer: &Answer| {
            let numbers = &answer.numbers[metrics.len() + 1..];
            let numbers = numbers.iter().map(|&p| p as f32).collect();
            Matrix::from_vec(numbers, scored.rows.len(), scored.split.answers())
        };
        let predicted: Vec<Matrix> = answers.iter().map(probabilities).collect();
        let repeats: Vec<Matrix> = repeats.iter().map(probabilities).collect();
        let repeats: Vec<&Matrix> = predicted.iter().take(1).chain(&repeats).collect();
        let (report, targets) = (context.settings.report_metric(), scored.examples().classes());
        let seed = context.settings.seed.derive("telling");
        let (seconds, count) = (mean_seconds(&answers), answers.len() as f64);
        let on_fold: Vec<Vec<f64>> = answers
            .iter()
            .map(|answer| answer.numbers[..metrics.len()].to_vec())
            .collect();
        Ok(Self {
            scores: predicted
                .iter()
                .map(|probabilities| report.score(probabilities, &targets))
                .collect(),
            rewards: each_metric(Fidelity::Target, &metrics, seconds, &on_fold),
            rows: scored.rows.len(),
            scoring_seconds: answers.iter().map(|answer| answer.numbers[metrics.len()]).sum::<f64>() / count,
            seconds,
            detectable_effect: DetectableEffect::of(&predicted, &repeats, &targets, report, seed),
        })
    }
}

/// Of every fine-tuned target: its scores on the reward fold, the core-seconds of predicting the scored rows, and the probabilities
/// there.
fn answers(
    context: Context<'_>,
    settings: &CheckProxySettings,
    target: &Target,
    selections: &[Selection],
    scored: &ScoredRows<'_>,
    store: &mut dyn ScoreStore,
) -> Result<Vec<Answer>> {
    let (metrics, scorer) = (metrics(context), whole_fold(context, target));
    // The first selection is a random one; it is trained on with other seeds as well.
    let mut asked = trainings(context, selections);
    let (first, seed) = (asked[0], asked[0].seed.derive("repeats"));
    asked.extend((0..settings.repeats as u64).map(|i| batch::Selection {
        seed: seed.index(i),
        ..first
    }));
    let question = |model: &dyn TargetModel| {
        let began = Instant::now();
        let probabilities = model.predict(scored.examples(), &Silent)?;
        let seconds = began.elapsed().as_secs_f64() * rayon::current_num_threads() as f64;
        let mut numbers = scorer.scores(model, &metrics)?;
        numbers.push(seconds);
        numbers.extend(probabilities.as_slice().iter().copied().map(f64::from));
        Ok(numbers)
    };
    let rows: Vec<u8> = scored.rows.iter().flat_map(|row| row.to_le_bytes()).collect();
    let metrics = Fingerprint::of(metrics.iter().map(Metric::to_string));
    let name = Fingerprint::of([metrics.as_ref(), &rows]);
    let batch = target.batch(context.settings, &scorer, &name, &question);
    context.stages.run("target", Some(asked.len() as u64), || {
        score_all(&batch, &asked, store, context.monitor())
    })
}
