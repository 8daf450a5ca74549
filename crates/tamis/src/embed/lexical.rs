//! Embeddings without a download: hashed word and character n-grams, TF-IDF, truncated SVD.
//!
//! A text's features are its words, pairs of neighbouring words, and the runs of 3 to 5 characters within its words (a
//! word's borders count as characters), hashed into a fixed number of buckets. Counts become 1 + ln(count), times the
//! smoothed inverse document frequency, at unit length; then the leading right singular vectors of a sample of the training
//! texts take them to a few hundred dimensions.
//!
//! Sources: Weinberger et al. 2009 (feature hashing); Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1 (randomised
//! SVD by subspace iteration).

use faer::Mat;
use rand::{RngExt, seq::index};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tamis_nn::{Fingerprint, Matrix, Monitor, kernels::elementwise::wide, seed::Seed};

use crate::{
    Error, Result,
    embed::{Embedder, TextLength},
    linalg::{Eigen, symmetric_eigen},
};

/// How many columns more than asked for the range finder uses.
const OVERSAMPLING: usize = 16;

/// Texts embedded between two looks at whether to stop.
const BLOCK: usize = 4096;

/// How texts become vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LexicalSettings {
    /// The length of a vector. Default: 256.
    pub dim: usize,
    /// Buckets that n-grams are hashed into. Default: 65,536.
    pub buckets: usize,
    /// The most training texts on which weights and singular vectors are fitted. Default: 20,000.
    pub fit_on: usize,
    /// Subspace iterations. Default: 2.
    pub iterations: usize,
}

impl Default for LexicalSettings {
    fn default() -> Self {
        Self {
            dim: 256,
            buckets: 1 << 16,
            fit_on: 20_000,
            iterations: 2,
        }
    }
}

impl LexicalSettings {
    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        // Upper bounds keep a slip of the hand from asking for more memory than there is.
        for (name, value, least, most) in [
            ("lexical.dim", self.dim, 1, 4096),
            ("lexical.buckets", self.buckets, 2, 1 << 20),
            ("lexical.fit_on", self.fit_on, 1, usize::MAX),
        ] {
            if !(least..=most).contains(&value) {
                let expected = if most == usize::MAX {
                    format!("at least {least}")
                } else {
                    format!("from {least} to {most}")
                };
                return Err(Error::setting(name, expected, value.to_string()));
            }
        }
        Ok(())
    }
}

/// A fitted embedder.
#[derive(Debug, Clone)]
pub struct Lexical {
    fingerprint: Fingerprint,
    /// Inverse document frequency of each bucket.
    idf: Vec<f32>,
    /// The leading right singular vectors, shape `(buckets, dim)`.
    basis: Matrix,
}

/// Sparse rows: the buckets and weights of one text after the other.
struct Sparse {
    starts: Vec<usize>,
    buckets: Vec<u32>,
    weights: Vec<f32>,
}

impl Lexical {
    /// Fits weights and singular vectors on (a sample of) the training texts.
    ///
    /// # Errors
    ///
    /// If a setting means nothing, or the user stopped the run.
    pub fn fit(settings: &LexicalSettings, texts: &[&str], seed: Seed, monitor: &dyn Monitor) -> Result<Self> {
        settings.check()?;
        let sample: Vec<&str> = if texts.len() > settings.fit_on {
            let mut rows = index::sample(&mut seed.derive("sample").rng(), texts.len(), settings.fit_on).into_vec();
            rows.sort_unstable();
            rows.into_iter().map(|row| texts[row]).collect()
        } else {
            texts.to_vec()
        };
        let counts: Vec<Vec<(u32, u32)>> = sample
            .par_iter()
            .map(|text| count_ngrams(text, settings.buckets))
            .collect();
        let mut documents = vec![0u32; settings.buckets];
        for (bucket, _) in counts.iter().flatten() {
            documents[*bucket as usize] += 1;
        }
        let idf: Vec<f32> = documents
            .iter()
            .map(|&d| ((1.0 + sample.len() as f32) / (1.0 + d as f32)).ln() + 1.0)
            .collect();
        monitor.proceed()?;
        let rows = Sparse::new(counts.iter().map(|counts| weigh(counts, &idf)));
        let basis = right_singular_vectors(&rows, settings, seed.derive("range"), monitor)?;
        let described = format!("lexical 1 {settings:?} {}", seed.0);
        let fingerprint = Fingerprint::of(std::iter::once(described.as_str()).chain(sample));
        Ok(Self {
            fingerprint,
            idf,
            basis,
        })
    }
}

