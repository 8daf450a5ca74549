//! What a probe is trained and scored on: the features of a split's items, and which answers are right.

use std::{ops::Range, sync::Arc};

use tamis_nn::{
    Fingerprint, Matrix,
    kernels::elementwise::{LANES, softmax_row},
};

use crate::{
    Result,
    data::RowId,
    vectors::{VectorStore, blocks, subset},
};

/// Items that are read together.
const BLOCK: usize = 1024;

/// The features of a split, and what is to be predicted.
#[derive(Debug, Clone)]
pub struct ProbeData {
    /// One row an item, shape `(items, width)`.
    pub rows: Arc<dyn VectorStore>,
    /// Example `i` owns the items `starts[i]..starts[i + 1]`; shape `(examples + 1,)`, the first is 0.
    pub starts: Vec<u32>,
    /// The right answer of each example: its class, or which of its items is right; shape `(examples,)`.
    pub targets: Vec<u32>,
    /// Scores of an item: one a class, or 1 where the items of an example are its choices.
    pub outputs: usize,
    answers: usize,
}

impl ProbeData {
    /// A design from finished features. With one output the items of an example are its choices; with more, each example
    /// has one item and the outputs are the classes.
    ///
    /// # Panics
    ///
    /// If the parts do not fit together.
    pub fn new(rows: impl VectorStore + 'static, starts: Vec<u32>, targets: Vec<u32>, outputs: usize) -> Self {
        assert_eq!(starts.len(), targets.len() + 1, "one start an example, and the end");
        assert_eq!(
            starts[targets.len()] as usize,
            rows.count(),
            "the items end with the rows"
        );
        assert!(
            outputs == 1 || rows.count() == targets.len(),
            "a classified example has one item"
        );
        let most = starts
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as usize)
            .max()
            .unwrap_or(0);
        let answers = if outputs == 1 { most } else { outputs };
        Self {
            rows: Arc::new(rows),
            starts,
            targets,
            outputs,
            answers,
        }
    }

    /// The number of examples.
    pub fn examples(&self) -> usize {
        self.targets.len()
    }

    /// The numbers of all examples.
    pub fn all(&self) -> Vec<RowId> {
        (0..self.examples() as RowId).collect()
    }

    /// The number of features.
    pub fn width(&self) -> usize {
        self.rows.dim()
    }

    /// The columns of the probabilities: classes, or the greatest number of choices.
    pub fn answers(&self) -> usize {
        self.answers
    }

    /// Which items belong to example `i`.
    pub fn items_of(&self, i: usize) -> Range<usize> {
        self.starts[i] as usize..self.starts[i + 1] as usize
    }

    /// The examples named, in the order named, such as a fold.
    ///
    /// # Errors
    ///
    /// If features cannot be read.
    ///
    /// # Panics
    ///
    /// If an example does not exist.
    pub fn select(&self, examples: &[u32]) -> Result<Self> {
        let items: Vec<u32> = examples
            .iter()
            .flat_map(|&i| self.starts[i as usize]..self.starts[i as usize + 1])
            .collect();
        let mut starts = vec![0];
        let mut end = 0;
        for &i in examples {
            end += self.items_of(i as usize).len() as u32;
            starts.push(end);
        }
        let targets = examples.iter().map(|&i| self.targets[i as usize]).collect();
        Ok(Self {
            rows: subset(&self.rows, &items)?,
            starts,
            targets,
            outputs: self.outputs,
            answers: self.answers,
        })
    }

    /// Equal fingerprints, equal designs.
    ///
    /// # Errors
    ///
    /// If features cannot be read.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let mut rows = blake3::Hasher::new();
        for block in blocks(self.rows.count(), BLOCK) {
            let features = self.rows.rows(block)?;
            rows.update(&features.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        }
        let bytes = |numbers: &[u32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let sizes = [self.width(), self.outputs, self.answers].map(|n| n as u32);
        let rows = rows.finalize().as_bytes().to_vec();
        Ok(Fingerprint::of([
            rows,
            bytes(&self.starts),
            bytes(&self.targets),
            bytes(&sizes),
        ]))
    }

    /// Appends what the items of example `i` should score: 1 for the right class or choice, else 0.
    pub(crate) fn push_one_hot(&self, i: usize, out: &mut Vec<f32>) {
        let len = if self.outputs == 1 {
            self.items_of(i).len()
        } else {
            self.outputs
        };
        let start = out.len();
        out.resize(start + len, 0.0);
        out[start + self.targets[i] as usize] = 1.0;
    }

    /// Where the scores of example `i` stand among those of all items, shape `(items, outputs)`.
    pub(crate) fn scores_of(&self, i: usize) -> Range<usize> {
        let items = self.items_of(i);
        items.start * self.outputs..items.end * self.outputs
    }

    /// Softmax of scores over temperature, shape `(examples, answers)`, zeros beyond an example's own choices; `scores` has
    /// shape `(items, outputs)`.
    pub(crate) fn probabilities(&self, scores: &[f32], temperature: f64) -> Matrix {
        let mut probabilities = Matrix::zeros(self.examples(), self.answers);
        let sharpness = (1.0 / temperature) as f32;
        for i in 0..self.examples() {
            softmax(&scores[self.scores_of(i)], sharpness, probabilities.row_mut(i));
        }
        probabilities
    }
}

