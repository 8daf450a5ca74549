//! An encoder's training pass: forward with what the backward pass needs, and backward.
//!
//! Sequences are packed, so no padding is computed, and where only each sequence's first token is wanted, the last layer does
//! for the others no more than their keys and values. The layers below the lowest trained one are no part of it: their output
//! comes in as [`Input::Hidden`] and costs neither backward pass nor memory. Products and loops are cut between the threads of
//! the present pool, and every sum runs in one order, so the number of threads changes no bit.
//!
//! Kept for the backward pass are, per token and layer, 10 hidden vectors (the intermediate layer being four times as wide): query, key, value, context,
//! two normalised sums and the input of the activation. The rest is made again: outputs of norms and of activations, attention's
//! probabilities, dropout's masks.

use rayon::prelude::*;

use crate::{
    encoder::{
        forward::{OutputTokens, Packed, keep_first},
        gradient::EncoderGradient,
        weights::{EncoderWeights, Layer},
    },
    kernels::{
        attention::{self, Heads},
        dropout::Dropout,
        elementwise::{Activation, activate, activate_with_slope},
        layer_norm::{BLOCK, Normed},
        linear::Workspace,
        packed::ProductDtype,
        prepacked::Begin,
    },
};

/// What a training pass begins with.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Tokens: everything is trained.
    Tokens(Packed<'a>),
    /// The output of the frozen layers.
    Hidden {
        /// Shape `(tokens, hidden)`.
        vectors: &'a [f32],
        /// Sequence `i` is rows `starts[i]..starts[i + 1]`.
        starts: &'a [usize],
        /// How many layers are frozen.
        frozen: usize,
    },
}

/// What is dropped in one pass.
#[derive(Debug, Clone, Copy)]
pub struct Dropouts {
    /// From the embeddings and from what each half of a layer adds to its residual.
    pub hidden: Dropout,
    /// From attention's probabilities.
    pub attention: Dropout,
}

/// What a forward pass leaves for the backward pass. Its buffers are used again by the next.
#[derive(Debug, Default)]
pub struct Tape {
    /// Sequence starts of the pass.
    starts: Vec<usize>,
    /// Tokens and types, empty where the input was hidden vectors.
    tokens: Vec<u32>,
    types: Vec<u8>,
    /// The first trained layer.
    lowest: usize,
    /// Whether the last layer was computed for first tokens only.
    first_only: bool,
    embedded: Normed,
    /// The input of the lowest trained layer, shape `(tokens, hidden)`.
    input: Vec<f32>,
    layers: Vec<LayerTape>,
    output: Vec<f32>,
    /// A layer's input, made again.
    remade: Vec<f32>,
    buffers: Buffers,
}

/// What one step hands to the next.
#[derive(Debug, Default)]
struct Buffers {
    a: Vec<f32>,
    b: Vec<f32>,
    wide: Vec<f32>,
    workspace: Workspace,
}

/// One layer's part; `rows` below are tokens, or sequences where only first tokens are computed.
#[derive(Debug, Default)]
struct LayerTape {
    /// Shape `(rows, hidden)`.
    query: Vec<f32>,
    /// Shape `(tokens, 2 * hidden)`.
    keys_values: Vec<f32>,
    /// Shape `(rows, hidden)`.
    context: Vec<f32>,
    attended: Normed,
    /// The activation's input, shape `(rows, intermediate)`; the backward pass puts its slope there.
    intermediate: Vec<f32>,
    out: Normed,
}

impl Tape {
    /// For products in these numbers.
    pub fn new(dtype: ProductDtype) -> Self {
        Self {
            buffers: Buffers {
                workspace: Workspace::new(dtype),
                ..Buffers::default()
            },
            ..Self::default()
        }
    }
}

