//! The page of a study.

use askama::Template;
use serde::Serialize;

use crate::{
    records::study::{MethodRecord, RANDOM, StudyRecord},
    report::page::{self, ECHARTS, SCRIPT, STYLE, Track, count, counted, difference, duration, score},
    stats::gain::{Summary, p_value},
};

/// See the template.
#[derive(Template)]
#[template(path = "study.html")]
pub(crate) struct Page<'a> {
    record: &'a StudyRecord,
    judge: String,
    metric: String,
    methods: usize,
    budgets: String,
    seeds: String,
    columns: Vec<Column>,
    /// What the plots show: the first test file, or the confirm fold.
    main: String,
    charts: Vec<String>,
    several: bool,
    /// Whether the table has a column of [`StudyRecord::pays_after`].
    pays: bool,
    tables: Vec<Table>,
    settings: String,
    data: String,
}

/// Rows that were scored on.
struct Column {
    name: String,
    rows: u64,
    panels: Vec<Panel>,
}

/// All methods of one budget on one line of numbers.
struct Panel {
    budget: String,
    rows: Vec<Interval>,
    random_at: Option<String>,
    ends: [String; 2],
}

struct Interval {
    method: String,
    family: &'static str,
    mean: String,
    /// Where the interval and the mean stand; none where every cell failed.
    marks: Option<[String; 2]>,
}

struct Table {
    name: String,
    rows: Vec<Row>,
}

struct Row {
    method: String,
    family: &'static str,
    rows: String,
    cells: Vec<Cell>,
    evaluations: String,
    seconds: [String; 3],
    pays_after: String,
    failed: Vec<String>,
}

#[derive(Default)]
struct Cell {
    mean: String,
    sd: String,
    interval: String,
    gain: String,
    p: String,
    better: &'static str,
}

impl<'a> Page<'a> {
    pub(crate) fn new(record: &'a StudyRecord) -> Self {
        // The test files come before the confirm fold, on which choices were made.
        let mut order: Vec<usize> = (1..record.columns.len()).collect();
        order.extend((!record.columns.is_empty()).then_some(0));
        let main = order.first().copied().unwrap_or(0);
        let name = |column: usize| match (column, record.columns[column].as_str()) {
            (0, "confirm") => "the confirm fold".to_owned(),
            (_, name) => name.to_owned(),
        };
        let metric = record.metric.replace('_', " ").replace("f1", "F1");
        let budgets: Vec<&str> = record.budgets.iter().map(String::as_str).collect();
        let names: Vec<&str> = unique(record.methods.iter().map(|method| method.method.as_str()));
        Self {
            judge: record.judge.clone(),
            main: record
                .columns
                .get(main)
                .map_or_else(String::new, |_| format!("{metric} on {}", name(main))),
            metric,
            methods: names.len(),
            budgets: counted(budgets.len() as u64, "budget", "budgets"),
            seeds: counted(record.seeds.len() as u64, "seed", "seeds"),
            columns: order
                .iter()
                .map(|&column| Column {
                    name: name(column),
                    rows: record.column_rows.get(column).copied().unwrap_or(0),
                    panels: budgets.iter().map(|budget| panel(record, budget, column)).collect(),
                })
                .collect(),
            charts: budgets.iter().map(|&budget| budget.to_owned()).collect(),
            several: budgets.len() > 1,
            pays: record.finetunes(),
            tables: budgets
                .iter()
                .map(|budget| Table {
                    name: (*budget).to_owned(),
                    rows: record
                        .at(budget)
                        .map(|method| Row::new(record, method, &order))
                        .collect(),
                })
                .collect(),
            settings: serde_json::to_string_pretty(&record.settings).unwrap_or_default(),
            data: page::embed(&PlotData::new(record, &names, main)),
            record,
        }
    }
}

fn panel(record: &StudyRecord, budget: &str, column: usize) -> Panel {
    let scored = || record.at(budget).filter_map(move |method| method.scores.get(column));
    let track = Track::around(scored().flat_map(|&Summary { low, high, mean, .. }| [low, high, mean]));
    let random = record.at(budget).find(|method| method.method == RANDOM);
    Panel {
        budget: format!("Budget {budget}"),
        rows: record
            .at(budget)
            .map(|method| {
                let summary = method.scores.get(column);
                Interval {
                    method: method.method.clone(),
                    family: method.family.name(),
                    mean: summary.map_or("failed".into(), |summary| score(summary.mean)),
                    marks: summary.map(|summary| [track.bar(summary.low, summary.high), track.mark(summary.mean)]),
                }
            })
            .collect(),
        random_at: random
            .and_then(|random| random.scores.get(column))
            .map(|random| track.mark(random.mean)),
        ends: track.ends(),
    }
}

impl Row {
    fn new(record: &StudyRecord, method: &MethodRecord, order: &[usize]) -> Self {
        let seconds = method.seconds;
        Self {
            method: method.method.clone(),
            family: method.family.name(),
            rows: count(method.rows.round() as u64),
            cells: order.iter().map(|&column| Cell::new(method, column)).collect(),
            evaluations: count(method.evaluations.round() as u64),
            seconds: [seconds.prepare, seconds.choose, seconds.judge].map(duration),
            pays_after: record
                .pays_after(method)
                .map_or_else(String::new, |n| counted(n, "fine-tune", "fine-tunes")),
            failed: method
                .failed
                .iter()
                .map(|failure| format!("with seed {}: {}", failure.seed, failure.reason))
                .collect(),
        }
    }
}

