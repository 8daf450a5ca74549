//! A Gaussian process that predicts scores with their standard deviations.
//!
//! ```text
//! k(x, x') = exp(-|x - x'|² / 2l²) + c ⟨z, z'⟩ / features        mean = k(x, X) (K + σ²I)⁻¹ y
//! variance = k(x, x) - k(x, X) (K + σ²I)⁻¹ k(X, x)
//! ```
//!
//! where z are the standardised features. By the first part of the kernel, states of a similar mixture have similar scores: most
//! features are roots of shares, whose distance is Hellinger's. The second part is for single features that tell of all states, such
//! as the score of a faster proxy. Length, weight of the linear part and noise have the greatest marginal likelihood on a sample of
//! states. Scores are standardised by the number of steps, since most of a score is how much was taken.
//!
//! Source: Rasmussen & Williams 2006, algorithm 2.1 and section 5.4.1.

use faer::{Mat, Side, linalg::solvers::Llt, prelude::Solve};
use rayon::prelude::*;
use tamis_nn::{
    Matrix,
    kernels::{
        elementwise::exponentials,
        product::{Layout, product},
    },
};

use crate::reward_models::{Prediction, baseline::DepthBaseline};

/// The most states that predictions are made from; the time of a fit grows with the cube of their number.
const MAX_ACTIVE: usize = 1024;
/// The most states on which kernels are compared.
const MAX_SAMPLE: usize = 192;
/// The most states that are kept; the oldest go first.
const MAX_STATES: usize = 20_000;
/// The kernels that are compared: length scales, weights of the linear part, and noise variances as shares of the kernel's.
const LENGTHS: [f32; 5] = [0.15, 0.3, 0.5, 0.8, 1.3];
const LINEAR: [f32; 2] = [0.0, 1.0];
const NOISES: [f64; 5] = [0.001, 0.01, 0.03, 0.1, 0.3];
/// Standardised scores are clipped to this distance from 0: how bad a bad state is teaches nothing about good ones.
const MAX_DEVIATION: f32 = 4.0;

/// A model of the score, fitted on the states seen.
pub struct GaussianProcess {
    features: usize,
    /// Features of the states seen, shape `(states, features)`.
    inputs: Vec<f32>,
    /// Their scores, shape `(states,)`.
    scores: Vec<f64>,
    /// How many steps led to each, shape `(states,)`.
    steps: Vec<usize>,
    baseline: DepthBaseline,
    fitted: Option<Fitted>,
}

/// The states that predictions are made from, with the solved system.
struct Fitted {
    states: Points,
    kernel: Kernel,
    factor: Llt<f64>,
    /// `(K + σ²I)⁻¹ y`.
    weights: Vec<f32>,
    mean: f32,
    scales: Scales,
}

#[derive(Clone, Copy)]
struct Kernel {
    length: f32,
    linear: f32,
}

/// Features as they are and standardised, shapes `(points, features)`.
struct Points {
    raw: Vec<f32>,
    standard: Vec<f32>,
    features: usize,
}

/// Mean and scale of each feature.
struct Scales {
    centre: Vec<f32>,
    scale: Vec<f32>,
}

impl GaussianProcess {
    /// An empty model of states with so many features.
    pub fn new(features: usize) -> Self {
        Self {
            features,
            inputs: Vec::new(),
            scores: Vec::new(),
            steps: Vec::new(),
            baseline: DepthBaseline::default(),
            fitted: None,
        }
    }

    /// How many features a state has.
    pub fn features(&self) -> usize {
        self.features
    }

    /// How many states it keeps.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether it has seen no state.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// Adds a state that so many steps led to, and its score. Predictions change with the next [`GaussianProcess::fit`].
    ///
    /// # Panics
    ///
    /// If a state has another number of features.
    pub fn add(&mut self, features: &[f32], steps: usize, score: f64) {
        assert_eq!(features.len(), self.features, "features of a state");
        if self.len() == MAX_STATES {
            self.inputs.drain(..self.features);
            self.scores.remove(0);
            self.steps.remove(0);
        }
        self.inputs.extend_from_slice(features);
        self.scores.push(score);
        self.steps.push(steps);
    }

