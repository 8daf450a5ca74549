//! From the user's files to what a search works on: rows, folds, vectors, clusters, chunks, and the probe's features.

use std::collections::BTreeMap;

use rayon::prelude::*;
use tamis_nn::{Matrix, Monitor, seed::Seed};

use crate::{
    Error, Result,
    budget::{Limit, limit_of},
    candidates::{
        CandidateSet, RowOrder,
        domain::{self, Contrast},
        facility_location,
        label_errors::{judge_by, judge_unseen, most_doubted},
    },
    cluster::{self, ClusterStatistics, Clusters, KMeansSettings},
    data::{self, Dataset, RowId, folds::Folds},
    embed::{Embedded, pooled},
    env::pool::{self, ChunkSize, Pool},
    metrics::MetricKind,
    pipeline::{
        describe, embed,
        probe_features::{Features, ProbeFolds},
        stages::Stages,
        target::{Target, adapt_rows},
    },
    scorer::ridge::{probe_data::ProbeData, projection::check_task},
    settings::select::SelectSettings,
};

/// Reads and checks what the user gave, before anything is written.
pub(crate) fn read(
    settings: &SelectSettings,
    stages: &mut Stages<'_>,
    monitor: &dyn Monitor,
) -> Result<(Dataset, Folds)> {
    settings.check()?;
    let dataset = stages.run("read", None, || data::read(&settings.data, monitor))?;
    check_task(dataset.task.kind, dataset.task.labels.len())?;
    let folds = Folds::split(&dataset.validation, settings.seed.derive("folds"))?;
    check_against_pool(settings, dataset.pool.len())?;
    Ok((dataset, folds))
}

/// What can be told from the number of rows alone is told before they are embedded.
fn check_against_pool(settings: &SelectSettings, rows: usize) -> Result<()> {
    settings.budget.resolve(rows as u64, u64::MAX)?;
    if let Some(share) = settings.finetune_features {
        let limit = share.resolve(rows as u64, u64::MAX);
        limit.map_err(|error| error.of_setting("finetune_features"))?;
    }
    match settings.clusters {
        Some(clusters) if clusters > rows => Err(Error::setting(
            "clusters",
            format!("from 1 to the {rows} rows of the pool"),
            clusters.to_string(),
        )),
        _ => Ok(()),
    }
}

/// What no budget changes: vectors and clusters.
pub(crate) struct Grouped {
    /// Those given, each `auto` decided.
    pub(crate) settings: SelectSettings,
    pub(crate) embedded: Vec<Embedded>,
    /// What each row of the pool costs.
    pub(crate) tokens: Vec<u32>,
    /// One vector a row of the pool.
    pub(crate) views: Matrix,
    /// One vector a row of the reward fold.
    pub(crate) fold_views: Matrix,
    pub(crate) clusters: Clusters,
    /// The AUC with which rows of the reward fold are told from the pool.
    pub(crate) domain_auc: f64,
    /// Whether a row of the pool is taken last because its answer is doubted, shape `(rows of the pool,)`.
    pub(crate) doubted: Vec<bool>,
    /// Where anything in the run is fine-tuned.
    pub(crate) target: Option<Target>,
    /// The pool's rows, those most like the reward fold first and doubted ones last; none where agents choose among all.
    ranked: Vec<u32>,
    /// How many rows of the pool are at least as much like those of the reward fold as half of these are.
    typical: u64,
    /// Of each label that the reward fold has, what share of a budget a choice may want; none where rows have no labels.
    wanted: BTreeMap<u32, f64>,
    /// Each cluster's rows, as places in the pool, in the order in which they are taken.
    members: Vec<Vec<u32>>,
}

/// How many rows of a cluster are put in representative order at most; those behind them follow at random.
const MOST_ORDERED: usize = 1000;

/// The largest share of the pool that is doubted unless the settings say so: what a probe that gets many rows wrong says of them counts for
/// less.
const MOST_DOUBTED: f64 = 0.2;

