//! Scores of predictions: accuracy, macro-F1, log loss; hard, soft, or free of an operating point.
//!
//! A hard metric counts the most probable answer of each row (ties take the lower index). A soft one is the same formula
//! with counts replaced by probabilities, so it moves with every small change of the model: a better reward for few rows.
//!
//! ```text
//! soft accuracy   = mean over rows of p(right answer)
//! soft macro-F1   = mean over classes c of 2 TP_c / (Σ_i p_ic + n_c),   TP_c = Σ_i p_ic [y_i = c]
//! ```
//!
//! Macro-F1 averages over the classes that occur among the *targets*. This is scikit-learn's `f1_score(average="macro",
//! labels=np.unique(y_true))`; its default also counts, with F1 = 0, a class that is only predicted. We leave such a class
//! out because a soft prediction gives every class some mass, and a class that the fold lacks can neither gain nor lose.
//!
//! Three more do not gain from a mere shift of the predicted label mix, which a model fine-tuned later need not keep:
//!
//! - *AUC* looks only at how a class's probability ranks the rows (`metric/auc.rs`). It is unchanged by any increasing map
//!   of one class's probabilities. With two classes that holds for a shift of the mix; with more, only nearly, since
//!   the probabilities of a row then sum to 1 again.
//! - *Calibrated log loss* is taken after the best class factors and temperature (`metric/scaling.rs`).
//! - A *matched* metric is the soft one after the mean prediction is brought to the targets' label mix by a factor a class
//!   (`metric/scaling.rs`).
//!
//! The last two are unchanged if every p_c is multiplied by a factor of its class and the rows are normalised again.
//!
//! Those are for rows that are scored and fitted at once. [`LabelBiases`] are tuned on some rows and applied to others.

mod auc;
mod calibration;
mod label_biases;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use tamis_nn::{Matrix, named_enum};

use crate::{Error, Result};

pub use label_biases::LabelBiases;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// The share of right answers.
    Accuracy,
    /// The mean over the classes of the F1 score.
    MacroF1,
    /// The mean of the negative log probability of the right answer.
    LogLoss,
}

named_enum!(MetricKind, "metric", Error, {
    Accuracy => "accuracy": "the share of right answers",
    MacroF1 => "macro-f1": "the mean F1 score over the classes",
    LogLoss => "log-loss": "the mean negative log probability of the right answer",
});

/// What is measured, and how.
///
/// ```
/// use tamis::{Matrix, metrics::{Metric, MetricKind}};
///
/// let probabilities = Matrix::from_vec(vec![0.9, 0.1, 0.4, 0.6], 2, 2);
/// let score = |metric: Metric| metric.score(&probabilities, &[0, 0]);
/// assert_eq!(score(Metric::hard(MetricKind::Accuracy)), 0.5);
/// assert!((score(Metric::soft(MetricKind::Accuracy)) - 0.65).abs() < 1e-6);
/// ```
///
/// Its names, such as `soft_macro_f1`, are in [`Metric::NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Metric {
    /// By the most probable answer. Log loss always uses probabilities; it is the same as the soft one.
    Hard(MetricKind),
    /// Probabilities take the place of counts.
    Soft(MetricKind),
    /// The soft metric of predictions whose mean is the targets' label mix.
    Matched(MetricKind),
    /// The mean over the classes of the area under the curve of one class against the rest; 1 is best, 0.5 is chance.
    Auc,
    /// The log loss at the best class factors and temperature, negated.
    Calibrated,
}

/// The least probability that log loss sees, so that one sure mistake does not cost infinitely much.
const LEAST_PROBABILITY: f64 = 1e-15;

impl Metric {
    /// Every metric by its name.
    pub const NAMES: [(&str, Self); 10] = [
        ("accuracy", Self::Hard(MetricKind::Accuracy)),
        ("macro_f1", Self::Hard(MetricKind::MacroF1)),
        ("log_loss", Self::Soft(MetricKind::LogLoss)),
        ("soft_accuracy", Self::Soft(MetricKind::Accuracy)),
        ("soft_macro_f1", Self::Soft(MetricKind::MacroF1)),
        ("auc", Self::Auc),
        ("calibrated_log_loss", Self::Calibrated),
        ("matched_accuracy", Self::Matched(MetricKind::Accuracy)),
        ("matched_macro_f1", Self::Matched(MetricKind::MacroF1)),
        ("matched_log_loss", Self::Matched(MetricKind::LogLoss)),
    ];

    /// The hard metric of this kind; of log loss, which has none, the soft one.
    pub fn hard(kind: MetricKind) -> Self {
        match kind {
            MetricKind::LogLoss => Self::Soft(kind),
            MetricKind::Accuracy | MetricKind::MacroF1 => Self::Hard(kind),
        }
    }

