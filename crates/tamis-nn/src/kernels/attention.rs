//! Scaled dot-product attention with several heads over one sequence, forward and backward.
//!
//! Source: Vaswani et al. 2017, section 3.2. The probabilities are not kept for the backward pass but made again from queries and
//! keys, so memory grows with the length of a sequence and not with its square.

use std::ops::Range;

use crate::kernels::{
    dropout::Dropout,
    elementwise::{LANES, softmax_columns, softmax_columns_backward},
    product::{View, ViewMut, multiply},
};

/// How a token's vector is divided between heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// The length of a token's vector.
    pub hidden: usize,
    /// How many heads; a divisor of `hidden`.
    pub count: usize,
}

/// Buffers for one head of one sequence, used again by the next.
#[derive(Debug, Default)]
pub struct AttentionWorkspace {
    /// A row a key, a column a query, as many columns as fill the lanes; so are the others.
    probabilities: Vec<f32>,
    // Of the backward pass.
    dropped: Vec<f32>,
    d_probabilities: Vec<f32>,
}

/// One head's part of a sequence's queries, keys and values, read in place.
#[derive(Clone, Copy)]
struct Head<'a> {
    queries: View<'a>,
    keys: View<'a>,
    values: View<'a>,
}

impl Heads {
    fn width(self) -> usize {
        self.hidden / self.count
    }

    fn scale(self) -> f32 {
        1.0 / (self.width() as f32).sqrt()
    }

    /// A head's columns of a token's vector.
    fn columns(self, head: usize) -> Range<usize> {
        head * self.width()..(head + 1) * self.width()
    }

    /// The same of a token's value, behind its key.
    fn value_columns(self, head: usize) -> Range<usize> {
        self.hidden + head * self.width()..self.hidden + (head + 1) * self.width()
    }

    fn head<'a>(self, head: usize, queries: &'a [f32], keys_values: &'a [f32]) -> Head<'a> {
        let keys_values = View::new(keys_values, keys_values.len() / (2 * self.hidden), 2 * self.hidden);
        Head {
            queries: View::new(queries, queries.len() / self.hidden, self.hidden).columns(self.columns(head)),
            keys: keys_values.columns(self.columns(head)),
            values: keys_values.columns(self.value_columns(head)),
        }
    }

    /// What each query sees.
    ///
    /// `queries` has shape `(queries, hidden)`, `keys_values` `(keys, 2 * hidden)` with each token's key before its value, `out`
    /// `(queries, hidden)`.
    pub fn attend(
        self,
        queries: &[f32],
        keys_values: &[f32],
        out: &mut [f32],
        dropout: Dropout,
        workspace: &mut AttentionWorkspace,
    ) {
        let hidden = self.hidden;
        let (rows, keys) = (queries.len() / hidden, keys_values.len() / (2 * hidden));
        for index in 0..self.count {
            let head = self.head(index, queries, keys_values);
            self.probabilities(head, &mut workspace.probabilities);
            dropout.at(index as u64).apply(&mut workspace.probabilities, 0);
            let probabilities = by_key(&workspace.probabilities, rows, keys);
            let mut out = ViewMut::columns(out, rows, hidden, self.columns(index));
            multiply(&mut out, probabilities.transposed(), head.values, 0.0);
        }
    }

    /// The derivatives by queries, keys and values from that by `attend`'s output; all have the shapes of [`Heads::attend`].
    /// `d_queries` and `d_keys_values` are written over.
    pub fn attend_backward(
        self,
        (queries, keys_values): (&[f32], &[f32]),
        upstream: &[f32],
        (d_queries, d_keys_values): (&mut [f32], &mut [f32]),
        dropout: Dropout,
        workspace: &mut AttentionWorkspace,
    ) {
        let hidden = self.hidden;
        let (rows, keys) = (queries.len() / hidden, keys_values.len() / (2 * hidden));
        for index in 0..self.count {
            let head = self.head(index, queries, keys_values);
            let dropout = dropout.at(index as u64);
            self.probabilities(head, &mut workspace.probabilities);
            workspace.dropped.clear();
            workspace.dropped.extend_from_slice(&workspace.probabilities);
            dropout.apply(&mut workspace.dropped, 0);

            // dV = Pᵀ dO
            let d_out = View::new(upstream, rows, hidden).columns(self.columns(index));
            let mut d_values = ViewMut::columns(d_keys_values, keys, 2 * hidden, self.value_columns(index));
            multiply(&mut d_values, by_key(&workspace.dropped, rows, keys), d_out, 0.0);
            // dPᵀ = V dOᵀ, then through dropout and softmax
            products(&mut workspace.d_probabilities, head.values, d_out);
            dropout.apply(&mut workspace.d_probabilities, 0);
            softmax_columns_backward(
                &mut workspace.d_probabilities,
                &workspace.probabilities,
                lanes(rows),
                self.scale(),
            );
            // dQ = dS K, dK = dSᵀ Q
            let d_probabilities = by_key(&workspace.d_probabilities, rows, keys);
            let mut d_queries = ViewMut::columns(d_queries, rows, hidden, self.columns(index));
            multiply(&mut d_queries, d_probabilities.transposed(), head.keys, 0.0);
            let mut d_keys = ViewMut::columns(d_keys_values, keys, 2 * hidden, self.columns(index));
            multiply(&mut d_keys, d_probabilities, head.queries, 0.0);
        }
    }

