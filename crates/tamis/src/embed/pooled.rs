//! One vector an example, where an example has several texts.

use tamis_nn::Matrix;

use crate::{Result, data::RowId, embed::Embedded};

/// One vector an example, for clustering, shape `(examples.len(), dim)`: its first vector plus the mean of the others, at unit
/// length.
///
/// # Errors
///
/// If vectors cannot be read.
pub(crate) fn one_each(embedded: &Embedded, examples: &[RowId]) -> Result<Matrix> {
    let (store, dim) = (&embedded.vectors, embedded.vectors.dim());
    if store.count() == embedded.examples() {
        return store.gather(examples);
    }
    let mut pooled = Matrix::zeros(examples.len(), dim);
    for (i, &example) in examples.iter().enumerate() {
        let vectors = store.rows(embedded.vectors_of(example as usize))?;
        let others = (vectors.len() / dim - 1).max(1) as f32;
        let sum = pooled.row_mut(i);
        for (j, vector) in vectors.chunks_exact(dim).enumerate() {
            let weight = if j == 0 { 1.0 } else { 1.0 / others };
            sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += weight * x);
        }
        let norm = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm > 0.0 {
            sum.iter_mut().for_each(|x| *x /= norm);
        }
    }
    Ok(pooled)
}
