//! The model that is fine-tuned in a run: loaded once, tokenized once, and what selections are scored by it.

use std::sync::Arc;

use tamis_nn::{
    Fingerprint,
    hub::classifier::{Request, load},
    train::{Examples, TokenizedSplit},
};

use crate::{
    Error, Result,
    budget::{Limit, random_rows},
    data::{Dataset, Split},
    embed::EmbedderSpec,
    metrics::Metric,
    pipeline::{
        context::Context,
        memory::{check_freeze, check_memory, copies_that_fit, head_kind, unfrozen},
        responses::Responses,
        stages::Stages,
    },
    scorer::{
        finetune::{FinetuneScorer, FinetuneScorerSettings},
        finetune_batch::{FinetuneBatch, Question},
    },
    settings::select::{JudgeKind, ProxyKind, SelectSettings},
    target::{TargetModel, tokenize::encode},
};

/// The model that the settings name, and every split as its tokens.
pub(crate) struct Target {
    pub(super) model: Box<dyn TargetModel>,
    fingerprint: Fingerprint,
    pub(super) train: Arc<TokenizedSplit>,
    pub(super) validation: Arc<TokenizedSplit>,
    pub(super) test: Option<Arc<TokenizedSplit>>,
}

/// Some rows of a split that selections are scored on.
pub(crate) struct ScoredRows<'a> {
    pub(crate) split: &'a TokenizedSplit,
    pub(crate) rows: Vec<u32>,
}

impl ScoredRows<'_> {
    /// For a model of which nothing is frozen.
    pub(crate) fn examples(&self) -> Examples<'_> {
        Examples::new(self.split, &self.rows)
    }
}

impl Target {
    /// The target, where anything in the run is fine-tuned, on so many selections at once.
    pub(crate) fn of(
        settings: &SelectSettings,
        dataset: &Dataset,
        responses: Option<&Responses>,
        stages: &Stages<'_>,
        at_once: usize,
    ) -> Result<Option<Self>> {
        let load = || stages.run("tokenize", None, || Self::load(settings, dataset, responses));
        let target = settings.finetunes().then(load).transpose()?;
        if let Some(target) = &target
            && [settings.proxy.into(), settings.rerank()].contains(&JudgeKind::Finetune)
        {
            target.check_memory(at_once, settings)?;
        }
        Ok(target)
    }

    /// Says that memory is too small for training so many copies of the model at once, if it is.
    pub(crate) fn check_memory(&self, at_once: usize, settings: &SelectSettings) -> Result<()> {
        check_memory(&*self.model, &self.train, &settings.finetune.train, at_once).map_err(|error| {
            if settings.proxy != ProxyKind::Probe || settings.rerank() != JudgeKind::Finetune {
                return error;
            }
            let ways_out = error.hint().unwrap_or_default();
            let hint = format!("{ways_out}; `rerank probe` compares without fine-tunes");
            error.with_hint(hint)
        })
    }