    /// The soft metric of this kind.
    pub fn soft(kind: MetricKind) -> Self {
        Self::Soft(kind)
    }

    /// The score of these probabilities; higher is better, so log loss comes negated.
    ///
    /// `probabilities` has shape `(n, outputs)`, `targets` `(n,)` with values below `outputs`. A row with fewer answers than
    /// others is filled up with zeros, and only such a row ends in zeros. No rows score 0. Finite probabilities have a finite
    /// score; where one is not, AUC and the calibrated and matched scores are NaN.
    ///
    /// # Panics
    ///
    /// If the lengths differ or a target is out of range.
    pub fn score(&self, probabilities: &Matrix, targets: &[u32]) -> f64 {
        check(probabilities, targets);
        let fitted = matches!(self, Self::Auc | Self::Calibrated | Self::Matched(_));
        if fitted && probabilities.as_slice().iter().any(|p| !p.is_finite()) {
            return f64::NAN;
        }
        match *self {
            _ if targets.is_empty() => 0.0,
            Self::Hard(kind) => score_as_given(kind, false, probabilities, targets),
            Self::Soft(kind) => score_as_given(kind, true, probabilities, targets),
            Self::Matched(kind) => score_as_given(kind, true, &calibration::matched(probabilities, targets), targets),
            Self::Auc => auc::score(probabilities, targets),
            Self::Calibrated => {
                let as_given = score_as_given(MetricKind::LogLoss, true, probabilities, targets);
                // Never worse than without, also where rows sum to 1 only nearly.
                as_given.max(-calibration::calibrated_loss(probabilities, targets))
            }
        }
    }

    /// The change of the score per change of each probability, shape `(n, outputs)`.
    ///
    /// Exact for a soft metric. Others have no slope, or one through a fit, and give that of a simpler score that rises with
    /// them: a hard and a matched metric their soft twin's, the calibrated log loss that of the log loss, and AUC that of
    /// the mean over the classes of the mean p_c of the class's rows less that of all others.
    ///
    /// # Panics
    ///
    /// If the lengths differ or a target is out of range.
    pub fn slope(&self, probabilities: &Matrix, targets: &[u32]) -> Matrix {
        check(probabilities, targets);
        let n = targets.len().max(1) as f64;
        let mut slope = Matrix::zeros(probabilities.rows(), probabilities.cols());
        let kind = match *self {
            Self::Hard(kind) | Self::Soft(kind) | Self::Matched(kind) => kind,
            Self::Calibrated => MetricKind::LogLoss,
            Self::Auc => {
                auc::slope(targets, &mut slope);
                return slope;
            }
        };
        match kind {
            MetricKind::Accuracy => {
                for (i, &y) in targets.iter().enumerate() {
                    slope.row_mut(i)[y as usize] = (1.0 / n) as f32;
                }
            }
            MetricKind::LogLoss => {
                for (i, &y) in targets.iter().enumerate() {
                    let p = f64::from(probabilities.row(i)[y as usize]).max(LEAST_PROBABILITY);
                    slope.row_mut(i)[y as usize] = (1.0 / (n * p)) as f32;
                }
            }
            MetricKind::MacroF1 => {
                // F = 2 TP / S with S = predicted + present: dF/dp = 2 [y = c] / S - 2 TP / S².
                let counts = Counts::of(probabilities, targets, true);
                let classes = counts.classes().max(1) as f64;
                for (i, &y) in targets.iter().enumerate() {
                    for (c, out) in slope.row_mut(i).iter_mut().enumerate() {
                        if counts.present[c] > 0.0 {
                            let s = counts.predicted[c] + counts.present[c];
                            let hit = if y as usize == c { 2.0 / s } else { 0.0 };
                            *out = ((hit - 2.0 * counts.right[c] / (s * s)) / classes) as f32;
                        }
                    }
                }
            }
        }
        slope
    }
}

/// The score of a metric that takes the probabilities as they are.
fn score_as_given(kind: MetricKind, soft: bool, probabilities: &Matrix, targets: &[u32]) -> f64 {
    let n = targets.len().max(1) as f64;
    match (kind, soft) {
        (MetricKind::Accuracy, false) => {
            rows(probabilities, targets)
                .filter(|&(row, y)| argmax(row) == y)
                .count() as f64
                / n
        }
        (MetricKind::Accuracy, true) => {
            rows(probabilities, targets)
                .map(|(row, y)| f64::from(row[y]))
                .sum::<f64>()
                / n
        }
        (MetricKind::LogLoss, _) => -row_losses(probabilities, targets).map(f64::from).sum::<f64>() / n,
        (MetricKind::MacroF1, soft) => Counts::of(probabilities, targets, soft).macro_f1(),
    }
}

