//! Whole selections, scored many at a time: what a fine-tune, or a trainer on other machines, offers in place of a chunk-by-chunk run.

use tamis_nn::{Fingerprint, Monitor, Seed, fingerprint::first_half};

use crate::{
    Result,
    data::RowId,
    store::{Answer, Key, ScoreStore},
};

/// Rows to train on, and the seed of that training.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// The rows.
    pub rows: &'a [RowId],
    /// The source of the training's randomness.
    pub seed: Seed,
}

/// Trains a model on each of several selections and answers one question about each.
pub trait BatchScorer: Sync {
    /// What an answer depends on besides rows and seed: the model, its settings, the data, the question.
    fn fingerprint(&self) -> &Fingerprint;

    /// Answers for every selection, handed to `done` with its place in `selections` as they come, in any order; an error of `done` ends
    /// it. An answer depends on its selection alone, never on those beside it.
    ///
    /// # Errors
    ///
    /// If `done` fails, or the user stopped the run.
    fn score_all(
        &self,
        selections: &[Selection<'_>],
        monitor: &dyn Monitor,
        done: &mut dyn FnMut(usize, Result<Answer>) -> Result<()>,
    ) -> Result<()>;
}

/// The answers for these selections, in their order. What the store has is not paid for again; what it lacks is stored as it comes.
/// Advances `monitor` by one a selection.
///
/// # Errors
///
/// If a selection cannot be answered for, the store fails, or the user stopped the run.
pub fn score_all(
    scorer: &dyn BatchScorer,
    selections: &[Selection<'_>],
    store: &mut dyn ScoreStore,
    monitor: &dyn Monitor,
) -> Result<Vec<Answer>> {
    let keys: Vec<Key> = selections.iter().map(|selection| key(scorer, selection)).collect();
    let mut answers = keys.iter().map(|key| store.answer(key)).collect::<Result<Vec<_>>>()?;
    let missing: Vec<usize> = (0..answers.len()).filter(|&i| answers[i].is_none()).collect();
    monitor.advance((answers.len() - missing.len()) as u64);
    let asked: Vec<Selection<'_>> = missing.iter().map(|&i| selections[i]).collect();
    scorer.score_all(&asked, monitor, &mut |place, answer| {
        let (i, answer) = (missing[place], answer?);
        store.record_answer(&keys[i], &answer)?;
        answers[i] = Some(answer);
        monitor.advance(1);
        Ok(())
    })?;
    Ok(answers.into_iter().flatten().collect())
}

/// What the answer for a selection is filed under.
pub(crate) fn key(scorer: &dyn BatchScorer, selection: &Selection<'_>) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(scorer.fingerprint().as_ref());
    hasher.update(&selection.seed.0.to_le_bytes());
    for row in selection.rows {
        hasher.update(&row.to_le_bytes());
    }
    first_half(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tamis_nn::Silent;

    use super::*;
    use crate::{Error, store::MemoryStore};

    /// Answers with the sum of the rows, the last selection first; fails on row 13.
    struct Sum {
        fingerprint: Fingerprint,
        asked: AtomicUsize,
    }

    impl BatchScorer for Sum {
        fn fingerprint(&self) -> &Fingerprint {
            &self.fingerprint
        }

        fn score_all(
            &self,
            selections: &[Selection<'_>],
            _monitor: &dyn Monitor,
            done: &mut dyn FnMut(usize, Result<Answer>) -> Result<()>,
        ) -> Result<()> {
            for (i, selection) in selections.iter().enumerate().rev() {
                self.asked.fetch_add(1, Ordering::Relaxed);
                let sum = selection.rows.iter().sum::<RowId>();
                let answer = if selection.rows.contains(&13) {
                    Err(Error::setting("rows", "no 13", "13"))
                } else {
                    Ok(Answer {
                        numbers: vec![f64::from(sum)],
                        seconds: 1.0,
                    })
                };
                done(i, answer)?;
            }
            Ok(())
        }
    }

    #[test]
    fn answers_come_in_order_and_none_is_paid_for_twice() {
        let scorer = Sum {
            fingerprint: Fingerprint::of(["sum"]),
            asked: AtomicUsize::new(0),
        };
        let mut store = MemoryStore::default();
        let lists: [&[RowId]; 3] = [&[1, 2], &[4], &[13]];
        let selection = |rows| Selection { rows, seed: Seed(1) };
        let mut ask = |count: usize| {
            let selections: Vec<Selection<'_>> = lists[..count].iter().map(|&rows| selection(rows)).collect();
            score_all(&scorer, &selections, &mut store, &Silent)
        };
        let sums = |answers: Vec<Answer>| {
            answers
                .into_iter()
                .map(|answer| answer.numbers[0])
                .collect::<Vec<f64>>()
        };
        assert_eq!(sums(ask(1).expect("answers")), [3.0]);
        assert_eq!(sums(ask(2).expect("answers")), [3.0, 4.0]);
        assert_eq!(scorer.asked.load(Ordering::Relaxed), 2);
        assert!(ask(3).is_err(), "what fails is no answer");
        assert_eq!(sums(ask(2).expect("answers")), [3.0, 4.0]);
        assert_eq!(scorer.asked.load(Ordering::Relaxed), 3);
    }
}
