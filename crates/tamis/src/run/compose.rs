//! `select`, from the user's files to the chosen rows.

use std::collections::HashMap;

use super::{
    command::command,
    curves, describe, folder,
    judge::{Judge, tokens_of},
    map::map,
    prepare::{Prepared, Tuned, prepare, read},
    record::{BudgetRecord, ChosenRow, DataRecord, ReadRecord, SelectionRecord, VERSION},
    settings::{ProxyKind, SelectSettings},
    stages::Stages,
    target::{self, dear_proxy},
    vectors,
};
use crate::{
    Error, Monitor, Result,
    data::{self, RowId},
    ledger::Ledger,
    pool::{Pool, State},
    proxy::{Proxy, finetune::FinetuneProxy, probe::Probe},
    report,
    seed::Seed,
    select::{Curve, FeatureContext, Limits, Path, Problem},
};

/// Reads, embeds, clusters, lets the agent choose, confirms, scores and writes.
///
/// Everything that was paid for is in `settings.out`; the same call goes on after a kill and ends with the same selection.
///
/// # Errors
///
/// If the data, the settings or the folder are not as they must be, a file cannot be written, or the user stopped the run.
pub fn select(settings: &SelectSettings, monitor: &dyn Monitor) -> Result<SelectionRecord> {
    let mut stages = Stages::new(monitor);
    let (dataset, folds) = read(settings, &mut stages, monitor)?;
    let seed = settings.seed;
    let mut ledger = folder::open(settings, &vectors::sources(settings, &dataset)?)?;
    data::write_rejects(&dataset.rejects, &settings.out)?;
    let (prepared, designs) = prepare(settings, (&dataset, &folds), &mut stages, monitor)?;
    let Prepared {
        settings: resolved,
        embedded,
        tokens,
        limit,
        clusters,
        statistics,
        pool,
        separability,
        doubted,
        target,
    } = prepared;
    let (given, settings) = (settings, &resolved);
    let tuned = Tuned::new(settings, &dataset, designs, (&tokens, limit), &mut stages, monitor)?;
    let (designs, tuning, tuning_everything) = (&tuned.designs, &tuned.at_budget, &tuned.at_everything);
    let probe = tuned.probe(settings.reward_metric(), settings)?;

    let features = FeatureContext::new(describe::traits(&dataset, &folds, &embedded[1], &clusters), &pool);
    let limits = Limits {
        evaluations: settings.max_evaluations,
        seconds: settings.max_time,
    };
    let longest = check_episode(settings, &pool, &tokens)?;
    let dear = dear_proxy(target.as_ref(), settings, &folds, &dataset.fingerprint);
    let Found {
        finalists,
        evaluations,
        failures,
        curve,
        earlier,
    } = stages.run("select", Some(settings.max_evaluations), || {
        let problem = pose(
            &pool,
            (&probe, dear.as_ref()),
            &mut ledger,
            (features, limits, seed),
            monitor,
        )?;
        search(problem, settings, seed)
    })?;
    stages.add_to_latest(earlier);
    if finalists.is_empty() {
        return Err(too_short(settings, longest, evaluations));
    }

    let judge = Judge::new(designs, tuning, tuning_everything, settings);
    let rows: Vec<Vec<RowId>> = finalists.iter().map(|(state, _)| pool.rows_of(state)).collect();
    let dear_judge = target.as_ref().filter(|_| settings.judge() == ProxyKind::Finetune);
    let judged = dear_judge.map_or(0, |_| rows.len().min(settings.finalists));
    let (best, finetuned) = stages.run("confirm", dear_judge.map(|_| 2 * judged as u64), || match dear_judge {
        None => Ok((judge.choose(&rows)?, None)),
        Some(target) => {
            let few = &rows[..judged];
            let both = (&dataset, &folds);
            let (best, finetuned) = target::judge(target, settings, both, few, (&tokens, limit), &mut ledger, monitor)?;
            Ok((best, Some(finetuned)))
        }
    })?;
    let path = &finalists[best].1;
    let mut chosen = rows[best].clone();
    chosen.sort_unstable();
    let mut scores = stages.run("score", Some(13), || {
        judge.scores(
            &chosen,
            &dataset.pool,
            (&tokens, limit),
            seed.derive("controls"),
            monitor,
        )
    })?;

    scores.finetuned = finetuned;
    stages.run("curves", None, || curves::write(&curve, &pool, &judge, &settings.out))?;
    stages.run("export", None, || data::export(&dataset.train, &chosen, &settings.out))?;
    stages.run("map", None, || {
        let picture = map(
            &dataset,
            &embedded[0],
            (&clusters, &statistics),
            &chosen,
            seed.derive("map"),
        );
        folder::write_compact(&settings.out.join("map.json"), &picture)
    })?;
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
        failures,
        budget: BudgetRecord {
            rows: chosen.len() as u64,
            tokens: tokens_of(&chosen, &dataset.pool, &tokens),
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
            read: ReadRecord::of(&dataset),
            files: dataset
                .train
                .files
                .iter()
                .map(|file| (file.path.clone(), file.hash.clone()))
                .collect(),
            reward_fold: folds.reward.len() as u64,
            confirm_fold: folds.confirm.len() as u64,
            test: dataset.test.as_ref().map_or(0, |test| test.examples.len() as u64),
            separability,
            among: pool.rows_in_all() as u64,
            doubted: doubted.iter().filter(|&&doubted| doubted).count() as u64,
        },
        stages: stages.into_records(),
        command: command(given)?,
        settings: serde_json::to_value(settings).unwrap_or_default(),
    };
    folder::write_json(&settings.out.join("selection.json"), &record)?;
    report::write_run(&settings.out)?;
    Ok(record)
}

