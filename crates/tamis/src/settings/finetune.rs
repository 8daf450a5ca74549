//! What one fine-tune of the target is asked for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tamis_nn::{decoder::LoraSettings, seed::Seed, train::TrainSettings};

use crate::{
    Error, Result,
    budget::Budget,
    data::{DataSettings, Dataset, TaskKind},
    metrics::MetricKind,
};

/// The settings of one fine-tune of the target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FinetuneSettings {
    /// The files.
    pub data: DataSettings,
    /// The folder of a `select` run whose chosen rows are trained on; none: all rows of the training files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<PathBuf>,
    /// How much of the pool is trained on, drawn at random: the control of a selection. Default (none): all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Budget>,
    /// Whether the validation rows are trained on, too. Default: false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub with_validation: bool,
    /// The folder or hub id of a BERT-family encoder, or of a Llama-family language model.
    pub model: String,
    /// Whether a head that the model has is replaced by a new one.
    pub new_head: bool,
    /// How it is trained.
    pub train: TrainSettings,
    /// What is asked of language models alone.
    pub language_model: LanguageModelSettings,
    /// How many validation rows are scored after every epoch. Default: 1000.
    pub epoch_rows: usize,
    /// The metric by whose score on those rows the best epoch's weights are kept. Default (none): the last epoch's are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_best: Option<MetricKind>,
    /// The metric for which label biases are tuned on the validation rows and added to the head. Default (none): the head is written as it
    /// was trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_biases: Option<MetricKind>,
    /// The most bytes that the output of frozen layers may take in memory. Default: 1 GiB.
    pub frozen_memory: u64,
    /// The source of all randomness. Default: 0.
    pub seed: Seed,
    /// Where the model is written. Default: `runs/finetune`.
    pub out: PathBuf,
}

impl Default for FinetuneSettings {
    fn default() -> Self {
        Self {
            data: DataSettings::default(),
            selection: None,
            sample: None,
            with_validation: false,
            model: String::new(),
            new_head: false,
            train: TrainSettings::default(),
            language_model: LanguageModelSettings::default(),
            epoch_rows: 1000,
            load_best: None,
            label_biases: None,
            frozen_memory: 1 << 30,
            seed: Seed(0),
            out: PathBuf::from("runs/finetune"),
        }
    }
}

/// What is asked of the fine-tune of a language model alone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LanguageModelSettings {
    /// Whether all weights are trained, and not adapters. Default: false.
    pub full: bool,
    /// The adapters that are trained.
    pub lora: LoraSettings,
    /// Whether adapters are merged into the model, which is then written whole. Default: false.
    pub merge: bool,
    /// A Jinja template of what rows with labels or choices ask, with their fields and `labels`. Default (none): the task's own form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<PathBuf>,
}

impl LanguageModelSettings {
    /// The highest learning rate where the settings leave it open.
    pub(crate) fn learning_rate(&self) -> f32 {
        if self.full { 2e-5 } else { 2e-4 }
    }

    /// # Errors
    ///
    /// If a setting means nothing where rows are chosen and no model is written.
    pub(crate) fn check_for_selecting(&self) -> Result<()> {
        self.lora.check()?;
        let of_written_models = [("merge", self.merge), ("template", self.template.is_some())];
        match of_written_models.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Error::setting(
                format!("language_model.{name}").as_str(),
                "nothing where rows are chosen",
                "a value",
            )
            .with_hint("give it to `tamis finetune`")),
            None => Ok(()),
        }
    }
}

impl FinetuneSettings {
    /// # Errors
    ///
    /// If a setting is out of range, or two of them contradict each other.
    pub(crate) fn check(&self) -> Result<()> {
        self.train.check()?;
        if self.selection.is_some() && self.sample.is_some() {
            return Err(Error::setting("sample", "no `selection` beside it", "both"));
        }
        if self.label_biases == Some(MetricKind::LogLoss) {
            let expected = "accuracy or macro-f1, which count right answers";
            return Err(Error::setting("label_biases", expected, "log-loss"));
        }
        if self.epoch_rows == 0 {
            return Err(Error::setting("epoch_rows", "a number above 0", "0"));
        }
        let judged = [("load_best", self.load_best), ("label_biases", self.label_biases)];
        for (name, metric) in judged {
            if metric.is_some() && self.with_validation {
                let expected = "validation rows that are not trained on, so no `with_validation` beside it";
                return Err(Error::setting(name, expected, "both"));
            }
        }
        Ok(())
    }

    /// # Errors
    ///
    /// If a setting is not one of this kind of model: a decoder, or an encoder.
    pub(crate) fn check_for(&self, decoder: bool) -> Result<()> {
        let own = &self.language_model;
        if !decoder {
            let differs = *own != LanguageModelSettings::default();
            let expected = "a language model (Llama, Mistral, Qwen2 or Qwen3), which these settings are for";
            return if differs {
                Err(Error::setting(
                    "model",
                    expected,
                    format!("the encoder `{}`", self.model),
                ))
            } else {
                Ok(())
            };
        }
        own.lora.check()?;
        if own.full && own.merge {
            return Err(Error::setting("merge", "adapters, so no `full` beside it", "both"));
        }
        if own.full && own.lora != LanguageModelSettings::default().lora {
            let expected = "adapters, which the settings of `lora` are for, so no `full` beside them";
            return Err(Error::setting("full", expected, "both").with_hint("leave one of them out"));
        }
        refuse_encoders_settings(&self.train, "")?;
        refuse(
            "",
            [
                ("new_head", self.new_head),
                ("label_biases", self.label_biases.is_some()),
            ],
        )
    }

    /// # Errors
    ///
    /// If this data cannot be trained on so.
    pub(crate) fn check_against(&self, dataset: &Dataset) -> Result<()> {
        let found = match dataset.task.kind {
            TaskKind::Choice => "questions, whose answers are no labels",
            TaskKind::Response => "prompts with responses",
            TaskKind::Classification | TaskKind::Pair => return Ok(()),
        };
        if self.label_biases.is_some() {
            return Err(Error::setting("label_biases", "rows with labels", found));
        }
        if self.language_model.template.is_some() && dataset.task.kind == TaskKind::Response {
            let expected = "rows with labels or choices, whose prompts it writes";
            return Err(Error::setting("template", expected, found)
                .with_hint("leave it out: these have prompts of their own, which the model's chat template writes"));
        }
        Ok(())
    }
}

/// # Errors
///
/// If a setting of a language model's training is one of encoders alone; `table` is where a settings file has them, with a dot behind it.
pub(crate) fn refuse_encoders_settings(train: &TrainSettings, table: &str) -> Result<()> {
    refuse(
        table,
        [
            ("freeze_layers", train.freeze_layers.is_some()),
            ("train.label_smoothing", train.label_smoothing != 0.0),
            ("train.dropout", train.dropout.is_some()),
        ],
    )
}

/// Refuses the first of these settings that is given.
fn refuse<const N: usize>(table: &str, of_encoders: [(&str, bool); N]) -> Result<()> {
    match of_encoders.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            let name = format!("{table}{name}");
            Err(Error::setting(&name, "an encoder, which alone has it", "a language model").with_hint("leave it out"))
        }
        None => Ok(()),
    }
}
