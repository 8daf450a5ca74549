//! An encoder's training pass: forward with what the backward pass needs, and backward.
//!
//! Sequences are packed, so no padding is computed, and where only each sequence's first token is wanted, the last layer does
//! for the others no more than their keys and values. The layers beneath the lowest trained one are no part of it: their output
//! comes in as [`Input::Hidden`] and costs neither backward pass nor memory. Products and loops are cut between the threads of
//! the present pool, and every sum runs in one order, so the number of threads changes no bit.
//!
//! Kept for the backward pass are, per token and layer, 10 hidden vectors (the inner layer being four times as wide): query, key, value, context,
//! two normalised sums and the input of the activation. The rest is made again: outputs of norms and of activations, attention's
//! shares, dropout's masks.

use rayon::prelude::*;

use super::{
    attention::Room,
    dropout::Dropout,
    elementwise::{Activation, activate, activate_with_slope},
    encoder::{EncoderWeights, Layer, Norm, Packed, Wanted, keep_first},
    linear::Workspace,
    norm::{BLOCK, Normed},
    panels::Begin,
};
use crate::Matrix;

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
    /// From attention's shares.
    pub attention: Dropout,
}

/// The gradient of an encoder's trained parameters.
#[derive(Debug, Clone)]
pub struct EncoderGradient {
    /// Of the word vectors.
    pub words: RowGradient,
    /// Of the position vectors; zero where embeddings are frozen, and so on.
    pub positions: Matrix,
    /// Of the type vectors.
    pub types: Matrix,
    /// Of the norm over the embeddings.
    pub norm: Norm,
    /// Of the trained layers, lowest first.
    pub layers: Vec<Layer>,
    frozen: Option<usize>,
}

/// The gradient of a table of which a batch reads few rows: only those are kept.
#[derive(Debug, Clone, Default)]
pub struct RowGradient {
    /// Where a row's gradient is, plus 1; 0: nowhere. Shape `(table rows,)`.
    slots: Vec<u32>,
    rows: Vec<u32>,
    values: Vec<f32>,
    cols: usize,
}

impl RowGradient {
    fn new(rows: usize, cols: usize) -> Self {
        Self {
            slots: vec![0; rows],
            rows: Vec::new(),
            values: Vec::new(),
            cols,
        }
    }

    fn add(&mut self, row: u32, gradient: &[f32]) {
        let slot = &mut self.slots[row as usize];
        if *slot == 0 {
            self.rows.push(row);
            *slot = self.rows.len() as u32;
            self.values.extend_from_slice(gradient);
        } else {
            let at = (*slot as usize - 1) * self.cols;
            let sum = &mut self.values[at..at + self.cols];
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
        }
    }

    /// The rows that have a gradient, in the order in which they came.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Their gradients, shape `(rows.len(), cols)`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Back to zero.
    pub fn clear(&mut self) {
        for &row in &self.rows {
            self.slots[row as usize] = 0;
        }
        self.rows.clear();
        self.values.clear();
    }
}

impl EncoderGradient {
    /// A gradient of zeros; `frozen`: embeddings and that many layers, the lowest, are not trained.
    pub fn zeros(weights: &EncoderWeights, frozen: Option<usize>) -> Self {
        let hidden = weights.shape.hidden;
        let norm = || Norm {
            gain: vec![0.0; hidden],
            shift: vec![0.0; hidden],
        };
        let rows = |matrix: &Matrix| if frozen.is_some() { 0 } else { matrix.rows() };
        Self {
            words: RowGradient::new(rows(&weights.words), hidden),
            positions: Matrix::zeros(rows(&weights.positions), hidden),
            types: Matrix::zeros(rows(&weights.types), hidden),
            norm: norm(),
            layers: weights.layers[frozen.unwrap_or(0)..]
                .iter()
                .map(|layer| Layer {
                    attention: layer.attention.zeros_like(),
                    attention_out: layer.attention_out.zeros_like(),
                    attention_norm: norm(),
                    inner: layer.inner.zeros_like(),
                    outer: layer.outer.zeros_like(),
                    out_norm: norm(),
                })
                .collect(),
            frozen,
        }
    }

    /// All but the word vectors', in the order of [`EncoderWeights::trained_mut`].
    pub fn dense_mut(&mut self) -> Vec<&mut [f32]> {
        let mut parts: Vec<&mut [f32]> = Vec::new();
        if self.frozen.is_none() {
            parts.extend([self.positions.as_mut_slice(), self.types.as_mut_slice()]);
            parts.extend([&mut self.norm.gain[..], &mut self.norm.shift[..]]);
        }
        let layers = self.layers.iter_mut().flat_map(layer_tensors);
        parts.extend(layers.map(|(part, _)| part));
        parts
    }
}

