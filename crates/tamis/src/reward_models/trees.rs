//! Gradient-boosted regression trees from a state's features to its score.
//!
//! Each round adds a small tree that is fitted to what the trees before it left over (squared error), shrunk by the learning
//! rate. A random fifth of the states is held out. Boosting stops once their error has not fallen for a while, and the trees after
//! its lowest point are dropped. The rank correlation on the held-out states says how well the trees rank new ones.
//!
//! Sources: Friedman 2001 (boosting); Chen & Guestrin 2016, section 2 (L1, L2 and the histogram splits); CLIMB, arXiv
//! 2504.13161 (boosted trees as the predictor of a data mixture's score). The trees are grown by the crate `forust-ml`: beside
//! `gbdt` and `perpetual` it alone has both penalties, and its sums have an order that the number of threads does not change.
//! What is done differently:
//!
//! 1. Scores are standardised first. Penalties of 1 are in units of the score times states: they would forbid every split
//!    where scores differ by hundredths.
//! 2. `forust-ml` takes the L1 penalty off a leaf's value, but not off the gain by which splits are compared.

use std::ops::Bound;

use forust_ml::{
    GradientBooster, Matrix as Columns, gradientbooster::EvaluationData, metric::Metric, objective::ObjectiveType,
};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tamis_nn::{Matrix, seed::Seed};

use crate::{Error, Result, error::range::check, stats::agreement::spearman};

/// One state in so many is held out.
const HELD_OUT: usize = 5;
/// States that a thread predicts at a time.
const BLOCK: usize = 256;

/// How [`Trees`] are fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TreeSettings {
    /// The most trees. Default: 1000.
    pub rounds: usize,
    /// What each tree's values are multiplied by, above 0 and at most 1. Default: 0.01.
    pub learning_rate: f32,
    /// The most splits between root and leaf, 1 to 16. Default: 4.
    pub depth: usize,
    /// L1 penalty: by how much a leaf's sum of residuals is moved towards 0, in standard deviations of the score. Default: 1.
    pub l1: f32,
    /// L2 penalty: how many states of residual 0 are added to a leaf. Default: 1.
    pub l2: f32,
    /// The fewest states in a leaf. Default: 5.
    pub min_leaf: u32,
    /// After how many trees that did not lower the held-out error boosting stops. Default: 50.
    pub patience: usize,
}

impl Default for TreeSettings {
    fn default() -> Self {
        Self {
            rounds: 1000,
            learning_rate: 0.01,
            depth: 4,
            l1: 1.0,
            l2: 1.0,
            min_leaf: 5,
            patience: 50,
        }
    }
}

impl TreeSettings {
    /// Checks every value. Errors name the settings below `prefix`.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self, prefix: &str) -> Result<()> {
        let named = |name: &str| format!("{prefix}.{name}");
        // Upper bounds keep a typing error from asking for more memory than there is.
        check(named("rounds"), self.rounds, 1..=100_000)?;
        check(
            named("learning_rate"),
            self.learning_rate,
            (Bound::Excluded(0.0), Bound::Included(1.0)),
        )?;
        check(named("depth"), self.depth, 1..=16)?;
        check(named("l1"), self.l1, 0.0..)?;
        check(named("l2"), self.l2, 0.0..)?;
        check(named("min_leaf"), self.min_leaf, 1..=1_000_000)?;
        check(named("patience"), self.patience, 1..=100_000)
    }
}

/// A fitted predictor of scores.
pub struct Trees {
    booster: GradientBooster,
    /// Features of a state.
    features: usize,
    /// Mean and spread of the scores it was fitted on.
    mean: f64,
    spread: f64,
    held_out: Option<f64>,
}

