//! What to make of a study, in plain sentences.
//!
//! Methods are picked by the confirm fold, and only then is their test score read: the best of twenty test scores is too good to
//! be true.

use super::{
    record::{Family, MethodRecord, StudyRecord},
    statistics::Gain,
    table::{EVERYTHING, RANDOM},
};

/// The column by which methods are picked.
const CONFIRM: usize = 0;

/// Sentences on each budget. The first test column is judged by; without one, the confirm fold.
pub fn verdict(record: &StudyRecord) -> Vec<String> {
    let column = record.main_column();
    let budgets = record.budgets.iter();
    budgets
        .filter_map(|budget| {
            let lines: Vec<&MethodRecord> = record.at(budget).filter(|line| line.scores.len() > column).collect();
            let mut text = of_budget(budget, &lines, (&record.columns[column], column))?;
            let chosen = best(&lines, &PICKED)?;
            if let Some(n) = record.pays_after(chosen) {
                let often = if n == 1 {
                    "1 fine-tune".to_owned()
                } else {
                    format!("{n} fine-tunes")
                };
                text += &format!(" Choosing with `{}` pays for itself after {often}.", chosen.method);
            }
            Some(text)
        })
        .collect()
}

/// What the confirm fold picks among.
const PICKED: [Family; 4] = [Family::Heuristic, Family::Search, Family::Agent, Family::Given];

/// The line of these families that is best on the confirm fold.
fn best<'a>(lines: &[&'a MethodRecord], families: &[Family]) -> Option<&'a MethodRecord> {
    let among = lines.iter().copied().filter(|line| families.contains(&line.family));
    among.max_by(|a, b| a.scores[CONFIRM].mean.total_cmp(&b.scores[CONFIRM].mean))
}

fn of_budget(budget: &str, lines: &[&MethodRecord], (name, column): (&str, usize)) -> Option<String> {
    let named = |name: &str| lines.iter().copied().find(|line| line.method == name);
    let random = named(RANDOM)?;
    let chosen = best(lines, &PICKED)?;
    let score = |line: &MethodRecord| line.scores[column].mean;
    let mut text = format!(
        "At {budget}, `{}` is best on the confirm fold; on {name} it makes {:.4}, random rows {:.4}",
        chosen.method,
        score(chosen),
        score(random)
    );
    let gain = chosen.gains.get(column);
    text += &match gain {
        Some(Gain { mean, p: Some(p), .. }) if *mean > 0.0 && *p < 0.05 => {
            format!(
                ": a gain of {mean:.4} that chance does not explain (paired p = {}).",
                shown(*p)
            )
        }
        Some(Gain { mean, p: Some(p), .. }) if *mean < 0.0 && *p < 0.05 => {
            format!(": it LOSES {:.4} (paired p = {}); take random rows.", -mean, shown(*p))
        }
        Some(Gain { p: Some(p), .. }) => {
            format!(
                ": no difference that chance would not explain (paired p = {}).",
                shown(*p)
            )
        }
        _ => "; one seed tells nothing of chance.".to_owned(),
    };
    if let Some(everything) = named(EVERYTHING) {
        let less = score(everything) - score(chosen);
        let spread = chosen.scores[column].sd.max(everything.scores[column].sd);
        text += &if less > spread {
            format!(" Training on everything makes {:.4}, which is more.", score(everything))
        } else if less < -spread {
            format!(" Training on everything makes {:.4}, which is less.", score(everything))
        } else {
            format!(
                " Training on everything makes {:.4}, within the seeds' spread.",
                score(everything)
            )
        };
    }
    let simple = best(lines, &[Family::Heuristic]);
    let learned = best(lines, &[Family::Agent]);
    if let (Some(simple), Some(learned)) = (simple, learned) {
        let ahead = score(learned) - score(simple);
        let spread = learned.scores[column].sd.max(simple.scores[column].sd);
        let seconds = learned.seconds.prepare + learned.seconds.choose;
        text += &if ahead > spread {
            format!(
                " The agent is worth its {seconds:.0} s: the best rule without scores, `{}`, makes {:.4}.",
                simple.method,
                score(simple)
            )
        } else {
            format!(
                " A simpler rule would do: `{}` makes {:.4}, the best agent `{}` {:.4} in {seconds:.0} s.",
                simple.method,
                score(simple),
                learned.method,
                score(learned)
            )
        };
    }
    let failed: usize = lines.iter().map(|line| line.failed.len()).sum();
    if failed > 0 {
        text += &format!(" {failed} cells failed.");
    }
    Some(text)
}

