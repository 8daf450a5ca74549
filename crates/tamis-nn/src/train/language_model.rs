//! A language model: what it thinks of responses and answers, and its training, of all weights or of adapters.
//!
//! A batch's loss is the mean over the tokens that are to be said, as transformers' trainer counts it: a long response weighs more than a
//! short one.

use std::{
    cmp::Reverse,
    sync::{Arc, OnceLock},
};

use crate::{
    Error, Matrix, Monitor, Result, Seed,
    decoder::{
        DecoderWeights, Lora,
        lora::LoraSettings,
        loss::{LossGradient, LossWorkspace, Predicted},
        sketch::GradientSketch,
        training_pass::{Adapted, DecoderGradient, FrozenProjections, GradientInto, PackedTokens, Tape},
        weights::NamedTensor,
    },
    encoder::loss::softmax_groups,
    kernels::{
        causal_attention::Segment,
        dropout::Dropout,
        linear::{FrozenWeight, Part},
        packed::ProductDtype,
        rms_norm::rms_norm,
    },
    optim::adamw::{AdamW, Parameter, global_norm},
    train::{batch::TokenizedSplit, examples::Examples, settings::TrainSettings, trainer::Trainer},
};

/// Tokens that are scored at a time.
const BATCH_TOKENS: usize = 2048;

/// A decoder and its adapters. Copies share what is not trained.
#[derive(Debug, Clone)]
pub struct LanguageModel {
    /// The decoder.
    weights: Arc<DecoderWeights>,
    /// The adapters, where these are trained and not the decoder itself.
    pub lora: Option<Lora>,
    /// The numbers in which it multiplies.
    pub dtype: ProductDtype,
    /// The decoder's layers and head, packed, from when they are first used until they change.
    packed: OnceLock<Arc<PackedDecoder>>,
}

/// What a decoder multiplies by.
#[derive(Debug)]
struct PackedDecoder {
    projections: FrozenProjections,
    head: FrozenWeight,
}

/// How surprised a model is by a response.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ResponseLoss {
    /// The sum over its tokens of the negative log likelihood, natural logarithm; lower is better.
    pub sum: f64,
    /// How many tokens it has.
    pub tokens: u64,
}

impl ResponseLoss {
    /// The mean a token; 0 of none.
    pub fn a_token(&self) -> f64 {
        self.sum / (self.tokens as f64).max(1.0)
    }

    /// The mean a token of several responses together; 0 of none.
    pub fn mean(all: &[Self]) -> f64 {
        let (sum, tokens) = (all.iter()).fold((0.0, 0), |(sum, tokens), one| (sum + one.sum, tokens + one.tokens));
        sum / (tokens as f64).max(1.0)
    }
}

/// What one pass over rows says of each.
#[derive(Debug, Clone)]
pub struct RowGradients {
    /// Of its response.
    pub losses: Vec<ResponseLoss>,
    /// The mean over its tokens of what the head reads, shape `(rows, hidden)`.
    pub hidden: Matrix,
    /// The sketch of the gradient of its summed loss, shape `(rows, width)`; see [`GradientSketch`].
    pub sketches: Matrix,
}

/// Sequences packed for one pass, and what is predicted in them.
#[derive(Debug, Default)]
struct PackedBatch {
    tokens: Vec<u32>,
    segments: Vec<Segment>,
    predicted: Vec<Predicted>,
    /// To which of the batch's answers each predicted token belongs, and how many answers there are.
    answers: (Vec<usize>, usize),
}

impl PackedBatch {
    /// Adds the one sequence of an example that is to be said.
    fn push_right(&mut self, split: &TokenizedSplit, example: u32) {
        let right = split.objective(example).class() as usize;
        if let Some((tokens, types)) = split.sequences_of(example).nth(right) {
            self.push(tokens, types);
        }
    }

