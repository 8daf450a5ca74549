//! In which order a cluster gives its rows.

use tamis_nn::named_enum;

use rayon::prelude::*;
use tamis_nn::{Monitor, Seed};

use crate::{Error, Result, candidates::facility_location, vectors::VectorStore};

/// In which order the rows of a cluster are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowOrder {
    /// By relevance where validation rows differ from the pool, else by coverage.
    #[default]
    Auto,
    /// The most like the validation rows, and unlike the pool, first.
    Relevance,
    /// The most like the whole cluster first: facility location.
    Coverage,
    /// At random.
    Random,
}

named_enum!(RowOrder, "row_order", Error, {
    Auto => "auto": "relevance where validation rows differ from the pool, else coverage",
    Relevance => "relevance": "those most like validation rows first",
    Coverage => "coverage": "those most like the whole cluster first",
    Random => "random": "at random",
});

/// How many rows of a cluster are ordered by coverage at most; those behind them follow at random.
const MOST_ORDERED: usize = 1000;

/// The members of each cluster without suspected label errors, and those alone; `label_errors[i]` is of row `i` of the pool.
pub(crate) fn errors_apart(members: Vec<Vec<u32>>, label_errors: &[bool]) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
    members
        .into_iter()
        .map(|members| members.into_iter().partition(|&i| !label_errors[i as usize]))
        .unzip()
}

/// Sorts each cluster's members, the most relevant first; `relevance[i]` is of row `i` of the pool.
pub(crate) fn by_relevance(members: &mut [Vec<u32>], relevance: &[f32]) {
    for members in members {
        members.sort_by(|&a, &b| relevance[b as usize].total_cmp(&relevance[a as usize]));
    }
}

/// Orders each cluster's members so that the first ones cover it best; vector `i` of `pool` is that of row `i` of the pool.
///
/// # Errors
///
/// If vectors cannot be read, or the user stopped the run.
pub(crate) fn by_coverage(
    members: &mut [Vec<u32>],
    pool: &dyn VectorStore,
    seed: Seed,
    monitor: &dyn Monitor,
) -> Result<()> {
    members.par_iter_mut().try_for_each(|members| {
        let order = facility_location::order(&pool.gather(members)?, MOST_ORDERED, seed, monitor)?;
        let mut first = vec![false; members.len()];
        order.iter().for_each(|&i| first[i as usize] = true);
        let rest = (0..members.len() as u32).filter(|&i| !first[i as usize]);
        *members = order.iter().copied().chain(rest).map(|i| members[i as usize]).collect();
        Ok(())
    })
}
