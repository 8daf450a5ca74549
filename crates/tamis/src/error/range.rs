//! The check that a numeric setting lies in its range, with the range in the message.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
};

use crate::{Error, Result};

/// A number that a setting may hold.
pub(crate) trait Number: Copy + PartialOrd + fmt::Display {
    /// Whether it is neither infinite nor NaN; integers always are.
    fn finite(self) -> bool {
        true
    }
}

impl Number for u32 {}
impl Number for u64 {}
impl Number for usize {}

impl Number for f32 {
    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Number for f64 {
    fn finite(self) -> bool {
        self.is_finite()
    }
}

/// Passes a finite `value` that lies in `range`.
///
/// # Errors
///
/// Otherwise; the message names the setting, the range and the value.
pub(crate) fn check<T: Number>(setting: impl Into<String>, value: T, range: impl RangeBounds<T>) -> Result<()> {
    if value.finite() && range.contains(&value) {
        Ok(())
    } else {
        Err(Error::setting(setting, expected(&range), value.to_string()))
    }
}

/// The range of all numbers above `low`.
pub(crate) fn above<T>(low: T) -> (Bound<T>, Bound<T>) {
    (Bound::Excluded(low), Bound::Unbounded)
}

fn expected<T: Number>(range: &impl RangeBounds<T>) -> String {
    match (range.start_bound(), range.end_bound()) {
        (Bound::Included(low), Bound::Included(high)) => format!("from {low} to {high}"),
        (Bound::Included(low), Bound::Excluded(high)) => format!("from {low} and below {high}"),
        (Bound::Excluded(low), Bound::Included(high)) => format!("above {low} and at most {high}"),
        (Bound::Excluded(low), Bound::Excluded(high)) => format!("above {low} and below {high}"),
        (Bound::Included(low), Bound::Unbounded) => format!("a number of at least {low}"),
        (Bound::Excluded(low), Bound::Unbounded) => format!("a number above {low}"),
        (Bound::Unbounded, Bound::Included(high)) => format!("at most {high}"),
        (Bound::Unbounded, Bound::Excluded(high)) => format!("below {high}"),
        (Bound::Unbounded, Bound::Unbounded) => "a finite number".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_range_is_named_with_the_range() {
        let shown = |result: Result<()>| result.expect_err("out of range").to_string();
        assert_eq!(
            shown(check("x.n", 0, 1..=9_usize)),
            "x.n: expected from 1 to 9, found 0"
        );
        assert_eq!(
            shown(check("x.a", 0.0, above(0.0))),
            "x.a: expected a number above 0, found 0"
        );
        assert_eq!(
            shown(check("x.b", -0.5f32, 0.0..)),
            "x.b: expected a number of at least 0, found -0.5"
        );
        assert_eq!(
            shown(check("x.c", 1.5, (Bound::Excluded(0.0), Bound::Included(1.0)))),
            "x.c: expected above 0 and at most 1, found 1.5"
        );
    }

    #[test]
    fn bounds_count_as_written_and_no_range_holds_nan_or_infinity() {
        assert!(check("x", 1, 1..=9_u64).is_ok() && check("x", 9, 1..=9_u64).is_ok());
        assert!(check("x", 1.0, 0.0..1.0).is_err());
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(check("x", value, ..).is_err() && check("x", value, above(0.0)).is_err());
        }
    }
}
