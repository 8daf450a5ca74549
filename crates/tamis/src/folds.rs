//! The validation rows in two: a *reward fold*, which the agent sees, and a *confirm fold*, which it never does.
//!
//! The rows of each label are shuffled and dealt out in turn, so that both folds have the label mix of the whole. The fold
//! that is dealt to first alternates over labels with an odd number of rows, which keeps the folds level. A label with a
//! single row goes to the reward fold, where it can still earn something.

use rand::seq::SliceRandom;

use crate::{Error, Result, seed::Seed};

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
    /// Splits the validation rows whose targets these are, label by label.
    ///
    /// # Errors
    ///
    /// If a fold would have fewer than 2 rows.
    pub fn split(targets: &[u32], seed: Seed) -> Result<Self> {
        let mut by_label: std::collections::BTreeMap<u32, Vec<u32>> = std::collections::BTreeMap::new();
        for (row, &target) in targets.iter().enumerate() {
            by_label.entry(target).or_default().push(row as u32);
        }
        let mut rng = seed.derive("folds").rng();
        let (mut reward, mut confirm) = (Vec::new(), Vec::new());
        let mut confirm_first = false;
        for rows in by_label.values_mut() {
            rows.shuffle(&mut rng);
            let single = rows.len() == 1;
            for (turn, &row) in rows.iter().enumerate() {
                let to_confirm = !single && (turn % 2 == 1) != confirm_first;
                if to_confirm {
                    confirm.push(row);
                } else {
                    reward.push(row);
                }
            }
            if !single && rows.len() % 2 == 1 {
                confirm_first = !confirm_first;
            }
        }
        reward.sort_unstable();
        confirm.sort_unstable();
        if reward.len() < LEAST_ROWS || confirm.len() < LEAST_ROWS {
            return Err(Error::setting(
                "--validation",
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

    #[test]
    fn the_label_mix_is_kept_and_a_single_row_earns_rewards() {
        let targets = [0, 0, 0, 0, 1, 1, 1, 2, 1, 3, 3, 3];
        let folds = Folds::split(&targets, Seed(3)).expect("enough rows");
        let count = |fold: &[u32], label| fold.iter().filter(|&&row| targets[row as usize] == label).count();
        assert_eq!((count(&folds.reward, 0), count(&folds.confirm, 0)), (2, 2));
        assert_eq!((count(&folds.reward, 1), count(&folds.confirm, 1)), (2, 2));
        assert_eq!((count(&folds.reward, 2), count(&folds.confirm, 2)), (1, 0));
        assert_eq!(count(&folds.reward, 3) + count(&folds.confirm, 3), 3);
        assert_eq!(folds, Folds::split(&targets, Seed(3)).expect("enough rows"));
    }

    #[test]
    fn too_few_rows_say_so() {
        let error = Folds::split(&[0, 1, 1], Seed(0)).expect_err("three rows are too few");
        assert!(error.to_string().contains("found 3 rows"), "{error}");
        assert!(error.is_input() && error.hint().is_some());
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_fold_and_no_label_leans(targets in prop::collection::vec(0u32..6, 12..80), seed: u64) {
            if let Ok(folds) = Folds::split(&targets, Seed(seed)) {
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