/// A layer's tensors, and whether weight decay is for them.
fn layer_tensors(layer: &mut Layer) -> [(&mut [f32], bool); 12] {
    [
        (layer.attention.weight.as_mut_slice(), true),
        (&mut layer.attention.bias, false),
        (layer.attention_out.weight.as_mut_slice(), true),
        (&mut layer.attention_out.bias, false),
        (&mut layer.attention_norm.gain, false),
        (&mut layer.attention_norm.shift, false),
        (layer.inner.weight.as_mut_slice(), true),
        (&mut layer.inner.bias, false),
        (layer.outer.weight.as_mut_slice(), true),
        (&mut layer.outer.bias, false),
        (&mut layer.out_norm.gain, false),
        (&mut layer.out_norm.shift, false),
    ]
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
    // Passing buffers.
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
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
    /// The activation's input, shape `(rows, inner)`; the backward pass puts its slope there.
    inner: Vec<f32>,
    out: Normed,
}

/// Tensors to be trained, each with whether weight decay is for it.
pub type Trained<'a> = Vec<(&'a mut [f32], bool)>;

impl EncoderWeights {
    /// The word vectors, where they are trained, and all other trained tensors in a fixed order.
    pub fn trained_mut(&mut self, frozen: Option<usize>) -> (Option<&mut [f32]>, Trained<'_>) {
        let mut dense: Trained<'_> = Vec::new();
        let mut words = None;
        if frozen.is_none() {
            words = Some(self.words.as_mut_slice());
            dense.extend([
                (self.positions.as_mut_slice(), true),
                (self.types.as_mut_slice(), true),
                (&mut self.norm.gain, false),
                (&mut self.norm.shift, false),
            ]);
        }
        dense.extend(self.layers[frozen.unwrap_or(0)..].iter_mut().flat_map(layer_tensors));
        (words, dense)
    }

