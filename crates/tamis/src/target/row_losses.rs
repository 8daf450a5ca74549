//! The losses of rows by a language model, kept on disk as their gradients are.

use std::path::Path;

use tamis_nn::{
    Fingerprint, Matrix, Monitor,
    train::{Examples, LanguageModel, ResponseLoss, TokenizedSplit},
};

use crate::{
    Result,
    embed::cache::{Key, VectorCache},
    target::row_gradients::{GradientEngine, by_engine, key_of_row},
};

/// Rows between two times of keeping.
const BLOCK: usize = 256;

/// Of all examples of a split, in their order, by a model which `identity` stands for, adapters with it; what is worked out is kept in
/// `folder`, if one is named; an engine works in the model's place. One step of `monitor` an example.
///
/// # Errors
///
/// If a loss is not finite, or the user stopped.
pub fn losses(
    model: &LanguageModel,
    identity: &Fingerprint,
    folder: Option<&Path>,
    engine: Option<&dyn GradientEngine>,
    split: &TokenizedSplit,
    monitor: &dyn Monitor,
) -> Result<Vec<ResponseLoss>> {
    let all = split.all();
    let source = Fingerprint::of([
        b"row losses 1",
        identity.as_ref(),
        model.dtype.identity().as_bytes(),
        engine.map(GradientEngine::name).unwrap_or_default().as_bytes(),
    ]);
    let keys: Vec<Key> = all.iter().map(|&row| key_of_row(split, row)).collect();
    let mut make = |places: &[usize]| {
        let rows: Vec<u32> = places.iter().map(|&i| all[i]).collect();
        if let Some(engine) = engine {
            return by_engine(engine, split, &rows, (None, 2), monitor);
        }
        let losses = model.losses(Examples::new(split, &rows), monitor)?;
        let numbers = losses.iter().flat_map(|loss| [loss.sum as f32, loss.tokens as f32]);
        Ok(Matrix::from_vec(numbers.collect(), losses.len(), 2))
    };
    let kept = match folder {
        Some(folder) => VectorCache::new(folder, &source, 2, BLOCK).vectors(&keys, &mut make, monitor)?,
        None => make(&(0..all.len()).collect::<Vec<_>>())?,
    };
    let loss = |row: &[f32]| ResponseLoss {
        sum: f64::from(row[0]),
        tokens: row[1] as u64,
    };
    Ok(kept.iter_rows().map(loss).collect())
}
