//! `tamis check proxy`: does the cheap reward rank selections as the fine-tuned target does?

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tamis::run::{self, CheckProxyRecord, CheckProxySettings};

use crate::{
    args::{SelectArgs, set},
    output,
    progress::Progress,
    select::use_threads,
};

#[derive(Debug, Subcommand)]
pub(crate) enum CheckCommand {
    /// Score selections of many kinds by every rung of the ladder and by the fine-tuned target, and compare
    Proxy(Box<CheckProxyArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct CheckProxyArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// How many selections of each kind to draw [default: 4]
    #[arg(long, value_name = "N", help_heading = "Check")]
    states: Option<usize>,
    /// How many test rows (without them, rows of the confirm fold) to score the target on at most [default: 4000]
    #[arg(long, value_name = "ROWS", help_heading = "Check")]
    target_rows: Option<usize>,
    /// Leave out the rungs that fine-tune
    #[arg(long, help_heading = "Check")]
    cheap: bool,
}

pub(crate) fn run(command: CheckCommand, progress: &Progress) -> anyhow::Result<()> {
    let CheckCommand::Proxy(args) = command;
    use_threads(args.select.threads)?;
    let named = args.select.names_out();
    let mut settings = CheckProxySettings {
        select: args.select.into_settings()?,
        dear: !args.cheap,
        ..CheckProxySettings::default()
    };
    if !named {
        settings.select.out = PathBuf::from("runs/check");
    }
    set(&mut settings.states, args.states);
    set(&mut settings.target_rows, args.target_rows);
    let record = run::check_proxy(&settings, progress)?;
    let path = run::check_proxy_path(&settings);
    Ok(output::print(&format!(
        "{}\n\nWritten: {}",
        summary(&record),
        path.display()
    ))?)
}

/// The table of the rungs, best last line: the verdict.
fn summary(record: &CheckProxyRecord) -> String {
    let mut text = format!(
        "\n{} selections of {} rows; the target's {} on {} rows that no reward is made from\n\n  {:34} {:22} {:>20} {:>8} {:>8} {:>10}\n",
        record.states.len(),
        record.rows,
        record.metric,
        record.target_rows,
        "reward",
        "scored by",
        "Spearman (95%)",
        "Kendall",
        "regret",
        "s a score"
    );
    for rung in &record.rungs {
        let agreement = &rung.agreement;
        let interval = format!(
            "{:.2} ({:.2} to {:.2})",
            agreement.spearman.value, agreement.spearman.low, agreement.spearman.high
        );
        text += &format!(
            "  {:34} {:22} {interval:>20} {:>8.2} {:>8.3} {:>10.4}\n",
            rung.model, rung.metric, agreement.kendall.value, agreement.regret.value, rung.seconds
        );
    }
    text + "\n" + &record.verdict
}
