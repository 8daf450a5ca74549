//! Which rows of the pool an agent chooses among.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which rows of the pool an agent chooses among: all, or only the most relevant ones, those whose answers are doubted last.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Within {
    /// The typical ones where validation rows can be told from the pool, else all.
    #[default]
    Auto,
    /// All.
    All,
    /// As many as are at least as relevant as half of the validation rows, no fewer than two budgets pay for, and of each label no fewer
    /// than a choice may want: an even share of a budget under macro-F1, else the label's share of the reward fold.
    Typical,
    /// As many as so many budgets pay for, at least one.
    Budgets(f64),
}

impl FromStr for Within {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "all" => Ok(Self::All),
            "typical" => Ok(Self::Typical),
            _ => text
                .parse()
                .ok()
                .filter(|&times: &f64| times >= 1.0 && times.is_finite())
                .map(Self::Budgets)
                .ok_or_else(|| {
                    let expected = "auto, all, typical, or a number of budgets from 1";
                    Error::setting("--within", expected, format!("`{text}`"))
                }),
        }
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::All => f.write_str("all"),
            Self::Typical => f.write_str("typical"),
            Self::Budgets(times) => write!(f, "{times}"),
        }
    }
}

impl TryFrom<String> for Within {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Within> for String {
    fn from(within: Within) -> Self {
        within.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_printed_and_less_than_a_budget_is_refused() {
        for text in ["auto", "all", "typical", "1", "2.5"] {
            assert_eq!(text.parse::<Within>().expect("is known").to_string(), text);
        }
        for text in ["0.5", "-2", "NaN", "inf", "most", ""] {
            assert!(text.parse::<Within>().is_err(), "{text}");
        }
    }
}
