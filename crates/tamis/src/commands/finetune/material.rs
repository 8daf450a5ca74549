//! The rows that a fine-tune trains on and is judged by, as tokens.

use tamis_nn::{
    hub::tokenizer::TextTokenizer,
    train::{Examples, FrozenLayerCache, TokenizedSplit},
};

use crate::{
    Result,
    commands::finetune::run::rows_of,
    data::{Dataset, LeakPolicy, RowId, Split},
    settings::finetune::FinetuneSettings,
    target::tokenize::encode,
};

/// What is trained and judged on, as tokens.
pub(super) struct Material {
    /// The training rows, and behind them the validation rows, where they are trained on, too.
    pub(super) train: TokenizedSplit,
    pub(super) validation: TokenizedSplit,
    pub(super) test: Option<TokenizedSplit>,
    /// Those of `train` that are trained on.
    pub(super) rows: Vec<RowId>,
    frozen: Option<FrozenLayers>,
}

/// The output of the frozen layers for each split.
struct FrozenLayers {
    train: FrozenLayerCache,
    validation: FrozenLayerCache,
    test: FrozenLayerCache,
}

impl Material {
    pub(super) fn of(settings: &FinetuneSettings, dataset: &Dataset, tokenizer: &TextTokenizer) -> Result<Self> {
        let of = |split: &Split| encode(&split.examples, &dataset.task, tokenizer);
        let (mut train, validation) = (of(&dataset.train)?, of(&dataset.validation)?);
        let mut rows = rows_of(settings, dataset, &|row| train.tokens_of(row) as u32)?;
        if settings.with_validation {
            let own = train.len() as RowId;
            train.append(&validation);
            let judges = |row: &RowId| dataset.in_test.binary_search(&(row - own)).is_ok();
            let kept = settings.data.leaks != LeakPolicy::Drop;
            rows.extend((own..train.len() as RowId).filter(|row| kept || !judges(row)));
        }
        Ok(Self {
            train,
            validation,
            test: dataset.test.as_ref().map(of).transpose()?,
            rows,
            frozen: settings
                .train
                .freeze_layers
                .map(|layers| FrozenLayers::new(layers, settings.frozen_memory)),
        })
    }

    /// What is trained on.
    pub(super) fn training(&self) -> Examples<'_> {
        Examples {
            split: &self.train,
            rows: &self.rows,
            frozen: self.frozen.as_ref().map(|frozen| &frozen.train),
        }
    }

    /// Validation rows to be predicted.
    pub(super) fn of_validation<'a>(&'a self, rows: &'a [u32]) -> Examples<'a> {
        Examples {
            split: &self.validation,
            rows,
            frozen: self.frozen.as_ref().map(|frozen| &frozen.validation),
        }
    }

    /// Rows of the test split to be predicted.
    pub(super) fn of_test<'a>(&'a self, split: &'a TokenizedSplit, rows: &'a [u32]) -> Examples<'a> {
        Examples {
            split,
            rows,
            frozen: self.frozen.as_ref().map(|frozen| &frozen.test),
        }
    }

    pub(super) fn splits(&self) -> impl Iterator<Item = &TokenizedSplit> {
        [&self.train, &self.validation].into_iter().chain(&self.test)
    }

    /// Those of the rows that are trained on.
    pub(super) fn tokens(&self) -> usize {
        self.rows.iter().map(|&row| self.train.tokens_of(row)).sum()
    }

    /// How many rows are judged on.
    pub(super) fn judging(&self) -> u64 {
        self.splits().skip(1).map(TokenizedSplit::len).sum::<usize>() as u64
    }
}

impl FrozenLayers {
    /// Nothing computed yet; `memory` bytes for all splits, half of them for the rows that every epoch passes.
    fn new(layers: usize, memory: u64) -> Self {
        let part = |share: u64| FrozenLayerCache::new(layers, (memory / share) as usize);
        Self {
            train: part(2),
            validation: part(4),
            test: part(4),
        }
    }
}