    /// Adds all answers of an example. What they have in common at their beginnings is passed once.
    fn push_answers(&mut self, split: &TokenizedSplit, example: u32) {
        let all: Vec<(&[u32], &[u8])> = split.sequences_of(example).collect();
        let [(first, _), rest @ ..] = &all[..] else { return };
        let common = |other: &[u32]| first.iter().zip(other).take_while(|(a, b)| a == b).count();
        // Every answer keeps a token of its own, so that each has a part.
        let shortest = all.iter().map(|(tokens, _)| tokens.len() - 1).min().unwrap_or(0);
        let shared = rest
            .iter()
            .map(|(other, _)| common(other))
            .min()
            .unwrap_or(0)
            .min(shortest);
        if shared == 0 {
            return all.iter().for_each(|(tokens, types)| self.push(tokens, types));
        }
        let start = self.tokens.len();
        self.tokens.extend(&first[..shared]);
        let prefix = start..start + shared;
        self.segments.push(Segment {
            tokens: prefix.clone(),
            prefix: 0..0,
        });
        // By the vector that predicts them: first those of the common part, then every answer's own.
        for i in 1..=shared {
            for (answer, (tokens, types)) in all.iter().enumerate() {
                if types[i] == 1 {
                    self.predict(start + i - 1, tokens[i], self.answers.1 + answer);
                }
            }
        }
        for (tokens, types) in &all {
            let from = self.tokens.len();
            self.tokens.extend(&tokens[shared..]);
            self.segments.push(Segment {
                tokens: from..self.tokens.len(),
                prefix: prefix.clone(),
            });
            for i in shared + 1..tokens.len() {
                if types[i] == 1 {
                    self.predict(from + i - shared - 1, tokens[i], self.answers.1);
                }
            }
            self.answers.1 += 1;
        }
    }

    fn push(&mut self, tokens: &[u32], types: &[u8]) {
        let start = self.tokens.len();
        self.tokens.extend(tokens);
        self.segments.push(Segment {
            tokens: start..self.tokens.len(),
            prefix: 0..0,
        });
        for i in 1..tokens.len() {
            if types[i] == 1 {
                self.predict(start + i - 1, tokens[i], self.answers.1);
            }
        }
        self.answers.1 += 1;
    }

    fn predict(&mut self, row: usize, token: u32, answer: usize) {
        self.predicted.push(Predicted { row, token });
        self.answers.0.push(answer);
    }

    fn packed(&self) -> PackedTokens<'_> {
        PackedTokens {
            tokens: &self.tokens,
            segments: &self.segments,
        }
    }

    /// The losses of the answers.
    fn by_answer(&self, losses: &[f64]) -> Vec<ResponseLoss> {
        let mut answers = vec![ResponseLoss::default(); self.answers.1];
        for (&answer, loss) in self.answers.0.iter().zip(losses) {
            answers[answer].sum += loss;
            answers[answer].tokens += 1;
        }
        answers
    }
}

impl LanguageModel {
    /// A model without adapters that multiplies in these numbers.
    pub fn new(weights: DecoderWeights, dtype: ProductDtype) -> Self {
        Self {
            weights: Arc::new(weights),
            lora: None,
            dtype,
            packed: OnceLock::new(),
        }
    }

    /// The decoder, without what adapters make of it.
    pub fn weights(&self) -> &DecoderWeights {
        &self.weights
    }

    /// The decoder, to be changed; copies of this model keep theirs.
    pub fn weights_mut(&mut self) -> &mut DecoderWeights {
        self.packed = OnceLock::new();
        Arc::make_mut(&mut self.weights)
    }

    /// Packs what is not trained, as its first use would: copies that are made after that share it.
    pub fn pack(&self) {
        self.packed();
    }

    fn packed(&self) -> &PackedDecoder {
        self.packed.get_or_init(|| {
            Arc::new(PackedDecoder {
                projections: FrozenProjections::new(&self.weights, self.dtype),
                head: self.pack_head(),
            })
        })
    }

    fn pack_head(&self) -> FrozenWeight {
        FrozenWeight::new(Part::of_matrix(self.weights.head()), self.dtype)
    }

