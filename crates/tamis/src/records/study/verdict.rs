//! What to make of a study, in plain sentences.
//!
//! Methods are picked by the confirm fold, and only then is their test score read: the best of twenty test scores is too good to
//! be true.

use crate::{
    records::study::record::{EVERYTHING, Family, MethodRecord, RANDOM, StudyRecord},
    stats::gain::p_value,
};

/// The column by which methods are picked.
const CONFIRM: usize = 0;

/// What is picked among.
const PICKED: [Family; 4] = [Family::Baseline, Family::Search, Family::Agent, Family::Given];

/// Sentences on each budget. The first test column is judged by; without one, the confirm fold.
pub fn verdict(record: &StudyRecord) -> Vec<String> {
    let mut sentences = Vec::new();
    if (record.cells.len() as u64) < record.expected {
        sentences.push(format!(
            "Unfinished: {} of {} cells are there, and methods may have different seeds. The same command goes on with it.",
            record.cells.len(),
            record.expected
        ));
    }
    sentences.extend(record.budgets.iter().filter_map(|budget| of_budget(record, budget)));
    sentences
}

fn of_budget(record: &StudyRecord, budget: &str) -> Option<String> {
    let column = record.main_column();
    let lines = record.at(budget).filter(|line| line.scores.len() > column).collect();
    let told = Told { lines, column };
    let rows = budget.chars().all(|c| c.is_ascii_digit());
    let at = format!("At {budget}{}", if rows { " rows" } else { "" });
    let failed: usize = record.at(budget).map(|line| line.failed.len()).sum();
    let failures = match failed {
        0 => String::new(),
        1 => " 1 cell failed.".into(),
        _ => format!(" {failed} cells failed."),
    };
    let Some(random) = told.named(RANDOM) else {
        return Some(format!(
            "{at} there are no scores of `{RANDOM}` to compare with: name it among the `methods`.{failures}"
        ));
    };
    let Some(chosen) = told.best(&PICKED) else {
        return (failed > 0).then(|| format!("{at} no method but the controls has scores.{failures}"));
    };
    let (gain, p) = gain_of(chosen, column);
    let ties = match told.as_good(chosen, &PICKED) {
        0 => String::new(),
        1 => " (another ties with it)".into(),
        others => format!(" ({others} others tie with it)"),
    };
    let ahead = chosen.scores[CONFIRM].mean > random.scores[CONFIRM].mean;
    let mut text = format!(
        "{at}, `{}` is the best method on the confirm fold{}{ties}; on {} it makes {:.4}, random rows {:.4}",
        chosen.method,
        if ahead { "" } else { ", but not above random rows" },
        if column == CONFIRM {
            "these rows"
        } else {
            &record.columns[column]
        },
        told.score(chosen),
        told.score(random)
    );
    let several = record.seeds.len() > 1;
    text += &gained(gain, p, several);
    text += &told.beside_everything(chosen, several);
    if several {
        text += &told.beside_simpler(chosen);
    }
    let sure = gain > 0.0 && p.is_none_or(|p| p < 0.05);
    let pays = record.pays_after(chosen).filter(|_| sure);
    if let Some(n) = pays {
        let s = if n == 1 { "" } else { "s" };
        text += &format!(
            " Choosing with `{}` pays for itself after {n} fine-tune{s}.",
            chosen.method
        );
    }
    Some(text + &decided(record, budget) + &failures)
}

/// What the portfolio chose, seed by seed.
fn decided(record: &StudyRecord, budget: &str) -> String {
    let cells = record.cells.iter().filter(|cell| cell.budget == budget);
    let names: Vec<&str> = cells
        .filter_map(|cell| Some(cell.portfolio.as_ref()?.chosen().name.as_str()))
        .collect();
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for name in &names {
        match counted.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => counted.push((name, 1)),
        }
    }
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if counted.is_empty() {
        return String::new();
    }
    let shown: Vec<String> = counted
        .iter()
        .map(|(name, count)| format!("{name} ({count} of {})", names.len()))
        .collect();
    format!(" `auto` chose: {}.", shown.join(", "))
}

