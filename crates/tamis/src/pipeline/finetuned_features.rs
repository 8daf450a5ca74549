//! Features for the probe by a model that was fine-tuned on a part of the pool first.

use std::sync::Arc;

use tamis_nn::{
    Monitor, Seed,
    train::{Examples, TokenizedSplit},
};

use crate::{
    Result,
    budget::{Budget, limit_of, random_rows},
    data::RowId,
    embed::Embedded,
    pipeline::{context::Context, embed::SplitVectors, memory::unfrozen, target::Target},
    target::TargetModel,
};

impl Target {
    /// The features of every split by a copy of the model that is fine-tuned on these rows first: one vector a text or pair, one a choice.
    pub(crate) fn finetuned_features(&self, context: Context<'_>, rows: &[RowId]) -> Result<SplitVectors> {
        let (settings, stages) = (context.settings, context.stages);
        let steps = settings.finetune.train.steps(rows.len());
        let model = stages.run("fine-tune features", Some(steps), || self.finetuned_copy(context, rows))?;
        let examples = self.train.len() + self.validation.len() + self.test.as_ref().map_or(0, |test| test.len());
        stages.run("features", Some(examples as u64), || {
            let of = |split: &TokenizedSplit| features(&*model, split, context.monitor());
            Ok(SplitVectors {
                train: of(&self.train)?,
                validation: of(&self.validation)?,
                test: self.test.as_deref().map(of).transpose()?,
            })
        })
    }

    /// A copy of the model, fine-tuned on these rows. Advances the monitor by one a step.
    fn finetuned_copy(&self, context: Context<'_>, rows: &[RowId]) -> Result<Box<dyn TargetModel>> {
        let (settings, monitor) = (context.settings, context.monitor());
        let mut model = self.model.copy();
        let (train, seed) = (unfrozen(&settings.finetune.train), settings.seed.derive("adapt"));
        model.train(Examples::new(&self.train, rows), &train, seed, &mut || {
            monitor.advance(1);
            Ok(monitor.proceed()?)
        })?;
        Ok(model)
    }
}

/// The rows that the features are fine-tuned on: random ones, as many as the share of the pool pays for, none of them suspected of a label
/// error. Of a pool that was cut the share is one of the rows that stayed, and rows are those that were drawn at random.
pub(crate) fn rows_for_features(
    context: Context<'_>,
    share: Budget,
    tokens: &[u32],
    label_errors: &[bool],
) -> Result<Vec<RowId>> {
    let (dataset, seed) = (context.dataset, context.settings.seed.derive("adapt rows"));
    let drawn = dataset.random_pool();
    let unfit: Vec<bool> = (dataset.pool.iter().zip(label_errors))
        .map(|(row, &error)| error || drawn.binary_search(row).is_err())
        .collect();
    random_sound_rows(share, &dataset.pool, tokens, &unfit, seed)
}

/// The model's features of a split. Advances `monitor` by one an example.
fn features(model: &dyn TargetModel, split: &TokenizedSplit, monitor: &dyn Monitor) -> Result<Embedded> {
    Ok(Embedded {
        vectors: Arc::new(model.features(split, monitor)?),
        starts: split.example_starts(),
    })
}

/// Random rows that are not suspected of a label error, as many as the share of the whole pool pays for.
fn random_sound_rows(
    share: Budget,
    pool: &[RowId],
    tokens: &[u32],
    label_errors: &[bool],
    seed: Seed,
) -> Result<Vec<RowId>> {
    let limit = limit_of(share, tokens).map_err(|error| error.of_setting("finetune_features"))?;
    let (rows, tokens): (Vec<RowId>, Vec<u32>) = (0..label_errors.len())
        .filter(|&i| !label_errors[i])
        .map(|i| (pool[i], tokens[i]))
        .unzip();
    Ok(random_rows(&rows, &tokens, limit, seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_tuned_on_rows_without_label_errors_that_cost_a_share_of_the_whole_pool() {
        let pool = [2, 3, 5, 7, 11, 13];
        let errors = [false, true, false, false, true, false];
        let tokens = [4, 1, 4, 4, 1, 4];
        for seed in 0..5 {
            let rows = |budget| random_sound_rows(budget, &pool, &tokens, &errors, Seed(seed)).expect("rows");
            // Half of six rows are three, of the four that are left.
            let half = rows(Budget::Percent(50.0));
            assert!(
                half.len() == 3 && half.iter().all(|row| [2, 5, 7, 13].contains(row)),
                "{half:?}"
            );
            assert_eq!(rows(Budget::Tokens(9)).len(), 2);
            // No more than there are.
            assert_eq!(rows(Budget::Percent(100.0)), [2, 5, 7, 13]);
        }
    }
}
