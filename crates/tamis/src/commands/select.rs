//! `select`, from the user's files to the chosen rows.

use std::collections::HashMap;

use tamis_nn::Monitor;

use crate::{
    Result,
    budget::tokens_of,
    data::{self, RowId},
    pipeline::{
        curves, describe, embed,
        evidence::Judge,
        map::map,
        prepare::{Prepared, prepare, read},
        probe_features::Tuned,
        search::{Found, check_episode, pose, search, too_short},
        stages::Stages,
        target::{self, dear_proxy},
    },
    problem::{FeatureContext, Limits},
    records::selection::{BudgetRecord, ChosenRow, DataRecord, ReadRecord, SelectionRecord, VERSION},
    report,
    settings::select::{ProxyKind, SelectSettings},
    workspace::{folder, json},
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
    let mut ledger = folder::open(settings, &embed::sources(settings, &dataset)?)?;
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
        domain_auc,
        doubted,
        target,
    } = prepared;
    let (given, settings) = (settings, &resolved);
    let tuned = Tuned::new(settings, &dataset, designs, (&tokens, limit), &mut stages, monitor)?;
    let (designs, tuning, tuning_everything) = (&tuned.designs, &tuned.at_budget, &tuned.at_everything);
    let probe = tuned.probe(settings.reward_metric())?;

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
    let dear_judge = target.as_ref().filter(|_| settings.rerank() == ProxyKind::Finetune);
    let judged = dear_judge.map_or(0, |_| rows.len().min(settings.rerank_top));
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
        json::write_compact(&settings.out.join("map.json"), &picture)
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
            domain_auc,
            among: pool.rows_in_all() as u64,
            doubted: doubted.iter().filter(|&&doubted| doubted).count() as u64,
        },
        stages: stages.into_records(),
        command: given.command.clone().unwrap_or_default(),
        settings: serde_json::to_value(settings).unwrap_or_default(),
    };
    json::write_json(&settings.out.join("selection.json"), &record)?;
    report::write_run(&settings.out)?;
    Ok(record)
}
