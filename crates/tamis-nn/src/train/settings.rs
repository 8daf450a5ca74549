//! How a model is fine-tuned.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, kernels::packed::ProductDtype};

/// The settings of one fine-tune.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// Passes over the rows. Default: 4.
    pub epochs: u32,
    /// Rows a step. Default: 16.
    pub batch_size: usize,
    /// The highest learning rate. Default (none): 1e-4, for encoders of MiniLM's size (larger ones want 2e-5 to 5e-5); of language models
    /// 2e-4 for adapters, 2e-5 for all weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f32>,
    /// The share of all steps in which the rate rises from 0; then it falls linearly to 0. Default: 0.1.
    pub warmup_ratio: f32,
    /// AdamW's decay of weights, not of biases and norms. Default: 0.01.
    pub weight_decay: f32,
    /// The largest norm of a step's gradient; larger ones are scaled down to it. Default: 1.
    pub max_grad_norm: f32,
    /// How much of a target's share is spread over all labels. Default: 0.
    pub label_smoothing: f32,
    /// The share of numbers dropped in training. Default (none): what the model's configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f32>,
    /// How many layers are frozen, from the lowest, the embeddings with them; 0 freezes the embeddings alone. Default (none): none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze_layers: Option<usize>,
    /// The most tokens of a sequence; longer ones are cut and counted. Default (none): 256, of language models 1024, of those
    /// that choose among responses 512, or what the model can take if that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// The numbers in which a model multiplies while it is trained; a language model also when it is evaluated. Weights, moments, norms and
    /// sums stay in 32 bits. Default: `float32`.
    pub dtype: ProductDtype,
    /// The most tokens in a pass; larger batches are passed in parts and their gradients added. Default: 4096.
    pub pass_tokens: usize,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            epochs: 4,
            batch_size: 16,
            learning_rate: None,
            warmup_ratio: 0.1,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            label_smoothing: 0.0,
            dropout: None,
            freeze_layers: None,
            max_length: None,
            dtype: ProductDtype::default(),
            pass_tokens: 4096,
        }
    }
}

impl TrainSettings {
    /// The highest learning rate.
    pub fn learning_rate(&self) -> f32 {
        self.learning_rate.unwrap_or(1e-4)
    }

    /// The most tokens of a sequence.
    pub fn max_length(&self) -> usize {
        self.max_length.unwrap_or(256)
    }

    /// How many steps `rows` rows take.
    pub fn steps(&self, rows: usize) -> u64 {
        u64::from(self.epochs) * rows.div_ceil(self.batch_size) as u64
    }

    /// What a step's gradient is multiplied by, so that its norm is at most [`TrainSettings::max_grad_norm`].
    ///
    /// # Errors
    ///
    /// If the loss or the norm is not finite; `steps` is how many have been taken.
    pub(crate) fn clipping(&self, loss: f64, norm: f64, steps: u64) -> Result<f32> {
        for (what, found) in [("loss", loss), ("gradient", norm)] {
            if !found.is_finite() {
                return Err(Error::NotFinite {
                    place: format!("the {what} at step {} of the fine-tune", steps + 1),
                    found: found.to_string(),
                });
            }
        }
        Ok((self.max_grad_norm / (norm as f32 + 1e-6)).min(1.0))
    }

    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [
            ("epochs", self.epochs as usize),
            ("batch_size", self.batch_size),
            ("max_length", self.max_length()),
            ("train.pass_tokens", self.pass_tokens),
        ] {
            if value == 0 {
                return Err(Error::setting(name, "a number above 0", "0"));
            }
        }
        let shares = [
            ("train.warmup_ratio", self.warmup_ratio),
            ("train.label_smoothing", self.label_smoothing),
            ("train.dropout", self.dropout.unwrap_or(0.0)),
        ];
        for (name, value) in shares {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::setting(name, "a share from 0 to below 1", value.to_string()));
            }
        }
        let rate = self.learning_rate();
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(Error::setting("learning_rate", "a number above 0", rate.to_string()));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            let found = self.weight_decay.to_string();
            return Err(Error::setting("train.weight_decay", "0 or a number above it", found));
        }
        if self.max_grad_norm.is_nan() || self.max_grad_norm <= 0.0 {
            return Err(Error::setting(
                "train.max_grad_norm",
                "a number above 0",
                self.max_grad_norm.to_string(),
            ));
        }
        Ok(())
    }
}