    /// A head's probabilities, before dropout.
    fn probabilities(self, head: Head<'_>, probabilities: &mut Vec<f32>) {
        products(probabilities, head.keys, head.queries);
        softmax_columns(probabilities, lanes(head.queries.rows()), self.scale());
    }
}

/// The length of a row of probabilities: so many queries, and what fills up the last lanes.
pub(super) fn lanes(queries: usize) -> usize {
    queries.next_multiple_of(LANES)
}

/// The product of every row of `keys` with every one of `queries`, as probabilities lie in [`AttentionWorkspace`], and zeros in what is left of the lanes.
fn products(out: &mut Vec<f32>, keys: View<'_>, queries: View<'_>) {
    let lanes = lanes(queries.rows());
    out.clear();
    out.resize(keys.rows() * lanes, 0.0);
    let mut out = ViewMut::columns(out, keys.rows(), lanes, 0..queries.rows());
    multiply(&mut out, keys, queries.transposed(), 0.0);
}

/// Shares as they lie in [`AttentionWorkspace`], without what only fills the lanes: shape `(keys, queries)`.
pub(super) fn by_key(probabilities: &[f32], rows: usize, keys: usize) -> View<'_> {
    View::new(probabilities, keys, lanes(rows)).columns(0..rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let heads = Heads { hidden: 6, count: 2 };
        let numbers =
            |count: usize, shift: f32| -> Vec<f32> { (0..count).map(|i| (i as f32 * 1.3 + shift).sin()).collect() };
        for (rows, keys, probability) in [(4, 4, 0.0), (1, 5, 0.0), (3, 3, 0.3), (19, 17, 0.2)] {
            let dropout = Dropout::new(probability, 11);
            let (queries, keys_values) = (numbers(rows * 6, 0.1), numbers(keys * 12, 0.7));
            let upstream = numbers(rows * 6, 2.0);
            let mut workspace = AttentionWorkspace::default();
            let mut loss = |queries: &[f32], keys_values: &[f32]| -> f64 {
                let mut out = vec![0.0; rows * 6];
                heads.attend(queries, keys_values, &mut out, dropout, &mut workspace);
                out.iter().zip(&upstream).map(|(x, u)| f64::from(x * u)).sum()
            };
            let mut numeric = Vec::new();
            for i in 0..queries.len() {
                let (mut above, mut below) = (queries.clone(), queries.clone());
                above[i] += 1e-2;
                below[i] -= 1e-2;
                numeric.push((loss(&above, &keys_values) - loss(&below, &keys_values)) / 2e-2);
            }
            for i in 0..keys_values.len() {
                let (mut above, mut below) = (keys_values.clone(), keys_values.clone());
                above[i] += 1e-2;
                below[i] -= 1e-2;
                numeric.push((loss(&queries, &above) - loss(&queries, &below)) / 2e-2);
            }
            let mut d_queries = vec![9.0; rows * 6];
            let mut d_keys_values = vec![9.0; keys * 12];
            heads.attend_backward(
                (&queries, &keys_values),
                &upstream,
                (&mut d_queries, &mut d_keys_values),
                dropout,
                &mut AttentionWorkspace::default(),
            );
            for (i, (analytic, numeric)) in d_queries.iter().chain(&d_keys_values).zip(&numeric).enumerate() {
                assert!(
                    (f64::from(*analytic) - numeric).abs() < 2e-3,
                    "number {i} of ({rows}, {keys}, {probability}): {analytic} against {numeric}"
                );
            }
        }
    }
}