impl Trees {
    /// Fits trees to states with these features, shape `(states, features)`, and scores, shape `(states,)`.
    ///
    /// Fewer than five states leave none to hold out: all trees are grown then. The same input gives the same trees, bit by
    /// bit, for any number of threads.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, or a feature or score is not finite.
    ///
    /// # Panics
    ///
    /// If there are no states, or not one score a state.
    pub fn fit(features: &Matrix, scores: &[f64], settings: &TreeSettings, seed: Seed) -> Result<Self> {
        assert_eq!(features.rows(), scores.len(), "one score a state");
        assert!(!scores.is_empty(), "trees need at least one state");
        settings.check("trees")?;
        let numbers = features
            .as_slice()
            .iter()
            .map(|&x| f64::from(x))
            .chain(scores.iter().copied());
        if let Some(odd) = numbers.into_iter().find(|x| !x.is_finite()) {
            return Err(Error::NotFinite {
                place: "the reward model's states".into(),
                found: odd.to_string(),
            });
        }

        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.shuffle(&mut seed.derive("held-out").rng());
        let (held_out, train) = order.split_at(scores.len() / HELD_OUT);
        let of = |rows: &[u32]| -> Vec<f64> { rows.iter().map(|&row| scores[row as usize]).collect() };
        let (mean, spread) = moments(&of(train));
        let units = |scores: Vec<f64>| -> Vec<f64> { scores.iter().map(|score| (score - mean) / spread).collect() };

        let mut booster = GradientBooster::default()
            .set_objective_type(ObjectiveType::SquaredLoss)
            // Its own choice beside squared loss is the error of logarithms, which standardised scores have none of.
            .set_evaluation_metric(Some(Metric::RootMeanSquaredError))
            .set_iterations(settings.rounds)
            .set_learning_rate(settings.learning_rate)
            .set_max_depth(settings.depth)
            .set_l1(settings.l1)
            .set_l2(settings.l2)
            // The second derivative of half a squared error is 1, so a leaf weighs as many as it has states.
            .set_min_leaf_weight(settings.min_leaf as f32)
            .set_initialize_base_score(false)
            .set_base_score(0.0);
        let (x, y) = (columns(features, train), units(of(train)));
        let (held_x, held_y) = (columns(features, held_out), units(of(held_out)));
        let (weight, held_weight) = (vec![1.0; train.len()], vec![1.0; held_out.len()]);
        let watched: Option<Vec<EvaluationData<'_>>> = (!held_out.is_empty()).then(|| {
            booster.early_stopping_rounds = Some(settings.patience);
            let held_x = Columns::new(&held_x, held_out.len(), features.cols());
            vec![(held_x, held_y.as_slice(), held_weight.as_slice())]
        });
        booster
            .fit(&Columns::new(&x, train.len(), features.cols()), &y, &weight, watched)
            .expect("settings are in range and numbers finite");

        let mut trees = Self {
            booster,
            features: features.cols(),
            mean,
            spread,
            held_out: None,
        };
        if !held_out.is_empty() {
            let predicted = trees.predict(&features.gather(held_out));
            trees.held_out = Some(spearman(&predicted, &of(held_out)));
        }
        Ok(trees)
    }

    /// Predicted scores of states with these features, shape `(states, features)`; shape `(states,)`, in units of the score.
    ///
    /// # Panics
    ///
    /// If the states have other features than those it was fitted on.
    pub fn predict(&self, features: &Matrix) -> Vec<f64> {
        assert_eq!(features.cols(), self.features, "the features it was fitted on");
        let rows: Vec<u32> = (0..features.rows() as u32).collect();
        let blocks = rows.par_chunks(BLOCK).flat_map_iter(|block| {
            let x = columns(features, block);
            self.booster
                .predict(&Columns::new(&x, block.len(), features.cols()), false)
        });
        blocks.map(|units| self.mean + self.spread * units).collect()
    }

    /// Spearman's correlation of predicted and true scores over the held-out states, from -1 to 1, higher is better; `None`
    /// where there were too few states to hold any out. The same states decided when to stop, so it is a little too high.
    pub fn held_out_spearman(&self) -> Option<f64> {
        self.held_out
    }

    /// How many trees are in use.
    pub fn rounds(&self) -> usize {
        self.booster.prediction_iteration.unwrap_or(self.booster.trees.len())
    }
}

/// These rows, column after column, as `forust-ml` reads them.
fn columns(features: &Matrix, rows: &[u32]) -> Vec<f64> {
    (0..features.cols())
        .flat_map(|column| {
            rows.iter()
                .map(move |&row| f64::from(features.row(row as usize)[column]))
        })
        .collect()
}

