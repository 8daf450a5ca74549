//! From vectors to the rows that may be chosen: clusters, distribution shift, suspected label errors, row order, candidates. Every
//! `auto` of the settings is decided here.

use std::sync::Arc;

use tamis_nn::{Matrix, Seed};

use crate::{
    Result,
    budget::Limit,
    candidates::{
        CandidateSet, RowOrder,
        domain::{self, Contrast},
        in_domain::{self, Quotas},
        label_errors::{judge_by, judge_unseen, most_doubted},
        mismatched::share_of_mismatched,
        row_order,
    },
    cluster::{self, Clusters, KMeansSettings},
    data::{Dataset, RowId},
    env::pool::{ChunkSize, Pool},
    metrics::MetricKind,
    pipeline::{
        context::Context,
        embed::{PromptGains, Vectors},
        finetuned_features::rows_for_features,
        gradient_probe::GradientProbe,
        probe::Probe,
        ridge_probe::{Features, RidgeProbe},
        target::Target,
    },
    settings::select::SelectSettings,
    vectors::{VectorStore, subset},
};

/// The largest share of the pool that is suspected of label errors, or of responses to other prompts, unless the settings say so: what a
/// probe that gets many rows wrong says of them counts for less.
const MOST_SUSPECTED: f64 = 0.2;

/// The rows that may be chosen, in the order in which each cluster gives them.
pub(crate) struct Candidates {
    /// Those given, each `auto` decided, in every mode that the agent may search in: by the AUC first.
    pub(crate) modes: Vec<SelectSettings>,
    /// Those that the user asked for.
    pub(crate) given: CandidateSet,
    pub(crate) vectors: Vectors,
    pub(crate) clustered: Clustered,
    /// The AUC with which rows of the reward fold are told from the pool.
    pub(crate) domain_auc: f64,
    /// Whether a row is suspected of a label error and so used last, shape `(rows of the pool,)`.
    pub(crate) label_errors: Vec<bool>,
    /// On fine-tuned features where the settings say so.
    pub(crate) probe: Arc<dyn Probe>,
    /// How many rows of the pool are at least as much like those of the reward fold as half of these are.
    in_domain: u64,
    quotas: Quotas,
    order: Order,
}

impl Candidates {
    pub(crate) fn find(context: Context<'_>, target: Option<&Target>, vectors: Vectors) -> Result<Self> {
        let clustered = Clustered::new(context, &vectors)?;
        let (pool, fold) = (&*clustered.pool, &clustered.fold);
        let seed = context.settings.seed.derive("pool");
        let Contrast { domain_auc, typical } = context.stages.run("compare", None, || {
            let contrast = domain::contrast(pool, fold, seed)?;
            // Of a pool that was cut most rows are like the fold's: whether it was is told from those that were drawn at random.
            let drawn = context.dataset.random_pool();
            if drawn.len() == pool.count() {
                return Ok(contrast);
            }
            let drawn = subset(&clustered.pool, drawn)?;
            let domain_auc = domain::contrast(&*drawn, fold, seed)?.domain_auc;
            Ok(Contrast { domain_auc, ..contrast })
        })?;
        let shifted = context.settings.shifted(domain_auc, pool.count(), fold.rows());
        let given = context.settings.candidates;
        let open = context.settings.candidates_open(domain_auc, pool.count());
        let modes = context.settings.modes(shifted, open);
        let context = context.with(&modes[0]);
        let (probe, label_errors) = probe_and_label_errors(context, target, &vectors, shifted)?;
        let order = Order::new(context, &modes, &clustered, &label_errors, seed)?;
        Ok(Self {
            in_domain: (typical * pool.count() as f64) as u64,
            quotas: Quotas::new(context.settings.metric, &context.labels_of_reward_fold()),
            vectors,
            clustered,
            domain_auc,
            label_errors,
            probe,
            order,
            given,
            modes,
        })
    }

    /// The places of all rows of the pool.
    pub(crate) fn all(&self) -> Vec<u32> {
        (0..self.label_errors.len() as u32).collect()
    }

    /// The settings in the mode that the AUC is for.
    pub(crate) fn settings(&self) -> &SelectSettings {
        &self.modes[0]
    }

