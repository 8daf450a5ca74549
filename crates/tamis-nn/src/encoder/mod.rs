//! BERT-family encoders: their weights, and the forward pass over packed sequences, without padding, on one thread.
//!
//! Tokens of several sequences lie one after the other in one matrix, so that every linear layer is one product; only
//! attention looks at one sequence at a time. Source: Devlin et al. 2019 and Vaswani et al. 2017, post-norm.

pub mod gradient;
pub mod head;
pub mod loss;
pub mod training_pass;

use crate::{
    Error, Matrix,
    kernels::{
        attention::{AttentionWorkspace, Heads},
        dropout::Dropout,
        elementwise::{Activation, activate},
        int8::{ByteMap, ByteRows},
        layer_norm::add_and_norm,
        linear::{LaidOut, Linear, Part},
    },
    named_enum,
};

/// Tokens that go through what follows attention together: their inner layer fits the second cache, and they are many enough for the
/// products. Measured.
const BLOCK: usize = 192;

/// The sizes and choices of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderShape {
    /// The length of a token's vector.
    pub hidden: usize,
    /// Attention heads a layer; a divisor of `hidden`.
    pub heads: usize,
    /// What the inner layer is passed through.
    pub activation: Activation,
    /// Added to the variance in every layer norm.
    pub norm_epsilon: f32,
    /// The position of a sequence's first token: 0, or 2 for RoBERTa and its kin.
    pub first_position: usize,
}

/// The scale and shift of a layer norm, shapes `(hidden,)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// What a normalised number is multiplied by.
    pub gain: Vec<f32>,
    /// What is added then.
    pub shift: Vec<f32>,
}

/// One transformer layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Queries, keys and values in one map: `hidden` to `3 * hidden`.
    pub attention: Linear,
    /// What follows the heads: `hidden` to `hidden`.
    pub attention_out: Linear,
    /// After the attention and its residual.
    pub attention_norm: Norm,
    /// `hidden` to the inner size.
    pub inner: Linear,
    /// The inner size to `hidden`.
    pub outer: Linear,
    /// After the inner layers and their residual.
    pub out_norm: Norm,
}

/// An encoder's weights.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderWeights {
    /// The sizes and choices.
    pub shape: EncoderShape,
    /// Shape `(vocabulary, hidden)`.
    pub words: Matrix,
    /// Shape `(positions, hidden)`.
    pub positions: Matrix,
    /// One row a token type, such as first and second sentence of a pair; no row where the model has none.
    pub types: Matrix,
    /// After the sum of all three.
    pub norm: Norm,
    /// From first to last.
    pub layers: Vec<Layer>,
}

/// Consecutive layers of an encoder, their maps laid out for many forward passes.
#[derive(Debug, Clone)]
pub struct LaidLayers(Vec<LaidLayer>);

#[derive(Debug, Clone)]
struct LaidLayer {
    queries: Map,
    keys_values: Map,
    attention_out: Map,
    attention_norm: Norm,
    inner: Map,
    outer: Map,
    out_norm: Norm,
}

/// The numbers in which a forward pass multiplies by weights; everything else is in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// As they are.
    #[default]
    Float32,
    /// Weights and inputs rounded to eight bits: faster, a little less exact.
    Int8,
}

named_enum!(Dtype, "embed_dtype", Error, {
    Float32 => "float32": "as they are",
    Int8 => "int8": "rounded to eight bits: a little less exact, more than twice as fast where machines multiply bytes (AVX-512 VNNI)",
});

/// An affine map, laid out.
#[derive(Debug, Clone)]
enum Map {
    Float32(LaidOut),
    Int8(ByteMap),
}

impl Map {
    fn new(map: Part<'_>, dtype: Dtype) -> Self {
        match dtype {
            Dtype::Float32 => Self::Float32(map.laid_out()),
            Dtype::Int8 => Self::Int8(ByteMap::new(map)),
        }
    }

    fn outputs(&self) -> usize {
        match self {
            Self::Float32(map) => map.outputs(),
            Self::Int8(map) => map.outputs(),
        }
    }

