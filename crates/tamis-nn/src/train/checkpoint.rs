//! A training run on disk: weights, moments and the step, so that a killed run goes on and ends with the same weights.
//!
//! A safetensors file: the trained tensors by the names that [`Trainer::trained`] gives them; in a checkpoint also the optimiser's moments by their names. Its metadata then hold the step, the fingerprint of the run that it belongs to, and, as JSON, what
//! that run wants to know again. A BLAKE3 of all of it stands among the metadata: a flipped bit is an error, and never other weights.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    path::Path,
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Fingerprint, Place, Result, atomic_write::write_whole, hub::floats, optim::adamw::AdamW,
    train::trainer::Trainer,
};

/// Under which the checksum stands among the metadata.
const CHECKSUM: &str = "blake3";

/// Writes the state of a run that is so far.
///
/// # Errors
///
/// If the file cannot be written.
pub fn save<T: Trainer>(
    path: &Path,
    run: &Fingerprint,
    progress: &impl Serialize,
    model: &mut T::Model,
    trainer: &T,
) -> Result<()> {
    let mut tensors = weights(model, trainer);
    let optimiser = trainer.optimiser();
    tensors.extend(
        optimiser
            .moments()
            .map(|(name, values)| of_f32(name.to_owned(), values)),
    );
    let slots = optimiser.slots();
    let slot_bytes = slots.iter().flat_map(|slot| slot.to_le_bytes()).collect();
    tensors.push(("slots".to_owned(), slot_bytes, Dtype::U32, slots.len()));
    let progress = serde_json::to_string(progress).map_err(|error| Error::io(path, "write")(error.into()))?;
    let metadata = [
        ("run", run.to_string()),
        ("step", optimiser.steps().to_string()),
        ("progress", progress),
    ];
    write(path, &tensors, &metadata)
}

/// Writes the trained weights alone.
///
/// # Errors
///
/// If the file cannot be written.
pub fn save_weights<T: Trainer>(path: &Path, model: &mut T::Model, trainer: &T) -> Result<()> {
    write(path, &weights(model, trainer), &[])
}

/// Goes on from the state in a file, and tells how far that run was; `None` where there is no such file, or it belongs to another run.
///
/// # Errors
///
/// If the file is broken.
pub fn load<T: Trainer, P: DeserializeOwned>(
    path: &Path,
    run: &Fingerprint,
    model: &mut T::Model,
    trainer: &mut T,
) -> Result<Option<P>> {
    if !path.exists() {
        return Ok(None);
    }
    let file = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let (tensors, told) = parse(path, &file)?;
    if told.get("run").map(String::as_str) != Some(run.as_str()) {
        return Ok(None);
    }
    let broken = |found: String| broken(path, found);
    let of = |name: &str| told.get(name).ok_or_else(|| broken(format!("no {name}")));
    let step: u64 = of("step")?.parse().map_err(|_| broken("no step".into()))?;
    let progress = serde_json::from_str(of("progress")?).map_err(|error| broken(error.to_string()))?;
    set_weights(path, &tensors, model, trainer)?;
    let mut moments = Vec::new();
    for (name, _) in trainer.optimiser().moments() {
        moments.push(numbers_of(path, &tensors, name)?);
    }
    let slots = tensors.tensor("slots").map_err(|_| broken("no tensor slots".into()))?;
    let slots = slots
        .data()
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let moments = moments.try_into().map_err(|_| broken("other moments".into()))?;
    trainer.set_optimiser(AdamW::restore(trainer.settings().weight_decay, step, moments, slots));
    Ok(Some(progress))
}

/// Gives the model the trained weights in a file.
///
/// # Errors
///
/// If the file cannot be read, or is broken.
pub fn load_weights<T: Trainer>(path: &Path, model: &mut T::Model, trainer: &T) -> Result<()> {
    let file = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let (tensors, _) = parse(path, &file)?;
    set_weights(path, &tensors, model, trainer)
}

/// A tensor of one dimension: its name, bytes, type and length.
type Flat = (String, Vec<u8>, Dtype, usize);

fn of_f32(name: String, values: &[f32]) -> Flat {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    (name, bytes, Dtype::F32, values.len())
}

fn weights<T: Trainer>(model: &mut T::Model, trainer: &T) -> Vec<Flat> {
    trainer
        .trained(model)
        .into_iter()
        .map(|(name, values)| of_f32(name, values))
        .collect()
}

fn write(path: &Path, tensors: &[Flat], metadata: &[(&str, String)]) -> Result<()> {
    let invalid = |error: safetensors::SafeTensorError| Error::io(path, "write")(std::io::Error::other(error));
    let views = tensors
        .iter()
        .map(|(name, bytes, dtype, length)| Ok((name, TensorView::new(*dtype, vec![*length], bytes).map_err(invalid)?)))
        .collect::<Result<Vec<_>>>()?;
    let mut metadata: HashMap<_, _> = metadata
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let sum = checksum(&metadata, views.iter().map(|(name, view)| (name.as_str(), view)));
    metadata.insert(CHECKSUM.to_owned(), sum.to_string());
    let whole = safetensors::serialize(views, Some(metadata)).map_err(invalid)?;
    write_whole(path, &mut |out| out.write_all(&whole).map_err(Error::io(path, "write")))
}

