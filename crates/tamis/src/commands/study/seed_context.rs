//! What the cells of one seed share.

use tamis_nn::Monitor;

use crate::{
    Result,
    budget::{Budget, Limit, limit_of, random_rows},
    data::{Dataset, folds::Folds},
    embed::Embedded,
    env::pool::{ChunkSize, Pool},
    pipeline::{
        describe,
        prepare::{Grouped, group},
        probe_features::ProbeFolds,
        stages::Stages,
    },
    problem::FeatureContext,
    scorer::ridge::{probe_data::ProbeData, tune::Tuning},
    settings::{
        StudySettings,
        select::{ProxyKind, SelectSettings},
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
        if settings.select.rerank() == ProxyKind::Finetune {
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
pub(crate) struct Prepared {
    pub(crate) embed: f64,
    pub(crate) cluster: f64,
    /// Which rows are doubted.
    pub(crate) doubt: f64,
    /// A fine-tune on a few rows, and the features that it makes.
    pub(crate) adapt: f64,
    /// Features and tuning of the probe.
    pub(crate) probe: f64,
    /// What this seed spent on all of it.
    pub(crate) spent: f64,
}

impl Prepared {
    pub(crate) fn total(&self) -> f64 {
        self.embed + self.cluster + self.doubt + self.adapt + self.probe
    }
}

/// What a budget adds.
pub(crate) struct BudgetContext {
    pub(crate) limit: Limit,
    pub(crate) pool: Pool,
    pub(crate) features: FeatureContext,
    /// The same with whole clusters as chunks.
    pub(crate) whole: (Pool, FeatureContext),
    pub(crate) tuning: Tuning,
}

/// Vectors, clusters, folds and features of a seed, and its budgets.
pub(crate) struct SeedContext<'a> {
    pub(crate) dataset: &'a Dataset,
    /// With the seed.
    pub(crate) settings: SelectSettings,
    pub(crate) folds: Folds,
    pub(crate) grouped: Grouped,
    pub(crate) designs: ProbeFolds,
    /// What selections are scored on, in the order of the columns.
    pub(crate) judged: Vec<ProbeData>,
    /// The examples of each test file.
    pub(crate) tests: &'a [Vec<u32>],
    pub(crate) plots: Vec<BudgetContext>,
    pub(crate) at_everything: Tuning,
    /// How many cells share the memory.
    pub(crate) workers: u64,
    pub(crate) prepared: Prepared,
}

/// Vectors and tokens of all rows, and the seconds that they took.
pub(crate) struct Vectors {
    known: (Vec<Embedded>, Vec<u32>),
    seconds: f64,
}

impl<'a> SeedContext<'a> {
    /// What the next seed takes over, while all else is dropped; nothing where vectors are fitted to texts by the seed.
    pub(crate) fn into_vectors(self) -> Option<Vectors> {
        (self.settings.embedder != "lexical").then_some(Vectors {
            known: (self.grouped.embedded, self.grouped.tokens),
            seconds: self.prepared.embed,
        })
    }

    pub(crate) fn new(
        study: &StudySettings,
        index: u64,
        (dataset, tests): (&'a Dataset, &'a [Vec<u32>]),
        vectors: Option<Vectors>,
        stages: &mut Stages<'_>,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let settings = study.of_seed(index);
        let seed = settings.seed;
        let folds = Folds::split(&dataset.validation, seed.derive("folds"))?;
        let began = stages.seconds();
        let (known, embed) = vectors.map(|vectors| (vectors.known, vectors.seconds)).unzip();
        let (grouped, designs) = group(&settings, (dataset, &folds), known, stages, monitor)?;
        let settings = grouped.settings.clone();
        let (tokens, embedded) = (grouped.tokens.as_slice(), grouped.embedded.as_slice());
        let judged = std::iter::once(designs.confirm.clone())
            .chain(
                tests
                    .iter()
                    .filter_map(|rows| Some(designs.test.as_ref()?.select(rows))),
            )
            .collect();
        let plots = stages.run("tune", None, || {
            let traits = describe::traits(dataset, &folds, &embedded[1], &grouped.clusters);
            let plot = |budget: &Budget| {
                let limit = limit_of(*budget, tokens)?;
                let rows = random_rows(&dataset.pool, tokens, limit, seed.derive("size")).len();
                let of = |chunk| {
                    let pool = grouped.pool(dataset, chunk, limit);
                    let features = FeatureContext::new(traits.clone(), &pool);
                    (pool, features)
                };
                let (pool, features) = of(settings.chunk);
                Ok(BudgetContext {
                    limit,
                    pool,
                    features,
                    whole: of(ChunkSize::Cluster),
                    tuning: designs.tuning(dataset, rows, seed, monitor)?,
                })
            };
            study.budgets.iter().map(plot).collect::<Result<_>>()
        })?;
        let at_everything = stages.run("tune", None, || {
            designs.tuning(dataset, dataset.pool.len(), seed, monitor)
        })?;
        let after = stages.seconds();
        let of = |name: &str| after.get(name).unwrap_or(&0.0) - began.get(name).unwrap_or(&0.0);
        let total = after.values().sum::<f64>() - began.values().sum::<f64>();
        let cluster = of("cluster") + of("compare") + of("order");
        let (doubt, adapt) = (of("doubt"), of("adapt") + of("features"));
        let prepared = Prepared {
            // Every method needs the vectors, also where an earlier seed made them.
            embed: embed.unwrap_or(of("embed")),
            cluster,
            doubt,
            adapt,
            probe: total - of("embed") - cluster - doubt - adapt,
            spent: total,
        };
        Ok(Self {
            dataset,
            settings,
            folds,
            grouped,
            designs,
            judged,
            tests,
            plots,
            at_everything,
            workers: rayon::current_num_threads() as u64,
            prepared,
        })
    }
}
