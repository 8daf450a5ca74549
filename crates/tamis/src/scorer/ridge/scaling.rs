//! Features centred on their mean and scaled to mean square 1.

use std::{borrow::Cow, ops::Range, sync::Arc};

use crate::{Result, vectors::VectorStore};

/// What is taken from each raw feature, and what it is then multiplied by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scaling {
    mean: Vec<f32>,
    /// One factor for a whole block of features, so that directions keep their relative variance.
    scale: Vec<f32>,
}

/// Hands out rows, any number at a time.
pub(crate) type Visit<'a> = dyn Fn(&mut dyn FnMut(&[f32])) -> Result<()> + 'a;

impl Scaling {
    /// Of rows of `width` numbers in blocks of `block`; `visit` hands out the same rows each time that it is called.
    ///
    /// # Errors
    ///
    /// If rows cannot be read.
    pub(crate) fn fit(width: usize, block: usize, visit: &Visit<'_>) -> Result<Self> {
        let (mut sums, mut rows) = (vec![0.0f64; width], 0usize);
        visit(&mut |some| {
            for row in some.chunks_exact(width) {
                for (sum, &x) in sums.iter_mut().zip(row) {
                    *sum += f64::from(x);
                }
                rows += 1;
            }
        })?;
        let n = rows.max(1);
        let mean: Vec<f32> = sums.iter().map(|sum| (sum / n as f64) as f32).collect();
        let mut squares = vec![0.0f64; width / block];
        visit(&mut |some| {
            for row in some.chunks_exact(width) {
                for (i, (x, mean)) in row.iter().zip(&mean).enumerate() {
                    squares[i / block] += f64::from(x - mean).powi(2);
                }
            }
        })?;
        let scale = |i: usize| {
            let square = squares[i / block] / (n * block) as f64;
            // A constant block is left alone.
            if square > 1e-12 {
                square.sqrt().recip() as f32
            } else {
                1.0
            }
        };
        Ok(Self {
            scale: (0..width).map(scale).collect(),
            mean,
        })
    }

    /// The number of raw features.
    pub(crate) fn width(&self) -> usize {
        self.mean.len()
    }

    /// Scales rows, one after the other.
    pub(crate) fn apply(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.width()) {
            for ((x, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *x = (*x - mean) * scale;
            }
        }
    }
}

/// Vectors that are scaled when they are asked for, so that there is one copy of them alone.
#[derive(Debug)]
pub(crate) struct Scaled {
    pub(crate) vectors: Arc<dyn VectorStore>,
    pub(crate) scaling: Scaling,
}

impl VectorStore for Scaled {
    fn count(&self) -> usize {
        self.vectors.count()
    }

    fn dim(&self) -> usize {
        self.vectors.dim()
    }

    fn rows(&self, range: Range<usize>) -> Result<Cow<'_, [f32]>> {
        let mut rows = self.vectors.rows(range)?.into_owned();
        self.scaling.apply(&mut rows);
        Ok(Cow::Owned(rows))
    }

    fn gather_into(&self, vectors: &[u32], out: &mut Vec<f32>) -> Result<()> {
        let from = out.len();
        self.vectors.gather_into(vectors, out)?;
        self.scaling.apply(&mut out[from..]);
        Ok(())
    }
}