    /// The clusters cut into chunks in the mode of the context's settings, less the rows that are no candidates.
    pub(crate) fn pool(&self, context: Context<'_>, chunk: ChunkSize, limit: Limit) -> Pool {
        let (dataset, settings) = (context.dataset, context.settings);
        let chunk = chunk.for_labels(dataset.task.labels.len());
        let tokens = &self.vectors.tokens;
        let members = self.order.members(settings.row_order);
        let Some(candidates) = self.rows(dataset, settings.candidates, limit) else {
            return Pool::of_members(&dataset.pool, members, tokens, chunk, limit);
        };
        let is_candidate = |row: &u32| candidates.binary_search(row).is_ok();
        let members: Vec<Vec<u32>> = members
            .iter()
            .map(|rows| rows.iter().copied().filter(is_candidate).collect())
            .collect();
        Pool::of_members(&dataset.pool, &members, tokens, chunk, limit)
    }

    /// The candidates as places in the pool, in ascending order; none where they are all of the pool.
    fn rows(&self, dataset: &Dataset, candidates: CandidateSet, limit: Limit) -> Option<Vec<u32>> {
        let (ranked, tokens) = (&self.order.ranked, &self.vectors.tokens);
        match candidates {
            CandidateSet::Auto | CandidateSet::All => None,
            CandidateSet::Budgets(times) => Some(domain::most_relevant(ranked, tokens, limit.times(times))),
            CandidateSet::InDomain => {
                let target = |&row: &RowId| dataset.train.examples[row as usize].target;
                let labels: Vec<u32> = dataset.pool.iter().map(target).collect();
                let least = Limit::Rows(self.in_domain);
                Some(in_domain::rows(ranked, tokens, &labels, least, limit, &self.quotas))
            }
        }
    }
}

/// The clusters of the pool, and what they were made from.
pub(crate) struct Clustered {
    pub(crate) clusters: Clusters,
    /// One vector a row of the pool.
    pub(crate) pool: Arc<dyn VectorStore>,
    /// One vector a row of the reward fold.
    pub(crate) fold: Matrix,
}

impl Clustered {
    fn new(context: Context<'_>, vectors: &Vectors) -> Result<Self> {
        let settings = context.settings;
        let pool = vectors.of_pool(context)?;
        let clusters = context.stages.run("cluster", None, || {
            let k_means = KMeansSettings {
                clusters: settings.clusters_of(pool.count()),
                ..settings.k_means.clone()
            };
            cluster::k_means(&*pool, &k_means, settings.seed.derive("k-means"), context.monitor())
        })?;
        let fold = vectors.of_fold(context)?;
        Ok(Self { clusters, pool, fold })
    }
}

/// In which order rows are taken.
struct Order {
    /// The pool's rows, those most like the reward fold first and suspected label errors last; none where all rows are candidates.
    ranked: Vec<u32>,
    /// Each cluster's rows, as places in the pool, in each order in which a mode takes them.
    members: Vec<(RowOrder, Vec<Vec<u32>>)>,
}

impl Order {
    fn new(
        context: Context<'_>,
        modes: &[SelectSettings],
        clustered: &Clustered,
        label_errors: &[bool],
        seed: Seed,
    ) -> Result<Self> {
        context.stages.run("order", None, || {
            let all = modes.iter().all(|mode| mode.candidates == CandidateSet::All);
            let by_relevance = modes.iter().any(|mode| mode.row_order == RowOrder::Relevance);
            let relevance = if by_relevance || !all {
                domain::relevance(&*clustered.pool, &clustered.fold, seed)?
            } else {
                Vec::new()
            };
            let clusters = &clustered.clusters;
            let random = crate::env::pool::members(&clusters.assignment, clusters.centroids.rows(), seed);
            let (random, last) = row_order::errors_apart(random, label_errors);
            let mut members: Vec<(RowOrder, Vec<Vec<u32>>)> = Vec::new();
            for mode in modes {
                let order = mode.row_order;
                if members.iter().any(|(known, _)| *known == order) {
                    continue;
                }
                let mut ordered = random.clone();
                match order {
                    RowOrder::Random => {}
                    RowOrder::Relevance => row_order::by_relevance(&mut ordered, &relevance),
                    RowOrder::Auto | RowOrder::Coverage => {
                        row_order::by_coverage(&mut ordered, &*clustered.pool, seed, context.monitor())?;
                    }
                }
                for (members, last) in ordered.iter_mut().zip(&last) {
                    members.extend(last);
                }
                members.push((order, ordered));
            }
            let ranked = if all {
                Vec::new()
            } else {
                domain::ranked(&relevance, label_errors)
            };
            Ok(Self { ranked, members })
        })
    }