impl Embedder for Lexical {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn dim(&self) -> usize {
        self.basis.cols()
    }

    fn embed(&self, texts: &[&str], monitor: &dyn Monitor) -> Result<Matrix> {
        let dim = self.dim();
        let mut out = Matrix::zeros(texts.len(), dim);
        for (texts, out) in texts.chunks(BLOCK).zip(out.as_mut_slice().chunks_mut(BLOCK * dim)) {
            monitor.proceed()?;
            texts
                .par_iter()
                .zip(out.par_chunks_mut(dim))
                .for_each(|(text, vector)| {
                    let weights = weigh(&count_ngrams(text, self.idf.len()), &self.idf);
                    wide(
                        #[inline(always)]
                        || {
                            for &(bucket, weight) in &weights {
                                add_scaled(vector, weight, self.basis.row(bucket as usize));
                            }
                        },
                    );
                    to_unit_length(vector);
                });
            monitor.advance(texts.len() as u64);
        }
        Ok(out)
    }

    fn count_tokens(&self, text: &str) -> Result<TextLength> {
        Ok(TextLength::whole(count_tokens(text)))
    }
}

/// About how many tokens a model would make of a text: one for each word and each punctuation mark, with two exceptions that
/// keep texts without spaces from counting as nothing.
///
/// - Chinese characters and kana count one each; of Thai, Lao, Khmer and Myanmar, two characters that were begun count one.
/// - A word of more than 12 characters, such as an address or a hash, counts one for every five characters that were begun.
///
/// ```
/// use tamis::embed::lexical::count_tokens;
///
/// assert_eq!(count_tokens("It's late!"), 5);
/// assert_eq!(count_tokens("日本語"), 3);
/// assert_eq!(count_tokens("0123456789abc"), 3);
/// ```
pub fn count_tokens(text: &str) -> u32 {
    let (mut tokens, mut run, mut kind) = (0, 0, CharKind::Space);
    for c in text.chars() {
        let next = CharKind::of(c);
        if next != kind {
            tokens += kind.tokens_of_run(run);
            (run, kind) = (0, next);
        }
        run += 1;
    }
    tokens + kind.tokens_of_run(run)
}

/// How a character counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CharKind {
    Space,
    /// A letter or a digit of a word that spaces end.
    Word,
    /// A character that is about a word.
    Ideograph,
    /// A character of a script without spaces between words.
    Unspaced,
    Mark,
}

impl CharKind {
    fn of(c: char) -> Self {
        match c {
            // Thai and Lao, Myanmar, Khmer, and the extensions of Myanmar: their vowel signs and tone marks are no letters.
            '\u{0e00}'..='\u{0eff}'
            | '\u{1000}'..='\u{109f}'
            | '\u{1780}'..='\u{17ff}'
            | '\u{a9e0}'..='\u{a9ff}'
            | '\u{aa60}'..='\u{aa7f}' => Self::Unspaced,
            // Kana, bopomofo, ideographs, half-width kana.
            '\u{3005}'..='\u{3007}'
            | '\u{3041}'..='\u{312f}'
            | '\u{31a0}'..='\u{31ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{ff66}'..='\u{ff9f}'
            | '\u{20000}'..='\u{3ffff}' => Self::Ideograph,
            c if c.is_alphanumeric() => Self::Word,
            c if c.is_whitespace() => Self::Space,
            _ => Self::Mark,
        }
    }

    fn tokens_of_run(self, characters: u32) -> u32 {
        match self {
            Self::Space => 0,
            Self::Word if characters <= 12 => characters.min(1),
            Self::Word => characters.div_ceil(5),
            Self::Unspaced => characters.div_ceil(2),
            Self::Ideograph | Self::Mark => characters,
        }
    }
}