    /// Fine-tunes on whole selections, as many at once as there are cores and as memory allows.
    pub(crate) fn batch<'a>(
        &self,
        settings: &SelectSettings,
        scorer: &'a FinetuneScorer,
        name: &Fingerprint,
        question: &'a Question<'a>,
    ) -> FinetuneBatch<'a> {
        let threads = rayon::current_num_threads();
        let at_once = copies_that_fit(&*self.model, &self.train, &settings.finetune.train, threads);
        FinetuneBatch::new(scorer, name, question, at_once)
    }

    /// The language model that rows of responses were read for, else a classifier, which is loaded.
    pub(crate) fn load(settings: &SelectSettings, dataset: &Dataset, responses: Option<&Responses>) -> Result<Self> {
        match responses {
            Some(responses) => Ok(Self::of_responses(settings, responses)),
            None => Self::classifier(settings, dataset),
        }
    }

    fn of_responses(settings: &SelectSettings, responses: &Responses) -> Self {
        let told = serde_json::to_string(&settings.language_model).unwrap_or_default();
        Self {
            model: Box::new(responses.adapted(settings)),
            fingerprint: Fingerprint::of([
                responses.fingerprint.as_ref(),
                told.as_bytes(),
                settings.finetune.train.dtype.identity().as_bytes(),
                &settings.seed.0.to_le_bytes(),
                &settings.finetune.train.max_length().to_le_bytes(),
            ]),
            train: Arc::clone(&responses.train),
            validation: Arc::clone(&responses.validation),
            test: responses.test.clone(),
        }
    }

    /// Loads the model and tokenizes the data.
    fn classifier(settings: &SelectSettings, dataset: &Dataset) -> Result<Self> {
        let model = match &settings.model {
            Some(name) => name.as_str().into(),
            None => settings.embedder.clone(),
        };
        let EmbedderSpec::Encoder(name) = &model else {
            return Err(
                Error::setting("model", "the encoder that is to be fine-tuned", format!("`{model}`")).with_hint(
                    "name a BERT-family encoder, a folder or hub id: `model sentence-transformers/all-MiniLM-L6-v2`",
                ),
            );
        };
        let seed = settings.seed.derive("head");
        let loaded = load(&Request {
            name,
            setting: "model",
            head: head_kind(dataset),
            new_head: true,
            longest: Some(settings.finetune.train.max_length()),
            seed,
        })?;
        let model = loaded.model;
        check_freeze(settings.finetune.train.freeze_layers, model.freezable_layers())?;
        let of = |split: &Split| encode(&split.examples, &dataset.task, &loaded.tokenizer);
        let train = of(&dataset.train)?;
        if settings.finetune_features.is_some() {
            check_memory(&model, &train, &unfrozen(&settings.finetune.train), 1)?;
        }
        Ok(Self {
            model: Box::new(model),
            fingerprint: Fingerprint::of([
                loaded.fingerprint.as_str(),
                &seed.0.to_string(),
                &settings.finetune.train.max_length().to_string(),
            ]),
            train: Arc::new(train),
            validation: Arc::new(of(&dataset.validation)?),
            test: dataset
                .test
                .as_ref()
                .map(|test| Ok::<_, Error>(Arc::new(of(test)?)))
                .transpose()?,
        })
    }

    /// How many layers the model has of which some can be frozen.
    pub(crate) fn freezable_layers(&self) -> usize {
        self.model.freezable_layers()
    }

    /// At most `most` rows that no reward is made from: test rows where there are some, else of the confirm fold.
    pub(crate) fn unrewarded_rows(&self, context: Context<'_>, most: usize) -> ScoredRows<'_> {
        match &self.test {
            Some(test) => some_rows(context.settings, test, &test.all(), most),
            None => some_rows(context.settings, &self.validation, &context.folds.confirm, most),
        }
    }

    /// What a study scores on, at most `most` rows of each: the confirm fold, then each test file.
    pub(crate) fn columns(&self, context: Context<'_>, tests: &[Vec<u32>], most: usize) -> Vec<ScoredRows<'_>> {
        let confirm = some_rows(context.settings, &self.validation, &context.folds.confirm, most);
        let tests = tests
            .iter()
            .filter_map(|rows| Some(some_rows(context.settings, self.test.as_ref()?, rows, most)));
        std::iter::once(confirm).chain(tests).collect()
    }

    /// The slow scorer on the reward fold.
    pub(crate) fn rewarding(&self, context: Context<'_>) -> FinetuneScorer {
        let (rows, metric) = (context.settings.finetune.fold_rows, context.settings.reward_metric());
        self.scorer(context, &context.folds.reward, rows, metric)
    }

    /// The slow scorer on some rows of a fold of the validation rows.
    pub(crate) fn scorer(
        &self,
        context: Context<'_>,
        fold: &[u32],
        fold_rows: usize,
        metric: Metric,
    ) -> FinetuneScorer {
        let settings = context.settings;
        let seed = settings.seed.derive("fold rows");
        let rows = random_rows(fold, &[], Limit::Rows(fold_rows as u64), seed);
        FinetuneScorer::new(
            self.model.copy(),
            (Arc::clone(&self.train), Arc::clone(&self.validation), rows),
            metric,
            FinetuneScorerSettings {
                fold_rows,
                ..settings.finetune.clone()
            },
            (&self.fingerprint, &context.dataset.fingerprint),
            settings.frozen_memory as usize,
        )
    }
}

fn some_rows<'a>(settings: &SelectSettings, split: &'a TokenizedSplit, rows: &[u32], most: usize) -> ScoredRows<'a> {
    let (limit, seed) = (Limit::Rows(most as u64), settings.seed.derive("judging rows"));
    ScoredRows {
        split,
        rows: random_rows(rows, &[], limit, seed),
    }
}
