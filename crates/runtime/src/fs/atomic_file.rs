//! Atomic replacement of files: a reader finds either the old or the new bytes at any moment.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::regular_file;

/// Replaces the file at `path`. The new bytes are on disk when this returns. Only one caller at a
/// time may replace a file: its bytes are first written to `path` with the suffix `.tmp`.
///
/// # Errors
/// If the file cannot be written; the old file is still there then.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    rename(&temporary, path)
}

/// Replaces the file at `path` as [`write()`] does, without waiting for the disk: after a power
/// loss the file may be old, empty or missing.
///
/// # Errors
/// If the file cannot be written; the old file is still there then.
pub fn write_volatile(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    create(&temporary)?.write_all(bytes)?;
    fs::rename(&temporary, path)
}

/// Renames a file or directory whose bytes are synced to disk. The rename is on disk when this
/// returns.
///
/// # Errors
/// If the file system reports an error.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Syncs the directory that contains `path`, so that a rename or removal of `path` survives a power
/// loss.
///
/// # Errors
/// If the file system reports an error.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// Syncs a directory, so that renames, new names and removals in it survive a power loss.
///
/// # Errors
/// If the file system reports an error.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates or empties a file. Fails at once if a FIFO is in its place.
fn create(path: &Path) -> io::Result<File> {
    regular_file::open_with(path, File::options().write(true).create(true).truncate(true))
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_replaced_and_no_temporary_file_remains() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("7000.json");
        for (n, replace) in [write, write_volatile, write].into_iter().enumerate() {
            replace(&path, format!("{n}").as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("read"), n.to_string());
            assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
        }
    }

    #[test]
    fn failed_replacement_keeps_the_old_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("state");
        write(&path, b"old").expect("written");
        fs::create_dir(dir.path().join("state.tmp")).expect("in the way");
        for replace in [write, write_volatile] {
            replace(&path, b"new").expect_err("the temporary name is taken by a directory");
            assert_eq!(fs::read(&path).expect("read"), b"old");
        }
    }
}
