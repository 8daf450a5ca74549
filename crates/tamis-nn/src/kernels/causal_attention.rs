//! Causal attention with grouped queries over packed sequences, forward and backward.
//!
//! Queries, keys and values lie group by group: keys and values as `(groups, tokens, width)`, queries as `(groups, tokens, heads * width)`
//! with the heads that share a key side by side ([`crate::kernels::rotary`]). Queries go by blocks, each against the keys up to its last
//! one, so that memory grows with the length of a sequence and what lies above the diagonal costs half a block. Probabilities are not
//! kept but made again. Source: Vaswani et al. 2017, section 3.2; Ainslie et al. 2023 (grouped queries).

use std::ops::Range;

use rayon::prelude::*;

use crate::kernels::{
    attention::{by_key, lanes},
    elementwise::{softmax_columns, softmax_columns_backward},
    product::{View, ViewMut, multiply},
};

/// Queries of one block: a multiple of the lanes.
const BLOCK: usize = 64;

/// How tokens' vectors are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupedHeads {
    /// Heads of keys and values.
    pub groups: usize,
    /// Query heads that share one of them.
    pub per_group: usize,
    /// Numbers of a head.
    pub width: usize,
    /// How many tokens back a query sees, itself with them; none: all.
    pub window: Option<usize>,
}

/// Consecutive tokens that see one another, each what is not behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The tokens.
    pub tokens: Range<usize>,
    /// Tokens before them that all of them see, too: a prompt that several answers share. Empty where there are none.
    pub prefix: Range<usize>,
}

/// Queries, keys and values of a batch, group by group.
#[derive(Debug, Clone, Copy)]
pub struct Attended<'a> {
    /// Shape `(groups, tokens, per_group * width)`.
    pub queries: &'a [f32],
    /// Shape `(groups, tokens, width)`.
    pub keys: &'a [f32],
    /// Shape `(groups, tokens, width)`.
    pub values: &'a [f32],
}

/// Buffers of one block of queries.
#[derive(Debug, Default)]
struct Workspace {
    probabilities: Vec<f32>,
    d_probabilities: Vec<f32>,
}

/// One group's part of one segment.
struct Part<'a> {
    heads: GroupedHeads,
    /// Tokens of the prefix, and of the segment.
    prefix: usize,
    tokens: usize,
    queries: &'a [f32],
    /// Of the prefix, then of the segment.
    keys: [&'a [f32]; 2],
    values: [&'a [f32]; 2],
}

impl GroupedHeads {
    fn query_width(self) -> usize {
        self.per_group * self.width
    }

    fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// What each query sees, into `out`, laid out as the queries. The segments cover all tokens, in order.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit.
    pub fn attend(self, of: Attended<'_>, segments: &[Segment], out: &mut Vec<f32>) {
        out.resize(of.queries.len(), 0.0);
        let parts = self.parts(of, segments);
        let outs = cut(out, self.groups, segments, self.query_width());
        parts
            .into_par_iter()
            .zip(outs)
            .for_each_init(Workspace::default, |workspace, (part, out)| part.attend(out, workspace));
    }

    /// The derivatives by queries, keys and values, from `upstream`, that by `attend`'s output; laid out as these.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit, or a segment has a prefix.
    pub fn attend_backward(
        self,
        of: Attended<'_>,
        segments: &[Segment],
        upstream: &[f32],
        d_queries: &mut Vec<f32>,
        d_keys: &mut Vec<f32>,
        d_values: &mut Vec<f32>,
    ) {
        assert!(
            segments.iter().all(|segment| segment.prefix.is_empty()),
            "segments without a prefix"
        );
        d_queries.resize(of.queries.len(), 0.0);
        for d in [&mut *d_keys, &mut *d_values] {
            d.clear();
            d.resize(of.keys.len(), 0.0);
        }
        let upstreams = Attended {
            queries: upstream,
            ..of
        };
        let d_queries = cut(d_queries, self.groups, segments, self.query_width());
        let d_keys = cut(d_keys, self.groups, segments, self.width);
        let d_values = cut(d_values, self.groups, segments, self.width);
        self.parts(of, segments)
            .into_par_iter()
            .zip(self.parts(upstreams, segments))
            .zip(d_queries.into_par_iter().zip(d_keys.into_par_iter().zip(d_values)))
            .for_each_init(
                Workspace::default,
                |workspace, ((part, upstream), (d_queries, (d_keys, d_values)))| {
                    part.backward(upstream.queries, d_queries, d_keys, d_values, workspace);
                },
            );
    }

    /// Every group's part of every segment, group by group.
    fn parts<'a>(self, of: Attended<'a>, segments: &[Segment]) -> Vec<Part<'a>> {
        let tokens = of.keys.len() / self.groups / self.width;
        let covered: usize = segments.iter().map(|segment| segment.tokens.len()).sum();
        assert!(
            covered == tokens && of.queries.len() == tokens * self.groups * self.query_width(),
            "segments of {covered} tokens, keys of {tokens}"
        );
        let rows = |numbers: &'a [f32], group: usize, range: &Range<usize>, width: usize| {
            &numbers[(group * tokens + range.start) * width..(group * tokens + range.end) * width]
        };
        (0..self.groups)
            .flat_map(|group| segments.iter().map(move |segment| (group, segment)))
            .map(|(group, segment)| Part {
                heads: self,
                prefix: segment.prefix.len(),
                tokens: segment.tokens.len(),
                queries: rows(of.queries, group, &segment.tokens, self.query_width()),
                keys: [&segment.prefix, &segment.tokens].map(|range| rows(of.keys, group, range, self.width)),
                values: [&segment.prefix, &segment.tokens].map(|range| rows(of.values, group, range, self.width)),
            })
            .collect()
    }
}

