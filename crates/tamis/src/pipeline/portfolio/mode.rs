//! A mode of a search: which rows are candidates, in which order a cluster gives them, and what rewards a choice.

use tamis_nn::Seed;

use crate::{
    Result,
    budget::Limit,
    data::RowId,
    env::pool::Pool,
    pipeline::{candidates::Candidates, context::Context, probe::TunedProbe, search::Chunks},
    problem::Trajectory,
    records::portfolio::ModeRecord,
    scorer::Scorer,
    search::completed,
    settings::select::SelectSettings,
};

/// The candidates of a mode, cut into chunks, and what rewards a choice of them.
pub(crate) struct Mode<'a> {
    pub(crate) settings: &'a SelectSettings,
    pub(crate) chunks: Chunks,
    pub(crate) scorer: Box<dyn Scorer>,
}

impl<'a> Mode<'a> {
    /// Every mode of the settings, that for the AUC first; moments of chunks take at most `memory` bytes in all.
    pub(crate) fn all(
        context: Context<'_>,
        candidates: &'a Candidates,
        probe: &dyn TunedProbe,
        limit: Limit,
        memory: usize,
    ) -> Result<Vec<Self>> {
        let memory = memory / candidates.modes.len();
        let mode = |settings: &'a SelectSettings| {
            Ok(Self {
                chunks: Chunks::cut(context.with(settings), candidates, settings.chunk, limit)?,
                scorer: probe.scorer(settings.reward_metric(), memory)?,
                settings,
            })
        };
        candidates.modes.iter().map(mode).collect()
    }

    /// The settings in which modes differ.
    pub(crate) fn record(&self) -> ModeRecord {
        let SelectSettings {
            candidates,
            row_order,
            reward,
            ..
        } = self.settings;
        ModeRecord {
            candidates: candidates.to_string(),
            row_order: row_order.to_string(),
            reward: reward.to_string(),
        }
    }

    /// What a search in it is called in a table.
    pub(crate) fn name(&self) -> String {
        let ModeRecord {
            candidates,
            row_order,
            reward,
        } = self.record();
        format!("search ({candidates}, {row_order}, {reward})")
    }

    /// The path to a full state with about the cluster mix of these rows, each cluster's own rows in the mode's order; `clusters[i]` is that
    /// of row `i` of the pool.
    pub(crate) fn with_mix_of(&self, rows: &[RowId], pool: &[RowId], clusters: &[u32], seed: Seed) -> Trajectory {
        let mut counts = vec![0; self.chunks.pool.clusters()];
        for row in rows {
            if let Ok(place) = pool.binary_search(row) {
                counts[clusters[place] as usize] += 1;
            }
        }
        with_counts(&self.chunks.pool, &counts, seed)
    }
}

/// The path to a full state with about so many rows of each cluster: in whole chunks, shared out by largest remainders, and at random
/// where the budget asks for more.
fn with_counts(pool: &Pool, counts: &[u32], seed: Seed) -> Trajectory {
    let chunk = pool.chunk().unwrap_or(u32::MAX).max(1);
    let all = counts.iter().sum::<u32>().div_ceil(chunk) as usize;
    let whole = |cluster: usize| (counts[cluster] / chunk) as usize;
    let mut plan: Vec<usize> = (0..counts.len())
        .flat_map(|cluster| std::iter::repeat_n(cluster, whole(cluster)))
        .collect();
    let mut by_remainder: Vec<usize> = (0..counts.len())
        .filter(|&cluster| !counts[cluster].is_multiple_of(chunk))
        .collect();
    by_remainder.sort_by_key(|&cluster| std::cmp::Reverse(counts[cluster] % chunk));
    by_remainder.truncate(all.saturating_sub(plan.len()));
    plan.extend(by_remainder);
    completed(pool, &plan, &mut seed.rng())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{env::pool::ChunkSize, problem::reached};

    #[test]
    fn a_start_has_the_mix_of_the_rows_that_it_is_made_of() {
        let rows: Vec<RowId> = (0..30).collect();
        let members: Vec<Vec<u32>> = [0..10, 10..20, 20..30].map(Iterator::collect).to_vec();
        let pool = Pool::of_members(&rows, &members, &[1; 30], ChunkSize::Rows(2), Limit::Rows(10));
        let taken = |counts: [u32; 3]| {
            let path = with_counts(&pool, &counts, Seed(0));
            reached(&pool, &path).taken().to_vec()
        };
        assert_eq!(taken([6, 4, 0]), [6, 4, 0]);
        // Three and seven rows are one and three chunks of two, and one more for the first of equal remainders.
        assert_eq!(taken([0, 3, 7]), [0, 4, 6]);
        assert_eq!(taken([1, 0, 9]), [2, 0, 8]);
        // What is left of the budget is spent all the same.
        assert_eq!(taken([0, 0, 1]).iter().sum::<u32>(), 10);
    }
}