/// Mean and standard deviation; 1 in place of a deviation of 0.
fn moments(scores: &[f64]) -> (f64, f64) {
    let count = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / count;
    let variance = scores.iter().map(|score| (score - mean) * (score - mean)).sum::<f64>() / count;
    (mean, if variance > 0.0 { variance.sqrt() } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    /// Two features that matter, one that does not and one that never changes.
    fn states(count: usize) -> (Matrix, Vec<f64>) {
        let mut rng = Seed(3).rng();
        let mut features = Vec::new();
        let mut scores = Vec::new();
        for _ in 0..count {
            let [a, b, c]: [f32; 3] = std::array::from_fn(|_| rng.random());
            features.extend([a, b, c, 1.0]);
            scores.push(0.5 + 0.01 * f64::from(a * a + if b > 0.5 { a } else { 0.0 }));
        }
        (Matrix::from_vec(features, count, 4), scores)
    }

    fn one_split(l1: f32, l2: f32) -> TreeSettings {
        TreeSettings {
            rounds: 1,
            learning_rate: 1.0,
            depth: 1,
            l1,
            l2,
            min_leaf: 1,
            ..TreeSettings::default()
        }
    }

    #[test]
    fn a_split_and_its_leaves_are_what_the_hand_makes_them() {
        // Four states are too few to hold one out. The first feature parts scores 1, 1 from 3, 3; the second parts 1, 3 from 1, 3.
        let features = Matrix::from_vec(vec![0.0, 0.0, 0.1, 1.0, 0.8, 0.0, 0.9, 1.0], 4, 2);
        let scores = [1.0, 1.0, 3.0, 3.0];
        // Mean 2, spread 1: residuals -1, -1, 1, 1. Gains: 2 * 4 / 2 of the first feature, 0 of the second.
        // Without penalties a leaf is its states' mean.
        let trees = Trees::fit(&features, &scores, &one_split(0.0, 0.0), Seed(0)).expect("fits");
        assert_eq!(trees.predict(&features), [1.0, 1.0, 3.0, 3.0]);
        // L1 = 1 draws a leaf's sum of 2 to 1, L2 = 1 takes it for a sum over 3: 2 -+ 1 / 3.
        let trees = Trees::fit(&features, &scores, &one_split(1.0, 1.0), Seed(0)).expect("fits");
        for (found, want) in trees.predict(&features).iter().zip([5.0, 5.0, 7.0, 7.0]) {
            assert!((found - want / 3.0).abs() < 1e-6, "{found} is not {want} / 3");
        }
        assert_eq!((trees.rounds(), trees.held_out_spearman()), (1, None));
    }

    #[test]
    fn a_leaf_has_as_many_states_as_it_must() {
        let features = Matrix::from_vec(vec![0.0, 1.0, 2.0, 3.0], 4, 1);
        let settings = TreeSettings {
            min_leaf: 2,
            ..one_split(0.0, 0.0)
        };
        // The best split would leave the last state alone; two and two is the only one allowed.
        let trees = Trees::fit(&features, &[0.0, 0.0, 0.0, 4.0], &settings, Seed(0)).expect("fits");
        for (found, want) in trees.predict(&features).iter().zip([0.0, 0.0, 2.0, 2.0]) {
            assert!((found - want).abs() < 1e-6, "{found} is not {want}");
        }
    }

    #[test]
    fn they_learn_a_simple_function_and_say_how_well() {
        let (features, scores) = states(500);
        let trees = Trees::fit(&features, &scores, &TreeSettings::default(), Seed(1)).expect("fits");
        let told = trees.held_out_spearman().expect("a fifth is held out");
        assert!(told > 0.95, "{told}");
        // The same function at states never seen.
        let (unseen, truth) = {
            let (features, scores) = states(700);
            let rows: Vec<u32> = (500..700).collect();
            (features.gather(&rows), scores[500..].to_vec())
        };
        let found = spearman(&trees.predict(&unseen), &truth);
        assert!(found > 0.95, "{found}");
        assert!(trees.rounds() > 100, "{}", trees.rounds());
    }

    #[test]
    fn boosting_stops_early_where_there_is_nothing_to_learn() {
        let (features, _) = states(200);
        let mut rng = Seed(9).rng();
        let noise: Vec<f64> = (0..200).map(|_| rng.random()).collect();
        let trees = Trees::fit(&features, &noise, &TreeSettings::default(), Seed(1)).expect("fits");
        assert!(trees.rounds() < 300, "{}", trees.rounds());
    }

    #[test]
    fn threads_change_no_bit() {
        let (features, scores) = states(400);
        let run = |threads| {
            let threads = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("threads");
            threads.install(|| {
                let settings = TreeSettings {
                    rounds: 100,
                    ..TreeSettings::default()
                };
                let trees = Trees::fit(&features, &scores, &settings, Seed(1)).expect("fits");
                (trees.predict(&features), trees.held_out_spearman())
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn equal_scores_and_a_single_state_are_no_trouble() {
        let (features, _) = states(50);
        let trees = Trees::fit(&features, &[0.25; 50], &TreeSettings::default(), Seed(0)).expect("fits");
        assert!(trees.predict(&features).iter().all(|&score| score == 0.25));
        assert_eq!(trees.held_out_spearman(), Some(0.0));
        let one = features.gather(&[0]);
        let trees = Trees::fit(&one, &[0.5], &TreeSettings::default(), Seed(0)).expect("fits");
        assert_eq!(trees.predict(&one), [0.5]);
        assert_eq!(trees.predict(&Matrix::zeros(0, 4)), Vec::<f64>::new());
    }

    #[test]
    fn numbers_that_are_none_are_named() {
        let (features, mut scores) = states(10);
        scores[3] = f64::NAN;
        let error = Trees::fit(&features, &scores, &TreeSettings::default(), Seed(0))
            .err()
            .expect("fails");
        assert_eq!(
            error.to_string(),
            "the reward model's states: expected finite numbers, found NaN"
        );
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let sound = TreeSettings::default;
        for (settings, name) in [
            (TreeSettings { rounds: 0, ..sound() }, "x.rounds"),
            (TreeSettings { depth: 17, ..sound() }, "x.depth"),
            (
                TreeSettings {
                    learning_rate: 0.0,
                    ..sound()
                },
                "x.learning_rate",
            ),
            (TreeSettings { l1: -1.0, ..sound() }, "x.l1"),
            (
                TreeSettings {
                    l2: f32::NAN,
                    ..sound()
                },
                "x.l2",
            ),
        ] {
            let error = settings.check("x").expect_err("out of range").to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