/// The loss of each row: the negative log probability of its target, natural logarithm; lower is better.
///
/// # Panics
///
/// If the lengths differ or a target is out of range.
pub fn row_losses<'a>(probabilities: &'a Matrix, targets: &'a [u32]) -> impl Iterator<Item = f32> + 'a {
    check(probabilities, targets);
    rows(probabilities, targets).map(|(row, y)| -ln(row[y]) as f32)
}

/// The natural logarithm of a probability, which counts with at least [`LEAST_PROBABILITY`].
fn ln(p: f32) -> f64 {
    f64::from(p).max(LEAST_PROBABILITY).ln()
}

fn check(probabilities: &Matrix, targets: &[u32]) {
    assert_eq!(probabilities.rows(), targets.len(), "one row of probabilities a target");
}

fn rows<'a>(probabilities: &'a Matrix, targets: &'a [u32]) -> impl Iterator<Item = (&'a [f32], usize)> {
    probabilities.iter_rows().zip(targets.iter().map(|&y| y as usize))
}

/// The place of the greatest value; ties take the lower one.
fn argmax(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, c| if row[c] > row[best] { c } else { best })
}

/// The class that every row is given, where all are given the same.
pub fn only_answer(probabilities: &Matrix) -> Option<u32> {
    let mut answers = probabilities.iter_rows().map(argmax);
    let first = answers.next()?;
    answers.all(|answer| answer == first).then_some(first as u32)
}

/// By class: how much is right, predicted and present.
struct Counts {
    right: Vec<f64>,
    predicted: Vec<f64>,
    present: Vec<f64>,
}

impl Counts {
    fn of(probabilities: &Matrix, targets: &[u32], soft: bool) -> Self {
        let zeros = || vec![0.0; probabilities.cols()];
        let mut counts = Self {
            right: zeros(),
            predicted: zeros(),
            present: zeros(),
        };
        for (row, y) in rows(probabilities, targets) {
            counts.present[y] += 1.0;
            if soft {
                counts.right[y] += f64::from(row[y]);
                for (sum, &p) in counts.predicted.iter_mut().zip(row) {
                    *sum += f64::from(p);
                }
            } else {
                let guess = argmax(row);
                counts.predicted[guess] += 1.0;
                counts.right[y] += f64::from(u8::from(guess == y));
            }
        }
        counts
    }

    fn classes(&self) -> usize {
        self.present.iter().filter(|&&n| n > 0.0).count()
    }

    /// The F1 score of a class that is present.
    fn f1(&self, c: usize) -> f64 {
        2.0 * self.right[c] / (self.predicted[c] + self.present[c])
    }

