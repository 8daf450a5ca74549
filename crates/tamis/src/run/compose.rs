//! `select`, from the user's files to the chosen rows.

use std::{collections::HashMap, sync::Arc};

use super::{
    describe, folder,
    judge::{Judge, random_rows},
    record::{BudgetRecord, ChosenRow, DataRecord, SelectionRecord, VERSION},
    settings::{ProxyKind, SelectSettings},
    stages::Stages,
    target::{self, Target},
    vectors,
};
use crate::{
    Error, Monitor, Result,
    cluster::{self, KMeansSettings},
    data::{self, Dataset, RowId, Split},
    embed::Embedded,
    folds::Folds,
    pool::Pool,
    proxy::{
        Proxy,
        design::{self, Design, Projection},
        probe::{Probe, ProbeSettings},
        tune::tune,
    },
    seed::Seed,
    select::{FeatureContext, Limits, Method, Problem},
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
    // Told before anything is written.
    design::check_task(dataset.task.kind, dataset.task.labels.len())?;
    let seed = settings.seed;
    let folds = Folds::split(&dataset.validation.targets(), seed.derive("folds"))?;
    check_against_pool(settings, dataset.pool.len())?;
    let mut ledger = folder::open(settings, &dataset.fingerprint)?;
    data::write_rejects(&dataset.rejects, &settings.out)?;

    let (embedded, tokens) = vectors::embed(settings, &dataset, &mut stages, monitor)?;
    let limit = settings.budget.resolve(
        dataset.pool.len() as u64,
        tokens.iter().map(|&tokens| u64::from(tokens)).sum(),
    )?;

    let views = vectors::one_each(&embedded[0]).gather(&dataset.pool);
    let (clusters, statistics) = stages.run("cluster", None, || {
        let k_means = KMeansSettings {
            clusters: settings
                .clusters
                .unwrap_or_else(|| cluster::default_clusters(views.rows())),
            ..settings.k_means.clone()
        };
        let clusters = cluster::k_means(&views, &k_means, seed.derive("k-means"), monitor)?;
        let statistics = describe::statistics(&dataset, &clusters, &views);
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

    let target = if settings.finetunes() {
        Some(stages.run("tokenize", None, || Target::load(settings, &dataset))?)
    } else {
        None
    };
    let adapted = adapted(settings, &dataset, target.as_ref(), &tokens, &mut stages, monitor)?;
    let designs = stages.run("design", None, || {
        Designs::new(&dataset, &folds, (&embedded, adapted.as_deref()), seed)
    })?;
    let budget_rows = random_rows(&dataset.pool, &tokens, limit, seed.derive("size")).len();
    let (tuning, tuning_everything) = stages.run("tune", None, || {
        let at = |size| {
            tune(
                &designs.train,
                &dataset.pool,
                size,
                &designs.reward,
                seed.derive("tune"),
                monitor,
            )
        };
        Ok((at(budget_rows)?, at(dataset.pool.len())?))
    })?;
    let probe = Probe::new(
        Arc::clone(&designs.train),
        Arc::clone(&designs.reward),
        ProbeSettings {
            metric: settings.reward_metric(),
            ridge: tuning.ridge,
            temperature: tuning.temperature_for(settings.reward_metric()),
            gram_memory: settings.gram_memory as usize,
        },
    )?;

    let features = FeatureContext::new(describe::traits(&dataset, &folds, &embedded[1], &clusters), &pool);
    let limits = Limits {
        evaluations: settings.max_evaluations,
        seconds: settings.max_time,
    };
    let longest = pool.longest_episode();
    if longest == 0 || pool.legal(&pool.empty()).iter().all(Option::is_none) {
        let (least, most) = (tokens.iter().min().unwrap_or(&0), tokens.iter().max().unwrap_or(&0));
        return Err(Error::setting(
            "--budget",
            format!("enough for one row (rows have {least} to {most} tokens)"),
            format!("`{}`", settings.budget),
        ));
    }
    if longest >= limits.evaluations && settings.agent != Method::Random {
        return Err(Error::setting(
            "--max-evaluations",
            format!("more than the {longest} that one episode may take"),
            limits.evaluations.to_string(),
        )
        .with_hint("larger chunks make shorter episodes: `--chunk <rows>`"));
    }
    let dear = target
        .as_ref()
        .filter(|_| settings.proxy == ProxyKind::Finetune)
        .map(|target| {
            let (rows, metric) = (settings.finetune.fold_rows, settings.reward_metric());
            target.proxy(&folds.reward, rows, metric, settings, &dataset.fingerprint)
        });
    let proxy: &dyn Proxy = dear.as_ref().map_or(&probe as &dyn Proxy, |dear| dear);
    let (finalists, evaluations) = stages.run("select", Some(settings.max_evaluations), || {
        let mut problem = Problem::new(
            &pool,
            proxy,
            &mut ledger,
            features,
            limits,
            seed.derive("proxy"),
            monitor,
        )?;
        let mut selector = settings.agent.selector(&problem, &settings.dqn, seed.derive("agent"))?;
        let outcome = selector.select(&mut problem, seed.derive("search"));
        problem.finish()?;
        outcome?;
        let finalists: Vec<_> = problem
            .best()
            .iter()
            .map(|(_, state, path)| (state.clone(), path.to_vec()))
            .collect();
        Ok((finalists, problem.evaluations()))
    })?;
    if finalists.is_empty() {
        return Err(too_short(settings, longest, evaluations));
    }

    let judge = Judge {
        train: &designs.train,
        reward: &designs.reward,
        confirm: &designs.confirm,
        test: designs.test.as_ref(),
        at_budget: (tuning.ridge, tuning.temperature_for(settings.reward_metric())),
        at_everything: (
            tuning_everything.ridge,
            tuning_everything.temperature_for(settings.reward_metric()),
        ),
        reward_metric: settings.reward_metric(),
        report_metric: settings.report_metric(),
    };
    let rows: Vec<Vec<RowId>> = finalists.iter().map(|(state, _)| pool.rows_of(state)).collect();
    let dear_judge = target.as_ref().filter(|_| settings.judge() == ProxyKind::Finetune);
    let judged = dear_judge.map_or(0, |_| rows.len().min(settings.finalists));
    let (best, finetuned) = stages.run("confirm", dear_judge.map(|_| 2 * judged as u64), || match dear_judge {
        None => Ok((judge.choose(&rows)?, None)),
        Some(target) => {
            let few = &rows[..judged];
            let both = (&dataset, &folds);
            let (best, finetuned) = target::judge(target, settings, both, few, (&tokens, limit), monitor)?;
            Ok((best, Some(finetuned)))
        }
    })?;
    let path = &finalists[best].1;
    let mut chosen = rows[best].clone();
    chosen.sort_unstable();
    let mut scores = stages.run("score", Some(12), || {
        judge.scores(
            &chosen,
            &dataset.pool,
            (&tokens, limit),
            seed.derive("controls"),
            monitor,
        )
    })?;

    scores.finetuned = finetuned;
    stages.run("export", None, || data::export(&dataset.train, &chosen, &settings.out))?;
    let token_of: HashMap<RowId, u32> = dataset.pool.iter().copied().zip(tokens.iter().copied()).collect();
    let place: HashMap<RowId, (u32, u32)> = path
        .iter()
        .enumerate()
        .flat_map(|(step, (cluster, range))| {
            pool.rows(*cluster, range)
                .iter()
                .map(move |&row| (row, (*cluster as u32, step as u32 + 1)))
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
                let (file, line) = describe::origin(&dataset.train, *row);
                ChosenRow {
                    file,
                    row: line,
                    cluster: place[row].0,
                    step: place[row].1,
                }
            })
            .collect(),
        scores,
        labels: describe::label_records(&dataset, &chosen),
        clusters: describe::cluster_records(&dataset, statistics, &chosen, &place),
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

/// The limits ended the search before the budget was spent even once.
fn too_short(settings: &SelectSettings, longest: u64, evaluations: u64) -> Error {
    match settings.max_time {
        Some(seconds) if evaluations < settings.max_evaluations => Error::setting(
            "--max-time",
            "time for at least one whole episode",
            format!("{seconds} s, which ended after {evaluations} evaluations"),
        )
        .with_hint("start again in another folder with more time, or with fewer steps: `--chunk <rows>`"),
        _ => Error::setting(
            "--max-evaluations",
            format!("enough for one whole episode of up to {longest} steps, each of which tries several actions"),
            settings.max_evaluations.to_string(),
        )
        .with_hint(format!(
            "start again in another folder with `--max-evaluations {}`, or with fewer steps: `--chunk <rows>`",
            20 * longest
        )),
    }
}

/// The features of a model that was fine-tuned on a few random rows, where the settings ask for it.
fn adapted(
    settings: &SelectSettings,
    dataset: &Dataset,
    target: Option<&Target>,
    tokens: &[u32],
    stages: &mut Stages<'_>,
    monitor: &dyn Monitor,
) -> Result<Option<Vec<Embedded>>> {
    let rows = target::adapt_rows(settings, dataset, tokens)?;
    let (Some(target), Some(rows)) = (target, rows) else {
        return Ok(None);
    };
    let steps = settings.finetune.train.steps(rows.len());
    let adapted = stages.run("adapt", Some(steps), || target.adapt(settings, &rows, monitor))?;
    let features = stages.run("features", Some(target.examples()), || {
        target.features(&adapted, monitor)
    })?;
    Ok(Some(features))
}

/// The probe's features of every fold.
struct Designs {
    train: Arc<Design>,
    reward: Arc<Design>,
    confirm: Design,
    test: Option<Design>,
}

impl Designs {
    /// From the adapted features where there are some.
    fn new(
        dataset: &Dataset,
        folds: &Folds,
        (embedded, adapted): (&[Embedded], Option<&[Embedded]>),
        seed: Seed,
    ) -> Result<Self> {
        let (kind, labels) = (dataset.task.kind, dataset.task.labels.len());
        let projection = match adapted {
            Some(adapted) => Projection::fit_adapted(&adapted[0], kind, labels)?,
            None => Projection::fit(&embedded[0], kind, labels, design::WIDTH, seed.derive("projection"))?,
        };
        let embedded = adapted.unwrap_or(embedded);
        let design = |embedded: &Embedded, split: &Split| projection.apply(embedded, &split.targets());
        let validation = design(&embedded[1], &dataset.validation);
        Ok(Self {
            train: Arc::new(design(&embedded[0], &dataset.train)),
            reward: Arc::new(validation.select(&folds.reward)),
            confirm: validation.select(&folds.confirm),
            test: dataset.test.as_ref().map(|test| design(&embedded[2], test)),
        })
    }
}