/// The buckets of a text's n-grams with their counts, by bucket.
fn count_ngrams(text: &str, buckets: usize) -> Vec<(u32, u32)> {
    let lower = text.to_lowercase();
    let mut hashes = Vec::with_capacity(lower.len() * 4);
    let mut before: Option<&str> = None;
    let mut padded: Vec<char> = Vec::new();
    for word in lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        hashes.push(hash(b'w', word.bytes()));
        if let Some(before) = before {
            hashes.push(hash(b'p', before.bytes().chain([b' ']).chain(word.bytes())));
        }
        before = Some(word);
        padded.clear();
        padded.extend(std::iter::once(' ').chain(word.chars()).chain([' ']));
        for size in 3..=5 {
            hashes.extend(
                padded
                    .windows(size)
                    .map(|run| hash(b'c', run.iter().flat_map(|&c| (c as u32).to_le_bytes()))),
            );
        }
    }
    // Symbols and emoji carry mood; each counts as a word of its own.
    for symbol in lower.chars().filter(|c| !c.is_alphanumeric() && !c.is_whitespace()) {
        hashes.push(hash(b's', (symbol as u32).to_le_bytes()));
    }
    let mut all: Vec<u32> = hashes.into_iter().map(|hash| (hash % buckets as u64) as u32).collect();
    all.sort_unstable();
    let mut counts: Vec<(u32, u32)> = Vec::with_capacity(all.len());
    for bucket in all {
        match counts.last_mut() {
            Some((last, count)) if *last == bucket => *count += 1,
            _ => counts.push((bucket, 1)),
        }
    }
    counts
}

/// FNV-1a with a last mix, since buckets are taken by the low bits.
fn hash(kind: u8, bytes: impl IntoIterator<Item = u8>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in std::iter::once(kind).chain(bytes) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// TF-IDF weights at unit length.
fn weigh(counts: &[(u32, u32)], idf: &[f32]) -> Vec<(u32, f32)> {
    let mut weights: Vec<(u32, f32)> = counts
        .iter()
        .map(|&(bucket, count)| (bucket, (1.0 + (count as f32).ln()) * idf[bucket as usize]))
        .collect();
    let norm = weights.iter().map(|(_, w)| w * w).sum::<f32>().sqrt();
    weights.iter_mut().for_each(|(_, w)| *w /= norm);
    weights
}

#[inline(always)]
fn add_scaled(sum: &mut [f32], scale: f32, row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += scale * x);
}

fn to_unit_length(vector: &mut [f32]) {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 1e-12 {
        vector.iter_mut().for_each(|x| *x /= norm);
    } else {
        vector.fill(0.0);
    }
}

impl Sparse {
    fn new(rows: impl Iterator<Item = Vec<(u32, f32)>>) -> Self {
        let mut sparse = Self {
            starts: vec![0],
            buckets: Vec::new(),
            weights: Vec::new(),
        };
        for row in rows {
            sparse.buckets.extend(row.iter().map(|&(bucket, _)| bucket));
            sparse.weights.extend(row.iter().map(|&(_, weight)| weight));
            sparse.starts.push(sparse.buckets.len());
        }
        sparse
    }

    fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// The transpose, `columns` rows of it.
    fn transposed(&self, columns: usize) -> Self {
        let mut starts = vec![0; columns + 1];
        for &bucket in &self.buckets {
            starts[bucket as usize + 1] += 1;
        }
        for column in 0..columns {
            starts[column + 1] += starts[column];
        }
        let mut next = starts.clone();
        let (mut buckets, mut weights) = (vec![0; self.buckets.len()], vec![0.0; self.buckets.len()]);
        for row in 0..self.rows() {
            for i in self.starts[row]..self.starts[row + 1] {
                let at = &mut next[self.buckets[i] as usize];
                buckets[*at] = row as u32;
                weights[*at] = self.weights[i];
                *at += 1;
            }
        }
        Self {
            starts,
            buckets,
            weights,
        }
    }

