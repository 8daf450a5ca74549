//! Vectors of every split, from the embedder that the settings name.

use std::{path::PathBuf, sync::Arc};

use rayon::prelude::*;
use tamis_nn::{
    Fingerprint, Matrix,
    hub::{classifier, pretrained},
    train::ResponseLoss,
};

use crate::{
    Result,
    budget::{Budget, Limit, limit_of},
    data::{Dataset, RowId, Split},
    embed::{
        Embedded, Embedder, TextLength, VectorStore,
        cache::Cached,
        encoder::Encoder,
        lexical::{self, Lexical},
        pooled, precomputed,
        spec::EmbedderSpec,
    },
    pipeline::{context::Context, memory::check_vectors, responses::Responses},
    settings::select::SelectSettings,
    vectors::Collector,
};

/// Texts that are embedded before their vectors are put away.
const BLOCK: usize = 1 << 16;
/// In how many parts the texts of a sentence encoder are embedded at most: each looks through the whole cache.
const PARTS: usize = 16;

/// The fingerprint of the contents of all that a run reads: the data, a file of vectors, the files of models.
pub(crate) fn sources(
    settings: &SelectSettings,
    dataset: &Dataset,
    responses: Option<&Responses>,
) -> Result<Fingerprint> {
    let mut contents = vec![dataset.fingerprint.clone()];
    match &settings.embedder {
        EmbedderSpec::Auto | EmbedderSpec::Lexical | EmbedderSpec::HiddenStates => {}
        EmbedderSpec::Vectors(path) => contents.push(Fingerprint::of_file(path)?),
        EmbedderSpec::Encoder(name) => contents.push(pretrained::fingerprint(&Encoder::files(name)?)?),
    }
    if let Some(responses) = responses {
        contents.push(responses.fingerprint.clone());
    } else if let Some(name) = trained_model(settings) {
        contents.push(pretrained::fingerprint(&classifier::files(&name, "model")?)?);
    }
    Ok(Fingerprint::of(contents))
}