    fn adapted<'m>(&'m self, frozen: Option<&'m FrozenProjections>, dropout: Dropout) -> Adapted<'m> {
        Adapted {
            weights: &self.weights,
            frozen,
            lora: self.lora.as_ref(),
            dropout,
        }
    }

    /// New adapters, which change nothing yet, in place of any that there are.
    pub fn adapt(&mut self, settings: &LoraSettings, seed: Seed) {
        self.lora = Some(Lora::new(&self.weights, settings, seed));
    }

    /// The adapters' part taken into the weights themselves.
    pub fn merge(&mut self) {
        if let Some(lora) = self.lora.take() {
            lora.merge_into(self.weights_mut());
        }
    }

    /// The loss of what each example is to say, in the examples' order. One step of `monitor` an example.
    ///
    /// # Errors
    ///
    /// If a loss is not finite, or the user stopped.
    pub fn losses(&self, examples: Examples<'_>, monitor: &dyn Monitor) -> Result<Vec<ResponseLoss>> {
        let by_example = self.by_example(examples, monitor, PackedBatch::push_right)?;
        Ok(by_example.into_iter().flatten().collect())
    }

    /// The probabilities of these examples' answers, by their likelihood as far as it is told apart, shape `(examples, answers)`; 0 where
    /// an example has fewer answers. One step of `monitor` an example.
    ///
    /// # Errors
    ///
    /// If a loss is not finite, or the user stopped.
    pub fn predict(&self, examples: Examples<'_>, monitor: &dyn Monitor) -> Result<Matrix> {
        let by_example = self.by_example(examples, monitor, PackedBatch::push_answers)?;
        let mut probabilities = Matrix::zeros(examples.rows.len(), examples.split.answers());
        for (i, answers) in by_example.into_iter().enumerate() {
            let best = answers.iter().map(|answer| answer.sum).fold(f64::INFINITY, f64::min);
            let mut scores: Vec<f32> = answers.iter().map(|answer| (best - answer.sum) as f32).collect();
            let whole = [0, scores.len()];
            softmax_groups(&mut scores, &whole);
            probabilities.row_mut(i)[..scores.len()].copy_from_slice(&scores);
        }
        Ok(probabilities)
    }

    /// The loss of what each example is to say, its mean hidden state, and a sketch of its gradient, in the examples' order. One step of
    /// `monitor` an example.
    ///
    /// # Errors
    ///
    /// As [`LanguageModel::losses`].
    pub fn gradients(
        &self,
        examples: Examples<'_>,
        sketch: &GradientSketch,
        monitor: &dyn Monitor,
    ) -> Result<RowGradients> {
        let Examples { split, rows, .. } = examples;
        let (order, sorted) = from_long_to_short(examples);
        let hidden = self.weights.shape.hidden;
        let mut found = RowGradients {
            losses: vec![ResponseLoss::default(); rows.len()],
            hidden: Matrix::zeros(rows.len(), hidden),
            sketches: Matrix::zeros(rows.len(), sketch.width()),
        };
        let (mut tape, mut workspace) = (Tape::new(self.dtype), LossWorkspace::new(self.dtype));
        let (mut upstream, mut normed) = (Vec::new(), Vec::new());
        let packed = self.packed();
        let model = self.adapted(Some(&packed.projections), Dropout::new(0.0, 0));
        let mut places = order.into_iter();
        for part in split.parts(&sorted, BATCH_TOKENS) {
            monitor.proceed()?;
            let mut batch = PackedBatch::default();
            part.iter().for_each(|&example| batch.push_right(split, example));
            let mut sketches = Matrix::zeros(part.len(), sketch.width());
            let losses = rayon::scope(|_| {
                let output = model.forward(batch.packed(), sketch.first(), &mut tape);
                rms_norm(output, &self.weights.norm, self.weights.shape.norm_epsilon, &mut normed);
                upstream.clear();
                upstream.resize(output.len(), 0.0);
                let gradient = LossGradient {
                    weight: 1.0,
                    hidden: &mut upstream,
                    trained: None,
                };
                let losses =
                    (self.weights).losses(&packed.head, output, &batch.predicted, Some(gradient), &mut workspace);
                let into = GradientInto::Sketch(sketch, &mut sketches);
                model.backward(batch.packed(), &mut upstream, &mut tape, into);
                losses
            });
            check_finite(&losses)?;
            let losses = batch.by_answer(&losses).into_iter().enumerate();
            for ((i, loss), place) in losses.zip(places.by_ref()) {
                found.losses[place] = loss;
                found.sketches.row_mut(place).copy_from_slice(sketches.row(i));
                let tokens = &batch.segments[i].tokens;
                let mean = found.hidden.row_mut(place);
                for vector in normed[tokens.start * hidden..tokens.end * hidden].chunks_exact(hidden) {
                    let share = 1.0 / tokens.len() as f32;
                    mean.iter_mut().zip(vector).for_each(|(mean, x)| *mean += share * x);
                }
            }
            monitor.advance(part.len() as u64);
        }
        Ok(found)
    }

