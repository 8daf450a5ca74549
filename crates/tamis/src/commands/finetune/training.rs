//! The training of `finetune`, which goes on after a kill and ends with the same weights.

use std::{path::Path, time::Instant};

use serde::{Deserialize, Serialize};
use tamis_nn::{
    Fingerprint, Monitor,
    train::{Examples, Trainer, checkpoint},
};

use crate::{
    Error, Result,
    budget::{Limit, random_rows},
    metrics::MetricKind,
    records::finetune::{EpochRecord, Scores},
    settings::finetune::FinetuneSettings,
};

/// What the checkpoint of a run is called.
pub(super) const CHECKPOINT: &str = "checkpoint.safetensors";
/// What the weights of the best epoch so far are called.
const BEST: &str = "best.safetensors";
/// Seconds between checkpoints.
const CHECKPOINT_SECONDS: f64 = 60.0;

/// How far training is, besides weights and moments.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Of training steps, over all starts of the run.
    pub(super) seconds: f64,
    /// Those done.
    pub(super) epochs: Vec<EpochRecord>,
    /// The sum of the losses of the present epoch's steps, and how many they are.
    losses: (f64, u64),
}

impl Progress {
    fn mean_loss(&self) -> f64 {
        self.losses.0 / self.losses.1 as f64
    }

    /// The epoch that scores best by this metric; of equals the first.
    fn best(&self, kind: MetricKind) -> Option<u32> {
        let score = |record: &EpochRecord| record.validation.by(kind);
        let better = |best: &EpochRecord, next: &EpochRecord| score(best).total_cmp(&score(next)).is_lt();
        let epochs = self.epochs.iter().copied();
        let best = epochs.reduce(|best, next| if better(&best, &next) { next } else { best });
        best.map(|record| record.epoch)
    }
}

/// What training tells at its end.
pub(super) struct Trained {
    pub(super) progress: Progress,
    /// The epoch whose weights the model has, where the best are kept.
    pub(super) kept: Option<u32>,
}

/// The validation rows among these that are scored after every epoch.
pub(super) fn epoch_rows(settings: &FinetuneSettings, validation: &[u32]) -> Vec<u32> {
    let limit = Limit::Rows(settings.epoch_rows as u64);
    random_rows(validation, &[], limit, settings.seed.derive("epoch rows"))
}

/// Trains the model from the run's checkpoint on, if there is one; `score` is asked after every epoch. Advances `monitor` by one a step.
pub(super) fn train<T: Trainer>(
    settings: &FinetuneSettings,
    run: &Fingerprint,
    examples: Examples<'_>,
    model: &mut T::Model,
    mut trainer: T,
    score: &dyn Fn(&T::Model) -> Result<Scores>,
    monitor: &dyn Monitor,
) -> Result<Trained> {
    let (checkpoint, best) = (settings.out.join(CHECKPOINT), settings.out.join(BEST));
    let mut progress = Progress::default();
    if let Some(before) = checkpoint::load(&checkpoint, run, model, &mut trainer)? {
        progress = before;
        monitor.advance(trainer.optimiser().steps());
    } else if checkpoint.exists() {
        return Err(other_run(&settings.out));
    }
    let (mut began, mut kept) = (Instant::now(), Instant::now());
    tamis_nn::train::train(
        model,
        &mut trainer,
        examples,
        settings.seed.derive("finetune"),
        &mut |step, model, trainer| {
            progress.seconds += began.elapsed().as_secs_f64();
            progress.losses = (progress.losses.0 + step.loss, progress.losses.1 + 1);
            monitor.advance(1);
            monitor.note(&format!("loss {:.3}", progress.mean_loss()));
            if step.ends_epoch {
                progress.epochs.push(EpochRecord {
                    epoch: step.epoch,
                    train_loss: progress.mean_loss(),
                    validation: score(model)?,
                });
                progress.losses = (0.0, 0);
                if settings.load_best.and_then(|kind| progress.best(kind)) == Some(step.epoch) {
                    checkpoint::save_weights(&best, model, trainer)?;
                }
            }
            let stopped = monitor.cancelled();
            if stopped || kept.elapsed().as_secs_f64() > CHECKPOINT_SECONDS {
                checkpoint::save(&checkpoint, run, &progress, model, trainer)?;
                kept = Instant::now();
            }
            if stopped {
                return Err(Error::Interrupted);
            }
            began = Instant::now();
            Ok(())
        },
    )?;
    let kept = settings.load_best.and_then(|kind| progress.best(kind));
    if kept.is_some_and(|epoch| epoch < settings.train.epochs) {
        checkpoint::load_weights(&best, model, &trainer)?;
    }
    Ok(Trained { progress, kept })
}

/// Removes what only an unfinished run needs; the checkpoint first, without which the other is not asked for.
pub(super) fn clean(out: &Path) -> Result<()> {
    for path in [CHECKPOINT, BEST].map(|name| out.join(name)) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(&path, "remove")(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The folder has a run with the same settings on other contents.
pub(super) fn other_run(out: &Path) -> Error {
    Error::OtherRun {
        path: out.to_path_buf(),
        difference: "the contents of the data files, of the model or of the selection".into(),
    }
}
