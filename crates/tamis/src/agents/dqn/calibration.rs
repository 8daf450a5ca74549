//! How far to believe predicted differences between the futures of two actions.

/// The regression slope, through the origin, of what followed on what was predicted.
///
/// A return is the final score less the present one. What an action earns now is mostly what can no longer be earned later, so the
/// futures of two actions differ far less than the network errs. Used as they are, its predictions make choices worse than greedy
/// ones; scaled by this slope they do not.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FutureCalibration {
    /// Sum of the products of predicted and actual differences.
    covariance: f64,
    /// Sum of the squares of predicted differences.
    variance: f64,
}

impl FutureCalibration {
    /// Adds one pair: how much better than the mean action's the future was predicted to be, and how much better than the
    /// baseline it was.
    pub(crate) fn add(&mut self, predicted: f64, actual: f64) {
        self.covariance += predicted * actual;
        self.variance += predicted * predicted;
    }

    /// What a predicted difference is multiplied by, 0 to 1; 0 before the first prediction.
    pub(crate) fn slope(&self) -> f64 {
        if self.variance > 0.0 {
            (self.covariance / self.variance).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_worked_by_hand() {
        let mut calibration = FutureCalibration::default();
        assert_eq!(calibration.slope(), 0.0);
        // (1 · 1 + 2 · 0) / (1² + 2²)
        calibration.add(1.0, 1.0);
        calibration.add(2.0, 0.0);
        assert!((calibration.slope() - 0.2).abs() < 1e-12);
        calibration.add(1.0, -9.0);
        assert_eq!(calibration.slope(), 0.0);
        calibration.add(1.0, 90.0);
        assert_eq!(calibration.slope(), 1.0);
    }
}
