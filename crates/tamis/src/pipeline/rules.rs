//! Rows by a rule, from what a run knows of them.

use crate::{
    Error, Result,
    baselines::{Baseline, View},
    budget::Limit,
    data::{Dataset, RowId},
    pipeline::{candidates::Candidates, context::Context, probe::TunedProbe},
    vectors::subset,
};

/// The rows that a rule chooses, in ascending order, among some of the pool, which are named by their places in ascending order;
/// `at_everything` says what is hard to learn.
pub(crate) fn by_rule(
    rule: Baseline,
    context: Context<'_>,
    candidates: &Candidates,
    at_everything: &dyn TunedProbe,
    limit: Limit,
    among: &[u32],
) -> Result<Vec<RowId>> {
    let Dataset {
        train,
        validation,
        task,
        ..
    } = context.dataset;
    let rows: Vec<RowId> = of(&context.dataset.pool, among);
    let vectors = subset(&candidates.clustered.pool, among)?;
    let target = |&row: &RowId| {
        if task.labels.is_empty() {
            0
        } else {
            train.examples[row as usize].target
        }
    };
    let losses = || {
        let all = at_everything.losses(&rows)?;
        Ok(rows.iter().map(|&row| all[row as usize]).collect())
    };
    let view = View {
        vectors: &*vectors,
        texts: &|i| train.examples[rows[i] as usize].input.texts(),
        tokens: &of(&candidates.vectors.tokens, among),
        targets: &rows.iter().map(target).collect::<Vec<u32>>(),
        fold_vectors: &candidates.clustered.fold,
        fold_texts: &|i| validation.examples[context.folds.reward[i] as usize].input.texts(),
        doubted: &of(&candidates.label_errors, among),
        losses: &losses,
        alignment: &|| candidates.probe.alignment(&rows).ok_or_else(|| of_responses(rule)),
        alignment_in_subspace: &|| {
            let alignment = candidates.probe.alignment_in_subspace(&rows)?;
            alignment.ok_or_else(|| of_responses(rule))
        },
        difficulty: &|| {
            let gradients = candidates.vectors.gradients.as_ref();
            let prompts = gradients.map(|gradients| of(&gradients.prompts.difficulty, among));
            prompts.ok_or_else(|| of_responses(rule))
        },
    };
    let chosen = rule.choose(&view, limit, context.settings.seed, context.monitor())?;
    Ok(of(&rows, &chosen))
}

/// The values at these places.
fn of<T: Copy>(values: &[T], places: &[u32]) -> Vec<T> {
    places.iter().map(|&place| values[place as usize]).collect()
}

/// A rule that reads responses where there are none.
pub(crate) fn of_responses(rule: Baseline) -> Error {
    let expected = "rules for rows with labels or choices";
    let found = format!("`{rule}`, which is for prompts with responses");
    Error::setting("methods", expected, found).with_hint("leave it out")
}
