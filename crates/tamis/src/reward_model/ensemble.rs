//! An ensemble of small networks that predicts scores, and how sure it is of them.
//!
//! Each member is a layer of random rectified units beside the features themselves, with an output layer solved in closed form:
//!
//! ```text
//! φ(x) = [x, max(0, R x + r)]        w = (Φᵀ S Φ + λI)⁻¹ Φᵀ S y
//! ```
//!
//! where S holds how often each state was drawn for this member. Members differ in their units and in the states they learned
//! from, so they agree where states were seen and not elsewhere: the spread of their predictions is the uncertainty. With a
//! closed form there is no learning rate, no early stopping and no forgetting, and a refit costs milliseconds. Scores are learned as
//! distances from what is usual after as many steps: most of what moves a score is how much was taken at all.
//!
//! Sources: Rahimi & Recht 2008 (random features); Breiman 1996 (bootstrap aggregation); Lakshminarayanan et al. 2017 (spread of an
//! ensemble as uncertainty).

use faer::{Mat, Side, prelude::Solve};
use rand::RngExt;
use rayon::prelude::*;

use super::baseline::Baseline;
use crate::{
    Matrix,
    nn::product::{Layout, product},
    seed::Seed,
};

/// Members.
const MEMBERS: usize = 5;
/// Random units of each.
const UNITS: usize = 128;
/// Ridge strengths that are tried, as shares of the mean square of a feature.
const STRENGTHS: [f32; 5] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0];
/// Every so many states one is held out to choose the strength by.
const HELD_OUT_EVERY: usize = 5;
/// States that are kept; the oldest go.
const KEPT: usize = 20_000;

/// A model of the score, fitted on all states seen.
#[derive(Debug, Clone)]
pub struct Ensemble {
    features: usize,
    /// Features of the states seen, one after the other, and their scores.
    inputs: Vec<f32>,
    scores: Vec<f64>,
    steps: Vec<usize>,
    usual: Baseline,
    members: Vec<Member>,
    /// Mean and scale of each feature.
    centre: Vec<f32>,
    scale: Vec<f32>,
}

#[derive(Debug, Clone)]
struct Member {
    /// Shape `(features, UNITS)`, then one offset a unit.
    units: Vec<f32>,
    offsets: Vec<f32>,
    /// Shape `(features + UNITS,)`.
    weights: Vec<f32>,
    mean: f32,
}

/// Predictions for several states, in units of the score; shapes `(states,)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The members' mean.
    pub mean: Vec<f64>,
    /// The members' standard deviation: how unsure they are.
    pub spread: Vec<f64>,
}

impl Ensemble {
    /// A model of states with so many features, which knows nothing yet.
    pub fn new(features: usize, seed: Seed) -> Self {
        let member = |m: usize| {
            let mut rng = seed.index(m as u64).rng();
            // Sums of `features` standardised inputs have about unit variance.
            let bound = (3.0 / features.max(1) as f32).sqrt();
            let mut uniform = |bound: f32| (rng.random::<f32>() * 2.0 - 1.0) * bound;
            Member {
                units: (0..features * UNITS).map(|_| uniform(bound)).collect(),
                offsets: (0..UNITS).map(|_| uniform(1.0)).collect(),
                weights: vec![0.0; features + UNITS],
                mean: 0.0,
            }
        };
        Self {
            features,
            inputs: Vec::new(),
            scores: Vec::new(),
            steps: Vec::new(),
            usual: Baseline::default(),
            members: (0..MEMBERS).map(member).collect(),
            centre: vec![0.0; features],
            scale: vec![1.0; features],
        }
    }

    /// How many states it has seen and kept.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether it has seen nothing.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// A state that so many steps led to, and its score, were seen. Predictions change with the next [`Ensemble::fit`].
    ///
    /// # Panics
    ///
    /// If there are not as many features as promised.
    pub fn add(&mut self, features: &[f32], steps: usize, score: f64) {
        assert_eq!(features.len(), self.features, "features of a state");
        if self.len() == KEPT {
            self.inputs.drain(..self.features);
            self.scores.remove(0);
            self.steps.remove(0);
        }
        self.inputs.extend_from_slice(features);
        self.scores.push(score);
        self.steps.push(steps);
    }