impl Part<'_> {
    /// The blocks of the segment's tokens.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let tokens = self.tokens;
        (0..tokens)
            .step_by(BLOCK)
            .map(move |start| start..(start + BLOCK).min(tokens))
    }

    /// The queries of one head in a block.
    fn head<'a>(&self, queries: &'a [f32], block: &Range<usize>, head: usize) -> View<'a> {
        let (wide, width) = (self.heads.query_width(), self.heads.width);
        View::new(&queries[block.start * wide..block.end * wide], block.len(), wide)
            .columns(head * width..(head + 1) * width)
    }

    fn attend(&self, out: &mut [f32], workspace: &mut Workspace) {
        let (wide, width) = (self.heads.query_width(), self.heads.width);
        for block in self.blocks() {
            let out = &mut out[block.start * wide..block.end * wide];
            for head in 0..self.heads.per_group {
                let columns = head * width..(head + 1) * width;
                let probabilities = &mut workspace.probabilities;
                self.probabilities(self.head(self.queries, &block, head), &block, probabilities);
                let (before, own) = probabilities.split_at(self.prefix * lanes(block.len()));
                let mut out = ViewMut::columns(out, block.len(), wide, columns);
                let own = by_key(own, block.len(), block.end).transposed();
                let values = View::new(&self.values[1][..block.end * width], block.end, width);
                multiply(&mut out, own, values, 0.0);
                if self.prefix > 0 {
                    let before = by_key(before, block.len(), self.prefix).transposed();
                    multiply(&mut out, before, View::new(self.values[0], self.prefix, width), 1.0);
                }
            }
        }
    }

    /// Backward through [`Part::attend`] of a part without a prefix. `d_queries` is written over, the other two are added to.
    fn backward(
        &self,
        upstream: &[f32],
        d_queries: &mut [f32],
        d_keys: &mut [f32],
        d_values: &mut [f32],
        workspace: &mut Workspace,
    ) {
        let (wide, width) = (self.heads.query_width(), self.heads.width);
        for block in self.blocks() {
            let (rows, keys) = (block.len(), block.end);
            let seen = |numbers| View::new(&<[f32]>::as_ref(numbers)[..keys * width], keys, width);
            let d_queries = &mut d_queries[block.start * wide..block.end * wide];
            for head in 0..self.heads.per_group {
                let columns = head * width..(head + 1) * width;
                let queries = self.head(self.queries, &block, head);
                let upstream = self.head(upstream, &block, head);
                self.probabilities(queries, &block, &mut workspace.probabilities);
                let probabilities = by_key(&workspace.probabilities, rows, keys);
                // dV = Pᵀ dO
                let mut d_values = ViewMut::new(&mut d_values[..keys * width], keys, width);
                multiply(&mut d_values, probabilities, upstream, 1.0);
                // dPᵀ = V dOᵀ, then through the softmax
                let d_probabilities = &mut workspace.d_probabilities;
                d_probabilities.clear();
                d_probabilities.resize(keys * lanes(rows), 0.0);
                let mut to = ViewMut::columns(d_probabilities, keys, lanes(rows), 0..rows);
                multiply(&mut to, seen(self.values[1]), upstream.transposed(), 0.0);
                softmax_columns_backward(
                    d_probabilities,
                    &workspace.probabilities,
                    lanes(rows),
                    self.heads.scale(),
                );
                // dQ = dS K, dK = dSᵀ Q
                let d_probabilities = by_key(d_probabilities, rows, keys);
                let mut d_queries = ViewMut::columns(d_queries, rows, wide, columns);
                multiply(&mut d_queries, d_probabilities.transposed(), seen(self.keys[1]), 0.0);
                let mut d_keys = ViewMut::new(&mut d_keys[..keys * width], keys, width);
                multiply(&mut d_keys, d_probabilities, queries, 1.0);
            }
        }
    }

    /// A head's probabilities in a block of queries: a row a key, first the prefix's, then the segment's up to the block's end.
    fn probabilities(&self, queries: View<'_>, block: &Range<usize>, out: &mut Vec<f32>) {
        let (rows, width) = (block.len(), self.heads.width);
        let lanes = lanes(rows);
        out.clear();
        out.resize((self.prefix + block.end) * lanes, 0.0);
        let (before, own) = out.split_at_mut(self.prefix * lanes);
        for (out, keys, count) in [(before, self.keys[0], self.prefix), (own, self.keys[1], block.end)] {
            if count > 0 {
                let keys = View::new(&keys[..count * width], count, width);
                let mut out = ViewMut::columns(out, count, lanes, 0..rows);
                multiply(&mut out, keys, queries.transposed(), 0.0);
            }
        }
        self.hide(out, block, f32::NEG_INFINITY);
        softmax_columns(out, lanes, self.heads.scale());
        self.hide(out, block, 0.0);
    }

    /// Writes `value` wherever a query does not see a key.
    fn hide(&self, out: &mut [f32], block: &Range<usize>, value: f32) {
        let lanes = lanes(block.len());
        let first = self.prefix + block.start;
        for (key, row) in out.chunks_exact_mut(lanes).enumerate() {
            let row = &mut row[..block.len()];
            // Query `i` of the block stands at `first + i`.
            let behind = key.saturating_sub(first).min(row.len());
            row[..behind].fill(value);
            if let Some(window) = self.heads.window {
                let too_far = (key + window).saturating_sub(first).min(row.len());
                row[too_far..].fill(value);
            }
        }
    }
}

