//! Which rows of the pool an agent chooses among.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which rows of the pool an agent chooses among: all, or only the most relevant ones, suspected label errors last.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CandidateSet {
    /// Those in the domain of the validation rows where these differ from the pool, else all.
    #[default]
    Auto,
    /// All.
    All,
    /// As many as are at least as relevant as half of the validation rows, no fewer than two budgets pay for, and of each label no fewer
    /// than a choice may want: an even share of a budget under macro-F1, else the label's share of the reward fold.
    InDomain,
    /// As many as so many budgets pay for, at least one.
    Budgets(f64),
}

impl FromStr for CandidateSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "all" => Ok(Self::All),
            "in-domain" => Ok(Self::InDomain),
            _ => text
                .strip_suffix('x')
                .and_then(|times| times.parse().ok())
                .filter(|&times: &f64| times >= 1.0 && times.is_finite())
                .map(Self::Budgets)
                .ok_or_else(|| {
                    let expected = "auto, all, in-domain, or a number of budgets from 1, as in 2x";
                    Error::setting("candidates", expected, format!("`{text}`"))
                }),
        }
    }
}

impl fmt::Display for CandidateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::All => f.write_str("all"),
            Self::InDomain => f.write_str("in-domain"),
            Self::Budgets(times) => write!(f, "{times}x"),
        }
    }
}

impl TryFrom<String> for CandidateSet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<CandidateSet> for String {
    fn from(candidates: CandidateSet) -> Self {
        candidates.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_printed_and_less_than_a_budget_is_refused() {
        for text in ["auto", "all", "in-domain", "1x", "2.5x"] {
            assert_eq!(text.parse::<CandidateSet>().expect("is known").to_string(), text);
        }
        for text in ["0.5x", "-2x", "NaNx", "infx", "2", "most", ""] {
            assert!(text.parse::<CandidateSet>().is_err(), "{text}");
        }
    }
}
