//! Who trains on selections outside of tamis, where the settings name somebody.

use std::path::Path;

use crate::{
    data::{self, Dataset, RowId},
    scorer::{
        ask_tell::{AskTell, TrialRunner},
        batch::BatchScorer,
        trainer::{TrainerBatch, TrainerSettings},
    },
    settings::select::SelectSettings,
};

/// The program's own trainer under the name of the settings, or the command that these are.
pub(crate) fn trainer_of<'a>(
    settings: &'a SelectSettings,
    dataset: &'a Dataset,
    own: Option<&'a dyn TrialRunner>,
) -> Option<Box<dyn BatchScorer + 'a>> {
    let name = settings.trainer.as_ref()?;
    if let Some(runner) = own {
        return Some(Box::new(AskTell::new(runner, name, dataset, settings.retries)));
    }
    let trainer = TrainerSettings {
        command: name.clone(),
        parallel: settings.parallel,
        timeout: settings.trial_timeout,
        retries: settings.retries,
    };
    let folder = std::path::absolute(&settings.out).unwrap_or_else(|_| settings.out.clone());
    let export = |rows: &[RowId], folder: &Path| data::export(&dataset.train, rows, folder);
    let folder = folder.join("trials");
    Some(Box::new(TrainerBatch::new(
        trainer,
        folder,
        &dataset.fingerprint,
        Box::new(export),
    )))
}