    /// The losses of the sequences that `push` packs of each example, in the examples' order.
    fn by_example(
        &self,
        examples: Examples<'_>,
        monitor: &dyn Monitor,
        push: fn(&mut PackedBatch, &TokenizedSplit, u32),
    ) -> Result<Vec<Vec<ResponseLoss>>> {
        let Examples { split, rows, .. } = examples;
        let (order, sorted) = from_long_to_short(examples);
        let (mut tape, mut workspace) = (Tape::new(self.dtype), LossWorkspace::new(self.dtype));
        let packed = self.packed();
        let model = self.adapted(Some(&packed.projections), Dropout::new(0.0, 0));
        let mut found: Vec<Vec<ResponseLoss>> = Vec::with_capacity(rows.len());
        for part in split.parts(&sorted, BATCH_TOKENS) {
            monitor.proceed()?;
            let mut batch = PackedBatch::default();
            let mut ends = Vec::with_capacity(part.len());
            for &example in part {
                push(&mut batch, split, example);
                ends.push(batch.answers.1);
            }
            let losses = rayon::scope(|_| {
                let hidden = model.forward(batch.packed(), usize::MAX, &mut tape);
                self.weights
                    .losses(&packed.head, hidden, &batch.predicted, None, &mut workspace)
            });
            check_finite(&losses)?;
            let answers = batch.by_answer(&losses);
            let mut from = 0;
            for end in ends {
                found.push(answers[from..end].to_vec());
                from = end;
            }
            monitor.advance(part.len() as u64);
        }
        let mut by_example = vec![Vec::new(); rows.len()];
        for (i, losses) in order.into_iter().zip(found) {
            by_example[i] = losses;
        }
        Ok(by_example)
    }

    /// About how many bytes training so many copies side by side takes at its peak, with passes of at most `tokens` tokens: weights, also
    /// packed where they are not trained, gradients, moments, what the backward pass needs, and the logits of a block. Copies with adapters
    /// share the weights.
    pub fn training_bytes(&self, tokens: usize, copies: usize) -> usize {
        let shape = &self.weights.shape;
        let heads = shape.heads;
        let (keys, queries) = (heads.groups * heads.width, heads.groups * heads.per_group * heads.width);
        let layer = shape.hidden * (2 * queries + 2 * keys + 3 * shape.intermediate);
        let table = self.weights.token_embeddings.as_slice().len();
        let tables = if self.weights.head.is_some() { 2 * table } else { table };
        let weights = layer * self.weights.layers.len() + tables;
        let trained = self.lora.as_ref().map_or(weights, |lora| {
            let adapters = lora.layers.iter().flatten().flatten();
            adapters
                .map(|adapter| adapter.a.as_slice().len() + adapter.b.as_slice().len())
                .sum()
        });
        let ranks = self.lora.as_ref().map_or(0, |lora| 7 * lora.settings.rank);
        let kept = 2 * shape.hidden + 2 * queries + 2 * keys + 2 * shape.intermediate + ranks;
        let passing = 4 * shape.hidden + 4 * shape.intermediate;
        // Layers that are not trained and the head are packed for both directions, and 128 tokens' logits are held.
        let frozen = self.lora.as_ref().map_or(0, |_| layer * self.weights.layers.len());
        let packed = 2 * (frozen + table);
        let packed = match self.dtype {
            ProductDtype::Float32 => packed,
            ProductDtype::Bfloat16 => packed / 2,
        };
        let logits = 128 * self.weights.head().rows();
        let sharing = self.lora.as_ref().map_or(copies, |_| 1);
        let own = 3 * trained + logits + tokens * (kept * self.weights.layers.len() + passing);
        4 * (sharing * (weights + packed) + copies * own)
    }
}

