//! The proxy for rows of responses: what a fine-tune on them promises, from gradients that were worked out once.
//!
//! Around the weights that gradients are of, the loss of a row with gradient g changes along a step z by about g·z + ½ (g·z)². A fine-tune
//! on the rows S is one step of a natural gradient, held back by λ, and its score is the loss of the fold V behind that step, negated:
//!
//! ```text
//! z = −(F_S + λI)⁻¹ ḡ_S        score = −(L_V + ḡ_V·z + ½ zᵀ F_V z)        ḡ the mean of gradients, F that of their outer products
//! ```
//!
//! Sums of g and g gᵀ add up chunk by chunk, as the ridge probe's do, so an evaluation costs one Cholesky factorisation and one product
//! with F_V. In S a row's gradient counts over the root of its tokens ([`GradientData`]); L_V is the mean over rows of the loss a token,
//! in nats. No rows take no step and score −L_V.
//!
//! [`Insight`]: a row g that is added with weight ε moves the score along `(w·g)(1 + g·z) + λ w·z`, with `w = (Σggᵀ + nλI)⁻¹ (ḡ_V + F_V z)`.
//!
//! Source: Amari 1998 (natural gradient), Martens 2020, section 11 (the empirical Fisher), Xia et al., arXiv 2402.04333 (gradients of rows
//! as what they teach).

use std::sync::{Arc, Mutex, PoisonError};

use tamis_nn::{
    Fingerprint, Matrix,
    kernels::product::{Layout, product},
    seed::Seed,
};

use crate::{
    Error, Result,
    data::RowId,
    scorer::{
        Insight, Scorer, ScorerRun,
        gradient::gradient_data::{GradientData, root_of_tokens},
        ridge::{
            chunk_moments::ChunkMoments,
            regression::{Scratch, SufficientStatistics, dot},
        },
    },
};

/// How many rows of a chunk its influence is estimated from at most.
const INSIGHT_ROWS: usize = 16;

/// How far a step goes, and what may be kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientProbeSettings {
    /// λ; greater than 0. The higher, the shorter the step and the less rows differ by their curvature.
    pub ridge: f64,
    /// How many bytes the chunks' moments may take.
    pub gram_memory: usize,
}

/// The gradients of a pool, and the fold on which a step is scored.
pub struct GradientProbe {
    train: Arc<GradientData>,
    fold: Arc<GradientData>,
    /// L_V.
    fold_loss: f64,
    /// ḡ_V, shape `(directions,)`.
    fold_mean: Vec<f32>,
    /// F_V, shape `(directions, directions)`.
    fold_fisher: Matrix,
    /// λ.
    ridge: f64,
    chunks: ChunkMoments,
    fingerprint: Fingerprint,
    spare: Mutex<Vec<Scratch>>,
}

impl GradientProbe {
    /// A probe that takes steps on rows of `train`, and scores them on all of `fold`.
    ///
    /// # Errors
    ///
    /// If gradients cannot be read.
    ///
    /// # Panics
    ///
    /// If the two have different directions.
    pub fn new(train: Arc<GradientData>, fold: Arc<GradientData>, settings: GradientProbeSettings) -> Result<Self> {
        assert_eq!(train.width(), fold.width(), "gradients in the same directions");
        let GradientProbeSettings { ridge, gram_memory } = settings;
        let (rows, width) = (fold.losses.len(), train.width());
        // A row's gradient over its tokens is the one that is kept over their root.
        let share = |row: usize| 1.0 / (rows as f32 * root_of_tokens(&fold.losses[row]));
        let mut weighted = Matrix::clone(&fold.gradients);
        for row in 0..rows {
            let share = share(row);
            weighted.row_mut(row).iter_mut().for_each(|x| *x *= share);
        }
        let mut fold_mean = vec![0.0; width];
        for row in weighted.iter_rows() {
            fold_mean.iter_mut().zip(row).for_each(|(mean, g)| *mean += g);
        }
        let mut fold_fisher = Matrix::zeros(width, width);
        product(
            fold_fisher.as_mut_slice(),
            (width, rows, width),
            weighted.as_slice(),
            Layout::Transposed,
            fold.gradients.as_slice(),
            Layout::Plain,
            0.0,
        );
        let fingerprint = Fingerprint::of([
            "gradient probe 2".as_bytes(),
            &ridge.to_le_bytes(),
            train.fingerprint()?.as_ref(),
            fold.fingerprint()?.as_ref(),
        ]);
        Ok(Self {
            chunks: ChunkMoments::new(Arc::clone(&train.design), gram_memory),
            train,
            fold_loss: fold.loss_after(&vec![0.0; width]),
            fold,
            fold_mean,
            fold_fisher,
            ridge,
            fingerprint,
            spare: Mutex::default(),
        })
    }

    fn lease(&self) -> Scratch {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Scratch::new(self.train.width()))
    }

    fn give_back(&self, scratch: Scratch) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }

    /// `F_V z`.
    fn curvature(&self, step: &[f32]) -> Vec<f32> {
        self.fold_fisher.iter_rows().map(|row| dot(row, step)).collect()
    }
}

