//! A training run on disk: weights, moments and the step, so that a killed run goes on and ends with the same weights.
//!
//! One safetensors file: tensor `p<i>` is the i-th trained tensor, `words` the word vectors where they are trained; the
//! optimiser's moments by their names. Its metadata hold the step, the seconds of training so far and the
//! fingerprint of the run that it belongs to.

use std::{collections::HashMap, io::Write, path::Path};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{classifier::Classifier, train::Trainer};
use crate::{Error, Fingerprint, Place, Result, model::numbers, nn::adamw::AdamW, write::write_whole};

/// Writes the state of a run that has trained for so many seconds.
///
/// # Errors
///
/// If the file cannot be written.
pub fn save(path: &Path, run: &Fingerprint, seconds: f64, model: &mut Classifier, trainer: &Trainer) -> Result<()> {
    let mut tensors: Vec<(String, Vec<u8>, Dtype, usize)> = Vec::new();
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    for (name, values) in named(trainer, model) {
        tensors.push((name, bytes(values), Dtype::F32, values.len()));
    }
    for (name, values) in trainer.optimiser().moments() {
        tensors.push((name.to_owned(), bytes(values), Dtype::F32, values.len()));
    }
    let slots = trainer.optimiser().slots();
    let slot_bytes = slots.iter().flat_map(|slot| slot.to_le_bytes()).collect();
    tensors.push(("slots".to_owned(), slot_bytes, Dtype::U32, slots.len()));

    let invalid = |error: safetensors::SafeTensorError| Error::io(path, "write")(std::io::Error::other(error));
    let views = tensors
        .iter()
        .map(|(name, bytes, dtype, length)| Ok((name, TensorView::new(*dtype, vec![*length], bytes).map_err(invalid)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([
        ("run".to_owned(), run.to_string()),
        ("step".to_owned(), trainer.optimiser().steps().to_string()),
        ("seconds".to_owned(), seconds.to_string()),
    ]);
    let whole = safetensors::serialize(views, Some(metadata)).map_err(invalid)?;
    write_whole(path, &mut |out| out.write_all(&whole).map_err(Error::io(path, "write")))
}

/// Goes on from the state in a file, and tells the seconds of training so far; `None` where there is no such file, or it belongs
/// to another run.
///
/// # Errors
///
/// If the file is broken.
pub fn load(path: &Path, run: &Fingerprint, model: &mut Classifier, trainer: &mut Trainer) -> Result<Option<f64>> {
    if !path.exists() {
        return Ok(None);
    }
    let file = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let broken = |found: String| {
        Error::data(Place::file(path), "a checkpoint of this run", found)
            .with_hint("delete the file to train from the beginning")
    };
    let (_, header) = SafeTensors::read_metadata(&file).map_err(|error| broken(error.to_string()))?;
    let told = header.metadata().clone().unwrap_or_default();
    if told.get("run").map(String::as_str) != Some(run.as_str()) {
        return Ok(None);
    }
    let number = |name: &str| told.get(name).ok_or_else(|| broken(format!("no {name}")));
    let step: u64 = number("step")?.parse().map_err(|_| broken("no step".into()))?;
    let seconds: f64 = number("seconds")?.parse().map_err(|_| broken("no seconds".into()))?;
    let tensors = SafeTensors::deserialize(&file).map_err(|error| broken(error.to_string()))?;
    let numbers_of = |name: &str| -> Result<Vec<f32>> {
        let tensor = tensors.tensor(name).map_err(|_| broken(format!("no tensor {name}")))?;
        numbers::of_tensor(path, &tensor)
    };
    for (name, values) in named(trainer, model) {
        let kept = numbers_of(&name)?;
        if kept.len() != values.len() {
            return Err(broken(format!(
                "{name} of {} numbers, not {}",
                kept.len(),
                values.len()
            )));
        }
        values.copy_from_slice(&kept);
    }
    let mut moments = Vec::new();
    for (name, _) in trainer.optimiser().moments() {
        moments.push(numbers_of(name)?);
    }
    let slots = tensors.tensor("slots").map_err(|_| broken("no tensor slots".into()))?;
    let slots = slots
        .data()
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let moments = moments.try_into().map_err(|_| broken("other moments".into()))?;
    trainer.set_optimiser(AdamW::restore(trainer.settings().weight_decay, step, moments, slots));
    Ok(Some(seconds))
}

/// The trained tensors of a model by the names that they have in the file.
fn named<'m>(trainer: &Trainer, model: &'m mut Classifier) -> impl Iterator<Item = (String, &'m mut [f32])> {
    let (words, dense) = trainer.trained(model);
    let words = words.into_iter().map(|values| ("words".to_owned(), values));
    words.chain(
        dense
            .into_iter()
            .enumerate()
            .map(|(i, values)| (format!("p{i}"), values)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        finetune::TrainSettings,
        finetune::{Beneath, fit, train::tests::toy},
        seed::Seed,
    };

    #[test]
    fn a_run_that_goes_on_ends_with_the_same_weights() {
        for freeze in [None, Some(1)] {
            let settings = TrainSettings {
                epochs: 2,
                batch: 8,
                rate: 0.01,
                freeze,
                ..TrainSettings::default()
            };
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("checkpoint.safetensors");
            let run = Fingerprint::of(["this run"]);
            let (start, data) = toy();
            let rows: Vec<u32> = (0..40).collect();
            let beneath = freeze.map(|layers| Beneath::new(layers, 1 << 20));
            let train = |model: &mut Classifier, trainer: &mut Trainer, save_at: u64| {
                fit(
                    model,
                    trainer,
                    (&data, &rows),
                    beneath.as_ref(),
                    Seed(1),
                    &mut |step, model, trainer| {
                        if step.step == save_at {
                            save(&path, &run, 1.5, model, trainer)?;
                        }
                        Ok(())
                    },
                )
                .expect("trains");
            };
            let (mut whole, mut trainer) = (start.clone(), Trainer::new(&start, &settings));
            assert_eq!(load(&path, &run, &mut whole, &mut trainer).expect("is not there"), None);
            train(&mut whole, &mut trainer, 7);
            let (mut resumed, mut trainer) = (start.clone(), Trainer::new(&start, &settings));
            let others = Fingerprint::of(["other"]);
            assert_eq!(
                load(&path, &others, &mut resumed, &mut trainer).expect("another's"),
                None
            );
            assert_eq!(load(&path, &run, &mut resumed, &mut trainer).expect("loads"), Some(1.5));
            assert_eq!(trainer.optimiser().steps(), 7);
            train(&mut resumed, &mut trainer, u64::MAX);
            assert!(whole == resumed, "going on from step 7 gave other weights");

            std::fs::write(&path, b"torn").expect("writes");
            let error = load(&path, &run, &mut resumed, &mut trainer).expect_err("is broken");
            assert!(error.is_input() && error.hint().is_some(), "{error}");
        }
    }
}
