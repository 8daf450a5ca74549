//! `tamis demo`: a synthetic data set, and the main job on it.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

use clap::Args;
use serde_json::Value;
use tamis::{
    Seed,
    budget::Budget,
    commands,
    data::{DataSettings, demo},
    metrics::MetricKind,
    settings::SelectSettings,
};

use crate::{messages::Messages, output, progress::Progress, summary, threads::with_threads};

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where the data and the run are kept
    #[arg(long, default_value = "runs/demo", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The source of all randomness
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// How many threads to use [default: RAYON_NUM_THREADS, or all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

pub(crate) fn run(args: &DemoArgs, messages: &Messages, progress: &Progress) -> anyhow::Result<()> {
    let data = args.out.join("data");
    let files = demo::write(&data, Seed(args.seed))?;
    output::print(&format!(
        "Synthetic support tickets are in {}: a part of them mislabelled, repeated or off topic.",
        data.display()
    ))?;
    let mut settings = SelectSettings {
        budget: Budget::Percent(5.0),
        metric: MetricKind::MacroF1,
        seed: Seed(args.seed),
        out: args.out.join("run"),
        data: DataSettings {
            train: vec![files.train],
            validation: vec![files.validation],
            test: vec![files.test],
            ..DataSettings::default()
        },
        ..SelectSettings::default()
    };
    settings.command = messages.command("select", &settings);
    let train = settings.data.train[0].clone();
    let record = with_threads(args.threads, || Ok(commands::select(&settings, progress)?))?;
    output::print(summary::of(&record, &settings.out, messages).trim_end())?;
    let chosen: HashSet<usize> = record.rows.iter().map(|row| row.row as usize).collect();
    let ills = ills(&std::fs::read_to_string(train)?, &chosen)?;
    output::print(&format!(
        "{ills}\n\nOn your own files:\n  tamis select --train train.jsonl --validation validation.jsonl --budget 5% --out runs/first"
    ))?;
    Ok(())
}

/// What is wrong with the rows, in all of them and in those chosen; `chosen` holds line numbers from 1.
fn ills(train: &str, chosen: &HashSet<usize>) -> anyhow::Result<String> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut all = 0;
    for (i, line) in train.lines().enumerate() {
        let row: Value = serde_json::from_str(line)?;
        let ill = row["ill"].as_str().unwrap_or("sound").replace('_', " ");
        let count = counts.entry(ill).or_default();
        count.0 += 1;
        count.1 += usize::from(chosen.contains(&(i + 1)));
        all += 1;
    }
    let share = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
    let parts: Vec<String> = counts
        .iter()
        .map(|(ill, &(before, after))| {
            format!("{ill} {:.0}% -> {:.0}%", share(before, all), share(after, chosen.len()))
        })
        .collect();
    Ok(format!(
        "What the generator knows, all rows -> chosen rows: {}",
        parts.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ills_are_counted_before_and_after() {
        let train = "{\"ill\": null}\n{\"ill\": \"off_topic\"}\n{\"ill\": null}\n{\"ill\": null}\n";
        let text = ills(train, &HashSet::from([1, 3])).expect("JSON");
        assert!(text.ends_with("off topic 25% -> 0%, sound 75% -> 100%"), "{text}");
    }
}
