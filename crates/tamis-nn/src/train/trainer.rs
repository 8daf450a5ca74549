//! The training loop: epochs of shuffled batches, each a forward and a backward pass and a step of AdamW.
//!
//! Source: the usual recipe for encoders (Devlin et al. 2019, appendix A.3; Mosbach et al. 2021): linear warm-up and decay, gradients
//! clipped by their global norm, decay of weights but not of biases and norms. A batch is packed, never padded; where it has more
//! tokens than a pass may take, its gradient is added up over several passes.

use rand::seq::SliceRandom;

use crate::{
    Error, Result,
    encoder::{
        OutputTokens,
        gradient::EncoderGradient,
        head::{Head, HeadTape},
        loss::cross_entropy,
        training_pass::{Dropouts, Input, Tape},
    },
    kernels::dropout::Dropout,
    optim::{
        adamw::{AdamW, Parameter, Table, global_norm},
        schedule::linear_schedule,
    },
    seed::Seed,
    train::{
        batch::Batch, classifier::EncoderClassifier, examples::Examples, frozen_cache::FrozenLayerCache,
        settings::TrainSettings,
    },
};

/// What a training run of some kind of model holds besides the model: the optimiser and the buffers that steps use again.
pub trait Trainer {
    /// What is trained.
    type Model;

    /// How it trains.
    fn settings(&self) -> &TrainSettings;

    /// The optimiser.
    fn optimiser(&self) -> &AdamW;

    /// Goes on from an optimiser's state.
    fn set_optimiser(&mut self, optimiser: AdamW);

    /// The trained tensors of a model in a fixed order, by names that are used in checkpoints.
    fn trained<'m>(&self, model: &'m mut Self::Model) -> Vec<(String, &'m mut [f32])>;

    /// One step on these examples. Returns their mean loss before the step. `dropout` is the source of what is dropped.
    ///
    /// # Errors
    ///
    /// If the loss or the gradient is not finite; the model is then as it was before the step.
    fn step(
        &mut self,
        model: &mut Self::Model,
        examples: Examples<'_>,
        learning_rate: f32,
        dropout: Seed,
    ) -> Result<f64>;
}

/// The training of an encoder with a head.
pub struct ClassifierTrainer {
    optimiser: AdamW,
    gradient: EncoderGradient,
    head_gradient: Head,
    tape: Tape,
    head_tape: HeadTape,
    settings: TrainSettings,
}

/// How far a run is, told after every step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Steps done.
    pub step: u64,
    /// The epoch that the step belongs to, from 1.
    pub epoch: u32,
    /// Whether it is the last step of its epoch.
    pub ends_epoch: bool,
    /// The mean loss of the step's rows, before the step.
    pub loss: f64,
}

impl Trainer for ClassifierTrainer {
    type Model = EncoderClassifier;

    fn settings(&self) -> &TrainSettings {
        &self.settings
    }

    fn optimiser(&self) -> &AdamW {
        &self.optimiser
    }

    fn set_optimiser(&mut self, optimiser: AdamW) {
        self.optimiser = optimiser;
    }

    fn trained<'m>(&self, model: &'m mut EncoderClassifier) -> Vec<(String, &'m mut [f32])> {
        let (words, dense) = model.encoder.trained_mut(self.settings.freeze_layers);
        let words = words.into_iter().map(|values| ("words".to_owned(), values));
        let dense = dense.into_iter().chain(model.head.tensors_mut()).enumerate();
        words
            .chain(dense.map(|(i, (values, _))| (format!("p{i}"), values)))
            .collect()
    }

    /// # Panics
    ///
    /// If layers are frozen and their output is not there, or the other way round.
    fn step(
        &mut self,
        model: &mut EncoderClassifier,
        examples: Examples<'_>,
        learning_rate: f32,
        dropout: Seed,
    ) -> Result<f64> {
        let Examples { split, rows, frozen } = examples;
        assert_eq!(
            self.settings.freeze_layers,
            frozen.map(FrozenLayerCache::layers),
            "what is frozen"
        );
        // From a thread of the pool, which takes part in all of a step's loops: one outside would wake another for each.
        rayon::scope(|_| {
            let weight = 1.0 / rows.len() as f32;
            let mut loss = 0.0;
            for (i, part) in split.parts(rows, self.settings.pass_tokens).into_iter().enumerate() {
                let vectors = frozen.map(|frozen| (frozen.vectors(&model.encoder, split, part), frozen.layers()));
                let vectors = vectors.as_ref().map(|(vectors, layers)| (vectors.as_slice(), *layers));
                loss += self.pass(model, &split.batch(part), vectors, weight, dropout.index(i as u64));
            }
            let loss = loss * f64::from(weight);
            let norm = self.gradient_norm();
            match self.settings.clipping(loss, norm, self.optimiser.steps()) {
                Ok(factor) => self.update(model, learning_rate, factor),
                Err(error) => {
                    self.clear_gradient();
                    return Err(error);
                }
            }
            Ok(loss)
        })
    }
}

