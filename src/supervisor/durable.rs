//! Files that are whole after a power loss.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// Replaces the file at `path`: whoever reads it, at whatever moment, finds the old bytes or
/// the new. The new ones are on disk when this returns. Blocks.
///
/// # Errors
/// When the file system refuses; the old file is still there then.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let mut file = File::create(&name)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&name, path)?;
    sync_dir(path)
}

/// Makes a rename or removal of `path` last. Blocks.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
