//! The default proxy: a ridge probe on frozen features, trained anew at every state in under a millisecond.
//!
//! The [`SufficientStatistics`] of each chunk are computed once and kept; a run adds them up. An evaluation is one addition,
//! one Cholesky factorisation, one product with the fold and one pass over its probabilities.
//!
//! [`Insight`] comes from the implicit function theorem. Adding an item (x, y) with weight ε moves the optimum along
//! `H⁻¹ x̃ (y − ŷ)`, where x̃ = (x, 1) and H is the Hessian with the intercept, so the metric moves by
//!
//! ```text
//! d metric / dε = Σ_c (x·M_c + μ_c) (y_c − ŷ_c),   A M_c = g_c − Σx h_c/n,   μ_c = (h_c − Σx·M_c)/n
//! ```
//!
//! with g = ∂metric/∂W and h = ∂metric/∂b taken through the softmax (of a metric that is not soft: of its stand-in, [`Metric::slope`]). A chunk's influence is
//! its rows' sum, estimated from at most 16 evenly spaced ones. Source: Koh & Liang, arXiv 1703.04730, section 2.1, here
//! exact in the Hessian, since the problem is quadratic.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use tamis_nn::{
    Fingerprint, Matrix,
    kernels::product::{Layout, product},
    seed::Seed,
};

use crate::{
    Error, Result,
    data::RowId,
    metrics::{Metric, row_losses},
    scorer::{
        Insight, Scorer, ScorerRun,
        ridge::{
            chunk_moments::ChunkMoments,
            probe_data::{ProbeData, softmax},
            regression::{Model, Scratch, SufficientStatistics, dot},
        },
    },
};

/// How many examples of a chunk its influence is estimated from at most.
const INSIGHT_ROWS: usize = 16;

/// Examples of chunks that one product covers.
const INSIGHT_BLOCK: usize = 256;

/// Outputs from which on rows of features make the faster products; fewer go with the fold's columns, and with one example each.
const WIDE: usize = 16;

/// How the probe is trained and scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProbeSettings {
    /// What the fold is scored by.
    pub metric: Metric,
    /// The ridge strength λ, absolute; greater than 0.
    pub ridge: f64,
    /// What scores are divided by before the softmax; greater than 0.
    pub temperature: f64,
    /// How many bytes the chunks' moments may take; [`ProbeSettings::GRAM_MEMORY`] is a good value.
    pub gram_memory: usize,
}

impl ProbeSettings {
    /// 512 MiB: about 1,800 chunks at 384 features.
    pub const GRAM_MEMORY: usize = 512 << 20;
}

/// A ridge probe on frozen features and the fold it is scored on.
pub struct Probe {
    train: Arc<ProbeData>,
    chunks: ChunkMoments,
    fold: Arc<ProbeData>,
    /// The fold's features, shape `(items, width)`.
    fold_rows: Matrix,
    /// The same, transposed: shape `(width, items)`, which makes the narrow product twice as fast.
    fold_columns: Vec<f32>,
    settings: ProbeSettings,
    fingerprint: Fingerprint,
    spare: Mutex<Vec<Room>>,
}

/// What one evaluation needs, used again by the next.
struct Room {
    scratch: Scratch,
    /// Scores of the fold, shape `(outputs, items)`, and the same transposed.
    by_output: Vec<f32>,
    by_item: Vec<f32>,
}