impl EncoderWeights {
    /// The training pass forward: the last layer's vectors, shape `(tokens, hidden)`, or `(sequences, hidden)` where only the
    /// first are wanted.
    ///
    /// # Panics
    ///
    /// If a token is not in the vocabulary, a sequence is longer than there are positions, or there are no layers to train.
    pub fn train_forward<'t>(
        &self,
        input: Input<'_>,
        wanted: OutputTokens,
        dropouts: Dropouts,
        tape: &'t mut Tape,
    ) -> &'t [f32] {
        tape.begin(self, input, wanted, dropouts);
        let Tape {
            starts,
            lowest,
            first_only,
            input,
            layers,
            output,
            buffers,
            ..
        } = tape;
        assert!(*lowest < self.layers.len(), "at least one layer is trained");
        layers.resize_with(self.layers.len() - *lowest, LayerTape::default);
        output.clear();
        output.extend_from_slice(input);
        for (l, kept) in (*lowest..).zip(layers) {
            let pass = LayerPass::of(self, l, (starts, *first_only), dropouts);
            pass.attention(output, kept, buffers);
            pass.feed_forward(output, kept, buffers);
        }
        output
    }

    /// The training pass backward, once a forward pass: adds the gradient of a loss to `gradient`, given its derivative by what
    /// [`EncoderWeights::train_forward`] returned, with the same dropouts.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit the last forward pass.
    pub fn train_backward(
        &self,
        upstream: &[f32],
        dropouts: Dropouts,
        tape: &mut Tape,
        gradient: &mut EncoderGradient,
    ) {
        let Tape {
            starts,
            lowest,
            first_only,
            input,
            layers,
            output: down,
            remade,
            buffers,
            ..
        } = tape;
        assert_eq!(down.len(), upstream.len(), "one derivative a number");
        down.copy_from_slice(upstream);
        let from_tokens = !tape.tokens.is_empty();
        for l in (*lowest..self.layers.len()).rev() {
            let pass = LayerPass::of(self, l, (starts, *first_only), dropouts);
            let (below, kept) = layers.split_at_mut(l - *lowest);
            let (kept, grown) = (&mut kept[0], &mut gradient.layers[l - *lowest]);
            // The layer's input, made again from the norm below it.
            let x = if let Some(below) = below.last() {
                let norm = &self.layers[l - 1].output_norm;
                below.out.output(&norm.weight, &norm.bias, remade);
                &mut *remade
            } else {
                &mut *input
            };
            pass.feed_forward_backward(down, kept, grown, buffers);
            pass.attention_backward((down, l > *lowest || from_tokens), x, kept, grown, buffers);
        }
        if from_tokens {
            self.embed_backward(dropouts, tape, gradient);
        }
    }

    /// From the derivative by the embeddings, which the tape has in the output's place.
    fn embed_backward(&self, dropouts: Dropouts, tape: &mut Tape, gradient: &mut EncoderGradient) {
        let (hidden, down) = (self.shape.hidden, &mut tape.output);
        drop_in_parallel(down, hidden, dropouts.hidden.at(0));
        let norm = &mut gradient.norm;
        tape.embedded
            .backward(down, &self.norm.weight, &mut norm.weight, &mut norm.bias);
        for (&token, d) in tape.tokens.iter().zip(down.chunks_exact(hidden)) {
            gradient.token_embeddings.add(token, d);
        }
        let add = |sum: &mut [f32], d: &[f32]| sum.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
        for range in tape.starts.windows(2) {
            let rows = down[range[0] * hidden..range[1] * hidden].chunks_exact(hidden);
            for (position, d) in rows.enumerate() {
                add(
                    gradient
                        .position_embeddings
                        .row_mut(self.shape.first_position + position),
                    d,
                );
            }
        }
        if self.token_type_embeddings.rows() > 0 {
            for (i, d) in down.chunks_exact(hidden).enumerate() {
                let kind = tape.types.get(i).copied().unwrap_or(0);
                add(gradient.token_type_embeddings.row_mut(kind as usize), d);
            }
        }
    }
}

impl Tape {
    /// Takes the input in, embedded where it is tokens.
    fn begin(&mut self, weights: &EncoderWeights, input: Input<'_>, wanted: OutputTokens, dropouts: Dropouts) {
        let hidden = weights.shape.hidden;
        self.first_only = wanted == OutputTokens::First;
        self.starts.clear();
        self.tokens.clear();
        self.types.clear();
        match input {
            Input::Tokens(packed) => {
                self.starts.extend_from_slice(packed.starts);
                self.tokens.extend_from_slice(packed.tokens);
                self.types.extend_from_slice(packed.types);
                self.lowest = 0;
                let (embedded, places, norm) = (&mut self.embedded, &mut self.buffers.a, &weights.norm);
                weights.embed(packed, &mut embedded.normal, places);
                embedded.add_and_normalise(places, hidden, weights.shape.norm_epsilon);
                embedded.output(&norm.weight, &norm.bias, &mut self.input);
                drop_in_parallel(&mut self.input, hidden, dropouts.hidden.at(0));
            }
            Input::Hidden {
                vectors,
                starts,
                frozen,
            } => {
                self.starts.extend_from_slice(starts);
                self.input.clear();
                self.input.extend_from_slice(vectors);
                self.lowest = frozen;
            }
        }
    }
}