/// The rows of each cluster in the order in which they are taken, which is never `auto`; doubted ones last.
fn ordered(
    order: RowOrder,
    (pool, relevance): (&Matrix, &[f32]),
    (clusters, doubted): (&Clusters, &[bool]),
    seed: Seed,
    monitor: &dyn Monitor,
) -> Result<Vec<Vec<u32>>> {
    let all = pool::members(&clusters.assignment, clusters.centroids.rows(), seed);
    let (mut members, last): (Vec<Vec<u32>>, Vec<Vec<u32>>) = all
        .into_iter()
        .map(|members| members.into_iter().partition(|&i| !doubted[i as usize]))
        .unzip();
    match order {
        RowOrder::Random => {}
        RowOrder::Relevance => members
            .iter_mut()
            .for_each(|members| members.sort_by(|&a, &b| relevance[b as usize].total_cmp(&relevance[a as usize]))),
        RowOrder::Auto | RowOrder::Coverage => members.par_iter_mut().try_for_each(|members| {
            let order = facility_location::order(&pool.gather(members), MOST_ORDERED, seed, monitor)?;
            let mut first = vec![false; members.len()];
            order.iter().for_each(|&i| first[i as usize] = true);
            let rest = (0..members.len() as u32).filter(|&i| !first[i as usize]);
            *members = order.iter().copied().chain(rest).map(|i| members[i as usize]).collect();
            Ok::<(), Error>(())
        })?,
    }
    for (members, last) in members.iter_mut().zip(last) {
        members.extend(last);
    }
    Ok(members)
}

/// Which rows of the pool are taken last because their answers are doubted, shape `(rows of the pool,)`: as many as the settings say,
/// else as many as the probe gets wrong, a fifth at most. The probe was trained on other rows of the pool, or, where validation rows are
/// told apart from it, on those: the pool's labels may follow another policy.
fn doubted(
    settings: &SelectSettings,
    (dataset, shifted): (&Dataset, bool),
    designs: &ProbeFolds,
    stages: &mut Stages<'_>,
    monitor: &dyn Monitor,
) -> Result<Vec<bool>> {
    if settings.label_error_share == Some(0.0) {
        return Ok(vec![false; dataset.pool.len()]);
    }
    stages.run("doubt", None, || {
        let (train, seed) = (&designs.train, settings.seed);
        let tuning = |rows| designs.tuning(dataset, rows, seed, monitor);
        let unseen = if shifted {
            let fold = &designs.reward;
            judge_by(fold, train, &dataset.pool, &tuning(fold.targets.len())?)?
        } else {
            let tuning = tuning(dataset.pool.len())?;
            judge_unseen(train, &dataset.pool, &tuning, seed.derive("doubt"), monitor)?
        };
        let share = settings.label_error_share.unwrap_or(unseen.mistaken.min(MOST_DOUBTED));
        // Macro-F1 counts every label alike; the others count rows, of which the rare labels' are doubted most. Of a question the answer's
        // letter is no label.
        let by_label = settings.metric == MetricKind::MacroF1 && train.outputs > 1;
        let group = |&row: &RowId| if by_label { train.targets[row as usize] } else { 0 };
        let groups: Vec<u32> = dataset.pool.iter().map(group).collect();
        Ok(most_doubted(&unseen.losses, &groups, share))
    })
}

/// Of each label of the fold, what share of a budget a choice may want. Macro-F1 counts every label alike, so an even share; the others count
/// rows, so the label's share of the fold.
fn wanted(metric: MetricKind, fold: &ProbeData) -> BTreeMap<u32, f64> {
    let mut rows: BTreeMap<u32, f64> = BTreeMap::new();
    // Of a question the answer's letter is no label.
    for &target in fold.targets.iter().filter(|_| fold.outputs > 1) {
        *rows.entry(target).or_default() += 1.0;
    }
    let (labels, all) = (rows.len() as f64, fold.targets.len() as f64);
    rows.into_iter()
        .map(|(label, rows)| match metric {
            MetricKind::MacroF1 => (label, 1.0 / labels),
            _ => (label, rows / all),
        })
        .collect()
}

