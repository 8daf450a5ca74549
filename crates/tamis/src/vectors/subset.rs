//! Some of a store's vectors.

use std::{borrow::Cow, ops::Range, sync::Arc};

use crate::{Result, vectors::VectorStore};

/// The most numbers that are copied: 64 MiB of them.
const MOST_COPIED: usize = 1 << 24;

/// The vectors named, in the order named: the store itself where they are all of it, a copy where that is small, else read from it when
/// they are asked for.
///
/// # Errors
///
/// If they cannot be read.
pub(crate) fn subset(vectors: &Arc<dyn VectorStore>, rows: &[u32]) -> Result<Arc<dyn VectorStore>> {
    if rows.len() == vectors.count() && rows.iter().zip(0..).all(|(&row, i)| row == i) {
        return Ok(Arc::clone(vectors));
    }
    if rows.len() * vectors.dim() <= MOST_COPIED {
        return Ok(Arc::new(vectors.gather(rows)?));
    }
    Ok(Arc::new(Subset {
        vectors: Arc::clone(vectors),
        rows: rows.to_vec(),
    }))
}

#[derive(Debug)]
struct Subset {
    vectors: Arc<dyn VectorStore>,
    rows: Vec<u32>,
}

impl VectorStore for Subset {
    fn count(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.vectors.dim()
    }

    fn rows(&self, range: Range<usize>) -> Result<Cow<'_, [f32]>> {
        let mut out = Vec::with_capacity(range.len() * self.dim());
        self.vectors.gather_into(&self.rows[range], &mut out)?;
        Ok(Cow::Owned(out))
    }

    fn gather_into(&self, vectors: &[u32], out: &mut Vec<f32>) -> Result<()> {
        let rows: Vec<u32> = vectors.iter().map(|&vector| self.rows[vector as usize]).collect();
        self.vectors.gather_into(&rows, out)
    }
}

#[cfg(test)]
mod tests {
    use tamis_nn::Matrix;

    use super::*;

    #[test]
    fn a_subset_has_the_rows_named_in_their_order() {
        let all: Arc<dyn VectorStore> = Arc::new(Matrix::from_vec(vec![0.0, 1.0, 2.0, 3.0], 4, 1));
        let lazy = Subset {
            vectors: Arc::clone(&all),
            rows: vec![3, 0, 2],
        };
        let copied = subset(&all, &[3, 0, 2]).expect("reads");
        for some in [&lazy as &dyn VectorStore, &*copied] {
            assert_eq!((some.count(), some.dim()), (3, 1));
            assert_eq!(*some.rows(1..3).expect("reads"), [0.0, 2.0]);
            assert_eq!(some.gather(&[2, 0]).expect("reads").as_slice(), [2.0, 3.0]);
        }
        assert!(Arc::ptr_eq(&all, &subset(&all, &[0, 1, 2, 3]).expect("reads")));
    }
}
