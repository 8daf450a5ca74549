//! Clusters cut into chunks: what can be taken, what is legal, what it costs.
//!
//! The rows of a cluster stand in one fixed order, and are only ever taken from its front. So a state is fully
//! told by how many rows of each cluster are taken, whatever the path that led to it.

use std::{fmt, ops::Range, str::FromStr};

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tamis_nn::seed::Seed;

use crate::{Error, Result, budget::Limit, data::RowId};

/// How many chunks an episode has when the chunk's size is left to us.
const STEPS: u64 = 40;

/// The smallest chunk chosen by itself, unless an episode then has fewer than half as many steps: fewer rows change a score by less than
/// its noise.
const SMALLEST_CHUNK: u64 = 5;

/// The most chunks that an episode is given because of many labels.
const MOST_STEPS: u64 = 400;

/// How much one action takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ChunkSize {
    /// As many rows as make about 40 steps an episode; at least 5 where they make 20.
    #[default]
    Auto,
    /// As many rows as make about this many steps an episode.
    Steps(u64),
    /// This many rows.
    Rows(u32),
    /// A whole cluster, as in the paper.
    Cluster,
}

/// How many rows of each cluster are taken; shape `(clusters,)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State(Vec<u32>);

impl State {
    /// Rows taken of each cluster.
    pub fn taken(&self) -> &[u32] {
        &self.0
    }
}

/// The rows that may be taken, cluster by cluster, and the budget for them.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The rows of each cluster in their fixed order.
    clusters: Vec<Vec<RowId>>,
    /// `cost[c][i]`: what the first `i` rows of cluster `c` cost, in units of the limit.
    cost: Vec<Vec<u64>>,
    /// Rows a chunk has; `u32::MAX` for whole clusters.
    chunk: u32,
    /// The budget in rows or tokens.
    limit: u64,
}

impl Pool {
    /// Groups `rows` by cluster (`assignment[i]` belongs to `rows[i]`), shuffles each cluster and sets the limit.
    ///
    /// `tokens[i]` is what `rows[i]` costs where the limit is in tokens.
    ///
    /// # Panics
    ///
    /// If the slices differ in length, or an assignment names no cluster.
    pub fn new(
        rows: &[RowId],
        assignment: &[u32],
        tokens: &[u32],
        clusters: usize,
        chunk: ChunkSize,
        limit: Limit,
        seed: Seed,
    ) -> Self {
        assert_eq!(rows.len(), assignment.len(), "one cluster a row");
        Self::of_members(rows, &members(assignment, clusters, seed), tokens, chunk, limit)
    }

    /// A pool whose clusters' members, as places in `rows`, are taken in the order given.
    ///
    /// # Panics
    ///
    /// If the slices differ in length, or a member is no place in `rows`.
    pub fn of_members(rows: &[RowId], members: &[Vec<u32>], tokens: &[u32], chunk: ChunkSize, limit: Limit) -> Self {
        assert_eq!(rows.len(), tokens.len(), "one cost a row");
        let price = |i: u32| match limit {
            Limit::Rows(_) => 1,
            Limit::Tokens(_) => u64::from(tokens[i as usize]),
        };
        let cost: Vec<Vec<u64>> = members
            .iter()
            .map(|members| {
                std::iter::once(0)
                    .chain(members.iter().scan(0, |sum, &i| {
                        *sum += price(i);
                        Some(*sum)
                    }))
                    .collect()
            })
            .collect();
        let limit = match limit {
            Limit::Rows(limit) | Limit::Tokens(limit) => limit,
        };
        let rows_for = |steps: u64| {
            let total: u64 = cost.iter().filter_map(|sums| sums.last()).sum();
            let there: usize = members.iter().map(Vec::len).sum();
            let budget_rows = (there as f64 * limit as f64 / total.max(1) as f64) as u64;
            budget_rows.div_ceil(steps)
        };
        let chunk = match chunk {
            ChunkSize::Rows(rows) => rows,
            ChunkSize::Cluster => u32::MAX,
            ChunkSize::Steps(steps) => rows_for(steps.max(1)).max(1) as u32,
            ChunkSize::Auto => {
                let smallest = SMALLEST_CHUNK.min(rows_for(STEPS / 2));
                rows_for(STEPS).max(smallest).max(1) as u32
            }
        };
        let clusters = members
            .iter()
            .map(|members| members.iter().map(|&i| rows[i as usize]).collect())
            .collect();
        Self {
            clusters,
            cost,
            chunk,
            limit,
        }
    }

