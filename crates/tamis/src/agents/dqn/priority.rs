//! Priorities of steps, from which steps are drawn in proportion.
//!
//! Step `i` is drawn with probability `P(i) = p_i^α / Σ p_k^α`, where `p_i` is the size of its last error plus a little; a step
//! never learned from has the largest priority seen so far. A sum tree finds the step at a place of the running sum in
//! logarithmic time.
//!
//! Source: Schaul et al. 2016 (arXiv 1511.05952), section 3.3 and appendix B.2.1.

use std::ops::Range;

/// What is added to the size of an error, so that no step is forgotten for good.
const LEAST: f64 = 1e-2;

/// A binary tree whose inner nodes hold the sums of their leaves.
#[derive(Debug, Clone)]
pub(crate) struct SumTree {
    /// Node 1 is the root, node `i` has the children `2i` and `2i + 1`, and the leaves are the second half.
    nodes: Vec<f64>,
}

impl SumTree {
    /// A tree of at least `leaves` leaves, all of them 0.
    fn new(leaves: usize) -> Self {
        Self {
            nodes: vec![0.0; 2 * leaves.max(1).next_power_of_two()],
        }
    }

    fn leaves(&self) -> usize {
        self.nodes.len() / 2
    }

    fn total(&self) -> f64 {
        self.nodes[1]
    }

    fn get(&self, leaf: usize) -> f64 {
        self.nodes[self.leaves() + leaf]
    }

    /// Sets a leaf. Sums above it are made anew from both children, so no rounding error builds up.
    fn set(&mut self, leaf: usize, value: f64) {
        let mut node = self.leaves() + leaf;
        self.nodes[node] = value;
        while node > 1 {
            node /= 2;
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1];
        }
    }

    /// The leaf in which the running sum of all leaves passes `place`, which lies in `[0, total)`. A leaf of 0 is never found
    /// while another is above 0, not even where rounding lets `place` reach the total.
    fn find(&self, mut place: f64) -> usize {
        let mut node = 1;
        while node < self.leaves() {
            let (left, right) = (self.nodes[2 * node], self.nodes[2 * node + 1]);
            node *= 2;
            if place >= left && right > 0.0 {
                place -= left;
                node += 1;
            }
        }
        node - self.leaves()
    }
}

/// The priorities of the steps `steps`, which are numbered as they came; the oldest are dropped first.
#[derive(Debug, Clone)]
pub(crate) struct Priorities {
    tree: SumTree,
    /// The steps there are. Step `i` has leaf `i % leaves`, which no other has while there are at least as many leaves as steps.
    steps: Range<usize>,
    /// `α`: 0 draws uniformly, 1 in proportion to the errors.
    exponent: f64,
    /// The largest `p_i^α` seen.
    largest: f64,
}

impl Priorities {
    /// No steps yet.
    pub(crate) fn new(exponent: f64) -> Self {
        Self {
            tree: SumTree::new(64),
            steps: 0..0,
            exponent,
            largest: 1.0,
        }
    }

    /// The number of the oldest step there is.
    pub(crate) fn first(&self) -> usize {
        self.steps.start
    }

    /// A step came.
    pub(crate) fn push(&mut self) {
        let leaves = self.tree.leaves();
        if self.steps.len() == leaves {
            let mut larger = SumTree::new(2 * leaves);
            for step in self.steps.clone() {
                larger.set(step % (2 * leaves), self.tree.get(step % leaves));
            }
            self.tree = larger;
        }
        self.tree.set(self.steps.end % self.tree.leaves(), self.largest);
        self.steps.end += 1;
    }

    /// The `count` oldest steps are dropped.
    pub(crate) fn drop_oldest(&mut self, count: usize) {
        for step in self.steps.start..(self.steps.start + count).min(self.steps.end) {
            self.tree.set(step % self.tree.leaves(), 0.0);
            self.steps.start += 1;
        }
    }

    /// The step at a share, in `[0, 1)`, of the running sum of priorities.
    pub(crate) fn at(&self, share: f64) -> usize {
        let (first, leaves) = (self.steps.start, self.tree.leaves());
        let leaf = self.tree.find(share * self.tree.total());
        first + (leaf + leaves - first % leaves) % leaves
    }

    /// `P(i)`.
    pub(crate) fn probability(&self, step: usize) -> f64 {
        self.tree.get(step % self.tree.leaves()) / self.tree.total()
    }

    /// A step was learned from, with this error. Nothing happens if the step is gone or the error no number.
    pub(crate) fn learned(&mut self, step: usize, error: f64) {
        if self.steps.contains(&step) && error.is_finite() {
            let priority = (error.abs() + LEAST).powf(self.exponent);
            self.largest = self.largest.max(priority);
            self.tree.set(step % self.tree.leaves(), priority);
        }
    }

