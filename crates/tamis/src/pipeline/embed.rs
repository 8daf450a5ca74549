//! Vectors of every split, from the embedder that the settings name.

use std::{path::PathBuf, sync::Arc};

use rayon::prelude::*;
use tamis_nn::{Fingerprint, Matrix, hub::classifier};

use crate::{
    Result,
    budget::{Budget, Limit, limit_of},
    data::{Dataset, Example, RowId, Split},
    embed::{
        Embedded, Embedder,
        cache::Cached,
        encoder::Encoder,
        lexical::{self, Lexical},
        pooled, precomputed,
        spec::EmbedderSpec,
    },
    pipeline::context::Context,
    settings::select::SelectSettings,
};

/// The fingerprint of the contents of all that a run reads: the data, a file of vectors, the files of models.
pub(crate) fn sources(settings: &SelectSettings, dataset: &Dataset) -> Result<Fingerprint> {
    let mut contents = vec![dataset.fingerprint.clone()];
    match &settings.embedder {
        EmbedderSpec::Lexical => {}
        EmbedderSpec::Vectors(path) => contents.push(Fingerprint::of_file(path)?),
        EmbedderSpec::Encoder(name) => contents.push(Encoder::files(name)?.fingerprint()?),
    }
    let target = settings.model.as_deref().filter(|_| settings.finetunes());
    if let Some(EmbedderSpec::Encoder(name)) = target.map(EmbedderSpec::from) {
        contents.push(classifier::files(&name, "model")?.fingerprint()?);
    }
    Ok(Fingerprint::of(contents))
}

/// One thing for each split of the data.
pub(crate) struct SplitVectors {
    pub(crate) train: Embedded,
    pub(crate) validation: Embedded,
    pub(crate) test: Option<Embedded>,
}

impl SplitVectors {
    /// From the vectors of train, validation and, where there is one, test.
    pub(crate) fn of(splits: Vec<Embedded>) -> Self {
        let mut splits = splits.into_iter();
        let mut next = || splits.next().expect("a training and a validation split");
        let (train, validation) = (next(), next());
        Self {
            train,
            validation,
            test: splits.next(),
        }
    }
}

/// Vectors of every split, and what each row of the pool costs in tokens.
pub(crate) struct Vectors {
    pub(crate) splits: SplitVectors,
    /// Shape `(rows of the pool,)`.
    pub(crate) tokens: Vec<u32>,
}

impl Vectors {
    /// One vector a row of the pool.
    pub(crate) fn of_pool(&self, pool: &[RowId]) -> Result<Matrix> {
        pooled::one_each(&self.splits.train, pool)
    }

    /// One vector a row of a fold of the validation rows.
    pub(crate) fn of_fold(&self, fold: &[u32]) -> Result<Matrix> {
        pooled::one_each(&self.splits.validation, fold)
    }

    /// What a budget comes to.
    ///
    /// # Errors
    ///
    /// If it is more than the pool has.
    pub(crate) fn limit(&self, budget: Budget) -> Result<Limit> {
        limit_of(budget, &self.tokens)
    }
}

/// Embeds every split with the embedder of the settings.
///
/// # Errors
///
/// If a file cannot be read or does not fit the data, or the user stopped the run.
pub(crate) fn embed(context: Context<'_>) -> Result<Vectors> {
    let (settings, dataset) = (context.settings, context.dataset);
    let splits: Vec<&Split> = [Some(&dataset.train), Some(&dataset.validation), dataset.test.as_ref()]
        .into_iter()
        .flatten()
        .collect();
    if let EmbedderSpec::Vectors(path) = &settings.embedder {
        let embedded = context.stages.run("embed", None, || precomputed::load(path, &splits))?;
        return Ok(Vectors {
            splits: SplitVectors::of(embedded),
            tokens: tokens_of_pool(dataset, &lexical::count_tokens),
        });
    }
    let texts: Vec<Vec<&str>> = splits.iter().map(|split| split.texts()).collect();
    let total = texts.iter().map(|texts| texts.len() as u64).sum();
    context.stages.run("embed", Some(total), || {
        let embedder = embedder(context, &texts[0])?;
        let embedded = splits
            .iter()
            .zip(&texts)
            .map(|(split, texts)| {
                Ok(Embedded {
                    vectors: Arc::new(embedder.embed(texts, context.monitor())?),
                    starts: split.text_starts(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Vectors {
            splits: SplitVectors::of(embedded),
            tokens: tokens_of_pool(dataset, &|text| embedder.count_tokens(text)),
        })
    })
}

/// The embedder of the settings; the lexical one is fitted to these texts.
fn embedder(context: Context<'_>, texts: &[&str]) -> Result<Box<dyn Embedder>> {
    let settings = context.settings;
    let EmbedderSpec::Encoder(name) = &settings.embedder else {
        let seed = settings.seed.derive("lexical");
        return Ok(Box::new(Lexical::fit(
            &settings.lexical,
            texts,
            seed,
            context.monitor(),
        )?));
    };
    let encoder = Encoder::load(name, settings.embed_dtype)?;
    Ok(match settings.cache.clone().or_else(cache_folder) {
        Some(folder) => Box::new(Cached::new(encoder, &folder)?),
        None => Box::new(encoder),
    })
}

/// How many tokens each row of the pool has, shape `(rows of the pool,)`.
fn tokens_of_pool(dataset: &Dataset, count: &(dyn Fn(&str) -> u32 + Sync)) -> Vec<u32> {
    let tokens_of = |example: &Example| example.input.texts().into_iter().map(count).sum();
    dataset
        .pool
        .par_iter()
        .map(|&row| tokens_of(&dataset.train.examples[row as usize]))
        .collect()
}

/// Where embeddings are kept when the settings do not say.
fn cache_folder() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(base.join("tamis"))
}
