//! Vectors kept on disk, so that no text is embedded twice by the same model, and no row's gradient worked out twice.
//!
//! One append-only file a source of vectors, named by its fingerprint. It is a row of blocks: a count (4 bytes, little-endian), that
//! many keys (16 bytes each, hashes of what vectors are of) and vectors (4 bytes a number), and 16 bytes of BLAKE3 over all of it. A block
//! is synced before the next is begun; what follows the last whole block is a torn tail, and is cut off. So a run that is killed while it
//! embeds goes on behind the last block.
//!
//! The cache saves time and nothing else: where it cannot be made, read or written, vectors are computed without it, and the monitor hears
//! a warning.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use tamis_nn::{Fingerprint, Matrix, Monitor, file_lock::try_lock, fingerprint::first_half};

use crate::{
    Error, Place, Result,
    embed::{Embedder, TextLength},
};

/// The most vectors that a block holds.
const BLOCK: usize = 1024;

/// The first bytes of a block's checksum.
type Checksum = [u8; 16];
/// What stands for a text or a row.
pub(crate) type Key = [u8; 16];

/// Vectors of one source that are kept.
#[derive(Debug)]
pub(crate) struct VectorCache {
    folder: PathBuf,
    path: PathBuf,
    dim: usize,
    /// Vectors that are worked out before they are kept: a few seconds' work.
    block: usize,
    /// Whether it has failed once: then it is left alone.
    failed: AtomicBool,
}

impl VectorCache {
    /// Keeps vectors of `dim` numbers in this folder, which is made if it is not there; so many at a time.
    pub(crate) fn new(folder: &Path, source: &Fingerprint, dim: usize, block: usize) -> Self {
        Self {
            path: folder.join(format!("{source}.vectors")),
            folder: folder.to_path_buf(),
            dim,
            block: block.clamp(1, BLOCK),
            failed: AtomicBool::new(false),
        }
    }

    /// A vector for each key, kept or worked out: `make` is given the places of keys, no key twice, and advances `monitor` by one each.
    pub(crate) fn vectors(
        &self,
        keys: &[Key],
        make: &mut dyn FnMut(&[usize]) -> Result<Matrix>,
        monitor: &dyn Monitor,
    ) -> Result<Matrix> {
        let mut places: HashMap<Key, Vec<u32>> = HashMap::new();
        let mut order = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let places = places.entry(*key).or_default();
            if places.is_empty() {
                order.push(i);
            }
            places.push(i as u32);
        }
        let mut out = Matrix::zeros(keys.len(), self.dim);
        let mut take = |key: &Key, vector: &[f32]| {
            if let Some(places) = places.remove(key) {
                for &place in &places {
                    out.row_mut(place as usize).copy_from_slice(vector);
                }
                monitor.advance(places.len() as u64);
            }
        };
        let mut file = if self.failed.load(Ordering::Relaxed) {
            None
        } else {
            self.unless_failed(self.read(&mut take), monitor).flatten()
        };
        let missing: Vec<usize> = order.into_iter().filter(|&i| places.contains_key(&keys[i])).collect();
        for block in missing.chunks(self.block) {
            let vectors = make(block)?;
            let own: Vec<Key> = block.iter().map(|&i| keys[i]).collect();
            if let Some(open) = &mut file
                && self.unless_failed(self.append(open, &own, &vectors), monitor).is_none()
            {
                file = None;
            }
            for (key, vector) in own.iter().zip(vectors.iter_rows()) {
                let places = &places[key];
                for &place in places {
                    out.row_mut(place as usize).copy_from_slice(vector);
                }
                // What made them has told of one each; their repetitions are done with it.
                monitor.advance(places.len() as u64 - 1);
            }
        }
        Ok(out)
    }

    /// Tells each vector that is kept; returns the file for more of them, if it is this process's to append to.
    fn read(&self, each: &mut dyn FnMut(&Key, &[f32])) -> Result<Option<File>> {
        std::fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder, "create"))?;
        // A link may lead to a file of the user's.
        if self.path.symlink_metadata().is_ok_and(|there| !there.is_file()) {
            let found = "a link, or no file at all";
            return Err(Error::data(Place::file(&self.path), "a file of vectors", found));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&self.path)
            .map_err(Error::io(&self.path, "write"))?;
        // Another process at work with the same model keeps the lock: then this one reads what is there and adds nothing.
        let mine = try_lock(&file).is_ok();
        let whole = read_blocks(&self.path, &file, self.dim, each)?;
        if !mine {
            return Ok(None);
        }
        file.set_len(whole)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(Error::io(&self.path, "write"))?;
        Ok(Some(file))
    }

    /// What the cache did; none where it failed, which the user is told.
    fn unless_failed<T>(&self, done: Result<T>, monitor: &dyn Monitor) -> Option<T> {
        done.map_err(|error| {
            self.failed.store(true, Ordering::Relaxed);
            monitor.warn(&format!(
                "{error}; vectors are computed without the cache, and not kept (`cache <folder>` names another)"
            ));
        })
        .ok()
    }

    fn append(&self, file: &mut File, keys: &[Key], vectors: &Matrix) -> Result<()> {
        let mut block = Vec::with_capacity(24 + keys.len() * (16 + 4 * vectors.cols()));
        block.extend((keys.len() as u32).to_le_bytes());
        keys.iter().for_each(|key| block.extend(key));
        vectors.as_slice().iter().for_each(|x| block.extend(x.to_le_bytes()));
        let sum = checksum(&block);
        block.extend(sum);
        file.write_all(&block)
            .and_then(|()| file.sync_data())
            .map_err(Error::io(&self.path, "write"))
    }
}