impl Probe {
    /// A probe that trains on rows of `train` and is scored on all of `fold`.
    ///
    /// # Errors
    ///
    /// If the ridge strength or the temperature is not a positive number, or features cannot be read.
    ///
    /// # Panics
    ///
    /// If the two designs are of different shapes.
    pub fn new(train: Arc<ProbeData>, fold: Arc<ProbeData>, settings: ProbeSettings) -> Result<Self> {
        assert_eq!(
            (train.width(), train.outputs),
            (fold.width(), fold.outputs),
            "designs of one projection"
        );
        for (name, value) in [
            ("probe ridge", settings.ridge),
            ("probe temperature", settings.temperature),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::setting(name, "a number greater than 0", value.to_string()));
            }
        }
        let fold_rows = fold.rows.to_matrix()?;
        let items = fold_rows.rows();
        let mut fold_columns = vec![0.0; items * fold.width()];
        for (i, row) in fold_rows.iter_rows().enumerate() {
            for (j, &x) in row.iter().enumerate() {
                fold_columns[j * items + i] = x;
            }
        }
        let fingerprint = Fingerprint::of([
            "ridge probe 2".as_bytes(),
            settings.metric.to_string().as_bytes(),
            &settings.ridge.to_le_bytes(),
            &settings.temperature.to_le_bytes(),
            train.fingerprint()?.as_ref(),
            fold.fingerprint()?.as_ref(),
        ]);
        Ok(Self {
            chunks: ChunkMoments::new(Arc::clone(&train), settings.gram_memory),
            train,
            fold,
            fold_rows,
            fold_columns,
            settings,
            fingerprint,
            spare: Mutex::default(),
        })
    }

    fn lease(&self) -> Room {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| {
            let scores = vec![0.0; self.fold_rows.rows() * self.fold.outputs];
            Room {
                scratch: Scratch::new(self.train.width()),
                by_output: scores.clone(),
                by_item: scores,
            }
        })
    }

    fn give_back(&self, room: Room) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(room);
    }

    /// The probabilities of the fold's answers, shape `(examples, answers)`.
    fn predict(&self, model: &Model, room: &mut Room) -> Matrix {
        let (d, items, outputs) = (self.fold.width(), self.fold_rows.rows(), self.fold.outputs);
        let weights = model.weights.as_slice();
        if outputs >= WIDE {
            let (shape, features) = ((items, d, outputs), self.fold_rows.as_slice());
            product(
                &mut room.by_item,
                shape,
                features,
                Layout::Plain,
                weights,
                Layout::Transposed,
                0.0,
            );
            for item in room.by_item.chunks_exact_mut(outputs) {
                item.iter_mut().zip(&model.intercept).for_each(|(score, b)| *score += b);
            }
            return self.fold.probabilities(&room.by_item, self.settings.temperature);
        }
        let shape = (outputs, d, items);
        product(
            &mut room.by_output,
            shape,
            weights,
            Layout::Plain,
            &self.fold_columns,
            Layout::Plain,
            0.0,
        );
        for (c, scores) in room.by_output.chunks_exact(items.max(1)).enumerate() {
            for (i, &score) in scores.iter().enumerate() {
                room.by_item[i * outputs + c] = score + model.intercept[c];
            }
        }
        self.fold.probabilities(&room.by_item, self.settings.temperature)
    }

    /// M and μ of the module's formula: shapes `(outputs, width)` and `(outputs,)`. The factor is in `room`.
    fn direction(&self, moments: &SufficientStatistics, probabilities: &Matrix, room: &mut Room) -> (Matrix, Vec<f32>) {
        let (d, items, outputs) = (self.fold.width(), self.fold_rows.rows(), self.fold.outputs);
        let slope = self.settings.metric.slope(probabilities, &self.fold.targets);
        let sharpness = (1.0 / self.settings.temperature) as f32;
        for i in 0..self.fold.examples() {
            let (p, s) = (probabilities.row(i), slope.row(i));
            let mean = dot(p, s);
            for ((out, p), s) in room.by_item[self.fold.scores_of(i)].iter_mut().zip(p).zip(s) {
                *out = sharpness * p * (s - mean);
            }
        }
        let mut along = Matrix::zeros(outputs, d);
        let (shape, features) = ((outputs, items, d), self.fold_rows.as_slice());
        product(
            along.as_mut_slice(),
            shape,
            &room.by_item,
            Layout::Transposed,
            features,
            Layout::Plain,
            0.0,
        );
        let (sum, n) = (moments.sum(), moments.divisor());
        let mut offset = vec![0.0; outputs];
        for item in room.by_item.chunks_exact(outputs) {
            for (h, &slope) in offset.iter_mut().zip(item) {
                *h += slope;
            }
        }
        for (c, &h) in offset.iter().enumerate() {
            for (g, &s) in along.row_mut(c).iter_mut().zip(sum) {
                *g -= s * (h / n);
            }
        }
        room.scratch.solve(along.as_mut_slice(), d);
        for (h, m) in offset.iter_mut().zip(along.iter_rows()) {
            *h = (*h - dot(m, sum)) / n;
        }
        (along, offset)
    }

    /// Influence and loss of these examples. `both` holds the model's weights and M, shape `(2 outputs, width)`.
    fn insight_into(
        &self,
        examples: &[RowId],
        both: &[f32],
        intercept: &[f32],
        offset: &[f32],
    ) -> Result<Vec<(f64, f64)>> {
        let (d, outputs) = (self.train.width(), self.train.outputs);
        let sharpness = (1.0 / self.settings.temperature) as f32;
        let items: Vec<u32> = examples
            .iter()
            .flat_map(|&example| self.train.items_of(example as usize))
            .map(|item| item as u32)
            .collect();
        let features = self.train.rows.gather(&items)?;
        let mut along = vec![0.0; items.len() * 2 * outputs];
        // A narrow product gains nothing from more rows.
        let together = if outputs < WIDE { 1 } else { examples.len() };
        let (mut left, mut features) = (&mut along[..], features.as_slice());
        for examples in examples.chunks(together) {
            let n: usize = examples.iter().map(|&i| self.train.items_of(i as usize).len()).sum();
            let (out, x);
            (out, left) = left.split_at_mut(n * 2 * outputs);
            (x, features) = features.split_at(n * d);
            let shape = (n, d, 2 * outputs);
            product(out, shape, x, Layout::Plain, both, Layout::Transposed, 0.0);
        }
        let mut along = along.chunks_exact(2 * outputs);
        let (mut one_hot, mut p, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        let one = |&example: &RowId| {
            let example = example as usize;
            let mut influence = 0.0;
            one_hot.clear();
            self.train.push_one_hot(example, &mut one_hot);
            scores.clear();
            for (item, y) in along
                .by_ref()
                .take(self.train.items_of(example).len())
                .zip(one_hot.chunks_exact(outputs))
            {
                for c in 0..outputs {
                    let score = item[c] + intercept[c];
                    scores.push(score);
                    influence += f64::from((item[outputs + c] + offset[c]) * (y[c] - score));
                }
            }
            p.resize(scores.len(), 0.0);
            softmax(&scores, sharpness, &mut p);
            let loss = -f64::from(p[self.train.targets[example] as usize].max(1e-15).ln());
            (influence, loss)
        };
        Ok(examples.iter().map(one).collect())
    }

    /// Influence and mean loss of each chunk, from at most [`INSIGHT_ROWS`] examples of it.
    fn insights(
        &self,
        chunks: &[&[RowId]],
        both: &[f32],
        intercept: &[f32],
        offset: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let used = |rows: &[RowId]| rows.len().min(INSIGHT_ROWS);
        let examples: Vec<RowId> = chunks
            .iter()
            .flat_map(|rows| (0..used(rows)).map(|k| rows[k * rows.len() / used(rows)]))
            .collect();
        let seen: Vec<Vec<(f64, f64)>> = examples
            .par_chunks(INSIGHT_BLOCK)
            .map(|examples| self.insight_into(examples, both, intercept, offset))
            .collect::<Result<_>>()?;
        let mut seen = seen.into_iter().flatten();
        Ok(chunks
            .iter()
            .map(|rows| {
                let (influence, loss) = seen
                    .by_ref()
                    .take(used(rows))
                    .fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                let used = used(rows).max(1) as f64;
                ((influence * rows.len() as f64 / used) as f32, (loss / used) as f32)
            })
            .unzip())
    }
}

