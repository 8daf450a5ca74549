//! `finetune`: the target trained on a selection or on everything, evaluated, and written as a folder that transformers or peft loads.

mod chosen;
mod encoder;
mod evaluation;
mod language_model;
mod material;
mod run;
mod training;

use tamis_nn::{
    Monitor,
    hub::{classifier, decoder_config::is_decoder, language_model::refuse_adapters},
};

use crate::{
    Result, data, pipeline::stages::Stages, records::finetune::FinetuneRecord, settings::finetune::FinetuneSettings,
};

pub use chosen::selection_data;

/// Trains the target, evaluates it and writes it. The same call goes on after a kill and ends with the same weights.
///
/// # Errors
///
/// If the data, the model, the settings or the folder are not as they must be, a pass does not fit in memory, a loss is not finite,
/// a file cannot be written, or the user stopped the run.
pub fn finetune(settings: &FinetuneSettings, monitor: &dyn Monitor) -> Result<FinetuneRecord> {
    settings.check()?;
    let files = classifier::files(&settings.model, "model")?;
    refuse_adapters(&files)?;
    let decoder = is_decoder(&files)?;
    settings.check_for(decoder)?;
    let stages = Stages::new(monitor);
    let dataset = stages.run("read", None, || data::read(&settings.data, monitor))?;
    settings.check_against(&dataset)?;
    if decoder {
        language_model::finetune(settings, &files, &dataset, &stages)
    } else {
        encoder::finetune(settings, &dataset, &stages)
    }
}
