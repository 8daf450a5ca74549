//! What every stage of a run is given.

use tamis_nn::Monitor;

use crate::{
    data::{Dataset, folds::Folds},
    pipeline::stages::Stages,
    settings::select::SelectSettings,
};

/// The settings, the data, and where progress is told.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a SelectSettings,
    pub(crate) dataset: &'a Dataset,
    pub(crate) folds: &'a Folds,
    pub(crate) stages: &'a Stages<'a>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        settings: &'a SelectSettings,
        dataset: &'a Dataset,
        folds: &'a Folds,
        stages: &'a Stages<'a>,
    ) -> Self {
        Self {
            settings,
            dataset,
            folds,
            stages,
        }
    }

    /// The same with other settings.
    pub(crate) fn with(self, settings: &'a SelectSettings) -> Self {
        Self { settings, ..self }
    }

    /// Who is told of progress, and says when to stop.
    pub(crate) fn monitor(&self) -> &'a dyn Monitor {
        self.stages.monitor()
    }
}