    fn apply(&self, x: &[f32], out: &mut [f32], rows: &mut ByteRows) {
        match self {
            Self::Float32(map) => map.apply(x, out),
            Self::Int8(map) => map.apply(x, out, rows),
        }
    }
}

/// Sequences of tokens, one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// All tokens, shape `(tokens,)`.
    pub tokens: &'a [u32],
    /// The type of each token, or nothing where all are of type 0.
    pub types: &'a [u8],
    /// Sequence `i` is `tokens[starts[i]..starts[i + 1]]`.
    pub starts: &'a [usize],
}

impl EncoderShape {
    /// How attention divides a token's vector.
    pub fn attention(&self) -> Heads {
        Heads {
            hidden: self.hidden,
            count: self.heads,
        }
    }
}

/// Which tokens' vectors a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Every token's.
    All,
    /// Only that of each sequence's first token: the last layer then does for the others no more than their keys and values.
    First,
}

/// Buffers of a forward pass, used again by the next.
#[derive(Debug, Default)]
pub struct Scratch {
    hidden: Vec<f32>,
    query: Vec<f32>,
    keys_values: Vec<f32>,
    context: Vec<f32>,
    attended: Vec<f32>,
    inner: Vec<f32>,
    room: AttentionWorkspace,
    rows: ByteRows,
}

impl EncoderWeights {
    /// Layers laid out for forward passes.
    ///
    /// # Panics
    ///
    /// If there are no such layers.
    pub fn laid_out(&self, layers: std::ops::Range<usize>, dtype: Dtype) -> LaidLayers {
        let hidden = self.shape.hidden;
        let laid = self.layers[layers].iter().map(|layer| LaidLayer {
            queries: Map::new(layer.attention.part(0..hidden), dtype),
            keys_values: Map::new(layer.attention.part(hidden..3 * hidden), dtype),
            attention_out: Map::new(layer.attention_out.whole(), dtype),
            attention_norm: layer.attention_norm.clone(),
            inner: Map::new(layer.inner.whole(), dtype),
            outer: Map::new(layer.outer.whole(), dtype),
            out_norm: layer.out_norm.clone(),
        });
        LaidLayers(laid.collect())
    }

