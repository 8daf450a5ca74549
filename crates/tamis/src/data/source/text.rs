//! The unpacked text of a file.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
};

use crate::{Error, Place, Result, data::source::format::Compression};

/// The most bytes of one record (a line, a row of CSV, an item of a JSON list) and of one text: 64 MiB. A longer one is a bad row.
pub(crate) const MOST_BYTES: usize = 64 << 20;

const BUFFER: usize = 1 << 20;

/// The unpacked bytes of a text file, less a byte order mark.
///
/// # Errors
///
/// If the file cannot be read, or is text in another encoding than UTF-8.
pub(crate) fn text_of(path: &Path, compression: Compression) -> Result<Box<dyn BufRead>> {
    let file = BufReader::with_capacity(BUFFER, File::open(path).map_err(Error::io(path, "read"))?);
    let mut reader: Box<dyn BufRead> = match compression {
        Compression::Plain => Box::new(file),
        Compression::Gzip => Box::new(BufReader::with_capacity(
            BUFFER,
            flate2::bufread::MultiGzDecoder::new(file),
        )),
        Compression::Zstd => Box::new(BufReader::with_capacity(
            BUFFER,
            zstd::stream::read::Decoder::with_buffer(file).map_err(Error::io(path, "read"))?,
        )),
    };
    let mut begins = Vec::new();
    reader
        .by_ref()
        .take(4)
        .read_to_end(&mut begins)
        .map_err(|error| read_failure(path, compression, error))?;
    // ASCII in UTF-16 has a zero byte beside each letter.
    if begins.starts_with(&[0xFF, 0xFE]) || begins.starts_with(&[0xFE, 0xFF]) || begins.contains(&0) {
        return Err(Error::data(
            Place::file(path),
            "text in UTF-8",
            "bytes of UTF-16, or of no text at all",
        )
        .with_hint("write the text in UTF-8, for instance with `iconv -f UTF-16 -t UTF-8 old > new`"));
    }
    let kept = if begins.starts_with(&[0xEF, 0xBB, 0xBF]) { 3 } else { 0 };
    Ok(Box::new(BufReader::with_capacity(
        BUFFER,
        Cursor::new(begins[kept..].to_vec()).chain(reader),
    )))
}

/// What stopped the reading of a file: the system, or what the file is packed in.
pub(crate) fn read_failure(path: &Path, compression: Compression, error: io::Error) -> Error {
    if compression == Compression::Plain || error.raw_os_error().is_some() {
        return Error::io(path, "read")(error);
    }
    let said = error.to_string();
    let (expected, found, way_out) = if said.contains("too much memory") || said.contains("window") {
        (
            "a window of at most 128 MiB",
            "a larger one (`zstd --long`)",
            "pack it anew without `--long`: `zstd -d --long=31 -c old.zst | zstd -o new.zst`",
        )
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        (
            "a packed file that is whole",
            "one that breaks off, or has other bytes behind it",
            "fetch or write the file again",
        )
    } else if compression == Compression::Gzip {
        (
            "gzip from its first byte to its last",
            "other bytes",
            "test it with `gzip -t`; where bytes of something else are behind it, unpack it with `gzip -dc` and pack it anew",
        )
    } else {
        (
            "Zstandard from its first byte to its last",
            "other bytes",
            "test it with `zstd -t`; where bytes of something else are behind it, unpack it with `zstd -dc` and pack it anew",
        )
    };
    Error::data(Place::file(path), expected, format!("{found} ({said})")).with_hint(way_out)
}
