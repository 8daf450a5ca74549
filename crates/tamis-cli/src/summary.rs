//! What a person reads after a run, in ten seconds: what was chosen, its scores beside the controls, how the labels moved.

use std::{fmt::Write, path::Path};

use tamis::{
    data::TaskKind,
    records::{
        portfolio::PortfolioRecord,
        selection::{Scored, SelectionRecord},
    },
};

use crate::{messages::Messages, output};

/// How many labels are shown; the rest are in `selection.json`.
const LABELS_SHOWN: usize = 8;

/// The summary of a run whose files are in `out`.
pub(crate) fn of(record: &SelectionRecord, out: &Path, messages: &Messages) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, record, out, messages);
    text
}

fn write(text: &mut String, record: &SelectionRecord, out: &Path, messages: &Messages) -> std::fmt::Result {
    write_chosen(text, record)?;
    write_scores(text, record, messages)?;
    write_labels(text, record)?;
    write_candidates(text, record, messages)?;
    write_files(text, record, out, messages)
}

fn write_chosen(text: &mut String, record: &SelectionRecord) -> std::fmt::Result {
    let clusters = record.clusters.iter().filter(|cluster| cluster.chosen > 0).count();
    let share = 100.0 * record.budget.rows as f64 / record.data.read.pool.max(1) as f64;
    let nothing_beats_random = record
        .portfolio
        .as_ref()
        .is_some_and(PortfolioRecord::nothing_beats_random);
    writeln!(
        text,
        "\n{}: {} of {} rows ({share:.1}%, {} tokens), from {clusters} of {} clusters, by {} after {} evaluations",
        if nothing_beats_random {
            "Chosen at random, for nothing could be told from random rows"
        } else {
            "Chosen"
        },
        record.budget.rows,
        record.data.read.pool,
        record.budget.tokens,
        record.clusters.len(),
        record.agent,
        record.evaluations
    )?;
    if let Some(portfolio) = &record.portfolio {
        writeln!(
            text,
            "{} Validation rows are told from the pool with an AUC of {:.2}.",
            portfolio.decision(),
            record.data.domain_auc
        )?;
    }
    if record.failures > 0 {
        writeln!(
            text,
            "Failed: {} evaluations, each at two attempts; none of these states was chosen",
            record.failures
        )?;
    }
    Ok(())
}

/// The chosen rows' scores beside the controls, and what they mean.
fn write_scores(text: &mut String, record: &SelectionRecord, messages: &Messages) -> std::fmt::Result {
    writeln!(
        text,
        "\n  {:32} {:>8}   {:>17}   {:>10}   {:>15}   {:>8}",
        "the probe's scores", "chosen", "random rows", "everything", "validation rows", "both"
    )?;
    let score = |score: Option<f64>| score.map_or(String::new(), |score| format!("{score:.4}"));
    let mut line = |fold: &str, scored: &Scored| {
        writeln!(
            text,
            "  {:32} {:>8.4}   {:.4} (sd {:.4})   {:>10.4}   {:>15}   {:>8}",
            format!("{fold}, {}", scored.metric),
            scored.chosen,
            scored.random_mean,
            scored.random_sd,
            scored.everything,
            score(scored.validation),
            score(scored.with_validation)
        )
    };
    line("reward fold", &record.scores.reward)?;
    line("confirm fold", &record.scores.confirm)?;
    if let Some(test) = &record.scores.test {
        line("test", test)?;
    }
    writeln!(text, "  {}", record.verdict())?;
    for word in [record.caution(), record.validation_teaches_more()]
        .into_iter()
        .flatten()
    {
        writeln!(text, "  {}", messages.text(&word))?;
    }
    if let Some(finetuned) = &record.scores.finetuned {
        let random = finetuned.random.iter().sum::<f64>() / finetuned.random.len().max(1) as f64;
        writeln!(
            text,
            "  {}: {:.4}; {} random selections: {random:.4} on average.",
            finetuned.judge(str::to_owned),
            finetuned.finalists[finetuned.chosen],
            finetuned.random.len()
        )?;
    }
    Ok(())
}

