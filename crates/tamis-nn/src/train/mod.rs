//! Fine-tuning: an encoder with a head, or a language model; the target that a selection is for, and the slowest of the proxies.
//!
//! ```text
//! examples -> tokens (TokenizedSplit) -> batches -> training passes (nn::training) -> AdamW -> probabilities
//! ```
//!
//! One seed gives one set of weights, whatever the number of threads; see [`crate::encoder::training_pass`].

mod batch;
pub mod checkpoint;
mod classifier;
mod examples;
mod frozen_cache;
mod language_model;
mod settings;
mod trainer;

pub use batch::{Batch, Objective, TokenizedSplit};
pub use classifier::EncoderClassifier;
pub use examples::Examples;
pub use frozen_cache::FrozenLayerCache;
pub use language_model::{LanguageModel, LanguageModelTrainer, ResponseLoss, RowGradients};
pub use settings::TrainSettings;
pub use trainer::{ClassifierTrainer, Step, Trainer, Watch, train};