/// Writes the softmax of `sharpness * scores` to the front of `out`; every probability is above 0, since 0 marks an answer that
/// a row lacks.
pub(crate) fn softmax(scores: &[f32], sharpness: f32, out: &mut [f32]) {
    if scores.len() >= LANES {
        return softmax_row(scores, sharpness, &mut out[..scores.len()]);
    }
    let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (p, &score) in out.iter_mut().zip(scores) {
        let power = ((score - greatest) * sharpness).exp();
        // Not `max`, which would hide a score that is not a number.
        *p = if power < f32::MIN_POSITIVE {
            f32::MIN_POSITIVE
        } else {
            power
        };
        sum += *p;
    }
    for p in out {
        *p /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fold_is_a_selection_of_examples() {
        let rows = Matrix::from_vec((0..30).map(|x| x as f32).collect(), 15, 2);
        let design = ProbeData::new(rows, vec![0, 3, 6, 9, 12, 15], vec![0, 1, 2, 0, 1], 1);
        let fold = design.select(&[3, 1]).expect("reads");
        assert_eq!((fold.examples(), fold.rows.count(), fold.answers()), (2, 6, 3));
        assert_eq!(
            fold.rows.rows(0..1).expect("reads"),
            design.rows.rows(9..10).expect("reads")
        );
        assert_eq!(fold.targets, [0, 1]);
        let fingerprint = |data: &ProbeData| data.fingerprint().expect("reads");
        assert_ne!(fingerprint(&fold), fingerprint(&design));
    }

    #[test]
    fn probabilities_are_padded_with_zeros() {
        let design = ProbeData::new(Matrix::zeros(5, 1), vec![0, 2, 5], vec![0, 1], 1);
        let p = design.probabilities(&[0.0, 0.0, 0.0, 2f32.ln(), 0.0], 1.0);
        let want = [0.5, 0.5, 0.0, 0.25, 0.5, 0.25];
        assert!(
            p.as_slice()
                .iter()
                .zip(want)
                .all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6),
            "{p:?}"
        );
    }

    #[test]
    fn only_answers_that_are_not_there_have_probability_0() {
        let design = ProbeData::new(Matrix::zeros(5, 1), vec![0, 2, 5], vec![0, 1], 1);
        let p = design.probabilities(&[0.0, 1000.0, f32::NAN, 0.0, 0.0], 1.0);
        assert!(p.row(0)[0] > 0.0 && p.row(0)[0] < 1e-30, "{p:?}");
        assert_eq!(p.row(0)[1..], [1.0, 0.0]);
        assert!(p.row(1).iter().all(|p| p.is_nan()));
    }
}