/// The places of examples from long to short, and the examples in that order: what will not fit in memory says so at once.
fn from_long_to_short(Examples { split, rows, .. }: Examples<'_>) -> (Vec<usize>, Vec<u32>) {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| Reverse(split.tokens_of(rows[i])));
    let sorted = order.iter().map(|&i| rows[i]).collect();
    (order, sorted)
}

fn check_finite(losses: &[f64]) -> Result<()> {
    match losses.iter().find(|loss| !loss.is_finite()) {
        Some(loss) => Err(Error::NotFinite {
            place: "the model's losses".into(),
            found: loss.to_string(),
        }),
        None => Ok(()),
    }
}

/// The training of a language model: of its adapters where it has some, else of all its weights.
pub struct LanguageModelTrainer {
    optimiser: AdamW,
    gradient: DecoderGradient,
    tape: Tape,
    loss: LossWorkspace,
    upstream: Vec<f32>,
    settings: TrainSettings,
}

impl LanguageModelTrainer {
    /// A run that has taken no step.
    pub fn new(model: &LanguageModel, settings: &TrainSettings) -> Self {
        Self {
            optimiser: AdamW::new(settings.weight_decay),
            gradient: match &model.lora {
                Some(lora) => DecoderGradient::Lora(lora.zeros_like()),
                None => DecoderGradient::Full(Box::new(model.weights.zeros_like())),
            },
            tape: Tape::new(model.dtype),
            loss: LossWorkspace::new(model.dtype),
            upstream: Vec::new(),
            settings: settings.clone(),
        }
    }

    /// The gradient of the mean loss a token on these examples, by the names of [`Trainer::trained`]. Nothing is dropped or changed.
    pub fn gradient(&self, model: &LanguageModel, examples: Examples<'_>) -> Vec<(String, Vec<f32>)> {
        let mut trainer = Self::new(model, &self.settings);
        trainer.accumulate(model, examples, Seed(0));
        let tensors = tensors_of(&mut trainer.gradient).into_iter();
        tensors.map(|tensor| (tensor.name, tensor.values.to_vec())).collect()
    }

    /// Adds up the gradient of the mean loss a token on these examples, and returns that loss.
    fn accumulate(&mut self, model: &LanguageModel, examples: Examples<'_>, dropout: Seed) -> f64 {
        let Examples { split, rows, .. } = examples;
        let pack = |part: &[u32]| {
            let mut batch = PackedBatch::default();
            part.iter().for_each(|&example| batch.push_right(split, example));
            batch
        };
        let parts = split.parts(rows, self.settings.pass_tokens).into_iter();
        let parts: Vec<PackedBatch> = parts.map(pack).collect();
        let tokens: usize = parts.iter().map(|batch| batch.predicted.len()).sum();
        let weight = 1.0 / tokens.max(1) as f32;
        let passes = (0..).zip(&parts);
        let losses = passes.map(|(i, batch)| self.pass(model, batch, weight, dropout.index(i)));
        losses.sum::<f64>() * f64::from(weight)
    }

