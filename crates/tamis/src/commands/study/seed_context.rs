//! What the cells of one seed share.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Result,
    budget::{Budget, random_rows},
    data::{Dataset, folds::Folds},
    embed::EmbedderSpec,
    env::pool::ChunkSize,
    pipeline::{
        candidates::Candidates, context::Context, embed::Vectors, gradients::vectors, probe::TunedProbe,
        responses::Responses, search::Chunks, stages::Stages, target::Target,
    },
    settings::{
        StudySettings,
        select::{JudgeKind, SelectSettings},
    },
};

/// The rows that selections are scored on: the confirm fold, then each test file.
pub(crate) struct Columns {
    pub(crate) names: Vec<String>,
    pub(crate) rows: Vec<u64>,
    /// The examples of each test file, by their number in the test split.
    pub(crate) tests: Vec<Vec<u32>>,
}

impl Columns {
    pub(crate) fn of(dataset: &Dataset, settings: &StudySettings) -> Result<Self> {
        // Another seed's fold has as many rows, give or take some that repeat another.
        let folds = Folds::split(&dataset.validation, settings.select.seed.derive("folds"))?;
        let mut columns = Self {
            names: vec!["confirm".into()],
            rows: vec![folds.confirm.len() as u64],
            tests: Vec::new(),
        };
        if let Some(test) = &dataset.test {
            for (name, examples) in test.by_file() {
                columns.names.push(name);
                columns.rows.push(examples.len() as u64);
                columns.tests.push(examples);
            }
        }
        if settings.select.rerank() == JudgeKind::Finetune {
            columns
                .rows
                .iter_mut()
                .for_each(|rows| *rows = (*rows).min(settings.eval_rows as u64));
        }
        Ok(columns)
    }
}

/// Wall-clock seconds of the stages that prepare a seed's cells.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PreparationSeconds {
    pub(crate) embed: f64,
    pub(crate) cluster: f64,
    /// Which rows are suspected of label errors.
    pub(crate) label_errors: f64,
    /// A fine-tune on a few rows, and the features that it makes.
    pub(crate) finetuned_features: f64,
    /// Features and tuning of the probe.
    pub(crate) probe: f64,
}

impl PreparationSeconds {
    /// From the seconds of all stages before and after; `embed` where an earlier seed made the vectors, which every method needs.
    fn between(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, embed: Option<f64>) -> Self {
        let of = |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
        let spent = after.values().sum::<f64>() - before.values().sum::<f64>();
        let passes = of("embed") + of("gradients") + of("prompts");
        let cluster = of("cluster") + of("compare") + of("order");
        let label_errors = of("label errors");
        let finetuned_features = of("fine-tune features") + of("features");
        Self {
            embed: embed.unwrap_or(passes),
            cluster,
            label_errors,
            finetuned_features,
            probe: spent - passes - cluster - label_errors - finetuned_features,
        }
    }

    pub(crate) fn total(&self) -> f64 {
        self.embed + self.cluster + self.label_errors + self.finetuned_features + self.probe
    }
}

/// The share of the pool beside which training on everything is looked at, whatever the budgets of a study: it may be grown by others.
const BESIDE_EVERYTHING: f64 = 0.05;

/// What a budget adds.
pub(crate) struct BudgetContext {
    pub(crate) chunks: Chunks,
    /// The same with whole clusters as chunks.
    pub(crate) whole: Chunks,
    pub(crate) probe: Arc<dyn TunedProbe>,
}

impl BudgetContext {
    fn new(context: Context<'_>, candidates: &Candidates, budget: Budget) -> Result<Self> {
        let (tokens, pool) = (&candidates.vectors.tokens, &context.dataset.pool);
        let limit = candidates.vectors.limit(budget)?;
        let rows = random_rows(pool, tokens, limit, context.settings.seed.derive("size")).len();
        Ok(Self {
            chunks: Chunks::cut(context, candidates, context.settings.chunk, limit)?,
            whole: Chunks::cut(context, candidates, ChunkSize::Cluster, limit)?,
            probe: candidates.probe.tuned(context, rows)?,
        })
    }
}

/// Vectors, candidates, folds and features of a seed, and its budgets.
pub(crate) struct SeedContext<'a> {
    pub(crate) dataset: &'a Dataset,
    pub(crate) responses: Option<&'a Responses>,
    /// With the seed.
    pub(crate) settings: SelectSettings,
    pub(crate) folds: Folds,
    pub(crate) candidates: Candidates,
    pub(crate) target: Option<Target>,
    /// The examples of each test file.
    pub(crate) tests: &'a [Vec<u32>],
    pub(crate) budgets: Vec<BudgetContext>,
    /// The probe for the whole pool.
    pub(crate) at_everything: Arc<dyn TunedProbe>,
    /// How many cells share the memory.
    pub(crate) workers: u64,
    pub(crate) seconds: PreparationSeconds,
}

/// Vectors and tokens of all rows, and the seconds that they took.
pub(crate) struct KnownVectors {
    vectors: Vectors,
    seconds: f64,
}

impl<'a> SeedContext<'a> {
    /// What the next seed takes over, while all else is dropped; nothing where the seed has a part in them: in vectors that are fitted to
    /// texts, and in gradients of a model that is fine-tuned first.
    pub(crate) fn into_vectors(self) -> Option<KnownVectors> {
        let fitted = self.settings.embedder == EmbedderSpec::Lexical;
        let finetuned = self.candidates.vectors.gradients.is_some() && self.settings.finetune_features.is_some();
        (!fitted && !finetuned).then_some(KnownVectors {
            vectors: self.candidates.vectors,
            seconds: self.seconds.embed,
        })
    }

    /// What stages of a cell with these settings are given.
    pub(crate) fn context<'s>(&'s self, settings: &'s SelectSettings, stages: &'s Stages<'s>) -> Context<'s> {
        Context::new(settings, self.dataset, &self.folds, self.responses, stages)
    }

    pub(crate) fn new(
        study: &StudySettings,
        index: u64,
        (dataset, responses): (&'a Dataset, Option<&'a Responses>),
        tests: &'a [Vec<u32>],
        known: Option<KnownVectors>,
        stages: &Stages<'_>,
    ) -> Result<Self> {
        let given = study.of_seed(index);
        let folds = Folds::split(&dataset.validation, given.seed.derive("folds"))?;
        let before = stages.seconds();
        let context = Context::new(&given, dataset, &folds, responses, stages);
        let target = Target::of(&given, dataset, responses, stages, rayon::current_num_threads())?;
        let (known, embed_seconds) = known.map(|known| (known.vectors, known.seconds)).unzip();
        let vectors = known.map_or_else(|| vectors(context), Ok)?;
        let candidates = Candidates::find(context, target.as_ref(), vectors)?;
        let context = context.with(candidates.settings());
        let (budgets, at_everything) = stages.run("tune", None, || {
            let budget = |budget: &Budget| BudgetContext::new(context, &candidates, *budget);
            let budgets: Vec<BudgetContext> = study.budgets.iter().map(budget).collect::<Result<_>>()?;
            let beside = (BESIDE_EVERYTHING * dataset.pool.len() as f64).ceil() as usize;
            Ok((budgets, candidates.probe.tuned_to_everything(context, beside)?))
        })?;
        Ok(Self {
            dataset,
            responses,
            settings: candidates.settings().clone(),
            target,
            tests,
            budgets,
            at_everything,
            workers: rayon::current_num_threads() as u64,
            seconds: PreparationSeconds::between(&before, &stages.seconds(), embed_seconds),
            candidates,
            folds,
        })
    }
}
