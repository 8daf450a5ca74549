//! A language model as a target: what is fine-tuned on rows of responses, and scored by the likelihood of others.

use tamis_nn::{
    Matrix, Monitor, Seed,
    decoder::{GradientSketch, Projection, SketchSettings},
    train::{Examples, LanguageModel, LanguageModelTrainer, TokenizedSplit, TrainSettings, train},
};

use crate::{Result, target::TargetModel};

impl TargetModel for LanguageModel {
    fn copy(&self) -> Box<dyn TargetModel> {
        Box::new(self.clone())
    }

    /// None: of a language model, adapters are trained and not its upper layers.
    fn freezable_layers(&self) -> usize {
        0
    }

    fn training_bytes(&self, tokens: usize, _freeze_layers: Option<usize>, copies: usize) -> usize {
        LanguageModel::training_bytes(self, tokens, copies)
    }

    fn train(
        &mut self,
        examples: Examples<'_>,
        settings: &TrainSettings,
        seed: Seed,
        after_step: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut trainer = LanguageModelTrainer::new(self, settings);
        train(self, &mut trainer, examples, seed, &mut |_, _, _| after_step())
    }

    /// Of each response the geometric mean of its tokens' probabilities, shape `(examples, 1)`: its log loss is the mean over responses of
    /// the loss a token.
    fn predict(&self, examples: Examples<'_>, monitor: &dyn Monitor) -> Result<Matrix> {
        let losses = self.losses(examples, monitor)?;
        let likely = losses.iter().map(|loss| (-loss.a_token()).exp() as f32).collect();
        Ok(Matrix::from_vec(likely, losses.len(), 1))
    }

    /// The mean over a sequence's tokens of what the head reads.
    fn features(&self, split: &TokenizedSplit, monitor: &dyn Monitor) -> Result<Matrix> {
        // The least sketch there is: the pass that makes it gives the hidden states.
        let settings = SketchSettings {
            layers: 1,
            side: 1,
            target_modules: vec![Projection::Down],
        };
        let weights = self.weights();
        let sketch = GradientSketch::new(&weights.shape, weights.layers.len(), &settings, Seed(0));
        let all = split.all();
        Ok(self.gradients(Examples::new(split, &all), &sketch, monitor)?.hidden)
    }
}
