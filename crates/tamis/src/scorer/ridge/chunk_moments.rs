//! The moments of each chunk, computed once and kept within a memory limit. What does not fit is computed again by the same code in the same
//! order, so the limit never changes a bit of a result.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    Result,
    data::RowId,
    scorer::ridge::{
        probe_data::ProbeData,
        regression::{Scratch, SufficientStatistics},
    },
};

/// The moments of chunks of one design.
pub(crate) struct ChunkMoments {
    design: Arc<ProbeData>,
    /// The most bytes that are kept.
    memory: usize,
    kept: RwLock<Kept>,
}

/// By the exact list of rows.
#[derive(Default)]
struct Kept {
    moments: HashMap<Box<[RowId]>, Arc<SufficientStatistics>>,
    bytes: usize,
}

impl ChunkMoments {
    pub(crate) fn new(design: Arc<ProbeData>, memory: usize) -> Self {
        Self {
            design,
            memory,
            kept: RwLock::default(),
        }
    }

    /// How many chunks' moments are kept, and their bytes.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> (usize, usize) {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        (kept.moments.len(), kept.bytes)
    }

    /// The moments of a chunk; kept if there is room left.
    pub(crate) fn of(&self, rows: &[RowId], scratch: &mut Scratch) -> Result<Arc<SufficientStatistics>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(moments) = kept.moments.get(rows) {
            return Ok(Arc::clone(moments));
        }
        drop(kept);
        let moments = Arc::new(SufficientStatistics::of(&self.design, rows, scratch)?);
        let bytes = moments.bytes() + size_of_val(rows);
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + bytes <= self.memory && !kept.moments.contains_key(rows) {
            kept.bytes += bytes;
            kept.moments.insert(rows.into(), Arc::clone(&moments));
        }
        Ok(moments)
    }
}