    /// Each cluster's rows in this order, which is one of the modes'.
    fn members(&self, order: RowOrder) -> &[Vec<u32>] {
        let known = self.members.iter().find(|(known, _)| *known == order);
        &known.expect("an order of a mode").1
    }
}

/// The probe on the embedder's vectors, or on the gradients of responses.
pub(crate) fn probe_of(context: Context<'_>, vectors: &Vectors) -> Result<Arc<dyn Probe>> {
    Ok(match &vectors.gradients {
        Some(gradients) => Arc::new(GradientProbe::new(context, gradients)?),
        None => Arc::new(RidgeProbe::new(context, Features::Embedded(&vectors.splits))?),
    })
}

/// The probe, and the rows whose labels it suspects. Fine-tuned features are made on rows that the embedder's features do not
/// suspect, and suspect rows anew.
fn probe_and_label_errors(
    context: Context<'_>,
    target: Option<&Target>,
    vectors: &Vectors,
    shifted: bool,
) -> Result<(Arc<dyn Probe>, Vec<bool>)> {
    if let Some(gradients) = &vectors.gradients {
        let PromptGains {
            gains, of_mismatched, ..
        } = &gradients.prompts;
        let found = share_of_mismatched(gains, of_mismatched).min(MOST_SUSPECTED);
        let share = context.settings.label_error_share.unwrap_or(found);
        let losses: Vec<f32> = gains.iter().map(|gain| -gain).collect();
        let suspected = most_doubted(&losses, &vec![0; losses.len()], share);
        return Ok((probe_of(context, vectors)?, suspected));
    }
    let probe = RidgeProbe::new(context, Features::Embedded(&vectors.splits))?;
    let label_errors = suspected(context, &probe, shifted)?;
    let (Some(target), Some(share)) = (target, context.settings.finetune_features) else {
        return Ok((Arc::new(probe), label_errors));
    };
    let rows = rows_for_features(context, share, &vectors.tokens, &label_errors)?;
    let tuned = target.finetuned_features(context, &rows)?;
    let probe = RidgeProbe::new(context, Features::FineTuned(&tuned))?;
    let label_errors = suspected(context, &probe, shifted)?;
    Ok((Arc::new(probe), label_errors))
}

/// Which rows of the pool are suspected of label errors, shape `(rows of the pool,)`: as many as the settings say, else as many as the
/// probe gets wrong, a fifth at most. The probe was trained on other rows of the pool, or, where validation rows are of another
/// distribution, on those: the pool's labels may follow another policy.
fn suspected(context: Context<'_>, probe: &RidgeProbe, shifted: bool) -> Result<Vec<bool>> {
    let (settings, pool) = (context.settings, &context.dataset.pool);
    if settings.label_error_share == Some(0.0) {
        return Ok(vec![false; pool.len()]);
    }
    context.stages.run("label errors", None, || {
        let train = &probe.features.train;
        let unseen = if shifted {
            let tuning = probe.tuning(context, probe.features.reward.targets.len())?;
            judge_by(&probe.features.reward, train, pool, &tuning)?
        } else {
            let tuning = probe.tuning(context, pool.len())?;
            judge_unseen(train, pool, &tuning, settings.seed.derive("doubt"), context.monitor())?
        };
        let share = settings
            .label_error_share
            .unwrap_or(unseen.mistaken.min(MOST_SUSPECTED));
        // Macro-F1 counts every label alike; the others count rows, of which the rare labels' are suspected most. Of a question the
        // answer's letter is no label.
        let by_label = settings.metric == MetricKind::MacroF1 && train.outputs > 1;
        let group = |&row: &RowId| if by_label { train.targets[row as usize] } else { 0 };
        let groups: Vec<u32> = pool.iter().map(group).collect();
        Ok(most_doubted(&unseen.losses, &groups, share))
    })
}
