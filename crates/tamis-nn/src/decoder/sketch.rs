//! Sketches of the gradients of single rows, without these gradients ever being made.
//!
//! A linear layer's gradient is G = Σ_t d_t x_tᵀ over a row's tokens, x being the layer's inputs and d the derivatives by its outputs. Its
//! sketch is
//!
//! ```text
//! A G Bᵀ = Σ_t (A d_t) (B x_t)ᵀ        A of shape (side, outputs), B of shape (side, inputs), entries ± 1 / √side
//! ```
//!
//! so that products of two rows' sketches have the products of their gradients as their mean over A and B. Layers below the first that is
//! sketched need no backward pass. Source: Woodruff 2014, section 2 (random signs); Xia et al. 2024, arXiv 2402.04333, section 3
//! (projected gradients of rows, there of adapters).

use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Matrix, Result, Seed,
    decoder::weights::{DecoderShape, Projection},
    kernels::causal_attention::Segment,
};

/// Which layers are sketched, and how finely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SketchSettings {
    /// How many layers, from the last one down. Default: 10.
    pub layers: usize,
    /// Numbers of a side: a linear layer has its square. Default: 8.
    pub side: usize,
    /// The linear layers of each. Default: value, output, up and down.
    pub target_modules: Vec<Projection>,
}

impl Default for SketchSettings {
    fn default() -> Self {
        Self {
            layers: 10,
            side: 8,
            target_modules: vec![Projection::Value, Projection::Output, Projection::Up, Projection::Down],
        }
    }
}

impl SketchSettings {
    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        if self.layers == 0 {
            return Err(Error::setting("sketch.layers", "a number above 0", "0"));
        }
        if self.side == 0 {
            return Err(Error::setting("sketch.side", "a number above 0", "0"));
        }
        if self.target_modules.is_empty() {
            return Err(Error::setting("sketch.target_modules", "at least one layer", "none"));
        }
        Ok(())
    }
}

/// The random matrices of a model's layers.
#[derive(Debug, Clone)]
pub struct GradientSketch {
    side: usize,
    /// The first layer that is sketched.
    first: usize,
    /// By layer from the first on, and by [`Projection`].
    layers: Vec<[Option<Sides>; 7]>,
    width: usize,
}

/// What one linear layer's gradient is multiplied by.
#[derive(Debug, Clone)]
pub struct Sides {
    /// Shape `(side, outputs)`.
    pub a: Matrix,
    /// Shape `(side, inputs)`.
    pub b: Matrix,
    /// Where its numbers begin in a row's sketch; they have shape `(side, side)`.
    pub at: usize,
}

impl GradientSketch {
    /// For a decoder of so many layers; one seed gives one sketch, whichever layers are asked for.
    pub fn new(shape: &DecoderShape, layers: usize, settings: &SketchSettings, seed: Seed) -> Self {
        let side = settings.side;
        let first = layers.saturating_sub(settings.layers);
        let mut width = 0;
        let mut sides = |l: usize, projection: Projection| {
            settings.target_modules.contains(&projection).then(|| {
                let [inputs, outputs] = projection.sizes(shape);
                let seed = seed.derive("sketch").index((l * 7 + projection as usize) as u64);
                let at = width;
                width += side * side;
                Sides {
                    a: signs(side, outputs, seed.derive("a")),
                    b: signs(side, inputs, seed.derive("b")),
                    at,
                }
            })
        };
        Self {
            side,
            first,
            layers: (first..layers)
                .map(|l| Projection::ALL.map(|projection| sides(l, projection)))
                .collect(),
            width,
        }
    }

    /// The numbers of a side of a linear layer's sketch.
    pub fn side(&self) -> usize {
        self.side
    }

    /// The numbers of a row's sketch.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The first layer that is sketched.
    pub fn first(&self) -> usize {
        self.first
    }

    /// The matrices of a linear layer, if it is sketched.
    pub fn sides(&self, l: usize, projection: Projection) -> Option<&Sides> {
        self.layers.get(l.checked_sub(self.first)?)?[projection as usize].as_ref()
    }

    /// The matrices of every linear layer that is sketched, with the layer.
    pub fn all_sides(&self) -> Vec<(usize, Projection, &Sides)> {
        let mut all = Vec::new();
        for (l, layer) in (self.first..).zip(&self.layers) {
            let sides = Projection::ALL.into_iter().zip(layer);
            all.extend(sides.filter_map(|(projection, sides)| Some((l, projection, sides.as_ref()?))));
        }
        all
    }

    /// Writes one linear layer's part of each segment's sketch, shape `(segments, width)`: `left` is A d and `right` B x of every token,
    /// shapes `(tokens, side)`.
    pub(crate) fn write(
        &self,
        sides: &Sides,
        left: &[f32],
        right: &[f32],
        segments: &[Segment],
        sketches: &mut Matrix,
    ) {
        let (side, width) = (self.side, self.width);
        sketches
            .as_mut_slice()
            .par_chunks_exact_mut(width)
            .zip(segments)
            .for_each(|(row, segment)| {
                let out = &mut row[sides.at..][..side * side];
                out.fill(0.0);
                let tokens = segment.tokens.start * side..segment.tokens.end * side;
                let pairs = left[tokens.clone()]
                    .chunks_exact(side)
                    .zip(right[tokens].chunks_exact(side));
                for (left, right) in pairs {
                    for (out, left) in out.chunks_exact_mut(side).zip(left) {
                        out.iter_mut().zip(right).for_each(|(out, right)| *out += left * right);
                    }
                }
            });
    }
}

/// A matrix of random signs over the root of its rows.
fn signs(rows: usize, cols: usize, seed: Seed) -> Matrix {
    let (mut rng, size) = (seed.rng(), 1.0 / (rows as f32).sqrt());
    let sign = |_| if rng.random::<bool>() { size } else { -size };
    Matrix::from_vec((0..rows * cols).map(sign).collect(), rows, cols)
}
