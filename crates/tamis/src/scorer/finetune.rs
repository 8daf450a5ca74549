//! The dear proxy: the target itself, or a model like it, fine-tuned on the rows of a state and scored on a part of the fold.
//!
//! *Cold*, every state starts from the base model, and its score depends on the rows alone. *Warm*, a state starts from its parent's
//! weights and trains on the new rows and a few of the old; its score depends on the path that led to it, and the ledger's keys
//! hold the path. (For the ridge probe both are the same: its optimum has no memory.)

use std::sync::Arc;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tamis_nn::{
    Fingerprint, Monitor, Silent,
    seed::Seed,
    train::{Examples, FrozenLayerCache, TokenizedSplit, TrainSettings},
};

use crate::{
    Error, Result,
    data::RowId,
    metrics::Metric,
    scorer::{Scorer, ScorerRun},
    target::TargetModel,
};

/// How the proxy is trained and scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FinetuneScorerSettings {
    /// How each state's model is trained.
    pub train: TrainSettings,
    /// Whether a state starts from its parent's weights. Default: no.
    pub warm: bool,
    /// A warm start trains on the new rows and on this many old ones for each new one. Default: 0.5.
    pub replay: f32,
    /// How many rows of the fold are scored. Default: 500.
    pub fold_rows: usize,
}

impl Default for FinetuneScorerSettings {
    fn default() -> Self {
        Self {
            train: TrainSettings::default(),
            warm: false,
            replay: 0.5,
            fold_rows: 500,
        }
    }
}

impl FinetuneScorerSettings {
    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        if self.fold_rows == 0 {
            return Err(Error::setting("finetune.fold_rows", "a number above 0", "0"));
        }
        if !(self.replay >= 0.0 && self.replay.is_finite()) {
            let found = self.replay.to_string();
            return Err(Error::setting("finetune.replay", "0 or a number above it", found));
        }
        Ok(self.train.check()?)
    }
}

/// A model that is fine-tuned at every state.
pub struct FinetuneScorer {
    base: Box<dyn TargetModel>,
    train: Arc<TokenizedSplit>,
    fold: Arc<TokenizedSplit>,
    /// The rows of `fold` that are scored.
    fold_rows: Vec<u32>,
    metric: Metric,
    settings: FinetuneScorerSettings,
    /// Of the training rows, of the fold.
    frozen: Option<(FrozenLayerCache, FrozenLayerCache)>,
    fingerprint: Fingerprint,
}

impl FinetuneScorer {
    /// A proxy that trains `base` on rows of `train` and scores `fold_rows` of `fold`. `base_fingerprint` tells the base model's
    /// weights, head and tokenizer; `data` the rows. Frozen layers' output takes at most `memory` bytes.
    pub fn new(
        base: Box<dyn TargetModel>,
        (train, fold, fold_rows): (Arc<TokenizedSplit>, Arc<TokenizedSplit>, Vec<u32>),
        metric: Metric,
        settings: FinetuneScorerSettings,
        (base_fingerprint, data): (&Fingerprint, &Fingerprint),
        memory: usize,
    ) -> Self {
        let told = serde_json::to_string(&settings).unwrap_or_default();
        let rows: Vec<u8> = fold_rows.iter().flat_map(|row| row.to_le_bytes()).collect();
        let fingerprint = Fingerprint::of([
            b"finetune 1",
            base_fingerprint.as_ref(),
            data.as_ref(),
            told.as_bytes(),
            settings.train.dtype.identity().as_bytes(),
            metric.to_string().as_bytes(),
            &rows,
        ]);
        let frozen = settings.train.freeze_layers.map(|layers| {
            let part = |memory| FrozenLayerCache::new(layers, memory);
            (part(memory / 4 * 3), part(memory / 4))
        });
        Self {
            base,
            train,
            fold,
            fold_rows,
            metric,
            settings,
            frozen,
            fingerprint,
        }
    }

    /// Trains a model on these rows, all of them from the first step on.
    fn trained_on(&self, model: &mut dyn TargetModel, rows: &[RowId], seed: Seed, monitor: &dyn Monitor) -> Result<()> {
        let examples = Examples {
            split: &self.train,
            rows,
            frozen: self.frozen.as_ref().map(|(train, _)| train),
        };
        model.train(examples, &self.settings.train, seed, &mut || Ok(monitor.proceed()?))
    }

    /// The base model fine-tuned on these rows, whatever their order.
    ///
    /// # Errors
    ///
    /// If a loss is not finite, or the user stopped.
    pub fn cold(&self, rows: &[RowId], seed: Seed, monitor: &dyn Monitor) -> Result<Box<dyn TargetModel>> {
        let mut model = self.base.copy();
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        if !rows.is_empty() {
            self.trained_on(&mut *model, &rows, seed, monitor)?;
        }
        Ok(model)
    }

