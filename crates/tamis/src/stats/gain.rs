//! Means over seeds, how far they can be trusted, and whether a method beats random rows.
//!
//! Intervals are percentiles of a bootstrap over seeds (Efron & Tibshirani 1993, section 13.3); p-values are those of a paired
//! two-sided t-test (Student 1908), adjusted over the methods of a table as Holm 1979 does it. Few seeds make wide intervals and
//! large p-values, and both are what there is to know.

use rand::RngExt;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};
use tamis_nn::seed::Seed;

use crate::stats::power::mean_and_sd;

/// How many times the seeds are drawn again.
const RESAMPLES: usize = 2000;
/// How many resamples lie outside the interval at each end: 2.5%.
const OUTSIDE: usize = RESAMPLES / 40;
/// What is less is what sums of scores are rounded by.
const ROUNDING: f64 = 1e-12;

/// A mean over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// The standard deviation (over n - 1); 0 of one value.
    pub sd: f64,
    /// Where 95% of the bootstrapped means lie.
    pub low: f64,
    /// See `low`.
    pub high: f64,
}

/// A method's scores less those of random rows with the same seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// The mean difference.
    pub mean: f64,
    /// Where 95% of the bootstrapped mean differences lie.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// The two-sided p-value of a paired t-test; none with fewer than two seeds, nor where all have the same difference, which says
    /// nothing of how far chance moves it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p: Option<f64>,
    /// The same, adjusted by Holm's method for all the methods that are tested at this budget.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub adjusted: Option<f64>,
}

impl Summary {
    /// Of these values, at least one.
    pub fn of(values: &[f64]) -> Self {
        let (mean, sd) = mean_and_sd(values);
        let (low, high) = interval(values);
        Self { mean, sd, low, high }
    }

    /// Of several values a seed: mean and deviation over all of them, the interval over seeds.
    pub fn of_draws(seeds: &[Vec<f64>]) -> Self {
        let (mean, sd) = mean_and_sd(&seeds.concat());
        let means: Vec<f64> = seeds.iter().map(|draws| mean_and_sd(draws).0).collect();
        let (low, high) = interval(&means);
        Self { mean, sd, low, high }
    }
}

/// A p-value with as many digits as it deserves: `p = 0.012`, `p < 0.001`.
pub fn p_value(p: f64) -> String {
    let equal = if p < 0.001 { "" } else { "= " };
    format!("p {equal}{}", p_number(p))
}

/// The same in a column of its own: `0.012`, `< 0.001`.
pub fn p_number(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

impl Gain {
    /// Of these differences, one a seed, at least one.
    pub fn of(differences: &[f64]) -> Self {
        let (mean, sd) = mean_and_sd(differences);
        let (low, high) = interval(differences);
        let n = differences.len() as f64;
        let p = if sd >= ROUNDING {
            let t = mean / (sd / n.sqrt());
            // The freedom is at least one, so there is such a distribution.
            Some(StudentsT::new(0.0, 1.0, n - 1.0).map_or(1.0, |student| 2.0 * student.sf(t.abs())))
        } else {
            (differences.len() > 1 && mean.abs() < ROUNDING).then_some(1.0)
        };
        Self {
            mean,
            low,
            high,
            p,
            adjusted: None,
        }
    }
}

/// Holm's step-down adjustment: the least p-value times their number, the next times one fewer, and so on, never falling.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut least: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        least = least.max(p[i] * (p.len() - rank) as f64).min(1.0);
        adjusted[i] = least;
    }
    adjusted
}

/// Where 95% of the bootstrapped means lie. The resamples are the same for every list of a length.
fn interval(values: &[f64]) -> (f64, f64) {
    let mut rng = Seed(0).derive("study").rng();
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn = (0..values.len()).map(|_| values[rng.random_range(0..values.len())]);
            drawn.sum::<f64>() / values.len() as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    (means[OUTSIDE], means[means.len() - 1 - OUTSIDE])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn a_paired_test_is_that_of_the_tables() {
        // scipy.stats.ttest_1samp([0.1, 0.3, 0.2, 0.4], 0): statistic 3.872983346207417, pvalue 0.030466291662170977
        let gain = Gain::of(&[0.1, 0.3, 0.2, 0.4]);
        close(gain.mean, 0.25);
        close(gain.p.expect("four seeds"), 0.030_466_291_662_170_977);
        // One seed tells nothing of chance, nor do seeds that do not vary; no spread and no difference is the surest nothing.
        assert_eq!(Gain::of(&[0.5]).p, None);
        assert_eq!(Gain::of(&[0.3 - 0.1, 0.2, 0.5 - 0.3]).p, None);
        assert_eq!(Gain::of(&[0.0, 0.0]).p, Some(1.0));
    }

    #[test]
    fn summaries_are_worked_by_hand() {
        let summary = Summary::of(&[1.0, 2.0, 3.0]);
        assert_eq!((summary.mean, summary.sd), (2.0, 1.0));
        assert!(summary.low >= 1.0 && summary.low < 2.0 && summary.high > 2.0 && summary.high <= 3.0);
        // Two draws of a seed are two values and one mean.
        let draws = Summary::of_draws(&[vec![1.0, 3.0], vec![2.0, 2.0]]);
        assert_eq!((draws.mean, draws.low, draws.high), (2.0, 2.0, 2.0));
        close(draws.sd, (2.0_f64 / 3.0).sqrt());
        let one = Summary::of(&[0.5]);
        assert_eq!((one.mean, one.sd, one.low, one.high), (0.5, 0.0, 0.5, 0.5));
    }

    #[test]
    fn holm_steps_down() {
        // statsmodels.stats.multitest.multipletests([0.01, 0.04, 0.03, 0.005], method="holm"): 0.03, 0.06, 0.06, 0.02
        for (adjusted, want) in holm(&[0.01, 0.04, 0.03, 0.005])
            .into_iter()
            .zip([0.03, 0.06, 0.06, 0.02])
        {
            close(adjusted, want);
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }
}