/// Whether the evaluations last for an episode, and the budget for a row; the most steps that an episode can have.
pub(super) fn check_episode(settings: &SelectSettings, pool: &Pool, tokens: &[u32]) -> Result<u64> {
    let longest = pool.longest_episode();
    if longest == 0 || pool.legal(&pool.empty()).iter().all(Option::is_none) {
        let (least, most) = (tokens.iter().min().unwrap_or(&0), tokens.iter().max().unwrap_or(&0));
        return Err(Error::setting(
            "--budget",
            format!("enough for one row (rows have {least} to {most} tokens)"),
            format!("`{}`", settings.budget),
        ));
    }
    if longest >= settings.max_evaluations && settings.agent.pays_for_steps(settings.reward_model) {
        return Err(Error::setting(
            "--max-evaluations",
            format!("more than the {longest} that one episode may take"),
            settings.max_evaluations.to_string(),
        )
        .with_hint("larger chunks make shorter episodes: `--chunk <rows>`"));
    }
    Ok(longest)
}

/// A problem for the proxy of a run, with nothing spent. Where scores are dear, models of them read the probe's as well.
pub(super) fn pose<'a>(
    pool: &'a Pool,
    (probe, dear): (&'a Probe, Option<&'a FinetuneProxy>),
    ledger: &'a mut Ledger,
    (features, limits, seed): (FeatureContext, Limits, Seed),
    monitor: &'a dyn Monitor,
) -> Result<Problem<'a>> {
    let proxy: &dyn Proxy = dear.map_or(probe as &dyn Proxy, |dear| dear);
    let problem = Problem::new(pool, proxy, ledger, features, limits, seed.derive("proxy"), monitor)?;
    Ok(match dear {
        Some(_) => problem.with_hint(probe),
        None => problem,
    })
}

/// What a search came to.
pub(super) struct Found {
    /// The best full states with the paths to them, best first.
    pub(super) finalists: Vec<(State, Path)>,
    /// Evaluations spent.
    pub(super) evaluations: u64,
    /// Those of them that failed.
    pub(super) failures: u64,
    /// How the search went.
    pub(super) curve: Curve,
    /// Seconds that earlier starts of a run that was killed searched.
    pub(super) earlier: f64,
}

/// Lets the agent of the settings spend a problem's evaluations. What was paid for is on disk, also when the search was stopped.
pub(super) fn search(mut problem: Problem<'_>, settings: &SelectSettings, seed: Seed) -> Result<Found> {
    let mut selector = settings
        .agent
        .selector(&problem, settings.methods(), seed.derive("agent"))?;
    let outcome = selector.select(&mut problem, seed.derive("search"));
    problem.finish()?;
    outcome?;
    let curve = problem.curve();
    let best = problem.best().iter();
    Ok(Found {
        earlier: curve.earlier_seconds(),
        finalists: best.map(|(_, state, path)| (state.clone(), path.to_vec())).collect(),
        evaluations: problem.evaluations(),
        failures: problem.failures(),
        curve,
    })
}

/// The limits ended the search before the budget was spent even once.
pub(super) fn too_short(settings: &SelectSettings, longest: u64, evaluations: u64) -> Error {
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
