//! Which of several entrants is chosen by held-out rows: the simplest of those that cannot be told from the best.
//!
//! An entrant may have several finalists. Its value is cross-fitted: each half of the rows scores the finalist that the other half likes
//! best, so that who has more finalists is not luckier. How far chance moves the difference of two entrants is estimated by a jackknife:
//! groups of rows are left out in turn, and both values computed anew.
//!
//! Sources: Breiman et al. 1984, section 3.4.3 (the rule of one standard error); Wolter 2007, section 4.5 (the stratified
//! delete-a-group jackknife).

use rand::seq::SliceRandom;
use tamis_nn::Seed;

/// Into how many groups a half is cut.
const GROUPS: usize = 10;

/// The parts of held-out rows that finalists are scored on: the two halves, then each half without each of its groups.
pub(crate) struct Parts {
    rows: Vec<Vec<u32>>,
    /// How many groups each half has; 0 where it has too few rows.
    groups: [usize; 2],
}

impl Parts {
    /// So many rows, cut at random.
    pub(crate) fn of(rows: usize, seed: Seed) -> Self {
        let mut order: Vec<u32> = (0..rows as u32).collect();
        order.shuffle(&mut seed.rng());
        let (first, second) = order.split_at(rows.div_ceil(2));
        let halves = [first, second];
        let groups = halves.map(|half| if half.len() < 2 { 0 } else { half.len().min(GROUPS) });
        let mut parts = halves.map(<[u32]>::to_vec).to_vec();
        for (half, groups) in halves.into_iter().zip(groups) {
            for group in 0..groups {
                let others = half.iter().enumerate().filter(|(i, _)| i % groups != group);
                parts.push(others.map(|(_, &row)| row).collect());
            }
        }
        Self { rows: parts, groups }
    }

    /// The rows of each part.
    pub(crate) fn rows(&self) -> &[Vec<u32>] {
        &self.rows
    }

    /// What an entrant is worth by the scores of its finalists on each part, shape `(finalists, parts)`, at least one finalist.
    pub(crate) fn value(&self, finalists: &[Vec<f64>]) -> Value {
        let without = self.parts_without_a_group();
        Value {
            estimate: cross_fitted(finalists, [0, 1]),
            replicates: without.map(|parts| cross_fitted(finalists, parts)).collect(),
        }
    }

    /// The two parts that stand in for the halves once a group is left out, a group at a time.
    fn parts_without_a_group(&self) -> impl Iterator<Item = [usize; 2]> {
        let [first, second] = self.groups;
        let of_first = (0..first).map(|group| [2 + group, 1]);
        of_first.chain((0..second).map(move |group| [0, 2 + first + group]))
    }

    /// The standard error of the difference of two entrants; infinite where there are too few rows.
    pub(crate) fn standard_error(&self, a: &Value, b: &Value) -> f64 {
        if self.groups.contains(&0) {
            return f64::INFINITY;
        }
        let pairs = a.replicates.iter().zip(&b.replicates);
        let differences: Vec<f64> = pairs.map(|(a, b)| a - b).collect();
        let (first, second) = differences.split_at(self.groups[0]);
        let variance = [first, second].into_iter().map(|half| {
            let groups = half.len() as f64;
            let mean = half.iter().sum::<f64>() / groups;
            (groups - 1.0) / groups * half.iter().map(|x| (x - mean).powi(2)).sum::<f64>()
        });
        variance.sum::<f64>().sqrt()
    }

    /// The place of the best entrant, and that of the first whose distance to it is within one standard error.
    pub(crate) fn choose(&self, values: &[Value]) -> Choice {
        let best = best_of(values.iter().map(|value| value.estimate));
        let told_apart = |value: &Value| {
            let gap = values[best].estimate - value.estimate;
            gap > 0.0 && gap > self.standard_error(&values[best], value)
        };
        let chosen = values.iter().position(|value| !told_apart(value)).unwrap_or(best);
        Choice { best, chosen }
    }
}

/// What an entrant is worth; higher is better.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) estimate: f64,
    /// The same without each group.
    replicates: Vec<f64>,
}

/// Places among entrants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) best: usize,
    pub(crate) chosen: usize,
}

/// The mean over two parts of the score of the finalist that the other part likes best.
fn cross_fitted(finalists: &[Vec<f64>], [first, second]: [usize; 2]) -> f64 {
    let of_best = |by: usize, on: usize| finalists[best_of(finalists.iter().map(|scores| scores[by]))][on];
    f64::midpoint(of_best(first, second), of_best(second, first))
}

/// The place of the greatest number; ties go to the first.
pub(crate) fn best_of(numbers: impl Iterator<Item = f64>) -> usize {
    let numbers = numbers.enumerate();
    let greatest = numbers.max_by(|(i, a), (j, b)| a.total_cmp(b).then(j.cmp(i)));
    greatest.map_or(0, |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_halves_and_what_is_left_of_them() {
        let parts = Parts::of(41, Seed(1));
        assert_eq!(parts.rows().len(), 22);
        let [first, second] = [0, 1].map(|half| parts.rows()[half].len());
        assert_eq!((first, second), (21, 20));
        let mut all = parts.rows()[..2].concat();
        all.sort_unstable();
        assert_eq!(all, (0..41).collect::<Vec<u32>>());
        // Each row of a half is left out once.
        let left_in: usize = parts.rows()[2..12].iter().map(Vec::len).sum();
        assert_eq!(left_in, 9 * 21);
    }

    #[test]
    fn many_finalists_are_worth_no_more_than_what_the_other_half_says() {
        // Scores on the halves alone. The first half likes finalist 0, the second finalist 1: .2 and .1 are what is unseen.
        let parts = Parts {
            rows: Vec::new(),
            groups: [0, 0],
        };
        let value = parts.value(&[vec![0.9, 0.2], vec![0.1, 0.8]]);
        assert!((value.estimate - 0.15).abs() < 1e-12);
        let one = parts.value(&[vec![0.5, 0.3]]);
        assert!((one.estimate - 0.4).abs() < 1e-12);
        // Nothing can be told by so few rows: the first.
        assert_eq!(parts.choose(&[value, one]), Choice { best: 1, chosen: 0 });
    }

    #[test]
    fn the_simplest_of_those_within_one_standard_error_is_chosen() {
        // Two groups a half; scores are: halves, then first half less a group, second half less a group.
        let parts = Parts {
            rows: Vec::new(),
            groups: [2, 2],
        };
        let value = |scores: [f64; 6]| parts.value(&[scores.to_vec()]);
        // Replicates of the first half: (.6 + .5) / 2 and (.4 + .5) / 2; of the second the same.
        let best = value([0.5, 0.5, 0.6, 0.4, 0.6, 0.4]);
        let zero = |mean: f64| value([mean; 6]);
        // Variance: twice 1/2 · 2 · .05² = .005; the standard error is .0707.
        assert!((parts.standard_error(&best, &zero(0.4)) - 0.005_f64.sqrt()).abs() < 1e-12);
        let choose = |values: &[Value]| parts.choose(values);
        assert_eq!(
            choose(&[zero(0.42), zero(0.44), best.clone()]),
            Choice { best: 2, chosen: 1 }
        );
        assert_eq!(
            choose(&[zero(0.42), zero(0.44), zero(0.5)]),
            Choice { best: 2, chosen: 2 }
        );
        assert_eq!(choose(&[zero(0.5), zero(0.5)]), Choice { best: 0, chosen: 0 });
    }
}