    /// Fits the states seen: all of them, or the best and the newest where they are many. Takes a fraction of a second.
    pub fn fit(&mut self) {
        self.baseline = DepthBaseline::default();
        let scored = || self.steps.iter().zip(&self.scores);
        scored().for_each(|(&steps, &score)| self.baseline.add(steps, score));
        let targets: Vec<f32> = scored()
            .map(|(&steps, &score)| {
                self.baseline
                    .standardise(steps, score)
                    .clamp(-MAX_DEVIATION, MAX_DEVIATION)
            })
            .collect();
        let active = active(&targets);
        let rows: Vec<f32> = active.iter().flat_map(|&i| self.row(i)).copied().collect();
        let scales = Scales::of(&rows, self.features);
        let targets: Vec<f32> = active.iter().map(|&i| targets[i]).collect();
        let mean = targets.iter().sum::<f32>() / targets.len().max(1) as f32;
        let targets: Vec<f32> = targets.iter().map(|y| y - mean).collect();
        let states = Points::new(rows, &scales);
        let (kernel, noise) = likeliest(&states, &targets);
        let Some(factor) = factor(&kernel.between(&states, &states), targets.len(), noise) else {
            return;
        };
        let weights = solve(&factor, &targets);
        self.fitted = Some(Fitted {
            states,
            kernel,
            factor,
            weights,
            mean,
            scales,
        });
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.inputs[i * self.features..(i + 1) * self.features]
    }

    /// Predicted scores of states with these features, shape `(states, features)`, and numbers of steps, shape `(states,)`; shape
    /// `(states,)`.
    ///
    /// # Panics
    ///
    /// If a state has another number of features, or not one number of steps a state.
    pub fn mean(&self, states: &Matrix, steps: &[usize]) -> Vec<f64> {
        self.means(states, steps).0
    }

    /// The same with standard deviations, which takes far longer; it is faster for many states at once.
    ///
    /// # Panics
    ///
    /// As [`GaussianProcess::mean`].
    pub fn predict(&self, states: &Matrix, steps: &[usize]) -> Prediction {
        let (mean, near) = self.means(states, steps);
        let unit = |j: usize| self.baseline.at(steps[j]).1;
        let Some(fitted) = &self.fitted else {
            let spread = (0..mean.len()).map(unit).collect();
            return Prediction { mean, spread };
        };
        let count = fitted.weights.len();
        let asked = Points::new(states.as_slice().to_vec(), &fitted.scales);
        let right = Mat::from_fn(count, states.rows(), |i, j| f64::from(near[j * count + i]));
        let solved = fitted.factor.solve(&right);
        let spread = (0..states.rows())
            .map(|j| {
                let known: f64 = (0..count).map(|i| right[(i, j)] * solved[(i, j)]).sum();
                unit(j) * (fitted.kernel.of_itself(&asked, j) - known).max(0.0).sqrt()
            })
            .collect();
        Prediction { mean, spread }
    }

    /// Means, and the kernel between these states and the fitted ones, shape `(states, fitted states)`.
    fn means(&self, states: &Matrix, steps: &[usize]) -> (Vec<f64>, Vec<f32>) {
        assert_eq!(states.cols(), self.features, "features of a state");
        assert_eq!(states.rows(), steps.len(), "steps to each state");
        let Some(fitted) = &self.fitted else {
            return (
                steps.iter().map(|&steps| self.baseline.at(steps).0).collect(),
                Vec::new(),
            );
        };
        let asked = Points::new(states.as_slice().to_vec(), &fitted.scales);
        let near = fitted.kernel.between(&asked, &fitted.states);
        let mut off = vec![0.0; steps.len()];
        product(
            &mut off,
            (steps.len(), fitted.weights.len(), 1),
            &near,
            Layout::Plain,
            &fitted.weights,
            Layout::Plain,
            0.0,
        );
        let restored = |(off, &steps): (&f32, &usize)| self.baseline.restore(steps, fitted.mean + off);
        let mean = off.iter().zip(steps).map(restored).collect();
        (mean, near)
    }
}