    /// Learns from all states seen. `seed` decides which of them each member draws.
    pub fn fit(&mut self, seed: Seed) {
        if self.len() < 2 * HELD_OUT_EVERY {
            return;
        }
        self.standardise();
        let inputs = self.standardised(&self.inputs);
        let scored = || self.steps.iter().zip(&self.scores);
        self.usual = Baseline::default();
        scored().for_each(|(&steps, &score)| self.usual.add(steps, score));
        let targets: Vec<f32> = scored()
            .map(|(&steps, &score)| self.usual.standardise(steps, score))
            .collect();
        let features = self.features;
        self.members.par_iter_mut().enumerate().for_each(|(m, member)| {
            let mut rng = seed.index(m as u64).rng();
            // A Poisson number of copies of each state is a bootstrap whose draws do not depend on each other.
            let copies: Vec<f32> = targets.iter().map(|_| poisson(rng.random())).collect();
            member.fit(&inputs, features, &targets, &copies);
        });
    }

    /// What it predicts for each row of features, shape `(states, features)`, of states that so many steps led to.
    ///
    /// # Panics
    ///
    /// If the rows do not have as many features as promised.
    pub fn predict(&self, states: &Matrix, steps: usize) -> Prediction {
        assert_eq!(states.cols(), self.features, "features of a state");
        let inputs = self.standardised(states.as_slice());
        let each: Vec<Vec<f32>> = self
            .members
            .par_iter()
            .map(|member| member.predict(&inputs, self.features))
            .collect();
        let (usual, unit) = self.usual.at(steps);
        let of = |i: usize| each.iter().map(move |values| usual + unit * f64::from(values[i]));
        let mean: Vec<f64> = (0..states.rows())
            .map(|i| of(i).sum::<f64>() / MEMBERS as f64)
            .collect();
        let spread = mean
            .iter()
            .enumerate()
            .map(|(i, mean)| (of(i).map(|x| (x - mean).powi(2)).sum::<f64>() / (MEMBERS - 1) as f64).sqrt())
            .collect();
        Prediction { mean, spread }
    }

    fn standardise(&mut self) {
        let count = self.len() as f32;
        self.centre.fill(0.0);
        for row in self.inputs.chunks_exact(self.features) {
            self.centre.iter_mut().zip(row).for_each(|(sum, x)| *sum += x / count);
        }
        let mut squares = vec![0.0; self.features];
        for row in self.inputs.chunks_exact(self.features) {
            for ((square, x), centre) in squares.iter_mut().zip(row).zip(&self.centre) {
                *square += (x - centre).powi(2) / count;
            }
        }
        for (scale, square) in self.scale.iter_mut().zip(&squares) {
            // A feature that never moved tells nothing; one that hardly did must not be blown up.
            *scale = if *square > 1e-12 { square.sqrt().recip() } else { 0.0 };
        }
    }

    /// Rows of features as distances from their means; far outliers are drawn in.
    fn standardised(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = rows.to_vec();
        for row in out.chunks_exact_mut(self.features.max(1)) {
            for ((x, centre), scale) in row.iter_mut().zip(&self.centre).zip(&self.scale) {
                *x = ((*x - centre) * scale).clamp(-8.0, 8.0);
            }
        }
        out
    }
}

impl Member {
    /// φ of each row, shape `(rows, features + UNITS)`.
    fn expand(&self, inputs: &[f32], features: usize) -> Vec<f32> {
        let rows = inputs.len() / features.max(1);
        let mut units: Vec<f32> = (0..rows).flat_map(|_| &self.offsets).copied().collect();
        let shape = (rows, features, UNITS);
        product(
            &mut units,
            shape,
            inputs,
            Layout::Plain,
            &self.units,
            Layout::Plain,
            1.0,
        );
        let mut expanded = Vec::with_capacity(rows * (features + UNITS));
        for (row, units) in inputs.chunks_exact(features.max(1)).zip(units.chunks_exact(UNITS)) {
            expanded.extend_from_slice(row);
            expanded.extend(units.iter().map(|unit| unit.max(0.0)));
        }
        expanded
    }

