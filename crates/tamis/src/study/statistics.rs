//! Means over seeds, how far they can be trusted, and whether a method beats random rows.

use serde::{Deserialize, Serialize};

/// A mean over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// The standard deviation (over n - 1); 0 of one value.
    pub sd: f64,
    /// Where 95% of the bootstrapped means lie.
    pub low: f64,
    /// See `low`.
    pub high: f64,
}

/// A method's scores less those of random rows with the same seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// The mean difference.
    pub mean: f64,
    /// Where 95% of the bootstrapped mean differences lie.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// The two-sided p-value of a paired t-test; none with fewer than two seeds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p: Option<f64>,
}
