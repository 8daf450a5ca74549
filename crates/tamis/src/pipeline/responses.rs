//! Rows of responses in a run: the language model that is to be fine-tuned on them, loaded once, and every split as its tokens.

use std::sync::Arc;

use tamis_nn::{
    Fingerprint,
    hub::{
        classifier,
        decoder_config::is_decoder,
        language_model::{load, loading_bytes, refuse_adapters},
    },
    train::{LanguageModel, Objective, TokenizedSplit},
};

use crate::{
    Error, Result,
    data::{self, Dataset, RowId, Split},
    pipeline::memory::{check_loading, check_memory_of},
    settings::select::SelectSettings,
    target::{
        responses::{Answers, EncodedResponses, ResponseEncoder},
        row_gradients::GradientEngine,
    },
};

/// A language model, and every split as its tokens.
pub(crate) struct Responses {
    /// As it was loaded, without adapters.
    pub(crate) model: LanguageModel,
    /// Of the model and its tokenizer.
    pub(crate) fingerprint: Fingerprint,
    pub(crate) train: Arc<TokenizedSplit>,
    pub(crate) validation: Arc<TokenizedSplit>,
    pub(crate) test: Option<Arc<TokenizedSplit>>,
    /// Who makes the model's passes in its place.
    pub(crate) engine: Option<Arc<dyn GradientEngine>>,
}

impl Responses {
    /// Loads the model that the settings name. Rows that it cannot read or learn from become rejects: they leave the pool and the splits.
    ///
    /// # Errors
    ///
    /// If the model is none that writes text, or does not fit in memory, or too many rows cannot be read.
    pub(crate) fn load(settings: &SelectSettings, dataset: &mut Dataset) -> Result<Self> {
        let name = settings.model.as_deref().unwrap_or_default();
        let files = classifier::files(name, "model")?;
        refuse_adapters(&files)?;
        let way_out =
            "name a Llama-family language model, a folder or hub id: `model HuggingFaceTB/SmolLM2-135M-Instruct`";
        if !is_decoder(&files)? {
            let expected = "a language model (Llama, Mistral, Qwen2 or Qwen3), which alone writes responses";
            return Err(Error::setting("model", expected, format!("the encoder `{name}`")).with_hint(way_out));
        }
        check_loading(loading_bytes(&files, way_out)?)?;
        let (own, train) = (&settings.language_model, &settings.finetune.train);
        let loaded = load(&files, train.dtype, train.max_length(), way_out)?;
        if !own.full {
            // Once, for all copies.
            loaded.model.pack();
        }
        let encoder = ResponseEncoder {
            template: &loaded.template,
            tokenizer: &loaded.tokenizer,
            prompt: None,
            task: &dataset.task,
            answers: &[],
        };
        let encode = |split: &Split| {
            let all: Vec<u32> = (0..split.examples.len() as u32).collect();
            encoder.encode(split, &all, Answers::Right)
        };
        let encoded = [
            Some(encode(&dataset.train)?),
            Some(encode(&dataset.validation)?),
            dataset.test.as_ref().map(encode).transpose()?,
        ];
        let [train, validation, test] = keep_readable(encoded, dataset, settings.data.max_bad)?;
        let responses = Self {
            model: loaded.model,
            fingerprint: loaded.fingerprint,
            train: Arc::new(train.unwrap_or_else(|| unreachable!("there are training rows"))),
            validation: Arc::new(validation.unwrap_or_else(|| unreachable!("there are validation rows"))),
            test: test.map(Arc::new),
            engine: None,
        };
        if settings.finetunes() {
            let model = responses.adapted(settings);
            let bytes = |tokens| model.training_bytes(tokens, 1);
            check_memory_of(&bytes, &responses.train, &settings.finetune.train, own.full)?;
        }
        Ok(responses)
    }

    /// A copy that is ready to be trained: with new adapters, unless the settings train all weights.
    pub(crate) fn adapted(&self, settings: &SelectSettings) -> LanguageModel {
        let (own, mut model) = (&settings.language_model, self.model.clone());
        if !own.full {
            model.adapt(&own.lora, settings.seed.derive("adapters"));
        }
        model
    }

    /// The same with these training rows alone, which ascend.
    pub(crate) fn only(self, rows: &[RowId]) -> Self {
        Self {
            train: Arc::new(only(&self.train, rows)),
            ..self
        }
    }

