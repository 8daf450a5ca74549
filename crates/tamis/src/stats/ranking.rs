//! Rows in the order of a value, in random order, or a random sample of them.

use std::cmp::Ordering;

use rand::seq::{SliceRandom, index};
use tamis_nn::Seed;

/// The greater value ranks higher; of equal ones, the lower row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranked {
    pub(crate) value: f64,
    pub(crate) row: u32,
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

/// The rows by falling value, ties by number.
pub(crate) fn falling(values: &[f32]) -> Vec<u32> {
    rising(values.len(), |row| -values[row])
}

/// The rows by rising key, ties by number.
pub(crate) fn rising(rows: usize, key: impl Fn(usize) -> f32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..rows as u32).collect();
    order.sort_by(|&a, &b| key(a as usize).total_cmp(&key(b as usize)));
    order
}

/// The numbers below `rows` in random order.
pub(crate) fn shuffled(rows: usize, seed: Seed) -> Vec<u32> {
    let mut order: Vec<u32> = (0..rows as u32).collect();
    order.shuffle(&mut seed.rng());
    order
}

/// All numbers below `rows`, or `most` of them at random; ascending.
pub(crate) fn sample(rows: usize, most: usize, seed: Seed) -> Vec<u32> {
    if rows <= most {
        return (0..rows as u32).collect();
    }
    let mut sample: Vec<u32> = index::sample(&mut seed.rng(), rows, most)
        .iter()
        .map(|row| row as u32)
        .collect();
    sample.sort_unstable();
    sample
}
