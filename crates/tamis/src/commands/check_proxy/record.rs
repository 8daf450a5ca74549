//! What a check of the proxy measures of each selection and of each reward.

use std::fmt;

use serde::Serialize;
use tamis_nn::{Matrix, seed::Seed};

use crate::{
    baselines::Baseline,
    metrics::Metric,
    stats::{
        agreement::Agreement,
        power::{Noise, bootstrap_sd, mean_and_sd, median_gap},
    },
};

/// A number of a row whose mean over a selection is a reward for which nothing is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowScore {
    /// The mean cosine of its vector with those of the reward fold.
    Similarity,
    /// The mean cosine of its gradient with those of the reward fold: LESS.
    Alignment,
    /// Its tokens.
    Tokens,
}

/// What is trained on a selection to score it, from low fidelity to high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fidelity {
    /// Nothing.
    Rows(RowScore),
    /// The probe on the embedder's features.
    FrozenProbe,
    /// The probe on features of a model that was fine-tuned on a part of the pool.
    FinetunedProbe,
    /// The probe on gradients of the language model as it is.
    GradientProbe,
    /// The probe on gradients of the language model once it is fine-tuned on a part of the pool.
    FinetunedGradientProbe,
    /// The target with all layers frozen but the top ones.
    TopLayers {
        /// Those that are trained.
        top: usize,
        /// All there are.
        layers: usize,
    },
    /// The target, trained for one epoch.
    OneEpoch,
    /// The target as it is trained in the end.
    Target,
}

impl Fidelity {
    /// Whether this is a probe, which costs a moment.
    pub fn is_probe(self) -> bool {
        matches!(
            self,
            Self::FrozenProbe | Self::FinetunedProbe | Self::GradientProbe | Self::FinetunedGradientProbe
        )
    }
}

impl fmt::Display for Fidelity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(RowScore::Similarity) => f.write_str("mean cosine of vectors"),
            Self::Rows(RowScore::Alignment) => f.write_str("mean cosine of gradients (LESS)"),
            Self::Rows(RowScore::Tokens) => f.write_str("mean number of tokens"),
            Self::FrozenProbe => f.write_str("probe, frozen features"),
            Self::FinetunedProbe => f.write_str("probe, fine-tuned features"),
            Self::GradientProbe => f.write_str("probe, gradients"),
            Self::FinetunedGradientProbe => f.write_str("probe, gradients once fine-tuned"),
            Self::TopLayers { top, layers } => write!(f, "fine-tune, top {top} of {layers} layers"),
            Self::OneEpoch => f.write_str("fine-tune, one epoch"),
            Self::Target => f.write_str("the target itself"),
        }
    }
}

/// How a selection was made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SelectionKind {
    /// Random rows.
    Random,
    /// Random rows of another label mix.
    OtherLabelMix,
    /// Random rows, so many of them drawn from the hardest.
    Noisy {
        /// The share of the hardest rows.
        percent: u32,
    },
    /// Rows of as few clusters as hold enough.
    FewClusters,
    /// What a rule chose.
    Rule(Baseline),
    /// What a search chose under this reward.
    Searched {
        /// What is trained to score a state.
        fidelity: Fidelity,
        /// What its probabilities are scored by.
        metric: Metric,
    },
}

impl fmt::Display for SelectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("random"),
            Self::OtherLabelMix => f.write_str("another label mix"),
            Self::Noisy { percent } => write!(f, "{percent}% noisy"),
            Self::FewClusters => f.write_str("from few clusters"),
            Self::Rule(rule) => write!(f, "chosen by the rule {rule}"),
            Self::Searched { fidelity, metric } => write!(f, "chosen by {fidelity}, {metric}"),
        }
    }
}

/// One selection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckedSelection {
    /// How it was made.
    #[serde(serialize_with = "shown")]
    pub kind: SelectionKind,
    /// The target's score; higher is better.
    pub target: f64,
    /// The score by each reward, in their order.
    pub rewards: Vec<f64>,
}

/// One way to score a selection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckedReward {
    /// What is trained.
    #[serde(rename = "model", serialize_with = "shown")]
    pub fidelity: Fidelity,
    /// What its probabilities on the reward fold are scored by.
    #[serde(serialize_with = "shown")]
    pub metric: Metric,
    /// With the target, over all selections.
    pub agreement: Agreement,
    /// Seconds of one score on one core.
    pub seconds: f64,
}

