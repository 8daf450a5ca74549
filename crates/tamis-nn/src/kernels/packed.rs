//! The right side of many products, packed in the numbers that they are made in.

use crate::{
    Error,
    kernels::{
        bfloat16::Bfloat16Matrix,
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
    Bfloat16 => "bfloat16": "rounded to bfloat16, summed in float32: several times as fast on processors with AMX",
});

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

    /// `out = begin + x b`: `x` of shape `(rows, depth)`, `out` of shape `(rows, columns)`, both row-major; on all threads.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn multiply_in_parallel(&self, x: &[f32], begin: Begin<'_>, out: &mut [f32]) {
        match self {
            Self::Float32(packed) => packed.multiply_in_parallel(x, begin, out),
            Self::Bfloat16(packed) => packed.multiply_in_parallel(x, begin, out),
        }
    }
}
