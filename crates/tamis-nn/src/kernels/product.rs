//! Matrix products, one thread each: many small products run side by side, one a core.

#![expect(
    unsafe_code,
    reason = "gemm takes raw pointers; the bounds of all three operands are checked first"
)]

/// Whether an operand is read as it lies or transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Row-major, as it lies.
    Plain,
    /// The transpose of the row-major matrix that lies there.
    Transposed,
}

/// A matrix that lies in a slice with any strides.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// `data` as `(rows, cols)`, row-major.
    ///
    /// # Panics
    ///
    /// If `data` does not hold exactly so many numbers.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a view of {rows} x {cols}");
        Self {
            data,
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// The columns of a range.
    ///
    /// # Panics
    ///
    /// If there are no such columns.
    pub fn columns(self, range: std::ops::Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.cols,
            "columns {range:?} of {}",
            self.cols
        );
        Self {
            data: &self.data[(range.start * self.col_stride).min(self.data.len())..],
            cols: range.len(),
            ..self
        }
    }

    /// How many rows it has.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Whether every index lies inside the slice.
    fn is_inside(&self) -> bool {
        self.rows == 0
            || self.cols == 0
            || (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride < self.data.len()
    }
}

/// A matrix to be written, rows of which may be parts of longer ones.
#[derive(Debug)]
pub struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> ViewMut<'a> {
    /// The columns of a range of `data`, which has shape `(rows, cols)`, row-major.
    ///
    /// # Panics
    ///
    /// If `data` does not hold exactly so many numbers or there are no such columns.
    pub fn columns(data: &'a mut [f32], rows: usize, cols: usize, range: std::ops::Range<usize>) -> Self {
        assert_eq!(data.len(), rows * cols, "a view of {rows} x {cols}");
        assert!(
            range.start <= range.end && range.end <= cols,
            "columns {range:?} of {cols}"
        );
        Self {
            data: data.get_mut(range.start..).unwrap_or_default(),
            rows,
            cols: range.len(),
            stride: cols,
        }
    }

    /// All of `data` as `(rows, cols)`, row-major.
    ///
    /// # Panics
    ///
    /// If `data` does not hold exactly so many numbers.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::columns(data, rows, cols, 0..cols)
    }
}

/// `out = keep * out + a b`, where `out` has shape `(m, n)`, `a` read as `(m, k)` and `b` read as `(k, n)`, all row-major.
///
/// # Panics
///
/// If a slice is not exactly as long as its shape says.
pub fn product(
    out: &mut [f32],
    (m, k, n): (usize, usize, usize),
    a: &[f32],
    a_layout: Layout,
    b: &[f32],
    b_layout: Layout,
    keep: f32,
) {
    let view = |data, rows, cols, layout| match layout {
        Layout::Plain => View::new(data, rows, cols),
        Layout::Transposed => View::new(data, cols, rows).transposed(),
    };
    let mut out = ViewMut::new(out, m, n);
    multiply(&mut out, view(a, m, k, a_layout), view(b, k, n, b_layout), keep);
}

/// `out = keep * out + a b`, where `out` has shape `(a rows, b cols)`.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn multiply(out: &mut ViewMut<'_>, a: View<'_>, b: View<'_>, keep: f32) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert!(
        b.rows == k && (out.rows, out.cols) == (m, n) && a.is_inside() && b.is_inside(),
        "product ({m}, {k}) x ({}, {n}): slices of {} x {} -> ({}, {})",
        b.rows,
        a.data.len(),
        b.data.len(),
        out.rows,
        out.cols
    );
    // SAFETY: the assertion above proves that every index reached through these strides lies inside its slice, as does what a view to be
    // written is made of; `out` is borrowed mutably, so it aliases neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            1,
            out.stride as isize,
            keep != 0.0,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            keep,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_gives_the_product_worked_by_hand() {
        // [1 2; 3 4; 5 6] x [1 0 2; 0 1 1] = [1 2 4; 3 4 10; 5 6 16]
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let a_t = [1.0, 3.0, 5.0, 2.0, 4.0, 6.0];
        let b = [1.0, 0.0, 2.0, 0.0, 1.0, 1.0];
        let b_t = [1.0, 0.0, 0.0, 1.0, 2.0, 1.0];
        let want = [1.0, 2.0, 4.0, 3.0, 4.0, 10.0, 5.0, 6.0, 16.0];
        for (a, a_layout) in [(&a, Layout::Plain), (&a_t, Layout::Transposed)] {
            for (b, b_layout) in [(&b, Layout::Plain), (&b_t, Layout::Transposed)] {
                let mut out = [1.0; 9];
                product(&mut out, (3, 2, 3), a, a_layout, b, b_layout, 0.0);
                assert_eq!(out, want);
                product(&mut out, (3, 2, 3), a, a_layout, b, b_layout, 1.0);
                assert_eq!(out, want.map(|x| 2.0 * x));
            }
        }
        // the last two columns of b, read from its transpose too
        for b in [View::new(&b, 2, 3), View::new(&b_t, 3, 2).transposed()] {
            let mut out = [0.0; 6];
            multiply(
                &mut ViewMut::new(&mut out, 3, 2),
                View::new(&a, 3, 2),
                b.columns(1..3),
                0.0,
            );
            assert_eq!(out, [2.0, 4.0, 4.0, 10.0, 6.0, 16.0]);
            // into the middle of longer rows
            let mut out = [7.0; 12];
            let mut middle = ViewMut::columns(&mut out, 3, 4, 1..3);
            multiply(&mut middle, View::new(&a, 3, 2), b.columns(1..3), 0.0);
            assert_eq!(out, [7.0, 2.0, 4.0, 7.0, 7.0, 4.0, 10.0, 7.0, 7.0, 6.0, 16.0, 7.0]);
        }
    }

    #[test]
    #[should_panic(expected = "product (2, 3) x (2, 3)")]
    fn shapes_that_do_not_fit_are_refused() {
        let numbers = [0.0; 6];
        let mut out = [0.0; 6];
        multiply(
            &mut ViewMut::new(&mut out, 2, 3),
            View::new(&numbers, 2, 3),
            View::new(&numbers, 2, 3),
            0.0,
        );
    }
}
