//! `select`, from the user's files to the chosen rows.

use std::collections::HashMap;

use tamis_nn::Monitor;

use crate::{
    Result,
    budget::tokens_of,
    data::{self, RowId},
    pipeline::{
        curves, describe,
        map::map,
        session::{Chosen, Outside, Prepared, Session},
    },
    records::selection::{BudgetRecord, ChosenRow, DataRecord, ReadRecord, Scores, SelectionRecord, VERSION},
    report,
    settings::select::SelectSettings,
    workspace::json,
};

/// Reads, embeds, clusters, lets the agent choose, confirms, scores and writes.
///
/// Everything that was paid for is in `settings.out`; the same call goes on after a kill and ends with the same selection.
///
/// # Errors
///
/// If the data, the settings or the folder are not as they must be, a file cannot be written, or the user stopped the run.
pub fn select(settings: &SelectSettings, monitor: &dyn Monitor) -> Result<SelectionRecord> {
    select_with(settings, &Outside::default(), monitor)
}

/// The same with parts that the program does itself.
///
/// # Errors
///
/// As those of [`select`], and if the trainer gives no score for a selection that is to be compared.
pub fn select_with(settings: &SelectSettings, outside: &Outside<'_>, monitor: &dyn Monitor) -> Result<SelectionRecord> {
    let mut session = Session::open(settings, outside, monitor)?;
    let vectors = session.embed()?;
    let candidates = session.candidates(vectors)?;
    let prepared = session.prepare(&candidates)?;
    let found = session.search(&prepared)?;
    let chosen = session.rerank(found, &prepared)?;
    let evidence = session.evidence(&chosen, &prepared)?;
    write(settings, &session, &prepared, &chosen, evidence)
}

/// Writes the chosen rows, the curves, the map, the record and the report.
fn write(
    given: &SelectSettings,
    session: &Session<'_>,
    prepared: &Prepared<'_>,
    chosen: &Chosen,
    scores: Scores,
) -> Result<SelectionRecord> {
    let (dataset, stages, out) = (&session.dataset, &session.stages, &given.out);
    let (candidates, pool) = (prepared.candidates, &prepared.modes[chosen.found.mode].chunks.pool);
    let clustered = &candidates.clustered;
    let statistics = stages.run("describe", None, || {
        describe::statistics(dataset, &clustered.clusters, &*clustered.pool)
    })?;
    stages.run("curves", None, || {
        curves::write(&chosen.found.curve, pool, &prepared.judge(Some(chosen.found.mode)), out)
    })?;
    stages.run("export", None, || data::export(&dataset.train, &chosen.rows, out))?;
    stages.run("map", None, || {
        let (vectors, seed) = (&candidates.vectors.splits.train, given.seed.derive("map"));
        let picture = map(dataset, vectors, &clustered.clusters, &statistics, &chosen.rows, seed)?;
        json::write_compact(&out.join("map.json"), &picture)
    })?;
    let place = places(chosen, prepared, &dataset.pool);
    let record = SelectionRecord {
        version: VERSION,
        tamis: env!("CARGO_PKG_VERSION").to_owned(),
        agent: prepared.settings(chosen.mode()).agent.to_string(),
        seed: given.seed.0,
        evaluations: chosen.found.evaluations,
        failures: chosen.found.failures,
        budget: BudgetRecord {
            rows: chosen.rows.len() as u64,
            tokens: tokens_of(&chosen.rows, &dataset.pool, &candidates.vectors.tokens),
        },
        rows: chosen_rows(session, chosen, &place),
        portfolio: chosen.found.portfolio.as_ref().map(|decided| decided.record.clone()),
        scores,
        labels: describe::label_records(dataset, &chosen.rows),
        clusters: describe::cluster_records(dataset, statistics, &chosen.rows, &place),
        data: data_record(session, prepared, chosen),
        stages: stages.records(),
        command: given.command.clone().unwrap_or_default(),
        settings: serde_json::to_value(prepared.settings(chosen.mode())).unwrap_or_default(),
    };
    json::write_json(&out.join("selection.json"), &record)?;
    report::write_run(out)?;
    Ok(record)
}

/// Of each chosen row its cluster, and the step at which it was taken, from 1; a rule takes all rows in one step.
fn places(chosen: &Chosen, prepared: &Prepared<'_>, pool: &[RowId]) -> HashMap<RowId, (u32, u32)> {
    let Some((mode, path)) = &chosen.path else {
        let clusters = &prepared.candidates.clustered.clusters.assignment;
        let of_chosen = pool
            .iter()
            .zip(clusters)
            .filter(|(row, _)| chosen.rows.binary_search(row).is_ok());
        return of_chosen.map(|(&row, &cluster)| (row, (cluster, 1))).collect();
    };
    let steps = path.iter().zip(1..);
    steps
        .flat_map(|((cluster, range), step)| {
            let rows = prepared.modes[*mode].chunks.pool.rows(*cluster, range);
            rows.iter().map(move |&row| (row, (*cluster as u32, step)))
        })
        .collect()
}

fn chosen_rows(session: &Session<'_>, chosen: &Chosen, place: &HashMap<RowId, (u32, u32)>) -> Vec<ChosenRow> {
    let row = |row: &RowId| {
        let (file, line) = describe::origin(&session.dataset.train, *row);
        ChosenRow {
            file,
            row: line,
            index: session.dataset.train.record_number(*row),
            cluster: place[row].0,
            step: place[row].1,
        }
    };
    chosen.rows.iter().map(row).collect()
}

fn data_record(session: &Session<'_>, prepared: &Prepared<'_>, chosen: &Chosen) -> DataRecord {
    let (dataset, folds) = (&session.dataset, &session.folds);
    let files = dataset.train.files.iter();
    let label_errors = &prepared.candidates.label_errors;
    DataRecord {
        read: ReadRecord::of(dataset),
        files: files.map(|file| (file.path.clone(), file.hash.clone())).collect(),
        reward_fold: folds.reward.len() as u64,
        confirm_fold: folds.confirm.len() as u64,
        test: dataset.test.as_ref().map_or(0, |test| test.examples.len() as u64),
        domain_auc: prepared.candidates.domain_auc,
        candidates: match (&chosen.path, &chosen.found.portfolio) {
            (None, Some(_)) => dataset.pool.len() as u64,
            _ => prepared.modes[chosen.mode().unwrap_or(0)].chunks.pool.rows_in_all() as u64,
        },
        label_errors: label_errors.iter().filter(|&&suspected| suspected).count() as u64,
        truncated: prepared.candidates.vectors.truncated,
    }
}
