//! In which order a cluster gives its rows.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// In which order the rows of a cluster are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowOrder {
    /// By relevance where validation rows differ from the pool, else by coverage.
    #[default]
    Auto,
    /// The most like the validation rows, and unlike the pool, first.
    Relevance,
    /// The most like the whole cluster first: facility location.
    Coverage,
    /// At random.
    Random,
}

impl FromStr for RowOrder {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "relevance" => Ok(Self::Relevance),
            "coverage" => Ok(Self::Coverage),
            "random" => Ok(Self::Random),
            _ => Err(Error::setting(
                "row_order",
                "auto, relevance, coverage or random",
                format!("`{text}`"),
            )),
        }
    }
}
