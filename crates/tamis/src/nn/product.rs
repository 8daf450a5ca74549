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
    assert!(
        out.len() == m * n && a.len() == m * k && b.len() == k * n,
        "product ({m}, {k}) x ({k}, {n}): slices of {} x {} -> {}",
        a.len(),
        b.len(),
        out.len()
    );
    let (a_rs, a_cs) = strides(a_layout, m, k);
    let (b_rs, b_cs) = strides(b_layout, k, n);
    // SAFETY: the assertion above proves that every index reached through these strides lies inside its slice, and
    // `out` is borrowed mutably, so it aliases neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            keep != 0.0,
            a.as_ptr(),
            a_cs,
            a_rs,
            b.as_ptr(),
            b_cs,
            b_rs,
            keep,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Row and column strides of a `(rows, cols)` operand.
fn strides(layout: Layout, rows: usize, cols: usize) -> (isize, isize) {
    match layout {
        Layout::Plain => (cols as isize, 1),
        Layout::Transposed => (1, rows as isize),
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
    }
}
