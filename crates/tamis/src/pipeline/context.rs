//! What every stage of a run is given.

use tamis_nn::Monitor;

use crate::{
    data::{Dataset, folds::Folds},
    pipeline::{responses::Responses, stages::Stages},
    settings::select::SelectSettings,
};

/// The settings, the data, and where progress is told.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a SelectSettings,
    pub(crate) dataset: &'a Dataset,
    pub(crate) folds: &'a Folds,
    /// The language model, where rows have responses.
    pub(crate) responses: Option<&'a Responses>,
    pub(crate) stages: &'a Stages<'a>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        settings: &'a SelectSettings,
        dataset: &'a Dataset,
        folds: &'a Folds,
        responses: Option<&'a Responses>,
        stages: &'a Stages<'a>,
    ) -> Self {
        Self {
            settings,
            dataset,
            folds,
            responses,
            stages,
        }
    }

    /// The same with other settings.
    pub(crate) fn with(self, settings: &'a SelectSettings) -> Self {
        Self { settings, ..self }
    }

    /// The labels of the reward fold's rows; empty where rows have no labels.
    pub(crate) fn labels_of_reward_fold(&self) -> Vec<u32> {
        if self.dataset.task.labels.is_empty() {
            return Vec::new();
        }
        let target = |&row: &u32| self.dataset.validation.examples[row as usize].target;
        self.folds.reward.iter().map(target).collect()
    }

    /// Who is told of progress, and says when to stop.
    pub(crate) fn monitor(&self) -> &'a dyn Monitor {
        self.stages.monitor()
    }
}