    /// `self * dense`, shape `(rows, dense columns)`.
    fn times(&self, dense: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(self.rows(), dense.cols());
        out.as_mut_slice()
            .par_chunks_mut(dense.cols())
            .enumerate()
            .for_each(|(row, out)| {
                wide(
                    #[inline(always)]
                    || {
                        for i in self.starts[row]..self.starts[row + 1] {
                            add_scaled(out, self.weights[i], dense.row(self.buckets[i] as usize));
                        }
                    },
                );
            });
        out
    }
}

/// The leading right singular vectors of sparse rows, shape `(buckets, dim)`; zero columns where the rank is lower.
fn right_singular_vectors(
    rows: &Sparse,
    settings: &LexicalSettings,
    seed: Seed,
    monitor: &dyn Monitor,
) -> Result<Matrix> {
    let width = (settings.dim + OVERSAMPLING).min(rows.rows()).max(1);
    let columns = rows.transposed(settings.buckets);
    let mut rng = seed.rng();
    // Uniform entries serve as well as Gaussian ones: only their span matters.
    let mut omega = Matrix::zeros(settings.buckets, width);
    omega
        .as_mut_slice()
        .iter_mut()
        .for_each(|x| *x = rng.random::<f32>() * 2.0 - 1.0);
    let mut range = orthonormal(&rows.times(&omega));
    for _ in 0..settings.iterations {
        monitor.proceed()?;
        range = orthonormal(&rows.times(&columns.times(&range)));
    }
    // A = U S Vᵀ; with Bᵀ = Aᵀ Q, shape (buckets, width), and B Bᵀ = W S² Wᵀ, V = Bᵀ W S⁻¹.
    let b_t = columns.times(&range);
    let blocks: Vec<Vec<f64>> = b_t
        .as_slice()
        .par_chunks(width * 1024)
        .map(|block| {
            let mut gram = vec![0.0; width * width];
            wide(
                #[inline(always)]
                || {
                    for row in block.chunks_exact(width).filter(is_in_use) {
                        for (i, gram) in gram.chunks_exact_mut(width).enumerate() {
                            let scale = f64::from(row[i]);
                            for (sum, &x) in gram[..=i].iter_mut().zip(row) {
                                *sum += scale * f64::from(x);
                            }
                        }
                    }
                },
            );
            gram
        })
        .collect();
    let gram = Mat::from_fn(width, width, |i, j| {
        let (i, j) = (i.max(j), i.min(j));
        blocks.iter().map(|block| block[i * width + j]).sum::<f64>()
    });
    let Eigen { values, vectors } = symmetric_eigen(gram.as_ref(), "the singular vectors of the texts")?;
    let dim = settings.dim.min(width);
    // Eigenvalues rise; the leading ones stand last. A vector's sign is set by its largest entry in W.
    let mut turn = Matrix::zeros(width, settings.dim);
    for d in 0..dim {
        let from = width - 1 - d;
        let scale = values[from].max(0.0).sqrt();
        if scale < 1e-6 * values[width - 1].max(0.0).sqrt() || scale == 0.0 {
            continue;
        }
        let largest = (0..width)
            .max_by(|&a, &b| vectors[(a, from)].abs().total_cmp(&vectors[(b, from)].abs()))
            .unwrap_or(0);
        let sign = vectors[(largest, from)].signum();
        for i in 0..width {
            turn.row_mut(i)[d] = (sign * vectors[(i, from)] / scale) as f32;
        }
    }
    let mut basis = Matrix::zeros(settings.buckets, settings.dim);
    basis
        .as_mut_slice()
        .par_chunks_mut(settings.dim)
        .zip(b_t.as_slice().par_chunks(width))
        .filter(|(_, row)| is_in_use(row))
        .for_each(|(out, row)| {
            wide(
                #[inline(always)]
                || {
                    for (i, &x) in row.iter().enumerate() {
                        add_scaled(out, x, turn.row(i));
                    }
                },
            );
        });
    Ok(basis)
}

/// Whether a text has the bucket whose numbers these are.
fn is_in_use(row: &&[f32]) -> bool {
    row.iter().any(|&x| x != 0.0)
}