    fn predict(&self, inputs: &[f32], features: usize) -> Vec<f32> {
        let expanded = self.expand(inputs, features);
        let value = |row: &[f32]| self.mean + row.iter().zip(&self.weights).map(|(x, w)| x * w).sum::<f32>();
        expanded.chunks_exact(self.weights.len()).map(value).collect()
    }

    fn fit(&mut self, inputs: &[f32], features: usize, targets: &[f32], copies: &[f32]) {
        let expanded = self.expand(inputs, features);
        let held_out = |i: usize| i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1;
        let weight_of = |keep: &dyn Fn(usize) -> bool| -> Vec<f32> {
            let kept = copies.iter().enumerate();
            kept.map(|(i, &copies)| if keep(i) { copies } else { 0.0 }).collect()
        };
        let width = features + UNITS;
        let learned = Normal::of(&expanded, width, targets, &weight_of(&|i| !held_out(i)));
        let error = |strength: f32| -> f32 {
            let Some(weights) = learned.solve(strength) else {
                return f32::INFINITY;
            };
            let rows = expanded.chunks_exact(width).zip(targets).enumerate();
            rows.filter(|(i, _)| held_out(*i))
                .map(|(_, (row, target))| {
                    let value = learned.mean + row.iter().zip(&weights).map(|(x, w)| x * w).sum::<f32>();
                    (value - target).powi(2)
                })
                .sum()
        };
        let errors = STRENGTHS.map(error);
        let best = (0..STRENGTHS.len())
            .reduce(|best, i| if errors[i] < errors[best] { i } else { best })
            .unwrap_or(0);
        let all = Normal::of(&expanded, width, targets, &weight_of(&|_| true));
        if let Some(weights) = all.solve(STRENGTHS[best]) {
            self.weights = weights;
            self.mean = all.mean;
        }
    }
}

/// The normal equations of a weighted ridge regression on targets less their mean.
struct Normal {
    /// Shape `(width, width)`.
    square: Vec<f32>,
    right: Vec<f32>,
    mean: f32,
}

impl Normal {
    fn of(rows: &[f32], width: usize, targets: &[f32], weights: &[f32]) -> Self {
        let total = weights.iter().sum::<f32>().max(1.0);
        let mean = targets.iter().zip(weights).map(|(y, w)| y * w).sum::<f32>() / total;
        let mut weighted = rows.to_vec();
        for (row, w) in weighted.chunks_exact_mut(width).zip(weights) {
            row.iter_mut().for_each(|x| *x *= w);
        }
        let mut square = vec![0.0; width * width];
        let shape = (width, targets.len(), width);
        product(
            &mut square,
            shape,
            &weighted,
            Layout::Transposed,
            rows,
            Layout::Plain,
            0.0,
        );
        let mut right = vec![0.0; width];
        for (row, y) in weighted.chunks_exact(width).zip(targets) {
            right.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * (y - mean));
        }
        Self { square, right, mean }
    }

    /// The weights at a strength, or nothing if the system is not positive definite.
    fn solve(&self, strength: f32) -> Option<Vec<f32>> {
        let width = self.right.len();
        let trace: f32 = (0..width).map(|i| self.square[i * width + i]).sum();
        let ridge = strength * trace / width as f32 + 1e-6;
        let matrix = Mat::from_fn(width, width, |i, j| {
            self.square[i * width + j] + if i == j { ridge } else { 0.0 }
        });
        let right = Mat::from_fn(width, 1, |i, _| self.right[i]);
        let solved = matrix.llt(Side::Lower).ok()?.solve(&right);
        let weights: Vec<f32> = (0..width).map(|i| solved[(i, 0)]).collect();
        weights.iter().all(|w| w.is_finite()).then_some(weights)
    }
}