/// An embedder whose vectors are kept.
#[derive(Debug)]
pub struct Cached<E> {
    inner: E,
    cache: VectorCache,
}

impl<E: Embedder> Cached<E> {
    /// Keeps vectors in this folder, which is made if it is not there.
    pub fn new(inner: E, folder: &Path) -> Self {
        Self {
            cache: VectorCache::new(folder, inner.fingerprint(), inner.dim(), BLOCK),
            inner,
        }
    }
}

impl<E: Embedder> Embedder for Cached<E> {
    fn fingerprint(&self) -> &Fingerprint {
        self.inner.fingerprint()
    }

    fn dim(&self) -> usize {
        self.inner.dim()
    }

    fn embed(&self, texts: &[&str], monitor: &dyn Monitor) -> Result<Matrix> {
        let keys: Vec<Key> = texts.iter().map(|text| key_of(text.as_bytes())).collect();
        let mut make = |places: &[usize]| {
            let own: Vec<&str> = places.iter().map(|&i| texts[i]).collect();
            self.inner.embed(&own, monitor)
        };
        self.cache.vectors(&keys, &mut make, monitor)
    }

    fn count_tokens(&self, text: &str) -> Result<TextLength> {
        self.inner.count_tokens(text)
    }
}

/// What stands for these bytes.
pub(crate) fn key_of(bytes: &[u8]) -> Key {
    first_half(blake3::hash(bytes))
}

fn checksum(block: &[u8]) -> Checksum {
    first_half(blake3::hash(block))
}

