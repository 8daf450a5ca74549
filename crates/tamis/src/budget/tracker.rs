//! A budget that is spent row by row.

use crate::budget::Limit;

/// What is left of a limit, and the rows that it was spent on.
pub struct BudgetTracker<'a> {
    /// What each row costs; none where rows are counted.
    costs: Option<&'a [u32]>,
    left: u64,
    rows: Vec<u32>,
}

impl<'a> BudgetTracker<'a> {
    /// A full one; `tokens[i]` is what row `i` costs, and is read only where the limit is in tokens.
    pub fn new(tokens: &'a [u32], limit: Limit) -> Self {
        let (costs, left) = match limit {
            Limit::Rows(rows) => (None, rows),
            Limit::Tokens(most) => (Some(tokens), most),
        };
        Self {
            costs,
            left,
            rows: Vec::new(),
        }
    }

    /// Takes a row, or says that it does not fit: then the spending is over. The first row is taken at any price.
    pub fn take(&mut self, row: u32) -> bool {
        let cost = self.costs.map_or(1, |costs| u64::from(costs[row as usize]));
        if cost > self.left && !self.rows.is_empty() {
            return false;
        }
        self.left = self.left.saturating_sub(cost);
        self.rows.push(row);
        true
    }

    /// Takes rows in this order until one does not fit.
    pub fn spend(&mut self, order: impl IntoIterator<Item = u32>) {
        for row in order {
            if !self.take(row) {
                break;
            }
        }
    }

    /// Whether no row can be taken any more.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The rows in the order in which they were taken.
    pub(crate) fn into_order(self) -> Vec<u32> {
        self.rows
    }

    /// The rows in ascending order.
    pub fn into_rows(mut self) -> Vec<u32> {
        self.rows.sort_unstable();
        self.rows
    }
}