    /// Every split: train, validation and, where there is one, test.
    pub(crate) fn splits(&self) -> impl Iterator<Item = &TokenizedSplit> {
        let splits = [Some(&self.train), Some(&self.validation), self.test.as_ref()];
        splits.into_iter().flatten().map(|split| &**split)
    }

    /// Whether a prompt is read of a training row: there is none where it was cut off, or not given.
    pub(crate) fn has_prompt(&self, row: RowId) -> bool {
        !self.parts(row).0.is_empty()
    }

    /// The responses of these training rows, each behind the one token before it.
    pub(crate) fn without_prompts(&self, rows: &[RowId]) -> TokenizedSplit {
        let mut alone = TokenizedSplit::new(1);
        for &row in rows {
            let (tokens, learned) = self.parts(row).1;
            alone.push([(tokens.to_vec(), learned.to_vec())], Objective::Response);
        }
        alone
    }

    /// Responses of training rows behind prompts of others; a pair is the places in `rows` of a prompt and of a response. A prompt that
    /// makes the row too long loses its front.
    pub(crate) fn with_prompts_of(&self, rows: &[RowId], pairs: &[(usize, usize)]) -> TokenizedSplit {
        let (mut joined, longest) = (TokenizedSplit::new(1), self.train.longest());
        for &(prompt, response) in pairs {
            let (asked, (said, learned)) = (self.parts(rows[prompt]).0, self.parts(rows[response]).1);
            let kept = asked.len().min(longest - said.len());
            let tokens = [&asked[asked.len() - kept..], said].concat();
            joined.push([(tokens, [&vec![0; kept], learned].concat())], Objective::Response);
        }
        joined
    }

    /// The tokens of a training row before the first response with something before it, but for the last of them; and from that one on,
    /// with what is to be said.
    fn parts(&self, row: RowId) -> (&[u32], (&[u32], &[u8])) {
        let (tokens, learned) = self.train.sequences_of(row).next().expect("every row is a sequence");
        let begins = |pair: &[u8]| pair[0] == 0 && pair[1] == 1;
        let before = learned.windows(2).position(begins).unwrap_or(0);
        (&tokens[..before], (&tokens[before..], &learned[before..]))
    }
}

/// Takes rows that cannot be read out of the data and the encoded splits; the training split keeps its numbers, and the pool loses them.
fn keep_readable(
    encoded: [Option<EncodedResponses>; 3],
    dataset: &mut Dataset,
    max_bad: f64,
) -> Result<[Option<TokenizedSplit>; 3]> {
    let mut rejects = dataset.rejects.clone();
    let bad = encoded.each_ref().map(|split| {
        let bad = split.iter().flat_map(|split| &split.bad);
        bad.map(|(row, reject)| {
            rejects.push(reject.clone());
            *row
        })
        .collect::<Vec<u32>>()
    });
    data::check_rejects(&rejects, dataset, max_bad)?;
    dataset.rejects = rejects;
    let [train, validation, test] = bad;
    dataset.leave_out(&train, &validation, &test);
    let files = dataset
        .test
        .iter()
        .flat_map(|test| test.files.iter().zip(test.by_file()));
    let mut empty = files.filter_map(|(file, (_, examples))| examples.is_empty().then_some(file));
    let empty = match empty.next() {
        _ if dataset.pool.is_empty() => Some(&dataset.train.files[0]),
        _ if dataset.validation.examples.is_empty() => Some(&dataset.validation.files[0]),
        test => test,
    };
    if let Some(file) = empty {
        return Err(data::none_readable(&[&file.path], &dataset.rejects));
    }
    let mut left_out = [Vec::new(), validation, test].into_iter();
    Ok(encoded.map(|split| {
        let out = left_out.next().unwrap_or_default();
        split.map(|encoded| without(encoded.split, &out))
    }))
}

/// A split without some examples; the list ascends.
fn without(split: TokenizedSplit, examples: &[u32]) -> TokenizedSplit {
    if examples.is_empty() {
        return split;
    }
    let mut kept = split.all();
    kept.retain(|example| examples.binary_search(example).is_err());
    only(&split, &kept)
}

/// These examples of a split.
fn only(split: &TokenizedSplit, examples: &[u32]) -> TokenizedSplit {
    let mut kept = TokenizedSplit::new(split.outputs());
    kept.truncated = split.truncated;
    for &example in examples {
        let sequences = split.sequences_of(example);
        let sequences = sequences.map(|(tokens, types)| (tokens.to_vec(), types.to_vec()));
        kept.push(sequences.collect::<Vec<_>>(), split.objective(example));
    }
    kept
}
