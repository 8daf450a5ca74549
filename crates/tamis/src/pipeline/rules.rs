//! Rows by a rule, from what a run knows of them.

use crate::{
    Error, Result,
    baselines::{Baseline, View},
    budget::Limit,
    data::{Dataset, RowId},
    pipeline::{candidates::Candidates, context::Context, probe::TunedProbe},
};

/// The rows that a rule chooses, in ascending order; `at_everything` says what is hard to learn.
pub(crate) fn by_rule(
    rule: Baseline,
    context: Context<'_>,
    candidates: &Candidates,
    at_everything: &dyn TunedProbe,
    limit: Limit,
) -> Result<Vec<RowId>> {
    let Dataset {
        train,
        validation,
        pool,
        task,
        ..
    } = context.dataset;
    let target = |&row: &RowId| {
        if task.labels.is_empty() {
            0
        } else {
            train.examples[row as usize].target
        }
    };
    let losses = || {
        let all = at_everything.losses(pool)?;
        Ok(pool.iter().map(|&row| all[row as usize]).collect())
    };
    let view = View {
        vectors: &*candidates.clustered.pool,
        texts: &|i| train.examples[pool[i] as usize].input.texts(),
        tokens: &candidates.vectors.tokens,
        targets: &pool.iter().map(target).collect::<Vec<u32>>(),
        fold_vectors: &candidates.clustered.fold,
        fold_texts: &|i| validation.examples[context.folds.reward[i] as usize].input.texts(),
        doubted: &candidates.label_errors,
        losses: &losses,
        alignment: &|| candidates.probe.alignment(pool).ok_or_else(|| of_responses(rule)),
        alignment_in_subspace: &|| {
            let alignment = candidates.probe.alignment_in_subspace(pool)?;
            alignment.ok_or_else(|| of_responses(rule))
        },
        difficulty: &|| {
            let gradients = candidates.vectors.gradients.as_ref();
            let prompts = gradients.map(|gradients| gradients.prompts.difficulty.clone());
            prompts.ok_or_else(|| of_responses(rule))
        },
    };
    let chosen = rule.choose(&view, limit, context.settings.seed, context.monitor())?;
    Ok(chosen.into_iter().map(|i| pool[i as usize]).collect())
}

/// A rule that reads responses where there are none.
pub(crate) fn of_responses(rule: Baseline) -> Error {
    let expected = "rules for rows with labels or choices";
    let found = format!("`{rule}`, which is for prompts with responses");
    Error::setting("methods", expected, found).with_hint("leave it out")
}
