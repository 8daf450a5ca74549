//! What `select` needs of a model that can be fine-tuned: adapted features for the probe, the dear proxy, the dear judge.

use std::{sync::Arc, time::Instant};

use tamis_nn::{
    Fingerprint, Monitor,
    fingerprint::first_half,
    hub::classifier::{Request, load},
    seed::Seed,
    train::{EncoderClassifier, TokenizedSplit, TrainSettings, Trainer, fit},
};

use crate::{
    Error, Result,
    budget::{Budget, Limit, limit_of, random_rows},
    data::{Dataset, RowId, Split, folds::Folds},
    embed::{Embedded, spec},
    metrics::Metric,
    pipeline::{
        memory::{check_freeze, check_memory, head_kind},
        stages::Stages,
        worker_pool::side_by_side,
    },
    records::selection::Finetuned,
    scorer::{
        Scorer,
        finetune::{FinetuneScorer, FinetuneScorerSettings},
    },
    settings::select::{ProxyKind, SelectSettings},
    store::ledger::{Key, Ledger},
    target::tokenize::encode,
};

/// The model that `model` names, and every split as its tokens.
pub(crate) struct Target {
    model: EncoderClassifier,
    fingerprint: Fingerprint,
    train: Arc<TokenizedSplit>,
    validation: Arc<TokenizedSplit>,
    test: Option<TokenizedSplit>,
}

/// The dear proxy on the reward fold, where the settings reward by fine-tuning.
pub(crate) fn dear_proxy(
    target: Option<&Target>,
    settings: &SelectSettings,
    folds: &Folds,
    data: &Fingerprint,
) -> Option<FinetuneScorer> {
    let target = target.filter(|_| settings.proxy == ProxyKind::Finetune)?;
    let (rows, metric) = (settings.finetune.fold_rows, settings.reward_metric());
    Some(target.proxy(&folds.reward, rows, metric, settings, data))
}

impl Target {
    /// The target, where anything in the run is fine-tuned.
    pub(crate) fn of(settings: &SelectSettings, dataset: &Dataset, stages: &mut Stages<'_>) -> Result<Option<Self>> {
        let load = || stages.run("tokenize", None, || Self::load(settings, dataset));
        let target = settings.finetunes().then(load).transpose()?;
        if let Some(target) = &target
            && [settings.proxy, settings.rerank()].contains(&ProxyKind::Finetune)
        {
            target.check_side_by_side(settings)?;
        }
        Ok(target)
    }

    /// Says that memory is too small for training a copy of the model on every thread at once, if it is.
    pub(crate) fn check_side_by_side(&self, settings: &SelectSettings) -> Result<()> {
        let at_once = rayon::current_num_threads();
        check_memory(&self.model, &self.train, &settings.finetune.train, at_once)
    }

    /// Loads the model and tokenizes the data.
    pub(crate) fn load(settings: &SelectSettings, dataset: &Dataset) -> Result<Self> {
        let name = settings.model.as_deref().unwrap_or(&settings.embedder);
        if !spec::is_encoder(name) {
            return Err(
                Error::setting("model", "the encoder that is to be fine-tuned", format!("`{name}`")).with_hint(
                    "name a BERT-family encoder, a folder or hub id: `model sentence-transformers/all-MiniLM-L6-v2`",
                ),
            );
        }
        let seed = settings.seed.derive("head");
        let loaded = load(&Request {
            name,
            setting: "model",
            head: head_kind(dataset),
            new_head: true,
            longest: Some(settings.finetune.train.max_length),
            seed,
        })?;
        let model = EncoderClassifier {
            encoder: loaded.encoder,
            head: loaded.head,
            dropout: loaded.config.dropout,
        };
        check_freeze(settings.finetune.train.freeze, model.encoder.layers.len())?;
        let of = |split: &Split| encode(&split.examples, &dataset.task, &loaded.tokenizer);
        let train = of(&dataset.train)?;
        if settings.finetune_features.is_some() {
            check_memory(&model, &train, &whole(&settings.finetune.train), 1)?;
        }
        Ok(Self {
            model,
            fingerprint: Fingerprint::of([
                loaded.fingerprint.as_str(),
                &seed.0.to_string(),
                &settings.finetune.train.max_length.to_string(),
            ]),
            train: Arc::new(train),
            validation: Arc::new(of(&dataset.validation)?),
            test: dataset.test.as_ref().map(of).transpose()?,
        })
    }

    /// The features of every split by a copy of the model that is fine-tuned on these rows first: one vector a text or pair, one a
    /// choice.
    pub(crate) fn adapted_features(
        &self,
        settings: &SelectSettings,
        rows: &[RowId],
        stages: &mut Stages<'_>,
        monitor: &dyn Monitor,
    ) -> Result<Vec<Embedded>> {
        let steps = settings.finetune.train.steps(rows.len());
        let adapted = stages.run("adapt", Some(steps), || self.adapt(settings, rows, monitor))?;
        stages.run("features", Some(self.examples()), || self.features(&adapted, monitor))
    }