impl Scorer for GradientProbe {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn start(&self, _seed: Seed) -> Result<Box<dyn ScorerRun + '_>> {
        Ok(Box::new(Run {
            probe: self,
            moments: SufficientStatistics::empty(self.train.width(), 1),
            step: None,
        }))
    }
}

/// The step z on rows with these moments. Leaves the factor of `Σggᵀ + nλI` in `scratch`.
///
/// # Errors
///
/// If a gradient is not finite.
pub(crate) fn step_of(moments: &SufficientStatistics, ridge: f64, scratch: &mut Scratch) -> Result<Vec<f32>> {
    moments.factor_around_zero(ridge * f64::from(moments.divisor()), scratch)?;
    let mut step: Vec<f32> = moments.sum().iter().map(|sum| -sum).collect();
    let width = step.len();
    scratch.solve(&mut step, width);
    Ok(step)
}

/// The rows taken so far, as moments. The step is unique, so the seed plays no part.
struct Run<'a> {
    probe: &'a GradientProbe,
    moments: SufficientStatistics,
    /// The factor of the present moments, where it is at hand, and z.
    step: Option<(Scratch, Vec<f32>)>,
}

impl Run<'_> {
    fn step(&mut self) -> Result<(&Scratch, &[f32])> {
        if self.step.is_none() {
            let mut scratch = self.probe.lease();
            match step_of(&self.moments, self.probe.ridge, &mut scratch) {
                Ok(step) => self.step = Some((scratch, step)),
                Err(error) => {
                    self.probe.give_back(scratch);
                    return Err(error);
                }
            }
        }
        let (scratch, step) = self.step.as_ref().expect("set above");
        Ok((scratch, step))
    }

    fn forget_step(&mut self) {
        if let Some((scratch, _)) = self.step.take() {
            self.probe.give_back(scratch);
        }
    }
}

impl ScorerRun for Run<'_> {
    fn add(&mut self, rows: &[RowId]) -> Result<()> {
        self.forget_step();
        let mut scratch = self.probe.lease();
        let added = self.probe.chunks.of(rows, &mut scratch);
        self.probe.give_back(scratch);
        self.moments.add(&*added?);
        Ok(())
    }

    fn score(&mut self) -> Result<f64> {
        let probe = self.probe;
        let (_, step) = self.step()?;
        let change = dot(&probe.fold_mean, step) + 0.5 * dot(&probe.curvature(step), step);
        let score = -(probe.fold_loss + f64::from(change));
        if score.is_finite() {
            Ok(score)
        } else {
            Err(Error::NotFinite {
                place: "the gradient probe's score".into(),
                found: score.to_string(),
            })
        }
    }

    fn fork(&self) -> Box<dyn ScorerRun + '_> {
        Box::new(Run {
            probe: self.probe,
            moments: self.moments.clone(),
            step: None,
        })
    }

    fn insight(&mut self, chunks: &[&[RowId]]) -> Result<Option<Insight>> {
        let probe = self.probe;
        let (scratch, step) = self.step()?;
        // w of the module's formula.
        let mut along = probe.curvature(step);
        along.iter_mut().zip(&probe.fold_mean).for_each(|(u, g)| *u += g);
        scratch.solve(&mut along, probe.train.width());
        let back = probe.ridge as f32 * dot(&along, step);
        let of_chunk = |rows: &&[RowId]| {
            let used = rows.len().min(INSIGHT_ROWS);
            let rows_used = (0..used).map(|k| rows[k * rows.len() / used] as usize);
            let influence: f32 = rows_used
                .clone()
                .map(|row| {
                    let g = probe.train.gradient(row);
                    dot(&along, g) * (1.0 + dot(g, step)) + back
                })
                .sum();
            let loss = rows_used.map(|row| probe.train.row_loss_after(row, step)).sum::<f32>() / used.max(1) as f32;
            (influence * rows.len() as f32 / used.max(1) as f32, loss)
        };
        let (influence, chunk_loss) = chunks.iter().map(of_chunk).unzip();
        let fold = 0..probe.fold.losses.len();
        Ok(Some(Insight {
            influence,
            chunk_loss,
            fold_loss: fold.map(|row| probe.fold.row_loss_after(row, step)).collect(),
        }))
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.forget_step();
    }
}

#[cfg(test)]
mod tests {
    use tamis_nn::train::ResponseLoss;

    use super::*;

    fn data(rows: &[[f32; 2]], tokens: u64) -> Arc<GradientData> {
        let losses = vec![ResponseLoss { sum: 6.0, tokens }; rows.len()];
        Arc::new(GradientData::new(
            Matrix::from_vec(rows.concat(), rows.len(), 2),
            losses,
        ))
    }

    fn probe_of(train: &[[f32; 2]], fold: &[[f32; 2]], damping: f64) -> GradientProbe {
        let pool: Vec<RowId> = (0..train.len() as RowId).collect();
        let train = data(train, 1);
        let settings = GradientProbeSettings {
            ridge: damping * train.mean_eigenvalue(&pool).expect("no zeros"),
            gram_memory: 1 << 20,
        };
        GradientProbe::new(train, data(fold, 1), settings).expect("reads")
    }