    /// The number of clusters, which is the number of actions.
    pub fn clusters(&self) -> usize {
        self.clusters.len()
    }

    /// The number of rows of all clusters.
    pub fn rows_in_all(&self) -> usize {
        self.clusters.iter().map(Vec::len).sum()
    }

    /// The rows of a cluster in the order in which they are taken.
    pub fn cluster(&self, cluster: usize) -> &[RowId] {
        &self.clusters[cluster]
    }

    /// Rows in a full chunk; `None` where a chunk is a whole cluster.
    pub fn chunk(&self) -> Option<u32> {
        (self.chunk != u32::MAX).then_some(self.chunk)
    }

    /// The budget, in rows or tokens.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The state in which nothing is taken.
    pub fn empty(&self) -> State {
        State(vec![0; self.clusters.len()])
    }

    /// What the rows of a state cost, in units of the limit.
    pub fn spent(&self, state: &State) -> u64 {
        state
            .0
            .iter()
            .zip(&self.cost)
            .map(|(&taken, cost)| cost[taken as usize])
            .sum()
    }

    /// What each action would take: places in its cluster, or `None` where it is illegal.
    ///
    /// An action is legal while its cluster has rows left of which the first fits the remaining budget. The last chunk of
    /// an episode may be cut short; after it no action is legal, even if a cheaper row would still fit.
    pub fn legal(&self, state: &State) -> Vec<Option<Range<u32>>> {
        let cut = (0..self.clusters()).any(|c| {
            let taken = state.0[c];
            !taken.is_multiple_of(self.chunk) && (taken as usize) < self.clusters[c].len()
        });
        if cut {
            return vec![None; self.clusters()];
        }
        let left = self.limit.saturating_sub(self.spent(state));
        (0..self.clusters())
            .map(|c| {
                let (start, size) = (state.0[c], self.clusters[c].len() as u32);
                let cost = &self.cost[c];
                let full = start.saturating_add(self.chunk).min(size);
                let base = cost[start as usize];
                let end =
                    start + cost[start as usize + 1..=full as usize].partition_point(|&sum| sum - base <= left) as u32;
                (end > start).then_some(start..end)
            })
            .collect()
    }

    /// The state after a range that [`Pool::legal`] gave is taken.
    pub fn after(&self, state: &State, cluster: usize, range: &Range<u32>) -> State {
        let mut next = state.clone();
        next.0[cluster] = range.end;
        next
    }

    /// The rows at these places of a cluster.
    pub fn rows(&self, cluster: usize, range: &Range<u32>) -> &[RowId] {
        &self.clusters[cluster][range.start as usize..range.end as usize]
    }

    /// All rows of a state, cluster by cluster.
    pub fn rows_of(&self, state: &State) -> Vec<RowId> {
        state
            .0
            .iter()
            .zip(&self.clusters)
            .flat_map(|(&taken, rows)| rows[..taken as usize].iter().copied())
            .collect()
    }

    /// The state's chunks, cluster by cluster, as they were taken one at a time.
    pub fn chunks_of<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a [RowId]> {
        state.0.iter().zip(&self.clusters).flat_map(|(&taken, rows)| {
            let size = if self.chunk == u32::MAX {
                rows.len().max(1)
            } else {
                self.chunk as usize
            };
            rows[..taken as usize].chunks(size)
        })
    }

