//! Atomic file replacement that survives a power loss.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// Replaces the file at `path`: a reader finds either the old or the new bytes at any moment. The
/// new bytes are on disk when this returns. Blocks.
///
/// # Errors
/// If the file cannot be written; the old file is still there then.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let mut file = File::create(&name)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&name, path)?;
    sync_dir(path)
}

/// Syncs the directory of `path`, so that a rename or removal of `path` survives a power loss.
/// Blocks.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
