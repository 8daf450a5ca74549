//! Rules that sort the rows by one number: their length, their loss, whether they are doubted, or where their gradients point.
//!
//! Sources: Zhao et al., arXiv 2402.04833 (the longest rows); Pleiss et al. 2020 and Sorscher et al. 2022 (hard, easy and middling
//! rows); Xia et al., arXiv 2402.04333 (LESS); Li et al., arXiv 2308.12032 (IFD). We differ in four ways:
//!
//! 1. Lengths are counted in tokens of the input, since it is the whole row that costs, not the response alone.
//! 2. The loss is that of one ridge probe on frozen features, which has seen the row, not an average over training; of responses it is
//!    that of the language model before it is trained on any.
//! 3. LESS compares sketches of gradients in the pool's main directions, of one model and not of several checkpoints, without Adam's
//!    scaling.
//! 4. IFD's score without the prompt is that of the response behind the one token before it.

use std::cmp::Reverse;

use tamis_nn::seed::Seed;

use crate::stats::ranking::{falling, rising, shuffled};

/// The rows by falling number of tokens, ties at random.
pub(crate) fn longest(tokens: &[u32], seed: Seed) -> Vec<u32> {
    let mut order = shuffled(tokens.len(), seed);
    order.sort_by_key(|&row| Reverse(tokens[row as usize]));
    order
}

/// The rows by rising number of tokens, ties at random.
pub(crate) fn shortest(tokens: &[u32], seed: Seed) -> Vec<u32> {
    let mut order = shuffled(tokens.len(), seed);
    order.sort_by_key(|&row| tokens[row as usize]);
    order
}

/// Rows that are not doubted in random order, then the others likewise.
pub(crate) fn undoubted(doubted: &[bool], seed: Seed) -> Vec<u32> {
    let mut order = shuffled(doubted.len(), seed);
    order.sort_by_key(|&row| doubted[row as usize]);
    order
}

/// The rows by falling loss, ties by number.
pub(crate) fn hardest(losses: &[f32]) -> Vec<u32> {
    falling(losses)
}

/// The rows by rising loss, ties by number.
pub(crate) fn easiest(losses: &[f32]) -> Vec<u32> {
    rising(losses.len(), |row| losses[row])
}

/// The rows by rising distance of their loss from the median of all, ties by number.
pub(crate) fn median(losses: &[f32]) -> Vec<u32> {
    let mut sorted = losses.to_vec();
    sorted.sort_by(f32::total_cmp);
    let middle = |at: usize| sorted.get(at).copied().unwrap_or_default();
    let median = f32::midpoint(middle(sorted.len().saturating_sub(1) / 2), middle(sorted.len() / 2));
    rising(losses.len(), |row| (losses[row] - median).abs())
}

/// The rows by falling alignment, ties by number.
pub(crate) fn aligned(alignment: &[f32]) -> Vec<u32> {
    falling(alignment)
}

/// The rows by falling difficulty, first those below 1: what a prompt makes harder to say does not follow from it.
pub(crate) fn helped_least(difficulty: &[f32]) -> Vec<u32> {
    let mut order = falling(difficulty);
    order.sort_by_key(|&row| difficulty[row as usize] >= 1.0);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_sorted_and_ties_are_drawn() {
        let tokens = [3, 9, 3, 1, 3, 3];
        for seed in 0..20 {
            let longest = longest(&tokens, Seed(seed));
            assert_eq!((longest[0], longest[5]), (1, 3));
            let shortest = shortest(&tokens, Seed(seed));
            assert_eq!((shortest[0], shortest[5]), (3, 1));
        }
        assert_ne!(longest(&tokens, Seed(1)), longest(&tokens, Seed(2)));
    }

    #[test]
    fn doubted_rows_come_last_and_each_part_is_drawn() {
        let doubted = [true, false, false, true, false, false];
        for seed in 0..20 {
            let mut order = undoubted(&doubted, Seed(seed));
            order[..4].sort_unstable();
            order[4..].sort_unstable();
            assert_eq!(order, [1, 2, 4, 5, 0, 3]);
        }
        assert_ne!(undoubted(&doubted, Seed(1)), undoubted(&doubted, Seed(2)));
    }

    #[test]
    fn losses_are_sorted_and_ties_go_to_the_lower_row() {
        // The median of 0.1 0.2 0.2 0.4 0.9 3.0 is 0.3; the distances in row order are 0.1 2.7 0.1 0.2 0.6 0.1.
        let losses = [0.2, 3.0, 0.2, 0.1, 0.9, 0.4];
        assert_eq!(hardest(&losses), [1, 4, 5, 0, 2, 3]);
        assert_eq!(easiest(&losses), [3, 0, 2, 5, 4, 1]);
        assert_eq!(median(&[0.25, 3.0, 0.25, 0.125, 0.9, 0.5])[4..], [4, 1]);
        assert_eq!(median(&[5.0, 1.0, 2.0]), [2, 1, 0]);
        assert!(median(&[]).is_empty());
    }

    #[test]
    fn prompts_that_help_come_before_those_that_do_not() {
        assert_eq!(helped_least(&[0.4, 1.2, 0.9, 1.0, 2.0]), [2, 0, 4, 1, 3]);
    }
}