impl Cell {
    fn new(method: &MethodRecord, column: usize) -> Self {
        let Some(summary) = method.scores.get(column) else {
            return Self {
                mean: "failed".into(),
                ..Self::default()
            };
        };
        let cell = Self {
            mean: score(summary.mean),
            sd: score(summary.sd),
            interval: format!("{} to {}", score(summary.low), score(summary.high)),
            ..Self::default()
        };
        let Some(gain) = method.gains.get(column) else {
            return cell;
        };
        let p = gain.adjusted.or(gain.p);
        let sure = p.is_some_and(|p| p < 0.05);
        Self {
            gain: difference(gain.mean),
            p: p.map_or_else(String::new, p_value),
            better: match gain.mean {
                mean if sure && mean > 0.0 => "better",
                mean if sure && mean < 0.0 => "worse",
                _ => "alike",
            },
            ..cell
        }
    }
}

/// Each once, in the order in which they first come.
fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut once = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

/// What the page's script draws.
#[derive(Serialize)]
struct PlotData<'a> {
    budgets: &'a [String],
    costs: Vec<Cost<'a>>,
    lines: Vec<Line<'a>>,
}

/// The methods at a budget.
#[derive(Serialize)]
struct Cost<'a> {
    points: Vec<Point<'a>>,
}

#[derive(Serialize)]
struct Point<'a> {
    method: &'a str,
    family: &'static str,
    seconds: f64,
    score: f64,
}

/// A method over the budgets; none where it has no score.
#[derive(Serialize)]
struct Line<'a> {
    method: &'a str,
    family: &'static str,
    scores: Vec<Option<f64>>,
}

impl<'a> PlotData<'a> {
    fn new(record: &'a StudyRecord, names: &[&'a str], column: usize) -> Self {
        let mean = |method: &MethodRecord| method.scores.get(column).map(|summary| summary.mean);
        Self {
            budgets: &record.budgets,
            costs: record
                .budgets
                .iter()
                .map(|budget| Cost {
                    points: record
                        .at(budget)
                        .filter_map(|method| {
                            Some(Point {
                                method: &method.method,
                                family: method.family.name(),
                                seconds: method.seconds.prepare + method.seconds.choose,
                                score: mean(method)?,
                            })
                        })
                        .collect(),
                })
                .collect(),
            lines: names
                .iter()
                .filter_map(|&name| {
                    let of = |budget: &'a String| record.at(budget).find(|method| method.method == name);
                    let first = record.methods.iter().find(|method| method.method == name)?;
                    Some(Line {
                        method: name,
                        family: first.family.name(),
                        scores: record.budgets.iter().map(|budget| of(budget).and_then(mean)).collect(),
                    })
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        records::study::{CellRecord, Failure, Family, Seconds, VERSION},
        stats::gain::Gain,
    };

    /// Two methods, one of which failed with one of two seeds, beside both controls at two budgets; two cells are still to come.
    fn record() -> StudyRecord {
        let method = |budget: &str, name: &str, family, mean: f64, failed: Vec<Failure>| MethodRecord {
            budget: budget.into(),
            method: name.into(),
            family,
            rows: 50.0,
            scores: [0.0, 0.01]
                .map(|more| Summary {
                    mean: mean + more,
                    sd: 0.01,
                    low: mean - 0.01,
                    high: mean + 0.02,
                })
                .to_vec(),
            gains: if family == Family::Control {
                Vec::new()
            } else {
                let gain = Gain {
                    mean: mean - 0.5,
                    low: 0.0,
                    high: 0.1,
                    p: Some(0.0004),
                    adjusted: Some(0.0008),
                };
                vec![gain; 2]
            },
            evaluations: 1200.0,
            seconds: Seconds {
                prepare: 1.0,
                choose: 0.5 + mean,
                judge: 0.1,
            },
            failed,
        };
        let broken = vec![Failure {
            seed: 1,
            reason: "no <script> here".into(),
        }];
        let mut methods = Vec::new();
        for (budget, more) in [("5%", 0.0), ("10%", 0.02)] {
            methods.push(method(budget, "random", Family::Control, 0.5 + more, Vec::new()));
            methods.push(method(budget, "herding", Family::Baseline, 0.52 + more, Vec::new()));
            methods.push(method(budget, "dqn", Family::Agent, 0.57 + more, broken.clone()));
            methods.push(method(budget, "everything", Family::Control, 0.6, Vec::new()));
        }
        let cell = CellRecord {
            budget: "5%".into(),
            method: "dqn".into(),
            seed: 0,
            rows: 50,
            tokens: 600,
            draws: vec![vec![0.5, 0.6]],
            evaluations: 1200,
            seconds: Seconds::default(),
            portfolio: None,
            error: None,
        };
        StudyRecord {
            version: VERSION,
            tamis: "0.1.0".into(),
            metric: "macro_f1".into(),
            judge: "probe".into(),
            columns: vec!["confirm".into(), "test.jsonl".into()],
            column_rows: vec![100, 200],
            pool: 1000,
            read: None,
            budgets: vec!["5%".into(), "10%".into()],
            seeds: vec![0, 1],
            methods,
            // Three methods at two budgets and everything, with two seeds, are 14 cells.
            cells: vec![cell; 12],
            expected: 14,
            verdict: vec!["dqn beats <b>random</b> rows.".into()],
            threads: 1,
            core_seconds: 100.0,
            command: "tamis study --train 'a b.jsonl'".into(),
            settings: serde_json::json!({}),
        }
    }

    #[test]
    fn the_page_says_what_is_missing_what_failed_and_escapes_it() {
        let record = record();
        let html = Page::new(&record).render().expect("a page");
        for said in [
            "4 methods, 2 budgets, 2 seeds",
            "dqn beats &#60;b&#62;random&#60;/b&#62; rows.",
            "with seed 1: no &#60;script&#62; here",
            "p &#60; 0.001",
            "Scores on test.jsonl",
        ] {
            assert!(html.contains(said), "{said}");
        }
        assert_eq!(html.matches("</script>").count(), 3);
    }
}
