//! Class factors and a temperature, fitted on the very rows that are scored: predictions without their operating point.
//!
//! A selection can raise a metric by only moving the operating point, such as by a label mix that suits it better, and a
//! model that is fine-tuned on it does not keep that. So every model is first given the best operating point of its family
//!
//! ```text
//! q_ic ∝ p_ic^b w_c,   w_c = exp(a_c)         (over the classes c that occur among the targets)
//! ```
//!
//! with the factors w and, for the calibrated log loss, the sharpness b = 1 / temperature ≥ 0 that minimise the log loss of
//! these rows. In (a, b) that is a convex problem. Its condition for a_c is `Σ_i q_ic = n_c`: the predicted label mix is the
//! true one. With b = 1 the factors are thus those of iterative proportional fitting to row sums 1 and column sums n_c, and
//! p_ic w_c is how a posterior follows a shift of its class prior. We solve it by a damped Newton method instead: alternating
//! scaling needs hundreds of rounds where the model is sure of most rows.
//!
//! Classes that no target has get the factor 0, which is the limit of the fit. A question with fewer choices than others has
//! zeros at its end, which stay 0; what a row does have counts with at least 1e-15.
//!
//! Sources: Deming & Stephan 1940 and Sinkhorn 1964 (proportional fitting); Saerens, Latinne & Decaestecker 2002, equation
//! 2.4 (posteriors under a shifted prior; they estimate an unknown mix, we know it); Guo et al., arXiv 1706.04599, section 4
//! (temperature, vector scaling); Nocedal & Wright 2006, section 3.3 (Newton steps with backtracking).

use tamis_nn::Matrix;

use crate::metrics::ln;

/// The most Newton steps; five to ten are the rule.
const STEPS: usize = 60;
/// No parameter moves further in one step, times 1 + sharpness: where the loss is almost flat, Newton's own step would be
/// without bounds. Rows that a fit can tell apart without fail want both ever larger, so the bound grows along.
const LONGEST_STEP: f64 = 4.0;
/// The fit ends where a step promises less than this, in nats a row.
const TOLERANCE: f64 = 1e-9;
/// What is added to the Hessian's diagonal, times the rows, so that a direction the loss does not depend on is no trouble.
const DAMPING: f64 = 1e-10;

/// The mean log loss at the best class factors and the best temperature; lower is better. At least one row.
///
/// With one class among the targets it is 0.
pub(crate) fn calibrated_loss(probabilities: &Matrix, targets: &[u32]) -> f64 {
    let mut fit = Fit::new(probabilities, targets);
    fit.descend(true);
    if fit.parameters.sharpness < 0.0 {
        // The predictions are worse than none. The best sharpness that is not below 0 is then 0, since the loss is convex.
        fit.parameters.sharpness = 0.0;
        let last = fit.counts[fit.counts.len() - 1];
        for (bias, count) in fit.parameters.bias.iter_mut().zip(&fit.counts) {
            *bias = (count / last).ln();
        }
        fit.loss = fit.predict(&fit.parameters.clone());
        fit.descend(false);
    }
    fit.loss / targets.len() as f64
}

/// The probabilities whose mean is the label mix of the targets, shape `(n, outputs)`. At least one row.
pub(crate) fn matched(probabilities: &Matrix, targets: &[u32]) -> Matrix {
    let mut fit = Fit::new(probabilities, targets);
    fit.descend(false);
    let mut matched = Matrix::zeros(probabilities.rows(), probabilities.cols());
    for i in 0..targets.len() {
        let row = matched.row_mut(i);
        for (&q, &c) in fit.predicted[fit.starts[i]..fit.starts[i + 1]].iter().zip(&fit.classes) {
            row[c] = q as f32;
        }
    }
    matched
}

/// a and b; the last bias stays 0, since only differences matter.
#[derive(Clone)]
struct Parameters {
    bias: Vec<f64>,
    sharpness: f64,
}

/// A fit in progress. A *place* is the number of a class among those that occur.
struct Fit {
    /// The class of each place, ascending.
    classes: Vec<usize>,
    /// How many rows have the class of each place.
    counts: Vec<f64>,
    /// Row `i` holds the places from 0 to `starts[i + 1] - starts[i]`, at `starts[i]` in what follows.
    starts: Vec<usize>,
    /// The place of each row's target.
    targets: Vec<usize>,
    /// ln p, less the row's greatest.
    logs: Vec<f64>,
    /// q, at the parameters.
    predicted: Vec<f64>,
    parameters: Parameters,
    /// The sum over the rows of the log loss, at the parameters.
    loss: f64,
}