/// What there is to tell of one budget: its lines, and the column that they are judged by.
struct Told<'a> {
    lines: Vec<&'a MethodRecord>,
    column: usize,
}

impl<'a> Told<'a> {
    fn named(&self, name: &str) -> Option<&'a MethodRecord> {
        self.lines.iter().copied().find(|line| line.method == name)
    }

    /// The lines of these families.
    fn among(&self, families: &[Family]) -> impl Iterator<Item = &'a MethodRecord> {
        let lines = self.lines.iter().copied();
        lines.filter(|line| families.contains(&line.family))
    }

    /// The best of these families on the confirm fold; of equals the first, since simple methods come first.
    fn best(&self, families: &[Family]) -> Option<&'a MethodRecord> {
        let better = |a: &MethodRecord, b: &MethodRecord| a.scores[CONFIRM].mean > b.scores[CONFIRM].mean;
        let among = self.among(families);
        among.reduce(|best, next| if better(next, best) { next } else { best })
    }

    /// How many others of these families score on the confirm fold what this one, of them too, does.
    fn as_good(&self, line: &MethodRecord, families: &[Family]) -> usize {
        let same = |other: &&MethodRecord| other.scores[CONFIRM].mean == line.scores[CONFIRM].mean;
        self.among(families).filter(same).count() - 1
    }

    fn score(&self, line: &MethodRecord) -> f64 {
        line.scores[self.column].mean
    }

    /// How far one line is ahead of another, and the larger spread of their seeds.
    fn ahead(&self, line: &MethodRecord, other: &MethodRecord) -> (f64, f64) {
        let sd = |line: &MethodRecord| line.scores[self.column].sd;
        (self.score(line) - self.score(other), sd(line).max(sd(other)))
    }

    /// What everything makes, where it was trained on, and, where there are several seeds, what that says.
    fn beside_everything(&self, chosen: &MethodRecord, several: bool) -> String {
        let Some(everything) = self.named(EVERYTHING) else {
            return String::new();
        };
        let (less, spread) = self.ahead(everything, chosen);
        let says = match several {
            false => "",
            true if less > spread => ", which is more",
            true if less < -spread => ", which is less",
            true => ", within the seeds' spread",
        };
        format!(" Training on everything makes {:.4}{says}.", self.score(everything))
    }

    /// Whether a rule would do, or a search that learns nothing, where there are agents to compare with.
    fn beside_simpler(&self, chosen: &MethodRecord) -> String {
        let (Some(simple), Some(learned)) = (self.best(&[Family::Baseline]), self.best(&[Family::Agent])) else {
            return String::new();
        };
        let took = learned.seconds.prepare + learned.seconds.choose;
        let (ahead, spread) = self.ahead(learned, simple);
        let agent = || {
            let score = self.score(learned);
            format!("the best agent, `{}`, makes {score:.4} in {took:.0} s", learned.method)
        };
        if chosen.method == simple.method {
            return format!(" It is a rule that looks at no score; {}.", agent());
        }
        if ahead <= spread {
            let score = self.score(simple);
            let does = if ahead < -spread { "better" } else { "as well" };
            return format!(
                " A rule that looks at no score does {does}: `{}` makes {score:.4}; {}.",
                simple.method,
                agent()
            );
        }
        let search = self.best(&[Family::Search]);
        let also = search.filter(|search| self.score(learned) - self.score(search) <= spread);
        let also = also.map_or(String::new(), |search| {
            format!(
                "; `{}`, which learns nothing, makes {:.4}",
                search.method,
                self.score(search)
            )
        });
        format!(
            " The best agent, `{}`, makes {:.4} in {took:.0} s and beats the best rule without scores, `{}` ({:.4}){also}.",
            learned.method,
            self.score(learned),
            simple.method,
            self.score(simple)
        )
    }
}

