//! Where the vectors of a split are: in memory, or wherever else they can be read from by range.

use std::{borrow::Cow, fmt, ops::Range};

use tamis_nn::Matrix;

use crate::Result;

/// Vectors of one length, handed out by range, so that a store need not hold them all in memory.
///
/// ```
/// use tamis::{Matrix, embed::VectorStore};
///
/// let vectors = Matrix::from_vec(vec![1.0, 0.0, 0.6, 0.8], 2, 2);
/// assert_eq!(*VectorStore::rows(&vectors, 1..2)?, [0.6, 0.8]);
/// # Ok::<(), tamis::Error>(())
/// ```
pub trait VectorStore: fmt::Debug + Send + Sync {
    /// How many vectors there are.
    fn count(&self) -> usize;

    /// The length of a vector.
    fn dim(&self) -> usize;

    /// The vectors of a range one after the other, shape `(range.len(), dim)`.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    ///
    /// # Panics
    ///
    /// If the range ends behind the last vector.
    fn rows(&self, range: Range<usize>) -> Result<Cow<'_, [f32]>>;

    /// A copy of the vectors named, in the order named; shape `(vectors.len(), dim)`.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn gather(&self, vectors: &[u32]) -> Result<Matrix> {
        let mut data = Vec::with_capacity(vectors.len() * self.dim());
        for &vector in vectors {
            data.extend_from_slice(&self.rows(vector as usize..vector as usize + 1)?);
        }
        Ok(Matrix::from_vec(data, vectors.len(), self.dim()))
    }
}

/// All in memory.
impl VectorStore for Matrix {
    fn count(&self) -> usize {
        Matrix::rows(self)
    }

    fn dim(&self) -> usize {
        self.cols()
    }

    fn rows(&self, range: Range<usize>) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(
            &self.as_slice()[range.start * self.cols()..range.end * self.cols()],
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_and_a_list_are_the_same_rows() {
        let matrix = Matrix::from_vec((0..12).map(|x| x as f32).collect(), 4, 3);
        let store: &dyn VectorStore = &matrix;
        assert_eq!((store.count(), store.dim()), (4, 3));
        assert_eq!(&*store.rows(1..3).expect("reads"), [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let some = store.gather(&[3, 1]).expect("reads");
        assert_eq!(some.as_slice(), [9.0, 10.0, 11.0, 3.0, 4.0, 5.0]);
    }
}
