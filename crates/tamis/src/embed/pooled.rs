//! One vector an example, where an example has several texts: its first vector plus the mean of the others, at unit length.

use std::{path::Path, sync::Arc};

use tamis_nn::Matrix;

use crate::{
    Result,
    data::RowId,
    embed::Embedded,
    vectors::{Collector, VectorStore, subset},
};

/// One vector an example, for clustering, shape `(examples.len(), dim)`. Those that are made, and are many, are written to the folder.
///
/// # Errors
///
/// If vectors cannot be read or written.
pub(crate) fn one_each(embedded: &Embedded, examples: &[RowId], folder: &Path) -> Result<Arc<dyn VectorStore>> {
    if embedded.vectors.count() == embedded.examples() {
        return subset(&embedded.vectors, examples);
    }
    let mut vectors = Collector::new(folder, examples.len(), embedded.vectors.dim())?;
    for &example in examples {
        vectors.push(&pooled(embedded, example)?)?;
    }
    vectors.finish()
}

/// The same of a few examples, in memory.
///
/// # Errors
///
/// If vectors cannot be read.
pub(crate) fn of_few(embedded: &Embedded, examples: &[RowId]) -> Result<Matrix> {
    let mut vectors = Vec::with_capacity(examples.len() * embedded.vectors.dim());
    for &example in examples {
        vectors.extend(pooled(embedded, example)?);
    }
    Ok(Matrix::from_vec(vectors, examples.len(), embedded.vectors.dim()))
}

fn pooled(embedded: &Embedded, example: RowId) -> Result<Vec<f32>> {
    let vectors = embedded.vectors.rows(embedded.vectors_of(example as usize))?;
    let dim = embedded.vectors.dim();
    if vectors.len() == dim {
        return Ok(vectors.into_owned());
    }
    let others = (vectors.len() / dim - 1).max(1) as f32;
    let mut sum = vec![0.0; dim];
    for (j, vector) in vectors.chunks_exact(dim).enumerate() {
        let weight = if j == 0 { 1.0 } else { 1.0 / others };
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += weight * x);
    }
    let norm = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 0.0 {
        sum.iter_mut().for_each(|x| *x /= norm);
    }
    Ok(sum)
}