/// What a gain over random rows says.
fn gained(gain: f64, p: Option<f64>, several: bool) -> String {
    match p {
        None if several => format!(": {gain:+.4} with every seed, which does not tell how far chance would move it."),
        None => "; one seed tells nothing of chance.".to_owned(),
        Some(p) if p >= 0.05 => format!(": no difference that chance would not explain ({}).", tested(p)),
        Some(p) if gain > 0.0 => format!(": a gain of {gain:.4} that chance does not explain ({}).", tested(p)),
        Some(p) => format!(": it LOSES {:.4} ({}); take random rows.", -gain, tested(p)),
    }
}

/// The gain over random rows and its p-value, adjusted for all methods as in the table.
fn gain_of(line: &MethodRecord, column: usize) -> (f64, Option<f64>) {
    let gain = line.gains.get(column);
    (gain.map_or(0.0, |gain| gain.mean), gain.and_then(|gain| gain.adjusted))
}

fn tested(p: f64) -> String {
    format!("paired {}, adjusted for all methods", p_value(p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::study::{
        record::{CellRecord, Failure, Seconds, VERSION},
        table::{table, tests::cell},
    };

    /// A record with these cells at one budget, and a test column as good as the confirm fold.
    fn record(cells: Vec<CellRecord>, names: &[(&str, Family)]) -> StudyRecord {
        let names: Vec<(String, Family)> = names.iter().map(|&(name, family)| (name.to_owned(), family)).collect();
        StudyRecord {
            version: VERSION,
            tamis: String::new(),
            metric: "accuracy".into(),
            judge: "finetune".into(),
            columns: vec!["confirm".into(), "test".into()],
            column_rows: vec![10, 10],
            pool: 100,
            read: None,
            budgets: vec!["5%".into()],
            seeds: vec![0],
            methods: table(&cells, &["5%".into()], &names),
            expected: cells.len() as u64,
            cells,
            verdict: Vec::new(),
            threads: 2,
            core_seconds: 0.0,
            command: String::new(),
            settings: serde_json::Value::Null,
        }
    }

    const NAMES: [(&str, Family); 4] = [
        (RANDOM, Family::Control),
        (EVERYTHING, Family::Control),
        ("similarity", Family::Baseline),
        ("dqn", Family::Agent),
    ];

    fn of(scores: [&[f64]; 4]) -> StudyRecord {
        let both = |method, seed, score: f64| CellRecord {
            draws: vec![vec![score, score]],
            ..cell(method, seed, &[])
        };
        let cells = NAMES.iter().zip(scores);
        let cells =
            cells.flat_map(|((name, _), scores)| (0..).zip(scores).map(|(seed, &score)| both(name, seed, score)));
        let mut record = record(cells.collect(), &NAMES);
        record.seeds = (0..scores[0].len() as u64).collect();
        record
    }

    fn told(scores: [&[f64]; 4]) -> String {
        verdict(&of(scores)).concat()
    }

    #[test]
    fn a_verdict_says_what_was_found() {
        let better = told([
            &[0.5, 0.52, 0.51],
            &[0.7, 0.7, 0.7],
            &[0.55, 0.56, 0.55],
            &[0.6, 0.61, 0.62],
        ]);
        assert!(
            better.starts_with("At 5%, `dqn` is the best method on the confirm fold; on test it makes 0.6100"),
            "{better}"
        );
        assert!(
            better.contains("a gain of 0.1000") && better.contains("which is more"),
            "{better}"
        );
        assert!(
            better
                .contains("`dqn`, makes 0.6100 in 0 s and beats the best rule without scores, `similarity` (0.5533)."),
            "{better}"
        );
        let ties = told([&[0.5, 0.52, 0.51], &[0.7], &[0.6, 0.61, 0.62], &[0.6, 0.61, 0.62]]);
        assert!(
            ties.starts_with(
                "At 5%, `similarity` is the best method on the confirm fold (another ties with it); on test"
            ),
            "{ties}"
        );
        let nothing = told([&[0.5, 0.6, 0.4], &[0.5, 0.6, 0.4], &[0.6, 0.5, 0.4], &[0.4, 0.4, 0.4]]);
        assert!(
            nothing.contains("no difference that chance")
                && nothing.contains("It is a rule that looks at no score; the best agent, `dqn`, makes 0.4000"),
            "{nothing}"
        );
        let worse = told([&[0.6, 0.61, 0.6], &[0.7], &[0.5, 0.5, 0.5], &[0.4, 0.4, 0.4]]);
        assert!(
            worse.contains("it LOSES 0.1033") && worse.contains("confirm fold, but not above random rows;"),
            "{worse}"
        );
        let level = told([&[0.5, 0.52, 0.51], &[0.7], &[0.6, 0.62, 0.6], &[0.6, 0.62, 0.62]]);
        assert!(
            level.contains(
                "A rule that looks at no score does as well: `similarity` makes 0.6067; the best agent, `dqn`, makes 0.6133"
            ),
            "{level}"
        );
        let still = told([&[0.5, 0.52, 0.51], &[0.7], &[0.5, 0.5, 0.5], &[0.6, 0.62, 0.61]]);
        assert!(still.contains(": +0.1000 with every seed"), "{still}");
        let one = told([&[0.6], &[0.7], &[0.5], &[0.4]]);
        assert!(
            one.contains("one seed tells nothing") && one.ends_with("Training on everything makes 0.7000."),
            "{one}"
        );
    }

    #[test]
    fn rows_that_picked_a_method_test_it_with_an_adjusted_p() {
        let scores: [&[f64]; 4] = [&[0.5, 0.52, 0.51], &[0.7], &[0.55, 0.56, 0.55], &[0.6, 0.61, 0.62]];
        let mut study = of(scores);
        study.columns.truncate(1);
        let said = verdict(&study).concat();
        assert!(
            said.contains("on these rows it makes 0.6100") && said.contains("adjusted for all methods"),
            "{said}"
        );
    }

    #[test]
    fn what_is_missing_is_told() {
        let scores: [&[f64]; 4] = [&[0.5, 0.52], &[0.7, 0.7], &[0.55, 0.56], &[0.6, 0.61]];
        let mut study = of(scores);
        study.expected += 3;
        study.methods[2].scores.clear();
        study.methods[2].failed = vec![Failure {
            seed: 0,
            reason: "no memory".into(),
        }];
        let said = verdict(&study);
        assert!(
            said[0].starts_with("Unfinished: 8 of 11 cells") && said[1].ends_with("1 cell failed."),
            "{said:?}"
        );
        study.methods.retain(|line| line.method != RANDOM);
        assert!(verdict(&study)[1].contains("no scores of `random`"));
    }

    #[test]
    fn choosing_pays_once_it_has_saved_what_it_took() {
        let took = |method: &str, [prepare, choose, judge]: [f64; 3]| CellRecord {
            seconds: Seconds { prepare, choose, judge },
            ..cell(method, 0, &[0.5])
        };
        let mut cells = vec![
            took(EVERYTHING, [0.0, 0.0, 100.0]),
            took(RANDOM, [0.0, 0.0, 10.0]),
            took("dqn", [20.0, 141.0, 10.0]),
        ];
        cells[2].draws = vec![vec![0.6]];
        let mut record = record(cells, &[NAMES[1], NAMES[0], NAMES[3]]);
        record.columns.truncate(1);
        // 2 threads of 20 s and 141 s on one are 181 s; 90 s are saved each time.
        assert_eq!(
            record
                .methods
                .iter()
                .map(|line| record.pays_after(line))
                .collect::<Vec<_>>(),
            [None, Some(1), Some(3)]
        );
        assert!(verdict(&record)[0].ends_with("Choosing with `dqn` pays for itself after 3 fine-tunes."));
        record.judge = "probe".into();
        assert_eq!(
            record.pays_after(&record.methods[2]),
            None,
            "a probe's seconds are no fine-tune's"
        );
    }
}
