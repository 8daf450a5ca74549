//! The final choice among the best states of a search, by the confirm fold.

use tamis_nn::Fingerprint;

use crate::{
    Result,
    budget::{Limit, random_control},
    data::RowId,
    metrics::Metric,
    pipeline::{context::Context, target::Target},
    records::selection::{Finetuned, TRAINER},
    scorer::batch::{BatchScorer, Selection, score_all},
    stats::one_standard_error::best_of,
    store::ScoreStore,
    target::TargetModel,
};

/// Fine-tunes the target on each finalist and on as many random selections, and scores it on the confirm fold; `chosen` is the finalist
/// that does best by the reward's metric. Advances the monitor by one a fine-tune.
pub(crate) fn by_finetuning(
    context: Context<'_>,
    target: &Target,
    compared: &Compared<'_>,
    store: &mut dyn ScoreStore,
) -> Result<Finetuned> {
    let (settings, confirm) = (context.settings, &context.folds.confirm);
    let metrics = [settings.reward_metric(), settings.report_metric()];
    let scorer = target.scorer(context, confirm, confirm.len(), metrics[0]);
    let question = |model: &dyn TargetModel| scorer.scores(model, &metrics);
    let name = Fingerprint::of(metrics.map(|metric: Metric| metric.to_string()));
    let batch = target.batch(settings, &scorer, &name, &question);
    compared.by(context, &batch, (1, &metrics[1].to_string()), store)
}

/// Asks the user's trainer for a score of each finalist and of as many random selections. Advances the monitor by one a score.
pub(crate) fn by_trainer(
    context: Context<'_>,
    trainer: &dyn BatchScorer,
    compared: &Compared<'_>,
    store: &mut dyn ScoreStore,
) -> Result<Finetuned> {
    compared.by(context, trainer, (0, TRAINER), store)
}

/// The best states of a search, to be compared by training on each, and the limit that random selections beside them spend.
pub(crate) struct Compared<'a> {
    pub(crate) finalists: &'a [Vec<RowId>],
    /// What each row of the pool costs, shape `(pool,)`.
    pub(crate) tokens: &'a [u32],
    pub(crate) limit: Limit,
}

impl Compared<'_> {
    /// The scorer's first number chooses; the one at `place` is reported as `metric`.
    fn by(
        &self,
        context: Context<'_>,
        scorer: &dyn BatchScorer,
        (place, metric): (usize, &str),
        store: &mut dyn ScoreStore,
    ) -> Result<Finetuned> {
        let settings = context.settings;
        let seed = settings.seed.derive("controls");
        let random: Vec<Vec<RowId>> = (0..self.finalists.len() as u64)
            .map(|i| random_control(context.dataset, self.tokens, self.limit, seed.index(i)))
            .collect();
        let seed = settings.seed.derive("proxy");
        let all = self.finalists.iter().chain(&random);
        let selections: Vec<Selection<'_>> = all.map(|rows| Selection { rows, seed }).collect();
        let answers = score_all(scorer, &selections, store, context.monitor())?;
        let rewards: Vec<f64> = answers.iter().map(|answer| answer.numbers[0]).collect();
        let mut reports: Vec<f64> = answers.iter().map(|answer| answer.numbers[place]).collect();
        let random = reports.split_off(self.finalists.len());
        Ok(Finetuned {
            metric: metric.to_owned(),
            chosen: best_of(rewards[..self.finalists.len()].iter().copied()),
            finalists: reports,
            random,
        })
    }
}
