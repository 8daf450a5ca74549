//! How much may be chosen: a share of the rows, a number of rows, or a number of tokens.

mod random_rows;
mod tracker;

pub(crate) use random_rows::not_for_a_row;
pub use random_rows::{limit_of, random_control, random_rows, tokens_of};
pub use tracker::BudgetTracker;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What the user asked for.
///
/// ```
/// use tamis::budget::{Budget, Limit};
///
/// let budget: Budget = "5%".parse()?;
/// assert_eq!(budget.resolve(20_000, 1_300_000)?, Limit::Rows(1000));
/// assert_eq!("200k tokens".parse::<Budget>()?, Budget::Tokens(200_000));
/// # Ok::<(), tamis::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Budget {
    /// A share of the pool's rows, in percent.
    Percent(f64),
    /// A number of rows.
    Rows(u64),
    /// A number of tokens, as the embedder counts them.
    Tokens(u64),
}

/// A budget made concrete for one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// At most this many rows; met exactly.
    Rows(u64),
    /// At most this many tokens; met to the row.
    Tokens(u64),
}

impl Limit {
    /// Whether it is enough for so many rows of so many tokens in all.
    pub(crate) fn pays_for(self, rows: u64, tokens: u64) -> bool {
        match self {
            Self::Rows(most) => rows <= most,
            Self::Tokens(most) => tokens <= most,
        }
    }

    /// So many times as much, rounded down.
    #[must_use]
    pub fn times(self, times: f64) -> Self {
        let of = |limit: u64| (times * limit as f64) as u64;
        match self {
            Self::Rows(rows) => Self::Rows(of(rows)),
            Self::Tokens(tokens) => Self::Tokens(of(tokens)),
        }
    }
}

impl Budget {
    /// The limit on a pool of `rows` rows and `tokens` tokens; a percentage is rounded to the nearest row, at least one.
    ///
    /// # Errors
    ///
    /// If the budget is larger than the pool.
    pub fn resolve(self, rows: u64, tokens: u64) -> Result<Limit> {
        let (limit, asked, have, unit) = match self {
            Self::Percent(percent) => {
                let asked = ((rows as f64 * percent / 100.0).round() as u64).max(1);
                (Limit::Rows(asked), asked, rows, "rows")
            }
            Self::Rows(asked) => (Limit::Rows(asked), asked, rows, "rows"),
            Self::Tokens(asked) => (Limit::Tokens(asked), asked, tokens, "tokens"),
        };
        if asked > have {
            return Err(Error::setting(
                "budget",
                format!("at most the {have} {unit} of the pool"),
                format!("`{self}`"),
            )
            .with_hint("a budget is a share of the training rows, such as `5%`, or a number of rows or tokens"));
        }
        Ok(limit)
    }
}

impl FromStr for Budget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::setting(
                "budget",
                "a percentage above 0% and up to 100%, a number of rows, or a number of tokens",
                format!("`{text}`"),
            )
            .with_hint("write it as `5%`, `1000` or `\"200k tokens\"`")
        };
        let trimmed = text.trim();
        if let Some(number) = trimmed.strip_suffix('%') {
            let percent: f64 = number.trim().parse().map_err(|_| wrong())?;
            return if percent > 0.0 && percent <= 100.0 {
                Ok(Self::Percent(percent))
            } else {
                Err(wrong())
            };
        }
        let (number, tokens) = match (trimmed.strip_suffix("tokens"), trimmed.strip_suffix("rows")) {
            (Some(number), _) => (number, true),
            (None, Some(number)) => (number, false),
            (None, None) => (trimmed, false),
        };
        let count = parse_count(number.trim())
            .filter(|&count| count > 0)
            .ok_or_else(wrong)?;
        Ok(if tokens { Self::Tokens(count) } else { Self::Rows(count) })
    }
}

/// A whole number, with `_` between digits and the suffixes k, M and G (thousand, million, thousand million) allowed.
fn parse_count(text: &str) -> Option<u64> {
    let (digits, unit) = match text.chars().last()? {
        'k' | 'K' => (&text[..text.len() - 1], 1e3),
        'm' | 'M' => (&text[..text.len() - 1], 1e6),
        'g' | 'G' => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let number: f64 = digits.trim().replace('_', "").parse().ok()?;
    let count = number * unit;
    (count.is_finite() && count >= 0.0 && count.fract() == 0.0 && count < 2f64.powi(53)).then_some(count as u64)
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Rows(rows) => write!(f, "{rows}"),
            Self::Tokens(tokens) => write!(f, "{tokens} tokens"),
        }
    }
}

impl TryFrom<String> for Budget {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> Self {
        budget.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_a_budget() {
        for (text, want) in [
            ("5%", Budget::Percent(5.0)),
            (" 0.5 % ", Budget::Percent(0.5)),
            ("1000", Budget::Rows(1000)),
            ("1_000 rows", Budget::Rows(1000)),
            ("200k tokens", Budget::Tokens(200_000)),
            ("1.5M tokens", Budget::Tokens(1_500_000)),
        ] {
            assert_eq!(text.parse::<Budget>().expect(text), want);
            assert_eq!(
                want.to_string().parse::<Budget>().expect("what is shown can be read"),
                want
            );
        }
    }

    #[test]
    fn budgets_that_mean_nothing_are_refused() {
        for text in [
            "", "0", "0%", "-5%", "101%", "NaN%", "1.5", "five", "5 %%", "0 tokens", "é", "1e300",
        ] {
            assert!(text.parse::<Budget>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn a_share_is_rounded_to_rows_and_never_to_none() {
        // 5% of 62129 = 3106.45; 1% of 12 = 0.12
        assert_eq!(
            Budget::Percent(5.0).resolve(62_129, 0).expect("fits"),
            Limit::Rows(3106)
        );
        assert_eq!(Budget::Percent(1.0).resolve(12, 0).expect("fits"), Limit::Rows(1));
        assert!(Budget::Rows(13).resolve(12, 0).is_err());
        assert!(Budget::Tokens(100).resolve(12, 99).is_err());
    }
}
