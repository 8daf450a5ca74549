//! Rows drawn at random until a budget is spent: the control beside every selection.

use rand::seq::SliceRandom;
use tamis_nn::seed::Seed;

use crate::{
    Error, Result,
    budget::{Budget, BudgetTracker, Limit},
    data::{Dataset, RowId},
};

/// What rows of the pool cost together; `pool` ascends, and `tokens[i]` is what row `pool[i]` costs.
pub fn tokens_of(rows: &[RowId], pool: &[RowId], tokens: &[u32]) -> u64 {
    let cost = |row| pool.binary_search(row).map_or(0, |i| u64::from(tokens[i]));
    rows.iter().map(cost).sum()
}

/// What a budget comes to in a pool whose rows cost `tokens`, one number a row.
///
/// # Errors
///
/// If it is more than the pool has, or not enough for a row.
pub fn limit_of(budget: Budget, tokens: &[u32]) -> Result<Limit> {
    let limit = budget.resolve(
        tokens.len() as u64,
        tokens.iter().map(|&tokens| u64::from(tokens)).sum(),
    )?;
    match limit {
        Limit::Tokens(most) if tokens.iter().all(|&tokens| u64::from(tokens) > most) => {
            Err(not_for_a_row(budget, tokens))
        }
        _ => Ok(limit),
    }
}

/// What is said of a budget that buys none of the rows that cost `tokens`.
pub(crate) fn not_for_a_row(budget: Budget, tokens: &[u32]) -> Error {
    let (least, most) = (tokens.iter().min().unwrap_or(&0), tokens.iter().max().unwrap_or(&0));
    let expected = format!("enough for one row (rows have {least} to {most} tokens)");
    Error::setting("budget", expected, format!("`{budget}`"))
}

/// Random rows of the pool that spend the limit as a selection would; `tokens[i]` is what row `pool[i]` costs, and
/// is read only where the limit is in tokens.
pub fn random_rows(pool: &[RowId], tokens: &[u32], limit: Limit, seed: Seed) -> Vec<RowId> {
    let mut order: Vec<u32> = (0..pool.len() as u32).collect();
    order.shuffle(&mut seed.rng());
    let mut purse = BudgetTracker::new(tokens, limit);
    purse.spend(order);
    purse.into_rows().into_iter().map(|i| pool[i as usize]).collect()
}

/// The control of a selection: random rows of all that could be chosen, most of which may have been left aside since. `tokens[i]` is what row
/// `dataset.pool[i]` costs.
pub fn random_control(dataset: &Dataset, tokens: &[u32], limit: Limit, seed: Seed) -> Vec<RowId> {
    let drawn = dataset.random_pool();
    if drawn.len() == dataset.pool.len() {
        return random_rows(&dataset.pool, tokens, limit, seed);
    }
    // Rows of a pool that was cut are 0, 1 and so on.
    let tokens: Vec<u32> = drawn.iter().map(|&row| tokens[row as usize]).collect();
    random_rows(drawn, &tokens, limit, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_spends_what_a_selection_spends() {
        let pool = [3, 5, 8, 9];
        assert_eq!(random_rows(&pool, &[1; 4], Limit::Rows(3), Seed(1)).len(), 3);
        let rows = random_rows(&pool, &[4, 4, 4, 4], Limit::Tokens(9), Seed(1));
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| pool.contains(row)) && rows[0] < rows[1]);
        assert_eq!(tokens_of(&[5, 9], &pool, &[1, 2, 4, 8]), 10);
    }

    #[test]
    fn a_budget_buys_a_row_at_least() {
        assert_eq!(limit_of(Budget::Tokens(2), &[5, 2]).expect("one row"), Limit::Tokens(2));
        let error = limit_of(Budget::Tokens(1), &[5, 2]).expect_err("none").to_string();
        assert!(
            error.contains("enough for one row (rows have 2 to 5 tokens)"),
            "{error}"
        );
    }
}
