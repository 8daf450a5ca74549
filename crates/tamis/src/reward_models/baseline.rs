//! The mean and spread of rewards, or of returns, at each depth of an episode.
//!
//! First steps earn a hundred times what the last ones do. A network that learned raw rewards would only learn how deep a step is.
//! Standardised by depth, the differences between actions count alike at every step.

/// Running moments by depth.
#[derive(Debug, Clone, Default)]
pub(crate) struct DepthBaseline {
    /// Count, mean and sum of squared deviations of the values at each depth (Welford 1962).
    depths: Vec<(f64, f64, f64)>,
}

impl DepthBaseline {
    /// Whether no value was added yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.depths.is_empty()
    }

    /// Adds a value at a depth.
    pub(crate) fn add(&mut self, depth: usize, value: f64) {
        if self.depths.len() <= depth {
            self.depths.resize(depth + 1, (0.0, 0.0, 0.0));
        }
        let (count, mean, squares) = &mut self.depths[depth];
        *count += 1.0;
        let deviation = value - *mean;
        *mean += deviation / *count;
        *squares += deviation * (value - *mean);
    }

    /// Mean and standard deviation at a depth, or at the last depth before it that has values; 1 in place of a deviation of 0.
    pub(crate) fn at(&self, depth: usize) -> (f64, f64) {
        let last = self
            .depths
            .iter()
            .take(depth + 1)
            .rev()
            .find(|(count, ..)| *count > 0.0);
        let &(count, mean, squares) = last.unwrap_or(&(1.0, 0.0, 0.0));
        let spread = (squares / count).sqrt();
        (mean, if spread.is_normal() { spread } else { 1.0 })
    }

    /// A value less the mean, over the standard deviation.
    pub(crate) fn standardise(&self, depth: usize, value: f64) -> f32 {
        let (mean, spread) = self.at(depth);
        ((value - mean) / spread) as f32
    }

    /// The inverse of [`DepthBaseline::standardise`].
    pub(crate) fn restore(&self, depth: usize, value: f32) -> f64 {
        let (mean, spread) = self.at(depth);
        mean + spread * f64::from(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_worked_by_hand() {
        let mut baseline = DepthBaseline::default();
        for value in [1.0, 3.0] {
            baseline.add(1, value);
        }
        assert_eq!(baseline.at(1), (2.0, 1.0));
        assert_eq!(baseline.standardise(1, 3.5), 1.5);
        assert_eq!(baseline.restore(1, 1.5), 3.5);
        // nothing at depth 0; depth 9 is as the deepest seen
        assert_eq!((baseline.at(0), baseline.at(9)), ((0.0, 1.0), (2.0, 1.0)));
        baseline.add(2, 7.0);
        assert_eq!(baseline.at(2), (7.0, 1.0));
    }
}