    /// The scores of a model on the rows of the fold by several metrics; higher is better.
    ///
    /// # Errors
    ///
    /// If a score is not finite.
    pub fn scores(&self, model: &dyn TargetModel, metrics: &[Metric]) -> Result<Vec<f64>> {
        let examples = Examples {
            split: &self.fold,
            rows: &self.fold_rows,
            frozen: self.frozen.as_ref().map(|(_, fold)| fold),
        };
        model.evaluate(examples, metrics, &Silent)
    }
}

impl Scorer for FinetuneScorer {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn path_matters(&self) -> bool {
        self.settings.warm
    }

    fn start(&self, seed: Seed) -> Result<Box<dyn ScorerRun + '_>> {
        Ok(Box::new(FinetuneRun {
            proxy: self,
            seed,
            rows: Vec::new(),
            chunks: 0,
            warm: None,
        }))
    }
}

#[derive(Clone)]
struct FinetuneRun<'a> {
    proxy: &'a FinetuneScorer,
    seed: Seed,
    rows: Vec<RowId>,
    chunks: u64,
    /// The model so far, where it goes on from state to state.
    warm: Option<Arc<dyn TargetModel>>,
}

impl ScorerRun for FinetuneRun<'_> {
    fn add(&mut self, rows: &[RowId]) -> Result<()> {
        if self.proxy.settings.warm {
            let seed = self.seed.derive("warm").index(self.chunks);
            let mut old = self.rows.clone();
            old.shuffle(&mut seed.derive("replay").rng());
            old.truncate((rows.len() as f32 * self.proxy.settings.replay) as usize);
            let mut model = match &self.warm {
                Some(model) => model.copy(),
                None => self.proxy.base.copy(),
            };
            // A state that is begun is paid for: it ends, and its score is kept.
            self.proxy
                .trained_on(&mut *model, &[rows, &old].concat(), seed, &Silent)?;
            self.warm = Some(Arc::from(model));
        }
        self.rows.extend_from_slice(rows);
        self.chunks += 1;
        Ok(())
    }

    fn score(&mut self) -> Result<f64> {
        let model = match &self.warm {
            Some(model) => Arc::clone(model),
            None => Arc::from(self.proxy.cold(&self.rows, self.seed, &Silent)?),
        };
        Ok(self.proxy.scores(&*model, &[self.proxy.metric])?[0])
    }

    fn fork(&self) -> Box<dyn ScorerRun + '_> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MetricKind;
    use tamis_nn::{monitor::Stop, test_util::tiny_classifier};

    fn proxy(warm: bool) -> FinetuneScorer {
        let (base, data) = tiny_classifier();
        let data = Arc::new(data);
        let settings = FinetuneScorerSettings {
            train: TrainSettings {
                epochs: 20,
                batch_size: 8,
                learning_rate: Some(0.01),
                ..TrainSettings::default()
            },
            warm,
            ..FinetuneScorerSettings::default()
        };
        FinetuneScorer::new(
            Box::new(base),
            (Arc::clone(&data), data, (120..160).collect()),
            Metric::hard(MetricKind::Accuracy),
            settings,
            (&Fingerprint::of(["base"]), &Fingerprint::of(["data"])),
            1 << 20,
        )
    }

    fn score_of(proxy: &FinetuneScorer, chunks: &[&[RowId]]) -> f64 {
        let mut run = proxy.start(Seed(4)).expect("starts");
        for chunk in chunks {
            run.add(chunk).expect("adds");
        }
        run.score().expect("scores")
    }

    #[test]
    fn a_stop_is_heard_while_a_model_trains() {
        let stopped = proxy(false).cold(&[0, 1, 2], Seed(0), &Stop);
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }

    #[test]
    fn a_cold_score_depends_on_the_rows_and_a_warm_one_on_the_path() {
        let (first, second): (Vec<RowId>, Vec<RowId>) = ((0..40).collect(), (40..80).collect());
        let cold = proxy(false);
        assert!(!cold.path_matters());
        let there = score_of(&cold, &[&first, &second]);
        assert_eq!(there, score_of(&cold, &[&second, &first]));
        assert!(there > 0.75, "{there}");

        let warm = proxy(true);
        assert!(warm.path_matters());
        assert!(score_of(&warm, &[&first, &second]) > 0.75);
        assert_ne!(warm.fingerprint(), cold.fingerprint());
        // What a fork learns stays in the fork.
        let mut run = warm.start(Seed(4)).expect("starts");
        run.add(&first).expect("adds");
        let before = run.score().expect("scores");
        let mut fork = run.fork();
        fork.add(&second).expect("adds");
        let grown = fork.score().expect("scores");
        drop(fork);
        assert_eq!(run.score().expect("scores"), before);
        assert_eq!(score_of(&warm, &[&first, &second]), grown);
    }
}