/// Reads all whole blocks; returns where the last one ends.
fn read_blocks(path: &Path, file: &File, dim: usize, each: &mut dyn FnMut(&Key, &[f32])) -> Result<u64> {
    let length = file.metadata().map_err(Error::io(path, "read"))?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut end = 0;
    loop {
        let mut head = [0; 4];
        if length - end < 4 {
            return Ok(end);
        }
        reader.read_exact(&mut head).map_err(Error::io(path, "read"))?;
        let count = u64::from(u32::from_le_bytes(head));
        let body = count * (16 + 4 * dim as u64);
        if count == 0 || count > BLOCK as u64 || length - end < 4 + body + 16 {
            return Ok(end);
        }
        let mut block = head.to_vec();
        block.resize(4 + body as usize + 16, 0);
        reader.read_exact(&mut block[4..]).map_err(Error::io(path, "read"))?;
        let (content, sum) = block.split_at(4 + body as usize);
        if checksum(content) != sum {
            return Ok(end);
        }
        let (hashes, vectors) = content[4..].split_at(16 * count as usize);
        let mut vector = vec![0.0; dim];
        for (hash, bytes) in hashes.chunks_exact(16).zip(vectors.chunks_exact(4 * dim)) {
            for (x, bytes) in vector.iter_mut().zip(bytes.chunks_exact(4)) {
                *x = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            let mut own = [0; 16];
            own.copy_from_slice(hash);
            each(&own, &vector);
        }
        end += block.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, atomic::AtomicUsize};

    use proptest::prelude::*;

    use super::*;
    use tamis_nn::Silent;

    /// A vector of the text's length and first byte; counts how many texts it was asked for.
    struct Counting {
        fingerprint: Fingerprint,
        asked: AtomicUsize,
    }

    impl Counting {
        fn new() -> Self {
            Self {
                fingerprint: Fingerprint::of(["counting"]),
                asked: AtomicUsize::new(0),
            }
        }
    }

    impl Embedder for Counting {
        fn fingerprint(&self) -> &Fingerprint {
            &self.fingerprint
        }
        fn dim(&self) -> usize {
            2
        }
        fn embed(&self, texts: &[&str], _monitor: &dyn Monitor) -> Result<Matrix> {
            self.asked.fetch_add(texts.len(), Ordering::Relaxed);
            let values = texts
                .iter()
                .flat_map(|text| [text.len() as f32, f32::from(text.as_bytes()[0])])
                .collect();
            Ok(Matrix::from_vec(values, texts.len(), 2))
        }
        fn count_tokens(&self, _text: &str) -> Result<TextLength> {
            Ok(TextLength::whole(1))
        }
    }

    fn asked(folder: &Path, texts: &[&str]) -> usize {
        let (asked, warnings) = asked_and_warned(folder, texts);
        assert_eq!(warnings, [""; 0]);
        asked
    }

    /// How many texts the embedder was asked for, and of what the user was warned, when the texts are embedded twice by one cache.
    fn asked_and_warned(folder: &Path, texts: &[&str]) -> (usize, Vec<String>) {
        let cached = Cached::new(Counting::new(), folder);
        let heard = Warnings::default();
        let vectors = cached.embed(texts, &heard).expect("embeds");
        assert_eq!(vectors, Counting::new().embed(texts, &Silent).expect("embeds"));
        let asked = cached.inner.asked.load(Ordering::Relaxed);
        cached.embed(texts, &heard).expect("embeds again");
        (asked, heard.0.into_inner().expect("no thread died"))
    }

    /// Keeps what it is warned of.
    #[derive(Default)]
    struct Warnings(Mutex<Vec<String>>);

    impl Monitor for Warnings {
        fn begin(&self, _stage: &str, _total: Option<u64>) {}
        fn advance(&self, _steps: u64) {}
        fn note(&self, _text: &str) {}
        fn warn(&self, text: &str) {
            self.0.lock().expect("no thread died").push(text.to_owned());
        }
        fn end(&self) {}
        fn cancelled(&self) -> bool {
            false
        }
    }

    #[test]
    fn no_text_is_embedded_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(asked(folder.path(), &["a", "bb", "a"]), 2);
        assert_eq!(asked(folder.path(), &["bb", "ccc", "a", "ccc"]), 1);
        assert_eq!(asked(folder.path(), &["ccc"]), 0);
    }

    #[test]
    fn a_cache_that_cannot_be_used_costs_a_warning_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let vectors = format!("{}.vectors", Fingerprint::of(["counting"]));
        std::fs::write(at("file"), "mine").expect("writes");
        std::fs::create_dir_all(at("taken").join(&vectors)).expect("a folder");
        let mut folders = vec!["file", "taken"];
        #[cfg(unix)]
        {
            std::fs::create_dir(at("linked")).expect("a folder");
            std::os::unix::fs::symlink(at("file"), at("linked").join(&vectors)).expect("links");
            folders.push("linked");
        }
        for name in folders {
            let (asked, warnings) = asked_and_warned(&at(name), &["a", "bb", "a"]);
            assert_eq!(asked, 2);
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(
                warnings[0].contains(name) && warnings[0].contains("`cache <folder>`"),
                "{warnings:?}"
            );
        }
        assert_eq!(std::fs::read_to_string(at("file")).expect("reads"), "mine");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_crash_at_any_byte_costs_no_more_than_the_last_block(keep in 0.0f64..1.0, garbage in proptest::collection::vec(any::<u8>(), 0..40)) {
            let folder = tempfile::tempdir().expect("a folder");
            asked(folder.path(), &["a", "bb"]);
            asked(folder.path(), &["ccc", "dddd"]);
            let path = folder.path().join(format!("{}.vectors", Fingerprint::of(["counting"])));
            let mut bytes = std::fs::read(&path).expect("reads");
            let block = bytes.len() / 2;
            bytes.truncate((bytes.len() as f64 * keep) as usize);
            let whole = bytes.len() / block;
            bytes.extend(garbage);
            std::fs::write(&path, bytes).expect("writes");
            prop_assert_eq!(asked(folder.path(), &["a", "bb", "ccc", "dddd"]), 4 - 2 * whole);
            prop_assert_eq!(asked(folder.path(), &["a", "bb", "ccc", "dddd"]), 0);
        }
    }
}
