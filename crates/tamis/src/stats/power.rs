//! How many rows and training seeds it takes to tell two selections apart by their fine-tuned targets' scores.
//!
//! Both targets are scored on the same rows, so that rows add the noise of a *difference*; each is trained with seeds of its own. A
//! difference of means over `s` seeds each, on `n` rows, has the variance
//!
//! ```text
//! v(s, n) = 2 σ² / s + τ² n₀ / n      σ: sd of a score over training seeds      τ: sd of a difference over draws of n₀ rows
//! ```
//!
//! and a two-sided test at 5% finds a gap Δ with a power of 80%, by the normal approximation, where
//!
//! ```text
//! Δ² ≥ (z.975 + z.80)² v(s, n)        z.975 = 1.9600, z.80 = 0.8416
//! ```
//!
//! σ is itself taken on a finite number of rows and holds a little of their noise, so the numbers err on the side of more. Sources: Cohen
//! 1988, section 2.4 (power of a difference of means); Efron & Tibshirani 1993, section 6 (bootstrap standard errors).

use rand::RngExt;
use rayon::prelude::*;
use serde::Serialize;
use tamis_nn::seed::Seed;

/// (z.975 + z.80)².
const POWER: f64 =
    (1.959_963_984_540_054 + 0.841_621_233_572_914_3) * (1.959_963_984_540_054 + 0.841_621_233_572_914_3);
/// How many times the rows are drawn again.
const RESAMPLES: u64 = 200;

/// What blurs the difference of two selections' scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Noise {
    /// σ: the standard deviation of one selection's score over training seeds.
    pub seed_sd: f64,
    /// τ: the standard deviation of the difference of two selections' scores over draws of `rows` rows.
    pub row_sd: f64,
    /// n₀.
    pub rows: u64,
}

impl Noise {
    /// The smallest gap that is found, with so many seeds a selection and so many rows; lower is better.
    pub fn found(&self, seeds: u64, rows: u64) -> f64 {
        (POWER * (self.of_seeds(seeds) + self.of_rows(rows))).sqrt()
    }

    /// The fewest seeds a selection that find this gap on so many rows; none where no number does.
    pub fn seeds(&self, gap: f64, rows: u64) -> Option<u64> {
        whole(self.of_seeds(1), gap * gap / POWER - self.of_rows(rows))
    }

    /// The fewest rows that find this gap with so many seeds a selection; none where no number does.
    pub fn rows(&self, gap: f64, seeds: u64) -> Option<u64> {
        whole(self.of_rows(1), gap * gap / POWER - self.of_seeds(seeds))
    }

    /// Seeds a selection and rows that find this gap where each adds half of the variance that may be; none where there is no gap.
    pub fn seeds_and_rows(&self, gap: f64) -> Option<(u64, u64)> {
        let half = gap * gap / POWER / 2.0;
        Some((whole(self.of_seeds(1), half)?, whole(self.of_rows(1), half)?))
    }

    fn of_seeds(&self, seeds: u64) -> f64 {
        2.0 * self.seed_sd * self.seed_sd / seeds as f64
    }

    fn of_rows(&self, rows: u64) -> f64 {
        self.row_sd * self.row_sd * self.rows as f64 / rows as f64
    }
}

/// The fewest whole units, at least 1, over which a variance of `one` comes down to `allowed`.
fn whole(one: f64, allowed: f64) -> Option<u64> {
    (allowed > 0.0).then(|| (one / allowed).ceil().max(1.0) as u64)
}

/// The standard deviation of a statistic over bootstrap draws of `rows` rows; it is given the rows drawn. 0 without rows.
pub fn bootstrap_sd(rows: usize, seed: Seed, statistic: &(dyn Fn(&[u32]) -> f64 + Sync)) -> f64 {
    if rows == 0 {
        return 0.0;
    }
    let values: Vec<f64> = (0..RESAMPLES)
        .into_par_iter()
        .map(|i| {
            let mut rng = seed.derive("rows").index(i).rng();
            let drawn: Vec<u32> = (0..rows).map(|_| rng.random_range(0..rows as u32)).collect();
            statistic(&drawn)
        })
        .collect();
    mean_and_sd(&values).1
}