/// The tensors and the metadata of a file, as they were written.
fn parse<'f>(path: &Path, file: &'f [u8]) -> Result<(SafeTensors<'f>, HashMap<String, String>)> {
    let invalid = |error: safetensors::SafeTensorError| broken(path, error.to_string());
    let (_, header) = SafeTensors::read_metadata(file).map_err(invalid)?;
    let mut told = header.metadata().clone().unwrap_or_default();
    let tensors = SafeTensors::deserialize(file).map_err(invalid)?;
    let sum = told.remove(CHECKSUM);
    let views = tensors.tensors();
    let own = checksum(&told, views.iter().map(|(name, view)| (name.as_str(), view)));
    if sum.as_deref() != Some(own.as_str()) {
        return Err(broken(path, "bytes that do not match its checksum".into()));
    }
    Ok((tensors, told))
}

/// A hash of all that a file holds, whatever the order.
fn checksum<'t>(
    metadata: &HashMap<String, String>,
    tensors: impl Iterator<Item = (&'t str, &'t TensorView<'t>)>,
) -> Fingerprint {
    let metadata: BTreeMap<_, _> = metadata.iter().collect();
    let tensors: BTreeMap<_, _> = tensors.collect();
    let described = metadata
        .into_iter()
        .flat_map(|(name, value)| [name.clone(), value.clone()]);
    let described = described.chain(["tensors".to_owned()]).map(String::into_bytes);
    Fingerprint::of(described.chain(tensors.into_iter().flat_map(|(name, view)| {
        let header = format!("{name} {:?} {:?}", view.dtype(), view.shape());
        [header.into_bytes(), view.data().to_vec()]
    })))
}

fn set_weights<T: Trainer>(path: &Path, tensors: &SafeTensors<'_>, model: &mut T::Model, trainer: &T) -> Result<()> {
    for (name, values) in trainer.trained(model) {
        let kept = numbers_of(path, tensors, &name)?;
        if kept.len() != values.len() {
            let found = format!("{name} of {} numbers, not {}", kept.len(), values.len());
            return Err(broken(path, found));
        }
        values.copy_from_slice(&kept);
    }
    Ok(())
}

fn numbers_of(path: &Path, tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>> {
    let tensor = tensors
        .tensor(name)
        .map_err(|_| broken(path, format!("no tensor {name}")))?;
    floats::of_tensor(path, &tensor)
}

fn broken(path: &Path, found: String) -> Error {
    Error::data(Place::file(path), "a checkpoint of this run", found)
        .with_hint("delete the file to train from the beginning")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        seed::Seed,
        test_util::tiny_classifier,
        train::{ClassifierTrainer, EncoderClassifier, Examples, FrozenLayerCache, TrainSettings, train},
    };

    #[test]
    fn a_run_that_goes_on_ends_with_the_same_weights() {
        for freeze in [None, Some(1)] {
            let settings = TrainSettings {
                epochs: 2,
                batch_size: 8,
                learning_rate: Some(0.01),
                freeze_layers: freeze,
                ..TrainSettings::default()
            };
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("checkpoint.safetensors");
            let run = Fingerprint::of(["this run"]);
            let (start, data) = tiny_classifier();
            let rows: Vec<u32> = (0..40).collect();
            let frozen = freeze.map(|layers| FrozenLayerCache::new(layers, 1 << 20));
            let train_on = |model: &mut EncoderClassifier, trainer: &mut ClassifierTrainer, save_at: u64| {
                train::<_, Error>(
                    model,
                    trainer,
                    Examples {
                        split: &data,
                        rows: &rows,
                        frozen: frozen.as_ref(),
                    },
                    Seed(1),
                    &mut |step, model, trainer| {
                        if step.step == save_at {
                            save(&path, &run, &1.5, model, trainer)?;
                        }
                        Ok(())
                    },
                )
                .expect("trains");
            };
            let (mut whole, mut trainer) = (start.clone(), ClassifierTrainer::new(&start, &settings));
            let nothing: Option<f64> = load(&path, &run, &mut whole, &mut trainer).expect("is not there");
            assert_eq!(nothing, None);
            train_on(&mut whole, &mut trainer, 7);
            let (mut resumed, mut trainer) = (start.clone(), ClassifierTrainer::new(&start, &settings));
            let others = Fingerprint::of(["other"]);
            let nothing: Option<f64> = load(&path, &others, &mut resumed, &mut trainer).expect("another's");
            assert_eq!(nothing, None);
            assert_eq!(load(&path, &run, &mut resumed, &mut trainer).expect("loads"), Some(1.5));
            assert_eq!(trainer.optimiser().steps(), 7);
            train_on(&mut resumed, &mut trainer, u64::MAX);
            assert!(whole == resumed, "going on from step 7 gave other weights");
            let checkpoint = std::fs::read(&path).expect("reads");

            save_weights(&path, &mut whole, &trainer).expect("writes");
            let mut again = start.clone();
            load_weights(&path, &mut again, &trainer).expect("loads");
            assert!(whole == again, "other weights were read than written");

            for (file, is_checkpoint) in [(checkpoint, true), (std::fs::read(&path).expect("reads"), false)] {
                for place in (0..file.len()).step_by(97) {
                    let mut flipped = file.clone();
                    flipped[place] ^= 1 << (place % 8);
                    std::fs::write(&path, flipped).expect("writes");
                    let error = if is_checkpoint {
                        load::<_, f64>(&path, &run, &mut resumed, &mut trainer).map(|_| ())
                    } else {
                        load_weights(&path, &mut again, &trainer)
                    };
                    let error = error.expect_err("a bit is flipped");
                    assert!(
                        error.to_string().contains("a checkpoint of this run") && error.hint().is_some(),
                        "{error}"
                    );
                }
            }

            std::fs::write(&path, b"torn").expect("writes");
            let error = load::<_, f64>(&path, &run, &mut resumed, &mut trainer).expect_err("is broken");
            assert!(matches!(error, Error::Data { .. }) && error.hint().is_some(), "{error}");
        }
    }
}
