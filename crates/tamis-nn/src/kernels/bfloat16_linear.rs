//! Linear layers of many rows with weights and inputs rounded to bfloat16, on one thread.

use crate::kernels::{
    bfloat16::{Bfloat16Matrix, Bfloat16Rows, product_alone},
    linear::Part,
    product::Layout,
};

/// A linear layer in bfloat16, prepacked for many forward passes.
#[derive(Debug, Clone)]
pub struct Bfloat16Linear {
    weight: Bfloat16Matrix,
    bias: Vec<f32>,
    inputs: usize,
}

impl Bfloat16Linear {
    /// Rounds and lays out a map.
    pub fn new(map: Part<'_>) -> Self {
        let shape = (map.inputs(), map.bias().len());
        let mut weight = Bfloat16Matrix::default();
        weight.prepack(map.weight(), shape, Layout::Transposed);
        Self {
            weight,
            bias: map.bias().to_vec(),
            inputs: map.inputs(),
        }
    }

    /// How many outputs it has.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// `out = x Wᵀ + b`, row by row, on one thread.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn apply(&self, x: &[f32], out: &mut [f32], rows: &mut Bfloat16Rows) {
        if out.is_empty() {
            return;
        }
        rows.pack_alone(x, self.inputs);
        product_alone(rows, &self.weight, &self.bias, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Matrix, kernels::linear::Linear};

    #[test]
    fn a_map_worked_by_hand() {
        // Numbers of few bits: rounding changes none.
        let map = Linear {
            weight: Matrix::from_vec(vec![1.0, 2.0, -1.0, 0.5, 0.0, 4.0], 2, 3),
            bias: vec![10.0, 20.0],
        };
        let packed = Bfloat16Linear::new(map.whole());
        let mut out = [0.0; 4];
        packed.apply(&[1.0, 1.0, 1.0, 2.0, 0.0, -1.0], &mut out, &mut Bfloat16Rows::default());
        assert_eq!(out, [12.0, 24.5, 13.0, 17.0]);
        packed.apply(&[], &mut [], &mut Bfloat16Rows::default());
    }
}