    /// What the last of `layers`, which begin with the first, gives: shape `(tokens, hidden)`, or `(sequences, hidden)` where only the
    /// first are wanted.
    ///
    /// # Panics
    ///
    /// If a token is not in the vocabulary or a sequence is longer than there are positions.
    pub fn forward<'s>(
        &self,
        layers: &LaidLayers,
        packed: Packed<'_>,
        wanted: Wanted,
        scratch: &'s mut Scratch,
    ) -> &'s [f32] {
        self.begin(packed, scratch);
        self.run(layers, packed.starts, wanted, scratch)
    }

    /// The rest of a forward pass, through `layers`, from what the layer beneath them gave.
    pub fn forward_above<'s>(
        &self,
        layers: &LaidLayers,
        hidden: &[f32],
        starts: &[usize],
        wanted: Wanted,
        scratch: &'s mut Scratch,
    ) -> &'s [f32] {
        scratch.hidden.clear();
        scratch.hidden.extend_from_slice(hidden);
        self.run(layers, starts, wanted, scratch)
    }

    /// The first layer's input into `scratch.hidden`.
    fn begin(&self, packed: Packed<'_>, scratch: &mut Scratch) {
        let (norm, epsilon) = (&self.norm, self.shape.norm_epsilon);
        self.embed(packed, &mut scratch.hidden, &mut scratch.context);
        add_and_norm(&mut scratch.hidden, &scratch.context, &norm.gain, &norm.shift, epsilon);
    }

    /// Word vectors into `words`, the sum of position and type vectors into `places`, shapes `(tokens, hidden)`.
    pub(crate) fn embed(&self, packed: Packed<'_>, words: &mut Vec<f32>, places: &mut Vec<f32>) {
        words.clear();
        for &token in packed.tokens {
            words.extend_from_slice(self.words.row(token as usize));
        }
        places.clear();
        for range in packed.starts.windows(2) {
            for position in 0..range[1] - range[0] {
                places.extend_from_slice(self.positions.row(self.shape.first_position + position));
            }
        }
        if self.types.rows() > 0 {
            for (i, place) in places.chunks_exact_mut(self.shape.hidden).enumerate() {
                let kind = packed.types.get(i).copied().unwrap_or(0);
                place
                    .iter_mut()
                    .zip(self.types.row(kind as usize))
                    .for_each(|(x, t)| *x += t);
            }
        }
    }

    fn run<'s>(&self, layers: &LaidLayers, starts: &[usize], wanted: Wanted, scratch: &'s mut Scratch) -> &'s [f32] {
        let (hidden, epsilon) = (self.shape.hidden, self.shape.norm_epsilon);
        let s = &mut *scratch;
        for (l, layer) in layers.0.iter().enumerate() {
            s.keys_values.resize(2 * s.hidden.len(), 0.0);
            layer.keys_values.apply(&s.hidden, &mut s.keys_values, &mut s.rows);
            let first_only = wanted == Wanted::First && l + 1 == layers.0.len();
            if first_only {
                keep_first(&mut s.hidden, starts, hidden);
            }
            s.query.resize(s.hidden.len(), 0.0);
            layer.queries.apply(&s.hidden, &mut s.query, &mut s.rows);
            s.context.resize(s.query.len(), 0.0);
            for (i, range) in starts.windows(2).enumerate() {
                let rows = if first_only { i..i + 1 } else { range[0]..range[1] };
                let rows = rows.start * hidden..rows.end * hidden;
                self.shape.attention().attend(
                    &s.query[rows.clone()],
                    &s.keys_values[2 * range[0] * hidden..2 * range[1] * hidden],
                    &mut s.context[rows],
                    Dropout::new(0.0, 0),
                    &mut s.room,
                );
            }
            // What follows looks at one token at a time: a block of them goes through all of it while it is in the cache.
            let blocks = s.hidden.chunks_mut(BLOCK * hidden);
            for (out, context) in blocks.zip(s.context.chunks(BLOCK * hidden)) {
                s.attended.resize(out.len(), 0.0);
                layer.attention_out.apply(context, &mut s.attended, &mut s.rows);
                let norm = &layer.attention_norm;
                add_and_norm(&mut s.attended, out, &norm.gain, &norm.shift, epsilon);
                s.inner.resize(out.len() / hidden * layer.inner.outputs(), 0.0);
                layer.inner.apply(&s.attended, &mut s.inner, &mut s.rows);
                activate(&mut s.inner, self.shape.activation);
                layer.outer.apply(&s.inner, out, &mut s.rows);
                let norm = &layer.out_norm;
                add_and_norm(out, &s.attended, &norm.gain, &norm.shift, epsilon);
            }
        }
        &scratch.hidden
    }
}

/// Keeps the first row of every sequence.
pub(crate) fn keep_first(rows: &mut Vec<f32>, starts: &[usize], hidden: usize) {
    let sequences = starts.len() - 1;
    for (i, &start) in starts[..sequences].iter().enumerate() {
        rows.copy_within(start * hidden..(start + 1) * hidden, i * hidden);
    }
    rows.truncate(sequences * hidden);
}

#[cfg(test)]
pub(crate) mod tests {

    use super::*;
    use crate::test_util::tiny_encoder;

