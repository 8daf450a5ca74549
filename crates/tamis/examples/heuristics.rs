//! What the rules without a score do on real rows: seconds of each, and the numbers that other programs are compared by.
//!
//! ```sh
//! cargo run --release --example heuristics -- train.jsonl validation.jsonl vectors.npy 5% folder [rule ...]
//! ```
//!
//! The array holds a vector for each row of train, then of validation; the whole validation file stands for the reward fold, and
//! all training rows are in the pool. Printed is a JSON line a rule, all of them if none is named. Into the folder go `importance.txt`, the log weight of
//! each row, and `facility-location.txt`, the numbers of the chosen rows from 0; both one a line.

use std::{fmt::Display, path::Path, time::Instant};

use tamis::{
    Result,
    baselines::{Baseline, View, frequency},
    budget::Budget,
    candidates::facility_location,
    data::{self, DataSettings, LeakPolicy, Split},
    embed::precomputed,
};
use tamis_nn::{Silent, seed::Seed};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [train, validation, vectors, budget, folder, rules @ ..] = arguments.as_slice() else {
        panic!("usage: heuristics <train> <validation> <vectors> <budget> <folder> [rule ...]");
    };
    let settings = DataSettings {
        train: vec![train.into()],
        validation: vec![validation.into()],
        leaks: LeakPolicy::Keep,
        ..DataSettings::default()
    };
    let dataset = data::read(&settings, &Silent)?;
    let embedded = precomputed::load(
        vectors.as_ref(),
        &[&dataset.train, &dataset.validation],
        &std::env::temp_dir(),
    )?;
    assert_eq!(
        embedded[0].vectors.count(),
        dataset.train.examples.len(),
        "rows of one vector each"
    );
    let all = |i: usize| {
        embedded[i]
            .vectors
            .gather(&(0..embedded[i].examples() as u32).collect::<Vec<u32>>())
    };
    let (vectors, fold_vectors) = (all(0)?, all(1)?);
    let words = |split: &Split| -> Vec<u32> {
        let texts = split.examples.iter().map(|example| example.input.texts());
        texts
            .map(|texts| texts.join(" ").split_whitespace().count() as u32)
            .collect()
    };
    let tokens = words(&dataset.train);
    let limit = budget
        .parse::<Budget>()?
        .resolve(tokens.len() as u64, tokens.iter().map(|&t| u64::from(t)).sum())?;
    let view = View {
        vectors: &vectors,
        texts: &|row| dataset.train.examples[row].input.texts(),
        tokens: &tokens,
        targets: &dataset.train.targets(),
        fold_vectors: &fold_vectors,
        fold_texts: &|row| dataset.validation.examples[row].input.texts(),
        doubted: &vec![false; tokens.len()],
        // The rules of loss sort by it; what a probe costs is not their matter.
        losses: &|| Ok(tokens.iter().map(|&t| t as f32).collect()),
        alignment: &|| Ok(tokens.iter().map(|&t| t as f32).collect()),
        alignment_in_subspace: &|| Ok(tokens.iter().map(|&t| t as f32).collect()),
        difficulty: &|| Ok(tokens.iter().map(|&t| t as f32).collect()),
    };
    for &(rule, name, _) in Baseline::NAMES {
        if !rules.is_empty() && !rules.iter().any(|named| named == name) {
            continue;
        }
        let began = Instant::now();
        let rows = rule.choose(&view, limit, Seed(0), &Silent)?;
        let seconds = began.elapsed().as_secs_f64();
        let all = facility_location::represented(tokens.len(), Seed(0));
        let objective = facility_location::objective(&vectors, &all, &rows);
        let line = serde_json::json!({"rule": name, "rows": rows.len(), "seconds": seconds, "objective": objective});
        println!("{line}");
        if rule == Baseline::FacilityLocation {
            write(folder, "facility-location.txt", &rows);
        }
    }
    write(folder, "importance.txt", &frequency::importance(&view));
    Ok(())
}

fn write(folder: &str, name: &str, values: &[impl Display]) {
    let lines: String = values.iter().map(|value| format!("{value}\n")).collect();
    std::fs::write(Path::new(folder).join(name), lines).expect("writes");
}