/// A Poisson number of mean 1, from a uniform one.
fn poisson(uniform: f64) -> f32 {
    let (mut count, mut probability) = (0.0, (-1.0f64).exp());
    let mut below = probability;
    while uniform > below && count < 10.0 {
        count += 1.0;
        probability /= count;
        below += probability;
    }
    count as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// States with 3 features, and a score that is no sum over them.
    fn seen(count: usize, seed: u64) -> (Matrix, Vec<f64>) {
        let mut rng = Seed(seed).rng();
        let x: Vec<f32> = (0..count * 3).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
        let y = x
            .chunks_exact(3)
            .map(|x| f64::from(x[0] - 0.5 * x[1] + x[0].abs() * x[2]))
            .collect();
        (Matrix::from_vec(x, count, 3), y)
    }

    fn fitted(count: usize) -> Ensemble {
        let mut model = Ensemble::new(3, Seed(1));
        let (states, scores) = seen(count, 2);
        for (row, &score) in states.iter_rows().zip(&scores) {
            model.add(row, 1, score);
        }
        model.fit(Seed(3));
        model
    }

    #[test]
    fn it_predicts_states_it_has_not_seen() {
        let model = fitted(400);
        let (states, scores) = seen(100, 9);
        let errors = model
            .predict(&states, 1)
            .mean
            .iter()
            .zip(&scores)
            .map(|(a, b)| (a - b).powi(2))
            .sum::<f64>()
            / 100.0;
        let mean = scores.iter().sum::<f64>() / 100.0;
        let variance = scores.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / 100.0;
        assert!(errors < 0.05 * variance, "{errors} of {variance}");
    }

    #[test]
    fn it_is_less_sure_of_what_is_far_from_all_it_saw() {
        let model = fitted(100);
        let spread = model
            .predict(&Matrix::from_vec(vec![0.0, 0.0, 0.0, 4.0, -4.0, 4.0], 2, 3), 1)
            .spread;
        assert!(spread[1] > 3.0 * spread[0], "{spread:?}");
    }

    #[test]
    fn weights_solve_the_normal_equations_worked_by_hand() {
        // One feature 1 and 3, targets 0 and 4, one copy each: mean 2, Σx(y - mean) = 1·(-2) + 3·2 = 4, Σxx = 10.
        let normal = Normal::of(&[1.0, 3.0], 1, &[0.0, 4.0], &[1.0, 1.0]);
        assert_eq!((normal.square[0], normal.right[0], normal.mean), (10.0, 4.0, 2.0));
        let weights = normal.solve(1.0).expect("solves");
        assert!((weights[0] - 4.0 / 20.0).abs() < 1e-5, "{weights:?}");
        // Two copies of the second: mean 8/3.
        assert!((Normal::of(&[1.0, 3.0], 1, &[0.0, 4.0], &[1.0, 2.0]).mean - 8.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn copies_have_the_poisson_law() {
        let e = (-1.0f64).exp();
        assert_eq!([0.5 * e, 1.5 * e, 2.2 * e, 2.6 * e].map(poisson), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(poisson(1.0), 10.0);
    }

    #[test]
    fn features_that_never_move_are_no_trouble() {
        let mut model = Ensemble::new(2, Seed(1));
        for i in 0..40 {
            model.add(&[i as f32, 7.0], 1, f64::from(i));
        }
        model.fit(Seed(2));
        let predicted = model.predict(&Matrix::from_vec(vec![20.0, 7.0], 1, 2), 1);
        assert!((predicted.mean[0] - 20.0).abs() < 2.0, "{predicted:?}");
    }

    #[test]
    fn one_seed_one_model_whatever_the_number_of_threads() {
        let predict = || fitted(60).predict(&seen(10, 5).0, 1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
        assert_eq!(predict(), pool.install(predict));
    }
}
