//! Trials handed out to the program that runs tamis, and scores taken back: how a Python callable, or a cluster, trains on selections.
//!
//! A search asks for scores in rounds. All trials of a round are handed out together, and what is asked next depends on their scores alone,
//! never on who answered first.

use tamis_nn::{Fingerprint, Monitor};

use crate::{
    Error, Result,
    data::{Dataset, RowId, Split},
    scorer::batch::{BatchScorer, Selection},
    store::Answer,
};

/// Rows to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// A name: the same for the same rows and seed.
    pub name: String,
    /// Which of the training records, counted from 0 over all training files in their order, bad rows with them; in the order in which they
    /// were taken.
    pub rows: Vec<u64>,
    /// The source of the training's randomness.
    pub seed: u64,
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The score, higher is better, or why there is none.
    pub score: std::result::Result<f64, String>,
    /// What it cost, in a unit of the trainer's own; 0 where that is not known.
    pub cost: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Takes what came of a trial by its place in the round; an error ends the round.
pub type Tell<'a> = dyn FnMut(usize, Told) -> Result<()> + 'a;

/// Who trains on trials.
pub trait TrialRunner: Sync {
    /// Trains on each trial of a round, and tells what came of each as it comes, in any order.
    ///
    /// # Errors
    ///
    /// If `tell` fails, or the user stopped the run.
    fn run(&self, round: &[Trial], monitor: &dyn Monitor, tell: &mut Tell<'_>) -> Result<()>;
}

/// Selections scored by a [`TrialRunner`].
pub(crate) struct AskTell<'a> {
    runner: &'a dyn TrialRunner,
    train: &'a Split,
    retries: u32,
    fingerprint: Fingerprint,
}

impl<'a> AskTell<'a> {
    /// `name` tells this runner's scores from another's; a trial that failed is given out again so many times.
    pub(crate) fn new(runner: &'a dyn TrialRunner, name: &str, dataset: &'a Dataset, retries: u32) -> Self {
        Self {
            fingerprint: Fingerprint::of([b"ask and tell 1", name.as_bytes(), dataset.fingerprint.as_ref()]),
            train: &dataset.train,
            runner,
            retries,
        }
    }

    fn trial(&self, selection: &Selection<'_>) -> Trial {
        Trial {
            name: trial_name(*selection),
            rows: selection
                .rows
                .iter()
                .map(|&row| self.train.record_number(row))
                .collect(),
            seed: selection.seed.0,
        }
    }
}

impl BatchScorer for AskTell<'_> {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn score_all(
        &self,
        selections: &[Selection<'_>],
        monitor: &dyn Monitor,
        done: &mut dyn FnMut(usize, Result<Answer>) -> Result<()>,
    ) -> Result<()> {
        let mut waiting: Vec<usize> = (0..selections.len()).collect();
        for attempt in 0..=self.retries {
            if waiting.is_empty() {
                break;
            }
            let round: Vec<Trial> = waiting.iter().map(|&i| self.trial(&selections[i])).collect();
            let mut failed = Vec::new();
            self.runner.run(&round, monitor, &mut |place, told| {
                let i = waiting[place];
                let reason = match told.score {
                    Ok(score) if score.is_finite() => {
                        let numbers = vec![score, told.cost];
                        let seconds = told.seconds;
                        return done(i, Ok(Answer { numbers, seconds }));
                    }
                    Ok(score) => format!("the score {score}"),
                    Err(reason) => reason,
                };
                if attempt < self.retries {
                    failed.push(i);
                    return Ok(());
                }
                let expected = format!(
                    "a score for the trial {} ({} rows)",
                    round[place].name,
                    round[place].rows.len()
                );
                done(i, Err(Error::setting("trainer", expected, reason)))
            })?;
            // The order in which answers came decides nothing.
            failed.sort_unstable();
            waiting = failed;
        }
        Ok(())
    }
}

/// What a trial is called: the same for the same rows and seed.
pub(crate) fn trial_name(selection: Selection<'_>) -> String {
    let rows: Vec<u8> = selection.rows.iter().copied().flat_map(RowId::to_le_bytes).collect();
    let whole = Fingerprint::of([&selection.seed.0.to_le_bytes()[..], &rows]);
    whole.as_str()[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tamis_nn::{Seed, Silent};

    use super::*;
    use crate::data::{Answer as Label, Input, LeakPolicy};

    /// Scores with the number of rows, the last trial of a round first; trials of two rows fail so many times.
    struct Counts {
        failures: Mutex<u32>,
        rounds: Mutex<Vec<usize>>,
    }

    impl TrialRunner for Counts {
        fn run(&self, round: &[Trial], _monitor: &dyn Monitor, tell: &mut Tell<'_>) -> Result<()> {
            self.rounds.lock().expect("no panic").push(round.len());
            for (i, trial) in round.iter().enumerate().rev() {
                let mut failures = self.failures.lock().expect("no panic");
                let fails = trial.rows.len() == 2 && *failures > 0;
                *failures -= u32::from(fails);
                tell(
                    i,
                    Told {
                        score: if fails {
                            Ok(f64::NAN)
                        } else {
                            Ok(trial.rows.len() as f64)
                        },
                        cost: 0.5,
                        seconds: 1.0,
                    },
                )?;
            }
            Ok(())
        }
    }

    fn asked(failures: u32, retries: u32) -> (Vec<std::result::Result<Vec<f64>, String>>, Vec<usize>) {
        let text = |text: &str, label: &str| (Input::Text(text.into()), Label::Label(label.into()));
        let train = ["a", "b", "c"].map(|name| text(name, name)).to_vec();
        let dataset = Dataset::from_rows(train, vec![text("d", "a")], None, LeakPolicy::Drop).expect("a data set");
        let counts = Counts {
            failures: Mutex::new(failures),
            rounds: Mutex::default(),
        };
        let scorer = AskTell::new(&counts, "counts", &dataset, retries);
        let lists: [&[RowId]; 3] = [&[2], &[1, 0], &[0, 1, 2]];
        let selections = lists.map(|rows| Selection { rows, seed: Seed(1) });
        let mut answers = vec![Err(String::new()); 3];
        scorer
            .score_all(&selections, &Silent, &mut |i, answer| {
                answers[i] = answer.map(|answer| answer.numbers).map_err(|error| error.to_string());
                Ok(())
            })
            .expect("runs");
        drop(scorer);
        (answers, counts.rounds.into_inner().expect("no panic"))
    }

    #[test]
    fn a_round_is_handed_out_whole_and_what_failed_once_more() {
        let score = |rows: f64| Ok(vec![rows, 0.5]);
        assert_eq!(asked(0, 1), (vec![score(1.0), score(2.0), score(3.0)], vec![3]));
        assert_eq!(asked(1, 1), (vec![score(1.0), score(2.0), score(3.0)], vec![3, 1]));
        let (answers, rounds) = asked(2, 1);
        assert_eq!((&answers[0], rounds), (&score(1.0), vec![3, 1]));
        let error = answers[1].clone().expect_err("no score");
        assert!(error.ends_with("(2 rows), found the score NaN"), "{error}");
        assert_eq!(asked(1, 0).1, [3]);
    }
}
