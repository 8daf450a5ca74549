//! Selections scored by fine-tuning a model on each, several models at once on the cores of this machine.

use std::time::Instant;

use tamis_nn::{Fingerprint, Monitor};

use crate::{
    Result,
    scorer::{
        Scorer,
        batch::{BatchScorer, Selection},
        finetune::FinetuneScorer,
        worker_pool::side_by_side,
    },
    store::Answer,
    target::TargetModel,
};

/// What is asked of a model that was fine-tuned on a selection.
pub type Question<'a> = dyn Fn(&dyn TargetModel) -> Result<Vec<f64>> + Sync + 'a;

/// A model fine-tuned from the base on each selection, and what it is asked.
pub struct FinetuneBatch<'a> {
    scorer: &'a FinetuneScorer,
    question: &'a Question<'a>,
    at_once: usize,
    fingerprint: Fingerprint,
}

impl<'a> FinetuneBatch<'a> {
    /// Fine-tunes as `scorer` does, at most so many models at once, and asks each `question`, which `name` tells from others.
    pub fn new(scorer: &'a FinetuneScorer, name: &Fingerprint, question: &'a Question<'a>, at_once: usize) -> Self {
        Self {
            at_once,
            fingerprint: Fingerprint::of([scorer.fingerprint().as_str(), name.as_str()]),
            scorer,
            question,
        }
    }
}

impl BatchScorer for FinetuneBatch<'_> {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn score_all(
        &self,
        selections: &[Selection<'_>],
        monitor: &dyn Monitor,
        done: &mut dyn FnMut(usize, Result<Answer>) -> Result<()>,
    ) -> Result<()> {
        // Where there are more cores than models to train, or than fit, several train one.
        let cores = rayon::current_num_threads();
        let threads = (cores / selections.len().max(1)).max(cores.div_ceil(self.at_once.max(1)));
        let train = |&i: &usize| {
            let (began, selection) = (Instant::now(), selections[i]);
            let model = self.scorer.cold(selection.rows, selection.seed, monitor)?;
            Ok(Answer {
                numbers: (self.question)(&*model)?,
                seconds: began.elapsed().as_secs_f64() * threads as f64,
            })
        };
        side_by_side((0..selections.len()).collect(), threads, monitor, &train, done)
    }
}
