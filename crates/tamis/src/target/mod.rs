//! The target: the model that a selection is for.

pub mod tokenize;

use tamis_nn::{
    Monitor,
    train::{Beneath, Classifier, Encoded},
};

use crate::{Result, metrics::Metric};

/// The score of a model's predictions for these examples by each metric; higher is better. One step of `monitor` an example.
///
/// # Errors
///
/// If a score is not finite, or the user stopped.
pub fn score(
    model: &Classifier,
    (data, examples): (&Encoded, &[u32]),
    metrics: &[Metric],
    beneath: Option<&Beneath>,
    monitor: &dyn Monitor,
) -> Result<Vec<f64>> {
    let probabilities = model.predict(data, examples, beneath, monitor)?;
    let targets = data.targets_of(examples);
    Ok(metrics
        .iter()
        .map(|metric| metric.score(&probabilities, &targets))
        .collect())
}