/// Which states are fitted: the half of [`MAX_ACTIVE`] that scored best, and the newest of the others.
fn active(targets: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..targets.len()).collect();
    if targets.len() > MAX_ACTIVE {
        order.sort_by(|&a, &b| targets[b].total_cmp(&targets[a]));
        order[MAX_ACTIVE / 2..].sort_unstable_by(|a, b| b.cmp(a));
        order.truncate(MAX_ACTIVE);
        order.sort_unstable();
    }
    order
}

/// The kernel and the noise of the greatest marginal likelihood.
fn likeliest(states: &Points, targets: &[f32]) -> (Kernel, f64) {
    let stride = targets.len().div_ceil(MAX_SAMPLE).max(1);
    let places: Vec<usize> = (0..targets.len()).step_by(stride).collect();
    let sample = states.gather(&places);
    let targets: Vec<f32> = places.iter().map(|&i| targets[i]).collect();
    let kernels = LENGTHS
        .iter()
        .flat_map(|&length| LINEAR.iter().map(move |&linear| Kernel { length, linear }));
    let tried: Vec<(Kernel, f64, f64)> = kernels
        .collect::<Vec<Kernel>>()
        .into_par_iter()
        .flat_map_iter(|kernel| {
            let square = kernel.between(&sample, &sample);
            let targets = &targets;
            NOISES.iter().map(move |&noise| {
                let likelihood = log_likelihood(&square, targets, noise);
                (kernel, noise, likelihood.unwrap_or(f64::NEG_INFINITY))
            })
        })
        .collect();
    let best = tried
        .into_iter()
        .reduce(|best, other| if other.2 > best.2 { other } else { best });
    best.map(|(kernel, noise, _)| (kernel, noise))
        .expect("kernels to choose from")
}

/// The log marginal likelihood of the targets, at the most likely scale of the kernel, up to a constant.
fn log_likelihood(square: &[f32], targets: &[f32], noise: f64) -> Option<f64> {
    let count = targets.len();
    let factor = factor(square, count, noise)?;
    let weights = solve(&factor, targets);
    let fit: f64 = weights.iter().zip(targets).map(|(w, y)| f64::from(w * y)).sum();
    let lower = factor.L();
    let log_root: f64 = (0..count).map(|i| lower[(i, i)].ln()).sum();
    Some(-0.5 * count as f64 * (fit / count as f64).max(1e-12).ln() - log_root)
}

/// The Cholesky factor of the kernel with noise on its diagonal; `None` if that is not positive definite.
fn factor(square: &[f32], count: usize, noise: f64) -> Option<Llt<f64>> {
    let matrix = Mat::from_fn(count, count, |i, j| {
        f64::from(square[i * count + j]) + if i == j { noise } else { 0.0 }
    });
    matrix.llt(Side::Lower).ok()
}

fn solve(factor: &Llt<f64>, targets: &[f32]) -> Vec<f32> {
    let right = Mat::from_fn(targets.len(), 1, |i, _| f64::from(targets[i]));
    let solved = factor.solve(&right);
    (0..targets.len()).map(|i| solved[(i, 0)] as f32).collect()
}