    /// The most steps an episode can have, which is how many evaluations one episode may cost.
    pub fn longest_episode(&self) -> u64 {
        // The cheapest chunks first.
        let mut prices: Vec<u64> = Vec::new();
        for cost in &self.cost {
            let size = cost.len() - 1;
            let chunk = if self.chunk == u32::MAX {
                size.max(1)
            } else {
                self.chunk as usize
            };
            let mut start = 0;
            while start < size {
                let end = (start + chunk).min(size);
                prices.push(cost[end] - cost[start]);
                start = end;
            }
        }
        prices.sort_unstable();
        let mut left = self.limit;
        let mut steps = 0;
        for price in prices {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(price);
            steps += 1;
        }
        steps
    }
}

/// The members of each cluster in random order.
///
/// # Panics
///
/// If an assignment names no cluster.
pub fn members(assignment: &[u32], clusters: usize, seed: Seed) -> Vec<Vec<u32>> {
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); clusters];
    for (i, &cluster) in (0..).zip(assignment) {
        members[cluster as usize].push(i);
    }
    for (cluster, members) in members.iter_mut().enumerate() {
        members.shuffle(&mut seed.index(cluster as u64).rng());
    }
    members
}

impl FromStr for ChunkSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "cluster" => Ok(Self::Cluster),
            _ => match text.split_once(' ') {
                Some((steps, "steps")) => steps.parse().ok().filter(|&steps| steps > 0).map(Self::Steps),
                _ => text
                    .parse()
                    .ok()
                    .filter(|&rows| rows > 0 && rows < u32::MAX)
                    .map(Self::Rows),
            }
            .ok_or_else(|| {
                Error::setting(
                    "chunk",
                    "a number of rows above 0, `cluster`, `auto`, or a number of steps such as \"80 steps\"",
                    format!("`{text}`"),
                )
            }),
        }
    }
}

impl ChunkSize {
    /// What `auto` means where rows have one of so many labels: chunks of one cluster are much alike, so an episode needs steps for
    /// every label, twice over; at most 400, since more would leave too few episodes.
    #[must_use]
    pub fn for_labels(self, labels: usize) -> Self {
        match self {
            Self::Auto if 2 * labels as u64 > STEPS => Self::Steps((2 * labels as u64).min(MOST_STEPS)),
            other => other,
        }
    }
}

impl fmt::Display for ChunkSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Steps(steps) => write!(f, "{steps} steps"),
            Self::Rows(rows) => write!(f, "{rows}"),
            Self::Cluster => f.write_str("cluster"),
        }
    }
}