    /// The weights that undo, at `exponent` 1 entirely, that some steps are drawn more often than others; shape `(steps,)`:
    /// `(N P(i))^-exponent`, over the largest of them (section 3.4).
    pub(crate) fn weights(&self, steps: &[usize], exponent: f64) -> Vec<f32> {
        let count = self.steps.len() as f64;
        let raw: Vec<f64> = steps
            .iter()
            .map(|&step| (count * self.probability(step)).powf(-exponent))
            .collect();
        let largest = raw.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        raw.iter().map(|weight| (weight / largest) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::RngExt;

    use super::*;
    use tamis_nn::seed::Seed;

    #[test]
    fn the_tree_worked_by_hand() {
        // leaves 3 1 0 4 of 4: sums 4 and 4, total 8; running sum 3 4 4 8
        let mut tree = SumTree::new(3);
        for (leaf, value) in [3.0, 1.0, 0.0, 4.0].into_iter().enumerate() {
            tree.set(leaf, value);
        }
        assert_eq!(tree.nodes, [0.0, 8.0, 4.0, 4.0, 3.0, 1.0, 0.0, 4.0]);
        let found = [0.0, 2.9, 3.0, 3.9, 4.0, 7.9, 8.0].map(|place| tree.find(place));
        assert_eq!(found, [0, 0, 1, 1, 3, 3, 3]);
        tree.set(3, 0.0);
        // the last leaf that is not 0 stands for all beyond it
        assert_eq!((tree.total(), tree.find(3.5), tree.find(4.0)), (4.0, 1, 1));
    }

    #[test]
    fn steps_are_drawn_as_often_as_their_priorities_say() {
        let mut priorities = Priorities::new(0.5);
        for _ in 0..7 {
            priorities.push();
        }
        priorities.drop_oldest(3);
        // p = 1, 4, 9, 16 for the steps 3 to 6; with exponent 1/2 their shares are 1, 2, 3 and 4 tenths
        for (step, p) in (3..7).zip([1.0, 4.0, 9.0, 16.0]) {
            priorities.learned(step, -(p - LEAST));
        }
        let mut rng = Seed(5).rng();
        let mut drawn = [0.0; 7];
        for _ in 0..20_000 {
            drawn[priorities.at(rng.random())] += 1.0;
        }
        assert_eq!(drawn[..3], [0.0; 3]);
        for (step, share) in (3..7).zip([0.1, 0.2, 0.3, 0.4]) {
            // the standard error is at most sqrt(.24 / 20,000) = .0035
            let found: f64 = drawn[step] / 20_000.0;
            assert!((found - share).abs() < 0.014, "step {step}: {found}");
            assert!((priorities.probability(step) - share).abs() < 1e-12);
        }
    }

    #[test]
    fn weights_worked_by_hand() {
        let mut priorities = Priorities::new(1.0);
        for (step, p) in [1.0, 1.0, 2.0, 4.0].into_iter().enumerate() {
            priorities.push();
            priorities.learned(step, p - LEAST);
        }
        // P = 1/8 1/8 1/4 1/2, so N P = 1/2 1/2 1 2. Exponent 1: 2 2 1 1/2, over 2; exponent 1/2: the roots of those.
        let weights = priorities.weights(&[0, 2, 3], 1.0);
        assert_eq!(weights, [1.0, 0.5, 0.25]);
        let weights = priorities.weights(&[2, 3], 0.5);
        assert!((weights[0] - 1.0).abs() < 1e-6 && (weights[1] - 0.5f32.sqrt()).abs() < 1e-6);
        assert_eq!(priorities.weights(&[0, 3], 0.0), [1.0, 1.0]);
    }

    #[test]
    fn new_steps_have_the_largest_priority_seen() {
        let mut priorities = Priorities::new(1.0);
        priorities.push();
        priorities.learned(0, 3.0 - LEAST);
        priorities.push();
        assert_eq!(priorities.probability(1), 0.5);
        priorities.learned(0, f64::NAN);
        assert_eq!(priorities.probability(1), 0.5);
    }

    proptest! {
        /// However steps come, go and are learned from: the tree holds what a plain list of (step, priority) holds.
        #[test]
        fn the_ring_agrees_with_a_plain_list(moves in prop::collection::vec((0..3usize, 0..60usize, 0.0..5.0f64), 1..200)) {
            let mut priorities = Priorities::new(0.7);
            let mut plain: Vec<(usize, f64)> = Vec::new();
            let (mut next, mut largest) = (0, 1.0f64);
            for (kind, amount, error) in moves {
                match kind {
                    0 => for _ in 0..amount {
                        priorities.push();
                        plain.push((next, largest));
                        next += 1;
                    },
                    1 => {
                        let count = amount.min(plain.len());
                        priorities.drop_oldest(count);
                        plain.drain(..count);
                    }
                    _ => {
                        // perhaps a step that is gone, perhaps one that is yet to come
                        let step = priorities.first().saturating_sub(5) + amount;
                        priorities.learned(step, error);
                        if let Some((_, priority)) = plain.iter_mut().find(|(number, _)| *number == step) {
                            *priority = (error + LEAST).powf(0.7);
                            largest = largest.max(*priority);
                        }
                    }
                }
                let total: f64 = plain.iter().map(|(_, priority)| priority).sum();
                prop_assert!((priorities.tree.total() - total).abs() < 1e-9 * (1.0 + total));
                let mut sum = 0.0;
                for &(step, priority) in &plain {
                    prop_assert!((priorities.probability(step) - priority / total).abs() < 1e-9);
                    sum += priority;
                }
                prop_assert!((sum - total).abs() < 1e-9 * (1.0 + total));
                if let (Some(first), Some(last)) = (plain.first(), plain.last()) {
                    for share in [0.0, 0.5, 0.999_999] {
                        prop_assert!((first.0..=last.0).contains(&priorities.at(share)));
                    }
                }
            }
        }
    }
}