/// One layer in one pass.
struct LayerPass<'a> {
    weights: &'a EncoderWeights,
    /// Which layer it is.
    l: usize,
    starts: &'a [usize],
    /// Whether first tokens alone are computed.
    first_only: bool,
    dropouts: Dropouts,
}

impl<'a> LayerPass<'a> {
    /// Layer `l`, which computes first tokens alone where the pass wants no others and the layer is the last.
    fn of(
        weights: &'a EncoderWeights,
        l: usize,
        (starts, first_only): (&'a [usize], bool),
        dropouts: Dropouts,
    ) -> Self {
        Self {
            weights,
            l,
            starts,
            first_only: first_only && l + 1 == weights.layers.len(),
            dropouts,
        }
    }

    fn layer(&self) -> &Layer {
        &self.weights.layers[self.l]
    }

    fn hidden(&self) -> usize {
        self.weights.shape.hidden
    }

    /// How attention divides a vector, and what is dropped from its probabilities.
    fn heads(&self) -> (Heads, Dropout) {
        let dropout = self.dropouts.attention.at(self.l as u64);
        (self.weights.shape.attention(), dropout)
    }

    /// What is dropped from what a half of the layer adds to its residual: attention's (0) or the feed-forward one's (1).
    fn residual(&self, half: u64) -> Dropout {
        self.dropouts.hidden.at(1 + 2 * self.l as u64 + half)
    }

    /// Where each sequence's rows begin: its tokens, or one row a sequence.
    fn row_starts(&self) -> Vec<usize> {
        if self.first_only {
            (0..self.starts.len()).collect()
        } else {
            self.starts.to_vec()
        }
    }

    /// The attention half: from the layer's input `x` to the normalised sum `kept.attended`. `x` keeps the rows that are computed.
    fn attention(&self, x: &mut Vec<f32>, kept: &mut LayerTape, buffers: &mut Buffers) {
        let (layer, hidden, starts) = (self.layer(), self.hidden(), self.starts);
        let workspace = &mut buffers.workspace;
        layer
            .qkv
            .part(hidden..3 * hidden)
            .apply_in_parallel(x, &mut kept.keys_values, workspace);
        if self.first_only {
            keep_first(x, starts, hidden);
        }
        layer
            .qkv
            .part(0..hidden)
            .apply_in_parallel(x, &mut kept.query, workspace);
        kept.context.resize(kept.query.len(), 0.0);
        let (heads, dropout) = self.heads();
        let rows = self.row_starts();
        let (query, keys_values) = (&kept.query, &kept.keys_values);
        cut(&mut kept.context, &rows, hidden)
            .into_par_iter()
            .enumerate()
            .for_each_init(attention::AttentionWorkspace::default, |room, (i, context)| {
                heads.attend(
                    &query[rows[i] * hidden..rows[i + 1] * hidden],
                    &keys_values[2 * starts[i] * hidden..2 * starts[i + 1] * hidden],
                    context,
                    dropout.at(i as u64),
                    room,
                );
            });
        let sum = &mut kept.attended;
        layer
            .attention_output
            .whole()
            .apply_in_parallel(&kept.context, &mut sum.normal, workspace);
        drop_in_parallel(&mut sum.normal, hidden, self.residual(0));
        sum.add_and_normalise(x, hidden, self.weights.shape.norm_epsilon);
    }

    /// The feed-forward half: from `kept.attended` to the layer's output.
    fn feed_forward(&self, output: &mut Vec<f32>, kept: &mut LayerTape, buffers: &mut Buffers) {
        let (layer, shape) = (self.layer(), &self.weights.shape);
        let Buffers { b, wide, workspace, .. } = buffers;
        let norm = &layer.attention_norm;
        kept.attended.output(&norm.weight, &norm.bias, b);
        layer
            .intermediate
            .whole()
            .apply_in_parallel(b, &mut kept.intermediate, workspace);
        activated(&kept.intermediate, shape.activation, wide);
        let sum = &mut kept.out;
        layer.output.whole().apply_in_parallel(wide, &mut sum.normal, workspace);
        drop_in_parallel(&mut sum.normal, shape.hidden, self.residual(1));
        sum.add_and_normalise(b, shape.hidden, shape.norm_epsilon);
        let norm = &layer.output_norm;
        sum.output(&norm.weight, &norm.bias, output);
    }

    /// Backward through [`LayerPass::feed_forward`]: `down`, the derivative by the layer's output, becomes that by the attention half's.
    fn feed_forward_backward(&self, down: &mut [f32], kept: &mut LayerTape, grown: &mut Layer, buffers: &mut Buffers) {
        let (layer, hidden) = (self.layer(), self.hidden());
        let Buffers { a, b, wide, workspace } = buffers;
        let norm = &mut grown.output_norm;
        kept.out
            .backward(down, &layer.output_norm.weight, &mut norm.weight, &mut norm.bias);
        // Now `down` is the derivative by the residual sum, `a` that by what was added.
        dropped(down, hidden, self.residual(1), a);
        activated_with_slope(&mut kept.intermediate, self.weights.shape.activation, wide);
        grown.output.add_gradient(0, wide, a, hidden, workspace);
        layer.output.whole().backward(a, Begin::Zero, wide, workspace);
        let intermediate = layer.intermediate.bias.len();
        wide.par_chunks_mut(BLOCK * intermediate)
            .zip(kept.intermediate.par_chunks(BLOCK * intermediate))
            .for_each(|(upstream, slope)| upstream.iter_mut().zip(slope).for_each(|(u, slope)| *u *= slope));
        let norm = &layer.attention_norm;
        kept.attended.output(&norm.weight, &norm.bias, b);
        grown.intermediate.add_gradient(0, b, wide, intermediate, workspace);
        layer.intermediate.whole().backward(wide, Begin::There, down, workspace);
    }

    /// Backward through [`LayerPass::attention`], whose input was `x`: `down`, the derivative by the half's output, becomes, where that
    /// is asked for, the derivative by `x`.
    fn attention_backward(
        &self,
        (down, goes_on): (&mut Vec<f32>, bool),
        x: &mut Vec<f32>,
        kept: &LayerTape,
        grown: &mut Layer,
        buffers: &mut Buffers,
    ) {
        let (layer, hidden, starts) = (self.layer(), self.hidden(), self.starts);
        let Buffers { a, b, wide, workspace } = buffers;
        let norm = &mut grown.attention_norm;
        kept.attended
            .backward(down, &layer.attention_norm.weight, &mut norm.weight, &mut norm.bias);
        dropped(down, hidden, self.residual(0), a);
        grown
            .attention_output
            .add_gradient(0, &kept.context, a, hidden, workspace);
        b.resize(a.len(), 0.0);
        layer.attention_output.whole().backward(a, Begin::Zero, b, workspace);
        let (heads, dropout) = self.heads();
        let rows = self.row_starts();
        a.resize(kept.query.len(), 0.0);
        wide.resize(kept.keys_values.len(), 0.0);
        let (query, keys_values, d_context) = (&kept.query, &kept.keys_values, &*b);
        cut(a, &rows, hidden)
            .into_par_iter()
            .zip(cut(wide, starts, 2 * hidden))
            .enumerate()
            .for_each_init(
                attention::AttentionWorkspace::default,
                |room, (i, (d_query, d_keys_values))| {
                    let row = rows[i] * hidden..rows[i + 1] * hidden;
                    heads.attend_backward(
                        (
                            &query[row.clone()],
                            &keys_values[2 * starts[i] * hidden..2 * starts[i + 1] * hidden],
                        ),
                        &d_context[row],
                        (d_query, d_keys_values),
                        dropout.at(i as u64),
                        room,
                    );
                },
            );
        grown.qkv.add_gradient(hidden, x, wide, 2 * hidden, workspace);
        let keys_values = layer.qkv.part(hidden..3 * hidden);
        let queries = layer.qkv.part(0..hidden);
        if self.first_only {
            // `down` has a row a sequence; it becomes one a token.
            queries.backward(a, Begin::There, down, workspace);
            std::mem::swap(down, b);
            down.clear();
            down.resize(starts[starts.len() - 1] * hidden, 0.0);
            if goes_on {
                keys_values.backward(wide, Begin::Zero, down, workspace);
                for (i, row) in b.chunks_exact(hidden).enumerate() {
                    let first = &mut down[starts[i] * hidden..(starts[i] + 1) * hidden];
                    first.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
                }
            }
            keep_first(x, starts, hidden);
        } else if goes_on {
            queries.backward(a, Begin::There, down, workspace);
            keys_values.backward(wide, Begin::There, down, workspace);
        }
        grown.qkv.add_gradient(0, x, a, hidden, workspace);
    }
}

/// Cuts rows of length `cols` at `starts`.
fn cut<'a>(mut rows: &'a mut [f32], starts: &[usize], cols: usize) -> Vec<&'a mut [f32]> {
    starts
        .windows(2)
        .map(|range| {
            let (part, rest) = std::mem::take(&mut rows).split_at_mut((range[1] - range[0]) * cols);
            rows = rest;
            part
        })
        .collect()
}