/// Embeds, where vectors and the price of rows are not known yet, clusters, and puts rows in order; with it the probe's features, which
/// are adapted ones where the settings say so.
pub(crate) fn group(
    settings: &SelectSettings,
    (dataset, folds): (&Dataset, &Folds),
    known: Option<(Vec<Embedded>, Vec<u32>)>,
    stages: &mut Stages<'_>,
    monitor: &dyn Monitor,
) -> Result<(Grouped, ProbeFolds)> {
    // Before hours may go into vectors: what is wrong with the model is said now.
    let target = Target::of(settings, dataset, stages)?;
    let (embedded, tokens) = match known {
        Some(known) => known,
        None => embed::embed(settings, dataset, stages, monitor)?,
    };
    let views = pooled::one_each(&embedded[0]).gather(&dataset.pool);
    let clusters = stages.run("cluster", None, || {
        let k_means = KMeansSettings {
            clusters: settings.clusters_of(views.rows()),
            ..settings.k_means.clone()
        };
        cluster::k_means(&views, &k_means, settings.seed.derive("k-means"), monitor)
    })?;
    let fold_views = pooled::one_each_of(&embedded[1], &folds.reward);
    let seed = settings.seed.derive("pool");
    let Contrast { domain_auc, typical } =
        stages.run("compare", None, || domain::contrast(&views, &fold_views, seed))?;
    let shifted = settings.shifted(domain_auc, (views.rows(), fold_views.rows()));
    let settings = settings.resolved(shifted);
    let designs = ProbeFolds::new(&settings, (dataset, folds), Features::Embedded(&embedded), stages)?;
    let doubt = |designs: &ProbeFolds, stages: &mut Stages<'_>| {
        doubted(&settings, (dataset, shifted), designs, stages, monitor)
    };
    let doubted = doubt(&designs, stages)?;
    let (designs, doubted) = match (&target, settings.finetune_features) {
        (Some(target), Some(share)) => {
            let rows = adapt_rows(share, (&dataset.pool, &tokens), &doubted, settings.seed)?;
            let features = target.adapted_features(&settings, &rows, stages, monitor)?;
            let designs = ProbeFolds::new(&settings, (dataset, folds), Features::Adapted(&features), stages)?;
            let doubted = doubt(&designs, stages)?;
            (designs, doubted)
        }
        _ => (designs, doubted),
    };
    let (ranked, members) = stages.run("order", None, || {
        let among_all = settings.candidates == CandidateSet::All;
        let relevance = if settings.row_order == RowOrder::Relevance || !among_all {
            domain::relevance(&views, &fold_views, seed)?
        } else {
            Vec::new()
        };
        let both = (&clusters, doubted.as_slice());
        let members = ordered(settings.row_order, (&views, &relevance), both, seed, monitor)?;
        let ranked = if among_all {
            Vec::new()
        } else {
            domain::ranked(&relevance, &doubted)
        };
        Ok((ranked, members))
    })?;
    let wanted = wanted(settings.metric, &designs.reward);
    let grouped = Grouped {
        settings,
        embedded,
        tokens,
        views,
        fold_views,
        clusters,
        domain_auc,
        doubted,
        target,
        ranked,
        typical: (typical * dataset.pool.len() as f64) as u64,
        wanted,
        members,
    };
    Ok((grouped, designs))
}

impl Grouped {
    /// The clusters cut into chunks, less the rows that no agent chooses among.
    pub(crate) fn pool(&self, dataset: &Dataset, chunk: ChunkSize, limit: Limit) -> Pool {
        let chunk = chunk.for_labels(dataset.task.labels.len());
        let cut = |members: &[Vec<u32>]| Pool::of_members(&dataset.pool, members, &self.tokens, (chunk, limit));
        let Some(among) = self.among(dataset, limit) else {
            return cut(&self.members);
        };
        let among = |row: &u32| among.binary_search(row).is_ok();
        let members = self
            .members
            .iter()
            .map(|rows| rows.iter().copied().filter(among).collect());
        cut(&members.collect::<Vec<_>>())
    }