    /// Fine-tunes a copy of the model on a few random rows of the pool. Advances `monitor` by one a step.
    fn adapt(&self, settings: &SelectSettings, rows: &[RowId], monitor: &dyn Monitor) -> Result<EncoderClassifier> {
        let mut model = self.model.clone();
        let mut trainer = Trainer::new(&model, &whole(&settings.finetune.train));
        let seed = settings.seed.derive("adapt");
        fit(
            &mut model,
            &mut trainer,
            (&self.train, rows),
            None,
            seed,
            &mut |_, _, _| {
                monitor.advance(1);
                monitor.proceed()
            },
        )?;
        Ok(model)
    }

    /// The adapted model's features of every split. Advances `monitor` by one an example.
    fn features(&self, adapted: &EncoderClassifier, monitor: &dyn Monitor) -> Result<Vec<Embedded>> {
        [Some(&*self.train), Some(&*self.validation), self.test.as_ref()]
            .into_iter()
            .flatten()
            .map(|data| {
                Ok(Embedded {
                    vectors: adapted.features(data, monitor)?,
                    starts: data.example_starts(),
                })
            })
            .collect()
    }

    /// How many examples all splits have.
    fn examples(&self) -> u64 {
        (self.train.len() + self.validation.len() + self.test.as_ref().map_or(0, TokenizedSplit::len)) as u64
    }

    /// How many layers the model has.
    pub(crate) fn layers(&self) -> usize {
        self.model.encoder.layers.len()
    }

    /// At most `most` rows that no reward is made from, and their split: test rows where there are some, else the confirm fold.
    pub(crate) fn judging_rows(
        &self,
        confirm: &[u32],
        most: usize,
        settings: &SelectSettings,
    ) -> (&TokenizedSplit, Vec<u32>) {
        let (limit, seed) = (Limit::Rows(most as u64), settings.seed.derive("judging rows"));
        match &self.test {
            Some(test) => (test, random_rows(&test.all(), &[], limit, seed)),
            None => (&*self.validation, random_rows(confirm, &[], limit, seed)),
        }
    }

    /// What a study scores on: the confirm fold, then each test file, at most `most` rows of each.
    pub(crate) fn columns(
        &self,
        confirm: &[u32],
        tests: &[Vec<u32>],
        most: usize,
        settings: &SelectSettings,
    ) -> Vec<(&TokenizedSplit, Vec<u32>)> {
        let (limit, seed) = (Limit::Rows(most as u64), settings.seed.derive("judging rows"));
        let some = |rows: &[u32]| random_rows(rows, &[], limit, seed);
        std::iter::once((&*self.validation, some(confirm)))
            .chain(tests.iter().filter_map(|rows| Some((self.test.as_ref()?, some(rows)))))
            .collect()
    }

    /// The dear proxy on a whole fold, with other layers frozen or fewer epochs than the settings say.
    pub(crate) fn rung(
        &self,
        fold: &[u32],
        settings: &SelectSettings,
        (freeze, epochs): (Option<usize>, Option<u32>),
        data: &Fingerprint,
    ) -> FinetuneScorer {
        let mut changed = settings.clone();
        changed.finetune.train.freeze = freeze.or(settings.finetune.train.freeze);
        changed.finetune.train.epochs = epochs.unwrap_or(settings.finetune.train.epochs);
        self.proxy(fold, fold.len(), settings.report_metric(), &changed, data)
    }

    /// The dear proxy on some rows of a fold of the validation rows.
    pub(crate) fn proxy(
        &self,
        fold: &[u32],
        fold_rows: usize,
        metric: Metric,
        settings: &SelectSettings,
        data: &Fingerprint,
    ) -> FinetuneScorer {
        let seed = settings.seed.derive("fold rows");
        let rows = random_rows(fold, &[], Limit::Rows(fold_rows as u64), seed);
        FinetuneScorer::new(
            self.model.clone(),
            (Arc::clone(&self.train), Arc::clone(&self.validation), rows),
            metric,
            FinetuneScorerSettings {
                fold_rows,
                ..settings.finetune.clone()
            },
            (&self.fingerprint, data),
            settings.frozen_memory as usize,
        )
    }
}

/// What `answer` says of the proxy's model, trained on each of these selections from the base, each with its seed, and the core-seconds
/// of each. What the ledger has under `question`, which tells what is answered, is not paid for again. Advances `monitor` by one a
/// selection.
pub(crate) fn trained_on_each(
    proxy: &FinetuneScorer,
    selections: &[(&[RowId], Seed)],
    (ledger, question): (&mut Ledger, &Fingerprint),
    monitor: &dyn Monitor,
    answer: &(dyn Fn(&EncoderClassifier) -> Result<Vec<f64>> + Sync),
) -> Result<Vec<(Vec<f64>, f64)>> {
    let keys: Vec<Key> = selections
        .iter()
        .map(|&(rows, seed)| answer_key(proxy, question, rows, seed))
        .collect();
    let mut answers = keys.iter().map(|key| ledger.answer(key)).collect::<Result<Vec<_>>>()?;
    let missing: Vec<usize> = (0..answers.len()).filter(|&i| answers[i].is_none()).collect();
    monitor.advance((answers.len() - missing.len()) as u64);
    // Where there are more cores than models to train, several train one.
    let threads = (rayon::current_num_threads() / missing.len().max(1)).max(1);
    let train = |&i: &usize| {
        let (began, (rows, seed)) = (Instant::now(), selections[i]);
        let numbers = answer(&proxy.cold(rows, seed, monitor)?)?;
        Ok((numbers, began.elapsed().as_secs_f64() * threads as f64))
    };
    side_by_side(missing, threads, monitor, &train, &mut |i, answered: Result<_>| {
        let (numbers, seconds) = answered?;
        ledger.record_answer(&keys[i], &numbers, seconds)?;
        answers[i] = Some((numbers, seconds));
        monitor.advance(1);
        Ok(())
    })?;
    Ok(answers.into_iter().flatten().collect())
}

