//! A search rewarded by the scores of whole selections, which are made elsewhere and several at once.

use tamis_nn::{Fingerprint, Seed, Silent};

use crate::{
    Result,
    data::RowId,
    scorer::{
        Scorer, ScorerRun,
        batch::{BatchScorer, Selection},
    },
};

/// Rewards a search by the scores of whole selections.
pub struct WholeSelections<'a>(pub &'a dyn BatchScorer);

impl Scorer for WholeSelections<'_> {
    fn fingerprint(&self) -> &Fingerprint {
        self.0.fingerprint()
    }

    fn batch(&self) -> Option<&dyn BatchScorer> {
        Some(self.0)
    }

    fn start(&self, seed: Seed) -> Result<Box<dyn ScorerRun + '_>> {
        let (scorer, rows) = (self.0, Vec::new());
        Ok(Box::new(WholeRun { scorer, seed, rows }))
    }
}

/// Rows on the way to a whole selection.
#[derive(Clone)]
struct WholeRun<'a> {
    scorer: &'a dyn BatchScorer,
    seed: Seed,
    rows: Vec<RowId>,
}

impl ScorerRun for WholeRun<'_> {
    fn add(&mut self, rows: &[RowId]) -> Result<()> {
        self.rows.extend(rows);
        Ok(())
    }

    fn score(&mut self) -> Result<f64> {
        let (rows, seed) = (&self.rows, self.seed);
        let mut score = f64::NAN;
        self.scorer
            .score_all(&[Selection { rows, seed }], &Silent, &mut |_, answer| {
                score = answer?.numbers[0];
                Ok(())
            })?;
        Ok(score)
    }

    fn fork(&self) -> Box<dyn ScorerRun + '_> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tamis_nn::Monitor;

    use super::*;
    use crate::{
        Error,
        problem::Limits,
        search::{ClimbDisc, ClimbDiscSettings, Random, Selector, toy::Toy},
        store::{Answer, MemoryStore, ScoreStore},
    };

    /// Scores with the share of rows of even number, at a cost of 1; notes how many selections it is asked for at once. The first so many
    /// answers are failures.
    struct Even {
        fingerprint: Fingerprint,
        rounds: Mutex<Vec<usize>>,
        failures: Mutex<usize>,
    }

    impl Even {
        fn new(failures: usize) -> Self {
            Self {
                fingerprint: Fingerprint::of(["even"]),
                rounds: Mutex::default(),
                failures: Mutex::new(failures),
            }
        }

        fn asked(&self) -> usize {
            self.rounds.lock().expect("no panic").iter().sum()
        }
    }

    impl BatchScorer for Even {
        fn fingerprint(&self) -> &Fingerprint {
            &self.fingerprint
        }

        fn score_all(
            &self,
            selections: &[Selection<'_>],
            _monitor: &dyn Monitor,
            done: &mut dyn FnMut(usize, Result<Answer>) -> Result<()>,
        ) -> Result<()> {
            self.rounds.lock().expect("no panic").push(selections.len());
            for (i, Selection { rows, .. }) in selections.iter().enumerate().rev() {
                assert!(!rows.is_empty(), "the empty selection is not asked for");
                let even = rows.iter().filter(|&&row| row % 2 == 0).count();
                let answer = Answer {
                    numbers: vec![even as f64 / rows.len() as f64, 1.0],
                    seconds: 0.0,
                };
                let mut failures = self.failures.lock().expect("no panic");
                let fails = *failures > 0;
                *failures -= usize::from(fails);
                done(
                    i,
                    if fails {
                        Err(Error::setting("trainer", "a score", "none"))
                    } else {
                        Ok(answer)
                    },
                )?;
            }
            Ok(())
        }
    }

    /// What a search finds: its best score, evaluations, failures.
    fn found(
        even: &Even,
        store: &mut dyn ScoreStore,
        limits: Limits,
        selector: &mut dyn Selector,
    ) -> Result<(f64, u64, u64)> {
        let toy = Toy::new(8);
        let (pool, scorer) = (toy.pool(12), WholeSelections(even));
        let mut problem = toy.problem_by(&scorer, store, &pool, limits)?;
        selector.select(&mut problem, Seed(3))?;
        let best = problem.best().iter().next().map_or(f64::NAN, |(score, ..)| score);
        Ok((best, problem.evaluations(), problem.failures()))
    }

    #[test]
    fn a_search_asks_for_whole_selections_in_rounds_and_pays_for_none_twice() {
        let (even, mut store) = (Even::new(0), MemoryStore::default());
        let mut climb = ClimbDisc::new(ClimbDiscSettings::default()).expect("settings");
        let first = found(&even, &mut store, Limits::evaluations(60), &mut climb).expect("runs");
        assert_eq!((first.1, first.2, even.asked()), (60, 0, 60));
        assert!(first.0 > 0.5 && even.rounds.lock().expect("no panic").len() < 20);
        // Started again, it asks for nothing and comes to the same; with more to spend it goes on.
        let again = found(&even, &mut store, Limits::evaluations(60), &mut climb).expect("runs");
        assert_eq!((again, even.asked()), (first, 60));
    }

    #[test]
    fn a_limit_on_cost_ends_it_after_the_round_that_reaches_it_also_when_started_again() {
        let (even, mut store) = (Even::new(0), MemoryStore::default());
        let limits = Limits {
            cost: Some(10.0),
            ..Limits::evaluations(1000)
        };
        let first = found(&even, &mut store, limits, &mut Random).expect("runs");
        assert!((10..1000).contains(&even.asked()), "{}", even.asked());
        let asked = even.asked();
        assert_eq!(found(&even, &mut store, limits, &mut Random).expect("runs"), first);
        assert_eq!(even.asked(), asked);
    }

    #[test]
    fn what_has_no_score_is_marked_and_without_any_score_it_stops() {
        let mut store = MemoryStore::default();
        let error = found(&Even::new(usize::MAX), &mut store, Limits::evaluations(60), &mut Random).expect_err("none");
        assert!(error.to_string().contains("found none"), "{error}");
        assert!(store.is_empty(), "and it may be tried again");
        let (best, evaluations, failures) =
            found(&Even::new(2), &mut store, Limits::evaluations(60), &mut Random).expect("runs");
        assert!(best > 0.4, "{best}");
        assert_eq!((evaluations, failures), (60, 2));
    }
}