    /// Forward and backward over one batch, whose tokens' losses each count `weight`; returns the sum of the losses.
    fn pass(&mut self, model: &LanguageModel, batch: &PackedBatch, weight: f32, dropout: Seed) -> f64 {
        let rate = model.lora.as_ref().map_or(0.0, |lora| lora.settings.dropout);
        // Weights that are trained change from step to step, and are packed when they are used.
        let packed = model.lora.as_ref().map(|_| model.packed());
        let head = packed.is_none().then(|| model.pack_head());
        let head = head.as_ref().or(packed.map(|packed| &packed.head));
        let adapted = model.adapted(packed.map(|packed| &packed.projections), Dropout::new(rate, dropout.0));
        let hidden = adapted.forward(batch.packed(), 0, &mut self.tape);
        self.upstream.clear();
        self.upstream.resize(hidden.len(), 0.0);
        let gradient = LossGradient {
            weight,
            hidden: &mut self.upstream,
            trained: match &mut self.gradient {
                DecoderGradient::Full(weights) => {
                    let head = weights.head.as_mut().unwrap_or(&mut weights.token_embeddings);
                    Some((&mut weights.norm[..], head))
                }
                DecoderGradient::Lora(_) => None,
            },
        };
        let losses = head.map_or_else(Vec::new, |head| {
            let loss = &mut self.loss;
            (model.weights).losses(head, hidden, &batch.predicted, Some(gradient), loss)
        });
        adapted.backward(
            batch.packed(),
            &mut self.upstream,
            &mut self.tape,
            GradientInto::from(&mut self.gradient),
        );
        losses.iter().sum()
    }
}

/// The tensors of a model that are trained, in a fixed order.
fn trained_of(model: &mut LanguageModel) -> Vec<NamedTensor<'_>> {
    if model.lora.is_none() {
        return model.weights_mut().tensors_mut();
    }
    model.lora.iter_mut().flat_map(Lora::tensors_mut).collect()
}

fn tensors_of(gradient: &mut DecoderGradient) -> Vec<NamedTensor<'_>> {
    match gradient {
        DecoderGradient::Full(weights) => weights.tensors_mut(),
        DecoderGradient::Lora(lora) => lora.tensors_mut(),
    }
}

impl Trainer for LanguageModelTrainer {
    type Model = LanguageModel;

    fn settings(&self) -> &TrainSettings {
        &self.settings
    }

    fn optimiser(&self) -> &AdamW {
        &self.optimiser
    }

    fn set_optimiser(&mut self, optimiser: AdamW) {
        self.optimiser = optimiser;
    }

    fn trained<'m>(&self, model: &'m mut LanguageModel) -> Vec<(String, &'m mut [f32])> {
        let tensors = trained_of(model).into_iter();
        tensors.map(|tensor| (tensor.name, tensor.values)).collect()
    }

    fn step(
        &mut self,
        model: &mut LanguageModel,
        examples: Examples<'_>,
        learning_rate: f32,
        dropout: Seed,
    ) -> Result<f64> {
        // From a thread of the pool, which takes part in all of a step's loops: one outside would wake another for each.
        rayon::scope(|_| {
            let loss = self.accumulate(model, examples, dropout);
            let mut gradients = tensors_of(&mut self.gradient);
            let norm = global_norm(gradients.iter().map(|tensor| &*tensor.values));
            let factor = match self.settings.clipping(loss, norm, self.optimiser.steps()) {
                Ok(factor) => factor,
                Err(error) => {
                    gradients.iter_mut().for_each(|tensor| tensor.values.fill(0.0));
                    return Err(error);
                }
            };
            let mut parameters: Vec<Parameter<'_>> = trained_of(model)
                .into_iter()
                .zip(gradients)
                .map(|(tensor, gradient)| Parameter {
                    values: tensor.values,
                    gradient: gradient.values,
                    decays: tensor.decays,
                })
                .collect();
            self.optimiser.step(learning_rate, factor, &mut parameters, None);
            Ok(loss)
        })
    }
}
