//! From the user's files to what a search works on: rows, folds, vectors, clusters, chunks, and the probe's features.

use std::sync::Arc;

use super::{
    describe,
    judge::{limit_of, random_rows},
    settings::SelectSettings,
    stages::Stages,
    vectors,
};
use crate::{
    Error, Monitor, Result,
    budget::Limit,
    cluster::{self, ClusterStatistics, Clusters, KMeansSettings},
    data::{self, Dataset, Split},
    embed::Embedded,
    folds::Folds,
    metric::Metric,
    pool::Pool,
    proxy::{
        design::{self, Design, Projection},
        probe::{Probe, ProbeSettings},
        tune::{Tuning, tune},
    },
};

/// Reads and checks what the user gave, before anything is written.
pub(super) fn read(
    settings: &SelectSettings,
    stages: &mut Stages<'_>,
    monitor: &dyn Monitor,
) -> Result<(Dataset, Folds)> {
    settings.check()?;
    let dataset = stages.run("read", None, || data::read(&settings.data, monitor))?;
    design::check_task(dataset.task.kind, dataset.task.labels.len())?;
    let folds = Folds::split(&dataset.validation.targets(), settings.seed.derive("folds"))?;
    check_against_pool(settings, dataset.pool.len())?;
    Ok((dataset, folds))
}

/// What can be told from the number of rows alone is told before they are embedded.
fn check_against_pool(settings: &SelectSettings, rows: usize) -> Result<()> {
    settings.budget.resolve(rows as u64, u64::MAX)?;
    match settings.clusters {
        Some(clusters) if clusters > rows => Err(Error::setting(
            "--clusters",
            format!("from 1 to the {rows} rows of the pool"),
            clusters.to_string(),
        )),
        _ => Ok(()),
    }
}

/// The pool and what it was made from.
pub(super) struct Prepared {
    pub(super) embedded: Vec<Embedded>,
    /// What each row of the pool costs.
    pub(super) tokens: Vec<u32>,
    pub(super) limit: Limit,
    pub(super) clusters: Clusters,
    pub(super) statistics: Vec<ClusterStatistics>,
    pub(super) pool: Pool,
}

/// Embeds, clusters and cuts into chunks.
pub(super) fn prepare(
    settings: &SelectSettings,
    dataset: &Dataset,
    stages: &mut Stages<'_>,
    monitor: &dyn Monitor,
) -> Result<Prepared> {
    let seed = settings.seed;
    let (embedded, tokens) = vectors::embed(settings, dataset, stages, monitor)?;
    let limit = limit_of(settings.budget, &tokens)?;
    let views = vectors::one_each(&embedded[0]).gather(&dataset.pool);
    let (clusters, statistics) = stages.run("cluster", None, || {
        let k_means = KMeansSettings {
            clusters: settings
                .clusters
                .unwrap_or_else(|| cluster::default_clusters(views.rows())),
            ..settings.k_means.clone()
        };
        let clusters = cluster::k_means(&views, &k_means, seed.derive("k-means"), monitor)?;
        let statistics = describe::statistics(dataset, &clusters, &views);
        Ok((clusters, statistics))
    })?;
    let pool = Pool::new(
        &dataset.pool,
        &clusters.assignment,
        &tokens,
        clusters.centroids.rows(),
        (settings.chunk, limit),
        seed.derive("pool"),
    );
    Ok(Prepared {
        embedded,
        tokens,
        limit,
        clusters,
        statistics,
        pool,
    })
}

/// Where the probe's features come from.
#[derive(Clone, Copy)]
pub(super) enum Features<'a> {
    /// The embedder's vectors.
    Embedded(&'a [Embedded]),
    /// An adapted model's features.
    Adapted(&'a [Embedded]),
}

/// The probe's features of every fold.
pub(super) struct Designs {
    pub(super) train: Arc<Design>,
    pub(super) reward: Arc<Design>,
    pub(super) confirm: Design,
    pub(super) test: Option<Design>,
}

/// Features, and the probe's ridge strength and temperature on them.
pub(super) struct Tuned {
    pub(super) designs: Designs,
    /// For training sets of the budget's size.
    pub(super) at_budget: Tuning,
    /// For the whole pool.
    pub(super) at_everything: Tuning,
}

impl Tuned {
    pub(super) fn new(
        settings: &SelectSettings,
        (dataset, folds): (&Dataset, &Folds),
        features: Features<'_>,
        (tokens, limit): (&[u32], Limit),
        stages: &mut Stages<'_>,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let seed = settings.seed;
        let designs = stages.run("design", None, || {
            let (kind, labels) = (dataset.task.kind, dataset.task.labels.len());
            let (projection, embedded) = match features {
                Features::Embedded(embedded) => {
                    let seed = seed.derive("projection");
                    (
                        Projection::fit(&embedded[0], kind, labels, design::WIDTH, seed)?,
                        embedded,
                    )
                }
                Features::Adapted(embedded) => (Projection::fit_adapted(&embedded[0], kind, labels)?, embedded),
            };
            let design = |embedded: &Embedded, split: &Split| projection.apply(embedded, &split.targets());
            let validation = design(&embedded[1], &dataset.validation);
            Ok(Designs {
                train: Arc::new(design(&embedded[0], &dataset.train)),
                reward: Arc::new(validation.select(&folds.reward)),
                confirm: validation.select(&folds.confirm),
                test: dataset.test.as_ref().map(|test| design(&embedded[2], test)),
            })
        })?;
        let budget_rows = random_rows(&dataset.pool, tokens, limit, seed.derive("size")).len();
        let (at_budget, at_everything) = stages.run("tune", None, || {
            let (train, reward) = (&designs.train, &designs.reward);
            let at = |size| tune(train, &dataset.pool, size, reward, seed.derive("tune"), monitor);
            Ok((at(budget_rows)?, at(dataset.pool.len())?))
        })?;
        Ok(Self {
            designs,
            at_budget,
            at_everything,
        })
    }

    /// A probe that is scored on the reward fold by this metric.
    pub(super) fn probe(&self, metric: Metric, settings: &SelectSettings) -> Result<Probe> {
        Probe::new(
            Arc::clone(&self.designs.train),
            Arc::clone(&self.designs.reward),
            ProbeSettings {
                metric,
                ridge: self.at_budget.ridge,
                temperature: self.at_budget.temperature_for(metric),
                gram_memory: settings.gram_memory as usize,
            },
        )
    }
}
