//! Vectors of every split, from the embedder that the settings name.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tamis_nn::{Fingerprint, Monitor, hub::classifier};

use crate::{
    Result,
    data::{Dataset, Example, Split},
    embed::{
        Embedded, Embedder,
        cache::Cached,
        encoder::Encoder,
        lexical::{self, Lexical},
        precomputed,
        spec::{is_encoder, is_file},
    },
    pipeline::stages::Stages,
    settings::select::SelectSettings,
};

/// The fingerprint of the contents of all that a run reads: the data, a file of vectors, the files of models.
pub(crate) fn sources(settings: &SelectSettings, dataset: &Dataset) -> Result<Fingerprint> {
    let mut contents = vec![dataset.fingerprint.clone()];
    let name = settings.embedder.as_str();
    if is_file(name) {
        contents.push(Fingerprint::of_file(Path::new(name))?);
    } else if is_encoder(name) {
        contents.push(Encoder::files(name)?.fingerprint()?);
    }
    let target = settings.model.as_deref().filter(|_| settings.finetunes());
    if let Some(name) = target.filter(|name| is_encoder(name)) {
        contents.push(classifier::files(name, "model")?.fingerprint()?);
    }
    Ok(Fingerprint::of(contents))
}

/// Vectors of train, validation and test, and what each row of the pool costs in tokens.
pub(crate) fn embed(
    settings: &SelectSettings,
    dataset: &Dataset,
    stages: &mut Stages<'_>,
    monitor: &dyn Monitor,
) -> Result<(Vec<Embedded>, Vec<u32>)> {
    let splits: Vec<&Split> = [Some(&dataset.train), Some(&dataset.validation), dataset.test.as_ref()]
        .into_iter()
        .flatten()
        .collect();
    let name = settings.embedder.as_str();
    let tokens = |count: &(dyn Fn(&str) -> u32 + Sync)| -> Vec<u32> {
        let tokens_of = |example: &Example| example.input.texts().into_iter().map(count).sum();
        dataset
            .pool
            .par_iter()
            .map(|&row| tokens_of(&dataset.train.examples[row as usize]))
            .collect()
    };
    if is_file(name) {
        let embedded = stages.run("embed", None, || precomputed::load(Path::new(name), &splits))?;
        return Ok((embedded, tokens(&lexical::count_tokens)));
    }
    let texts: Vec<Vec<&str>> = splits
        .iter()
        .map(|split| {
            split
                .examples
                .iter()
                .flat_map(|example| example.input.texts())
                .collect()
        })
        .collect();
    let total = texts.iter().map(|texts| texts.len() as u64).sum();
    stages.run("embed", Some(total), || {
        let embedder: Box<dyn Embedder> = if is_encoder(name) {
            let encoder = Encoder::load(name, settings.embed_dtype)?;
            match settings.cache.clone().or_else(cache_folder) {
                Some(folder) => Box::new(Cached::new(encoder, &folder)?),
                None => Box::new(encoder),
            }
        } else {
            Box::new(Lexical::fit(
                &settings.lexical,
                &texts[0],
                settings.seed.derive("lexical"),
                monitor,
            )?)
        };
        let embedded = splits
            .iter()
            .zip(&texts)
            .map(|(split, texts)| {
                let vectors = embedder.embed(texts, monitor)?;
                let mut starts = vec![0];
                for example in &split.examples {
                    starts.push(starts[starts.len() - 1] + example.input.texts().len() as u32);
                }
                Ok(Embedded { vectors, starts })
            })
            .collect::<Result<_>>()?;
        Ok((embedded, tokens(&|text| embedder.count_tokens(text))))
    })
}

/// Where embeddings are kept when the settings do not say.
fn cache_folder() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(base.join("tamis"))
}