/// The encoder that is to be fine-tuned, where it is not the embedder.
fn trained_model(settings: &SelectSettings) -> Option<String> {
    let model = settings.model.as_deref().filter(|_| settings.finetunes())?;
    match EmbedderSpec::from(model) {
        EmbedderSpec::Encoder(name) => Some(name),
        EmbedderSpec::Auto | EmbedderSpec::Lexical | EmbedderSpec::HiddenStates | EmbedderSpec::Vectors(_) => None,
    }
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

/// The losses and gradients of a split's rows.
pub(crate) struct SplitGradients {
    pub(crate) losses: Vec<ResponseLoss>,
    /// Shape `(rows, sketch width)`.
    pub(crate) sketches: Matrix,
}

/// What a pass of a language model says of every split's rows.
pub(crate) struct Gradients {
    pub(crate) train: SplitGradients,
    pub(crate) validation: SplitGradients,
    pub(crate) test: Option<SplitGradients>,
    pub(crate) prompts: PromptGains,
}

/// What prompts tell of their responses, by the model that gradients are of.
pub(crate) struct PromptGains {
    /// The loss of each response of the pool over its loss without its prompt, both a token, shape `(pool,)`.
    pub(crate) difficulty: Vec<f32>,
    /// The loss of each response of the pool without its prompt less that with it, in nats, shape `(pool,)`; infinite where no prompt is
    /// read.
    pub(crate) gains: Vec<f32>,
    /// The same of some responses put to prompts of other rows.
    pub(crate) of_mismatched: Vec<f32>,
}

/// Vectors of every split, and what each row of the pool costs in tokens.
pub(crate) struct Vectors {
    pub(crate) splits: SplitVectors,
    /// Shape `(rows of the pool,)`.
    pub(crate) tokens: Vec<u32>,
    /// Texts of all splits of which the embedder read the beginning only.
    pub(crate) truncated: u64,
    /// Where rows have responses.
    pub(crate) gradients: Option<Gradients>,
}

impl Vectors {
    /// One vector a row of the pool.
    pub(crate) fn of_pool(&self, context: Context<'_>) -> Result<Arc<dyn VectorStore>> {
        pooled::one_each(&self.splits.train, &context.dataset.pool, &context.settings.out)
    }

    /// One vector a row of the reward fold.
    pub(crate) fn of_fold(&self, context: Context<'_>) -> Result<Matrix> {
        pooled::of_few(&self.splits.validation, &context.folds.reward)
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
    let texts: Vec<Vec<&str>> = splits.iter().map(|split| split.texts()).collect();
    if let EmbedderSpec::Vectors(path) = &settings.embedder {
        let embedded = context
            .stages
            .run("embed", None, || precomputed::load(path, &splits, &settings.out))?;
        return vectors(context, embedded, &texts, &|text| {
            Ok(TextLength::whole(lexical::count_tokens(text)))
        });
    }
    let total = texts.iter().map(|texts| texts.len() as u64).sum();
    context.stages.run("embed", Some(total), || {
        let embedder = embedder(context, &texts[0])?;
        let counts: Vec<usize> = texts.iter().map(Vec::len).collect();
        check_vectors(&counts, embedder.dim(), dataset.task.kind, &settings.out)?;
        let embedded = splits
            .iter()
            .zip(&texts)
            .map(|(split, texts)| {
                let mut vectors = Collector::new(&settings.out, texts.len(), embedder.dim())?;
                let block = match settings.embedder {
                    EmbedderSpec::Encoder(_) => BLOCK.max(texts.len().div_ceil(PARTS)),
                    _ => BLOCK,
                };
                for texts in texts.chunks(block) {
                    vectors.push(embedder.embed(texts, context.monitor())?.as_slice())?;
                }
                Ok(Embedded {
                    vectors: vectors.finish()?,
                    starts: split.text_starts(),
                })
            })
            .collect::<Result<_>>()?;
        vectors(context, embedded, &texts, &|text| embedder.count_tokens(text))
    })
}

/// The vectors with the lengths of their texts: tokens are those of the model that is to be fine-tuned, else the embedder's.
fn vectors(
    context: Context<'_>,
    embedded: Vec<Embedded>,
    texts: &[Vec<&str>],
    length: &(dyn Fn(&str) -> Result<TextLength> + Sync),
) -> Result<Vectors> {
    let lengths = |texts: &Vec<&str>| texts.par_iter().map(|text| length(text)).collect::<Result<Vec<_>>>();
    let lengths: Vec<Vec<TextLength>> = texts.iter().map(lengths).collect::<Result<_>>()?;
    let tokens: Vec<u32> = match trained_model(context.settings) {
        Some(name) => {
            let tokenizer = pretrained::tokenizer_alone(&classifier::files(&name, "model")?)?;
            let count = |text: &&str| Ok(tokenizer.count(text)? as u32);
            texts[0].par_iter().map(count).collect::<Result<_>>()?
        }
        None => lengths[0].iter().map(|length| length.tokens).collect(),
    };
    let starts = context.dataset.train.text_starts();
    let of_row = |&row: &RowId| {
        let row = row as usize;
        tokens[starts[row] as usize..starts[row + 1] as usize].iter().sum()
    };
    let splits = SplitVectors::of(embedded);
    warn_if_alike(&*splits.train.vectors, context)?;
    Ok(Vectors {
        splits,
        tokens: context.dataset.pool.iter().map(of_row).collect(),
        truncated: lengths.iter().flatten().filter(|length| length.truncated).count() as u64,
        gradients: None,
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
        Some(folder) => Box::new(Cached::new(encoder, &folder)),
        None => Box::new(encoder),
    })
}

/// Warns of training vectors that hardly tell rows apart: the run goes on, and what it chooses means little.
fn warn_if_alike(vectors: &dyn VectorStore, context: Context<'_>) -> Result<()> {
    if let Some(alike) = alike(vectors)? {
        let settings = context.settings;
        // Rows of responses have a model, but while the lexical embedder says which of them it is to read.
        let (chosen, way_out) = if settings.prefilter.is_some() && settings.model.is_none() {
            ("what the model will read", "leave `prefilter` out")
        } else {
            ("a selection", "try another `embedder`")
        };
        context.monitor().warn(&format!(
            "the vectors of the training rows {alike}: rows cannot be told apart by them, and {chosen} is hardly better than random rows; \
             look at the texts, or {way_out}"
        ));
    }
    Ok(())
}

/// What vectors of unit length, or zero, have in common, if they differ along one direction at most.
fn alike(vectors: &dyn VectorStore) -> Result<Option<&'static str>> {
    /// Far above the rounding of a product of two vectors, in half precision as well.
    const CLOSE: f32 = 1e-5;
    let mut first: Option<Vec<f32>> = None;
    let (mut zeros, mut opposite) = (false, false);
    for i in 0..vectors.count() {
        let vector = vectors.rows(i..i + 1)?;
        if vector.iter().all(|&x| x == 0.0) {
            zeros = true;
            continue;
        }
        let first = first.get_or_insert_with(|| vector.to_vec());
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let product = dot(first, &vector);
        // Half precision leaves no vector at unit length.
        let lengths = (dot(first, first) * dot(&vector, &vector)).sqrt();
        if product.abs() < (1.0 - CLOSE) * lengths {
            return Ok(None);
        }
        opposite |= product < 0.0;
    }
    Ok(Some(match first {
        None => "are all zero",
        Some(_) if zeros || opposite => "differ along one direction alone",
        Some(_) => "are all the same",
    }))
}

/// Where embeddings are kept when the settings do not say. An empty variable counts as unset.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let folder = |variable: &str| {
        let value = std::env::var_os(variable).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let base = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(base.join("tamis"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_tell_nothing_apart_are_seen() {
        for (rows, want) in [
            (&[[0.0, 0.0], [0.0, 0.0]][..], Some("are all zero")),
            (&[[0.6, 0.8], [0.6, 0.8]], Some("are all the same")),
            (&[[0.6, 0.8], [-0.6, -0.8]], Some("differ along one direction alone")),
            (&[[0.0, 0.0], [0.6, 0.8]], Some("differ along one direction alone")),
            (&[[0.6, 0.8], [0.8, 0.6], [0.6, 0.8]], None),
        ] {
            let vectors = Matrix::from_vec(rows.concat(), rows.len(), 2);
            assert_eq!(alike(&vectors).expect("reads"), want);
        }
    }
}