/// An orthonormal basis of the columns' span, by QR.
fn orthonormal(matrix: &Matrix) -> Matrix {
    let dense = Mat::from_fn(matrix.rows(), matrix.cols(), |i, j| matrix.row(i)[j]);
    let q = dense.qr().compute_thin_Q();
    let mut out = Matrix::zeros(q.nrows(), q.ncols());
    for i in 0..q.nrows() {
        out.row_mut(i).iter_mut().enumerate().for_each(|(j, x)| *x = q[(i, j)]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamis_nn::Silent;

    const TEXTS: [&str; 8] = [
        "my parcel is late again",
        "the parcel arrived late",
        "late parcels, every week",
        "I forgot my password",
        "password reset does not work",
        "cannot log in: wrong password",
        "thanks, all good!",
        "all good, thank you",
    ];

    fn fitted() -> Lexical {
        let settings = LexicalSettings {
            dim: 6,
            ..LexicalSettings::default()
        };
        Lexical::fit(&settings, &TEXTS, Seed(1), &Silent).expect("fits")
    }

    #[test]
    fn texts_alike_lie_closer_than_others() {
        let vectors = fitted()
            .embed(
                &["a late parcel", "parcel late", "reset the password", "", "zzz qqq"],
                &Silent,
            )
            .expect("embeds");
        let cosine =
            |a: usize, b: usize| -> f32 { vectors.row(a).iter().zip(vectors.row(b)).map(|(x, y)| x * y).sum() };
        assert!(
            cosine(0, 1) > 0.9 && cosine(0, 1) > cosine(0, 2) + 0.5,
            "{} {}",
            cosine(0, 1),
            cosine(0, 2)
        );
        assert!((cosine(0, 0) - 1.0).abs() < 1e-5);
        assert!(
            vectors.row(3).iter().all(|&x| x == 0.0),
            "a text without words has no direction"
        );
    }

    #[test]
    fn the_basis_is_orthonormal_and_spans_the_rows() {
        // 8 texts have at most 8 singular vectors: projecting on all of them loses nothing of a training text.
        let settings = LexicalSettings {
            dim: 8,
            ..LexicalSettings::default()
        };
        let lexical = Lexical::fit(&settings, &TEXTS, Seed(1), &Silent).expect("fits");
        for a in 0..8 {
            for b in 0..=a {
                let dot: f32 = lexical.basis.iter_rows().map(|row| row[a] * row[b]).sum();
                assert!(
                    (dot - f32::from(u8::from(a == b))).abs() < 1e-3,
                    "vectors {a} and {b}: {dot}"
                );
            }
        }
        for text in TEXTS {
            let weights = weigh(&count_ngrams(text, settings.buckets), &lexical.idf);
            let mut vector = vec![0.0; 8];
            weights
                .iter()
                .for_each(|&(bucket, weight)| add_scaled(&mut vector, weight, lexical.basis.row(bucket as usize)));
            let kept: f32 = vector.iter().map(|x| x * x).sum();
            assert!((kept - 1.0).abs() < 1e-3, "{text}: {kept} of its length is kept");
        }
    }

    #[test]
    fn one_seed_gives_one_answer_whatever_the_threads() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            pool.install(|| fitted().embed(&TEXTS, &Silent).expect("embeds"))
        };
        assert_eq!(run(1), run(2));
    }

    #[test]
    fn tokens_are_words_and_marks() {
        assert_eq!(count_tokens("It's 5 o'clock, déjà vu!"), 11);
        assert_eq!(count_tokens("  \n"), 0);
    }

    #[test]
    fn texts_without_spaces_count_more_than_one() {
        for (text, tokens) in [
            ("你好，世界", 5),
            ("ラーメンを食べる", 8),
            // Seven characters, two of them marks above or below others.
            ("ที่นี่ ok", 4),
            ("abcdefghijkl", 1),
            ("abcdefghijklm", 3),
            ("https://a.b/0123456789abcdef", 12),
            ("x한국어", 1),
        ] {
            assert_eq!(count_tokens(text), tokens, "{text}");
        }
    }
}
