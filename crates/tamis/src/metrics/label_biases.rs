//! Label biases: what is added to the logarithm of each label's probability so that the most probable labels score highest.
//!
//! A model can score better because it tells labels apart better, or because it calls a rare label often enough. Biases that are tuned on
//! rows which were not trained on take the second away from a comparison, and a user can add them to the model's logits:
//!
//! ```text
//! answer of row i = argmax_c (ln p_ic + b_c)
//! ```
//!
//! While the other biases stay, row i is given label c as soon as `b_c` exceeds `max_{k≠c} (ln p_ik + b_k) − ln p_ic`. The score changes
//! at no other values, so one walk along these thresholds finds the best `b_c` exactly. Labels take turns until none gains, which for two
//! labels is the optimum after one turn, for more a local one. Source: Lipton, Elkan & Narayanaswamy, arXiv 1402.1892 (thresholds for F1).

use tamis_nn::Matrix;

use crate::metrics::{Counts, MetricKind, check, ln};

/// The most turns that each label takes; two or three are the rule.
const TURNS: usize = 10;
/// A gain that rounding could make counts for none.
const LEAST_GAIN: f64 = 1e-9;
/// How far a bias goes beyond the outermost threshold.
const BEYOND: f64 = 1.0;

/// One number a label, in nats; only differences matter.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelBiases(Vec<f64>);

impl LabelBiases {
    /// Those at which the hard metric of these predictions, shape `(n, labels)`, is highest; never lower than without. A bias that gains
    /// nothing stays 0. Log loss counts no answers, and has none.
    ///
    /// # Panics
    ///
    /// If the lengths differ or a target is out of range.
    pub fn tune(kind: MetricKind, probabilities: &Matrix, targets: &[u32]) -> Self {
        check(probabilities, targets);
        let mut biases = vec![0.0; probabilities.cols()];
        if kind == MetricKind::LogLoss || targets.is_empty() {
            return Self(biases);
        }
        let mut biased = Biased::new(probabilities, targets);
        for _ in 0..TURNS {
            let mut gained = false;
            for (label, bias) in biases.iter_mut().enumerate() {
                if let Some(shift) = biased.gain(kind, label) {
                    *bias += shift;
                    biased.shift(label, shift);
                    gained = true;
                }
            }
            if !gained {
                break;
            }
        }
        Self(biases)
    }

    /// The probabilities with these biases, each row summing to 1; shape `(n, labels)`.
    pub fn apply(&self, probabilities: &Matrix) -> Matrix {
        let mut biased = Matrix::zeros(probabilities.rows(), probabilities.cols());
        for i in 0..probabilities.rows() {
            let logs: Vec<f64> = probabilities
                .row(i)
                .iter()
                .zip(&self.0)
                .map(|(&p, b)| ln(p) + b)
                .collect();
            let greatest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logs.iter().map(|log| (log - greatest).exp()).sum();
            for (out, log) in biased.row_mut(i).iter_mut().zip(logs) {
                *out = ((log - greatest).exp() / sum) as f32;
            }
        }
        biased
    }

    /// One a label, in the labels' order.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }
}

/// Rows of `ln p + b`, at the biases of the moment.
struct Biased<'a> {
    labels: usize,
    targets: &'a [u32],
    /// Shape `(n, labels)`.
    scores: Vec<f64>,
    /// The first and the second label of each row.
    leaders: Vec<[usize; 2]>,
}

impl<'a> Biased<'a> {
    fn new(probabilities: &Matrix, targets: &'a [u32]) -> Self {
        let mut biased = Self {
            labels: probabilities.cols(),
            targets,
            scores: probabilities.as_slice().iter().map(|&p| ln(p)).collect(),
            leaders: Vec::new(),
        };
        biased.lead();
        biased
    }

    fn lead(&mut self) {
        let two_best = |row: &[f64]| {
            (1..row.len()).fold([0, 0], |[first, second], c| {
                if row[c] > row[first] {
                    [c, first]
                } else if second == first || row[c] > row[second] {
                    [first, c]
                } else {
                    [first, second]
                }
            })
        };
        self.leaders = self.scores.chunks_exact(self.labels).map(two_best).collect();
    }

