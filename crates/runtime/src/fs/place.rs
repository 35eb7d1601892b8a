//! Path of a data directory, remembered in the directory itself: a copy of the directory shows by it
//! that the daemon of the original still runs.
//!
//! Copies would run under one id, adopt the same workers and end each other's. A directory that was
//! moved or restored has no running daemon at the remembered path, and remembers the new one.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use super::{
    atomic_file,
    locked_dir::{Error, id_path, lock_path},
    regular_file,
};

/// Name of the file.
pub(super) const FILE: &str = "directory";

/// Checks that `dir` is no copy of a directory that a running daemon uses, and remembers its path.
/// The caller holds the lock of `dir`, which is `held`. Blocks.
///
/// # Errors
/// [`Error::Copy`], or [`Error::Io`] if the file cannot be read or written.
pub(super) fn check(dir: &Path, daemon: &'static str, held: &File) -> Result<(), Error> {
    let path = dir.join(FILE);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let place = fs::canonicalize(dir).map_err(io(dir))?;
    let remembered = match regular_file::read(&path) {
        Ok(mut bytes) => {
            bytes.truncate(bytes.trim_ascii_end().len());
            Some(PathBuf::from(OsString::from_vec(bytes)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(Error::Io { path, source }),
    };
    match remembered {
        Some(remembered) if remembered == place => return Ok(()),
        Some(original) if has_same_id(dir, &original, daemon) && is_used(&original, daemon, held) => {
            return Err(Error::Copy { daemon, dir: dir.to_owned(), original });
        }
        Some(_) | None => {}
    }
    write(&place).map_err(io(&path))
}

/// Remembers the path again if the file was deleted. Returns whether it was.
pub(super) fn put_back(dir: &Path) -> io::Result<bool> {
    let is_missing = !dir.join(FILE).try_exists()?;
    if is_missing {
        write(&fs::canonicalize(dir)?)?;
    }
    Ok(is_missing)
}

fn write(place: &Path) -> io::Result<()> {
    let mut bytes = place.as_os_str().as_bytes().to_vec();
    bytes.push(b'\n');
    atomic_file::write(&place.join(FILE), &bytes)
}

/// Returns whether both directories have the same id. They do not if two directories were exchanged.
fn has_same_id(dir: &Path, original: &Path, daemon: &str) -> bool {
    let id = |dir| regular_file::read(&id_path(dir, daemon)).ok();
    id(dir).is_some_and(|own| id(original).is_none_or(|found| found.trim_ascii() == own.trim_ascii()))
}

/// Returns whether a running daemon holds the lock of `dir`, and it is another lock than `held`: one
/// directory may have several paths.
fn is_used(dir: &Path, daemon: &str, held: &File) -> bool {
    let Ok(file) = regular_file::open(&lock_path(dir, daemon)) else { return false };
    let key = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    // Shared, so that two daemons which look at the same moment do not see each other.
    key(&file) != key(held) && matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{LayoutFile, LockedDir};
    use stormkeeper_model::SupervisorId;

    const LAYOUT: LayoutFile =
        LayoutFile { kind: "supervisor", traces: &["supervisor-id"], remedy: "move the directory away" };

    fn acquire(dir: &Path) -> Result<LockedDir<SupervisorId>, Error> {
        LockedDir::acquire(dir, &LAYOUT, "h")
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir(to).expect("created");
        for entry in fs::read_dir(from).expect("listed") {
            let entry = entry.expect("listed");
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }

    fn files(dir: &Path) -> Vec<(OsString, Vec<u8>)> {
        let read = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.expect("listed");
            // The lock names its latest holder.
            (entry.file_name() != "supervisor.lock")
                .then(|| (entry.file_name(), fs::read(entry.path()).expect("read")))
        };
        let mut files: Vec<_> = fs::read_dir(dir).expect("listed").filter_map(read).collect();
        files.sort();
        files
    }

    #[test]
    fn copy_of_a_directory_in_use_is_refused_and_not_changed() {
        let parent = tempfile::tempdir().expect("a directory");
        let at = |name: &str| parent.path().canonicalize().expect("absolute").join(name);
        let original = acquire(&at("s2")).expect("free");
        copy(&at("s2"), &at("s9"));
        let before = files(&at("s9"));
        let refused = acquire(&at("s9")).expect_err("the original is in use");
        let text = refused.to_string();
        for expected in [at("s2"), at("s9")].map(|path| path.display().to_string()) {
            assert!(text.contains(&expected), "{text}");
        }
        assert!(text.contains("empty storm.local.dir") && text.contains("stop"), "{text}");
        assert_eq!(files(&at("s9")), before);

        // Without a running original, it is a directory that was restored or moved.
        let id = original.id.clone();
        drop(original);
        let restored = acquire(&at("s9")).expect("the original is not in use");
        assert_eq!(restored.id, id);
        drop(restored);
        fs::rename(at("s9"), at("s10")).expect("moved");
        drop(acquire(&at("s10")).expect("moved"));
        // It remembers the new path only.
        let _original = acquire(&at("s2")).expect("free");
        acquire(&at("s10")).expect("no copy of a directory any more");
    }

    #[test]
    fn exchanged_directories_are_no_copies() {
        let parent = tempfile::tempdir().expect("a directory");
        let at = |name: &str| parent.path().join(name);
        for name in ["s1", "s2"] {
            drop(acquire(&at(name)).expect("free"));
        }
        for (from, to) in [("s1", "s"), ("s2", "s1"), ("s", "s2")] {
            fs::rename(at(from), at(to)).expect("moved");
        }
        let _first = acquire(&at("s1")).expect("moved");
        acquire(&at("s2")).expect("moved, and its former path has another supervisor");
    }

    #[test]
    fn another_path_of_the_same_directory_is_no_copy() {
        let parent = tempfile::tempdir().expect("a directory");
        let at = |name: &str| parent.path().join(name);
        drop(acquire(&at("s")).expect("free"));
        std::os::unix::fs::symlink("s", at("link")).expect("linked");
        fs::write(at("s").join(FILE), at("link").as_os_str().as_bytes()).expect("written");
        drop(acquire(&at("s")).expect("the lock at the remembered path is its own"));
        drop(acquire(&at("link")).expect("the same directory"));
    }
}
