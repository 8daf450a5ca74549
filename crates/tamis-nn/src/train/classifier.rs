//! An encoder with a head, and what it predicts.

use rayon::prelude::*;

use crate::{
    Error, Matrix, Monitor, Result,
    encoder::{
        Dtype, EncoderWeights, OutputTokens, Scratch,
        head::{Head, HeadTape},
        loss::softmax_groups,
    },
    hub::config::DropoutRates,
    kernels::dropout::Dropout,
    train::{
        batch::{Batch, TokenizedSplit},
        examples::Examples,
        frozen_cache::FrozenLayerCache,
    },
};

/// Tokens of a batch that one thread predicts at a time.
const BATCH_TOKENS: usize = 1024;

/// A model that gives every label, or every choice, a score.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderClassifier {
    /// The encoder.
    pub encoder: EncoderWeights,
    /// What reads each sequence's first token.
    pub head: Head,
    /// What is dropped in training.
    pub dropout: DropoutRates,
}

impl EncoderClassifier {
    /// The probabilities of these examples' answers, shape `(examples, answers)`; 0 where an example has fewer answers. One step
    /// of `monitor` an example.
    ///
    /// # Errors
    ///
    /// If a score is not finite, or the user stopped.
    pub fn predict(&self, examples: Examples<'_>, monitor: &dyn Monitor) -> Result<Matrix> {
        let rows = self.by_example(examples, monitor, |firsts, batch, tape| {
            let mut scores = self.head.forward(firsts, Dropout::new(0.0, 0), tape).to_vec();
            if let Some(x) = scores.iter().find(|x| !x.is_finite()) {
                return Err(Error::NotFinite {
                    place: "the model's scores".into(),
                    found: x.to_string(),
                });
            }
            softmax_groups(&mut scores, &batch.groups);
            let groups = batch.groups.windows(2);
            Ok(groups.map(|range| scores[range[0]..range[1]].to_vec()).collect())
        })?;
        let mut probabilities = Matrix::zeros(examples.rows.len(), examples.split.answers());
        for (i, row) in rows.into_iter().enumerate() {
            probabilities.row_mut(i)[..row.len()].copy_from_slice(&row);
        }
        Ok(probabilities)
    }

    /// What the scores are read from: each sequence's first token behind dense layer and activation, shape
    /// `(sequences, hidden)`. One step of `monitor` an example.
    ///
    /// # Errors
    ///
    /// If the user stopped.
    pub fn features(&self, data: &TokenizedSplit, monitor: &dyn Monitor) -> Result<Matrix> {
        let hidden = self.encoder.shape.hidden;
        let all = data.all();
        let rows = self.by_example(Examples::new(data, &all), monitor, |firsts, batch, tape| {
            let mut rest = self.head.features(firsts, tape);
            let sequences = batch
                .groups
                .windows(2)
                .map(|range| (range[1] - range[0]) / data.outputs());
            Ok(sequences
                .map(|count| {
                    let (one, tail) = rest.split_at(count * hidden);
                    rest = tail;
                    one.to_vec()
                })
                .collect())
        })?;
        Ok(Matrix::from_vec(rows.concat(), data.sequences(), hidden))
    }

    /// What `of` makes of the first tokens' vectors, one list an example, in the order of `examples`. It is given batches of
    /// examples of like length, so that the threads' shares are alike.
    fn by_example<F>(&self, examples: Examples<'_>, monitor: &dyn Monitor, of: F) -> Result<Vec<Vec<f32>>>
    where
        F: Fn(&[f32], &Batch, &mut HeadTape) -> Result<Vec<Vec<f32>>> + Sync,
    {
        let Examples { split, rows, frozen } = examples;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(split.tokens_of(rows[i])));
        let sorted: Vec<u32> = order.iter().map(|&i| rows[i]).collect();
        let layers = (self.encoder).prepack(
            frozen.map_or(0, FrozenLayerCache::layers)..self.encoder.layers.len(),
            Dtype::Float32,
        );
        let made: Vec<Vec<Vec<f32>>> = split
            .parts(&sorted, BATCH_TOKENS)
            .into_par_iter()
            .map_init(
                || (Scratch::default(), HeadTape::default()),
                |(scratch, tape), part| {
                    monitor.proceed()?;
                    let batch = split.batch(part);
                    let firsts = if let Some(frozen) = frozen {
                        let hidden = frozen.vectors(&self.encoder, split, part);
                        self.encoder
                            .forward_above(&layers, &hidden, &batch.starts, OutputTokens::First, scratch)
                    } else {
                        self.encoder
                            .forward(&layers, batch.packed(), OutputTokens::First, scratch)
                    };
                    let made = of(firsts, &batch, tape)?;
                    monitor.advance(part.len() as u64);
                    Ok(made)
                },
            )
            .collect::<Result<_>>()?;
        let mut by_example = vec![Vec::new(); rows.len()];
        for (i, row) in order.into_iter().zip(made.into_iter().flatten()) {
            by_example[i] = row;
        }
        Ok(by_example)
    }

    /// About how many bytes training takes at its peak, with passes of at most `tokens` tokens and `frozen` layers: weights,
    /// gradients, moments, and what the backward pass needs.
    pub fn training_bytes(&self, tokens: usize, frozen: Option<usize>) -> usize {
        let shape = &self.encoder.shape;
        let layers = self.encoder.layers.len();
        let trained = layers - frozen.unwrap_or(0);
        let intermediate = self
            .encoder
            .layers
            .first()
            .map_or(0, |layer| layer.intermediate.bias.len());
        let layer = 4 * shape.hidden * shape.hidden + 2 * shape.hidden * intermediate;
        let table = self.encoder.token_embeddings.as_slice().len();
        // Weights, gradient and two moments; a table's moments are kept for the rows in use, here all.
        let tables = if frozen.is_none() { 3 * table } else { table };
        let numbers = tables + layer * (layers + 3 * trained);
        // Kept by layer, then the passing buffers and what a product lays out.
        let kept = tokens * (trained * (6 * shape.hidden + intermediate) + 5 * shape.hidden + 3 * intermediate);
        4 * (numbers + kept)
    }
}
