//! How files are written: whole, or not at all.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempPath};

use crate::{Error, Result};

/// What the names of temporary files begin with.
const PREFIX: &str = ".tamis-";
/// What they end in.
const SUFFIX: &str = ".partial";

/// Writes a file under a temporary name beside it, syncs it, and only then gives it its name.
///
/// The temporary file is made anew under a name that nobody can guess, so a link that waits in its place leads nowhere.
///
/// # Errors
///
/// If anything cannot be written.
pub fn write_whole<E: From<Error>>(
    path: &Path,
    write: &mut dyn FnMut(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let partial = written_beside(path, write)?;
    partial
        .persist(path)
        .map_err(|error| Error::io(path, "write")(error.error))?;
    Ok(())
}

/// The same where no file of this name is there; one that is stays as it is.
///
/// # Errors
///
/// If anything cannot be written.
pub fn write_whole_if_new<E: From<Error>>(
    path: &Path,
    write: &mut dyn FnMut(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    match written_beside(path, write)?.persist_noclobber(path) {
        Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::io(path, "write")(error.error).into())
        }
        _ => Ok(()),
    }
}

/// Writes a file under a temporary name beside this one, and syncs it.
fn written_beside<E: From<Error>>(
    path: &Path,
    write: &mut dyn FnMut(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<TempPath, E> {
    let failed = || Error::io(path, "write");
    let (file, partial) = temporary_beside(path).map_err(failed())?.into_parts();
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.flush().map_err(failed())?;
    out.get_ref().sync_all().map_err(failed())?;
    Ok(partial)
}

/// Whether a file of this name is one that a killed process left unfinished.
pub fn is_leftover(name: &std::ffi::OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(PREFIX.as_bytes()) && name.ends_with(SUFFIX.as_bytes())
}

/// Removes what killed processes left unfinished in a folder and those below it. Links are not followed.
///
/// # Errors
///
/// If a folder cannot be read, or a file cannot be removed.
pub fn remove_leftovers(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "read"))? {
        let entry = entry.map_err(Error::io(folder, "read"))?;
        let (path, kind) = (entry.path(), entry.file_type());
        let kind = kind.map_err(Error::io(&path, "read"))?;
        if kind.is_dir() {
            remove_leftovers(&path)?;
        } else if kind.is_file() && is_leftover(&entry.file_name()) {
            fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
        }
    }
    Ok(())
}

/// A new file in the folder of this one, with the permissions of any other new file. It is removed unless it is given a name.
fn temporary_beside(path: &Path) -> std::io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) -> Result<()> {
        write_whole(path, &mut |out| {
            out.write_all(text.as_bytes()).map_err(Error::io(path, "write"))
        })
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("reads");
        let name =
            |entry: std::io::Result<fs::DirEntry>| entry.expect("reads").file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        write(&path, "first").expect("writes");
        let failed: Result<()> = write_whole(&path, &mut |out| {
            out.write_all(b"half").map_err(Error::io(&path, "write"))?;
            Err(Error::Interrupted)
        });
        assert!(matches!(failed, Err(Error::Interrupted)));
        assert_eq!(fs::read_to_string(&path).expect("reads"), "first");
        write_whole_if_new::<Error>(&path, &mut |_| Ok(())).expect("leaves it alone");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "first");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn no_link_is_followed_and_others_may_read_as_they_may_any_new_file() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "precious").expect("writes");
        symlink(at("victim"), at("a")).expect("links");
        symlink(at("victim"), at("a.partial")).expect("links");
        write(&at("a"), "new").expect("writes");
        assert_eq!(fs::read_to_string(at("victim")).expect("reads"), "precious");
        assert!(!at("a").is_symlink());
        let mode = |name: &str| fs::metadata(at(name)).expect("is there").permissions().mode();
        assert_eq!(mode("a"), mode("victim"));
    }

    #[cfg(unix)]
    #[test]
    fn leftovers_of_our_own_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("below")).expect("a folder");
        for name in [
            ".tamis-1.partial",
            "below/.tamis-2.partial",
            "mine.partial",
            ".tamis-notes",
        ] {
            fs::write(at(name), "").expect("writes");
        }
        std::os::unix::fs::symlink(at("mine.partial"), at(".tamis-3.partial")).expect("links");
        remove_leftovers(folder.path()).expect("removes");
        assert_eq!(
            names(folder.path()),
            [".tamis-3.partial", ".tamis-notes", "below", "mine.partial"]
        );
        assert!(names(&at("below")).is_empty());
    }
}
