//! How well one list of scores ranks states as another does: a cheap proxy's beside a dear model's, say.
//!
//! Three numbers, each with a 95% interval: Spearman's and Kendall's rank correlations, and the regret of trusting the cheap
//! score with the choice. Intervals are percentiles of a bootstrap over *states*, whose pairs of scores stay together; the
//! three share their resamples. They tell how far the numbers depend on which states were drawn, and nothing of the noise
//! within a state's score. Every sum has a fixed order, and each resample its own seed, so threads change no bit.
//!
//! Sources: Spearman 1904; Kendall 1945 (tau-b); Efron & Tibshirani 1993, section 13.3 (percentile intervals).

use rand::RngExt;
use rayon::prelude::*;
use serde::Serialize;
use tamis_nn::seed::Seed;

/// How many times the states are drawn again.
const RESAMPLES: usize = 2000;
/// How many resamples lie outside the interval at each end: 2.5%.
const OUTSIDE: usize = RESAMPLES / 40;

/// A number and where 95% of its bootstrap lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Of the states as they are.
    pub value: f64,
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

/// How well a cheap score ranks states as a dear one does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// [`spearman`]; from -1 to 1, higher is better.
    pub spearman: Interval,
    /// [`kendall`]; from -1 to 1, higher is better.
    pub kendall: Interval,
    /// [`regret`], in units of the dear score; at least 0, lower is better.
    pub regret: Interval,
    /// How many states were compared.
    pub states: usize,
}

impl Agreement {
    /// Of states with these scores, shape `(states,)` each; higher is a better state in both.
    ///
    /// A resample that holds one state only has correlation 0. The regret of a resample is that among its own states.
    ///
    /// # Panics
    ///
    /// If the lengths differ or a score is not finite.
    pub fn of(cheap: &[f64], dear: &[f64], seed: Seed) -> Self {
        let measure = |a: &[f64], b: &[f64]| [spearman(a, b), kendall(a, b), regret(a, b)];
        let value = measure(cheap, dear);
        let resamples: Vec<[f64; 3]> = (0..RESAMPLES as u64)
            .into_par_iter()
            .map(|i| {
                if cheap.is_empty() {
                    return value;
                }
                let mut rng = seed.derive("agreement").index(i).rng();
                let (a, b): (Vec<f64>, Vec<f64>) = (0..cheap.len())
                    .map(|_| rng.random_range(0..cheap.len()))
                    .map(|state| (cheap[state], dear[state]))
                    .unzip();
                measure(&a, &b)
            })
            .collect();
        let [spearman, kendall, regret] = [0, 1, 2].map(|k| {
            let mut drawn: Vec<f64> = resamples.iter().map(|values| values[k]).collect();
            drawn.sort_unstable_by(f64::total_cmp);
            Interval {
                value: value[k],
                low: drawn[OUTSIDE],
                high: drawn[RESAMPLES - 1 - OUTSIDE],
            }
        });
        Self {
            spearman,
            kendall,
            regret,
            states: cheap.len(),
        }
    }
}

/// Spearman's ρ: the correlation of the ranks, where ties share their mean rank. 0 if either list is constant, or empty.
///
/// # Panics
///
/// If the lengths differ or a score is not finite.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    check(a, b);
    let (a, b) = (ranks(a), ranks(b));
    let mean = f64::midpoint(a.len() as f64, 1.0);
    let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(&b) {
        both += (a - mean) * (b - mean);
        of_a += (a - mean) * (a - mean);
        of_b += (b - mean) * (b - mean);
    }
    ratio(both, of_a, of_b)
}

/// Kendall's τ-b over the pairs of states, 0 if either list is constant, or empty:
///
/// ```text
/// τ-b = (concordant - discordant) / √(pairs not tied in a · pairs not tied in b)
/// ```
///
/// It takes time quadratic in the number of states.
///
/// # Panics
///
/// If the lengths differ or a score is not finite.
pub fn kendall(a: &[f64], b: &[f64]) -> f64 {
    check(a, b);
    let (mut balance, mut untied_a, mut untied_b) = (0i64, 0i64, 0i64);
    for i in 0..a.len() {
        for j in 0..i {
            let (of_a, of_b) = (order(a[i], a[j]), order(b[i], b[j]));
            balance += of_a * of_b;
            untied_a += of_a * of_a;
            untied_b += of_b * of_b;
        }
    }
    ratio(balance as f64, untied_a as f64, untied_b as f64)
}

/// What is lost by letting `cheap` choose: the greatest score by `dear` less the `dear` score of the state that is best by
/// `cheap`, in units of `dear`; 0 is best. States that tie for best by `cheap` count with the mean of their `dear` scores, so
/// a constant `cheap` loses what a random choice loses. 0 without states.
///
/// # Panics
///
/// If the lengths differ or a score is not finite.
pub fn regret(cheap: &[f64], dear: &[f64]) -> f64 {
    check(cheap, dear);
    let greatest = |scores: &[f64]| scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (best_cheap, best_dear) = (greatest(cheap), greatest(dear));
    // The mean of what each loses, and not a difference from a mean: of one state it is exactly 0 when it should be.
    let (mut lost, mut count) = (0.0, 0.0);
    for (_, dear) in cheap.iter().zip(dear).filter(|(cheap, _)| **cheap == best_cheap) {
        lost += best_dear - dear;
        count += 1.0;
    }
    if count > 0.0 { lost / count } else { 0.0 }
}

fn check(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len(), "a score of each kind a state");
    assert!(a.iter().chain(b).all(|score| score.is_finite()), "scores are finite");
}

/// 1, 0 or -1 as `x` is above, equal to or below `y`.
fn order(x: f64, y: f64) -> i64 {
    i64::from(x > y) - i64::from(x < y)
}

