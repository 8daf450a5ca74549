//! Where vectors are: in memory, on disk, or wherever else they can be read from by range.
//!
//! Up to 512 MiB of an embedder's vectors, or of those given, are kept in memory as they are. More of them go to disk in half precision:
//! a pool of millions of rows then takes about as much memory as its texts.

mod on_disk;
mod subset;

use std::{borrow::Cow, fmt, ops::Range, path::Path, sync::Arc};

use tamis_nn::Matrix;

pub(crate) use subset::subset;

pub(crate) use on_disk::BYTES as BYTES_ON_DISK;
use on_disk::Writer;

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

    /// Appends the vectors named, in the order named.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn gather_into(&self, vectors: &[u32], out: &mut Vec<f32>) -> Result<()> {
        for &vector in vectors {
            out.extend_from_slice(&self.rows(vector as usize..vector as usize + 1)?);
        }
        Ok(())
    }

    /// A copy of the vectors named, in the order named; shape `(vectors.len(), dim)`.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn gather(&self, vectors: &[u32]) -> Result<Matrix> {
        let mut data = Vec::with_capacity(vectors.len() * self.dim());
        self.gather_into(vectors, &mut data)?;
        Ok(Matrix::from_vec(data, vectors.len(), self.dim()))
    }

    /// A copy of all vectors, shape `(count, dim)`.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn to_matrix(&self) -> Result<Matrix> {
        let data = self.rows(0..self.count())?.into_owned();
        Ok(Matrix::from_vec(data, self.count(), self.dim()))
    }
}

/// The most numbers that are kept in memory: 512 MiB of them.
pub(crate) const MOST_IN_MEMORY: usize = 1 << 27;

/// Vectors that come one after the other, kept in memory or, where they will be too many, on disk.
pub(crate) enum Collector {
    InMemory { numbers: Vec<f32>, dim: usize },
    OnDisk(Writer),
}

impl Collector {
    /// Whether so many vectors of this length are kept on disk.
    pub(crate) fn goes_to_disk(count: usize, dim: usize) -> bool {
        count * dim > MOST_IN_MEMORY
    }

    /// For so many vectors of this length. What goes to disk is in this folder, has no name there, and is gone with the last reader.
    ///
    /// # Errors
    ///
    /// If no file can be made in the folder.
    pub(crate) fn new(folder: &Path, count: usize, dim: usize) -> Result<Self> {
        if Self::goes_to_disk(count, dim) {
            return Ok(Self::OnDisk(Writer::new(folder, dim)?));
        }
        Ok(Self::InMemory {
            numbers: Vec::with_capacity(count * dim),
            dim,
        })
    }

    /// Adds vectors, one after the other.
    ///
    /// # Errors
    ///
    /// If the disk is full, or fails.
    pub(crate) fn push(&mut self, vectors: &[f32]) -> Result<()> {
        match self {
            Self::InMemory { numbers, .. } => numbers.extend_from_slice(vectors),
            Self::OnDisk(writer) => writer.push(vectors)?,
        }
        Ok(())
    }

    /// All that were added.
    ///
    /// # Errors
    ///
    /// As [`Collector::push`].
    pub(crate) fn finish(self) -> Result<Arc<dyn VectorStore>> {
        Ok(match self {
            Self::InMemory { numbers, dim } => {
                let count = numbers.len() / dim.max(1);
                Arc::new(Matrix::from_vec(numbers, count, dim))
            }
            Self::OnDisk(writer) => Arc::new(writer.finish()?),
        })
    }
}

/// The ranges of so many vectors that are read together.
pub(crate) fn blocks(count: usize, block: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count)
        .step_by(block)
        .map(move |from| from..(from + block).min(count))
}

/// What is shared is read as what it is.
impl<S: VectorStore + ?Sized> VectorStore for Arc<S> {
    fn count(&self) -> usize {
        (**self).count()
    }

    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn rows(&self, range: Range<usize>) -> Result<Cow<'_, [f32]>> {
        (**self).rows(range)
    }

    fn gather_into(&self, vectors: &[u32], out: &mut Vec<f32>) -> Result<()> {
        (**self).gather_into(vectors, out)
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
    fn many_vectors_go_to_disk_and_few_do_not() {
        let folder = tempfile::tempdir().expect("a folder");
        for (count, is_rounded) in [(2, false), (MOST_IN_MEMORY, true)] {
            let mut collector = Collector::new(folder.path(), count, 2).expect("collects");
            for vector in [[0.1, 1.0], [0.5, 0.2]] {
                collector.push(&vector).expect("is written");
            }
            let store = collector.finish().expect("is written");
            assert_eq!((store.count(), store.dim()), (2, 2));
            let vector = store.rows(0..1).expect("reads");
            assert_eq!(vector[0] != 0.1, is_rounded);
            assert!((vector[0] - 0.1).abs() < 1e-4 && vector[1] == 1.0, "{vector:?}");
        }
    }

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
