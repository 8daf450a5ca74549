//! Randomness comes from a passed [`Seed`] and from nowhere else.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};

/// The source of all randomness in one part of a run.
///
/// Parts derive their own seeds by name, so that a change in one part never shifts the random numbers of another.
///
/// ```
/// use tamis_nn::Seed;
///
/// let seed = Seed(0).derive("k-means");
/// assert_eq!(seed, Seed(0).derive("k-means"));
/// assert_ne!(seed.index(0), seed.index(1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed of a named part.
    #[must_use]
    pub fn derive(self, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0.to_le_bytes()).update(name.as_bytes());
        Self::from_hash(&hasher.finalize())
    }

    /// The seed of one of several equal parts, such as episode `index`.
    #[must_use]
    pub fn index(self, index: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&self.0.to_le_bytes())
            .update(b"#")
            .update(&index.to_le_bytes());
        Self::from_hash(&hasher.finalize())
    }

    /// A generator that starts at this seed.
    pub fn rng(self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.0)
    }

    fn from_hash(hash: &blake3::Hash) -> Self {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_bytes()[..8]);
        Self(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_their_own_seeds_and_the_same_ones_every_time() {
        let seed = Seed(7);
        assert_eq!(seed.derive("k-means"), seed.derive("k-means"));
        assert_ne!(seed.derive("k-means"), seed.derive("folds"));
        assert_ne!(seed.index(1), seed.index(2));
        assert_ne!(seed.index(1), Seed(8).index(1));
    }
}
