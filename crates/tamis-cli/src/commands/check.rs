//! `tamis check`: are the clusters any, does the cheap reward rank selections as the fine-tuned target does, and do the agents find what
//! is there?

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;
use tamis::{
    Monitor,
    commands::{
        self, CheckAgentRecord, CheckAgentSettings, CheckClustersRecord, CheckClustersSettings, CheckProxyRecord,
        CheckProxySettings, CheckedCluster, DetectableEffect,
    },
    records::selection::ReadRecord,
    search::Method,
};

use crate::{
    flags::{SelectArgs, set},
    messages::Messages,
    outcome::Outcome,
    threads::with_threads,
    values,
};

/// How many clusters are shown of the most and of the least coherent; all are in `check_clusters.json`.
const CLUSTERS_SHOWN: usize = 3;

#[derive(Debug, Subcommand)]
pub(crate) enum CheckCommand {
    /// Measure whether clusters hold rows that are alike, whether other seeds find them, and what they say about labels
    Clusters(Box<CheckClustersArgs>),
    /// Score selections of many kinds by rewards of low to high fidelity and by the fine-tuned model, and compare
    Proxy(Box<CheckProxyArgs>),
    /// Let every agent search for optima that are known, on small problems made from your own rows
    Agent(Box<CheckAgentArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct CheckClustersArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// How many rows to compute silhouettes on at most; time is quadratic in it
    #[arg(long, value_name = "ROWS", help_heading = "Check")]
    sample: Option<usize>,
    /// How many seeds to cluster with, 2 or more
    #[arg(long, value_name = "N", help_heading = "Check")]
    seeds: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckProxyArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// How many selections of each kind to draw
    #[arg(long, value_name = "N", help_heading = "Check")]
    selections: Option<usize>,
    /// How many test rows (without them, rows of the confirm fold) to evaluate the model on at most
    #[arg(long, value_name = "ROWS", help_heading = "Check")]
    target_rows: Option<usize>,
    /// How many other training seeds to fine-tune the model with on one random selection; with 0 no detectable effect is estimated
    #[arg(long, value_name = "N", help_heading = "Check")]
    repeats: Option<usize>,
    /// Leave out the rewards that fine-tune; the model itself is fine-tuned all the same
    #[arg(long, help_heading = "Check")]
    skip_finetunes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckAgentArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// The agents to check, with commas between them [default: all but auto and exhaustive]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = values::agents(), help_heading = "Check")]
    agents: Vec<Method>,
    /// How many problems to pose
    #[arg(long, value_name = "N", help_heading = "Check")]
    problems: Option<usize>,
    /// How many seeds for each agent and problem
    #[arg(long, value_name = "N", help_heading = "Check")]
    seeds: Option<usize>,
}

pub(crate) fn run(command: CheckCommand, messages: &Messages, monitor: &dyn Monitor) -> anyhow::Result<Outcome> {
    match command {
        CheckCommand::Clusters(args) => clusters(*args, messages, monitor),
        CheckCommand::Proxy(args) => proxy(*args, messages, monitor),
        CheckCommand::Agent(args) => agent(*args, messages, monitor),
    }
}

fn clusters(args: CheckClustersArgs, messages: &Messages, monitor: &dyn Monitor) -> anyhow::Result<Outcome> {
    with_threads(args.select.threads, || {
        let mut settings = CheckClustersSettings {
            select: args.select.into_settings_in("runs/check-clusters")?,
            ..CheckClustersSettings::default()
        };
        set(&mut settings.sample, args.sample);
        set(&mut settings.seeds, args.seeds);
        settings.select.command = messages.command("check clusters", &settings);
        let record = commands::check_clusters(&settings, monitor)?;
        let path = commands::check_clusters_path(&settings);
        let table = partition(&record, messages);
        outcome(&table, &record, &record.read, &path)
    })
}

fn proxy(args: CheckProxyArgs, messages: &Messages, monitor: &dyn Monitor) -> anyhow::Result<Outcome> {
    with_threads(args.select.threads, || {
        let mut settings = CheckProxySettings {
            select: args.select.into_settings_in("runs/check-proxy")?,
            finetune: !args.skip_finetunes,
            ..CheckProxySettings::default()
        };
        set(&mut settings.selections, args.selections);
        set(&mut settings.target_rows, args.target_rows);
        set(&mut settings.repeats, args.repeats);
        settings.select.command = messages.command("check proxy", &settings);
        let record = commands::check_proxy(&settings, monitor)?;
        let path = commands::check_proxy_path(&settings);
        outcome(&summary(&record, messages), &record, &record.read, &path)
    })
}

fn agent(args: CheckAgentArgs, messages: &Messages, monitor: &dyn Monitor) -> anyhow::Result<Outcome> {
    with_threads(args.select.threads, || {
        let mut settings = CheckAgentSettings {
            select: args
                .select
                .without_agent("agents")?
                .into_settings_in("runs/check-agent")?,
            ..CheckAgentSettings::default()
        };
        if !args.agents.is_empty() {
            settings.agents = args.agents;
        }
        set(&mut settings.problems, args.problems);
        set(&mut settings.seeds, args.seeds);
        settings.select.command = messages.command("check agent", &settings);
        let record = commands::check_agent(&settings, monitor)?;
        let path = commands::check_agent_path(&settings);
        let table = agents(&record, messages);
        outcome(&table, &record, &record.read, &path)
    })
}

/// What a check found, what it read, and where all of it is.
fn outcome(found: &str, record: &impl Serialize, read: &ReadRecord, path: &Path) -> anyhow::Result<Outcome> {
    Ok(Outcome {
        summary: format!("{found}\n\nRead: {read}\nWritten: {}", path.display()),
        record: serde_json::to_string(record)?,
        out: path.parent().unwrap_or(path).to_path_buf(),
        failure: None,
    })
}

/// The measures of every number of clusters, the clusters at both ends, then the verdict.
fn partition(record: &CheckClustersRecord, messages: &Messages) -> String {
    let mut text = format!(
        "\n{} rows, silhouettes on {} of them; the first number of clusters is the one in use\n\n  {:>8} {:>11} {:>16} {:>28} {:>6}\n",
        record.rows, record.sample, "clusters", "silhouette", "random clusters", "adjusted Rand index (range)", "cloud"
    );
    for count in &record.counts {
        let stability = format!(
            "{:.2} ({:.2} to {:.2})",
            count.stability, count.stability_least, count.stability_greatest
        );
        text += &format!(
            "  {:>8} {:>11.3} {:>16.3} {stability:>28} {:>6.2}\n",
            count.clusters, count.silhouette, count.silhouette_random, count.stability_cloud
        );
    }
    if let Some(labels) = &record.labels {
        text += &format!(
            "\n  labels: purity {:.2} (random clusters {:.2}), normalised mutual information {:.2} (random clusters {:.2})\n",
            labels.purity, labels.purity_random, labels.mutual_information, labels.mutual_information_random
        );
    }
    let mut ranked: Vec<(f64, usize)> = record
        .clusters
        .iter()
        .enumerate()
        .filter_map(|(i, cluster)| Some((cluster.silhouette?, i)))
        .collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let shown = CLUSTERS_SHOWN.min(ranked.len().div_ceil(2));
    let (least, most) = (
        &ranked[..shown],
        &ranked[ranked.len() - shown.min(ranked.len() - shown)..],
    );
    text += &format!(
        "\n  {:16} {:>8} {:>11} {:>7}   {}\n",
        "cluster", "rows", "silhouette", "purity", "words"
    );
    for (name, ranked) in [("least coherent", least), ("most coherent", most)] {
        for &(silhouette, i) in ranked {
            text += &line(name, silhouette, &record.clusters[i]);
        }
    }
    text + "\n" + &messages.text(&record.verdict)
}

fn line(name: &str, silhouette: f64, cluster: &CheckedCluster) -> String {
    let purity = cluster.purity.map_or("-".to_owned(), |purity| format!("{purity:.2}"));
    let words = cluster.words.join(" ");
    format!(
        "  {name:16} {:>8} {silhouette:>11.3} {purity:>7}   {words}\n",
        cluster.rows
    )
}

/// The table of the agents, then the verdict.
fn agents(record: &CheckAgentRecord, messages: &Messages) -> String {
    let selections = record.problems.iter().map(|problem| problem.selections);
    let (least, most) = (selections.clone().min().unwrap_or(0), selections.max().unwrap_or(0));
    let mut text = format!(
        "\n{} problems of {least} to {most} selections each, {} seeds; the optimum's {} by enumeration, agents with a fifth of its \
         evaluations\n\n  {:14} {:>24} {:>8} {:>12} {:>9} {:>24}\n",
        record.problems.len(),
        record.seeds,
        record.metric,
        "agent",
        "share of the gain (sd)",
        "worst",
        "over random",
        "reached",
        "evaluations to its best"
    );
    for agent in &record.agents {
        let gain = format!("{:.2}% ({:.2})", 100.0 * agent.gain, 100.0 * agent.gain_sd);
        let spent = format!("{:.0} ({:.0}% of all)", agent.evaluations, 100.0 * agent.of_enumeration);
        text += &format!(
            "  {:14} {gain:>24} {:>7.1}% {:>11.1}% {:>8.0}% {spent:>24}\n",
            agent.agent,
            100.0 * agent.worst,
            100.0 * agent.over_random,
            100.0 * agent.reached
        );
    }
    text + "\n" + &messages.text(&record.verdict)
}

/// The table of the rungs, what it takes to tell two selections apart, the verdict.
fn summary(record: &CheckProxyRecord, messages: &Messages) -> String {
    let mut text = format!(
        "\n{} selections of {} rows; the target's {} on {} rows that no reward is made from\n\n  {:34} {:22} {:>20} {:>8} {:>8} {:>10}\n",
        record.selections.len(),
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
    for reward in &record.rewards {
        let agreement = &reward.agreement;
        let interval = format!(
            "{:.2} ({:.2} to {:.2})",
            agreement.spearman.value, agreement.spearman.low, agreement.spearman.high
        );
        text += &format!(
            "  {:34} {:22} {interval:>20} {:>8.2} {:>8.3} {:>10.4}\n",
            reward.fidelity.to_string(),
            reward.metric.to_string(),
            agreement.kendall.value,
            agreement.regret.value,
            reward.seconds
        );
    }
    if let Some(telling) = &record.detectable_effect {
        text += &format!("\n{}\n", apart(telling));
    }
    text + "\n" + &messages.text(&record.verdict)
}

/// What it takes to tell two selections apart, in a line.
fn apart(telling: &DetectableEffect) -> String {
    let (gap, rows) = (telling.gap, telling.noise.rows);
    let needed = match (telling.seeds_on_these_rows, telling.seeds_and_rows) {
        (Some(seeds), _) => format!("{seeds} fine-tuning seeds each on these {rows} rows"),
        (None, Some((seeds, enough))) => {
            format!("{seeds} fine-tuning seeds each and {enough} rows (these {rows} are too few)")
        }
        (None, None) => "a gap: all of them score the same".to_owned(),
    };
    format!(
        "To tell apart two selections a median {gap:.4} apart takes {needed}, with 80% power at 5%; one seed each finds {:.4} \
         (sd over seeds {:.4}, over rows {:.4}).",
        telling.found, telling.noise.seed_sd, telling.noise.row_sd
    )
}
