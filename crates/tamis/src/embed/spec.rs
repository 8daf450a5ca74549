//! What the name of an embedder stands for.

use std::path::Path;

/// Whether this names a sentence encoder, and not the lexical embedder or a file of vectors.
pub(crate) fn is_encoder(embedder: &str) -> bool {
    embedder != "lexical" && !is_file(embedder)
}

/// Whether this names a file of vectors.
pub(crate) fn is_file(embedder: &str) -> bool {
    let extension = Path::new(embedder).extension();
    matches!(
        extension.and_then(|extension| extension.to_str()),
        Some("npy" | "safetensors")
    )
}
