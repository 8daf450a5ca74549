//! Both sides of products, packed in the numbers that they are made in.

use crate::{
    Error,
    kernels::{
        bfloat16::{self, Bfloat16Matrix, Bfloat16Rows},
        prepacked::{Begin, PrepackedMatrix},
        product::Layout,
    },
    named_enum,
};

/// The numbers in which training multiplies. Weights, sums, norms and the optimiser's moments are in 32 bits whichever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProductDtype {
    /// As they are.
    #[default]
    Float32,
    /// Rounded to 16 bits, of which 8 are the exponent.
    Bfloat16,
}

named_enum!(ProductDtype, "dtype", Error, {
    Float32 => "float32": "as they are",
    Bfloat16 => "bfloat16": "rounded to bfloat16, summed in float32: faster on processors with AVX512-BF16, several times with AMX",
});

impl ProductDtype {
    /// What results depend on: the numbers, and of rounded ones which kernel sums them.
    pub fn identity(self) -> String {
        match self {
            Self::Float32 => self.to_string(),
            Self::Bfloat16 => format!("{self} {}", bfloat16::kernel_class()),
        }
    }
}

/// A matrix that is packed for products with many rows.
#[derive(Debug, Clone)]
pub enum PackedMatrix {
    /// In 32 bits.
    Float32(PrepackedMatrix),
    /// In 16 bits.
    Bfloat16(Bfloat16Matrix),
}

impl Default for PackedMatrix {
    fn default() -> Self {
        Self::new(ProductDtype::Float32)
    }
}

impl PackedMatrix {
    /// Room for a matrix.
    pub fn new(dtype: ProductDtype) -> Self {
        match dtype {
            ProductDtype::Float32 => Self::Float32(PrepackedMatrix::default()),
            ProductDtype::Bfloat16 => Self::Bfloat16(Bfloat16Matrix::default()),
        }
    }

    /// Packs `matrix`, which, read in its layout, has shape `(depth, columns)`, on all threads, in the room of another.
    pub fn prepack(&mut self, matrix: &[f32], shape: (usize, usize), layout: Layout) {
        match self {
            Self::Float32(packed) => packed.prepack(matrix, shape, layout),
            Self::Bfloat16(packed) => packed.prepack(matrix, shape, layout),
        }
    }
}

/// The left side of products: rows that are packed once for all products which read them.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// As they are.
    Float32(&'a [f32]),
    /// In 16 bits.
    Bfloat16(&'a Bfloat16Rows),
}

/// Room for rows, used again by the next.
#[derive(Debug, Default)]
pub enum RowBuffer {
    /// Rows in 32 bits need none.
    #[default]
    Float32,
    /// In 16 bits.
    Bfloat16(Bfloat16Rows),
}

impl RowBuffer {
    /// For products in these numbers.
    pub fn new(dtype: ProductDtype) -> Self {
        match dtype {
            ProductDtype::Float32 => Self::Float32,
            ProductDtype::Bfloat16 => Self::Bfloat16(Bfloat16Rows::default()),
        }
    }

    /// Packs `x`, rows of length `depth`, on all threads.
    pub fn pack<'a>(&'a mut self, x: &'a [f32], depth: usize) -> Rows<'a> {
        match self {
            Self::Float32 => Rows::Float32(x),
            Self::Bfloat16(rows) => {
                rows.pack(x, depth);
                Rows::Bfloat16(rows)
            }
        }
    }
}

/// `out = begin + Σ x b`: every `x` of shape `(rows, depth)`, every `b` of shape `(depth, columns)` with a depth of its own, `out` of shape
/// `(rows, columns)`, row-major; on all threads.
///
/// # Panics
///
/// If the shapes do not fit, the sides are packed in different numbers, or there is no term.
pub fn sum_of_products(terms: &[(Rows<'_>, &PackedMatrix)], begin: Begin<'_>, out: &mut [f32]) {
    const SAME: &str = "both sides of every term in the same numbers";
    if matches!(terms[0].1, PackedMatrix::Float32(_)) {
        let mut begin = begin;
        for term in terms {
            let (Rows::Float32(x), PackedMatrix::Float32(b)) = term else {
                panic!("{SAME}")
            };
            b.multiply_in_parallel(x, begin, out);
            begin = Begin::There;
        }
        return;
    }
    let halves: Vec<(&Bfloat16Rows, &Bfloat16Matrix)> = terms
        .iter()
        .map(|term| match term {
            (Rows::Bfloat16(x), PackedMatrix::Bfloat16(b)) => (*x, b),
            _ => panic!("{SAME}"),
        })
        .collect();
    bfloat16::sum_of_products(&halves, begin, out);
}
