//! Vectors in a file, as 16-bit floating-point numbers.
//!
//! They are read where they are needed by positional reads, so that what stands in the system's cache of files is not this process's
//! memory. The file has no name: it is gone when the process is, however that ends.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufWriter, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use half::{f16, slice::HalfFloatSliceExt};

use crate::{Error, Result, vectors::VectorStore};

/// Numbers that are converted together.
const CONVERTED: usize = 1 << 16;

/// Bytes of a number.
pub(crate) const BYTES: usize = size_of::<f16>();

/// Vectors on their way to disk.
pub(crate) struct Writer {
    file: BufWriter<File>,
    folder: PathBuf,
    dim: usize,
    numbers: usize,
    halves: Vec<f16>,
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(folder: &Path, dim: usize) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(Error::io(folder, "create"))?;
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, file),
            folder: folder.to_path_buf(),
            dim,
            numbers: 0,
            halves: Vec::new(),
            bytes: Vec::new(),
        })
    }

    pub(crate) fn push(&mut self, vectors: &[f32]) -> Result<()> {
        for vectors in vectors.chunks(CONVERTED) {
            self.halves.resize(vectors.len(), f16::ZERO);
            self.halves.convert_from_f32_slice(vectors);
            self.bytes.clear();
            self.bytes.extend(self.halves.iter().flat_map(|x| x.to_le_bytes()));
            let written = self.file.write_all(&self.bytes);
            written.map_err(Error::io(&self.folder, "write vectors"))?;
        }
        self.numbers += vectors.len();
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<OnDisk> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error);
        Ok(OnDisk {
            file: file.map_err(Error::io(&self.folder, "write vectors"))?,
            count: self.numbers / self.dim.max(1),
            folder: self.folder,
            dim: self.dim,
        })
    }
}

/// Vectors in a file without a name.
#[derive(Debug)]
pub(crate) struct OnDisk {
    file: File,
    folder: PathBuf,
    count: usize,
    dim: usize,
}

impl OnDisk {
    /// Appends the vectors of a range.
    fn read_into(&self, range: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        assert!(range.end <= self.count, "vectors {range:?} of {}", self.count);
        let mut bytes = vec![0; range.len() * self.dim * BYTES];
        let at = (range.start * self.dim * BYTES) as u64;
        read_exact_at(&self.file, &mut bytes, at).map_err(Error::io(&self.folder, "read vectors"))?;
        let halves: Vec<f16> = bytes
            .as_chunks::<BYTES>()
            .0
            .iter()
            .map(|&bytes| f16::from_le_bytes(bytes))
            .collect();
        let from = out.len();
        out.resize(from + halves.len(), 0.0);
        halves.convert_to_f32_slice(&mut out[from..]);
        Ok(())
    }
}

impl VectorStore for OnDisk {
    fn count(&self) -> usize {
        self.count
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn rows(&self, range: Range<usize>) -> Result<Cow<'_, [f32]>> {
        let mut out = Vec::new();
        self.read_into(range, &mut out)?;
        Ok(Cow::Owned(out))
    }

    /// Neighbours are read together.
    fn gather_into(&self, vectors: &[u32], out: &mut Vec<f32>) -> Result<()> {
        for run in vectors.chunk_by(|&a, &b| a + 1 == b) {
            self.read_into(run[0] as usize..run[0] as usize + run.len(), out)?;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_written_rounded_to_half_precision() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Writer::new(folder.path(), 3).expect("a file");
        // 1 + 2^-12 lies between 1 and 1 + 2^-10, nearer to 1.
        writer.push(&[1.0, -0.5, 1.0 + 2f32.powi(-12)]).expect("writes");
        writer.push(&[0.25, 0.0, 3.0, 4.0, 5.0, 6.0]).expect("writes");
        let store = writer.finish().expect("is written");
        assert_eq!((store.count(), store.dim()), (3, 3));
        assert_eq!(*store.rows(0..2).expect("reads"), [1.0, -0.5, 1.0, 0.25, 0.0, 3.0]);
        let some = store.gather(&[1, 2, 0]).expect("reads");
        assert_eq!(some.as_slice(), [0.25, 0.0, 3.0, 4.0, 5.0, 6.0, 1.0, -0.5, 1.0]);
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("lists").count(),
            0,
            "no file has a name"
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = Writer::new(Path::new("/no/such/folder"), 3).err().expect("is refused");
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }
}
