//! The pool, cut before a language model passes over it: most of its rows are left aside for their words alone.
//!
//! Some of the rows that stay are drawn at random from all: nothing is ruled out by its words, and random selections, the control, are drawn
//! from them. The others are those most similar to rows of the reward fold, by the lexical embedder.

use crate::{
    Error, Result,
    baselines::similarity,
    budget::{BudgetTracker, Limit},
    data::RowId,
    embed::EmbedderSpec,
    pipeline::{context::Context, embed::embed},
    settings::select::SelectSettings,
    stats::ranking::shuffled,
};

/// The share of the rows that stay which is drawn at random, unless [`BUDGETS`] need more.
const DRAWN: f64 = 0.2;
/// How many random selections of the budget's size the drawn rows are enough for, at least: of fewer, random selections would be much the
/// same rows, and seem to vary less than they do. Of four they vary by √¾ of it.
const BUDGETS: usize = 4;

/// Rows of the pool that stay.
pub(crate) struct Kept {
    /// In ascending order.
    pub(crate) rows: Vec<RowId>,
    /// Those of them that were drawn at random, in ascending order.
    pub(crate) drawn: Vec<RowId>,
    /// What all of the pool costs in tokens.
    pub(crate) tokens: u64,
}

/// Which rows stay where at most `rows` may; none where the pool has no more.
///
/// # Errors
///
/// If half of them are too few to draw random selections from, or the user stopped the run.
pub(crate) fn prefilter(rows: usize, context: Context<'_>) -> Result<Option<Kept>> {
    let (settings, pool) = (context.settings, &context.dataset.pool);
    let (Some(responses), true) = (context.responses, rows < pool.len()) else {
        return Ok(None);
    };
    let tokens: Vec<u32> = pool.iter().map(|&row| responses.train.tokens_of(row) as u32).collect();
    let in_all = tokens.iter().map(|&tokens| u64::from(tokens)).sum();
    let limit = settings.budget.resolve(pool.len() as u64, in_all)?;
    let mut order = shuffled(pool.len(), settings.seed.derive("prefilter"));
    let needed = BUDGETS * cost(&order, &tokens, limit);
    if 2 * needed > rows {
        let (least, way_out) = (2 * needed, "keep more rows, or choose fewer with `budget`");
        let (expected, hint) = if least < pool.len() {
            (
                format!("at least {least} rows, {} times what this budget takes", 2 * BUDGETS),
                way_out,
            )
        } else {
            let expected = format!("a budget of at most an {}th of the pool beside it", 2 * BUDGETS);
            (expected, "leave it out, or choose fewer rows with `budget`")
        };
        return Err(Error::setting("prefilter", expected, rows.to_string()).with_hint(hint));
    }
    order.truncate(needed.max((DRAWN * rows as f64).ceil() as usize));
    let similar = most_similar(rows - order.len(), context)?;
    let named = |mut places: Vec<u32>| {
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|place| pool[place as usize]).collect()
    };
    Ok(Some(Kept {
        drawn: named(order.clone()),
        rows: named([order, similar].concat()),
        tokens: in_all,
    }))
}

/// How many rows, taken in this order, it takes to spend the limit.
fn cost(order: &[u32], tokens: &[u32], limit: Limit) -> usize {
    let mut left = match limit {
        Limit::Rows(rows) => return rows as usize,
        Limit::Tokens(most) => most,
    };
    let some_are_left = |row: &&u32| {
        let before = left;
        left = left.saturating_sub(u64::from(tokens[**row as usize]));
        before > 0
    };
    order.iter().take_while(some_are_left).count()
}

/// Rows of the pool, by their places, whose words are most like those of a row of the reward fold.
fn most_similar(rows: usize, context: Context<'_>) -> Result<Vec<u32>> {
    let settings = SelectSettings {
        embedder: EmbedderSpec::Lexical,
        model: None,
        ..context.settings.clone()
    };
    let context = context.with(&settings);
    let vectors = embed(context)?;
    let (pool, fold) = (vectors.of_pool(context)?, vectors.of_fold(context)?);
    context.stages.run("prefilter", None, || {
        let mut purse = BudgetTracker::new(&[], Limit::Rows(rows as u64));
        similarity::spend(
            &mut purse,
            rows as u64,
            (&*pool, &fold),
            settings.seed.derive("prefilter"),
            context.monitor(),
        )?;
        Ok(purse.into_rows())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_spent_by_the_row_that_reaches_it() {
        let (order, tokens) = ([2, 0, 1], [5, 7, 3]);
        assert_eq!(cost(&order, &tokens, Limit::Rows(2)), 2);
        for (most, rows) in [(1, 1), (3, 1), (4, 2), (8, 2), (9, 3), (15, 3)] {
            assert_eq!(cost(&order, &tokens, Limit::Tokens(most)), rows, "{most}");
        }
    }
}
