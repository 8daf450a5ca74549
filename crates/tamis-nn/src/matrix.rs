//! A dense matrix of `f32` in row-major order: one row an example.

/// Rows of equal length, stored one after the other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matrix {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Matrix {
    /// A matrix of zeros, shape `(rows, cols)`.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self {
            data: vec![0.0; rows * cols],
            rows,
            cols,
        }
    }

    /// Takes `data` as `(rows, cols)` in row-major order.
    ///
    /// # Panics
    ///
    /// If `data` does not hold `rows * cols` numbers.
    pub fn from_vec(data: Vec<f32>, rows: usize, cols: usize) -> Self {
        assert_eq!(
            data.len(),
            rows * cols,
            "a matrix of {rows} x {cols} cannot hold {} numbers",
            data.len()
        );
        Self { data, rows, cols }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The length of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `i`, shape `(cols,)`.
    ///
    /// # Panics
    ///
    /// If there is no row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Row `i`, to write to.
    ///
    /// # Panics
    ///
    /// If there is no row `i`.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// All numbers, row after row.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// All numbers, row after row, to write to.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The rows in order.
    pub fn iter_rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        (0..self.rows).map(|i| self.row(i))
    }

    /// A copy of the rows named, in the order named; shape `(rows.len(), cols)`.
    ///
    /// # Panics
    ///
    /// If a row does not exist.
    pub fn gather(&self, rows: &[u32]) -> Self {
        let mut data = Vec::with_capacity(rows.len() * self.cols);
        for &row in rows {
            data.extend_from_slice(self.row(row as usize));
        }
        Self {
            data,
            rows: rows.len(),
            cols: self.cols,
        }
    }
}
