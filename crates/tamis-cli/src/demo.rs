//! `tamis demo`: a synthetic data set, and the main job on it.

use tamis::{budget::Budget, data::DataSettings, demo, metric::MetricKind, run::SelectSettings, seed::Seed};

use crate::{args::DemoArgs, progress::Progress, select};

pub(crate) fn run(args: &DemoArgs, progress: &Progress) -> anyhow::Result<()> {
    select::use_threads(args.threads)?;
    let data = args.out.join("data");
    let files = demo::write(&data, Seed(args.seed))?;
    println!(
        "Synthetic support tickets are in {}: a part of them mislabelled, repeated or off topic.",
        data.display()
    );
    let settings = SelectSettings {
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
    select::select(&settings, progress)?;
    println!(
        "On your own files:\n  tamis select --train train.jsonl --validation validation.jsonl --budget 5% --out runs/first"
    );
    Ok(())
}
