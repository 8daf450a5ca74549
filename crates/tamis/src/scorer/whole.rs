//! A search rewarded by the scores of whole selections, which are made elsewhere and several at once.

use tamis_nn::{Fingerprint, Seed, Silent};

use crate::{
    Result,
    data::RowId,
    scorer::{
        Insight, Scorer, ScorerRun,
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

    fn insight(&mut self, _chunks: &[&[RowId]]) -> Result<Option<Insight>> {
        Ok(None)
    }
}
