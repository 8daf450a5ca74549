//! Scaled dot-product attention with several heads over one sequence, forward and backward.
//!
//! Source: Vaswani et al. 2017, section 3.2. The shares are not kept for the backward pass but made again from queries and
//! keys, so memory grows with the length of a sequence and not with its square.

use super::{
    dropout::Dropout,
    elementwise::{softmax_rows, softmax_rows_backward},
    product::{View, multiply},
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
pub struct Room {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    /// Shape `(queries, keys)`.
    shares: Vec<f32>,
    out: Vec<f32>,
    // Of the backward pass.
    dropped: Vec<f32>,
    d_out: Vec<f32>,
    d_shares: Vec<f32>,
    part: Vec<f32>,
}

impl Heads {
    fn width(self) -> usize {
        self.hidden / self.count
    }

    fn scale(self) -> f32 {
        1.0 / (self.width() as f32).sqrt()
    }

    /// What each query sees.
    ///
    /// `queries` has shape `(queries, hidden)`, `keys_values` `(keys, 2 * hidden)` with each token's key before its value, `out`
    /// `(queries, hidden)`.
    pub fn attend(self, queries: &[f32], keys_values: &[f32], out: &mut [f32], dropout: Dropout, room: &mut Room) {
        let (hidden, width) = (self.hidden, self.width());
        let (rows, keys) = (queries.len() / hidden, keys_values.len() / (2 * hidden));
        room.out.resize(rows * width, 0.0);
        for head in 0..self.count {
            let first = head * width;
            self.shares(queries, keys_values, head, room);
            dropout.at(head as u64).apply(&mut room.shares, 0);
            gather(keys_values, 2 * hidden, hidden + first, width, &mut room.value);
            let (shares, values) = (View::new(&room.shares, rows, keys), View::new(&room.value, keys, width));
            multiply(&mut room.out, shares, values, 0.0);
            for (row, out) in out.chunks_exact_mut(hidden).zip(room.out.chunks_exact(width)) {
                row[first..first + width].copy_from_slice(out);
            }
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
        room: &mut Room,
    ) {
        let (hidden, width) = (self.hidden, self.width());
        let (rows, keys) = (queries.len() / hidden, keys_values.len() / (2 * hidden));
        for head in 0..self.count {
            let first = head * width;
            let dropout = dropout.at(head as u64);
            self.shares(queries, keys_values, head, room);
            gather(keys_values, 2 * hidden, hidden + first, width, &mut room.value);
            gather(upstream, hidden, first, width, &mut room.d_out);
            room.dropped.clear();
            room.dropped.extend_from_slice(&room.shares);
            dropout.apply(&mut room.dropped, 0);
            room.part.resize(keys.max(rows) * width, 0.0);

            // dV = Pᵀ dO
            let d_out = View::new(&room.d_out, rows, width);
            let part = &mut room.part[..keys * width];
            multiply(part, View::new(&room.dropped, rows, keys).transposed(), d_out, 0.0);
            scatter(part, width, d_keys_values, 2 * hidden, hidden + first);
            // dP = dO Vᵀ, then through dropout and softmax
            room.d_shares.resize(rows * keys, 0.0);
            let values = View::new(&room.value, keys, width);
            multiply(&mut room.d_shares, d_out, values.transposed(), 0.0);
            dropout.apply(&mut room.d_shares, 0);
            softmax_rows_backward(&mut room.d_shares, &room.shares, keys, self.scale());
            // dQ = dS K, dK = dSᵀ Q
            let d_shares = View::new(&room.d_shares, rows, keys);
            let part = &mut room.part[..rows * width];
            multiply(part, d_shares, View::new(&room.key, keys, width), 0.0);
            scatter(part, width, d_queries, hidden, first);
            let part = &mut room.part[..keys * width];
            multiply(part, d_shares.transposed(), View::new(&room.query, rows, width), 0.0);
            scatter(part, width, d_keys_values, 2 * hidden, first);
        }
    }

    /// Gathers a head's queries and keys and computes its shares, before dropout.
    fn shares(self, queries: &[f32], keys_values: &[f32], head: usize, room: &mut Room) {
        let (hidden, width) = (self.hidden, self.width());
        let (rows, keys) = (queries.len() / hidden, keys_values.len() / (2 * hidden));
        let first = head * width;
        gather(queries, hidden, first, width, &mut room.query);
        gather(keys_values, 2 * hidden, first, width, &mut room.key);
        room.shares.resize(rows * keys, 0.0);
        let (queries, keys_view) = (View::new(&room.query, rows, width), View::new(&room.key, keys, width));
        multiply(&mut room.shares, queries, keys_view.transposed(), 0.0);
        softmax_rows(&mut room.shares, keys, self.scale());
    }
}

/// Columns `first..first + width` of rows of length `stride`.
fn gather(rows: &[f32], stride: usize, first: usize, width: usize, out: &mut Vec<f32>) {
    out.clear();
    for row in rows.chunks_exact(stride) {
        out.extend_from_slice(&row[first..first + width]);
    }
}

/// Writes `part` to the columns from `first` on of rows of length `stride`.
fn scatter(part: &[f32], width: usize, rows: &mut [f32], stride: usize, first: usize) {
    for (row, part) in rows.chunks_exact_mut(stride).zip(part.chunks_exact(width)) {
        row[first..first + width].copy_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let heads = Heads { hidden: 6, count: 2 };
        let numbers =
            |count: usize, shift: f32| -> Vec<f32> { (0..count).map(|i| (i as f32 * 1.3 + shift).sin()).collect() };
        for (rows, keys, probability) in [(4, 4, 0.0), (1, 5, 0.0), (3, 3, 0.3)] {
            let dropout = Dropout::new(probability, 11);
            let (queries, keys_values) = (numbers(rows * 6, 0.1), numbers(keys * 12, 0.7));
            let upstream = numbers(rows * 6, 2.0);
            let mut room = Room::default();
            let mut loss = |queries: &[f32], keys_values: &[f32]| -> f64 {
                let mut out = vec![0.0; rows * 6];
                heads.attend(queries, keys_values, &mut out, dropout, &mut room);
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
                &mut Room::default(),
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
