//! A row with the value that it is ranked by.

use std::cmp::Ordering;

/// The greater value ranks higher; of equal ones, the lower row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranked {
    pub(super) value: f64,
    pub(super) row: u32,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.total_cmp(&other.value).then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}
