//! What is trained of an encoder: its tensors in a fixed order, and their gradient in the same.

use crate::{
    Matrix,
    encoder::weights::{EncoderWeights, Layer, LayerNorm},
};

/// Tensors to be trained, each with whether weight decay is for it.
pub type Trained<'a> = Vec<(&'a mut [f32], bool)>;

impl EncoderWeights {
    /// The word vectors, where they are trained, and all other trained tensors in a fixed order.
    pub fn trained_mut(&mut self, frozen: Option<usize>) -> (Option<&mut [f32]>, Trained<'_>) {
        let mut dense: Trained<'_> = Vec::new();
        let mut words = None;
        if frozen.is_none() {
            words = Some(self.token_embeddings.as_mut_slice());
            dense.extend([
                (self.position_embeddings.as_mut_slice(), true),
                (self.token_type_embeddings.as_mut_slice(), true),
                (&mut self.norm.weight, false),
                (&mut self.norm.bias, false),
            ]);
        }
        dense.extend(self.layers[frozen.unwrap_or(0)..].iter_mut().flat_map(layer_tensors));
        (words, dense)
    }
}

/// The gradient of an encoder's trained parameters.
#[derive(Debug, Clone)]
pub struct EncoderGradient {
    /// Of the word vectors.
    pub token_embeddings: RowGradient,
    /// Of the position vectors; zero where embeddings are frozen, and so on.
    pub position_embeddings: Matrix,
    /// Of the type vectors.
    pub token_type_embeddings: Matrix,
    /// Of the norm over the embeddings.
    pub norm: LayerNorm,
    /// Of the trained layers, lowest first.
    pub layers: Vec<Layer>,
    frozen: Option<usize>,
}

/// The gradient of a table of which a batch reads few rows: only those are kept.
#[derive(Debug, Clone, Default)]
pub struct RowGradient {
    /// Where a row's gradient is, plus 1; 0: nowhere. Shape `(table rows,)`.
    slots: Vec<u32>,
    rows: Vec<u32>,
    values: Vec<f32>,
    cols: usize,
}

impl RowGradient {
    fn new(rows: usize, cols: usize) -> Self {
        Self {
            slots: vec![0; rows],
            rows: Vec::new(),
            values: Vec::new(),
            cols,
        }
    }

    pub(crate) fn add(&mut self, row: u32, gradient: &[f32]) {
        let slot = &mut self.slots[row as usize];
        if *slot == 0 {
            self.rows.push(row);
            *slot = self.rows.len() as u32;
            self.values.extend_from_slice(gradient);
        } else {
            let at = (*slot as usize - 1) * self.cols;
            let sum = &mut self.values[at..at + self.cols];
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
        }
    }

    /// The rows that have a gradient, in the order in which they came.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Their gradients, shape `(rows.len(), cols)`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Back to zero.
    pub fn clear(&mut self) {
        for &row in &self.rows {
            self.slots[row as usize] = 0;
        }
        self.rows.clear();
        self.values.clear();
    }
}

impl EncoderGradient {
    /// A gradient of zeros; `frozen`: embeddings and that many layers, the lowest, are not trained.
    pub fn zeros(weights: &EncoderWeights, frozen: Option<usize>) -> Self {
        let hidden = weights.shape.hidden;
        let norm = || LayerNorm {
            weight: vec![0.0; hidden],
            bias: vec![0.0; hidden],
        };
        let rows = |matrix: &Matrix| if frozen.is_some() { 0 } else { matrix.rows() };
        Self {
            token_embeddings: RowGradient::new(rows(&weights.token_embeddings), hidden),
            position_embeddings: Matrix::zeros(rows(&weights.position_embeddings), hidden),
            token_type_embeddings: Matrix::zeros(rows(&weights.token_type_embeddings), hidden),
            norm: norm(),
            layers: weights.layers[frozen.unwrap_or(0)..]
                .iter()
                .map(|layer| Layer {
                    qkv: layer.qkv.zeros_like(),
                    attention_output: layer.attention_output.zeros_like(),
                    attention_norm: norm(),
                    intermediate: layer.intermediate.zeros_like(),
                    output: layer.output.zeros_like(),
                    output_norm: norm(),
                })
                .collect(),
            frozen,
        }
    }

    /// All but the word vectors', in the order of [`EncoderWeights::trained_mut`].
    pub fn dense_mut(&mut self) -> Vec<&mut [f32]> {
        let mut parts: Vec<&mut [f32]> = Vec::new();
        if self.frozen.is_none() {
            parts.extend([
                self.position_embeddings.as_mut_slice(),
                self.token_type_embeddings.as_mut_slice(),
            ]);
            parts.extend([&mut self.norm.weight[..], &mut self.norm.bias[..]]);
        }
        let layers = self.layers.iter_mut().flat_map(layer_tensors);
        parts.extend(layers.map(|(part, _)| part));
        parts
    }
}

/// A layer's tensors, and whether weight decay is for them.
fn layer_tensors(layer: &mut Layer) -> [(&mut [f32], bool); 12] {
    [
        (layer.qkv.weight.as_mut_slice(), true),
        (&mut layer.qkv.bias, false),
        (layer.attention_output.weight.as_mut_slice(), true),
        (&mut layer.attention_output.bias, false),
        (&mut layer.attention_norm.weight, false),
        (&mut layer.attention_norm.bias, false),
        (layer.intermediate.weight.as_mut_slice(), true),
        (&mut layer.intermediate.bias, false),
        (layer.output.weight.as_mut_slice(), true),
        (&mut layer.output.bias, false),
        (&mut layer.output_norm.weight, false),
        (&mut layer.output_norm.bias, false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_add_up_in_the_order_in_which_they_came() {
        let mut gradient = RowGradient::new(5, 2);
        for _ in 0..2 {
            gradient.add(4, &[1.0, 2.0]);
            gradient.add(0, &[3.0, 0.5]);
            gradient.add(4, &[10.0, 20.0]);
            assert_eq!(gradient.rows(), [4, 0]);
            assert_eq!(gradient.values(), [11.0, 22.0, 3.0, 0.5]);
            gradient.clear();
            assert!(gradient.rows().is_empty() && gradient.values().is_empty());
        }
    }
}