    /// The rows that agents choose among, in ascending order; none where it is all of the pool.
    fn among(&self, dataset: &Dataset, limit: Limit) -> Option<Vec<u32>> {
        let front = |ranked: &[u32], most| domain::most_relevant(ranked, &self.tokens, most);
        match self.settings.candidates {
            CandidateSet::Auto | CandidateSet::All => None,
            CandidateSet::Budgets(times) => Some(front(&self.ranked, limit.times(times))),
            CandidateSet::InDomain => {
                let [typical, two] =
                    [Limit::Rows(self.typical), limit.times(2.0)].map(|most| front(&self.ranked, most));
                let mut among = if typical.len() > two.len() { typical } else { two };
                // The rows most like a fold may be nearly all of the label that it has most of.
                let target = |&row: &RowId| dataset.train.examples[row as usize].target;
                let targets: Vec<u32> = dataset.pool.iter().map(target).collect();
                let mut by_label = self.ranked.clone();
                by_label.sort_by_key(|&row| targets[row as usize]);
                for rows in by_label.chunk_by(|&a, &b| targets[a as usize] == targets[b as usize]) {
                    if let Some(&share) = self.wanted.get(&targets[rows[0] as usize]) {
                        among.extend(front(rows, limit.times(share)));
                    }
                }
                among.sort_unstable();
                among.dedup();
                Some(among)
            }
        }
    }
}

/// The pool and what it was made from.
pub(crate) struct Prepared {
    /// Those given, each `auto` decided.
    pub(crate) settings: SelectSettings,
    pub(crate) embedded: Vec<Embedded>,
    /// What each row of the pool costs.
    pub(crate) tokens: Vec<u32>,
    pub(crate) limit: Limit,
    pub(crate) clusters: Clusters,
    pub(crate) statistics: Vec<ClusterStatistics>,
    pub(crate) pool: Pool,
    /// As in [`Grouped`].
    pub(crate) domain_auc: f64,
    /// As in [`Grouped`].
    pub(crate) doubted: Vec<bool>,
    /// As in [`Grouped`].
    pub(crate) target: Option<Target>,
}

/// Embeds, clusters, puts rows in order and cuts them into chunks; with it the probe's features.
pub(crate) fn prepare(
    settings: &SelectSettings,
    (dataset, folds): (&Dataset, &Folds),
    stages: &mut Stages<'_>,
    monitor: &dyn Monitor,
) -> Result<(Prepared, ProbeFolds)> {
    let (grouped, designs) = group(settings, (dataset, folds), None, stages, monitor)?;
    let limit = limit_of(settings.budget, &grouped.tokens)?;
    let pool = grouped.pool(dataset, settings.chunk, limit);
    let Grouped {
        settings,
        embedded,
        tokens,
        views,
        clusters,
        domain_auc,
        doubted,
        target,
        ..
    } = grouped;
    let statistics = stages.run("describe", None, || {
        Ok(describe::statistics(dataset, &clusters, &views))
    })?;
    let prepared = Prepared {
        settings,
        embedded,
        tokens,
        limit,
        clusters,
        statistics,
        pool,
        domain_auc,
        doubted,
        target,
    };
    Ok((prepared, designs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_choice_may_want_of_a_label_is_what_the_metric_counts_it_for() {
        let fold = |outputs| ProbeData::new(Matrix::zeros(4, 1), (0..5).collect(), vec![2, 0, 2, 2], outputs);
        let wanted = |metric| wanted(metric, &fold(3)).into_iter().collect::<Vec<_>>();
        assert_eq!(wanted(MetricKind::MacroF1), [(0, 0.5), (2, 0.5)]);
        assert_eq!(wanted(MetricKind::Accuracy), [(0, 0.25), (2, 0.75)]);
        assert_eq!(wanted(MetricKind::LogLoss), wanted(MetricKind::Accuracy));
    }
}
