//! The table of a study as CSV and as Markdown.

use std::{io::Write, path::Path};

use tamis_nn::atomic_write::write_whole;

use crate::{
    Error, Result,
    records::study::{MethodRecord, StudyRecord},
    stats::gain::{Gain, p_number},
};

/// Writes study.csv and study.md.
pub(crate) fn write_tables(record: &StudyRecord, out: &Path) -> Result<()> {
    for (name, text) in [("study.csv", csv(record)?), ("study.md", markdown(record))] {
        let path = out.join(name);
        write_whole(&path, &mut |out| {
            out.write_all(text.as_bytes()).map_err(Error::io(&path, "write"))
        })?;
    }
    Ok(())
}

/// A name of the user's, without control characters.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// The same for a cell of a spreadsheet, which takes what begins so for a formula.
fn csv_name(name: &str) -> String {
    let name = plain(name);
    if name.starts_with(['=', '+', '-', '@']) {
        format!("'{name}")
    } else {
        name
    }
}

/// The same for a cell of a table in Markdown.
fn markdown_name(name: &str) -> String {
    plain(name)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('|', "\\|")
}

/// One line a method and budget, the method first.
fn csv(record: &StudyRecord) -> Result<String> {
    let broken = |error: &dyn std::fmt::Display| Error::setting("study.csv", "a table", error.to_string());
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut head: Vec<String> = ["method", "budget", "family", "rows", "seeds_failed"]
        .map(str::to_owned)
        .to_vec();
    for column in &record.columns {
        let of = [
            "mean",
            "sd",
            "low",
            "high",
            "gain",
            "gain_low",
            "gain_high",
            "p",
            "p_holm",
        ];
        head.extend(of.map(|what| csv_name(&format!("{column}_{what}"))));
    }
    head.extend(
        [
            "evaluations",
            "prepare_seconds",
            "choose_seconds",
            "judge_seconds",
            "pays_after",
        ]
        .map(str::to_owned),
    );
    table.write_record(&head).map_err(|error| broken(&error))?;
    for line in &record.methods {
        let mut cells = vec![
            csv_name(&line.method),
            line.budget.clone(),
            line.family.name().to_owned(),
            line.rows.to_string(),
            line.failed.len().to_string(),
        ];
        for column in 0..record.columns.len() {
            let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
            let (score, gain) = (line.scores.get(column), line.gains.get(column));
            cells.extend(
                [
                    score.map(|s| s.mean),
                    score.map(|s| s.sd),
                    score.map(|s| s.low),
                    score.map(|s| s.high),
                ]
                .map(number),
            );
            cells.extend([gain.map(|g| g.mean), gain.map(|g| g.low), gain.map(|g| g.high)].map(number));
            cells.extend([gain.and_then(|g| g.p), gain.and_then(|g| g.adjusted)].map(number));
        }
        let seconds = &line.seconds;
        cells.extend([line.evaluations, seconds.prepare, seconds.choose, seconds.judge].map(|value| value.to_string()));
        cells.push(record.pays_after(line).map_or(String::new(), |n| n.to_string()));
        table.write_record(&cells).map_err(|error| broken(&error))?;
    }
    let bytes = table.into_inner().map_err(|error| broken(&error))?;
    String::from_utf8(bytes).map_err(|error| broken(&error))
}

/// The tables for people, one a budget, with the verdict below.
pub(crate) fn markdown(record: &StudyRecord) -> String {
    let mut text = String::new();
    for budget in &record.budgets {
        text += &format!(
            "### {budget} of {} rows: {} by the {}, {} seeds\n\n| method |",
            record.pool,
            record.metric,
            record.judged_by(),
            record.seeds.len()
        );
        for column in &record.columns {
            text += &format!(" {} (95%) |", markdown_name(column));
        }
        let main = record.main_column();
        let judged = markdown_name(&record.columns[main]);
        text += &format!(" above random on {judged} | p (Holm) | evaluations | prepare, s | choose, s | judge, s |");
        let pays = record.finetunes();
        if pays {
            text += " pays after |";
        }
        text += "\n|---|";
        text += &"---|".repeat(record.columns.len() + 6 + usize::from(pays));
        text += "\n";
        for line in record.at(budget) {
            text += &row(line, record.columns.len(), main);
            if pays {
                text += &record.pays_after(line).map_or(" |".to_owned(), |n| format!(" {n} |"));
            }
            text += "\n";
        }
        text += "\n";
        let failed = record.at(budget);
        for (line, failure) in failed.flat_map(|line| line.failed.iter().map(move |failure| (line, failure))) {
            text += &format!(
                "- failed: {} with seed {}: {}\n",
                markdown_name(&line.method),
                failure.seed,
                markdown_name(&failure.reason)
            );
        }
    }
    for sentence in &record.verdict {
        text += &format!("{}\n", plain(sentence));
    }
    text
}

fn row(line: &MethodRecord, columns: usize, judged: usize) -> String {
    let mut text = format!("| {} |", markdown_name(&line.method));
    for column in 0..columns {
        text += &line.scores.get(column).map_or(" failed |".to_owned(), |score| {
            let interval = interval(score.low, score.high, |value| format!("{value:.4}"));
            format!(" {:.4} ± {:.4}{interval} |", score.mean, score.sd)
        });
    }
    let gain = line.gains.get(judged);
    text += &gain.map_or(" | |".to_owned(), |gain| {
        let Gain {
            mean,
            low,
            high,
            p,
            adjusted,
        } = gain;
        let p = match (p, adjusted) {
            (Some(p), Some(adjusted)) => format!("{} ({})", p_number(*p), p_number(*adjusted)),
            _ => String::new(),
        };
        let interval = interval(*low, *high, |value| format!("{value:+.4}"));
        format!(" {mean:+.4}{interval} | {p} |")
    });
    let seconds = &line.seconds;
    text + &format!(
        " {:.0} | {:.1} | {:.1} | {:.1} |",
        line.evaluations, seconds.prepare, seconds.choose, seconds.judge
    )
}

/// In brackets, where there is more than one value behind it.
fn interval(low: f64, high: f64, shown: impl Fn(f64) -> String) -> String {
    if low < high {
        format!(" ({} to {})", shown(low), shown(high))
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_users_stay_names_in_every_table() {
        assert_eq!(csv_name("=1+1\u{1b}"), "'=1+1\u{fffd}");
        assert_eq!(csv_name("test"), "test");
        assert_eq!(markdown_name("a|<b>\n&"), "a\\|&lt;b>\u{fffd}&amp;");
    }
}
