//! The mean one-against-rest AUC: how well each class's probability ranks its rows above all others.
//!
//! ```text
//! AUC_c = (pairs of a row of c and another row where p_c is higher, + half of the tied pairs) / (all such pairs)
//! ```
//!
//! That is the Mann-Whitney statistic. Pairs are counted as whole numbers, so the order of rows plays no part. Sources: Mann
//! & Whitney 1947; Hanley & McNeil 1982; Provost & Domingos 2000 (one against rest), here without weights. It equals
//! scikit-learn's `roc_auc_score(average="macro", multi_class="ovr")`, save that a class without positives or without
//! negatives among the targets is left out and not an error.

use tamis_nn::Matrix;

use crate::metrics::rows;

/// The mean over the classes that have positives and negatives; 0.5, which is chance, where no class has.
pub(crate) fn score(probabilities: &Matrix, targets: &[u32]) -> f64 {
    let counts = class_counts(probabilities.cols(), targets);
    let (mut sum, mut classes) = (0.0, 0);
    let (mut positives, mut negatives) = (Vec::new(), Vec::new());
    for c in ranked_classes(&counts, targets.len()) {
        positives.clear();
        negatives.clear();
        for (row, y) in rows(probabilities, targets) {
            if y == c {
                positives.push(row[c]);
            } else {
                negatives.push(row[c]);
            }
        }
        positives.sort_unstable_by(f32::total_cmp);
        // Twice the pairs won: two for each positive above, one for each that is equal.
        let twice: usize = negatives
            .iter()
            .map(|x| {
                let below = positives.partition_point(|p| p < x);
                let not_above = below + positives[below..].partition_point(|p| p <= x);
                2 * (positives.len() - not_above) + (not_above - below)
            })
            .sum();
        sum += twice as f64 / (2 * positives.len() * negatives.len()) as f64;
        classes += 1;
    }
    if classes == 0 { 0.5 } else { sum / f64::from(classes) }
}

/// The slope of the surrogate: the mean over the same classes of the mean p_c of its rows less that of all others.
pub(crate) fn slope(targets: &[u32], slope: &mut Matrix) {
    let counts = class_counts(slope.cols(), targets);
    let classes = ranked_classes(&counts, targets.len()).count().max(1) as f64;
    for c in ranked_classes(&counts, targets.len()) {
        let positive = (1.0 / (classes * counts[c] as f64)) as f32;
        let negative = (-1.0 / (classes * (targets.len() - counts[c]) as f64)) as f32;
        for (i, &y) in targets.iter().enumerate() {
            slope.row_mut(i)[c] = if y as usize == c { positive } else { negative };
        }
    }
}

fn class_counts(classes: usize, targets: &[u32]) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for &y in targets {
        counts[y as usize] += 1;
    }
    counts
}

/// The classes that have both positives and negatives among `n` rows.
fn ranked_classes(counts: &[usize], n: usize) -> impl Iterator<Item = usize> {
    (0..counts.len()).filter(move |&c| counts[c] > 0 && counts[c] < n)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::Metric;

    fn auc(rows: &[&[f32]], targets: &[u32]) -> f64 {
        Metric::Auc.score(&Matrix::from_vec(rows.concat(), rows.len(), rows[0].len()), targets)
    }

    #[test]
    fn pairs_are_counted_as_the_hand_counts_them() {
        // Class 1: .6 > .2, .6 = .6 (half), .7 > .2, .7 > .6: 3.5 of 4. Class 0, the other way round: the same.
        // sklearn: roc_auc_score([0, 0, 1, 1], [.2, .6, .6, .7]) = 0.875
        let two: [&[f32]; 4] = [&[0.8, 0.2], &[0.4, 0.6], &[0.4, 0.6], &[0.3, 0.7]];
        assert_eq!(auc(&two, &[0, 0, 1, 1]), 0.875);
        // Class 0: .5 over .6 and .1: 1 of 2. Class 1: .3 over .2 and .3: 1.5 of 2. Class 2: .6 over .3 and .1: 2 of 2.
        // sklearn: roc_auc_score([0, 1, 2], rows, multi_class="ovr") = 0.75
        let three: [&[f32]; 3] = [&[0.5, 0.2, 0.3], &[0.6, 0.3, 0.1], &[0.1, 0.3, 0.6]];
        assert_eq!(auc(&three, &[0, 1, 2]), 0.75);
        // Class 2 has no positives and is left out. Class 0: .5 and .1 are both below .6: 0 of 2. Class 1: .3 is above .2 and
        // equal to .3: 1.5 of 2.
        assert_eq!(auc(&three, &[0, 1, 0]), f64::midpoint(0.0, 0.75));
    }

    #[test]
    fn predictions_all_alike_and_targets_all_alike_are_chance() {
        let rows: [&[f32]; 3] = [&[0.5, 0.2, 0.3], &[0.5, 0.2, 0.3], &[0.5, 0.2, 0.3]];
        assert_eq!(auc(&rows, &[0, 1, 2]), 0.5);
        assert_eq!(auc(&[&[0.9, 0.1], &[0.2, 0.8]], &[1, 1]), 0.5);
    }

    #[test]
    fn the_slope_is_that_of_the_difference_of_means() {
        // Class 0: one positive, two negatives. Class 1: two and one. Class 2 is not among the targets. Two classes count.
        let slope = Metric::Auc.slope(&Matrix::zeros(3, 3), &[0, 1, 1]);
        let want = [0.5, -0.5, 0.0, -0.25, 0.25, 0.0, -0.25, 0.25, 0.0];
        assert_eq!(slope.as_slice(), want);
    }

    proptest! {
        #[test]
        fn an_increasing_map_of_each_class_changes_nothing(
            rows in prop::collection::vec((0u32..3, prop::array::uniform3(0u8..=32)), 1..40)
        ) {
            // On a grid, where no two values become one by rounding.
            let maps: [fn(f32) -> f32; 3] = [|p| p * p * p, f32::sqrt, |p| 3.0 * p - 1.0];
            let targets: Vec<u32> = rows.iter().map(|row| row.0).collect();
            let grid: Vec<[f32; 3]> = rows.iter().map(|row| row.1.map(|k| f32::from(k) / 32.0)).collect();
            let mapped: Vec<f32> = grid.iter().flat_map(|row| [0, 1, 2].map(|c| maps[c](row[c]))).collect();
            let before = Metric::Auc.score(&Matrix::from_vec(grid.concat(), rows.len(), 3), &targets);
            prop_assert_eq!(before, Metric::Auc.score(&Matrix::from_vec(mapped, rows.len(), 3), &targets));
            prop_assert!((0.0..=1.0).contains(&before));
        }
    }
}
