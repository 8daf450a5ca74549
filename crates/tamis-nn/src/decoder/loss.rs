//! The loss on the tokens that are to be said, without ever holding a batch's logits.
//!
//! Only the vectors that predict such a token go through the head, and so many at a time that their logits, a number for each word of the
//! vocabulary, take little memory.

use rayon::prelude::*;

use crate::{
    Matrix,
    decoder::weights::DecoderWeights,
    kernels::{
        elementwise::{exp, wide},
        linear::{FrozenWeight, Workspace},
        packed::{ProductDtype, RowBuffer, sum_of_products},
        prepacked::Begin,
        rms_norm::{rms_norm, rms_norm_backward},
    },
};

/// Tokens whose logits are held at a time.
const BLOCK: usize = 128;

/// A token that is predicted: by which vector, and which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Predicted {
    /// The row of the vector behind which it stands.
    pub row: usize,
    /// The token.
    pub token: u32,
}

/// Buffers that the next batch uses again.
#[derive(Debug)]
pub struct LossWorkspace {
    chosen: Vec<f32>,
    normed: Vec<f32>,
    logits: Vec<f32>,
    upstream: Vec<f32>,
    rows: RowBuffer,
    linear: Workspace,
}

impl LossWorkspace {
    /// For products in these numbers.
    pub fn new(dtype: ProductDtype) -> Self {
        Self {
            chosen: Vec::new(),
            normed: Vec::new(),
            logits: Vec::new(),
            upstream: Vec::new(),
            rows: RowBuffer::new(dtype),
            linear: Workspace::new(dtype),
        }
    }
}

/// Where derivatives go.
pub struct LossGradient<'a> {
    /// What each token's loss counts.
    pub weight: f32,
    /// By the vectors, shape `(tokens, hidden)`; added to.
    pub hidden: &'a mut [f32],
    /// By the norm's weight and by the head, where these are trained; added to.
    pub trained: Option<(&'a mut [f32], &'a mut Matrix)>,
}

impl DecoderWeights {
    /// The negative log likelihood of every predicted token, natural logarithm, lower is better, in their order. `hidden` is what the last
    /// layer gives, shape `(tokens, hidden)`, `head` the packed [`DecoderWeights::head`]. Tokens that one vector predicts stand side by
    /// side.
    pub fn losses(
        &self,
        head: &FrozenWeight,
        hidden: &[f32],
        predicted: &[Predicted],
        mut gradient: Option<LossGradient<'_>>,
        workspace: &mut LossWorkspace,
    ) -> Vec<f64> {
        let cols = self.shape.hidden;
        if predicted.is_empty() {
            return Vec::new();
        }
        let LossWorkspace {
            chosen,
            normed,
            logits,
            upstream,
            rows,
            linear,
        } = workspace;
        let vocabulary = self.head().rows();
        // Several tokens behind one vector, such as the beginnings of several answers, share its logits.
        let groups: Vec<&[Predicted]> = predicted.chunk_by(|a, b| a.row == b.row).collect();
        let mut losses = Vec::with_capacity(predicted.len());
        for block in groups.chunks(BLOCK) {
            chosen.clear();
            for group in block {
                chosen.extend_from_slice(&hidden[group[0].row * cols..][..cols]);
            }
            rms_norm(chosen, &self.norm, self.shape.norm_epsilon, normed);
            logits.resize(block.len() * vocabulary, 0.0);
            sum_of_products(&[(rows.pack(normed, cols), &head.forward)], Begin::Zero, logits);
            let weight = gradient.as_ref().map(|gradient| gradient.weight);
            let of_block: Vec<Vec<f64>> = logits
                .par_chunks_mut(vocabulary)
                .zip(block)
                .map(|(logits, group)| cross_entropy(logits, group, weight))
                .collect();
            losses.extend(of_block.into_iter().flatten());
            let Some(gradient) = &mut gradient else { continue };
            upstream.resize(block.len() * cols, 0.0);
            sum_of_products(
                &[(rows.pack(logits, vocabulary), &head.backward)],
                Begin::Zero,
                upstream,
            );
            let d_norm = gradient.trained.as_mut().map(|(d_norm, d_head)| {
                linear.add_gradient(d_head.as_mut_slice(), &mut [], normed, logits, cols);
                &mut **d_norm
            });
            rms_norm_backward(chosen, &self.norm, self.shape.norm_epsilon, upstream, d_norm);
            for (group, upstream) in block.iter().zip(upstream.chunks_exact(cols)) {
                let d = &mut gradient.hidden[group[0].row * cols..][..cols];
                d.iter_mut().zip(upstream).for_each(|(d, u)| *d += u);
            }
        }
        losses
    }
}