impl Fit {
    /// At the probabilities as they came: no biases, sharpness 1.
    fn new(probabilities: &Matrix, targets: &[u32]) -> Self {
        let mut by_class = vec![0.0; probabilities.cols()];
        for &y in targets {
            by_class[y as usize] += 1.0;
        }
        let classes: Vec<usize> = (0..by_class.len()).filter(|&c| by_class[c] > 0.0).collect();
        let counts: Vec<f64> = classes.iter().map(|&c| by_class[c]).collect();
        let (mut starts, mut logs) = (vec![0], Vec::with_capacity(targets.len() * classes.len()));
        for (row, &y) in probabilities.iter_rows().zip(targets) {
            let last = row.iter().rposition(|&p| p > 0.0).unwrap_or(0).max(y as usize);
            let start = logs.len();
            let answers = classes.iter().take_while(|&&c| c <= last);
            logs.extend(answers.map(|&c| ln(row[c])));
            let greatest = logs[start..].iter().copied().fold(f64::NEG_INFINITY, f64::max);
            logs[start..].iter_mut().for_each(|log| *log -= greatest);
            starts.push(logs.len());
        }
        let mut fit = Self {
            targets: targets
                .iter()
                .map(|&y| classes.partition_point(|&c| c < y as usize))
                .collect(),
            parameters: Parameters {
                bias: vec![0.0; classes.len()],
                sharpness: 1.0,
            },
            predicted: vec![0.0; logs.len()],
            loss: 0.0,
            classes,
            counts,
            starts,
            logs,
        };
        fit.loss = fit.predict(&fit.parameters.clone());
        fit
    }

    /// Writes q at these parameters and gives the summed loss.
    fn predict(&mut self, at: &Parameters) -> f64 {
        let mut loss = 0.0;
        for (range, &target) in self.starts.windows(2).zip(&self.targets) {
            let q = &mut self.predicted[range[0]..range[1]];
            let mut greatest = f64::NEG_INFINITY;
            for ((q, log), bias) in q.iter_mut().zip(&self.logs[range[0]..range[1]]).zip(&at.bias) {
                *q = at.sharpness * log + bias;
                greatest = greatest.max(*q);
            }
            let right = q[target] - greatest;
            let mut sum = 0.0;
            for q in q.iter_mut() {
                *q = (*q - greatest).exp();
                sum += *q;
            }
            q.iter_mut().for_each(|q| *q /= sum);
            loss += sum.ln() - right;
        }
        loss
    }

    /// Newton steps to the least loss, in the biases and, if `temperature`, the sharpness.
    fn descend(&mut self, temperature: bool) {
        let free = self.counts.len() - 1 + usize::from(temperature);
        if self.counts.len() == 1 {
            return;
        }
        let rows = self.targets.len() as f64;
        let (mut gradient, mut hessian, mut step) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..STEPS {
            self.derivatives(free, &mut gradient, &mut hessian);
            solve(&mut hessian, &gradient, DAMPING * rows, &mut step);
            let longest = step.iter().fold(0.0, |longest: f64, x| longest.max(x.abs()));
            let scale = (LONGEST_STEP * (1.0 + self.parameters.sharpness.abs()) / longest).min(1.0);
            step.iter_mut().for_each(|x| *x *= -scale);
            let promise: f64 = gradient.iter().zip(&step).map(|(g, x)| g * x).sum();
            // The last step is worth taking, but too small to be seen in the loss.
            let last = promise > -TOLERANCE * rows;
            let slack = if last { TOLERANCE * rows } else { 0.0 };
            let accepted = (0..40).map(|halvings| 0.5f64.powi(halvings)).find_map(|length| {
                let next = self.parameters.moved(&step, length);
                let loss = self.predict(&next);
                (loss <= self.loss + 1e-4 * length * promise + slack).then_some((next, loss))
            });
            let Some((next, loss)) = accepted else {
                self.predict(&self.parameters.clone());
                return;
            };
            (self.parameters, self.loss) = (next, loss);
            if last {
                return;
            }
        }
    }

