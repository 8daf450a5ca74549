//! Low-rank adapters: what is trained in place of a linear layer's weights.
//!
//! ```text
//! y = x Wᵀ + b + (α / r) dropout(x) Aᵀ Bᵀ        A of shape (r, inputs), B of shape (outputs, r)
//! ```
//!
//! Source: Hu et al. 2021, section 4.1, with peft's beginnings: A uniform within 1 / √inputs (Kaiming's with a = √5), B zero.

use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Matrix, Result, Seed,
    decoder::weights::{DecoderWeights, NamedTensor, Projection, push_matrix},
    kernels::product::{Layout, product},
};

/// What is adapted, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSettings {
    /// The rank of an adapter. Default: 16.
    pub rank: usize,
    /// What an adapter's output is multiplied by, times the rank. Default: 32.
    pub alpha: f32,
    /// The share of an adapter's inputs that is dropped in training. Default: 0.
    pub dropout: f32,
    /// The linear layers that get one. Default: all seven.
    pub target_modules: Vec<Projection>,
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            dropout: 0.0,
            target_modules: Projection::ALL.to_vec(),
        }
    }
}

impl LoraSettings {
    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::setting("lora_rank", "a number above 0", "0"));
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(Error::setting("lora_alpha", "a number above 0", self.alpha.to_string()));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let found = self.dropout.to_string();
            return Err(Error::setting("lora_dropout", "a share from 0 to below 1", found));
        }
        if self.target_modules.is_empty() {
            return Err(Error::setting(
                "lora_target_modules",
                "at least one linear layer",
                "none",
            ));
        }
        Ok(())
    }

    /// What an adapter's output is multiplied by.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }
}

/// One linear layer's adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Shape `(rank, inputs)`.
    pub a: Matrix,
    /// Shape `(outputs, rank)`.
    pub b: Matrix,
}

/// A model's adapters.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// What is adapted, and how.
    pub settings: LoraSettings,
    /// Layer by layer, by [`Projection`].
    pub layers: Vec<[Option<Adapter>; 7]>,
}

impl Lora {
    /// Adapters that change nothing yet.
    pub fn new(weights: &DecoderWeights, settings: &LoraSettings, seed: Seed) -> Self {
        let adapter = |l: usize, projection: Projection| {
            let [inputs, outputs] = projection.sizes(&weights.shape);
            let place = (l * Projection::ALL.len() + projection as usize) as u64;
            let mut rng = seed.derive("lora").index(place).rng();
            let bound = 1.0 / (inputs as f32).sqrt();
            let a = (0..settings.rank * inputs)
                .map(|_| rng.random_range(-bound..bound))
                .collect();
            Adapter {
                a: Matrix::from_vec(a, settings.rank, inputs),
                b: Matrix::zeros(outputs, settings.rank),
            }
        };
        let layer = |l: usize| {
            Projection::ALL.map(|projection| {
                settings
                    .target_modules
                    .contains(&projection)
                    .then(|| adapter(l, projection))
            })
        };
        Self {
            settings: settings.clone(),
            layers: (0..weights.layers.len()).map(layer).collect(),
        }
    }

    /// Adapters of zeros, of these ones' shapes: what a gradient is added up in.
    pub fn zeros_like(&self) -> Self {
        let zeros = |matrix: &Matrix| Matrix::zeros(matrix.rows(), matrix.cols());
        let adapter = |adapter: &Adapter| Adapter {
            a: zeros(&adapter.a),
            b: zeros(&adapter.b),
        };
        let layer = |layer: &[Option<Adapter>; 7]| layer.each_ref().map(|one| one.as_ref().map(adapter));
        Self {
            settings: self.settings.clone(),
            layers: self.layers.iter().map(layer).collect(),
        }
    }

    /// Every tensor, in a fixed order, by the name that peft gives it.
    pub fn tensors_mut(&mut self) -> Vec<NamedTensor<'_>> {
        let mut tensors = Vec::new();
        for (l, layer) in self.layers.iter_mut().enumerate() {
            for (projection, adapter) in Projection::ALL.into_iter().zip(layer) {
                let Some(Adapter { a, b }) = adapter else { continue };
                let name = format!("base_model.model.model.layers.{l}.{}", projection.path());
                push_matrix(&mut tensors, format!("{name}.lora_A.weight"), a);
                push_matrix(&mut tensors, format!("{name}.lora_B.weight"), b);
            }
        }
        tensors
    }

    /// Adds what the adapters make of an input to the weights themselves: `W += (α / r) B A`.
    pub fn merge_into(&self, weights: &mut DecoderWeights) {
        let scale = self.settings.scale();
        for (layer, adapters) in weights.layers.iter_mut().zip(&self.layers) {
            for (linear, adapter) in layer.projections.iter_mut().zip(adapters) {
                let Some(Adapter { a, b }) = adapter else { continue };
                let scaled: Vec<f32> = b.as_slice().iter().map(|x| x * scale).collect();
                let shape = (b.rows(), b.cols(), a.cols());
                let weight = linear.weight.as_mut_slice();
                product(weight, shape, &scaled, Layout::Plain, a.as_slice(), Layout::Plain, 1.0);
            }
        }
    }
}
