//! The forward pass over packed sequences, without padding, on one thread.

use crate::{
    Error,
    encoder::weights::{EncoderWeights, LayerNorm},
    kernels::{
        attention::AttentionWorkspace,
        bfloat16::Bfloat16Rows,
        bfloat16_linear::Bfloat16Linear,
        dropout::Dropout,
        elementwise::activate,
        int8::{Int8Linear, Int8Rows},
        layer_norm::add_and_norm,
        linear::{Part, PrepackedLinear},
    },
    named_enum,
};

/// Tokens that go through what follows attention together: their intermediate layer fits the second cache, and they are many enough for the
/// products. Measured.
const BLOCK: usize = 192;

/// Consecutive layers of an encoder, their weights prepacked for many forward passes.
#[derive(Debug, Clone)]
pub struct PrepackedLayers(Vec<PrepackedLayer>);

#[derive(Debug, Clone)]
struct PrepackedLayer {
    queries: LinearKernel,
    keys_values: LinearKernel,
    attention_output: LinearKernel,
    attention_norm: LayerNorm,
    intermediate: LinearKernel,
    output: LinearKernel,
    output_norm: LayerNorm,
}

/// The numbers in which a forward pass multiplies by weights; everything else is in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// As they are.
    #[default]
    Float32,
    /// Weights and inputs rounded to bfloat16, summed in 32 bits.
    Bfloat16,
    /// Weights and inputs rounded to eight bits: faster, a little less exact.
    Int8,
}

named_enum!(Dtype, "embed_dtype", Error, {
    Float32 => "float32": "as they are",
    Bfloat16 => "bfloat16": "rounded to bfloat16, summed in float32: loses next to nothing, faster on processors with AMX or AVX512-BF16",
    Int8 => "int8": "rounded to eight bits: a little less exact, more than twice as fast where machines multiply bytes (AVX-512 VNNI)",
});

/// A linear layer, prepacked.
#[derive(Debug, Clone)]
enum LinearKernel {
    Float32(PrepackedLinear),
    Bfloat16(Bfloat16Linear),
    Int8(Int8Linear),
}

/// Inputs of a layer, rounded; used again by the next.
#[derive(Debug, Default)]
struct Rounded {
    bfloat16: Bfloat16Rows,
    int8: Int8Rows,
}

impl LinearKernel {
    fn new(map: Part<'_>, dtype: Dtype) -> Self {
        match dtype {
            Dtype::Float32 => Self::Float32(map.prepack()),
            Dtype::Bfloat16 => Self::Bfloat16(Bfloat16Linear::new(map)),
            Dtype::Int8 => Self::Int8(Int8Linear::new(map)),
        }
    }

    fn outputs(&self) -> usize {
        match self {
            Self::Float32(map) => map.outputs(),
            Self::Bfloat16(map) => map.outputs(),
            Self::Int8(map) => map.outputs(),
        }
    }

    fn apply(&self, x: &[f32], out: &mut [f32], rounded: &mut Rounded) {
        match self {
            Self::Float32(map) => map.apply(x, out),
            Self::Bfloat16(map) => map.apply(x, out, &mut rounded.bfloat16),
            Self::Int8(map) => map.apply(x, out, &mut rounded.int8),
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

/// Which tokens' vectors a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputTokens {
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
    intermediate: Vec<f32>,
    room: AttentionWorkspace,
    rounded: Rounded,
}

impl EncoderWeights {
    /// Layers prepacked for forward passes.
    ///
    /// # Panics
    ///
    /// If there are no such layers.
    pub fn prepack(&self, layers: std::ops::Range<usize>, dtype: Dtype) -> PrepackedLayers {
        let hidden = self.shape.hidden;
        let layers = self.layers[layers].iter().map(|layer| PrepackedLayer {
            queries: LinearKernel::new(layer.qkv.part(0..hidden), dtype),
            keys_values: LinearKernel::new(layer.qkv.part(hidden..3 * hidden), dtype),
            attention_output: LinearKernel::new(layer.attention_output.whole(), dtype),
            attention_norm: layer.attention_norm.clone(),
            intermediate: LinearKernel::new(layer.intermediate.whole(), dtype),
            output: LinearKernel::new(layer.output.whole(), dtype),
            output_norm: layer.output_norm.clone(),
        });
        PrepackedLayers(layers.collect())
    }

    /// What the last of `layers`, which begin with the first, gives: shape `(tokens, hidden)`, or `(sequences, hidden)` where only the
    /// first are wanted.
    ///
    /// # Panics
    ///
    /// If a token is not in the vocabulary or a sequence is longer than there are positions.
    pub fn forward<'s>(
        &self,
        layers: &PrepackedLayers,
        packed: Packed<'_>,
        wanted: OutputTokens,
        scratch: &'s mut Scratch,
    ) -> &'s [f32] {
        self.begin(packed, scratch);
        self.run(layers, packed.starts, wanted, scratch)
    }