    /// The loss's gradient, shape `(free,)`, and the lower half of its Hessian, shape `(free, free)`, at the parameters.
    ///
    /// The biases but the last come first, then the sharpness, if it is free. With z = ln p and means under q:
    ///
    /// ```text
    /// ∂a_c = Σ q_c − n_c                 ∂b = Σ (mean z − z_y)
    /// ∂²a_c a_d = Σ q_c ([c = d] − q_d)  ∂²a_c b = Σ q_c (z_c − mean z)  ∂²b = Σ mean (z − mean z)²
    /// ```
    fn derivatives(&self, free: usize, gradient: &mut Vec<f64>, hessian: &mut Vec<f64>) {
        let biases = self.counts.len() - 1;
        gradient.clear();
        gradient.extend(self.counts[..biases].iter().map(|count| -count));
        gradient.resize(free, 0.0);
        hessian.clear();
        hessian.resize(free * free, 0.0);
        for (range, &target) in self.starts.windows(2).zip(&self.targets) {
            let q = &self.predicted[range[0]..range[1]];
            let z = &self.logs[range[0]..range[1]];
            let used = q.len().min(biases);
            for (c, &q_c) in q[..used].iter().enumerate() {
                gradient[c] += q_c;
                // What is smaller does not show in a Hessian that is damped by as much.
                if q_c > DAMPING {
                    hessian[c * free + c] += q_c;
                    for (h, q_d) in hessian[c * free..=c * free + c].iter_mut().zip(q) {
                        *h -= q_c * q_d;
                    }
                }
            }
            if free > biases {
                let mean: f64 = q.iter().zip(z).map(|(q, z)| q * z).sum();
                gradient[biases] += mean - z[target];
                let last = &mut hessian[biases * free..];
                for ((h, q), z) in last[..biases].iter_mut().zip(q).zip(z) {
                    *h += q * (z - mean);
                }
                last[biases] += q.iter().zip(z).map(|(q, z)| q * (z - mean) * (z - mean)).sum::<f64>();
            }
        }
    }
}

impl Parameters {
    fn moved(&self, step: &[f64], length: f64) -> Self {
        let mut next = self.clone();
        let biases = next.bias.len() - 1;
        for (bias, x) in next.bias[..biases].iter_mut().zip(step) {
            *bias += length * x;
        }
        if let Some(x) = step.get(biases) {
            next.sharpness += length * x;
        }
        next
    }
}

