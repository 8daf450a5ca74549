//! The target: the model that a selection is for.

pub mod tokenize;

use tamis_nn::{
    Monitor,
    train::{EncoderClassifier, FrozenLayerCache, TokenizedSplit},
};

use crate::{Result, metrics::Metric};

/// The score of a model's predictions for these examples by each metric; higher is better. One step of `monitor` an example.
///
/// # Errors
///
/// If a score is not finite, or the user stopped.
pub fn score(
    model: &EncoderClassifier,
    (data, examples): (&TokenizedSplit, &[u32]),
    metrics: &[Metric],
    beneath: Option<&FrozenLayerCache>,
    monitor: &dyn Monitor,
) -> Result<Vec<f64>> {
    let probabilities = model.predict(data, examples, beneath, monitor)?;
    let targets = data.targets_of(examples);
    Ok(metrics
        .iter()
        .map(|metric| metric.score(&probabilities, &targets))
        .collect())
}