    /// The rest of a forward pass, through `layers`, from what the layer frozen them gave.
    pub fn forward_above<'s>(
        &self,
        layers: &PrepackedLayers,
        hidden: &[f32],
        starts: &[usize],
        wanted: OutputTokens,
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
        add_and_norm(&mut scratch.hidden, &scratch.context, &norm.weight, &norm.bias, epsilon);
    }

    /// Word vectors into `words`, the sum of position and type vectors into `places`, shapes `(tokens, hidden)`.
    pub(crate) fn embed(&self, packed: Packed<'_>, words: &mut Vec<f32>, places: &mut Vec<f32>) {
        words.clear();
        for &token in packed.tokens {
            words.extend_from_slice(self.token_embeddings.row(token as usize));
        }
        places.clear();
        for range in packed.starts.windows(2) {
            for position in 0..range[1] - range[0] {
                places.extend_from_slice(self.position_embeddings.row(self.shape.first_position + position));
            }
        }
        if self.token_type_embeddings.rows() > 0 {
            for (i, place) in places.chunks_exact_mut(self.shape.hidden).enumerate() {
                let kind = packed.types.get(i).copied().unwrap_or(0);
                place
                    .iter_mut()
                    .zip(self.token_type_embeddings.row(kind as usize))
                    .for_each(|(x, t)| *x += t);
            }
        }
    }

    fn run<'s>(
        &self,
        layers: &PrepackedLayers,
        starts: &[usize],
        wanted: OutputTokens,
        scratch: &'s mut Scratch,
    ) -> &'s [f32] {
        let (hidden, epsilon) = (self.shape.hidden, self.shape.norm_epsilon);
        let s = &mut *scratch;
        for (l, layer) in layers.0.iter().enumerate() {
            s.keys_values.resize(2 * s.hidden.len(), 0.0);
            layer.keys_values.apply(&s.hidden, &mut s.keys_values, &mut s.rounded);
            let first_only = wanted == OutputTokens::First && l + 1 == layers.0.len();
            if first_only {
                keep_first(&mut s.hidden, starts, hidden);
            }
            s.query.resize(s.hidden.len(), 0.0);
            layer.queries.apply(&s.hidden, &mut s.query, &mut s.rounded);
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
                layer.attention_output.apply(context, &mut s.attended, &mut s.rounded);
                let norm = &layer.attention_norm;
                add_and_norm(&mut s.attended, out, &norm.weight, &norm.bias, epsilon);
                s.intermediate
                    .resize(out.len() / hidden * layer.intermediate.outputs(), 0.0);
                layer
                    .intermediate
                    .apply(&s.attended, &mut s.intermediate, &mut s.rounded);
                activate(&mut s.intermediate, self.shape.activation);
                layer.output.apply(&s.intermediate, out, &mut s.rounded);
                let norm = &layer.output_norm;
                add_and_norm(out, &s.attended, &norm.weight, &norm.bias, epsilon);
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
    use crate::{
        kernels::{elementwise::Activation, linear::Linear},
        test_util::tiny_encoder,
    };

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
        let norm = |norm: &LayerNorm, x: Vec<f64>| -> Vec<f64> {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            x.iter()
                .zip(norm.weight.iter().zip(&norm.bias))
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
                        &wide(weights.token_embeddings.row(t as usize)),
                        &add(
                            &wide(weights.position_embeddings.row(i)),
                            &wide(weights.token_type_embeddings.row(0)),
                        ),
                    ),
                )
            })
            .collect();
        for layer in &weights.layers {
            let projected: Vec<Vec<f64>> = x.iter().map(|x| apply(&layer.qkv, x)).collect();
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
                        add(&apply(&layer.attention_output, &context), &x[i]),
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
                    let intermediate: Vec<f64> = apply(&layer.intermediate, x).into_iter().map(gelu).collect();
                    norm(&layer.output_norm, add(&apply(&layer.output, &intermediate), x))
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
        let layers = weights.prepack(0..2, Dtype::Float32);
        let vectors = weights
            .forward(&layers, packed, OutputTokens::All, &mut scratch)
            .to_vec();
        let want: Vec<f64> = sequences
            .iter()
            .flat_map(|tokens| oracle(&weights, tokens))
            .flatten()
            .collect();
        for (i, (x, want)) in vectors.iter().zip(&want).enumerate() {
            assert!((f64::from(*x) - want).abs() < 2e-5, "number {i}: {x} against {want}");
        }
        // The first tokens alone, and the pass cut in two, give the same.
        let firsts = weights
            .forward(&layers, packed, OutputTokens::First, &mut scratch)
            .to_vec();
        for (i, start) in starts[..3].iter().enumerate() {
            let (first, all) = (&firsts[i * 8..][..8], &vectors[start * 8..][..8]);
            assert!(first.iter().zip(all).all(|(a, b)| (a - b).abs() < 1e-6));
        }
        let (lowest, rest) = (
            weights.prepack(0..1, Dtype::Float32),
            weights.prepack(1..2, Dtype::Float32),
        );
        let frozen = weights
            .forward(&lowest, packed, OutputTokens::All, &mut scratch)
            .to_vec();
        let above = weights.forward_above(&rest, &frozen, &starts, OutputTokens::All, &mut scratch);
        assert_eq!(above, vectors);
        // In fewer bits nearly the same.
        for dtype in [Dtype::Bfloat16, Dtype::Int8] {
            let layers = weights.prepack(0..2, dtype);
            let near = weights.forward(&layers, packed, OutputTokens::All, &mut scratch);
            for (i, (near, exact)) in near.iter().zip(&vectors).enumerate() {
                assert!(
                    (near - exact).abs() < 0.05,
                    "{dtype}, number {i}: {near} against {exact}"
                );
            }
            assert_ne!(near, vectors);
        }
    }
}