/// The mean of a sample, 0 of none, and its standard deviation, by one less than its size; 0 of fewer than two values.
pub fn mean_and_sd(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / values.len().saturating_sub(1).max(1) as f64).sqrt())
}

/// The median of the gaps between all pairs, the lower of the two in the middle, and the pair it is of; none below two scores.
pub fn median_gap(scores: &[f64]) -> Option<(f64, usize, usize)> {
    let mut gaps: Vec<(f64, usize, usize)> = (0..scores.len())
        .flat_map(|i| (0..i).map(move |j| (i, j)))
        .map(|(i, j)| ((scores[i] - scores[j]).abs(), j, i))
        .collect();
    gaps.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    gaps.get(gaps.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn seeds_and_rows_are_what_the_hand_makes_them() {
        let noise = Noise {
            seed_sd: 0.01,
            row_sd: 0.02,
            rows: 1000,
        };
        // (1.95996 + 0.84162)² = 7.84888. Variance: 2 * 1e-4 of one seed, 4e-4 of 1000 rows.
        close(POWER, 7.848_879_734_349_09);
        close(noise.found(1, 1000), (POWER * 6e-4).sqrt());
        // A gap of .06 allows 3.6e-3 / 7.84888 = 4.58664e-4.
        // On 1000 rows 5.8664e-5 is left for seeds: 2e-4 / 5.8664e-5 = 3.41.
        assert_eq!(noise.seeds(0.06, 1000), Some(4));
        // With one seed 2.58664e-4 is left for rows: .4 / 2.58664e-4 = 1546.4.
        assert_eq!(noise.rows(0.06, 1), Some(1547));
        // Half is 2.29332e-4: 2e-4 / it = .87, .4 / it = 1744.2.
        assert_eq!(noise.seeds_and_rows(0.06), Some((1, 1745)));
        // A gap of .03 allows 1.14666e-4, less than 1000 rows or one seed add.
        assert_eq!((noise.seeds(0.03, 1000), noise.rows(0.03, 1)), (None, None));
        // Half is 5.7333e-5: 3.49 and 6976.8.
        assert_eq!(noise.seeds_and_rows(0.03), Some((4, 6977)));
        assert_eq!(noise.seeds_and_rows(0.0), None);
    }

    #[test]
    fn what_is_asked_for_finds_the_gap_and_one_less_does_not() {
        let noise = Noise {
            seed_sd: 0.013,
            row_sd: 0.008,
            rows: 2000,
        };
        for gap in [0.025, 0.03, 0.05] {
            let seeds = noise.seeds(gap, 2000).expect("a number");
            assert!(noise.found(seeds, 2000) <= gap && noise.found(seeds - 1, 2000) > gap);
            let rows = noise.rows(gap, 9).expect("a number");
            assert!(noise.found(9, rows) <= gap && noise.found(9, rows - 1) > gap);
        }
    }

    #[test]
    fn the_bootstrap_finds_the_standard_error_of_a_share() {
        // 100 of 400 rows: √(.25 * .75 / 400) = .0217.
        let share = |rows: &[u32]| rows.iter().filter(|&&row| row < 100).count() as f64 / rows.len() as f64;
        let sd = bootstrap_sd(400, Seed(1), &share);
        assert!((sd - 0.0217).abs() < 0.003, "{sd}");
        assert_eq!(sd, bootstrap_sd(400, Seed(1), &share));
        assert_eq!(bootstrap_sd(0, Seed(1), &share), 0.0);
    }

    #[test]
    fn the_median_gap_is_that_of_a_pair() {
        // Gaps 1 (0, 1), 3 (1, 2), 4 (0, 2).
        assert_eq!(median_gap(&[0.0, 1.0, 4.0]), Some((3.0, 1, 2)));
        assert_eq!(median_gap(&[2.0, 0.5]), Some((1.5, 0, 1)));
        assert_eq!(median_gap(&[2.0]), None);
        close(mean_and_sd(&[1.0, 3.0]).1, 2f64.sqrt());
        assert_eq!(mean_and_sd(&[1.0]).1, 0.0);
    }
}
