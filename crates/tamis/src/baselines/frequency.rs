//! Rows drawn so that words are as frequent in them as in the reward fold: DSIR.
//!
//! A text is the multiset of its lower-cased words and pairs of neighbouring words, each hashed into one of 10,000 buckets. The
//! pool and the reward fold each give a distribution over buckets; a row's importance is the ratio of its probability
//! under the two. Rows are drawn without replacement in proportion to it: the largest of `ln importance + Gumbel noise`.
//!
//! Source: Xie et al., arXiv 2302.03169, section 4. Words, buckets and smoothing are those of the authors' package
//! `data-selection` 1.0.3 (`HashedNgramDSIR`), whose log weights ours equal up to rounding. We differ in two ways:
//!
//! 1. No row is too short to be drawn; the package passes over rows below 100 words unless it is told not to.
//! 2. The texts of a row are joined by a space.

use std::sync::LazyLock;

use rand::RngExt;
use rayon::prelude::*;
use regex::Regex;
use sha2::{Digest, Sha256};
use tamis_nn::seed::Seed;

use crate::baselines::View;

/// Buckets that words and pairs of words are hashed into.
const BUCKETS: usize = 10_000;

/// What is added to a bucket's probability before its logarithm is taken.
const SMOOTHING: f64 = 1e-8;

/// The log importance of each row of the pool, shape `(rows,)`: the log probability of its words in the reward fold less that in
/// the pool. Higher is more like the reward fold.
pub fn importance(view: &View<'_>) -> Vec<f64> {
    let pool = all_buckets(view.vectors.count(), view.texts);
    let fold = all_buckets(view.fold_vectors.rows(), view.fold_texts);
    let difference: Vec<f64> = log_probabilities(&fold)
        .iter()
        .zip(log_probabilities(&pool))
        .map(|(fold, pool)| fold - pool)
        .collect();
    pool.iter()
        .map(|buckets| buckets.iter().map(|&bucket| difference[bucket as usize]).sum())
        .collect()
}

/// The rows in the order in which they are drawn.
pub(crate) fn order(view: &View<'_>, seed: Seed) -> Vec<u32> {
    let mut rng = seed.derive("gumbel").rng();
    // -ln(-ln u) is Gumbel noise for u uniform in (0, 1), and 1 - [0, 1) holds no 0.
    let keys: Vec<f64> = importance(view)
        .into_iter()
        .map(|weight| weight - (-(1.0 - rng.random::<f64>()).ln()).ln())
        .collect();
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.sort_by(|&a, &b| keys[b as usize].total_cmp(&keys[a as usize]));
    order
}

/// The buckets of each row's texts.
fn all_buckets<'a>(rows: usize, texts: &(dyn Fn(usize) -> Vec<&'a str> + Sync)) -> Vec<Vec<u16>> {
    (0..rows)
        .into_par_iter()
        .map(|row| buckets(&texts(row).join(" ")))
        .collect()
}

/// The smoothed log probability of each bucket, shape `(BUCKETS,)`.
fn log_probabilities(texts: &[Vec<u16>]) -> Vec<f64> {
    let mut counts = vec![0u64; BUCKETS];
    for &bucket in texts.iter().flatten() {
        counts[bucket as usize] += 1;
    }
    let all = counts.iter().sum::<u64>().max(1) as f64;
    counts
        .iter()
        .map(|&count| (count as f64 / all + SMOOTHING).ln())
        .collect()
}

/// The buckets of a text's words, then those of its pairs of neighbouring words.
fn buckets(text: &str) -> Vec<u16> {
    let text = text.to_lowercase();
    let words = words(&text);
    let pairs = words.windows(2).map(|pair| bucket(&pair.join(" ")));
    words.iter().map(|word| bucket(word)).chain(pairs).collect()
}

/// Runs of letters, digits, marks and underscores, and runs of what is neither that nor a space, by the pattern of NLTK's
/// `WordPunctTokenizer`. What `\w` is agrees with NLTK 3.10, which matches by the module `regex`; before, by `re`, marks were no part of it.
fn words(text: &str) -> Vec<&str> {
    static WORDS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w+|[^\w\s]+").expect("the pattern is valid"));
    WORDS.find_iter(text).map(|word| word.as_str()).collect()
}

/// The SHA-256 of a word as a number, big end first, modulo the number of buckets.
fn bucket(word: &str) -> u16 {
    let hash = Sha256::digest(word.as_bytes());
    hash.iter()
        .fold(0, |rest, &byte| (rest * 256 + u32::from(byte)) % BUCKETS as u32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baselines::tests::Sample;

    #[test]
    fn words_and_buckets_are_those_of_the_package() {
        assert_eq!(
            words("it's 5 o'clock; a_b --\u{a0}brûlée..."),
            [
                "it", "'", "s", "5", "o", "'", "clock", ";", "a_b", "--", "brûlée", "..."
            ]
        );
        assert_eq!(
            words("कि x² \u{263a}\u{fe0f} a\u{203f}b"),
            ["कि", "x", "²", "\u{263a}", "\u{fe0f}", "a\u{203f}b"]
        );
        // python: from data_selection.hashed_ngram_dsir import hash_buckets; hash_buckets("cat"), hash_buckets("the cat"), ...
        assert_eq!([bucket("cat"), bucket("the cat"), bucket("très")], [2366, 143, 2320]);
    }

    #[test]
    fn weights_are_those_of_the_package() {
        // data-selection 1.0.3, with pool.jsonl and fold.jsonl of the texts below, one {"text": ...} a line:
        //   s = HashedNgramDSIR(["pool.jsonl"], ["fold.jsonl"], "cache", num_proc=1)
        //   s.fit_importance_estimator(); s.compute_importance_weights()
        //   print(numpy.load("cache/log_importance_weights/0.npy").tolist())
        let sample = Sample {
            texts: vec![
                "The cat sat on the mat.",
                "Dogs bark -- loudly!",
                "It's 5 o'clock; the cat sleeps_well",
                "",
                "Crème brûlée, très BON...",
                "the mat the mat",
            ],
            fold_texts: vec!["The cat sleeps on the mat.", "très bon!"],
            ..Sample::drawn(6, 2, 1)
        };
        let want = [
            -36.140_503_889_435_47,
            -113.257_958_241_953_65,
            -257.603_907_623_302_35,
            0.0,
            -110.816_954_889_399_01,
            -13.213_825_627_870_047,
        ];
        for (weight, want) in sample.view(importance).into_iter().zip(want) {
            assert!((weight - want).abs() < 1e-9, "{weight} {want}");
        }
    }

    #[test]
    fn rows_like_the_fold_are_drawn_first_and_the_seed_draws() {
        let mut sample = Sample::drawn(200, 20, 1);
        sample.texts = (0..200)
            .map(|row| if row < 20 { "warm bread" } else { "cold iron" })
            .collect();
        sample.fold_texts = vec!["warm bread"; 20];
        let mut first = sample.view(|view| order(view, Seed(1)))[..20].to_vec();
        assert_ne!(first, sample.view(|view| order(view, Seed(2)))[..20]);
        first.sort_unstable();
        assert_eq!(first, (0..20).collect::<Vec<u32>>());
    }
}
