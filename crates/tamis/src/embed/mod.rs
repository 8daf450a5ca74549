//! Texts become vectors: the [`Embedder`] seam and what stands behind it.

pub mod cache;
pub mod encoder;
pub mod lexical;
pub(crate) mod pooled;
pub(crate) mod pooling;
pub mod precomputed;
pub mod spec;

use std::sync::Arc;

use tamis_nn::{Fingerprint, Matrix, Monitor};

use crate::Result;

pub use crate::vectors::VectorStore;
pub use spec::EmbedderSpec;

/// Turns texts into vectors of one length.
pub trait Embedder: Sync {
    /// What the vectors depend on: model, weights, settings. Equal fingerprints, equal vectors.
    fn fingerprint(&self) -> &Fingerprint;

    /// The length of a vector.
    fn dim(&self) -> usize;

    /// One row a text, in order, shape `(texts.len(), dim)`, each of unit length (or zero where a text holds nothing the
    /// embedder knows). Advances `monitor` by one a text; begins and ends no stage.
    ///
    /// # Errors
    ///
    /// If a file of the model cannot be read, or the user asked to stop.
    fn embed(&self, texts: &[&str], monitor: &dyn Monitor) -> Result<Matrix>;

    /// How many tokens a text has, for budgets in tokens: the model's own, or those of [`lexical::count_tokens`].
    ///
    /// # Errors
    ///
    /// If the model's tokenizer fails.
    fn count_tokens(&self, text: &str) -> Result<TextLength>;
}

/// The length of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextLength {
    /// Its tokens, uncut.
    pub tokens: u32,
    /// Whether the embedder reads its beginning only.
    pub truncated: bool,
}

impl TextLength {
    /// The length of a text that is read whole.
    pub fn whole(tokens: u32) -> Self {
        Self {
            tokens,
            truncated: false,
        }
    }
}

/// The vectors of a split: a classification example has one, a pair two, a question one and one for each choice.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// All vectors, in the order of the examples and of [`Input::texts`](crate::data::Input::texts) within one.
    pub vectors: Arc<dyn VectorStore>,
    /// Example `i` owns the vectors `starts[i]..starts[i + 1]`; shape `(examples + 1,)`, the first is 0.
    pub starts: Vec<u32>,
}

impl Embedded {
    /// How many examples there are.
    pub fn examples(&self) -> usize {
        self.starts.len() - 1
    }

    /// Which vectors belong to example `i`.
    pub fn vectors_of(&self, i: usize) -> std::ops::Range<usize> {
        self.starts[i] as usize..self.starts[i + 1] as usize
    }
}
