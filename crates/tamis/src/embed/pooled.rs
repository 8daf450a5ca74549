//! One vector an example, where an example has several texts.

use tamis_nn::Matrix;

use crate::{data::RowId, embed::Embedded};

/// One vector an example, for clustering: its first vector plus the mean of the others, at unit length.
pub(crate) fn one_each(embedded: &Embedded) -> Matrix {
    let dim = embedded.vectors.cols();
    if embedded.vectors.rows() == embedded.examples() {
        return embedded.vectors.clone();
    }
    let mut views = Matrix::zeros(embedded.examples(), dim);
    for i in 0..embedded.examples() {
        let range = embedded.vectors_of(i);
        let others = (range.len() - 1).max(1) as f32;
        let view = views.row_mut(i);
        for (j, vector) in range.enumerate() {
            let weight = if j == 0 { 1.0 } else { 1.0 / others };
            view.iter_mut()
                .zip(embedded.vectors.row(vector))
                .for_each(|(sum, x)| *sum += weight * x);
        }
        let norm = view.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm > 0.0 {
            view.iter_mut().for_each(|x| *x /= norm);
        }
    }
    views
}

/// The vectors of [`one_each`] for these examples alone.
pub(crate) fn one_each_of(embedded: &Embedded, examples: &[RowId]) -> Matrix {
    if embedded.vectors.rows() == embedded.examples() {
        return embedded.vectors.gather(examples);
    }
    let mut starts = vec![0];
    let mut vectors = Vec::new();
    for &example in examples {
        vectors.extend(embedded.vectors_of(example as usize).map(|vector| vector as u32));
        starts.push(vectors.len() as u32);
    }
    one_each(&Embedded {
        vectors: embedded.vectors.gather(&vectors),
        starts,
    })
}
