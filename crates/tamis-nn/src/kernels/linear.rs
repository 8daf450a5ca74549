//! Linear layers of many rows: forward, and backward to the input and to the parameters.
//!
//! How work is shared out between threads changes no bit: see [`PrepackedMatrix`].

use crate::{
    Matrix,
    kernels::{
        packed::{PackedMatrix, ProductDtype, RowBuffer, sum_of_products},
        prepacked::{Begin, PrepackedMatrix},
        prepacked_transposed::PrepackedTransposed,
        product::Layout,
    },
};

/// A linear layer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Linear {
    /// Shape `(outputs, inputs)`.
    pub weight: Matrix,
    /// Shape `(outputs,)`, or empty where the layer has none.
    pub bias: Vec<f32>,
}

impl Linear {
    /// How many outputs it has.
    pub fn outputs(&self) -> usize {
        self.weight.rows()
    }

    /// A layer of zeros.
    pub fn zeros(outputs: usize, inputs: usize) -> Self {
        Self {
            weight: Matrix::zeros(outputs, inputs),
            bias: vec![0.0; outputs],
        }
    }

    /// A layer of zeros, of this one's shape.
    pub fn zeros_like(&self) -> Self {
        Self {
            weight: Matrix::zeros(self.weight.rows(), self.weight.cols()),
            bias: vec![0.0; self.bias.len()],
        }
    }

    /// The rows `outputs` of the map, to be applied as a map of their own.
    pub fn part(&self, outputs: std::ops::Range<usize>) -> Part<'_> {
        let inputs = self.weight.cols();
        Part {
            weight: &self.weight.as_slice()[outputs.start * inputs..outputs.end * inputs],
            bias: self.bias.get(outputs.clone()).unwrap_or_default(),
            inputs,
            outputs: outputs.len(),
        }
    }

    /// The whole layer.
    pub fn whole(&self) -> Part<'_> {
        self.part(0..self.outputs())
    }

    /// Adds to this gradient's rows from `first` on that of a map with as many outputs as a row of `upstream`, on all threads:
    /// `dW += uᵀ x`, `db += Σ u`.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn add_gradient(
        &mut self,
        first: usize,
        x: &[f32],
        upstream: &[f32],
        outputs: usize,
        workspace: &mut Workspace,
    ) {
        let inputs = self.weight.cols();
        let bias = self.bias.get_mut(first..first + outputs).unwrap_or_default();
        let weight = &mut self.weight.as_mut_slice()[first * inputs..(first + outputs) * inputs];
        workspace.add_gradient(weight, bias, x, upstream, inputs);
    }
}

/// Some of a linear layer's outputs.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    inputs: usize,
    outputs: usize,
}

/// Buffers of linear layers' passes, used again by the next.
#[derive(Debug, Default)]
pub struct Workspace {
    rows: RowBuffer,
    packed: PackedMatrix,
    tiles: PrepackedTransposed,
}

impl Workspace {
    /// For products in these numbers.
    pub fn new(dtype: ProductDtype) -> Self {
        Self {
            rows: RowBuffer::new(dtype),
            packed: PackedMatrix::new(dtype),
            tiles: PrepackedTransposed::default(),
        }
    }

    /// Adds to a weight's gradient, shape `(outputs, inputs)`, and to its bias's, shape `(outputs,)` or empty: `dW += uᵀ x`, `db += Σ u`, on
    /// all threads.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn add_gradient(&mut self, weight: &mut [f32], bias: &mut [f32], x: &[f32], upstream: &[f32], inputs: usize) {
        let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
        let mut unused = Vec::new();
        let bias = if bias.is_empty() {
            unused.resize(outputs, 0.0);
            &mut unused
        } else {
            bias
        };
        match &mut self.packed {
            PackedMatrix::Float32(panels) => {
                self.tiles.prepack(upstream, outputs, bias);
                panels.prepack(x, (rows, inputs), Layout::Plain);
                panels.multiply_columns_in_parallel(&self.tiles, Begin::There, weight);
            }
            PackedMatrix::Bfloat16(packed) => {
                let RowBuffer::Bfloat16(left) = &mut self.rows else {
                    unreachable!("both sides in the same numbers")
                };
                for upstream in upstream.chunks_exact(outputs) {
                    bias.iter_mut().zip(upstream).for_each(|(sum, u)| *sum += u);
                }
                // Of the two sides that is turned over which has fewer columns.
                if outputs <= inputs {
                    packed.prepack(x, (rows, inputs), Layout::Plain);
                    packed.add_transposed_in_parallel(upstream, left, weight);
                } else {
                    let mut transposed = vec![0.0; weight.len()];
                    packed.prepack(upstream, (rows, outputs), Layout::Plain);
                    packed.add_transposed_in_parallel(x, left, &mut transposed);
                    for (o, weight) in weight.chunks_exact_mut(inputs).enumerate() {
                        let column = transposed[o..].iter().step_by(outputs);
                        weight.iter_mut().zip(column).for_each(|(sum, x)| *sum += x);
                    }
                }
            }
        }
    }
}

impl<'a> Part<'a> {
    /// A map without a bias; `weight` has shape `(outputs, inputs)`.
    pub fn of_matrix(weight: &'a Matrix) -> Self {
        Self {
            weight: weight.as_slice(),
            bias: &[],
            inputs: weight.cols(),
            outputs: weight.rows(),
        }
    }