impl ClassifierTrainer {
    /// A run that has taken no step.
    pub fn new(model: &EncoderClassifier, settings: &TrainSettings) -> Self {
        Self {
            optimiser: AdamW::new(settings.weight_decay),
            gradient: EncoderGradient::zeros(&model.encoder, settings.freeze_layers),
            head_gradient: model.head.zeros_like(),
            tape: Tape::new(settings.dtype),
            head_tape: HeadTape::default(),
            settings: settings.clone(),
        }
    }

    /// Forward and backward over one part of a batch; returns the sum of its rows' losses.
    fn pass(
        &mut self,
        model: &EncoderClassifier,
        batch: &Batch,
        frozen: Option<(&[f32], usize)>,
        weight: f32,
        dropout: Seed,
    ) -> f64 {
        let drop = |rate: f32, name: &str| Dropout::new(self.settings.dropout.unwrap_or(rate), dropout.derive(name).0);
        let dropouts = Dropouts {
            hidden: drop(model.dropout.hidden, "hidden"),
            attention: drop(model.dropout.attention, "attention"),
        };
        let head_dropout = drop(model.dropout.classifier, "head");
        let input = match frozen {
            None => Input::Tokens(batch.packed()),
            Some((vectors, frozen)) => Input::Hidden {
                vectors,
                starts: &batch.starts,
                frozen,
            },
        };
        let firsts = model
            .encoder
            .train_forward(input, OutputTokens::First, dropouts, &mut self.tape);
        let scores = model.head.forward(firsts, head_dropout, &mut self.head_tape);
        let classes: Vec<u32> = batch.objectives.iter().map(|objective| objective.class()).collect();
        let mut upstream = Vec::new();
        let smoothing = self.settings.label_smoothing;
        let loss = cross_entropy(scores, &batch.groups, &classes, smoothing, weight, &mut upstream);
        let upstream = model
            .head
            .backward(&upstream, head_dropout, &mut self.head_tape, &mut self.head_gradient);
        model
            .encoder
            .train_backward(&upstream, dropouts, &mut self.tape, &mut self.gradient);
        loss
    }

    fn gradient_norm(&mut self) -> f64 {
        let words = global_norm(std::iter::once(self.gradient.token_embeddings.values()));
        let parts = dense_parts(&mut self.gradient, &mut self.head_gradient);
        global_norm(parts.iter().map(|part| &**part)).hypot(words)
    }

    /// A step of the optimiser against the gradient times `factor`; the gradient is zero afterwards.
    fn update(&mut self, model: &mut EncoderClassifier, rate: f32, factor: f32) {
        let cols = model.encoder.shape.hidden;
        let (words, dense) = model.encoder.trained_mut(self.settings.freeze_layers);
        // The gradient's words are read while its other parts are written to.
        let word_gradient = std::mem::take(&mut self.gradient.token_embeddings);
        let mut parameters: Vec<Parameter<'_>> = dense
            .into_iter()
            .chain(model.head.tensors_mut())
            .zip(dense_parts(&mut self.gradient, &mut self.head_gradient))
            .map(|((values, decays), gradient)| Parameter {
                values,
                gradient,
                decays,
            })
            .collect();
        let mut table = words.map(|values| Table {
            values,
            cols,
            rows: word_gradient.rows(),
            gradient: word_gradient.values(),
        });
        self.optimiser.step(rate, factor, &mut parameters, table.as_mut());
        drop(parameters);
        self.gradient.token_embeddings = word_gradient;
        self.gradient.token_embeddings.clear();
    }

    fn clear_gradient(&mut self) {
        self.gradient.token_embeddings.clear();
        for part in dense_parts(&mut self.gradient, &mut self.head_gradient) {
            part.fill(0.0);
        }
    }
}

/// The gradients of all dense tensors, in the order of [`ClassifierTrainer::trained`].
fn dense_parts<'g>(gradient: &'g mut EncoderGradient, head: &'g mut Head) -> Vec<&'g mut [f32]> {
    let head = head.tensors_mut().map(|(part, _)| part);
    gradient.dense_mut().into_iter().chain(head).collect()
}

/// Told after every step how far the run is; an error ends it.
pub type Watch<'w, T, E> = dyn FnMut(Step, &mut <T as Trainer>::Model, &mut T) -> Result<(), E> + 'w;

