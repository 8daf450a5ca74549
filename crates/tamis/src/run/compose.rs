//! `select`, from the user's files to the chosen rows.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use super::{
    folder,
    judge::{Judge, random_rows},
    record::{BudgetRecord, ChosenRow, ClusterRecord, DataRecord, LabelRecord, SelectionRecord, VERSION},
    settings::SelectSettings,
    stages::Stages,
};
use crate::{
    Error, Matrix, Monitor, Result,
    budget::Limit,
    cluster::{self, Clusters, KMeansSettings},
    data::{self, Dataset, Example, RowId, Split, TaskKind},
    embed::{
        Embedded, Embedder,
        cache::Cached,
        encoder::Encoder,
        lexical::{self, Lexical},
        precomputed,
    },
    folds::{self, Folds},
    mdp::Environment,
    pool::Pool,
    proxy::{Design, Probe, ProbeSettings, Projection, tune},
    select::{ClusterTraits, FeatureContext, Limits, Problem},
};

/// Reads, embeds, clusters, lets the agent choose, confirms, scores and writes.
///
/// Everything that was paid for is in `settings.out`; the same call goes on after a kill and ends with the same selection.
///
/// # Errors
///
/// If the data, the settings or the folder are not as they must be, a file cannot be written, or the user stopped the run.
pub fn select(settings: &SelectSettings, monitor: &dyn Monitor) -> Result<SelectionRecord> {
    settings.check()?;
    let mut stages = Stages::new(monitor);
    let dataset = stages.run("read", None, || data::read(&settings.data, monitor))?;
    if dataset.task.kind == TaskKind::Response {
        // Its reward needs a proxy that generates; told before anything is written.
        crate::proxy::check_task(dataset.task.kind)?;
    }
    let seed = settings.seed;
    let folds = folds::split(&dataset.validation.targets(), seed.derive("folds"))?;
    let mut ledger = folder::open(settings, &dataset.fingerprint)?;
    data::write_rejects(&dataset.rejects, &settings.out)?;

    let (embedded, tokens) = embed(settings, &dataset, &mut stages, monitor)?;
    let limit = settings.budget.resolve(dataset.pool.len() as u64, tokens.iter().map(|&tokens| u64::from(tokens)).sum())?;

    let views = View::of(&embedded[0]).gather(&dataset.pool);
    let (clusters, statistics) = stages.run("cluster", None, || {
        let k_means = KMeansSettings {
            clusters: settings.clusters.unwrap_or_else(|| cluster::default_clusters(views.rows())),
            ..settings.k_means.clone()
        };
        let clusters = cluster::k_means(&views, &k_means, seed.derive("k-means"), monitor)?;
        let statistics = statistics(&dataset, &clusters, &views);
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
    drop(views);

    let designs = stages.run("design", None, || Designs::new(&dataset, &folds, &embedded, seed))?;
    let budget_rows = random_rows(&dataset.pool, &tokens, limit, seed.derive("size")).len();
    let (tuning, tuning_everything) = stages.run("tune", None, || {
        let at = |rows, name: &str| {
            tune(&designs.train, &designs.reward, &dataset.pool, rows, settings.reward_metric(), seed.derive(name))
        };
        Ok((at(budget_rows, "tune")?, at(dataset.pool.len(), "tune everything")?))
    })?;
    let probe = Probe::new(
        Arc::clone(&designs.train),
        Arc::clone(&designs.reward),
        &dataset.fingerprint,
        ProbeSettings { metric: settings.reward_metric(), tuning: tuning.clone(), gram_memory: settings.gram_memory },
    )?;

    let features = FeatureContext::new(traits(&dataset, &folds, &embedded[1], &clusters), &pool);
    let limits = Limits { evaluations: settings.max_evaluations, seconds: settings.max_time };
    let longest = pool.longest_episode();
    if longest >= limits.evaluations && settings.agent != crate::select::Method::Random {
        return Err(Error::setting(
            "--max-evaluations",
            format!("more than the {longest} that one episode may take"),
            limits.evaluations.to_string(),
        )
        .with_hint("larger chunks make shorter episodes: `--chunk <rows>`"));
    }
    let (finalists, evaluations) = stages.run("select", Some(settings.max_evaluations), || {
        let mut problem = Problem::new(&pool, &probe, &mut ledger, features, limits, seed.derive("proxy"), monitor)?;
        let mut selector = settings.agent.selector(&problem, &settings.dqn, seed.derive("agent"))?;
        let outcome = selector.select(&mut problem, seed.derive("search"));
        problem.finish()?;
        outcome?;
        let finalists: Vec<_> = problem.best().iter().map(|(_, state, path)| (state.clone(), path.to_vec())).collect();
        Ok((finalists, problem.evaluations()))
    })?;
    if finalists.is_empty() {
        return Err(Error::setting("--max-time", "time for at least one whole episode", format!("{:?} s", settings.max_time)));
    }

    let judge = Judge {
        train: &designs.train,
        reward: &designs.reward,
        confirm: &designs.confirm,
        test: designs.test.as_ref(),
        tuning,
        tuning_everything,
        reward_metric: settings.reward_metric(),
        report_metric: settings.report_metric(),
    };
    let (path, chosen) = stages.run("confirm", None, || {
        let rows: Vec<Vec<RowId>> = finalists.iter().map(|(state, _)| pool.rows_of(state)).collect();
        let best = judge.choose(&rows)?;
        let mut chosen = rows[best].clone();
        chosen.sort_unstable();
        Ok((&finalists[best].1, chosen))
    })?;
    let scores = stages.run("score", Some(12), || {
        judge.scores(&chosen, &dataset.pool, (&tokens, limit), seed.derive("controls"), monitor)
    })?;

    stages.run("export", None, || data::export(&dataset.train, &chosen, &settings.out))?;
    let token_of: HashMap<RowId, u32> = dataset.pool.iter().copied().zip(tokens.iter().copied()).collect();
    let place: HashMap<RowId, (u32, u32)> = path
        .iter()
        .enumerate()
        .flat_map(|(step, (cluster, range))| {
            pool.rows(*cluster, range).iter().map(move |&row| (row, (*cluster as u32, step as u32 + 1)))
        })
        .collect();
    let record = SelectionRecord {
        version: VERSION,
        tamis: env!("CARGO_PKG_VERSION").to_owned(),
        agent: settings.agent.to_string(),
        seed: seed.0,
        evaluations,
        budget: BudgetRecord {
            rows: chosen.len() as u64,
            tokens: chosen.iter().map(|row| u64::from(token_of[row])).sum(),
        },
        rows: chosen
            .iter()
            .map(|row| {
                let (file, line) = origin(&dataset.train, *row);
                ChosenRow { file, row: line, cluster: place[row].0, step: place[row].1 }
            })
            .collect(),
        scores,
        labels: label_records(&dataset, &chosen),
        clusters: cluster_records(&dataset, statistics, &chosen, &place),
        data: DataRecord {
            train: dataset.train.examples.len() as u64,
            pool: dataset.pool.len() as u64,
            reward_fold: folds.reward.len() as u64,
            confirm_fold: folds.confirm.len() as u64,
            test: dataset.test.as_ref().map_or(0, |test| test.examples.len() as u64),
            duplicates: dataset.duplicates,
            leaks: dataset.leaks,
            rejects: dataset.rejects.len() as u64,
        },
        stages: stages.into_records(),
        settings: serde_json::to_value(settings).unwrap_or_default(),
    };
    folder::write_json(&settings.out.join("selection.json"), &record)?;
    Ok(record)
}

/// Vectors of train, validation and test, and what each row of the pool costs in tokens.
fn embed(
    settings: &SelectSettings,
    dataset: &Dataset,
    stages: &mut Stages<'_>,
    monitor: &dyn Monitor,
) -> Result<(Vec<Embedded>, Vec<u32>)> {
    let splits: Vec<&Split> = [Some(&dataset.train), Some(&dataset.validation), dataset.test.as_ref()].into_iter().flatten().collect();
    let name = settings.embedder.as_str();
    let tokens = |count: &(dyn Fn(&str) -> u32 + Sync)| -> Vec<u32> {
        use rayon::prelude::*;
        let tokens_of = |example: &Example| example.input.texts().into_iter().map(count).sum();
        dataset.pool.par_iter().map(|&row| tokens_of(&dataset.train.examples[row as usize])).collect()
    };
    let extension = std::path::Path::new(name).extension().and_then(|extension| extension.to_str());
    if matches!(extension, Some("npy" | "safetensors")) {
        let embedded = stages.run("embed", None, || precomputed::load(std::path::Path::new(name), &splits))?;
        return Ok((embedded, tokens(&lexical::count_tokens)));
    }
    let texts: Vec<Vec<&str>> =
        splits.iter().map(|split| split.examples.iter().flat_map(|example| example.input.texts()).collect()).collect();
    let total = texts.iter().map(|texts| texts.len() as u64).sum();
    stages.run("embed", Some(total), || {
        let embedder: Box<dyn Embedder> = if name == "lexical" {
            Box::new(Lexical::fit(&settings.lexical, &texts[0], settings.seed.derive("lexical"), monitor)?)
        } else {
            let folder = settings.cache.clone().or_else(cache_folder);
            let encoder = Encoder::load(name)?;
            match folder {
                Some(folder) => Box::new(Cached::new(encoder, &folder)?),
                None => Box::new(encoder),
            }
        };
        let embedded = splits
            .iter()
            .zip(&texts)
            .map(|(split, texts)| {
                let vectors = embedder.embed(texts, monitor)?;
                let mut starts = vec![0];
                for example in &split.examples {
                    starts.push(starts[starts.len() - 1] + example.input.texts().len() as u32);
                }
                Ok(Embedded { vectors, starts })
            })
            .collect::<Result<_>>()?;
        Ok((embedded, tokens(&|text| embedder.count_tokens(text))))
    })
}

/// Where embeddings are kept when the settings do not say.
fn cache_folder() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(base.join("tamis"))
}

/// One vector an example, for clustering: the mean of its first vector and the mean of the others, at unit length.
struct View;

impl View {
    fn of(embedded: &Embedded) -> Matrix {
        let dim = embedded.vectors.cols();
        if embedded.vectors.rows() == embedded.examples() {
            return embedded.vectors.clone();
        }
        let mut views = Matrix::zeros(embedded.examples(), dim);
        for i in 0..embedded.examples() {
            let range = embedded.vectors_of(i);
            let others = (range.len() - 1).max(1) as f32;
            let view = views.row_mut(i);
            for (j, vector) in range.enumerate() {
                let weight = if j == 0 { 1.0 } else { 1.0 / others };
                view.iter_mut().zip(embedded.vectors.row(vector)).for_each(|(sum, x)| *sum += weight * x);
            }
            let norm = view.iter().map(|x| x * x).sum::<f32>().sqrt();
            if norm > 0.0 {
                view.iter_mut().for_each(|x| *x /= norm);
            }
        }
        views
    }
}

/// The probe's features of every fold.
struct Designs {
    train: Arc<Design>,
    reward: Arc<Design>,
    confirm: Design,
    test: Option<Design>,
}

impl Designs {
    fn new(dataset: &Dataset, folds: &Folds, embedded: &[Embedded], seed: crate::seed::Seed) -> Result<Self> {
        let projection = Projection::fit(&dataset.task, &embedded[0], &dataset.pool, seed.derive("projection"))?;
        let design = |embedded: &Embedded, split: &Split| projection.design(embedded, &split.targets());
        let validation = design(&embedded[1], &dataset.validation)?;
        Ok(Self {
            train: Arc::new(design(&embedded[0], &dataset.train)?),
            reward: Arc::new(validation.gather(&folds.reward)),
            confirm: validation.gather(&folds.confirm),
            test: dataset.test.as_ref().map(|test| design(&embedded[2], test)).transpose()?,
        })
    }
}

/// What the agent's features are made from.
fn traits(dataset: &Dataset, folds: &Folds, validation: &Embedded, clusters: &Clusters) -> ClusterTraits {
    let count = clusters.centroids.rows();
    let labels = dataset.task.labels.len().max(1);
    let label = |target: u32| if dataset.task.labels.is_empty() { 0 } else { target as usize };
    let mut label_mix = Matrix::zeros(count, labels);
    for (&row, &cluster) in dataset.pool.iter().zip(&clusters.assignment) {
        let target = dataset.train.examples[row as usize].target;
        label_mix.row_mut(cluster as usize)[label(target)] += 1.0 / clusters.sizes[cluster as usize] as f32;
    }
    let mut fold_mix = vec![0.0; labels];
    for &row in &folds.reward {
        fold_mix[label(dataset.validation.examples[row as usize].target)] += 1.0 / folds.reward.len() as f32;
    }
    let fold = View::of(validation).gather(&folds.reward);
    let fold_cluster = clusters.assign(&fold);
    let mut centre = vec![0.0; fold.cols()];
    for row in fold.iter_rows() {
        centre.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    let closeness = clusters
        .centroids
        .iter_rows()
        .map(|centroid| centroid.iter().zip(&centre).map(|(a, b)| a * b).sum::<f32>() / norm(centroid) / norm(&centre))
        .collect();
    ClusterTraits { label_mix, closeness, fold_cluster, fold_mix }
}

fn statistics(dataset: &Dataset, clusters: &Clusters, views: &Matrix) -> Vec<cluster::ClusterStatistics> {
    let labels: Vec<u32> = dataset.pool.iter().map(|&row| dataset.train.examples[row as usize].target).collect();
    let texts = |i: usize| dataset.train.examples[dataset.pool[i] as usize].input.texts();
    cluster::statistics(clusters, views, &labels, dataset.task.labels.len(), &texts)
}

fn origin(split: &Split, row: RowId) -> (PathBuf, u64) {
    let origin = split.examples[row as usize].origin;
    (split.files[origin.file as usize].path.clone(), origin.line)
}

fn label_records(dataset: &Dataset, chosen: &[RowId]) -> Vec<LabelRecord> {
    let shares = |targets: &mut dyn Iterator<Item = u32>| {
        let mut counts = vec![0.0; dataset.task.labels.len()];
        let mut total = 0.0;
        for target in targets {
            if let Some(count) = counts.get_mut(target as usize) {
                *count += 1.0;
            }
            total += 1.0;
        }
        counts.into_iter().map(|count: f64| count / total).collect::<Vec<f64>>()
    };
    let of = |rows: &[RowId]| shares(&mut rows.iter().map(|&row| dataset.train.examples[row as usize].target));
    let (pool, chosen) = (of(&dataset.pool), of(chosen));
    let validation = shares(&mut dataset.validation.examples.iter().map(|example| example.target));
    (0..dataset.task.labels.len())
        .map(|l| LabelRecord {
            label: dataset.task.labels[l].clone(),
            pool: pool[l],
            chosen: chosen[l],
            validation: validation[l],
        })
        .collect()
}

fn cluster_records(
    dataset: &Dataset,
    statistics: Vec<cluster::ClusterStatistics>,
    chosen: &[RowId],
    place: &HashMap<RowId, (u32, u32)>,
) -> Vec<ClusterRecord> {
    let mut counts = vec![0; statistics.len()];
    for row in chosen {
        counts[place[row].0 as usize] += 1;
    }
    statistics
        .into_iter()
        .zip(counts)
        .map(|(cluster, chosen)| ClusterRecord {
            rows: u64::from(cluster.size),
            chosen,
            words: cluster.words,
            labels: cluster.label_counts.iter().map(|&count| u64::from(count)).collect(),
            nearest: cluster.nearest.iter().map(|&i| origin(&dataset.train, dataset.pool[i as usize])).collect(),
        })
        .collect()
}
