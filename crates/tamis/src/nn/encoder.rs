//! The forward pass of a BERT-family encoder over packed sequences: no padding, one thread.
//!
//! Tokens of several sequences lie one after the other in one matrix, so that every linear layer is one product; only
//! attention looks at one sequence at a time. Source: Devlin et al. 2019 and Vaswani et al. 2017, post-norm.

use super::{
    elementwise::{Activation, activate, add_and_norm, softmax_rows},
    product::{Layout, product},
};
use crate::Matrix;

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

/// An affine map.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// Shape `(outputs, inputs)`.
    pub weight: Matrix,
    /// Shape `(outputs,)`.
    pub bias: Vec<f32>,
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
    /// Shape `(positions, hidden)`. The vector of token type 0, where there is one, is added to every row.
    pub positions: Matrix,
    /// After the sum of both.
    pub norm: Norm,
    /// From first to last.
    pub layers: Vec<Layer>,
}

/// Buffers of a forward pass, used again by the next.
#[derive(Debug, Default)]
pub struct Scratch {
    hidden: Vec<f32>,
    projected: Vec<f32>,
    context: Vec<f32>,
    attended: Vec<f32>,
    inner: Vec<f32>,
    head: Head,
}

/// One head of one sequence.
#[derive(Debug, Default)]
struct Head {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
}

impl EncoderWeights {
    /// The last layer's vector of every token, shape `(tokens.len(), hidden)`. Sequence `i` is
    /// `tokens[starts[i]..starts[i + 1]]`.
    ///
    /// # Panics
    ///
    /// If a token is not in the vocabulary or a sequence is longer than there are positions.
    pub fn forward<'s>(&self, tokens: &[u32], starts: &[usize], scratch: &'s mut Scratch) -> &'s [f32] {
        let (hidden, epsilon) = (self.shape.hidden, self.shape.norm_epsilon);
        self.embed(tokens, starts, scratch);
        for layer in &self.layers {
            apply(&layer.attention, &scratch.hidden, &mut scratch.projected);
            self.attend(starts, scratch);
            apply(&layer.attention_out, &scratch.context, &mut scratch.attended);
            let norm = &layer.attention_norm;
            add_and_norm(&mut scratch.attended, &scratch.hidden, &norm.gain, &norm.shift, epsilon);
            apply(&layer.inner, &scratch.attended, &mut scratch.inner);
            activate(&mut scratch.inner, self.shape.activation);
            apply(&layer.outer, &scratch.inner, &mut scratch.hidden);
            let norm = &layer.out_norm;
            add_and_norm(&mut scratch.hidden, &scratch.attended, &norm.gain, &norm.shift, epsilon);
        }
        debug_assert_eq!(scratch.hidden.len(), tokens.len() * hidden);
        &scratch.hidden
    }

    fn embed(&self, tokens: &[u32], starts: &[usize], scratch: &mut Scratch) {
        scratch.hidden.clear();
        for &token in tokens {
            scratch.hidden.extend_from_slice(self.words.row(token as usize));
        }
        scratch.context.clear();
        for range in starts.windows(2) {
            for position in 0..range[1] - range[0] {
                let row = self.positions.row(self.shape.first_position + position);
                scratch.context.extend_from_slice(row);
            }
        }
        let norm = &self.norm;
        add_and_norm(
            &mut scratch.hidden,
            &scratch.context,
            &norm.gain,
            &norm.shift,
            self.shape.norm_epsilon,
        );
    }

    /// From `projected`, shape `(tokens, 3 * hidden)`, to `context`, shape `(tokens, hidden)`.
    fn attend(&self, starts: &[usize], scratch: &mut Scratch) {
        let hidden = self.shape.hidden;
        let width = hidden / self.shape.heads;
        let scale = 1.0 / (width as f32).sqrt();
        let Scratch {
            projected,
            context,
            head,
            ..
        } = scratch;
        for range in starts.windows(2) {
            let length = range[1] - range[0];
            let rows = &projected[range[0] * 3 * hidden..range[1] * 3 * hidden];
            let out_rows = &mut context[range[0] * hidden..range[1] * hidden];
            head.scores.resize(length * length, 0.0);
            head.out.resize(length * width, 0.0);
            for first in (0..hidden).step_by(width) {
                gather(rows, 3 * hidden, first, width, &mut head.query);
                gather(rows, 3 * hidden, hidden + first, width, &mut head.key);
                gather(rows, 3 * hidden, 2 * hidden + first, width, &mut head.value);
                let shape = (length, width, length);
                product(
                    &mut head.scores,
                    shape,
                    &head.query,
                    Layout::Plain,
                    &head.key,
                    Layout::Transposed,
                    0.0,
                );
                softmax_rows(&mut head.scores, length, scale);
                let shape = (length, length, width);
                product(
                    &mut head.out,
                    shape,
                    &head.scores,
                    Layout::Plain,
                    &head.value,
                    Layout::Plain,
                    0.0,
                );
                for (row, out) in out_rows.chunks_exact_mut(hidden).zip(head.out.chunks_exact(width)) {
                    row[first..first + width].copy_from_slice(out);
                }
            }
        }
    }
}

