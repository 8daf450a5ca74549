//! How files are written: whole, or not at all.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use crate::{Error, Result};

/// Writes a file under a temporary name beside it, syncs it, and only then gives it its name.
///
/// # Errors
///
/// If anything cannot be written.
pub fn write_whole<E: From<Error>>(
    path: &Path,
    write: &mut dyn FnMut(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let failed = || Error::io(path, "write");
    let mut written = || -> Result<(), E> {
        let mut out = BufWriter::new(File::create(&partial).map_err(failed())?);
        write(&mut out)?;
        out.flush().map_err(failed())?;
        out.get_ref().sync_all().map_err(failed())?;
        Ok(std::fs::rename(&partial, path).map_err(failed())?)
    };
    let written = written();
    if written.is_err() {
        // What could not be finished is of no use; that it cannot be removed either is no second error.
        let _ = std::fs::remove_file(&partial);
    }
    written
}
