//! What rewards rows of responses: a fine-tune of a language model, approximated in closed form from sketches of single rows' gradients.

pub mod basis;
pub mod gradient_data;
pub mod probe;
pub mod subspace;

use serde::{Deserialize, Serialize};
use tamis_nn::decoder::SketchSettings;

use crate::{Error, Result};

/// How gradients of rows are told, and how far a step on them goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GradientSettings {
    /// What is kept of a row's gradient.
    pub sketch: SketchSettings,
    /// In how many directions gradients are compared at most. Default: 256.
    pub directions: usize,
    /// What holds a step back, in mean eigenvalues of the pool's gradients: the higher, the shorter the step, and the less rows differ by
    /// their curvature. Default: 10.
    pub damping: f64,
}

impl Default for GradientSettings {
    fn default() -> Self {
        Self {
            sketch: SketchSettings::default(),
            directions: 256,
            damping: 10.0,
        }
    }
}

impl GradientSettings {
    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        self.sketch.check()?;
        if self.directions == 0 {
            return Err(Error::setting("gradients.directions", "a number above 0", "0"));
        }
        if !(self.damping.is_finite() && self.damping > 0.0) {
            let found = self.damping.to_string();
            return Err(Error::setting("gradients.damping", "a number above 0", found));
        }
        Ok(())
    }
}
