//! What fine-tunes of every kind of model share: which rows are trained on, whose folder it is, and what is filed at the end.

use std::{collections::BTreeMap, path::Path};

use tamis_nn::{Fingerprint, hub::language_model::ADAPTER_WEIGHTS};

use crate::{
    Result,
    budget::{Budget, limit_of, random_rows},
    commands::finetune::{
        chosen::chosen_rows,
        training::{CHECKPOINT, Trained, clean, other_run},
    },
    data::{Dataset, Reject, RowId},
    pipeline::stages::Stages,
    records::{
        finetune::{FinetuneRecord, Scores},
        selection::{ReadRecord, VERSION},
    },
    settings::finetune::FinetuneSettings,
    workspace::{
        folder::{self, Lock},
        json,
    },
};

/// The training rows that are trained on; `tokens` tells those of a row of the training files, where a budget counts them.
pub(super) fn rows_of(
    settings: &FinetuneSettings,
    dataset: &Dataset,
    tokens: &dyn Fn(RowId) -> u32,
) -> Result<Vec<RowId>> {
    Ok(match (&settings.selection, settings.sample) {
        (Some(run), _) => chosen_rows(run, dataset)?,
        (None, Some(sample)) => {
            let counted = matches!(sample, Budget::Tokens(_));
            let count = |&row: &RowId| if counted { tokens(row) } else { 0 };
            let tokens: Vec<u32> = dataset.pool.iter().map(count).collect();
            let limit = limit_of(sample, &tokens).map_err(|error| error.of_setting("sample"))?;
            random_rows(&dataset.pool, &tokens, limit, settings.seed.derive("sample"))
        }
        (None, None) => dataset.pool.clone(),
    })
}

/// Takes the folder for this run as long as the lock is held. The fingerprint tells it from runs with the same settings on other contents.
pub(super) fn claim(
    settings: &FinetuneSettings,
    dataset: &Dataset,
    model: &Fingerprint,
    rows: &[RowId],
) -> Result<(Fingerprint, Lock)> {
    let what_matters = json::without(settings, &["out", "frozen_memory"])?;
    let (what_matters, lock) = folder::claim(&settings.out, &what_matters)?;
    let rows: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
    let run = Fingerprint::of([
        model.as_ref(),
        dataset.fingerprint.as_ref(),
        what_matters.to_string().as_bytes(),
        settings.train.dtype.identity().as_bytes(),
        &rows,
    ]);
    Ok((run, lock))
}

/// The record of the folder's run, if that is finished.
///
/// # Errors
///
/// If it is another run.
pub(super) fn finished_or_other(settings: &FinetuneSettings, run: &Fingerprint) -> Result<Option<FinetuneRecord>> {
    let Some(record) = finished(&settings.out) else {
        return Ok(None);
    };
    clean(&settings.out)?;
    if record.fingerprint == *run {
        Ok(Some(record))
    } else {
        Err(other_run(&settings.out))
    }
}

/// What came of a run.
pub(super) struct Outcome<'a> {
    pub(super) run: Fingerprint,
    pub(super) trained: Trained,
    pub(super) rows: usize,
    /// Of the rows that were trained on.
    pub(super) tokens: usize,
    pub(super) truncated: u64,
    pub(super) max_length: usize,
    pub(super) untrained: Option<Scores>,
    pub(super) validation: Scores,
    pub(super) test: Option<Scores>,
    pub(super) tests: BTreeMap<String, Scores>,
    pub(super) only_label: Option<String>,
    pub(super) label_biases: BTreeMap<String, BTreeMap<String, f64>>,
    pub(super) rejects: &'a [Reject],
}

impl Outcome<'_> {
    /// Files what was trained, how well it does, and what it cost; the run is finished then.
    pub(super) fn file(
        self,
        settings: &FinetuneSettings,
        dataset: &Dataset,
        stages: &Stages<'_>,
    ) -> Result<FinetuneRecord> {
        let seconds = self.trained.progress.seconds;
        let per_second = |count: usize| count as f64 * f64::from(settings.train.epochs) / seconds.max(1e-9);
        let record = FinetuneRecord {
            version: VERSION,
            tamis: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: self.run,
            seed: settings.seed.0,
            read: Some(ReadRecord {
                rejects: self.rejects.len() as u64,
                ..ReadRecord::of(dataset)
            }),
            rows: self.rows as u64,
            steps: settings.train.steps(self.rows),
            truncated: self.truncated,
            max_length: self.max_length,
            epochs: self.trained.progress.epochs,
            kept_epoch: self.trained.kept,
            untrained: self.untrained,
            validation: self.validation,
            test: self.test,
            tests: self.tests,
            only_label: self.only_label,
            label_biases: self.label_biases,
            train_seconds: seconds,
            rows_per_second: per_second(self.rows),
            tokens_per_second: per_second(self.tokens),
            peak_bytes: stages.records().iter().filter_map(|stage| stage.peak_bytes).max(),
            settings: serde_json::to_value(settings).unwrap_or_default(),
        };
        json::write_json(&settings.out.join("metrics.json"), &record)?;
        clean(&settings.out)?;
        Ok(record)
    }
}

/// The record of a run that is finished already.
fn finished(out: &Path) -> Option<FinetuneRecord> {
    let weights = ["model.safetensors", ADAPTER_WEIGHTS].map(|name| out.join(name).exists());
    let there = weights.contains(&true) && !out.join(CHECKPOINT).exists();
    let text = there.then(|| std::fs::read_to_string(out.join("metrics.json")).ok());
    serde_json::from_str(&text.flatten()?).ok()
}
