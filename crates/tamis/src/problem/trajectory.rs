//! The way to a state: which chunks were taken, in which order.

use std::ops::Range;

use crate::env::pool::{Pool, State};

/// The chunks taken on the way to a state: of which cluster, and which of its rows.
pub type Trajectory = Vec<(usize, Range<u32>)>;

/// The state at the end of a path.
pub(crate) fn reached(pool: &Pool, path: &[(usize, Range<u32>)]) -> State {
    path.iter().fold(pool.empty(), |state, (cluster, range)| {
        pool.after(&state, *cluster, range)
    })
}
