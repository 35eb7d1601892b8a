//! Modes of the files of daemons: only their user may read them. They hold code and settings of
//! topologies, which often contain credentials.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::{fs::Mode, process::geteuid};
use tracing::{info, warn};

/// Mode of directories.
pub const DIR: u32 = 0o700;

/// Mode of files.
pub const FILE: u32 = 0o600;

/// The bits that a file or a directory of a daemon must not have.
const FOREIGN: u32 = 0o077;

/// Maximum depth of a tree whose modes are corrected.
const DEPTH_MAX: usize = 64;

/// Makes this process and its children create files and directories without rights for other users,
/// whatever the mode with which they create them.
pub fn restrict_new_files() {
    rustix::process::umask(Mode::from_raw_mode(FOREIGN));
}

/// Creates a directory and the missing ones above it with [`DIR`].
///
/// # Errors
/// If the file system reports an error.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIR).create(path)
}

/// Removes the rights of other users from `dir` and everything below it that belongs to the user of
/// this process. Links are not followed. Blocks.
pub fn restrict(dir: &Path) {
    let mut n_changed = 0;
    restrict_below(dir, 0, &mut n_changed);
    if n_changed > 0 {
        info!(dir = %dir.display(), n_changed, "took the rights of other users from files of this daemon");
    }
}

fn restrict_below(path: &Path, depth: usize, n_changed: &mut usize) {
    // Another process may have removed it since it was listed.
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if metadata.is_symlink() || metadata.uid() != geteuid().as_raw() {
        return;
    }
    let mode = metadata.mode();
    if mode & FOREIGN != 0 {
        match fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7700)) {
            Ok(()) => *n_changed += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot take the rights of other users from a file")
            }
        }
    }
    if metadata.is_dir() && depth < DEPTH_MAX {
        let entries = fs::read_dir(path).into_iter().flatten();
        entries.filter_map(Result::ok).for_each(|entry| restrict_below(&entry.path(), depth + 1, n_changed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_of_others_are_taken_from_all_files_and_links_are_not_followed() {
        let (dir, other) =
            (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;
        let set =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        let (below, script, foreign) =
            (dir.path().join("a/b"), dir.path().join("a/b/run.sh"), other.path().join("theirs"));
        fs::create_dir_all(&below).expect("created");
        fs::write(&script, "").expect("written");
        fs::write(&foreign, "").expect("written");
        std::os::unix::fs::symlink(&foreign, dir.path().join("link")).expect("linked");
        std::os::unix::fs::symlink(other.path(), dir.path().join("links")).expect("linked");
        [(dir.path(), 0o755), (&below, 0o755), (&script, 0o755), (&foreign, 0o644)]
            .into_iter()
            .for_each(|(path, mode)| set(path, mode));
        restrict(dir.path());
        assert_eq!([dir.path(), &below, &script].map(mode), [0o700; 3]);
        assert_eq!(mode(&foreign), 0o644);
        create_dir_all(&dir.path().join("x/y")).expect("created");
        assert_eq!([dir.path().join("x"), dir.path().join("x/y")].map(|path| mode(&path)), [0o700; 2]);
    }
}
