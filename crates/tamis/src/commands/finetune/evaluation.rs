//! What the model of `finetune` scores on rows that it has not seen.

use std::collections::BTreeMap;

use tamis_nn::{Matrix, Monitor, train::EncoderClassifier};

use crate::{
    Result,
    commands::finetune::material::Material,
    data::{Dataset, TaskKind},
    metrics::{LabelBiases, MetricKind, only_answer},
    records::finetune::{TargetScores, TunedBiases},
    settings::finetune::FinetuneSettings,
};

/// What the trained model does on rows that it has not seen.
pub(super) struct Evaluated {
    pub(super) biases: Option<TunedBiases>,
    /// Those of them that are added to the head; the scores are with them.
    pub(super) added: Option<LabelBiases>,
    /// The label that every validation row is given, where it is one and they have several.
    pub(super) only_label: Option<u32>,
    pub(super) validation: TargetScores,
    pub(super) test: Option<TargetScores>,
    pub(super) tests: BTreeMap<String, TargetScores>,
}

/// Scores the model on validation and test rows. Advances `monitor` by one a row.
pub(super) fn evaluate(
    settings: &FinetuneSettings,
    dataset: &Dataset,
    material: &Material,
    model: &EncoderClassifier,
    monitor: &dyn Monitor,
) -> Result<Evaluated> {
    let rows = material.validation.all();
    let examples = material.of_validation(&rows);
    let (probabilities, targets) = (model.predict(examples, monitor)?, &examples.classes()[..]);
    // Rows that were trained on would have them tuned to what is known by heart.
    let biases = (!settings.with_validation && dataset.task.kind != TaskKind::Choice)
        .then(|| TunedBiases::tune(&probabilities, targets));
    let added = settings
        .label_biases
        .and_then(|kind| biases.as_ref()?.of(kind).cloned());
    let as_written = |probabilities: &Matrix, targets: &[u32]| match &added {
        Some(biases) => TargetScores::of_predictions(&biases.apply(probabilities), targets),
        None => TargetScores::of_predictions(probabilities, targets),
    };
    let validation = as_written(&probabilities, targets);
    let several = dataset.task.kind != TaskKind::Choice && targets.iter().any(|&label| label != targets[0]);
    let biased = added.as_ref().map(|biases| biases.apply(&probabilities));
    let only_label = only_answer(biased.as_ref().unwrap_or(&probabilities)).filter(|_| several);
    let (Some(test), Some(split)) = (&material.test, &dataset.test) else {
        return Ok(Evaluated {
            biases,
            added,
            only_label,
            validation,
            test: None,
            tests: BTreeMap::new(),
        });
    };
    let rows = test.all();
    let examples = material.of_test(test, &rows);
    let probabilities = model.predict(examples, monitor)?;
    let both = |probabilities: &Matrix, targets: &[u32]| {
        let tuned = |kind| biases.as_ref()?.score(kind, probabilities, targets);
        TargetScores {
            tuned_accuracy: tuned(MetricKind::Accuracy),
            tuned_macro_f1: tuned(MetricKind::MacroF1),
            ..as_written(probabilities, targets)
        }
    };
    let on = |rows: &[u32]| both(&probabilities.gather(rows), &test.classes_of(rows));
    let tests = match split.by_file().as_slice() {
        [_] => BTreeMap::new(),
        several => several.iter().map(|(name, rows)| (name.clone(), on(rows))).collect(),
    };
    let test = Some(both(&probabilities, &examples.classes()));
    Ok(Evaluated {
        biases,
        added,
        only_label,
        validation,
        test,
        tests,
    })
}