    /// Adds this to one label's bias.
    fn shift(&mut self, label: usize, by: f64) {
        self.scores
            .iter_mut()
            .skip(label)
            .step_by(self.labels)
            .for_each(|score| *score += by);
        self.lead();
    }

    /// By how much one label's bias has to change for the highest score, if there is a higher one; of equal scores by the least.
    fn gain(&self, kind: MetricKind, label: usize) -> Option<f64> {
        let mut present = Tally::new(kind, self.labels, self.targets);
        let mut tally = Tally::new(kind, self.labels, self.targets);
        // From which change on a row has this label, which one it has below, and its target.
        let mut rows: Vec<(f64, usize, usize)> = Vec::with_capacity(self.targets.len());
        for ((scores, &[first, second]), &target) in self
            .scores
            .chunks_exact(self.labels)
            .zip(&self.leaders)
            .zip(self.targets)
        {
            let (rival, target) = (if first == label { second } else { first }, target as usize);
            rows.push((scores[rival] - scores[label], rival, target));
            present.give(first, target, 1.0);
            tally.give(rival, target, 1.0);
        }
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut best = (present.score(), 0.0f64);
        for at in 0..=rows.len() {
            if at > 0 {
                let (_, rival, target) = rows[at - 1];
                tally.give(rival, target, -1.0);
                tally.give(label, target, 1.0);
            }
            let high = rows.get(at).map_or(rows[rows.len() - 1].0 + BEYOND, |next| next.0);
            let low = if at > 0 { rows[at - 1].0 } else { high - BEYOND };
            if high > low {
                let (score, shift) = (tally.score(), f64::midpoint(low, high));
                let gain = score - best.0;
                if gain > LEAST_GAIN || (gain > -LEAST_GAIN && shift.abs() < best.1.abs()) {
                    best = (score, shift);
                }
            }
        }
        (best.1 != 0.0).then_some(best.1)
    }
}

/// A hard score that follows single answers.
struct Tally {
    kind: MetricKind,
    counts: Counts,
    /// The sum over the labels that are a target of the F1 score.
    f1: f64,
    hits: f64,
    /// What `f1` or `hits` is divided by.
    most: f64,
}

impl Tally {
    /// Before any answer is given.
    fn new(kind: MetricKind, labels: usize, targets: &[u32]) -> Self {
        let mut present = vec![0.0; labels];
        targets.iter().for_each(|&y| present[y as usize] += 1.0);
        let most = match kind {
            MetricKind::MacroF1 => present.iter().filter(|&&n| n > 0.0).count(),
            MetricKind::Accuracy | MetricKind::LogLoss => targets.len(),
        };
        Self {
            kind,
            most: most as f64,
            counts: Counts {
                right: vec![0.0; labels],
                predicted: vec![0.0; labels],
                present,
            },
            f1: 0.0,
            hits: 0.0,
        }
    }

    /// Gives a row of this target a label, or, with `by` -1, takes it back.
    fn give(&mut self, label: usize, target: usize, by: f64) {
        let hit = if label == target { by } else { 0.0 };
        self.f1 -= self.f1_of(label);
        self.counts.predicted[label] += by;
        self.counts.right[label] += hit;
        self.f1 += self.f1_of(label);
        self.hits += hit;
    }

    fn f1_of(&self, label: usize) -> f64 {
        if self.counts.present[label] > 0.0 {
            self.counts.f1(label)
        } else {
            0.0
        }
    }