    fn score_of(probe: &GradientProbe, chunks: &[&[RowId]]) -> f64 {
        let mut run = probe.start(Seed(0)).expect("starts");
        for chunk in chunks {
            run.add(chunk).expect("adds");
        }
        run.score().expect("scores")
    }

    #[test]
    fn a_step_and_its_promise_worked_by_hand() {
        // Mean square of the pool: (4 + 4) / (2 rows · 2 directions) = 2; damping 1/2: λ = 1.
        // S = {(2, 0)}: F = diag(4, 0), z = -(2 / 5, 0). V = {(1, 1), (1, -1)}: ḡ = (1, 0), F = I.
        // Of the loss, which is 6, it takes -(1 · -.4 + ½ · .16) = .32. S = {(0, 2)}: z = -(0, .4): -(0 + .08).
        let probe = probe_of(&[[2.0, 0.0], [0.0, 2.0]], &[[1.0, 1.0], [1.0, -1.0]], 0.5);
        assert!((score_of(&probe, &[&[0]]) + 6.0 - 0.32).abs() < 1e-6);
        assert!((score_of(&probe, &[&[1]]) + 6.0 + 0.08).abs() < 1e-6);
        assert_eq!(score_of(&probe, &[]), -6.0);
        // Both: F = diag(2, 2), ḡ = (1, 1), z = -(1/3, 1/3): -(-1/3 + ½ · 2/9) = 2/9; in either order, in one chunk or two.
        for chunks in [&[&[0][..], &[1]][..], &[&[1], &[0]], &[&[0, 1]]] {
            assert!((score_of(&probe, chunks) + 6.0 - 2.0 / 9.0).abs() < 1e-6);
        }
    }

    #[test]
    fn long_responses_count_by_the_root_of_their_tokens() {
        let long = data(&[[2.0, 4.0]], 4);
        assert_eq!(long.gradient(0), [1.0, 2.0]);
        // What is scored is the loss a token: 6/4 + (2, 4)·z / 4 + ½ ((1, 2)·z)² / 2, the same whichever way it is worked out.
        let settings = GradientProbeSettings {
            ridge: 1.0,
            gram_memory: 1 << 20,
        };
        let train = data(&[[2.0, 0.0], [0.0, 2.0]], 1);
        let probe = GradientProbe::new(train, Arc::clone(&long), settings).expect("reads");
        let z = [-0.4, 0.0];
        let want = 1.5 + 2.0 * z[0] / 4.0 + 0.5 * (1.0 * z[0] * z[0]) / 2.0;
        assert!((f64::from(want) + score_of(&probe, &[&[0]])).abs() < 1e-6);
        assert!((long.row_loss_after(0, &z) - want).abs() < 1e-6);
    }

    fn random(rows: usize, seed: u64) -> Vec<[f32; 2]> {
        use rand::RngExt;
        let mut rng = Seed(seed).rng();
        (0..rows)
            .map(|_| [rng.random::<f32>() - 0.3, rng.random::<f32>() - 0.6])
            .collect()
    }

    #[test]
    fn influence_is_the_slope_of_the_score_by_a_rows_weight() {
        let (train, fold) = (random(30, 1), random(20, 2));
        let probe = probe_of(&train, &fold, 0.7);
        let taken: Vec<RowId> = (0..12).collect();
        let mut scratch = Scratch::new(2);
        let moments = |rows: &[RowId], scratch: &mut Scratch| {
            SufficientStatistics::of(&probe.train.design, rows, scratch).expect("reads")
        };
        let with = |row: RowId, weight: f32, scratch: &mut Scratch| {
            let mut sum = moments(&taken, scratch);
            sum.add_weighted(&moments(&[row], scratch), weight);
            let mut run = Run {
                probe: &probe,
                moments: sum,
                step: None,
            };
            run.score().expect("scores")
        };
        let mut run = probe.start(Seed(0)).expect("starts");
        run.add(&taken).expect("adds");
        let insight = run.insight(&[&[20], &[25]]).expect("trains").expect("an insight");
        for (row, influence) in [(20, insight.influence[0]), (25, insight.influence[1])] {
            let slope = (with(row, 0.05, &mut scratch) - with(row, -0.05, &mut scratch)) / 0.1;
            assert!(
                (f64::from(influence) - slope).abs() < 1e-3 * (0.1 + slope.abs()),
                "{row}: {influence} {slope}"
            );
        }
        // The score is the mean of the fold's losses after the step, whose sign is turned.
        let mean: f32 = insight.fold_loss.iter().sum::<f32>() / 20.0;
        let score = run.score().expect("scores");
        assert!((f64::from(mean) + score).abs() < 1e-5, "{mean} {score}");
    }

    #[test]
    fn gradients_that_are_all_zero_say_so() {
        let error = data(&[[0.0, 0.0]], 1).mean_eigenvalue(&[0]).expect_err("no scale");
        assert!(error.to_string().contains("gradients of the pool"), "{error}");
    }
}
