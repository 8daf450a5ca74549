//! The target: the model that a selection is for.

mod language_model;
pub mod responses;
pub mod row_gradients;
pub mod row_losses;
pub mod tokenize;

use tamis_nn::{
    Matrix, Monitor, Seed,
    train::{ClassifierTrainer, EncoderClassifier, Examples, TokenizedSplit, TrainSettings, train},
};

use crate::{Result, metrics::Metric};

/// A model that is trained on selections: what rewards, reranking and fine-tuned features ask of it.
///
/// A run holds one as it was loaded, and trains copies: an [`EncoderClassifier`], or a [`LanguageModel`](tamis_nn::train::LanguageModel)
/// with its adapters.
pub trait TargetModel: Send + Sync {
    /// A copy with weights of its own.
    fn copy(&self) -> Box<dyn TargetModel>;

    /// How many layers it has of which some, from the lowest, can be frozen.
    fn freezable_layers(&self) -> usize;

    /// About how many bytes training so many copies side by side takes at its peak, with passes of at most `tokens` tokens and so many
    /// frozen layers.
    fn training_bytes(&self, tokens: usize, freeze_layers: Option<usize>, copies: usize) -> usize;

    /// Trains it on these examples. Calls `after_step` after every step of the optimiser; an error there ends the training.
    ///
    /// # Errors
    ///
    /// If a loss is not finite, or `after_step` fails.
    fn train(
        &mut self,
        examples: Examples<'_>,
        settings: &TrainSettings,
        seed: Seed,
        after_step: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()>;

    /// What it predicts of these examples, shape `(examples, answers)`: probabilities, which a metric compares with the objectives.
    /// Advances `monitor` by one an example.
    ///
    /// # Errors
    ///
    /// If a number is not finite, or the user stopped.
    fn predict(&self, examples: Examples<'_>, monitor: &dyn Monitor) -> Result<Matrix>;

    /// The score of its predictions by each metric; higher is better. Advances `monitor` by one an example.
    ///
    /// # Errors
    ///
    /// As [`TargetModel::predict`].
    fn evaluate(&self, examples: Examples<'_>, metrics: &[Metric], monitor: &dyn Monitor) -> Result<Vec<f64>> {
        let (predictions, classes) = (self.predict(examples, monitor)?, examples.classes());
        Ok(metrics
            .iter()
            .map(|metric| metric.score(&predictions, &classes))
            .collect())
    }

    /// What it makes of each sequence of a split before the head's last layer, shape `(sequences, hidden)`: vectors for a probe.
    /// Advances `monitor` by one an example.
    ///
    /// # Errors
    ///
    /// If the user stopped.
    fn features(&self, split: &TokenizedSplit, monitor: &dyn Monitor) -> Result<Matrix>;
}

impl TargetModel for EncoderClassifier {
    fn copy(&self) -> Box<dyn TargetModel> {
        Box::new(self.clone())
    }

    fn freezable_layers(&self) -> usize {
        self.encoder.layers.len()
    }

    fn training_bytes(&self, tokens: usize, freeze_layers: Option<usize>, copies: usize) -> usize {
        EncoderClassifier::training_bytes(self, tokens, freeze_layers).saturating_mul(copies)
    }

    fn train(
        &mut self,
        examples: Examples<'_>,
        settings: &TrainSettings,
        seed: Seed,
        after_step: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut trainer = ClassifierTrainer::new(self, settings);
        train(self, &mut trainer, examples, seed, &mut |_, _, _| after_step())
    }

    fn predict(&self, examples: Examples<'_>, monitor: &dyn Monitor) -> Result<Matrix> {
        Ok(EncoderClassifier::predict(self, examples, monitor)?)
    }

    fn features(&self, split: &TokenizedSplit, monitor: &dyn Monitor) -> Result<Matrix> {
        Ok(EncoderClassifier::features(self, split, monitor)?)
    }
}