    fn macro_f1(&self) -> f64 {
        let sum: f64 = (0..self.present.len())
            .filter(|&c| self.present[c] > 0.0)
            .map(|c| self.f1(c))
            .sum();
        sum / self.classes().max(1) as f64
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let canonical = match *self {
            Self::Hard(kind) => Self::hard(kind),
            other => other,
        };
        let named = Self::NAMES.iter().find(|(_, metric)| *metric == canonical);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

impl FromStr for Metric {
    type Err = Error;

    /// Reads a metric's name; `-` and `_` are the same.
    fn from_str(name: &str) -> Result<Self> {
        let wanted = name.replace('-', "_");
        match Self::NAMES.iter().find(|(known, _)| *known == wanted) {
            Some((_, metric)) => Ok(*metric),
            None => Err(Error::setting(
                "metric",
                format!("one of {}", Self::NAMES.map(|(known, _)| known).join(", ")),
                format!("`{name}`"),
            )),
        }
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.to_string()
    }
}

impl TryFrom<String> for Metric {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metric(name: &str) -> Metric {
        name.parse().expect("a metric's name")
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }

    /// Four rows, three classes; class 2 is predicted once and never right.
    fn sample() -> (Matrix, Vec<u32>) {
        let p = vec![0.7, 0.2, 0.1, 0.4, 0.4, 0.2, 0.1, 0.3, 0.6, 0.25, 0.5, 0.25];
        (Matrix::from_vec(p, 4, 3), vec![0, 1, 1, 1])
    }

    #[test]
    fn one_answer_for_all_rows_is_seen() {
        let (probabilities, _) = sample();
        assert_eq!(only_answer(&probabilities), None);
        assert_eq!(only_answer(&probabilities.gather(&[0, 1])), Some(0));
        assert_eq!(only_answer(&Matrix::zeros(0, 3)), None);
    }

    #[test]
    fn every_metric_is_what_the_hand_makes_it() {
        let (p, y) = sample();
        // Predictions 0, 0 (a tie), 2, 1: two of four are right.
        close(metric("accuracy").score(&p, &y), 0.5);
        // Class 0: TP 1, predicted 2, present 1: 2/3. Class 1: TP 1, predicted 1, present 3: 2/4. Class 2 is not in y.
        // sklearn: f1_score([0,1,1,1], [0,0,2,1], average="macro", labels=[0,1]) = 0.5833333333333333
        close(metric("macro_f1").score(&p, &y), f64::midpoint(2.0 / 3.0, 0.5));
        // sklearn: log_loss([0,1,1,1], p, labels=[0,1,2]) = (0.35667 + 0.91629 + 1.20397 + 0.69315) / 4 = 0.792521
        close(
            metric("log_loss").score(&p, &y),
            -(0.7f64.ln() + 0.4f64.ln() + 0.3f64.ln() + 0.5f64.ln()).abs() / 4.0,
        );
        close(metric("soft_accuracy").score(&p, &y), (0.7 + 0.4 + 0.3 + 0.5) / 4.0);
        // Class 0: 2*0.7 / (1.45 + 1). Class 1: 2*1.2 / (1.4 + 3).
        close(
            metric("soft_macro_f1").score(&p, &y),
            f64::midpoint(1.4 / 2.45, 2.4 / 4.4),
        );
    }

    #[test]
    fn no_rows_score_nothing() {
        for (_, metric) in Metric::NAMES {
            close(metric.score(&Matrix::zeros(0, 3), &[]), 0.0);
            assert_eq!(metric.slope(&Matrix::zeros(0, 3), &[]).rows(), 0);
        }
    }

    #[test]
    fn the_slope_is_the_finite_difference() {
        let (p, y) = sample();
        for name in ["soft_accuracy", "soft_macro_f1", "log_loss"] {
            let metric = metric(name);
            let slope = metric.slope(&p, &y);
            for i in 0..12 {
                let (mut up, mut down) = (p.clone(), p.clone());
                up.as_mut_slice()[i] += 0.01;
                down.as_mut_slice()[i] -= 0.01;
                let difference = (metric.score(&up, &y) - metric.score(&down, &y)) / 0.02;
                assert!(
                    (difference - f64::from(slope.as_slice()[i])).abs() < 2e-3,
                    "{name} at {i}"
                );
            }
        }
    }

    #[test]
    fn a_number_that_is_none_is_not_scored_as_one() {
        let p = Matrix::from_vec(vec![0.5, 0.5, f32::NAN, 0.5], 2, 2);
        for name in ["auc", "calibrated_log_loss", "matched_accuracy"] {
            assert!(metric(name).score(&p, &[0, 1]).is_nan());
        }
    }

    #[test]
    fn stand_ins_have_the_slope_of_what_they_stand_for() {
        let (p, y) = sample();
        for (name, twin) in [
            ("macro_f1", "soft_macro_f1"),
            ("matched_accuracy", "soft_accuracy"),
            ("calibrated_log_loss", "log_loss"),
        ] {
            assert_eq!(metric(name).slope(&p, &y), metric(twin).slope(&p, &y));
        }
    }

    #[test]
    fn names_are_read_as_they_are_shown() {
        for (name, metric) in Metric::NAMES {
            assert_eq!(metric.to_string(), name);
            assert_eq!(name.replace('_', "-").parse::<Metric>().expect("a name"), metric);
            assert_eq!(serde_json::to_value(metric).expect("JSON"), name);
        }
        assert_eq!(Metric::Hard(MetricKind::LogLoss).to_string(), "log_loss");
        let error = "f1".parse::<Metric>().expect_err("not a metric");
        assert!(error.to_string().contains("found `f1`"), "{error}");
    }

    proptest! {
        #[test]
        fn soft_scores_stay_in_range_and_meet_hard_ones_where_the_model_is_sure(
            rows in prop::collection::vec((0u32..3, 0u32..3, prop::array::uniform3(0.01f32..1.0)), 1..30)
        ) {
            let y: Vec<u32> = rows.iter().map(|row| row.0).collect();
            let soft: Vec<f32> =
                rows.iter().flat_map(|row| { let sum: f32 = row.2.iter().sum(); row.2.map(|p| p / sum) }).collect();
            let sure: Vec<f32> = rows.iter().flat_map(|row| [0, 1, 2].map(|c| f32::from(u8::from(row.1 == c)))).collect();
            let soft = Matrix::from_vec(soft, rows.len(), 3);
            let sure = Matrix::from_vec(sure, rows.len(), 3);
            for kind in [MetricKind::Accuracy, MetricKind::MacroF1] {
                let score = Metric::soft(kind).score(&soft, &y);
                prop_assert!((0.0..=1.0 + 1e-6).contains(&score));
                prop_assert!((Metric::soft(kind).score(&sure, &y) - Metric::hard(kind).score(&sure, &y)).abs() < 1e-9);
            }
            prop_assert!(Metric::soft(MetricKind::LogLoss).score(&soft, &y) <= 0.0);
        }
    }
}