    /// The training pass forward: the last layer's vectors, shape `(tokens, hidden)`, or `(sequences, hidden)` where only the
    /// first are wanted.
    ///
    /// # Panics
    ///
    /// If a token is not in the vocabulary, a sequence is longer than there are positions, or there are no layers to train.
    pub fn train_forward<'t>(
        &self,
        input: Input<'_>,
        wanted: Wanted,
        dropouts: Dropouts,
        tape: &'t mut Tape,
    ) -> &'t [f32] {
        let (hidden, epsilon) = (self.shape.hidden, self.shape.norm_epsilon);
        let Tape {
            starts,
            tokens,
            types,
            embedded,
            input: layer_input,
            layers,
            output,
            a,
            b,
            wide,
            workspace,
            ..
        } = tape;
        starts.clear();
        tokens.clear();
        types.clear();
        match input {
            Input::Tokens(packed) => {
                starts.extend_from_slice(packed.starts);
                tokens.extend_from_slice(packed.tokens);
                types.extend_from_slice(packed.types);
                tape.lowest = 0;
                self.embed(packed, &mut embedded.normal, a);
                embedded.add_and_normalise(a, hidden, epsilon);
                embedded.output(&self.norm.gain, &self.norm.shift, layer_input);
                drop_in_parallel(layer_input, hidden, dropouts.hidden.at(0));
            }
            Input::Hidden {
                vectors,
                starts: given,
                frozen,
            } => {
                starts.extend_from_slice(given);
                layer_input.clear();
                layer_input.extend_from_slice(vectors);
                tape.lowest = frozen;
            }
        }
        let lowest = tape.lowest;
        let last = self.layers.len() - 1;
        assert!(lowest <= last, "at least one layer is trained");
        tape.first_only = wanted == Wanted::First;
        layers.resize_with(self.layers.len() - lowest, LayerTape::default);
        output.clear();
        output.extend_from_slice(layer_input);
        for (l, kept) in (lowest..).zip(layers.iter_mut()) {
            let layer = &self.layers[l];
            let first_only = tape.first_only && l == last;
            layer
                .attention
                .part(hidden..3 * hidden)
                .apply_in_parallel(output, &mut kept.keys_values, workspace);
            if first_only {
                keep_first(output, starts, hidden);
            }
            layer
                .attention
                .part(0..hidden)
                .apply_in_parallel(output, &mut kept.query, workspace);
            kept.context.resize(kept.query.len(), 0.0);
            let (heads, dropout) = (self.shape.attention(), dropouts.attention.at(l as u64));
            let rows = row_starts(starts, first_only);
            let (query, keys_values) = (&kept.query, &kept.keys_values);
            cut(&mut kept.context, &rows, hidden)
                .into_par_iter()
                .enumerate()
                .for_each_init(Room::default, |room, (i, context)| {
                    heads.attend(
                        &query[rows[i] * hidden..rows[i + 1] * hidden],
                        &keys_values[2 * starts[i] * hidden..2 * starts[i + 1] * hidden],
                        context,
                        dropout.at(i as u64),
                        room,
                    );
                });
            let site = |half: u64| dropouts.hidden.at(1 + 2 * l as u64 + half);
            let normal = &mut kept.attended.normal;
            layer
                .attention_out
                .whole()
                .apply_in_parallel(&kept.context, normal, workspace);
            drop_in_parallel(normal, hidden, site(0));
            kept.attended.add_and_normalise(output, hidden, epsilon);
            let norm = &layer.attention_norm;
            kept.attended.output(&norm.gain, &norm.shift, b);
            layer.inner.whole().apply_in_parallel(b, &mut kept.inner, workspace);
            activated(&kept.inner, self.shape.activation, wide);
            let normal = &mut kept.out.normal;
            layer.outer.whole().apply_in_parallel(wide, normal, workspace);
            drop_in_parallel(normal, hidden, site(1));
            kept.out.add_and_normalise(b, hidden, epsilon);
            let norm = &layer.out_norm;
            kept.out.output(&norm.gain, &norm.shift, output);
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
        let hidden = self.shape.hidden;
        let Tape {
            starts,
            layers,
            input,
            embedded,
            output: down,
            a,
            b,
            c,
            wide,
            workspace,
            ..
        } = tape;
        assert_eq!(down.len(), upstream.len(), "one derivative a number");
        down.copy_from_slice(upstream);
        let last = self.layers.len() - 1;
        for l in (tape.lowest..=last).rev() {
            let (layer, first_only) = (&self.layers[l], tape.first_only && l == last);
            let (beneath, kept) = layers.split_at_mut(l - tape.lowest);
            let kept = &mut kept[0];
            let grown = &mut gradient.layers[l - tape.lowest];
            let site = |half: u64| dropouts.hidden.at(1 + 2 * l as u64 + half);

            // The feed-forward half. `down` becomes the derivative by its residual sum, `a` that by its output.
            let norm = (&layer.out_norm, &mut grown.out_norm);
            kept.out
                .backward(down, &norm.0.gain, &mut norm.1.gain, &mut norm.1.shift);
            dropped(down, hidden, site(1), a);
            activated_with_slope(&mut kept.inner, self.shape.activation, wide);
            grown.outer.add_gradient(0, wide, a, hidden, workspace);
            layer.outer.whole().backward(a, Begin::Zero, wide, workspace);
            let inner = layer.inner.bias.len();
            wide.par_chunks_mut(BLOCK * inner)
                .zip(kept.inner.par_chunks(BLOCK * inner))
                .for_each(|(upstream, slope)| upstream.iter_mut().zip(slope).for_each(|(u, slope)| *u *= slope));
            let norm = (&layer.attention_norm, &mut grown.attention_norm);
            kept.attended.output(&norm.0.gain, &norm.0.shift, b);
            grown.inner.add_gradient(0, b, wide, inner, workspace);
            layer.inner.whole().backward(wide, Begin::There, down, workspace);

            // The attention half.
            kept.attended
                .backward(down, &norm.0.gain, &mut norm.1.gain, &mut norm.1.shift);
            dropped(down, hidden, site(0), a);
            grown.attention_out.add_gradient(0, &kept.context, a, hidden, workspace);
            b.resize(a.len(), 0.0);
            layer.attention_out.whole().backward(a, Begin::Zero, b, workspace);
            let (heads, dropout) = (self.shape.attention(), dropouts.attention.at(l as u64));
            let rows = row_starts(starts, first_only);
            a.resize(kept.query.len(), 0.0);
            wide.resize(kept.keys_values.len(), 0.0);
            let (query, keys_values, d_context) = (&kept.query, &kept.keys_values, &*b);
            cut(a, &rows, hidden)
                .into_par_iter()
                .zip(cut(wide, starts, 2 * hidden))
                .enumerate()
                .for_each_init(Room::default, |room, (i, (d_query, d_keys_values))| {
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
                });
            // The layer's input, made again from the norm beneath it.
            let x = if let Some(beneath) = beneath.last() {
                let norm = &self.layers[l - 1].out_norm;
                beneath.out.output(&norm.gain, &norm.shift, c);
                &mut *c
            } else {
                &mut *input
            };
            grown.attention.add_gradient(hidden, x, wide, 2 * hidden, workspace);
            let keys_values = layer.attention.part(hidden..3 * hidden);
            let queries = layer.attention.part(0..hidden);
            let goes_on = l > tape.lowest || !tape.tokens.is_empty();
            if first_only {
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
            grown.attention.add_gradient(0, x, a, hidden, workspace);
        }
        if tape.tokens.is_empty() {
            return;
        }
        drop_in_parallel(down, hidden, dropouts.hidden.at(0));
        let norm = (&self.norm, &mut gradient.norm);
        embedded.backward(down, &norm.0.gain, &mut norm.1.gain, &mut norm.1.shift);
        for (&token, d) in tape.tokens.iter().zip(down.chunks_exact(hidden)) {
            gradient.words.add(token, d);
        }
        let add = |sum: &mut [f32], d: &[f32]| sum.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
        for range in starts.windows(2) {
            let rows = down[range[0] * hidden..range[1] * hidden].chunks_exact(hidden);
            for (position, d) in rows.enumerate() {
                add(gradient.positions.row_mut(self.shape.first_position + position), d);
            }
        }
        if self.types.rows() > 0 {
            for (i, d) in down.chunks_exact(hidden).enumerate() {
                add(
                    gradient.types.row_mut(tape.types.get(i).copied().unwrap_or(0) as usize),
                    d,
                );
            }
        }
    }
}