    /// The same pass written naively in f64, one token pair at a time.
    fn oracle(weights: &EncoderWeights, tokens: &[u32]) -> Vec<Vec<f64>> {
        let apply = |linear: &Linear, x: &[f64]| -> Vec<f64> {
            linear
                .weight
                .iter_rows()
                .zip(&linear.bias)
                .map(|(w, &b)| f64::from(b) + w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>())
                .collect()
        };
        let norm = |norm: &Norm, x: Vec<f64>| -> Vec<f64> {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            x.iter()
                .zip(norm.gain.iter().zip(&norm.shift))
                .map(|(x, (&g, &s))| (x - mean) / (variance + 1e-12).sqrt() * f64::from(g) + f64::from(s))
                .collect()
        };
        let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
        let wide = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let mut x: Vec<Vec<f64>> = tokens
            .iter()
            .enumerate()
            .map(|(i, &t)| {
                norm(
                    &weights.norm,
                    add(
                        &wide(weights.words.row(t as usize)),
                        &add(&wide(weights.positions.row(i)), &wide(weights.types.row(0))),
                    ),
                )
            })
            .collect();
        for layer in &weights.layers {
            let projected: Vec<Vec<f64>> = x.iter().map(|x| apply(&layer.attention, x)).collect();
            let attended: Vec<Vec<f64>> = (0..tokens.len())
                .map(|i| {
                    let mut context = vec![0.0; 8];
                    for head in 0..2 {
                        let at = |part: usize, j: usize| &projected[j][part * 8 + head * 4..part * 8 + head * 4 + 4];
                        let dot = |j: usize| at(0, i).iter().zip(at(1, j)).map(|(a, b)| a * b).sum::<f64>() / 2.0;
                        let shares: Vec<f64> = (0..tokens.len()).map(|j| dot(j).exp()).collect();
                        let all: f64 = shares.iter().sum();
                        for (j, share) in shares.iter().enumerate() {
                            for (c, v) in context[head * 4..head * 4 + 4].iter_mut().zip(at(2, j)) {
                                *c += share / all * v;
                            }
                        }
                    }
                    norm(
                        &layer.attention_norm,
                        add(&apply(&layer.attention_out, &context), &x[i]),
                    )
                })
                .collect();
            let gelu = |x: f64| {
                let mut one = [x as f32];
                activate(&mut one, Activation::Gelu);
                f64::from(one[0])
            };
            x = attended
                .iter()
                .map(|x| {
                    let inner: Vec<f64> = apply(&layer.inner, x).into_iter().map(gelu).collect();
                    norm(&layer.out_norm, add(&apply(&layer.outer, &inner), x))
                })
                .collect();
        }
        x
    }

    #[test]
    fn packed_sequences_agree_with_one_at_a_time_in_f64() {
        let weights = tiny_encoder(20, 9);
        let sequences: [&[u32]; 3] = [&[1, 7, 7, 19, 3], &[4], &[0, 2, 11, 5, 6, 8, 9, 10, 12]];
        let tokens: Vec<u32> = sequences.concat();
        let mut scratch = Scratch::default();
        let starts = [0, 5, 6, 15];
        let packed = Packed {
            tokens: &tokens,
            types: &[],
            starts: &starts,
        };
        let layers = weights.laid_out(0..2, Dtype::Float32);
        let vectors = weights.forward(&layers, packed, Wanted::All, &mut scratch).to_vec();
        let want: Vec<f64> = sequences
            .iter()
            .flat_map(|tokens| oracle(&weights, tokens))
            .flatten()
            .collect();
        for (i, (x, want)) in vectors.iter().zip(&want).enumerate() {
            assert!((f64::from(*x) - want).abs() < 2e-5, "number {i}: {x} against {want}");
        }
        // The first tokens alone, and the pass cut in two, give the same.
        let firsts = weights.forward(&layers, packed, Wanted::First, &mut scratch).to_vec();
        for (i, start) in starts[..3].iter().enumerate() {
            let (first, all) = (&firsts[i * 8..][..8], &vectors[start * 8..][..8]);
            assert!(first.iter().zip(all).all(|(a, b)| (a - b).abs() < 1e-6));
        }
        let (lowest, rest) = (
            weights.laid_out(0..1, Dtype::Float32),
            weights.laid_out(1..2, Dtype::Float32),
        );
        let beneath = weights.forward(&lowest, packed, Wanted::All, &mut scratch).to_vec();
        let above = weights.forward_above(&rest, &beneath, &starts, Wanted::All, &mut scratch);
        assert_eq!(above, vectors);
        // In eight bits nearly the same.
        let layers = weights.laid_out(0..2, Dtype::Int8);
        let near = weights.forward(&layers, packed, Wanted::All, &mut scratch);
        for (i, (near, exact)) in near.iter().zip(&vectors).enumerate() {
            assert!((near - exact).abs() < 0.05, "number {i}: {near} against {exact}");
        }
        assert_ne!(near, vectors);
    }
}