    fn score(&self) -> f64 {
        match self.kind {
            MetricKind::MacroF1 => self.f1 / self.most,
            MetricKind::Accuracy | MetricKind::LogLoss => self.hits / self.most,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::metrics::Metric;
    use tamis_nn::seed::Seed;

    /// Probabilities that lean to the first label, and targets that do not.
    fn leaning(rows: usize, labels: usize, seed: u64) -> (Matrix, Vec<u32>) {
        let mut rng = Seed(seed).rng();
        let mut p = Vec::new();
        let mut targets = Vec::new();
        for _ in 0..rows {
            let target = rng.random_range(0..labels as u32);
            let mut row: Vec<f32> = (0..labels).map(|_| 0.1 + rng.random::<f32>()).collect();
            row[target as usize] += 0.4;
            row[0] += 0.8;
            let sum: f32 = row.iter().sum();
            p.extend(row.iter().map(|x| x / sum));
            targets.push(target);
        }
        (Matrix::from_vec(p, rows, labels), targets)
    }

    #[test]
    fn five_rows_are_cut_where_a_hand_would() {
        // By the probabilities label 0 is always said: 3 of 5. From p1 = .3 on label 1 is right twice of three times: 4 of 5, and both F1
        // scores are 2 * 2 / (2 + 3). So b0 lies between ln(.2 / .8) and ln(.3 / .7).
        let p = [0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.55, 0.45];
        let (p, targets) = (Matrix::from_vec(p.to_vec(), 5, 2), [0, 0, 1, 1, 0]);
        for kind in [MetricKind::Accuracy, MetricKind::MacroF1] {
            let biases = LabelBiases::tune(kind, &p, &targets);
            let middle = f64::midpoint(0.25f64.ln(), (3.0f64 / 7.0).ln());
            assert!((biases.as_slice()[0] - middle).abs() < 1e-6, "{biases:?}");
            assert_eq!(biases.as_slice()[1], 0.0);
            let score = Metric::hard(kind).score(&biases.apply(&p), &targets);
            assert!((score - 0.8).abs() < 1e-12, "{score}");
        }
    }

    #[test]
    fn with_two_labels_no_cut_is_better() {
        for (seed, kind) in (0..20).zip([MetricKind::Accuracy, MetricKind::MacroF1].into_iter().cycle()) {
            let (p, targets) = leaning(60, 2, seed);
            let score = |b: f64| Metric::hard(kind).score(&LabelBiases(vec![b, 0.0]).apply(&p), &targets);
            let best = (-4000..4000).map(|b| score(f64::from(b) / 1000.0)).fold(0.0, f64::max);
            let tuned = Metric::hard(kind).score(&LabelBiases::tune(kind, &p, &targets).apply(&p), &targets);
            assert!(tuned >= best - 1e-9, "{tuned} is not {best}");
        }
    }

    #[test]
    fn with_more_labels_no_single_bias_gains_more() {
        for kind in [MetricKind::Accuracy, MetricKind::MacroF1] {
            let (p, targets) = leaning(200, 4, 3);
            let score = |biases: &LabelBiases| Metric::hard(kind).score(&biases.apply(&p), &targets);
            let tuned = LabelBiases::tune(kind, &p, &targets);
            assert!(score(&tuned) > score(&LabelBiases(vec![0.0; 4])) + 0.02);
            for label in 0..4 {
                for step in -300..300 {
                    let mut other = tuned.clone();
                    other.0[label] += f64::from(step) / 100.0;
                    assert!(score(&other) <= score(&tuned) + 1e-9, "{label} {step}");
                }
            }
        }
    }

    #[test]
    fn what_gains_nothing_stays_as_it_is() {
        let right = Matrix::from_vec(vec![0.7, 0.3, 0.2, 0.8], 2, 2);
        let none = LabelBiases(vec![0.0; 2]);
        assert_eq!(LabelBiases::tune(MetricKind::MacroF1, &right, &[0, 1]), none);
        let (p, targets) = leaning(30, 2, 1);
        assert_eq!(LabelBiases::tune(MetricKind::LogLoss, &p, &targets), none);
        assert_eq!(LabelBiases::tune(MetricKind::Accuracy, &Matrix::zeros(0, 2), &[]), none);
        for (a, b) in none.apply(&p).as_slice().iter().zip(p.as_slice()) {
            assert!((a - b).abs() < 1e-6);
        }
    }
}
