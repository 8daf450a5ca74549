//! The validation rows in two: a *reward fold*, which the agent sees, and a *confirm fold*, which it never does.
//!
//! The rows of each label are shuffled and dealt out in turn, so that both folds have the label mix of the whole. The fold
//! that is dealt to first alternates over labels with an odd number of rows, which keeps the folds level. A label with a
//! single row goes to the reward fold, where it can still earn something. Rows of the same texts go to the same fold: a confirm fold that
//! repeats the reward fold's rows would confirm what was learned by heart.

use rand::seq::SliceRandom;
use tamis_nn::seed::Seed;

use crate::{Error, Result, data::Split};

/// The least number of rows that a fold may have.
const LEAST_ROWS: usize = 2;

/// Which validation rows, by their number, belong to which fold; both ascend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folds {
    /// The agent's rewards are scored on these.
    pub reward: Vec<u32>,
    /// The final choice among the agent's best states is made on these.
    pub confirm: Vec<u32>,
}

impl Folds {
    /// Splits the validation rows label by label.
    ///
    /// # Errors
    ///
    /// If a fold would have fewer than 2 rows.
    pub fn split(rows: &Split, seed: Seed) -> Result<Self> {
        Self::deal(&rows.targets(), &rows.firsts(), seed)
    }

    /// Deals out the first row of each text, behind which the others go; `firsts[i]` is the first row of the texts of row `i`.
    fn deal(targets: &[u32], firsts: &[u32], seed: Seed) -> Result<Self> {
        let mut by_label: std::collections::BTreeMap<u32, Vec<u32>> = std::collections::BTreeMap::new();
        for (row, (&target, &first)) in (0..).zip(targets.iter().zip(firsts)) {
            if row == first {
                by_label.entry(target).or_default().push(row);
            }
        }
        let mut rng = seed.derive("folds").rng();
        let mut confirms = vec![false; targets.len()];
        let mut confirm_first = false;
        for rows in by_label.values_mut() {
            rows.shuffle(&mut rng);
            let single = rows.len() == 1;
            for (turn, &row) in rows.iter().enumerate() {
                confirms[row as usize] = !single && (turn % 2 == 1) != confirm_first;
            }
            if !single && rows.len() % 2 == 1 {
                confirm_first = !confirm_first;
            }
        }
        let (confirm, reward): (Vec<u32>, Vec<u32>) =
            (0..targets.len() as u32).partition(|&row| confirms[firsts[row as usize] as usize]);
        if reward.len() < LEAST_ROWS || confirm.len() < LEAST_ROWS {
            return Err(Error::setting(
                "validation",
                format!("enough rows for a reward fold and a confirm fold of at least {LEAST_ROWS} rows each"),
                format!("{} rows, split {} and {}", targets.len(), reward.len(), confirm.len()),
            )
            .with_hint("give more validation rows, at least two of a label; a few hundred make a steady reward"));
        }
        Ok(Self { reward, confirm })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows of which no two have the same texts.
    fn dealt(targets: &[u32], seed: Seed) -> Result<Folds> {
        Folds::deal(targets, &(0..targets.len() as u32).collect::<Vec<_>>(), seed)
    }

    #[test]
    fn the_label_mix_is_kept_and_a_single_row_earns_rewards() {
        let targets = [0, 0, 0, 0, 1, 1, 1, 2, 1, 3, 3, 3];
        let folds = dealt(&targets, Seed(3)).expect("enough rows");
        let count = |fold: &[u32], label| fold.iter().filter(|&&row| targets[row as usize] == label).count();
        assert_eq!((count(&folds.reward, 0), count(&folds.confirm, 0)), (2, 2));
        assert_eq!((count(&folds.reward, 1), count(&folds.confirm, 1)), (2, 2));
        assert_eq!((count(&folds.reward, 2), count(&folds.confirm, 2)), (1, 0));
        assert_eq!(count(&folds.reward, 3) + count(&folds.confirm, 3), 3);
        assert_eq!(folds, dealt(&targets, Seed(3)).expect("enough rows"));
    }

    #[test]
    fn rows_of_the_same_texts_go_to_the_same_fold_whatever_their_labels() {
        let targets = [0, 0, 0, 0, 1, 1, 1, 0];
        let firsts = [0, 1, 0, 3, 4, 0, 4, 7];
        for seed in 0..20 {
            let folds = Folds::deal(&targets, &firsts, Seed(seed)).expect("enough rows");
            for fold in [&folds.reward, &folds.confirm] {
                for twins in [&[0, 2, 5][..], &[4, 6]] {
                    assert!([0, twins.len()].contains(&twins.iter().filter(|row| fold.contains(row)).count()));
                }
            }
            assert_eq!(folds.reward.len() + folds.confirm.len(), 8);
        }
    }

    #[test]
    fn too_few_rows_say_so() {
        let error = dealt(&[0, 1, 1], Seed(0)).expect_err("three rows are too few");
        assert!(error.to_string().contains("found 3 rows"), "{error}");
        assert!(error.is_input() && error.hint().is_some());
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_fold_and_no_label_leans(targets in prop::collection::vec(0u32..6, 12..80), seed: u64) {
            if let Ok(folds) = dealt(&targets, Seed(seed)) {
                let mut all: Vec<u32> = folds.reward.iter().chain(&folds.confirm).copied().collect();
                all.sort_unstable();
                prop_assert_eq!(all, (0..targets.len() as u32).collect::<Vec<_>>());
                for label in 0..6 {
                    let count = |fold: &[u32]| fold.iter().filter(|&&row| targets[row as usize] == label).count();
                    prop_assert!(count(&folds.reward).abs_diff(count(&folds.confirm)) <= 1);
                }
            }
        }
    }
}