impl Kernel {
    /// The kernel between all pairs of points, shape `(a, b)`.
    fn between(self, a: &Points, b: &Points) -> Vec<f32> {
        let (rows, cols, features) = (a.len(), b.len(), a.features);
        let inner = |x: &[f32], y: &[f32]| {
            let mut out = vec![0.0; rows * cols];
            product(
                &mut out,
                (rows, features, cols),
                x,
                Layout::Plain,
                y,
                Layout::Transposed,
                0.0,
            );
            out
        };
        let squares = |points: &Points| -> Vec<f32> {
            let rows = points.raw.chunks_exact(features.max(1));
            rows.map(|row| row.iter().map(|x| x * x).sum()).collect()
        };
        let (of_a, of_b) = (squares(a), squares(b));
        let mut out = inner(&a.raw, &b.raw);
        let scale = -0.5 / (self.length * self.length);
        for (row, a) in out.chunks_exact_mut(cols.max(1)).zip(&of_a) {
            for (k, b) in row.iter_mut().zip(&of_b) {
                *k = scale * (a + b - 2.0 * *k).max(0.0);
            }
        }
        exponentials(&mut out);
        if self.linear > 0.0 {
            let share = self.linear / features.max(1) as f32;
            let linear = inner(&a.standard, &b.standard);
            out.iter_mut().zip(linear).for_each(|(k, x)| *k += share * x);
        }
        out
    }

    fn of_itself(self, points: &Points, i: usize) -> f64 {
        let row = &points.standard[i * points.features..(i + 1) * points.features];
        let square: f32 = row.iter().map(|x| x * x).sum();
        f64::from(1.0 + self.linear * square / points.features.max(1) as f32)
    }
}

impl Points {
    fn new(raw: Vec<f32>, scales: &Scales) -> Self {
        let features = scales.centre.len();
        let mut standard = raw.clone();
        for row in standard.chunks_exact_mut(features.max(1)) {
            for ((x, centre), scale) in row.iter_mut().zip(&scales.centre).zip(&scales.scale) {
                // Far outliers are clipped.
                *x = ((*x - centre) * scale).clamp(-8.0, 8.0);
            }
        }
        Self {
            raw,
            standard,
            features,
        }
    }

    fn len(&self) -> usize {
        self.raw.len() / self.features.max(1)
    }

    fn gather(&self, places: &[usize]) -> Self {
        let take = |rows: &[f32]| -> Vec<f32> {
            let row = |&i: &usize| &rows[i * self.features..(i + 1) * self.features];
            places.iter().flat_map(row).copied().collect()
        };
        Self {
            raw: take(&self.raw),
            standard: take(&self.standard),
            features: self.features,
        }
    }
}