/// Cuts numbers of shape `(groups, tokens, width)` into every group's part of every segment.
fn cut<'a>(mut numbers: &'a mut [f32], groups: usize, segments: &[Segment], width: usize) -> Vec<&'a mut [f32]> {
    let mut parts = Vec::with_capacity(groups * segments.len());
    for _ in 0..groups {
        for segment in segments {
            let (part, rest) = std::mem::take(&mut numbers).split_at_mut(segment.tokens.len() * width);
            parts.push(part);
            numbers = rest;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, shift: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 1.3 + shift).sin()).collect()
    }

    fn segment(tokens: Range<usize>, prefix: Range<usize>) -> Segment {
        Segment { tokens, prefix }
    }

    /// The same one pair at a time in f64.
    fn oracle(heads: GroupedHeads, of: Attended<'_>, segments: &[Segment]) -> Vec<f64> {
        let tokens = of.keys.len() / heads.groups / heads.width;
        let (w, wide) = (heads.width, heads.query_width());
        let mut out = vec![0.0; of.queries.len()];
        for g in 0..heads.groups {
            for segment in segments {
                for (i, t) in segment.tokens.clone().enumerate() {
                    let seen: Vec<usize> = segment.prefix.clone().chain(segment.tokens.start..=t).collect();
                    let far = heads
                        .window
                        .map_or(0, |window| (segment.prefix.len() + i + 1).saturating_sub(window));
                    let seen = &seen[far..];
                    for h in 0..heads.per_group {
                        let at = (g * tokens + t) * wide + h * w;
                        let dot = |j: usize| -> f64 {
                            let key = &of.keys[(g * tokens + j) * w..][..w];
                            let pairs = of.queries[at..at + w].iter().zip(key);
                            pairs.map(|(q, k)| f64::from(q * k)).sum::<f64>() / (w as f64).sqrt()
                        };
                        let powers: Vec<f64> = seen.iter().map(|&j| dot(j).exp()).collect();
                        let all: f64 = powers.iter().sum();
                        for (&j, power) in seen.iter().zip(&powers) {
                            for c in 0..w {
                                out[at + c] += power / all * f64::from(of.values[(g * tokens + j) * w + c]);
                            }
                        }
                    }
                }
            }
        }
        out
    }

    #[test]
    fn segments_prefixes_and_windows_agree_with_one_pair_at_a_time() {
        for window in [None, Some(1), Some(5), Some(90)] {
            let heads = GroupedHeads {
                groups: 2,
                per_group: 3,
                width: 4,
                window,
            };
            // a prompt of 70, two answers to it, a sequence of its own
            let segments = [
                segment(0..70, 0..0),
                segment(70..73, 0..70),
                segment(73..75, 0..70),
                segment(75..216, 0..0),
            ];
            let (q, k, v) = (numbers(216 * 24, 0.1), numbers(216 * 8, 0.7), numbers(216 * 8, 0.4));
            let of = Attended {
                queries: &q,
                keys: &k,
                values: &v,
            };
            let mut out = Vec::new();
            heads.attend(of, &segments, &mut out);
            for (i, (x, want)) in out.iter().zip(oracle(heads, of, &segments)).enumerate() {
                assert!((f64::from(*x) - want).abs() < 1e-5, "{window:?}, {i}: {x} {want}");
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let heads = GroupedHeads {
            groups: 2,
            per_group: 2,
            width: 3,
            window: Some(50),
        };
        let segments = [segment(0..5, 0..0), segment(5..75, 0..0)];
        let (q, k, v) = (numbers(75 * 12, 0.1), numbers(75 * 6, 0.7), numbers(75 * 6, 0.4));
        let upstream = numbers(q.len(), 2.0);
        let loss = |q: &[f32], k: &[f32], v: &[f32]| -> f64 {
            let of = Attended {
                queries: q,
                keys: k,
                values: v,
            };
            oracle(heads, of, &segments)
                .iter()
                .zip(&upstream)
                .map(|(x, u)| x * f64::from(*u))
                .sum()
        };
        let of = Attended {
            queries: &q,
            keys: &k,
            values: &v,
        };
        let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
        heads.attend_backward(of, &segments, &upstream, &mut dq, &mut dk, &mut dv);
        let moved = |numbers: &[f32], i: usize, by: f32| {
            let mut moved = numbers.to_vec();
            moved[i] += by;
            moved
        };
        for i in (0..q.len()).step_by(41) {
            let numeric = (loss(&moved(&q, i, 1e-2), &k, &v) - loss(&moved(&q, i, -1e-2), &k, &v)) / 2e-2;
            assert!((f64::from(dq[i]) - numeric).abs() < 1e-3, "query {i}");
        }
        for i in (0..k.len()).step_by(23) {
            let numeric = (loss(&q, &moved(&k, i, 1e-2), &v) - loss(&q, &moved(&k, i, -1e-2), &v)) / 2e-2;
            assert!(
                (f64::from(dk[i]) - numeric).abs() < 1e-3,
                "key {i}: {} {numeric}",
                dk[i]
            );
            let numeric = (loss(&q, &k, &moved(&v, i, 1e-2)) - loss(&q, &k, &moved(&v, i, -1e-2))) / 2e-2;
            assert!(
                (f64::from(dv[i]) - numeric).abs() < 1e-3,
                "value {i}: {} {numeric}",
                dv[i]
            );
        }
    }
}
