//! `tamis study`: which method, which budget, and is it worth it?

use clap::Args;
use tamis::{
    Monitor, Result,
    budget::Budget,
    commands,
    records::study::StudyRecord,
    settings::{StudyMethod, StudySettings},
    stats::gain::p_value,
};

use crate::{
    flags::{SelectArgs, set},
    messages::Messages,
    outcome::Outcome,
    threads::with_threads,
    values::{Pair, by_name, methods, pair, parsed},
};

#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// The methods to compare, with commas between them [default: all that suit the rows, but exhaustive]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = methods(), help_heading = "Study")]
    methods: Vec<StudyMethod>,
    /// Several budgets, with commas between them, such as 1%,5%,20% [default: --budget]
    #[arg(long, value_name = "BUDGETS", value_delimiter = ',', value_parser = parsed::<Budget>, conflicts_with = "budget", help_heading = "Study")]
    budgets: Vec<Budget>,
    /// How many seeds, from --seed on
    #[arg(long, value_name = "N", help_heading = "Study")]
    seeds: Option<u64>,
    /// A selection made elsewhere, to be compared with the others: a name and a text file of line numbers, with {seed} and
    /// {budget} in its path where there is one for each (repeatable)
    #[arg(long, value_name = "NAME=FILE", value_parser = pair, help_heading = "Study")]
    selection: Vec<Pair>,
    /// How many rows of the confirm fold and of each test file a fine-tuned model is evaluated on at most
    #[arg(long, value_name = "ROWS", help_heading = "Study", hide_short_help = true)]
    eval_rows: Option<usize>,
}

pub(crate) fn run(args: StudyArgs, messages: &Messages, monitor: &dyn Monitor) -> anyhow::Result<Outcome> {
    with_threads(args.select.threads, || {
        let mut settings = into_settings(args)?;
        settings.select.command = messages.command("study", &settings);
        let record = commands::study(&settings, monitor)?;
        let failed = record.cells.iter().filter(|cell| cell.error.is_some()).count();
        let failure = format!(
            "{failed} of {} cells failed; the same command tries them again",
            record.expected
        );
        Ok(Outcome {
            summary: summary(&record, &settings, messages),
            record: serde_json::to_string(&record)?,
            out: settings.select.out,
            failure: (failed > 0).then_some(failure),
        })
    })
}

fn into_settings(args: StudyArgs) -> Result<StudySettings> {
    let mut settings = StudySettings {
        select: args.select.without_agent("methods")?.into_settings_in("runs/study")?,
        ..StudySettings::default()
    };
    settings.budgets = vec![settings.select.budget];
    if !args.budgets.is_empty() {
        settings.budgets = args.budgets;
    }
    if !args.methods.is_empty() {
        settings.methods = args.methods;
    }
    set(&mut settings.seeds, args.seeds);
    set(&mut settings.eval_rows, args.eval_rows);
    settings.selections.extend(by_name("selection", args.selection)?);
    Ok(settings)
}

/// The table, the verdict, and where things are.
fn summary(record: &StudyRecord, settings: &StudySettings, messages: &Messages) -> String {
    let mut text = String::from("\n");
    for budget in &record.budgets {
        text += &format!(
            "{budget} of {} rows, {} by the {}, {} seeds\n\n  {:18}",
            record.pool,
            record.metric,
            record.judged_by(),
            record.seeds.len(),
            "method"
        );
        for column in &record.columns {
            text += &format!(" {column:>17.17}");
        }
        text += &format!(" {:>26} {:>9} {:>9}\n", "above random (95%)", "p (Holm)", "seconds");
        let judged = record.main_column();
        for line in record.at(budget) {
            text += &format!("  {:18}", line.method);
            for column in 0..record.columns.len() {
                let shown = line
                    .scores
                    .get(column)
                    .map(|score| format!("{:.4} ± {:.4}", score.mean, score.sd));
                text += &format!(" {:>17}", shown.as_deref().unwrap_or("failed"));
            }
            let gain = line.gains.get(judged);
            let shown = gain.map(|gain| match gain.p {
                Some(_) => format!("{:+.4} ({:+.3} to {:+.3})", gain.mean, gain.low, gain.high),
                None => format!("{:+.4}", gain.mean),
            });
            let p = gain.and_then(|gain| gain.adjusted).map(p_value);
            text += &format!(
                " {:>26} {:>9} {:>9.1}\n",
                shown.unwrap_or_default(),
                p.unwrap_or_default(),
                line.seconds.prepare + line.seconds.choose
            );
        }
        for line in record.at(budget) {
            for failure in &line.failed {
                text += &format!(
                    "  failed: {} with seed {}: {}\n",
                    line.method, failure.seed, failure.reason
                );
            }
        }
        text += "\n";
    }
    for sentence in &record.verdict {
        text += &format!("{}\n", messages.text(sentence));
    }
    text += &format!("Time: {:.0} core-seconds\n", record.core_seconds);
    if let Some(read) = &record.read {
        text += &format!("Read: {read}\n");
    }
    let out = &settings.select.out;
    for (name, what) in [
        ("study.md", "the tables"),
        ("study.csv", "the same for programs"),
        ("study.json", "every cell"),
        ("report.html", "the same as a page, with plots"),
        ("selections", "the rows that each cell chose"),
    ] {
        let label = if name == "study.md" { "Written:" } else { "        " };
        text += &format!("{label} {} ({what})\n", out.join(name).display());
    }
    text.trim_end().to_owned()
}
