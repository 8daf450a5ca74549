//! Which examples a model is trained or scored on.

use crate::train::{batch::TokenizedSplit, frozen_cache::FrozenLayerCache};

/// Some examples of a split.
#[derive(Clone, Copy)]
pub struct Examples<'a> {
    /// The split.
    pub split: &'a TokenizedSplit,
    /// Which of its examples.
    pub rows: &'a [u32],
    /// The output of the frozen layers for this split, where layers are frozen.
    pub frozen: Option<&'a FrozenLayerCache>,
}

impl<'a> Examples<'a> {
    /// Examples for a model of which nothing is frozen.
    pub fn new(split: &'a TokenizedSplit, rows: &'a [u32]) -> Self {
        Self {
            split,
            rows,
            frozen: None,
        }
    }

    /// The right answers, in the examples' order.
    pub fn classes(self) -> Vec<u32> {
        self.split.classes_of(self.rows)
    }
}
