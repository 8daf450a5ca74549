//! `metrics.json`: what was trained, how well it does, and what it cost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tamis_nn::{
    Fingerprint, Matrix, Monitor,
    train::{EncoderClassifier, Examples, ResponseLoss},
};

use crate::{
    Result,
    metrics::{LabelBiases, Metric, MetricKind},
    records::selection::ReadRecord,
};

/// `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FinetuneRecord {
    /// The format's version.
    pub version: u32,
    /// The program's version.
    pub tamis: String,
    /// Of the data, the model and the settings: a run is gone on with only where all are the same.
    pub fingerprint: Fingerprint,
    /// The source of all randomness.
    pub seed: u64,
    /// What became of the rows of the training files; none in the record of an earlier version.
    #[serde(default)]
    pub read: Option<ReadRecord>,
    /// Rows trained on.
    pub rows: u64,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Sequences that were cut to the longest length, over all splits.
    pub truncated: u64,
    /// The most tokens of a sequence.
    pub max_length: usize,
    /// Losses and scores by epoch, before label biases are added.
    pub epochs: Vec<EpochRecord>,
    /// The epoch whose weights were kept, from 1, where the settings say that the best are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_epoch: Option<u32>,
    /// On all validation rows, at the end; where the settings say that these were trained on, chose the epoch, or tuned the head's label
    /// biases, it flatters.
    pub validation: Scores,
    /// On the test rows, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Scores>,
    /// On each test file alone, by the end of its path, where there are several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tests: BTreeMap<String, Scores>,
    /// What a language model scores on the test rows before it is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Scores>,
    /// The label that the model gives every validation row, where it is one and they have several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_label: Option<String>,
    /// The label biases behind `tuned_accuracy` and `tuned_macro_f1`, which are the metrics' names here: what is added to each label's logit
    /// as it was trained.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label_biases: BTreeMap<String, BTreeMap<String, f64>>,
    /// Seconds of training steps, over all starts of the run.
    pub train_seconds: f64,
    /// Rows trained on a second.
    pub rows_per_second: f64,
    /// Their tokens a second.
    pub tokens_per_second: f64,
    /// The most memory that the process held; none where the system does not tell.
    pub peak_bytes: Option<u64>,
    /// The settings as resolved.
    pub settings: serde_json::Value,
}

/// One pass over the rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: u32,
    /// The mean loss of its steps, each before the step.
    pub train_loss: f64,
    /// On some validation rows, the same ones every time.
    pub validation: Scores,
}

/// A model's scores, by what its rows have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scores {
    /// Labels or choices.
    Labels(TargetScores),
    /// Responses.
    Responses(ResponseScores),
}

impl Scores {
    /// The score by this metric; higher is better, so losses come negated. Responses have accuracy and macro-F1 only where few are
    /// different; else these are minus infinity.
    pub(crate) fn by(&self, kind: MetricKind) -> f64 {
        match (self, kind) {
            (Self::Labels(scores), kind) => scores.by(kind),
            (Self::Responses(scores), MetricKind::LogLoss) => -scores.loss,
            (Self::Responses(scores), MetricKind::Accuracy) => scores.accuracy.unwrap_or(f64::NEG_INFINITY),
            (Self::Responses(scores), MetricKind::MacroF1) => scores.macro_f1.unwrap_or(f64::NEG_INFINITY),
        }
    }
}

/// A language model's scores on rows with responses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ResponseScores {
    /// The mean negative log likelihood of a response's token, natural logarithm; lower is better.
    pub loss: f64,
    /// e to the power of the loss.
    pub perplexity: f64,
    /// The mean over rows of the loss a token, by which `select` and `study` score; lower is better.
    #[serde(default)]
    pub log_loss: f64,
    /// Tokens of all responses.
    pub response_tokens: u64,
    /// The share of rows whose response is the most likely of all, where there are few different ones; higher is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// The mean of the F1 score over these; higher is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macro_f1: Option<f64>,
}

