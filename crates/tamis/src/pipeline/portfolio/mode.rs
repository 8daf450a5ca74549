//! A mode of a search: which rows are candidates, in which order a cluster gives them, and what rewards a choice.

use tamis_nn::Seed;

use crate::{
    Result,
    budget::Limit,
    data::RowId,
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
        let mut counts = vec![0_u32; self.chunks.pool.clusters()];
        for row in rows {
            if let Ok(place) = pool.binary_search(row) {
                counts[clusters[place] as usize] += 1;
            }
        }
        let chunk = self.chunks.pool.chunk().unwrap_or(u32::MAX).max(1);
        let takes = |count: u32| f64::from(count) / f64::from(chunk);
        let planned = counts.iter().enumerate();
        let plan: Vec<usize> = planned
            .flat_map(|(cluster, &count)| std::iter::repeat_n(cluster, takes(count).round() as usize))
            .collect();
        completed(&self.chunks.pool, &plan, &mut seed.rng())
    }
}
