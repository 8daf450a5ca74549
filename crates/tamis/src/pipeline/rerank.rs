//! The final choice among the best states of a search, by the confirm fold.

use tamis_nn::Fingerprint;

use crate::{
    Result,
    budget::{Limit, random_rows},
    data::RowId,
    metrics::Metric,
    pipeline::{context::Context, target::Target},
    records::selection::Finetuned,
    scorer::{
        batch::{Selection, score_all},
        finetune_batch::FinetuneBatch,
    },
    store::ScoreStore,
    target::TargetModel,
};

/// The place of the greatest score; ties go to the first.
pub(crate) fn best_of(scores: &[f64]) -> usize {
    (0..scores.len())
        .max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)))
        .unwrap_or(0)
}

/// Fine-tunes the target on each finalist and on as many random selections, and scores it on the confirm fold; `chosen` is the finalist
/// that does best by the reward's metric. Advances the monitor by one a fine-tune.
pub(crate) fn by_finetuning(
    context: Context<'_>,
    target: &Target,
    finalists: &[Vec<RowId>],
    tokens: &[u32],
    limit: Limit,
    store: &mut dyn ScoreStore,
) -> Result<Finetuned> {
    let (settings, confirm) = (context.settings, &context.folds.confirm);
    let metrics = [settings.reward_metric(), settings.report_metric()];
    let scorer = target.scorer(context, confirm, confirm.len(), metrics[0]);
    let seed = settings.seed.derive("controls");
    let random: Vec<Vec<RowId>> = (0..finalists.len() as u64)
        .map(|i| random_rows(&context.dataset.pool, tokens, limit, seed.index(i)))
        .collect();
    let seed = settings.seed.derive("proxy");
    let all = finalists.iter().chain(&random);
    let selections: Vec<Selection<'_>> = all.map(|rows| Selection { rows, seed }).collect();
    let question = |model: &dyn TargetModel| scorer.scores(model, &metrics);
    let name = Fingerprint::of(metrics.map(|metric: Metric| metric.to_string()));
    let batch = FinetuneBatch::new(&scorer, &name, &question);
    let answers = score_all(&batch, &selections, store, context.monitor())?;
    let scores = |metric: usize| {
        answers
            .iter()
            .map(|answer| answer.numbers[metric])
            .collect::<Vec<f64>>()
    };
    let (rewards, mut reports) = (scores(0), scores(1));
    let random = reports.split_off(finalists.len());
    Ok(Finetuned {
        metric: metrics[1].to_string(),
        chosen: best_of(&rewards[..finalists.len()]),
        finalists: reports,
        random,
    })
}