/// How the labels moved.
fn write_labels(text: &mut String, record: &SelectionRecord) -> std::fmt::Result {
    if record.labels.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "\n  {:32} {:>8} {:>8} {:>12}",
        "label", "pool", "chosen", "validation"
    )?;
    for label in record.labels.iter().take(LABELS_SHOWN) {
        writeln!(
            text,
            "  {:32} {:>7.1}% {:>7.1}% {:>11.1}%",
            plain(&label.label),
            100.0 * label.pool,
            100.0 * label.chosen,
            100.0 * label.validation
        )?;
    }
    if record.labels.len() > LABELS_SHOWN {
        writeln!(text, "  and {} more", record.labels.len() - LABELS_SHOWN)?;
    }
    for word in [record.labels_unjudged(), record.labels_alike()].into_iter().flatten() {
        writeln!(text, "  {}", in_line(&word))?;
    }
    Ok(())
}

/// Which rows were not taken, or taken last, and why.
fn write_candidates(text: &mut String, record: &SelectionRecord, messages: &Messages) -> std::fmt::Result {
    let data = &record.data;
    if record.settings["row_order"] == "relevance" && !record.by_rule() {
        writeln!(
            text,
            "\nOf each cluster the rows most like validation rows were taken first (a classifier tells these from the pool with an AUC of {:.2})",
            data.domain_auc
        )?;
    }
    if let Some(kept) = data.read.prefiltered {
        writeln!(
            text,
            "\n{kept} of the pool's {} rows were read by the model: some at random, the others for their words; {}",
            data.read.pool,
            messages.text("`prefilter` says how many")
        )?;
    }
    let (reached, of) = match data.read.prefiltered {
        Some(kept) => (kept, "these"),
        None => (data.read.pool, "the pool's"),
    };
    if (1..reached).contains(&data.candidates) && !record.by_rule() {
        writeln!(
            text,
            "\nChosen among the {} of {of} {reached} rows that are most like validation rows; {}",
            data.candidates,
            messages.text("`candidates all` takes all of them")
        )?;
    }
    let of_responses = data.read.task == Some(TaskKind::Response);
    if data.label_errors > 0 && (of_responses || !record.by_rule()) {
        let suspicion = if of_responses {
            "their prompts make their responses hardly more likely, so they may belong to others"
        } else {
            "suspected label errors, by a probe that was not trained on them"
        };
        writeln!(
            text,
            "\n{} of {of} {reached} rows are used last: {suspicion}",
            data.label_errors
        )?;
    }
    match (data.truncated, data.read.task) {
        (0, _) => Ok(()),
        (rows, Some(TaskKind::Response)) => writeln!(
            text,
            "\n{rows} rows of all files are longer than the model reads: they lost the fronts of their prompts; {}",
            messages.text("`max_length` says how much is read")
        ),
        (texts, _) => writeln!(
            text,
            "\n{texts} texts are longer than the encoder reads: their vectors are of their beginnings; tokens are counted whole"
        ),
    }
}

fn write_files(text: &mut String, record: &SelectionRecord, out: &Path, messages: &Messages) -> std::fmt::Result {
    writeln!(text, "\nRead: {}", record.data.read)?;
    let selected = ["jsonl", "json", "csv", "tsv", "parquet", "arrow"]
        .map(|ending| format!("selected.{ending}"))
        .into_iter()
        .find(|name| out.join(name).exists());
    writeln!(text, "Written: {}", out.join(selected.unwrap_or_default()).display())?;
    writeln!(
        text,
        "         {} (the same as a page, with a map of the clusters)",
        out.join("report.html").display()
    )?;
    writeln!(
        text,
        "         {} (rows, scores, clusters, seconds)",
        out.join("selection.json").display()
    )?;
    writeln!(
        text,
        "         {} (learning curves; also in {} for TensorBoard)",
        out.join("metrics.jsonl").display(),
        out.join("tensorboard").display()
    )?;
    writeln!(
        text,
        "These are the scores of a cheap probe. What a fine-tuned model keeps of them has to be measured by fine-tuning it."
    )?;
    // Of responses the probe's own pick is often not the best (docs/results/responses.md).
    if record.data.read.task == Some(TaskKind::Response) && record.scores.finetuned.is_none() {
        writeln!(
            text,
            "{}",
            messages.text("`rerank finetune` lets fine-tunes choose among the best searches and rules.")
        )?;
    }
    Ok(())
}

/// A text from the data as it may stand in a line on a terminal: no control characters.
fn in_line(text: &str) -> String {
    output::plain(text).replace('\n', "\u{fffd}")
}

/// The same, at most 32 characters.
fn plain(text: &str) -> String {
    let mut shown: String = in_line(text).chars().take(32).collect();
    if text.chars().count() > 32 {
        shown.pop();
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_the_data_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
        assert_eq!(plain(&"x".repeat(40)).chars().count(), 32);
    }
}