impl ResponseScores {
    /// Of these losses; `answers` are the scores where responses are few.
    pub(crate) fn of(losses: &[ResponseLoss], answers: Option<TargetScores>) -> Self {
        let loss = ResponseLoss::mean(losses);
        Self {
            loss,
            perplexity: loss.exp(),
            log_loss: losses.iter().map(ResponseLoss::a_token).sum::<f64>() / losses.len().max(1) as f64,
            response_tokens: losses.iter().map(|loss| loss.tokens).sum(),
            accuracy: answers.map(|scores| scores.accuracy),
            macro_f1: answers.map(|scores| scores.macro_f1),
        }
    }
}

/// A model's scores on rows with labels or choices.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TargetScores {
    /// The share of right answers; higher is better.
    pub accuracy: f64,
    /// The mean over the labels of the F1 score; higher is better.
    pub macro_f1: f64,
    /// The mean negative log probability of the right answer; lower is better.
    pub log_loss: f64,
    /// The accuracy with the label biases that are best for it on the validation rows; none of those rows themselves, where they were
    /// trained on, and of questions, whose answers' letters are no labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned_accuracy: Option<f64>,
    /// Macro-F1 likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned_macro_f1: Option<f64>,
}

impl TargetScores {
    /// Of a model on these examples.
    ///
    /// # Errors
    ///
    /// If a score is not finite, or the user stopped.
    pub(crate) fn of(model: &EncoderClassifier, examples: Examples<'_>, monitor: &dyn Monitor) -> Result<Self> {
        let probabilities = model.predict(examples, monitor)?;
        Ok(Self::of_predictions(&probabilities, &examples.classes()))
    }

    /// Of a model's probabilities, shape `(examples, answers)`.
    pub(crate) fn of_predictions(probabilities: &Matrix, targets: &[u32]) -> Self {
        let score = |kind| Metric::hard(kind).score(probabilities, targets);
        Self {
            accuracy: score(MetricKind::Accuracy),
            macro_f1: score(MetricKind::MacroF1),
            log_loss: -score(MetricKind::LogLoss),
            tuned_accuracy: None,
            tuned_macro_f1: None,
        }
    }

    /// The score by this metric; higher is better, so log loss comes negated.
    pub(crate) fn by(&self, kind: MetricKind) -> f64 {
        match kind {
            MetricKind::Accuracy => self.accuracy,
            MetricKind::MacroF1 => self.macro_f1,
            MetricKind::LogLoss => -self.log_loss,
        }
    }
}

/// The label biases that are best on the validation rows for either metric that counts answers.
pub(crate) struct TunedBiases {
    accuracy: LabelBiases,
    macro_f1: LabelBiases,
}

impl TunedBiases {
    /// For a model's probabilities of the validation rows, shape `(examples, labels)`.
    pub(crate) fn tune(probabilities: &Matrix, targets: &[u32]) -> Self {
        let tune = |kind| LabelBiases::tune(kind, probabilities, targets);
        Self {
            accuracy: tune(MetricKind::Accuracy),
            macro_f1: tune(MetricKind::MacroF1),
        }
    }

    /// Those for this metric; log loss counts no answers, and has none.
    pub(crate) fn of(&self, kind: MetricKind) -> Option<&LabelBiases> {
        match kind {
            MetricKind::Accuracy => Some(&self.accuracy),
            MetricKind::MacroF1 => Some(&self.macro_f1),
            MetricKind::LogLoss => None,
        }
    }

    /// The score by this metric with its biases of probabilities without any.
    pub(crate) fn score(&self, kind: MetricKind, probabilities: &Matrix, targets: &[u32]) -> Option<f64> {
        let biased = self.of(kind)?.apply(probabilities);
        Some(Metric::hard(kind).score(&biased, targets))
    }

    /// Each metric's biases by label.
    pub(crate) fn by_label(&self, labels: &[String]) -> BTreeMap<String, BTreeMap<String, f64>> {
        let of = |biases: &LabelBiases| labels.iter().cloned().zip(biases.as_slice().iter().copied()).collect();
        let named = |kind| Some((Metric::hard(kind).to_string(), of(self.of(kind)?)));
        [MetricKind::Accuracy, MetricKind::MacroF1]
            .into_iter()
            .filter_map(named)
            .collect()
    }
}