impl Scorer for Probe {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn start(&self, _seed: Seed) -> Result<Box<dyn ScorerRun + '_>> {
        let moments = SufficientStatistics::empty(self.train.width(), self.train.outputs);
        Ok(Box::new(Run {
            probe: self,
            moments,
            factored: None,
        }))
    }
}

/// The rows taken so far, as moments. The solution is unique, so the seed plays no part.
struct Run<'a> {
    probe: &'a Probe,
    moments: SufficientStatistics,
    /// The factor of the present moments, where it is at hand, and the model that came from it.
    factored: Option<(Room, Model)>,
}

impl Run<'_> {
    fn fit(&mut self) -> Result<(&mut Room, &Model)> {
        if self.factored.is_none() {
            let mut room = self.probe.lease();
            match self.moments.factor(self.probe.settings.ridge, &mut room.scratch) {
                Ok(()) => {
                    let model = self.moments.model(&mut room.scratch);
                    self.factored = Some((room, model));
                }
                Err(error) => {
                    self.probe.give_back(room);
                    return Err(error);
                }
            }
        }
        let (room, model) = self.factored.as_mut().expect("set above");
        Ok((room, model))
    }
}

impl ScorerRun for Run<'_> {
    fn add(&mut self, rows: &[RowId]) -> Result<()> {
        let mut room = self
            .factored
            .take()
            .map_or_else(|| self.probe.lease(), |(room, _)| room);
        let added = self.probe.chunks.of(rows, &mut room.scratch);
        self.probe.give_back(room);
        self.moments.add(&*added?);
        Ok(())
    }

    fn score(&mut self) -> Result<f64> {
        let probe = self.probe;
        let (room, model) = self.fit()?;
        let probabilities = probe.predict(model, room);
        let score = probe.settings.metric.score(&probabilities, &probe.fold.targets);
        if score.is_finite() {
            Ok(score)
        } else {
            Err(Error::NotFinite {
                place: format!("the probe's {}", probe.settings.metric),
                found: score.to_string(),
            })
        }
    }

    fn fork(&self) -> Box<dyn ScorerRun + '_> {
        Box::new(Run {
            probe: self.probe,
            moments: self.moments.clone(),
            factored: None,
        })
    }

    fn insight(&mut self, chunks: &[&[RowId]]) -> Result<Option<Insight>> {
        self.fit()?;
        let (probe, moments) = (self.probe, &self.moments);
        let Some((room, model)) = &mut self.factored else {
            return Ok(None);
        };
        let probabilities = probe.predict(model, room);
        let (along, offset) = probe.direction(moments, &probabilities, room);
        let both = [model.weights.as_slice(), along.as_slice()].concat();
        let (influence, chunk_loss) = probe.insights(chunks, &both, &model.intercept, &offset)?;
        let fold_loss = row_losses(&probabilities, &probe.fold.targets).collect();
        Ok(Some(Insight {
            influence,
            chunk_loss,
            fold_loss,
        }))
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if let Some((room, _)) = self.factored.take() {
            self.probe.give_back(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::ridge::regression::tests::random_design;

    fn probe_with(metric: &str, gram_memory: usize) -> Probe {
        let settings = ProbeSettings {
            metric: metric.parse().expect("a metric"),
            ridge: 5.0,
            temperature: 0.3,
            gram_memory,
        };
        let (train, fold) = (random_design(300, 12, 1), random_design(80, 12, 2));
        Probe::new(Arc::new(train), Arc::new(fold), settings).expect("settings are fine")
    }

    fn chunk(k: u32) -> Vec<RowId> {
        (k * 20..(k + 1) * 20).collect()
    }

    fn score_of(probe: &Probe, chunks: &[u32]) -> f64 {
        let mut run = probe.start(Seed(0)).expect("starts");
        for &k in chunks {
            run.add(&chunk(k)).expect("adds");
            run.score().expect("scores");
        }
        run.score().expect("scores")
    }

    #[test]
    fn an_empty_run_is_right_by_chance() {
        assert!((score_of(&probe_with("soft_accuracy", 0), &[]) - 1.0 / 3.0).abs() < 1e-6);
        assert!((score_of(&probe_with("log_loss", 0), &[]) + 3f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn the_order_of_chunks_does_not_matter_and_they_teach_something() {
        let probe = probe_with("soft_accuracy", ProbeSettings::GRAM_MEMORY);
        let forward = score_of(&probe, &[0, 1, 2, 3, 4, 5]);
        assert!((forward - score_of(&probe, &[5, 3, 1, 0, 2, 4])).abs() < 1e-5);
        assert!(forward > 0.5, "{forward}");
    }

    #[test]
    fn a_fork_goes_its_own_way() {
        let probe = probe_with("soft_macro_f1", ProbeSettings::GRAM_MEMORY);
        let mut run = probe.start(Seed(0)).expect("starts");
        run.add(&chunk(0)).expect("adds");
        let before = run.score().expect("scores");
        let mut fork = run.fork();
        fork.add(&chunk(1)).expect("adds");
        let forked = fork.score().expect("scores");
        drop(fork);
        assert_eq!(run.score().expect("scores"), before);
        run.add(&chunk(1)).expect("adds");
        assert_eq!(run.score().expect("scores"), forked);
    }

    #[test]
    fn the_cache_never_changes_a_bit() {
        let full = probe_with("soft_accuracy", ProbeSettings::GRAM_MEMORY);
        let tight = probe_with("soft_accuracy", 2000);
        let none = probe_with("soft_accuracy", 0);
        for _ in 0..2 {
            let score = score_of(&full, &[0, 1, 2, 3]);
            assert_eq!(score, score_of(&none, &[0, 1, 2, 3]));
            assert_eq!(score, score_of(&tight, &[0, 1, 2, 3]));
        }
        let kept = |probe: &Probe| probe.chunks.kept().0;
        assert_eq!((kept(&full), kept(&none)), (4, 0));
        assert!(tight.chunks.kept().1 <= 2000);
        assert_eq!(full.fingerprint(), none.fingerprint());
        assert_ne!(full.fingerprint(), probe_with("accuracy", 0).fingerprint());
    }

    /// The soft score after the rows taken are joined by further ones with weight `epsilon`.
    fn weighted(probe: &Probe, taken: &[RowId], more: &[RowId], epsilon: f32) -> f64 {
        let mut room = probe.lease();
        let mut moments = SufficientStatistics::of(&probe.train, taken, &mut room.scratch).expect("reads");
        moments.add_weighted(
            &SufficientStatistics::of(&probe.train, more, &mut room.scratch).expect("reads"),
            epsilon,
        );
        moments
            .factor(probe.settings.ridge, &mut room.scratch)
            .expect("factors");
        let model = moments.model(&mut room.scratch);
        let probabilities = probe.predict(&model, &mut room);
        probe.settings.metric.score(&probabilities, &probe.fold.targets)
    }

    fn check_influence(probe: &Probe, taken: &[RowId], chunks: &[Vec<RowId>]) {
        let mut run = probe.start(Seed(0)).expect("starts");
        run.add(taken).expect("adds");
        let asked: Vec<&[RowId]> = chunks.iter().map(Vec::as_slice).collect();
        let insight = run.insight(&asked).expect("no error").expect("the probe has insight");
        for (rows, &influence) in chunks.iter().zip(&insight.influence) {
            let up = weighted(probe, taken, rows, 0.05);
            let down = weighted(probe, taken, rows, -0.05);
            let difference = (up - down) / 0.1;
            let error = (difference - f64::from(influence)).abs();
            assert!(
                error < 0.02 * difference.abs() + 1e-4,
                "{difference} is not {influence}"
            );
        }
        assert_eq!(insight.fold_loss.len(), probe.fold.examples());
        assert!(insight.chunk_loss.iter().all(|loss| *loss > 0.0));
    }

    #[test]
    fn influence_is_the_finite_difference() {
        for metric in ["soft_accuracy", "soft_macro_f1", "log_loss"] {
            let taken: Vec<RowId> = (0..60).collect();
            let chunks: Vec<Vec<RowId>> = (5..12).map(|k| chunk(k)[..16].to_vec()).collect();
            check_influence(&probe_with(metric, 0), &taken, &chunks);
        }
    }

    #[test]
    fn a_metric_free_of_an_operating_point_sees_what_the_rows_teach() {
        let fold = random_design(80, 12, 2);
        let mix = [0, 1, 2].map(|c| fold.targets.iter().filter(|&&y| y == c).count() as f64 / 80.0);
        for (metric, by_chance) in [
            ("auc", 0.5),
            // The same prediction for every row can be no better than the label mix.
            ("calibrated_log_loss", mix.map(|share| share * share.ln()).iter().sum()),
            ("matched_accuracy", mix.map(|share| share * share).iter().sum()),
        ] {
            let probe = probe_with(metric, 0);
            let empty = score_of(&probe, &[]);
            assert!((empty - by_chance).abs() < 1e-6, "{metric}: {empty}");
            assert!(score_of(&probe, &[0, 1, 2, 3, 4, 5]) > empty + 0.1, "{metric}");
            let mut run = probe.start(Seed(0)).expect("starts");
            let insight = run.insight(&[&chunk(0)]).expect("no error").expect("insight");
            assert!(insight.influence[0].is_finite(), "{metric}");
        }
    }

    #[test]
    fn choices_are_scored_against_each_other() {
        // Items of four choices; the right one has the greatest first feature.
        let choices = |seed| {
            let items = random_design(480, 6, seed).rows.to_matrix().expect("reads");
            let right = |i: usize| {
                (0..4).fold(0, |b, k| {
                    if items.row(4 * i + k)[0] > items.row(4 * i + b)[0] {
                        k
                    } else {
                        b
                    }
                })
            };
            let targets = (0..120).map(|i| right(i) as u32).collect();
            Arc::new(ProbeData::new(items, (0..=120).map(|i| 4 * i).collect(), targets, 1))
        };
        let settings = ProbeSettings {
            metric: "soft_accuracy".parse().expect("a metric"),
            ridge: 1.0,
            temperature: 0.1,
            gram_memory: ProbeSettings::GRAM_MEMORY,
        };
        let probe = Probe::new(choices(1), choices(2), settings).expect("settings are fine");
        let mut run = probe.start(Seed(0)).expect("starts");
        assert!((run.score().expect("scores") - 0.25).abs() < 1e-6);
        let taken: Vec<RowId> = (0..80).collect();
        run.add(&taken).expect("adds");
        assert!(run.score().expect("scores") > 0.6);
        check_influence(&probe, &taken, &[(80..96).collect(), (100..110).collect()]);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let design = Arc::new(random_design(5, 3, 1));
        let settings = probe_with("accuracy", 0).settings;
        for settings in [
            ProbeSettings { ridge: 0.0, ..settings },
            ProbeSettings {
                temperature: f64::NAN,
                ..settings
            },
        ] {
            assert!(Probe::new(Arc::clone(&design), Arc::clone(&design), settings).is_err());
        }
    }
}