fn drop_in_parallel(values: &mut [f32], cols: usize, dropout: Dropout) {
    values
        .par_chunks_mut(BLOCK * cols)
        .enumerate()
        .for_each(|(i, block)| dropout.apply(block, i * BLOCK * cols));
}

/// A copy with numbers dropped.
fn dropped(values: &[f32], cols: usize, dropout: Dropout, out: &mut Vec<f32>) {
    out.resize(values.len(), 0.0);
    out.par_chunks_mut(BLOCK * cols)
        .zip(values.par_chunks(BLOCK * cols))
        .enumerate()
        .for_each(|(i, (out, values))| {
            out.copy_from_slice(values);
            dropout.apply(out, i * BLOCK * cols);
        });
}

/// A copy passed through the activation.
fn activated(values: &[f32], activation: Activation, out: &mut Vec<f32>) {
    out.resize(values.len(), 0.0);
    out.par_chunks_mut(1 << 15)
        .zip(values.par_chunks(1 << 15))
        .for_each(|(out, values)| {
            // A part at a time, which is still in the first cache after it is copied.
            for (out, values) in out.chunks_mut(1 << 11).zip(values.chunks(1 << 11)) {
                out.copy_from_slice(values);
                activate(out, activation);
            }
        });
}

/// The activation of every number in `out`, its slope in the number's place.
fn activated_with_slope(values: &mut [f32], activation: Activation, out: &mut Vec<f32>) {
    out.resize(values.len(), 0.0);
    out.par_chunks_mut(1 << 15)
        .zip(values.par_chunks_mut(1 << 15))
        .for_each(|(out, values)| activate_with_slope(values, out, activation));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        encoder::{Dtype, Scratch},
        test_util::tiny_encoder,
    };

    const TOKENS: [u32; 9] = [1, 7, 7, 19, 3, 4, 0, 2, 11];
    const TYPES: [u8; 9] = [0, 0, 1, 1, 1, 0, 0, 0, 1];
    const STARTS: [usize; 4] = [0, 5, 6, 9];

    fn packed() -> Packed<'static> {
        Packed {
            tokens: &TOKENS,
            types: &TYPES,
            starts: &STARTS,
        }
    }

    fn dropouts(probability: f32) -> Dropouts {
        Dropouts {
            hidden: Dropout::new(probability, 5),
            attention: Dropout::new(probability, 6),
        }
    }

    #[test]
    fn without_dropout_it_is_the_forward_pass() {
        let weights = tiny_encoder(20, 9);
        let (mut scratch, mut tape) = (Scratch::default(), Tape::default());
        for wanted in [OutputTokens::All, OutputTokens::First] {
            let want = weights
                .forward(&weights.prepack(0..2, Dtype::Float32), packed(), wanted, &mut scratch)
                .to_vec();
            let out = weights.train_forward(Input::Tokens(packed()), wanted, dropouts(0.0), &mut tape);
            assert!(out.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }

    /// Every trained number's gradient, words first, in the order of [`EncoderWeights::trained_mut`].
    fn flat(weights: &EncoderWeights, gradient: &mut EncoderGradient) -> Vec<f32> {
        let mut words = vec![
            0.0;
            if gradient.position_embeddings.rows() == 0 {
                0
            } else {
                weights.token_embeddings.as_slice().len()
            }
        ];
        for (row, g) in gradient
            .token_embeddings
            .rows()
            .iter()
            .zip(gradient.token_embeddings.values().chunks(8))
        {
            words[*row as usize * 8..][..8].copy_from_slice(g);
        }
        words.extend(gradient.dense_mut().into_iter().flat_map(|part| part.to_vec()));
        words
    }

    fn nudge(weights: &mut EncoderWeights, frozen: Option<usize>, mut i: usize, by: f32) {
        let (words, dense) = weights.trained_mut(frozen);
        for values in words.into_iter().chain(dense.into_iter().map(|(values, _)| values)) {
            if i < values.len() {
                values[i] += by;
                return;
            }
            i -= values.len();
        }
        panic!("no such number");
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for (wanted, probability, frozen) in [
            (OutputTokens::All, 0.0, None),
            (OutputTokens::First, 0.0, None),
            (OutputTokens::First, 0.3, None),
            (OutputTokens::First, 0.2, Some(1)),
            (OutputTokens::All, 0.2, Some(0)),
        ] {
            let mut weights = tiny_encoder(20, 9);
            let dropouts = dropouts(probability);
            let mut scratch = Scratch::default();
            let layers = weights.prepack(0..frozen.unwrap_or(0), Dtype::Float32);
            let vectors = weights
                .forward(&layers, packed(), OutputTokens::All, &mut scratch)
                .to_vec();
            let input = frozen.map_or(Input::Tokens(packed()), |frozen| Input::Hidden {
                vectors: &vectors,
                starts: &STARTS,
                frozen,
            });
            let slope = |i: usize| (i as f32 * 2.3).sin();
            let loss = |weights: &EncoderWeights| -> f64 {
                let mut tape = Tape::default();
                let out = weights.train_forward(input, wanted, dropouts, &mut tape);
                out.iter().enumerate().map(|(i, x)| f64::from(x * slope(i))).sum()
            };
            let mut tape = Tape::default();
            let count = weights.train_forward(input, wanted, dropouts, &mut tape).len();
            let upstream: Vec<f32> = (0..count).map(slope).collect();
            let mut gradient = EncoderGradient::zeros(&weights, frozen);
            weights.train_backward(&upstream, dropouts, &mut tape, &mut gradient);
            let analytic = flat(&weights, &mut gradient);
            for i in (0..analytic.len()).step_by(7) {
                nudge(&mut weights, frozen, i, 4e-3);
                let above = loss(&weights);
                nudge(&mut weights, frozen, i, -8e-3);
                let below = loss(&weights);
                nudge(&mut weights, frozen, i, 4e-3);
                let numeric = ((above - below) / 8e-3) as f32;
                assert!(
                    (analytic[i] - numeric).abs() < 2e-2 * (0.3 + numeric.abs()),
                    "{wanted:?} {probability} {frozen:?}, number {i}: {} against {numeric}",
                    analytic[i]
                );
            }
        }
    }

    #[test]
    fn gradients_in_bfloat16_point_the_same_way() {
        let weights = tiny_encoder(20, 9);
        let gradient = |dtype| {
            let (mut tape, mut gradient) = (Tape::new(dtype), EncoderGradient::zeros(&weights, None));
            let count = weights
                .train_forward(Input::Tokens(packed()), OutputTokens::All, dropouts(0.0), &mut tape)
                .len();
            let upstream: Vec<f32> = (0..count).map(|i| (i as f32 * 2.3).sin()).collect();
            weights.train_backward(&upstream, dropouts(0.0), &mut tape, &mut gradient);
            flat(&weights, &mut gradient)
        };
        let [exact, rounded] = [ProductDtype::Float32, ProductDtype::Bfloat16].map(gradient);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = dot(&exact, &rounded) / (dot(&exact, &exact) * dot(&rounded, &rounded)).sqrt();
        assert!(cosine > 0.999 && exact != rounded, "{cosine}");
    }

    #[test]
    fn two_passes_add_up() {
        let weights = tiny_encoder(20, 9);
        let mut tape = Tape::default();
        let mut gradient = EncoderGradient::zeros(&weights, None);
        let mut words = Vec::new();
        for _ in 0..2 {
            let count = weights
                .train_forward(Input::Tokens(packed()), OutputTokens::First, dropouts(0.0), &mut tape)
                .len();
            weights.train_backward(&vec![1.0; count], dropouts(0.0), &mut tape, &mut gradient);
            words.push(gradient.token_embeddings.values().to_vec());
        }
        assert_eq!(gradient.token_embeddings.rows(), [1, 7, 19, 3, 4, 0, 2, 11]);
        assert!(
            words[0]
                .iter()
                .zip(&words[1])
                .all(|(a, b)| (2.0 * a - b).abs() < 1e-4 * (1.0 + b.abs()))
        );
    }
}
