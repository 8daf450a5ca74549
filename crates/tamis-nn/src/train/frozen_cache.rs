//! What the frozen layers give: computed once a row, and kept while it fits a memory limit.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use rayon::prelude::*;

use crate::{
    encoder::{Dtype, EncoderWeights, OutputTokens, PrepackedLayers, Scratch},
    train::batch::TokenizedSplit,
};

/// Tokens of a batch that one thread runs through the frozen layers at a time.
const BATCH_TOKENS: usize = 1024;

/// The vectors of one example's tokens.
type Vectors = Arc<[f32]>;

/// The output of the lowest layers for the examples of one split. It can be shared by models that differ only above them.
pub struct FrozenLayerCache {
    layers: usize,
    prepack: OnceLock<PrepackedLayers>,
    /// The most bytes that are kept; the rest is computed again.
    memory: usize,
    kept: RwLock<(HashMap<u32, Vectors>, usize)>,
}

impl FrozenLayerCache {
    /// Nothing yet, of the lowest `layers` layers and the embeddings.
    pub fn new(layers: usize, memory: usize) -> Self {
        Self {
            layers,
            prepack: OnceLock::new(),
            memory,
            kept: RwLock::default(),
        }
    }

    /// How many layers are frozen.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// The vectors of these examples, one behind the other, shape `(tokens, hidden)`.
    pub fn vectors(&self, encoder: &EncoderWeights, data: &TokenizedSplit, examples: &[u32]) -> Vec<f32> {
        let mut found: Vec<Option<Vectors>> = {
            let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
            examples.iter().map(|example| kept.0.get(example).cloned()).collect()
        };
        let missing: Vec<u32> = (examples.iter().zip(&found))
            .filter_map(|(&example, found)| found.is_none().then_some(example))
            .collect();
        let layers = self
            .prepack
            .get_or_init(|| encoder.prepack(0..self.layers, Dtype::Float32));
        let computed: Vec<Vec<Vectors>> = data
            .parts(&missing, BATCH_TOKENS)
            .into_par_iter()
            .map_init(Scratch::default, |scratch, part| {
                let batch = data.batch(part);
                let hidden = encoder.shape.hidden;
                let mut rest = encoder.forward(layers, batch.packed(), OutputTokens::All, scratch);
                let mut vectors = Vec::with_capacity(part.len());
                for &example in part {
                    let (one, tail) = rest.split_at(data.tokens_of(example) * hidden);
                    vectors.push(Vectors::from(one));
                    rest = tail;
                }
                vectors
            })
            .collect();
        let mut computed = computed.into_iter().flatten();
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        for (slot, &example) in found.iter_mut().zip(examples) {
            if slot.is_none()
                && let Some(vectors) = computed.next()
            {
                let bytes = size_of_val(&*vectors);
                if kept.1 + bytes <= self.memory && !kept.0.contains_key(&example) {
                    kept.1 += bytes;
                    kept.0.insert(example, Arc::clone(&vectors));
                }
                *slot = Some(vectors);
            }
        }
        drop(kept);
        let mut out = Vec::new();
        for vectors in found.into_iter().flatten() {
            out.extend_from_slice(&vectors);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{test_util::tiny_encoder, train::batch::Objective};

    #[test]
    fn what_is_kept_is_what_is_computed() {
        let weights = tiny_encoder(20, 9);
        let mut data = TokenizedSplit::new(2);
        for row in 0..5u32 {
            let tokens: Vec<u32> = (0..=row).collect();
            let types = vec![0; tokens.len()];
            data.push([(tokens, types)], Objective::Class(0));
        }
        let examples = [3, 0, 4, 1];
        let roomy = FrozenLayerCache::new(1, 1 << 20);
        let first = roomy.vectors(&weights, &data, &examples);
        let tight = FrozenLayerCache::new(1, 8 * 4 * 5);
        assert_eq!(first.len(), (4 + 1 + 5 + 2) * 8);
        assert_eq!(roomy.vectors(&weights, &data, &examples), first);
        assert_eq!(tight.vectors(&weights, &data, &examples), first);
        assert_eq!(tight.vectors(&weights, &data, &examples), first);
        assert_eq!(roomy.vectors(&weights, &data, &[0]), first[4 * 8..5 * 8]);
    }
}