/// As it is shown.
fn shown<S: serde::Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// What it takes to tell two selections apart by their fine-tuned targets' scores, with 80% power at 5%.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DetectableEffect {
    /// The median gap between the target's scores of two selections. It holds noise itself: where all is noise, it is of noise.
    pub gap: f64,
    /// What blurs a gap: training seeds, measured on one random selection, and rows, measured on the two selections of the median gap.
    pub noise: Noise,
    /// The smallest gap that one seed a selection finds on the rows that were scored.
    pub found: f64,
    /// The fewest seeds a selection that find the median gap on the rows that were scored; none where these are too few for any.
    pub seeds_on_these_rows: Option<u64>,
    /// The fewest rows that find it with one seed a selection; none where no number does.
    pub rows_with_one_seed: Option<u64>,
    /// Seeds a selection, and rows, that find it together; none where all selections score the same.
    pub seeds_and_rows: Option<(u64, u64)>,
}

impl DetectableEffect {
    /// From the target's probabilities of every selection and of one selection with several training seeds, shape `(rows, answers)`
    /// each; none where there are too few of either.
    pub(crate) fn of(
        selections: &[Matrix],
        repeats: &[&Matrix],
        targets: &[u32],
        metric: Metric,
        seed: Seed,
    ) -> Option<Self> {
        let score = |probabilities: &Matrix| metric.score(probabilities, targets);
        let (gap, i, j) = median_gap(&selections.iter().map(score).collect::<Vec<f64>>())?;
        if repeats.len() < 2 || targets.is_empty() {
            return None;
        }
        let difference = |rows: &[u32]| {
            let drawn: Vec<u32> = rows.iter().map(|&row| targets[row as usize]).collect();
            let of = |i: usize| metric.score(&selections[i].gather(rows), &drawn);
            of(i) - of(j)
        };
        let rows = targets.len() as u64;
        let noise = Noise {
            seed_sd: mean_and_sd(&repeats.iter().map(|repeat| score(repeat)).collect::<Vec<f64>>()).1,
            row_sd: bootstrap_sd(targets.len(), seed, &difference),
            rows,
        };
        Some(Self {
            gap,
            noise,
            found: noise.found(1, rows),
            seeds_on_these_rows: noise.seeds(gap, rows),
            rows_with_one_seed: noise.rows(gap, 1),
            seeds_and_rows: noise.seeds_and_rows(gap),
        })
    }
}

/// What the parts cost, in seconds of one core.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Costs {
    /// One search, with all its evaluations.
    pub search_seconds: f64,
    /// One fine-tune of the target on a selection, without its scoring.
    pub train_seconds: f64,
    /// One fine-tune on the whole pool: estimated from `train_seconds` and the numbers of rows.
    pub everything_seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MetricKind;

    #[test]
    fn what_tells_two_selections_apart_is_measured_on_both_kinds_of_noise() {
        // Two answers, 8 rows; right on the first k rows.
        let right = |k: usize| {
            let rows = (0..8).flat_map(|i| if i < k { [0.9, 0.1] } else { [0.1, 0.9] });
            Matrix::from_vec(rows.collect(), 8, 2)
        };
        let (selections, metric) = ([right(2), right(4), right(7)], Metric::hard(MetricKind::Accuracy));
        let (low, high) = (right(3), right(5));
        let telling = |repeats: &[&Matrix]| DetectableEffect::of(&selections, repeats, &[0; 8], metric, Seed(1));
        let found = telling(&[&low, &high]).expect("two of each");
        // Gaps 2/8, 3/8, 5/8; the median pair differs on 3 of 8 rows: √(3/8 * 5/8 / 8) = .171. Seeds: 3/8 and 5/8.
        assert_eq!(found.gap, 0.375);
        assert!((found.noise.seed_sd - 0.25 / 2f64.sqrt()).abs() < 1e-12);
        assert!((found.noise.row_sd - 0.171).abs() < 0.03, "{}", found.noise.row_sd);
        assert_eq!((found.noise.rows, found.rows_with_one_seed), (8, None));
        assert!(found.seeds_and_rows.is_some() && found.found > 0.375);
        assert_eq!(telling(&[&low]), None);
    }
}