/// A correlation from its sums, kept within its bounds; 0 where there is no variation.
fn ratio(both: f64, of_a: f64, of_b: f64) -> f64 {
    if of_a > 0.0 && of_b > 0.0 {
        (both / (of_a * of_b).sqrt()).clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

/// The ranks from 1; ties share their mean.
fn ranks(scores: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&i, &j| scores[i].total_cmp(&scores[j]));
    let mut ranks = vec![0.0; scores.len()];
    let mut start = 0;
    while start < order.len() {
        let tied = order[start..]
            .iter()
            .take_while(|&&i| scores[i] == scores[order[start]])
            .count();
        for &i in &order[start..start + tied] {
            // The mean of start + 1 to start + tied.
            ranks[i] = start as f64 + f64::midpoint(tied as f64, 1.0);
        }
        start += tied;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn correlations_are_what_the_hand_makes_them() {
        let (a, b) = ([0.1, 0.2, 0.3, 0.4], [1.0, 3.0, 2.0, 4.0]);
        // Rank differences 0, 1, -1, 0: 1 - 6 * 2 / (4 * 15) = 0.8. Of six pairs one is discordant: (5 - 1) / 6.
        close(spearman(&a, &b), 0.8);
        close(kendall(&a, &b), 2.0 / 3.0);
        // Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: both 1.5 * 1.5 + 0 + 0 + 1.5 * 1.5 = 4.5, alone 4.5 and 5: 4.5 / √22.5.
        // Pairs: five concordant, one tied in a: 5 / √(5 * 6).
        let (a, b) = ([1.0, 2.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]);
        // scipy: spearmanr 0.9486832980505138, kendalltau 0.9128709291752769
        close(spearman(&a, &b), 4.5 / 22.5f64.sqrt());
        close(kendall(&a, &b), 5.0 / 30f64.sqrt());
        close(spearman(&b, &[4.0, 3.0, 2.0, 1.0]), -1.0);
        close(kendall(&b, &[4.0, 3.0, 2.0, 1.0]), -1.0);
    }

    #[test]
    fn regret_is_what_the_cheap_choice_loses() {
        let dear = [0.5, 0.75, 0.625, 0.25];
        // The cheap best is state 2: 0.75 - 0.625.
        assert_eq!(regret(&[0.0, 1.0, 2.0, 1.0], &dear), 0.125);
        assert_eq!(regret(&[0.0, 3.0, 2.0, 1.0], &dear), 0.0);
        // States 0 and 1 tie: 0.75 - (0.5 + 0.75) / 2.
        assert_eq!(regret(&[2.0, 2.0, 1.0, 1.0], &dear), 0.125);
        // Any state: 0.75 - 2.125 / 4.
        assert_eq!(regret(&[1.0; 4], &dear), 0.21875);
    }

    #[test]
    fn what_says_nothing_correlates_with_nothing() {
        let zero = Interval {
            value: 0.0,
            low: 0.0,
            high: 0.0,
        };
        let constant = Agreement::of(&[1.0; 5], &[1.0, 2.0, 3.0, 4.0, 5.0], Seed(0));
        assert_eq!((constant.spearman, constant.kendall, constant.states), (zero, zero, 5));
        close(constant.regret.value, 2.0);
        for few in [&[][..], &[0.5]] {
            let none = Agreement {
                spearman: zero,
                kendall: zero,
                regret: zero,
                states: few.len(),
            };
            assert_eq!(Agreement::of(few, few, Seed(0)), none);
        }
    }

    #[test]
    fn intervals_hold_their_value_narrow_with_the_states_and_repeat_themselves() {
        let scores = |states: u64| -> (Vec<f64>, Vec<f64>) {
            let mut rng = Seed(4).rng();
            (0..states)
                .map(|_| {
                    let score = rng.random::<f64>();
                    (score, score + 0.5 * rng.random::<f64>())
                })
                .unzip()
        };
        let ((a, b), (c, d)) = (scores(15), scores(120));
        let (few, many) = (Agreement::of(&a, &b, Seed(1)), Agreement::of(&c, &d, Seed(1)));
        for agreement in [few, many] {
            for interval in [agreement.spearman, agreement.kendall, agreement.regret] {
                assert!(
                    interval.low <= interval.value && interval.value <= interval.high,
                    "{interval:?}"
                );
            }
        }
        assert!(many.spearman.high - many.spearman.low < few.spearman.high - few.spearman.low);
        assert!(many.kendall.low > 0.0);
        assert_eq!(few, Agreement::of(&a, &b, Seed(1)));
        assert_ne!(few, Agreement::of(&a, &b, Seed(2)));
    }

    #[test]
    #[should_panic(expected = "scores are finite")]
    fn a_number_that_is_none_has_no_rank() {
        spearman(&[1.0, f64::NAN], &[1.0, 2.0]);
    }

    proptest! {
        #[test]
        fn correlations_have_bounds_signs_and_symmetry(
            scores in prop::collection::vec((-3i8..4, -3i8..4), 0..25)
        ) {
            let (a, b): (Vec<f64>, Vec<f64>) = scores.iter().map(|&(a, b)| (f64::from(a), f64::from(b))).unzip();
            let opposite: Vec<f64> = b.iter().map(|b| -b).collect();
            for correlation in [spearman, kendall] {
                let r = correlation(&a, &b);
                prop_assert!((-1.0..=1.0).contains(&r));
                prop_assert!((r - correlation(&b, &a)).abs() < 1e-12);
                prop_assert!((r + correlation(&a, &opposite)).abs() < 1e-12);
            }
            prop_assert!(regret(&a, &b) >= 0.0);
            prop_assert_eq!(regret(&b, &b), 0.0);
        }
    }
}