/// A p-value with as many digits as it deserves.
fn shown(p: f64) -> String {
    if p < 0.001 {
        "below 0.001".into()
    } else {
        format!("{p:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            record::{CellRecord, Seconds, VERSION},
            table::{table, tests::cell},
        },
        *,
    };

    fn told(scores: [&[f64]; 4]) -> String {
        let methods = [
            (RANDOM, Family::Control),
            (EVERYTHING, Family::Control),
            ("similarity", Family::Heuristic),
            ("dqn", Family::Agent),
        ];
        let cells: Vec<_> = methods
            .iter()
            .zip(scores)
            .flat_map(|((method, _), scores)| (0..).zip(scores).map(|(seed, &score)| cell(method, seed, &[score])))
            .collect();
        let names = methods.map(|(method, family)| (method.to_owned(), family));
        let lines = table(&cells, &["5%".into()], &names);
        of_budget("5%", &lines.iter().collect::<Vec<_>>(), ("test", 0)).expect("random rows are there")
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
            better.starts_with("At 5%, `dqn` is best on the confirm fold; on test it makes 0.6100"),
            "{better}"
        );
        assert!(
            better.contains("a gain of 0.1000") && better.contains("which is more"),
            "{better}"
        );
        assert!(
            better.contains("worth its 0 s") && better.contains("`similarity`, makes 0.5533"),
            "{better}"
        );
        let nothing = told([&[0.5, 0.6, 0.4], &[0.5, 0.6, 0.4], &[0.6, 0.5, 0.4], &[0.4, 0.4, 0.4]]);
        assert!(
            nothing.contains("no difference that chance") && nothing.contains("A simpler rule would do"),
            "{nothing}"
        );
        let worse = told([&[0.6, 0.61, 0.6], &[0.7], &[0.5, 0.5, 0.5], &[0.4, 0.4, 0.4]]);
        assert!(worse.contains("it LOSES 0.1033"), "{worse}");
        assert!(told([&[0.6], &[0.7], &[0.5], &[0.4]]).contains("one seed tells nothing"));
    }

    #[test]
    fn choosing_pays_once_it_has_saved_what_it_took() {
        let took = |method: &str, [prepare, choose, judge]: [f64; 3]| CellRecord {
            seconds: Seconds { prepare, choose, judge },
            ..cell(method, 0, &[0.5])
        };
        let cells = vec![
            took(EVERYTHING, [0.0, 0.0, 100.0]),
            took(RANDOM, [0.0, 0.0, 10.0]),
            took("dqn", [20.0, 141.0, 10.0]),
        ];
        let names = [
            (EVERYTHING, Family::Control),
            (RANDOM, Family::Control),
            ("dqn", Family::Agent),
        ];
        let mut record = StudyRecord {
            version: VERSION,
            tamis: String::new(),
            metric: "accuracy".into(),
            judge: "finetune".into(),
            columns: vec!["confirm".into()],
            column_rows: vec![10],
            pool: 100,
            budgets: vec!["5%".into()],
            seeds: vec![0],
            methods: table(
                &cells,
                &["5%".into()],
                &names.map(|(name, family)| (name.to_owned(), family)),
            ),
            cells,
            expected: 3,
            verdict: Vec::new(),
            threads: 2,
            core_seconds: 0.0,
            overhead: 0.0,
            command: String::new(),
            settings: serde_json::Value::Null,
        };
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
