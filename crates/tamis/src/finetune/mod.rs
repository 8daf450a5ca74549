//! Fine-tuning an encoder with a head: the target that a selection is for, and the dearest of the proxies.
//!
//! ```text
//! examples -> tokens (Encoded) -> batches -> training passes (nn::training) -> AdamW -> probabilities
//! ```
//!
//! One seed gives one set of weights, whatever the number of threads; see [`crate::nn::training`].

mod beneath;
pub mod checkpoint;
mod classifier;
mod encoded;
mod settings;
mod tokenize;
mod train;

pub use beneath::Beneath;
pub use classifier::Classifier;
pub use encoded::{Batch, Encoded};
pub use settings::TrainSettings;
pub use tokenize::{encode, outputs_of};
pub use train::{Step, Trainer, fit};

#[cfg(test)]
pub(crate) use train::tests::toy;