/// Trains `model` on these examples, going on from the step that `trainer` is at, and tells `watch` after every step.
///
/// # Errors
///
/// If a loss is not finite, or `watch` fails.
pub fn train<T: Trainer, E: From<Error>>(
    model: &mut T::Model,
    trainer: &mut T,
    examples: Examples<'_>,
    seed: Seed,
    watch: &mut Watch<'_, T, E>,
) -> Result<(), E> {
    let settings = trainer.settings().clone();
    let (steps, begun) = (settings.steps(examples.rows.len()), trainer.optimiser().steps());
    // In single precision, so that a tenth of 840 steps is 84 and not a little more.
    let warm_up = (settings.warmup_ratio * steps as f32).ceil() as u64;
    let mut step = 0;
    for epoch in 0..settings.epochs {
        let mut order = examples.rows.to_vec();
        order.shuffle(&mut seed.derive("order").index(u64::from(epoch)).rng());
        let per_epoch = order.len().div_ceil(settings.batch_size);
        for (i, batch) in order.chunks(settings.batch_size).enumerate() {
            if step >= begun {
                let rate = settings.learning_rate() * linear_schedule(step, warm_up, steps);
                let loss = trainer.step(
                    model,
                    Examples {
                        rows: batch,
                        ..examples
                    },
                    rate,
                    seed.derive("dropout").index(step),
                )?;
                let told = Step {
                    step: step + 1,
                    epoch: epoch + 1,
                    ends_epoch: i + 1 == per_epoch,
                    loss,
                };
                watch(told, model, trainer)?;
            }
            step += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Silent, test_util::tiny_classifier};

    fn settings() -> TrainSettings {
        TrainSettings {
            epochs: 30,
            batch_size: 8,
            learning_rate: Some(0.01),
            ..TrainSettings::default()
        }
    }

    fn trained(settings: &TrainSettings, threads: usize) -> (EncoderClassifier, f64) {
        let (mut model, data) = tiny_classifier();
        let rows: Vec<u32> = (0..120).collect();
        let frozen = settings
            .freeze_layers
            .map(|layers| FrozenLayerCache::new(layers, 1 << 20));
        let mut trainer = ClassifierTrainer::new(&model, settings);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool");
        pool.install(|| {
            train::<_, Error>(
                &mut model,
                &mut trainer,
                Examples {
                    split: &data,
                    rows: &rows,
                    frozen: frozen.as_ref(),
                },
                Seed(3),
                &mut |_, _, _| Ok(()),
            )
            .expect("trains");
            let rest: Vec<u32> = (120..160).collect();
            let probabilities = model
                .predict(
                    Examples {
                        split: &data,
                        rows: &rest,
                        frozen: frozen.as_ref(),
                    },
                    &Silent,
                )
                .expect("predicts");
            let right = rest
                .iter()
                .zip(probabilities.iter_rows())
                .filter(|&(&row, p)| [u32::from(p[1] > p[0])] == data.classes_of(&[row])[..])
                .count();
            (model.clone(), right as f64 / 40.0)
        })
    }

    #[test]
    fn it_learns_what_can_be_learned_the_same_way_with_any_number_of_threads() {
        let (one, accuracy) = trained(&settings(), 1);
        assert!(accuracy > 0.9, "{accuracy}");
        let (three, _) = trained(&settings(), 3);
        assert!(one == three, "another number of threads gave other weights");
        // Batches of more rows than a norm or a dropout has in one block.
        let large = TrainSettings {
            batch_size: 32,
            epochs: 2,
            ..settings()
        };
        assert!(trained(&large, 1) == trained(&large, 3), "in large batches");
        // in passes of a few tokens: the same sums in another order
        let small = TrainSettings {
            pass_tokens: 12,
            dropout: Some(0.0),
            epochs: 1,
            ..settings()
        };
        let whole = TrainSettings {
            pass_tokens: 4096,
            ..small.clone()
        };
        let ((a, _), (b, _)) = (trained(&small, 2), trained(&whole, 2));
        let (a, b) = (a.head.scores.weight, b.head.scores.weight);
        assert!(a.as_slice().iter().zip(b.as_slice()).all(|(a, b)| (a - b).abs() < 1e-3));
    }

    #[test]
    fn frozen_layers_stay_as_they_are_and_the_rest_learns() {
        let frozen = TrainSettings {
            freeze_layers: Some(1),
            ..settings()
        };
        let (before, _) = tiny_classifier();
        let (after, accuracy) = trained(&frozen, 2);
        assert!(before.encoder.layers[0] == after.encoder.layers[0]);
        assert!(before.encoder.token_embeddings == after.encoder.token_embeddings);
        assert!(before.encoder.layers[1] != after.encoder.layers[1]);
        assert!(accuracy > 0.6, "{accuracy}");
    }

    #[test]
    fn a_loss_that_is_not_finite_stops_the_run_and_leaves_the_model() {
        let (mut model, data) = tiny_classifier();
        model.head.scores.bias[0] = f32::NAN;
        let before = format!("{model:?}");
        let mut trainer = ClassifierTrainer::new(&model, &settings());
        let error = trainer
            .step(&mut model, Examples::new(&data, &[0, 1]), 0.1, Seed(0))
            .expect_err("is not a number");
        assert_eq!(
            error.to_string(),
            "the loss at step 1 of the fine-tune: expected finite numbers, found NaN"
        );
        assert_eq!(format!("{model:?}"), before);
    }
}