impl TryFrom<String> for ChunkSize {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ChunkSize> for String {
    fn from(chunk: ChunkSize) -> Self {
        chunk.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::RngExt;

    use super::*;

    /// Two clusters of 5 and 3 rows, chunks of 2.
    fn small(limit: Limit) -> Pool {
        let rows: Vec<RowId> = (0..8).collect();
        Pool::new(
            &rows,
            &[0, 0, 0, 0, 0, 1, 1, 1],
            &[3, 3, 3, 3, 3, 1, 1, 1],
            2,
            ChunkSize::Rows(2),
            limit,
            Seed(1),
        )
    }

    #[test]
    fn the_last_chunk_is_cut_so_that_the_budget_is_met_to_the_row() {
        let pool = small(Limit::Rows(3));
        let state = pool.empty();
        assert_eq!(pool.legal(&state), [Some(0..2), Some(0..2)]);
        let state = pool.after(&state, 1, &(0..2));
        // one row left to spend: of cluster 0 a chunk of 2 is cut to 1, of cluster 1 its last row fits whole
        assert_eq!(pool.legal(&state), [Some(0..1), Some(2..3)]);
        let full = pool.after(&state, 0, &(0..1));
        assert_eq!((pool.spent(&full), pool.legal(&full)), (3, vec![None, None]));
    }

    #[test]
    fn a_budget_in_tokens_is_never_overdrawn() {
        let pool = small(Limit::Tokens(7));
        let state = pool.after(&pool.empty(), 0, &(0..2));
        // 6 of 7 tokens are spent: a row of 3 no longer fits, a row of 1 does
        assert_eq!(pool.legal(&state), [None, Some(0..1)]);
    }

    #[test]
    fn whole_clusters_are_one_action_each() {
        let rows: Vec<RowId> = (0..8).collect();
        let pool = Pool::new(
            &rows,
            &[0, 0, 0, 0, 0, 1, 1, 1],
            &[1; 8],
            2,
            ChunkSize::Cluster,
            Limit::Rows(6),
            Seed(1),
        );
        let state = pool.after(&pool.empty(), 1, &(0..3));
        assert_eq!(pool.legal(&state), [Some(0..3), None]);
        assert_eq!(pool.longest_episode(), 2);
    }

    #[test]
    fn a_grain_reads_what_it_shows() {
        for grain in [
            ChunkSize::Auto,
            ChunkSize::Cluster,
            ChunkSize::Rows(7),
            ChunkSize::Steps(80),
        ] {
            assert_eq!(grain.to_string().parse::<ChunkSize>().expect("reads"), grain);
        }
        assert!("0".parse::<ChunkSize>().is_err() && "0 steps".parse::<ChunkSize>().is_err());
    }

    #[test]
    fn an_episode_has_40_steps_or_20_of_few_rows() {
        let rows: Vec<RowId> = (0..2000).collect();
        let chunk = |budget| {
            let limit = Limit::Rows(budget);
            Pool::new(&rows, &[0; 2000], &[1; 2000], 1, ChunkSize::Auto, limit, Seed(1)).chunk()
        };
        assert_eq!([1000, 160, 100, 40, 7].map(chunk), [25, 5, 5, 2, 1].map(Some));
    }

    #[test]
    fn many_labels_make_many_steps() {
        assert_eq!(ChunkSize::Auto.for_labels(2), ChunkSize::Auto);
        assert_eq!(ChunkSize::Auto.for_labels(77), ChunkSize::Steps(154));
        assert_eq!(ChunkSize::Auto.for_labels(1000), ChunkSize::Steps(400));
        assert_eq!(ChunkSize::Rows(9).for_labels(77), ChunkSize::Rows(9));
        let rows: Vec<RowId> = (0..8).collect();
        let limit = Limit::Rows(7);
        assert_eq!(
            Pool::new(&rows, &[0; 8], &[1; 8], 1, ChunkSize::Steps(4), limit, Seed(1)).chunk(),
            Some(2)
        );
    }

    proptest! {
        #[test]
        fn any_episode_meets_its_budget_and_takes_no_row_twice(
            assignment in proptest::collection::vec(0u32..6, 1..80), share in 0.01f64..1.0, chunk in 1u32..9, seed: u64, by_tokens: bool
        ) {
            let rows: Vec<RowId> = (0..assignment.len() as u32).collect();
            let tokens: Vec<u32> = rows.iter().map(|row| 1 + row % 5).collect();
            let total = if by_tokens { tokens.iter().sum::<u32>() as u64 } else { rows.len() as u64 };
            let amount = ((total as f64 * share) as u64).max(1);
            let limit = if by_tokens { Limit::Tokens(amount) } else { Limit::Rows(amount) };
            let pool = Pool::new(&rows, &assignment, &tokens, 6, ChunkSize::Rows(chunk), limit, Seed(seed));
            let mut state = pool.empty();
            let mut rng = Seed(seed).rng();
            let mut steps = 0;
            loop {
                let legal = pool.legal(&state);
                let open: Vec<usize> = (0..6).filter(|&c| legal[c].is_some()).collect();
                if open.is_empty() { break; }
                let cluster = open[rng.random_range(0..open.len())];
                state = pool.after(&state, cluster, legal[cluster].as_ref().expect("open"));
                steps += 1;
            }
            let mut chosen = pool.rows_of(&state);
            let from_chunks: Vec<RowId> = pool.chunks_of(&state).flatten().copied().collect();
            prop_assert_eq!(&chosen, &from_chunks);
            chosen.sort_unstable();
            chosen.dedup();
            prop_assert_eq!(chosen.len(), state.taken().iter().sum::<u32>() as usize);
            prop_assert!(pool.spent(&state) <= amount);
            prop_assert!(steps <= pool.longest_episode());
            if by_tokens { prop_assert!(amount - pool.spent(&state) < 5) } else { prop_assert_eq!(pool.spent(&state), amount) }
        }
    }
}