/// Where each sequence's rows begin: its tokens, or one row a sequence.
fn row_starts(starts: &[usize], first_only: bool) -> Vec<usize> {
    if first_only {
        (0..starts.len()).collect()
    } else {
        starts.to_vec()
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
    use crate::nn::encoder::{Dtype, Scratch, tests::tiny};

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
        let weights = tiny(20, 9);
        let (mut scratch, mut tape) = (Scratch::default(), Tape::default());
        for wanted in [Wanted::All, Wanted::First] {
            let want = weights
                .forward(&weights.laid_out(0..2, Dtype::Float32), packed(), wanted, &mut scratch)
                .to_vec();
            let out = weights.train_forward(Input::Tokens(packed()), wanted, dropouts(0.0), &mut tape);
            assert!(out.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }

    /// Every trained number's gradient, words first, in the order of [`EncoderWeights::trained_mut`].
    fn flat(weights: &EncoderWeights, gradient: &mut EncoderGradient) -> Vec<f32> {
        let mut words = vec![
            0.0;
            if gradient.frozen.is_some() {
                0
            } else {
                weights.words.as_slice().len()
            }
        ];
        for (row, g) in gradient.words.rows().iter().zip(gradient.words.values().chunks(8)) {
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
            (Wanted::All, 0.0, None),
            (Wanted::First, 0.0, None),
            (Wanted::First, 0.3, None),
            (Wanted::First, 0.2, Some(1)),
            (Wanted::All, 0.2, Some(0)),
        ] {
            let mut weights = tiny(20, 9);
            let dropouts = dropouts(probability);
            let mut scratch = Scratch::default();
            let layers = weights.laid_out(0..frozen.unwrap_or(0), Dtype::Float32);
            let beneath = weights.forward(&layers, packed(), Wanted::All, &mut scratch).to_vec();
            let input = frozen.map_or(Input::Tokens(packed()), |frozen| Input::Hidden {
                vectors: &beneath,
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
    fn two_passes_add_up_and_a_clear_gradient_is_empty() {
        let weights = tiny(20, 9);
        let mut tape = Tape::default();
        let mut gradient = EncoderGradient::zeros(&weights, None);
        let mut words = Vec::new();
        for _ in 0..2 {
            let count = weights
                .train_forward(Input::Tokens(packed()), Wanted::First, dropouts(0.0), &mut tape)
                .len();
            weights.train_backward(&vec![1.0; count], dropouts(0.0), &mut tape, &mut gradient);
            words.push(gradient.words.values().to_vec());
        }
        assert_eq!(gradient.words.rows(), [1, 7, 19, 3, 4, 0, 2, 11]);
        assert!(
            words[0]
                .iter()
                .zip(&words[1])
                .all(|(a, b)| (2.0 * a - b).abs() < 1e-4 * (1.0 + b.abs()))
        );
        gradient.words.clear();
        assert!(gradient.words.rows().is_empty() && gradient.words.slots.iter().all(|&slot| slot == 0));
    }
}