    /// Packs it for `x Wᵀ`, in the room of another, on all threads.
    pub fn prepack_forward(self, packed: &mut PackedMatrix) {
        packed.prepack(self.weight, (self.inputs, self.outputs), Layout::Transposed);
    }

    /// Packs it for the derivative by the input, `u W`.
    pub fn prepack_backward(self, packed: &mut PackedMatrix) {
        packed.prepack(self.weight, (self.outputs, self.inputs), Layout::Plain);
    }

    /// Shape `(outputs, inputs)`, row-major.
    pub(crate) fn weight(self) -> &'a [f32] {
        self.weight
    }

    /// Shape `(outputs,)`, or empty where the layer has none.
    pub(crate) fn bias(self) -> &'a [f32] {
        self.bias
    }

    /// How many inputs it has.
    pub(crate) fn inputs(self) -> usize {
        self.inputs
    }

    /// The layer prepacked for many forward passes.
    pub fn prepack(self) -> PrepackedLinear {
        let shape = (self.inputs, self.outputs);
        PrepackedLinear {
            weight: PrepackedMatrix::new(self.weight, shape, Layout::Transposed),
            bias: self.bias.to_vec(),
            outputs: self.outputs,
        }
    }

    /// `out = x Wᵀ + b`, row by row, on one thread.
    pub fn apply(self, x: &[f32], out: &mut Vec<f32>) {
        out.resize(x.len() / self.inputs * self.outputs, 0.0);
        self.prepack().apply(x, out);
    }

    /// The same on all threads.
    pub fn apply_in_parallel(self, x: &[f32], out: &mut Vec<f32>, workspace: &mut Workspace) {
        // What is there is written over: no clearing, which would fill all of it with zeros first.
        out.resize(x.len() / self.inputs * self.outputs, 0.0);
        let Workspace { rows, packed, .. } = workspace;
        self.prepack_forward(packed);
        sum_of_products(&[(rows.pack(x, self.inputs), packed)], Begin::bias(self.bias), out);
    }

    /// The derivative by the input, `u W`, added to `out` or in place of it, on all threads.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn backward(self, upstream: &[f32], begin: Begin<'_>, out: &mut [f32], workspace: &mut Workspace) {
        let Workspace { rows, packed, .. } = workspace;
        self.prepack_backward(packed);
        sum_of_products(&[(rows.pack(upstream, self.outputs), packed)], begin, out);
    }
}

/// A linear layer's weight that stays as it is: packed once for passes in both directions.
#[derive(Debug, Clone)]
pub struct FrozenWeight {
    /// For `x Wᵀ`.
    pub forward: PackedMatrix,
    /// For the derivative by the input, `u W`.
    pub backward: PackedMatrix,
}

impl FrozenWeight {
    /// Packs a layer's.
    pub fn new(map: Part<'_>, dtype: ProductDtype) -> Self {
        let (mut forward, mut backward) = (PackedMatrix::new(dtype), PackedMatrix::new(dtype));
        map.prepack_forward(&mut forward);
        map.prepack_backward(&mut backward);
        Self { forward, backward }
    }
}

/// A linear layer that is prepacked for many forward passes.
#[derive(Debug, Clone)]
pub struct PrepackedLinear {
    weight: PrepackedMatrix,
    bias: Vec<f32>,
    outputs: usize,
}

impl PrepackedLinear {
    /// How many outputs it has.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `out = x Wᵀ + b`, row by row, on one thread.
    ///
    /// # Panics
    ///
    /// If the shapes do not fit.
    pub fn apply(&self, x: &[f32], out: &mut [f32]) {
        self.weight.multiply(x, Begin::bias(&self.bias), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_and_its_gradients_worked_by_hand() {
        // W = [1 2; 3 4; 5 6], b = (1, 0, -1); x = (1, 1): y = (4, 7, 10)
        let map = Linear {
            weight: Matrix::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2),
            bias: vec![1.0, 0.0, -1.0],
        };
        let (mut out, mut workspace) = (Vec::new(), Workspace::default());
        map.whole().apply(&[1.0, 1.0, 0.0, 1.0], &mut out);
        assert_eq!(out, [4.0, 7.0, 10.0, 3.0, 4.0, 5.0]);
        map.part(1..3).apply_in_parallel(&[1.0, 1.0], &mut out, &mut workspace);
        assert_eq!(out, [7.0, 10.0]);
        map.part(1..3).prepack().apply(&[0.0, 1.0], &mut out);
        assert_eq!(out, [4.0, 5.0]);
        // u = (1, 0) on outputs 1..3: dx = (3, 4), kept once
        let mut dx = vec![1.0, 1.0];
        map.part(1..3)
            .backward(&[1.0, 0.0], Begin::There, &mut dx, &mut workspace);
        assert_eq!(dx, [4.0, 5.0]);
        map.part(1..3)
            .backward(&[0.0, 1.0], Begin::Zero, &mut dx, &mut workspace);
        assert_eq!(dx, [5.0, 6.0]);
        // dW rows 1..3 = uᵀ x over two rows: u = (1, 2), (0, 1); x = (1, 1), (0, 3)
        let mut gradient = Linear::zeros(3, 2);
        gradient.add_gradient(1, &[1.0, 1.0, 0.0, 3.0], &[1.0, 2.0, 0.0, 1.0], 2, &mut workspace);
        assert_eq!(gradient.weight.as_slice(), [0.0, 0.0, 1.0, 1.0, 2.0, 5.0]);
        assert_eq!(gradient.bias, [0.0, 1.0, 3.0]);
    }
}
