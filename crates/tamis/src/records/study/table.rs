//! From cells to the lines of a table.

use crate::{
    records::study::record::{CellRecord, EVERYTHING, Failure, Family, MethodRecord, RANDOM, Seconds, WHOLE},
    stats::gain::{Gain, Summary, holm},
};

/// The lines of all budgets: every method that has a cell, in the order given.
///
/// A method's mean is over all draws of its cells, so the spread of `random` is that of single draws; intervals are over seeds. Gains are
/// the mean differences to each draw of `random` with the same seed, which are exactly 0 where all scores are the same.
pub fn table(cells: &[CellRecord], budgets: &[String], methods: &[(String, Family)]) -> Vec<MethodRecord> {
    let mut lines = Vec::new();
    for budget in budgets {
        let first = lines.len();
        for (method, family) in methods {
            let filed = if method == EVERYTHING { WHOLE } else { budget };
            let mine: Vec<&CellRecord> = cells
                .iter()
                .filter(|cell| cell.budget == filed && cell.method == *method)
                .collect();
            if !mine.is_empty() {
                let random = |seed| {
                    let mut cells = cells.iter();
                    cells.find(|cell| cell.budget == *budget && cell.method == RANDOM && cell.seed == seed)
                };
                lines.push(line(budget, method, *family, &mine, &random));
            }
        }
        adjust(&mut lines[first..]);
    }
    lines
}

fn line<'a>(
    budget: &str,
    method: &str,
    family: Family,
    cells: &[&'a CellRecord],
    random: &dyn Fn(u64) -> Option<&'a CellRecord>,
) -> MethodRecord {
    let sound: Vec<&CellRecord> = cells.iter().copied().filter(|cell| cell.error.is_none()).collect();
    let columns = sound.first().map_or(0, |cell| cell.draws[0].len());
    let pairs: Vec<(&CellRecord, &CellRecord)> = sound
        .iter()
        .filter_map(|cell| Some((*cell, random(cell.seed).filter(|random| random.error.is_none())?)))
        .collect();
    let mean_of = |value: &dyn Fn(&CellRecord) -> f64| {
        // From 0.0 on: the sum of nothing is -0.0.
        sound.iter().fold(0.0, |sum, cell| sum + value(cell)) / sound.len().max(1) as f64
    };
    MethodRecord {
        budget: budget.to_owned(),
        method: method.to_owned(),
        family,
        rows: mean_of(&|cell| cell.rows as f64),
        scores: (0..columns)
            .map(|column| {
                let draws = |cell: &&CellRecord| cell.draws.iter().map(|draw| draw[column]).collect();
                Summary::of_draws(&sound.iter().map(draws).collect::<Vec<Vec<f64>>>())
            })
            .collect(),
        gains: if method == RANDOM || pairs.is_empty() {
            Vec::new()
        } else {
            (0..columns)
                .map(|column| {
                    let difference = |(cell, random): &(&CellRecord, &CellRecord)| {
                        let mine = cell.mean(column);
                        let each = random.draws.iter().map(|draw| mine - draw[column]);
                        each.sum::<f64>() / random.draws.len() as f64
                    };
                    Gain::of(&pairs.iter().map(difference).collect::<Vec<f64>>())
                })
                .collect()
        },
        evaluations: mean_of(&|cell| cell.evaluations as f64),
        seconds: Seconds {
            prepare: mean_of(&|cell| cell.seconds.prepare),
            choose: mean_of(&|cell| cell.seconds.choose),
            judge: mean_of(&|cell| cell.seconds.judge),
        },
        failed: cells
            .iter()
            .filter_map(|cell| {
                Some(Failure {
                    seed: cell.seed,
                    reason: cell.error.clone()?,
                })
            })
            .collect(),
    }
}

/// Adjusts the p-values of one budget, column by column, for all the methods that are tested there.
fn adjust(lines: &mut [MethodRecord]) {
    let columns = lines.iter().map(|line| line.gains.len()).max().unwrap_or(0);
    for column in 0..columns {
        let mut gains: Vec<&mut Gain> = lines
            .iter_mut()
            .filter_map(|line| line.gains.get_mut(column).filter(|gain| gain.p.is_some()))
            .collect();
        let p: Vec<f64> = gains.iter().filter_map(|gain| gain.p).collect();
        for (gain, adjusted) in gains.iter_mut().zip(holm(&p)) {
            gain.adjusted = Some(adjusted);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn cell(method: &str, seed: u64, draws: &[f64]) -> CellRecord {
        CellRecord {
            budget: if method == EVERYTHING { WHOLE } else { "5%" }.into(),
            method: method.into(),
            seed,
            rows: 10,
            tokens: 100,
            draws: draws.iter().map(|&score| vec![score]).collect(),
            evaluations: 0,
            seconds: Seconds::default(),
            portfolio: None,
            error: None,
        }
    }

    #[test]
    fn gains_are_paired_by_seed_and_failures_are_kept() {
        let mut broken = cell("dqn", 2, &[]);
        broken.error = Some("no memory".into());
        let cells = [
            cell(RANDOM, 0, &[0.25, 0.75]),
            cell(RANDOM, 1, &[0.5, 1.0]),
            cell(RANDOM, 2, &[0.5, 0.5]),
            cell("dqn", 0, &[0.75]),
            cell("dqn", 1, &[1.0]),
            broken,
            cell(EVERYTHING, 0, &[1.0]),
        ];
        let methods = [EVERYTHING, RANDOM, "dqn", "ppo"].map(|name| (name.to_owned(), Family::Control));
        let lines = table(&cells, &["5%".into()], &methods);
        let names: Vec<&str> = lines.iter().map(|line| line.method.as_str()).collect();
        assert_eq!(names, [EVERYTHING, RANDOM, "dqn"]);
        // 1 - 0.5; the mean of six draws; 0.75 - 0.5 and 1 - 0.75.
        assert_eq!((lines[0].gains[0].mean, lines[0].gains[0].p), (0.5, None));
        assert!((lines[1].scores[0].mean - 3.5 / 6.0).abs() < 1e-12 && lines[1].gains.is_empty());
        assert_eq!((lines[2].scores[0].mean, lines[2].gains[0].mean), (0.875, 0.25));
        assert_eq!(lines[2].gains[0].adjusted, lines[2].gains[0].p);
        assert_eq!(
            lines[2].failed,
            [Failure {
                seed: 2,
                reason: "no memory".into()
            }]
        );
    }

    #[test]
    fn equal_scores_are_no_gain_at_all() {
        // Ten times 0.8 is not 8 in floating point.
        let cells = [
            cell(RANDOM, 0, &[0.8; 10]),
            cell(RANDOM, 1, &[0.8; 10]),
            cell("dqn", 0, &[0.8]),
            cell("dqn", 1, &[0.8]),
        ];
        let methods = [RANDOM, "dqn"].map(|name| (name.to_owned(), Family::Control));
        let gain = table(&cells, &["5%".into()], &methods)[1].gains[0];
        assert_eq!((gain.mean, gain.p), (0.0, Some(1.0)));
    }

    #[test]
    fn a_method_whose_cells_all_failed_has_a_line_without_scores() {
        let mut broken = cell("dqn", 0, &[]);
        broken.error = Some("why".into());
        let lines = table(&[broken], &["5%".into()], &[("dqn".into(), Family::Agent)]);
        assert!(lines[0].scores.is_empty() && lines[0].gains.is_empty() && lines[0].failed.len() == 1);
    }
}
