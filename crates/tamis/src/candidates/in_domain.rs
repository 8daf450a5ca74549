//! The candidates in the domain of the validation rows.

use std::collections::BTreeMap;

use crate::{budget::Limit, candidates::domain::most_relevant, metrics::MetricKind};

/// Of each label of the reward fold, what share of a budget a selection may want; none where rows have no labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Quotas(BTreeMap<u32, f64>);

impl Quotas {
    /// Macro-F1 counts every label alike, so an even share; the others count rows, so the label's share of the fold.
    pub fn new(metric: MetricKind, labels: &[u32]) -> Self {
        let mut rows: BTreeMap<u32, f64> = BTreeMap::new();
        for &label in labels {
            *rows.entry(label).or_default() += 1.0;
        }
        let (labels, all) = (rows.len() as f64, labels.len() as f64);
        let share = |rows: f64| match metric {
            MetricKind::MacroF1 => 1.0 / labels,
            MetricKind::Accuracy | MetricKind::LogLoss => rows / all,
        };
        Self(rows.into_iter().map(|(label, rows)| (label, share(rows))).collect())
    }
}

/// The candidates as places in the pool, ascending: the rows at the front of `ranked` that `least` comes to, no fewer than two budgets
/// pay for, and of each label no fewer than its quota. `tokens[i]` and `labels[i]` are those of row `i` of the pool.
pub fn rows(ranked: &[u32], tokens: &[u32], labels: &[u32], least: Limit, budget: Limit, quotas: &Quotas) -> Vec<u32> {
    let front = |ranked: &[u32], limit| most_relevant(ranked, tokens, limit);
    let [typical, two_budgets] = [least, budget.times(2.0)].map(|limit| front(ranked, limit));
    let mut rows = if typical.len() > two_budgets.len() {
        typical
    } else {
        two_budgets
    };
    // The rows most like a fold may be nearly all of the label that it has most of.
    let mut by_label = ranked.to_vec();
    by_label.sort_by_key(|&row| labels[row as usize]);
    for of_label in by_label.chunk_by(|&a, &b| labels[a as usize] == labels[b as usize]) {
        if let Some(&share) = quotas.0.get(&labels[of_label[0] as usize]) {
            rows.extend(front(of_label, budget.times(share)));
        }
    }
    rows.sort_unstable();
    rows.dedup();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_choice_may_want_of_a_label_is_what_the_metric_counts_it_for() {
        let quotas = |metric| Quotas::new(metric, &[2, 0, 2, 2]).0.into_iter().collect::<Vec<_>>();
        assert_eq!(quotas(MetricKind::MacroF1), [(0, 0.5), (2, 0.5)]);
        assert_eq!(quotas(MetricKind::Accuracy), [(0, 0.25), (2, 0.75)]);
        assert_eq!(quotas(MetricKind::LogLoss), quotas(MetricKind::Accuracy));
    }

    #[test]
    fn candidates_are_typical_rows_two_budgets_at_least_and_a_quota_of_each_label() {
        let (ranked, tokens, labels) = ([4, 3, 2, 1, 0, 5], [1; 6], [1, 0, 0, 0, 0, 1]);
        let quotas = Quotas(BTreeMap::from([(0, 0.5), (1, 0.5)]));
        let rows = |least, budget| {
            rows(
                &ranked,
                &tokens,
                &labels,
                Limit::Rows(least),
                Limit::Rows(budget),
                &quotas,
            )
        };
        // Three typical rows, and of label 1, which none of them has, its best: a quota buys a row at least.
        assert_eq!(rows(3, 1), [0, 2, 3, 4]);
        // Two budgets pay for four rows, and half a budget for one of each label.
        assert_eq!(rows(3, 2), [0, 1, 2, 3, 4]);
    }
}