impl Scales {
    fn of(rows: &[f32], features: usize) -> Self {
        let count = (rows.len() / features.max(1)).max(1) as f32;
        let (mut centre, mut scale) = (vec![0.0; features], vec![0.0; features]);
        for row in rows.chunks_exact(features.max(1)) {
            centre.iter_mut().zip(row).for_each(|(sum, x)| *sum += x / count);
        }
        for row in rows.chunks_exact(features.max(1)) {
            for ((square, x), centre) in scale.iter_mut().zip(row).zip(&centre) {
                *square += (x - centre).powi(2) / count;
            }
        }
        for square in &mut scale {
            // A constant feature tells nothing, and one that hardly varies must not be magnified.
            *square = if *square > 1e-12 { square.sqrt().recip() } else { 0.0 };
        }
        Self { centre, scale }
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use tamis_nn::seed::Seed;

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

    fn fitted(count: usize) -> GaussianProcess {
        let mut model = GaussianProcess::new(3);
        let (states, scores) = seen(count, 2);
        for (row, &score) in states.iter_rows().zip(&scores) {
            model.add(row, 1, score);
        }
        model.fit();
        model
    }

    #[test]
    fn it_predicts_states_it_has_not_seen() {
        let model = fitted(400);
        let (states, scores) = seen(100, 9);
        let predicted = model.predict(&states, &[1; 100]);
        let squares = predicted.mean.iter().zip(&scores).map(|(a, b)| (a - b).powi(2));
        let mean = scores.iter().sum::<f64>() / 100.0;
        let variance = scores.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / 100.0;
        let error = squares.sum::<f64>() / 100.0;
        assert!(error < 0.02 * variance, "{error} of {variance}");
        assert_eq!(predicted.mean, model.mean(&states, &[1; 100]));
    }

    #[test]
    fn it_is_less_sure_of_what_is_far_from_all_it_saw() {
        let states = Matrix::from_vec(vec![0.0, 0.0, 0.0, 4.0, -4.0, 4.0], 2, 3);
        let spread = fitted(100).predict(&states, &[1, 1]).spread;
        assert!(spread[1] > 3.0 * spread[0], "{spread:?}");
    }

    #[test]
    fn kernel_likelihood_and_weights_worked_by_hand() {
        let scales = Scales::of(&[0.0, 2.0], 1);
        assert_eq!((scales.centre[0], scales.scale[0]), (1.0, 1.0));
        let points = Points::new(vec![0.0, 2.0], &scales);
        let kernel = Kernel {
            length: 2.0,
            linear: 0.5,
        };
        // exp(-2² / (2 · 2²)) = exp(-0.5) between them; standardised they are -1 and 1.
        let square = kernel.between(&points, &points);
        let off = (-0.5f32).exp() - 0.5;
        for (value, expected) in square.iter().zip([1.5, off, off, 1.5]) {
            assert!((value - expected).abs() < 1e-6, "{square:?}");
        }
        assert!((kernel.of_itself(&points, 1) - 1.5).abs() < 1e-6);
        // One point, k = 1, noise 1, y = 2: weight 1, y k⁻¹ y = 2, so -ln(2) / 2 for the scale and -ln(2) / 2 for the root.
        assert_eq!(solve(&factor(&[1.0], 1, 1.0).expect("factors"), &[2.0]), [1.0]);
        let likelihood = log_likelihood(&[1.0], &[2.0], 1.0).expect("factors");
        assert!((likelihood + 2.0f64.ln()).abs() < 1e-12);
        assert!(factor(&[-1.0], 1, 0.1).is_none());
    }

    #[test]
    fn where_states_are_many_the_best_and_the_newest_are_learned_from() {
        let targets: Vec<f32> = (0..4 * MAX_ACTIVE)
            .map(|i| if i < MAX_ACTIVE { 1.0 } else { 0.0 })
            .collect();
        let active = active(&targets);
        assert_eq!(active.len(), MAX_ACTIVE);
        assert_eq!(active[MAX_ACTIVE / 2 - 1], MAX_ACTIVE / 2 - 1);
        assert_eq!(active[MAX_ACTIVE / 2], 4 * MAX_ACTIVE - MAX_ACTIVE / 2);
    }

    #[test]
    fn features_that_never_move_and_equal_scores_are_no_trouble() {
        let mut model = GaussianProcess::new(2);
        let states = Matrix::from_vec(vec![20.0, 7.0], 1, 2);
        assert_eq!(model.mean(&states, &[1]), [0.0]);
        for i in 0..40 {
            model.add(&[i as f32, 7.0], 1, f64::from(i));
        }
        model.fit();
        let mean = model.mean(&states, &[1])[0];
        assert!((mean - 20.0).abs() < 2.0, "{mean}");
        let mut flat = GaussianProcess::new(1);
        (0..10).for_each(|i| flat.add(&[i as f32], 1, 3.0));
        flat.fit();
        let predicted = flat.predict(&Matrix::from_vec(vec![4.0], 1, 1), &[1]);
        assert!(
            (predicted.mean[0] - 3.0).abs() < 1e-6 && predicted.spread[0].is_finite(),
            "{predicted:?}"
        );
    }

    #[test]
    fn one_answer_whatever_the_number_of_threads() {
        let predict = || fitted(300).predict(&seen(10, 5).0, &[1; 10]);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
        assert_eq!(predict(), pool.install(predict));
    }
}