/// Columns `first..first + width` of rows of length `stride`.
fn gather(rows: &[f32], stride: usize, first: usize, width: usize, out: &mut Vec<f32>) {
    out.clear();
    for row in rows.chunks_exact(stride) {
        out.extend_from_slice(&row[first..first + width]);
    }
}

/// `out = x Wᵀ + b`, row by row.
fn apply(linear: &Linear, x: &[f32], out: &mut Vec<f32>) {
    let (outputs, inputs) = (linear.weight.rows(), linear.weight.cols());
    let rows = x.len() / inputs;
    out.clear();
    for _ in 0..rows {
        out.extend_from_slice(&linear.bias);
    }
    let weight = linear.weight.as_slice();
    product(
        out,
        (rows, inputs, outputs),
        x,
        Layout::Plain,
        weight,
        Layout::Transposed,
        1.0,
    );
}

#[cfg(test)]
pub(crate) mod tests {
    use rand::RngExt;

    use super::*;
    use crate::seed::Seed;

    /// Two layers, 8 numbers a token, 2 heads, random weights.
    pub(crate) fn tiny(vocabulary: usize, positions: usize) -> EncoderWeights {
        let mut rng = Seed(5).rng();
        let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random::<f32>() - 0.5).collect() };
        let mut linear = |inputs: usize, outputs: usize| Linear {
            weight: Matrix::from_vec(numbers(inputs * outputs), outputs, inputs),
            bias: numbers(outputs),
        };
        let norm = || Norm {
            gain: vec![1.0; 8],
            shift: vec![0.1; 8],
        };
        let layers = (0..2)
            .map(|_| Layer {
                attention: linear(8, 24),
                attention_out: linear(8, 8),
                attention_norm: norm(),
                inner: linear(8, 16),
                outer: linear(16, 8),
                out_norm: norm(),
            })
            .collect();
        EncoderWeights {
            shape: EncoderShape {
                hidden: 8,
                heads: 2,
                activation: Activation::Gelu,
                norm_epsilon: 1e-12,
                first_position: 0,
            },
            words: linear(8, vocabulary).weight,
            positions: linear(8, positions).weight,
            norm: norm(),
            layers,
        }
    }

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
                    add(&wide(weights.words.row(t as usize)), &wide(weights.positions.row(i))),
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
        let weights = tiny(20, 9);
        let sequences: [&[u32]; 3] = [&[1, 7, 7, 19, 3], &[4], &[0, 2, 11, 5, 6, 8, 9, 10, 12]];
        let tokens: Vec<u32> = sequences.concat();
        let mut scratch = Scratch::default();
        let packed = weights.forward(&tokens, &[0, 5, 6, 15], &mut scratch).to_vec();
        let want: Vec<f64> = sequences
            .iter()
            .flat_map(|tokens| oracle(&weights, tokens))
            .flatten()
            .collect();
        for (i, (x, want)) in packed.iter().zip(&want).enumerate() {
            assert!((f64::from(*x) - want).abs() < 2e-5, "number {i}: {x} against {want}");
        }
    }
}