/// Solves `(H + damping I) x = g` by Cholesky; H comes as its lower half and leaves as the factor's.
fn solve(hessian: &mut [f64], gradient: &[f64], damping: f64, x: &mut Vec<f64>) {
    let n = gradient.len();
    x.clear();
    x.extend_from_slice(gradient);
    for i in 0..n {
        let (above, row) = hessian.split_at_mut(i * n);
        for j in 0..i {
            let done = &above[j * n..j * n + j];
            let sum: f64 = row[..j].iter().zip(done).map(|(a, b)| a * b).sum();
            row[j] = (row[j] - sum) / above[j * n + j];
        }
        let sum: f64 = row[..i].iter().map(|a| a * a).sum();
        // Rounding can take a pivot below the damping, never the matrix itself.
        row[i] = (row[i] + damping - sum).max(damping).sqrt();
        let sum: f64 = row[..i].iter().zip(&x[..i]).map(|(a, b)| a * b).sum();
        x[i] = (x[i] - sum) / row[i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|j| hessian[j * n + i] * x[j]).sum();
        x[i] = (x[i] - sum) / hessian[i * n + i];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::{Metric, MetricKind};

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }

    fn matrix(rows: &[&[f32]]) -> Matrix {
        Matrix::from_vec(rows.concat(), rows.len(), rows[0].len())
    }

    /// The entropy of a mix of two, in nats.
    fn entropy(p: f64) -> f64 {
        -(p * p.ln() + (1.0 - p) * (1.0 - p).ln())
    }

    #[test]
    fn alike_predictions_are_calibrated_to_the_label_mix() {
        // No factor or temperature tells the rows apart, so the best prediction is the mix 3 : 1 for each of them. Class 2
        // is not among the targets and gets nothing.
        let p = matrix(&[&[0.1, 0.6, 0.3][..]; 4]);
        close(Metric::Calibrated.score(&p, &[0, 0, 1, 0]), -entropy(0.75));
        let matched = matched(&p, &[0, 0, 1, 0]);
        for row in matched.iter_rows() {
            close(f64::from(row[0]), 0.75);
            assert_eq!(row[2], 0.0);
        }
    }

    #[test]
    fn too_sure_a_model_is_cooled() {
        // Each class: three rows right with odds 9 and one wrong with odds 9. By symmetry no bias; odds 9^b are best at
        // 3 : 1, so b = 1/2 and the loss is the entropy of 3 : 1. Uncalibrated: -(3 ln 0.9 + ln 0.1) / 4 = 0.654666.
        let (zero, one): (&[f32], &[f32]) = (&[0.9, 0.1], &[0.1, 0.9]);
        let p = matrix(&[zero, zero, zero, one, one, one, one, zero]);
        let y = [0, 0, 0, 0, 1, 1, 1, 1];
        close(Metric::soft(MetricKind::LogLoss).score(&p, &y), -0.654_666);
        close(Metric::Calibrated.score(&p, &y), -entropy(0.75));
    }

    #[test]
    fn a_model_that_is_mostly_wrong_is_ignored_and_not_turned_round() {
        let (zero, one): (&[f32], &[f32]) = (&[0.9, 0.1], &[0.1, 0.9]);
        // One of three right in each class: odds 1 are best, as the sharpness cannot be below 0. The loss is ln 2.
        let p = matrix(&[zero, one, one, one, zero, zero]);
        close(Metric::Calibrated.score(&p, &[0, 0, 0, 1, 1, 1]), -2f64.ln());
        // With a mix of 2 : 1 it is that mix's entropy.
        let p = matrix(&[one, one, zero, zero]);
        close(Metric::Calibrated.score(&p, &[0, 0, 0, 1]), -entropy(0.75));
    }

    #[test]
    fn a_mix_is_matched_as_by_hand() {
        // Odds for class 0 are 4 and 3/2; times w they must give 4w/(1 + 4w) + 1.5w/(1 + 1.5w) = 1, so 6 w² = 1 and the
        // first row's odds are 4/√6 = 1.632993: 0.620204 for its class. The second row's are the inverse.
        let p = matrix(&[&[0.8, 0.2], &[0.6, 0.4]]);
        let y = [0, 1];
        let right = 0.620_204_102_886_728_7;
        close(Metric::Matched(MetricKind::Accuracy).score(&p, &y), right);
        // Each class: 2 * right / (1 + 1).
        close(Metric::Matched(MetricKind::MacroF1).score(&p, &y), right);
        close(Metric::Matched(MetricKind::LogLoss).score(&p, &y), right.ln());
        // As they came: (0.8 + 0.4) / 2.
        close(Metric::soft(MetricKind::Accuracy).score(&p, &y), 0.6);
    }

    /// ```python
    /// z = np.log(p)
    /// def loss(t):
    ///     l = t[2] * z + np.array([t[0], t[1], 0])
    ///     return np.mean(np.log(np.exp(l).sum(1)) - l[np.arange(8), y])
    /// scipy.optimize.minimize(loss, [0, 0, 1], method="BFGS", options={"gtol": 1e-12}).fun
    /// scipy.optimize.minimize(lambda t: loss([t[0], t[1], 1]), [0, 0], method="BFGS", options={"gtol": 1e-12}).fun
    /// # and the mean of the right answers' q at that point
    /// ```
    #[test]
    fn the_fit_is_that_of_another_optimiser() {
        let p = matrix(&[
            &[0.7, 0.2, 0.1],
            &[0.4, 0.4, 0.2],
            &[0.1, 0.3, 0.6],
            &[0.25, 0.5, 0.25],
            &[0.2, 0.5, 0.3],
            &[0.3, 0.3, 0.4],
            &[0.5, 0.25, 0.25],
            &[0.2, 0.2, 0.6],
        ]);
        let y = [0, 0, 2, 1, 2, 1, 1, 0];
        close(Metric::Calibrated.score(&p, &y), -0.963_992_662_7);
        close(Metric::Matched(MetricKind::LogLoss).score(&p, &y), -0.964_401_389_0);
        close(Metric::Matched(MetricKind::Accuracy).score(&p, &y), 0.412_029_382_7);
    }

    #[test]
    fn sure_models_keep_finite_scores_and_matched_mixes() {
        // Rows of one class: there is nothing to lose.
        close(Metric::Calibrated.score(&matrix(&[&[0.2, 0.8]]), &[0]), 0.0);
        // Told apart without fail: the loss goes to 0, with the temperature.
        let p = matrix(&[&[0.6, 0.4], &[0.7, 0.3], &[0.4, 0.6], &[0.45, 0.55]]);
        let loss = Metric::Calibrated.score(&p, &[0, 0, 1, 1]);
        assert!((-1e-6..=0.0).contains(&loss), "{loss}");
        // The same where the rows are hardly apart.
        let p = matrix(&[&[0.501, 0.499], &[0.5, 0.5]]);
        let loss = Metric::Calibrated.score(&p, &[0, 1]);
        assert!((-1e-6..=0.0).contains(&loss), "{loss}");
        // Surer than f32 can say, 60 rows of class 0 and 40 of class 1 predicted, where there are 50 of each: the 1e-15
        // at the bottom is scaled up until 10 of the 60 have moved.
        let rows: Vec<&[f32]> = (0..100)
            .map(|i| if i < 60 { &[1.0, 1e-30][..] } else { &[0.0, 1.0] })
            .collect();
        let y: Vec<u32> = (0..100).map(|i| u32::from(i >= 50)).collect();
        let matched = matched(&matrix(&rows), &y);
        close(
            matched.iter_rows().map(|row| f64::from(row[0])).sum::<f64>() / 100.0,
            0.5,
        );
        close(f64::from(matched.row(0)[0]), 5.0 / 6.0);
        assert!(Metric::Calibrated.score(&matrix(&rows), &y).is_finite());
    }

    #[test]
    fn rows_with_fewer_answers_give_them_nothing() {
        let p = matrix(&[&[0.5, 0.5, 0.0], &[0.3, 0.7, 0.0], &[0.2, 0.3, 0.5], &[0.6, 0.2, 0.2]]);
        let y = [0, 1, 2, 0];
        let matched = matched(&p, &y);
        let mix = |c: usize| matched.iter_rows().map(|row| f64::from(row[c])).sum::<f64>();
        assert_eq!((matched.row(0)[2], matched.row(1)[2]), (0.0, 0.0));
        close(mix(0), 2.0);
        close(mix(1), 1.0);
        close(mix(2), 1.0);
        for (_, metric) in Metric::NAMES {
            assert!(metric.score(&p, &y).is_finite(), "{metric}");
            // Even where every model is sure of a wrong answer, or of one that the row lacks.
            let sure = matrix(&[&[0.0, 1.0, 0.0], &[1.0, 0.0, 0.0], &[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0]]);
            assert!(metric.score(&sure, &y).is_finite(), "{metric}");
        }
    }

    /// Targets, positive weights of every class for each of them, and a factor a class.
    fn problem(classes: usize, most: usize) -> impl Strategy<Value = (Vec<u32>, Vec<Vec<f32>>, Vec<f32>)> {
        // Whole thousandths.
        let numbers =
            |low: u16, high: u16| prop::collection::vec((low..high).prop_map(|k| f32::from(k) / 1000.0), classes);
        let rows = prop::collection::vec((0..classes as u32, numbers(20, 1000)), 2..most);
        (rows, numbers(200, 5000)).prop_map(|(rows, factors)| {
            let (targets, rows) = rows.into_iter().unzip();
            (targets, rows, factors)
        })
    }

    fn normalised(rows: &[Vec<f32>], factors: Option<&[f32]>) -> Matrix {
        let cols = rows[0].len();
        let data = rows.iter().flat_map(|row| {
            let scaled: Vec<f32> = (0..cols).map(|c| row[c] * factors.map_or(1.0, |w| w[c])).collect();
            let sum: f32 = scaled.iter().sum();
            scaled.into_iter().map(move |p| p / sum)
        });
        Matrix::from_vec(data.collect(), rows.len(), cols)
    }

    fn check((targets, rows, factors): &(Vec<u32>, Vec<Vec<f32>>, Vec<f32>)) -> Result<(), TestCaseError> {
        let (p, shifted) = (normalised(rows, None), normalised(rows, Some(factors)));
        for metric in [
            Metric::Calibrated,
            Metric::Matched(MetricKind::Accuracy),
            Metric::Matched(MetricKind::MacroF1),
            Metric::Matched(MetricKind::LogLoss),
        ] {
            let (a, b) = (metric.score(&p, targets), metric.score(&shifted, targets));
            prop_assert!((a - b).abs() < 2e-5, "{metric}: {a} and {b}");
        }
        let loss = Metric::soft(MetricKind::LogLoss);
        for p in [&p, &shifted] {
            let calibrated = Metric::Calibrated.score(p, targets);
            prop_assert!(calibrated >= loss.score(p, targets));
            // Factors alone cannot do better than factors and a temperature.
            prop_assert!(calibrated >= Metric::Matched(MetricKind::LogLoss).score(p, targets) - 1e-6);
            let matched = matched(p, targets);
            for c in 0..p.cols() {
                let mix: f64 = matched.iter_rows().map(|row| f64::from(row[c])).sum();
                let count = targets.iter().filter(|&&y| y as usize == c).count() as f64;
                prop_assert!((mix - count).abs() < 1e-5 * targets.len() as f64, "{mix} of {count}");
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn factors_of_the_classes_change_nothing(problem in problem(3, 60)) {
            check(&problem)?;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn nor_do_they_with_many_classes(problem in problem(77, 400)) {
            check(&problem)?;
        }
    }
}