/// The negative log likelihood of each token under the softmax of the same logits. Where a weight is told, logits become the derivative by
/// them of the losses' sum times it.
fn cross_entropy(logits: &mut [f32], tokens: &[Predicted], weight: Option<f32>) -> Vec<f64> {
    let targets: Vec<f64> = tokens
        .iter()
        .map(|predicted| f64::from(logits[predicted.token as usize]))
        .collect();
    let mut highest = f32::NEG_INFINITY;
    let mut total = 0.0f64;
    wide(
        #[inline(always)]
        || {
            let mut lanes = [f32::NEG_INFINITY; 16];
            let (chunks, rest) = logits.as_chunks_mut::<16>();
            for chunk in chunks.iter() {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane = if *x > *lane { *x } else { *lane };
                }
            }
            highest = lanes.iter().chain(rest.iter()).copied().fold(highest, f32::max);
            // Few numbers a sum in single precision, so that a vocabulary's small shares are not lost.
            for chunks in chunks.chunks_mut(64) {
                let mut sums = [0.0f32; 16];
                for chunk in chunks {
                    for (sum, x) in sums.iter_mut().zip(chunk) {
                        *x = exp(*x - highest);
                        *sum += *x;
                    }
                }
                total += sums.iter().map(|&sum| f64::from(sum)).sum::<f64>();
            }
            for x in rest {
                *x = exp(*x - highest);
                total += f64::from(*x);
            }
        },
    );
    if let Some(weight) = weight {
        let share = weight * tokens.len() as f32 / total as f32;
        wide(
            #[inline(always)]
            || {
                for x in logits.iter_mut() {
                    *x *= share;
                }
            },
        );
        for predicted in tokens {
            logits[predicted.token as usize] -= weight;
        }
    }
    let log_sum = f64::from(highest) + total.ln();
    targets.into_iter().map(|target| log_sum - target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_and_its_slopes_worked_by_hand() {
        // Logits 0, ln 3: p = (1/4, 3/4); token 0: loss ln 4, slopes (-3/4, 3/4) times the weight 2.
        let of = |token: u32| Predicted { row: 0, token };
        let mut logits = [0.0, 3f32.ln()];
        let losses = cross_entropy(&mut logits, &[of(0), of(1)], None);
        assert!((losses[1] - (4.0f64 / 3.0).ln()).abs() < 1e-6, "{losses:?}");
        let mut logits = [0.0, 3f32.ln()];
        let loss = cross_entropy(&mut logits, &[of(0)], Some(2.0))[0];
        assert!((loss - 4f64.ln()).abs() < 1e-6, "{loss}");
        assert!(
            (logits[0] + 1.5).abs() < 1e-6 && (logits[1] - 1.5).abs() < 1e-6,
            "{logits:?}"
        );
        // A hundred equal logits and one apart: past the lanes.
        let mut logits = vec![5.0; 101];
        logits[100] = 5.0 + 100f32.ln();
        let loss = cross_entropy(&mut logits, &[of(100)], Some(1.0))[0];
        assert!((loss - 2f64.ln()).abs() < 1e-6, "{loss}");
        assert!((logits[100] + 0.5).abs() < 1e-6 && (logits[7] - 0.005).abs() < 1e-7);
    }
}