fn answer_key(proxy: &FinetuneScorer, question: &Fingerprint, rows: &[RowId], seed: Seed) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(proxy.fingerprint().as_ref()).update(question.as_ref());
    hasher.update(&seed.0.to_le_bytes());
    for row in rows {
        hasher.update(&row.to_le_bytes());
    }
    first_half(hasher.finalize())
}

/// Which finalist does best on the confirm fold when the target is fine-tuned on it, beside as many random selections. Advances
/// `monitor` by one a fine-tune.
pub(crate) fn judge(
    target: &Target,
    settings: &SelectSettings,
    (dataset, folds): (&Dataset, &Folds),
    finalists: &[Vec<RowId>],
    (tokens, limit): (&[u32], Limit),
    ledger: &mut Ledger,
    monitor: &dyn Monitor,
) -> Result<(usize, Finetuned)> {
    let metrics = [settings.reward_metric(), settings.report_metric()];
    let all = folds.confirm.len();
    let proxy = target.proxy(&folds.confirm, all, metrics[0], settings, &dataset.fingerprint);
    let seed = settings.seed.derive("controls");
    let random: Vec<Vec<RowId>> = (0..finalists.len() as u64)
        .map(|i| random_rows(&dataset.pool, tokens, limit, seed.index(i)))
        .collect();
    let seed = settings.seed.derive("proxy");
    let all = finalists.iter().chain(&random);
    let selections: Vec<(&[RowId], Seed)> = all.map(|rows| (rows.as_slice(), seed)).collect();
    let question = Fingerprint::of(metrics.map(|metric| metric.to_string()));
    let known = (ledger, &question);
    let scores: Vec<Vec<f64>> = trained_on_each(&proxy, &selections, known, monitor, &|model| {
        proxy.scores(model, &metrics)
    })?
    .into_iter()
    .map(|(scores, _)| scores)
    .collect();
    let (chosen, random) = scores.split_at(finalists.len());
    let best = (0..chosen.len())
        .max_by(|&a, &b| chosen[a][0].total_cmp(&chosen[b][0]).then(b.cmp(&a)))
        .unwrap_or(0);
    let report = |scores: &[Vec<f64>]| scores.iter().map(|scores| scores[1]).collect::<Vec<f64>>();
    Ok((
        best,
        Finetuned {
            metric: metrics[1].to_string(),
            finalists: report(chosen),
            chosen: best,
            random: report(random),
        },
    ))
}

/// How features are adapted: as the settings say, but with nothing frozen, which would leave them as they are.
fn whole(settings: &TrainSettings) -> TrainSettings {
    TrainSettings {
        freeze: None,
        ..settings.clone()
    }
}

/// The rows on which the features are adapted: so much of the pool, drawn from what is not doubted.
pub(crate) fn adapt_rows(
    share: Budget,
    (pool, tokens): (&[RowId], &[u32]),
    doubted: &[bool],
    seed: Seed,
) -> Result<Vec<RowId>> {
    let limit = limit_of(share, tokens).map_err(|error| error.of_setting("finetune_features"))?;
    let (rows, tokens): (Vec<RowId>, Vec<u32>) = (0..doubted.len())
        .filter(|&i| !doubted[i])
        .map(|i| (pool[i], tokens[i]))
        .unzip();
    Ok(random_rows(&rows, &tokens, limit, seed.derive("adapt rows")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_adapted_on_rows_that_are_not_doubted_and_cost_a_share_of_the_whole_pool() {
        let pool = [2, 3, 5, 7, 11, 13];
        let doubted = [false, true, false, false, true, false];
        let tokens = [4, 1, 4, 4, 1, 4];
        for seed in 0..5 {
            let rows = |budget| adapt_rows(budget, (&pool, &tokens), &doubted, Seed(seed)).expect("rows");
            // Half of six rows are three, of the four that are left.
            let half = rows(Budget::Percent(50.0));
            assert!(
                half.len() == 3 && half.iter().all(|row| [2, 5, 7, 13].contains(row)),
                "{half:?}"
            );
            assert_eq!(rows(Budget::Tokens(9)).len(), 2);
            // No more than there are.
            assert_eq!(rows(Budget::Percent(100.0)), [2, 5, 7, 13]);
        }
    }
}
