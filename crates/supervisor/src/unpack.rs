//! Unpacking a blob, which comes from an author and is not trusted.
//!
//! Only plain files, directories and symbolic links that stay inside are accepted. Nothing is
//! written through a link, so the path of an entry is its name, and a name that leaves the
//! directory is rejected. Owners and times are discarded; of the permissions, only the executable
//! bit is kept.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use tar::{Archive, Entry, EntryType};

/// Maximum number of entries: far more than any virtual environment of a component has.
const MAX_ENTRIES: usize = 200_000;

/// Maximum total size of all files; a sparse tar could claim any size.
const MAX_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// The file at the top of every blob.
pub(super) const TOPOLOGY_FILE: &str = "topology.json";

/// Cause of a failure to unpack a blob.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the blob is not a readable tar file")]
    Read(#[source] io::Error),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the blob's entry {name:?} {reason}")]
    Refused { name: String, reason: &'static str },
    #[error("the blob holds more than {MAX_ENTRIES} entries")]
    TooMany,
    #[error("the blob's files are larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the blob has no {TOPOLOGY_FILE} at its top")]
    NoTopology,
}

/// Unpacks the tar file at `blob` into the new directory `dir`. Blocks.
pub(super) fn unpack(blob: &Path, dir: &Path) -> Result<(), Error> {
    let write = |path: &Path, source| Error::Write { path: path.to_owned(), source };
    fs::create_dir(dir).map_err(|error| write(dir, error))?;
    let mut archive = Archive::new(File::open(blob).map_err(Error::Read)?);
    let mut n_bytes = 0u64;
    for (n, entry) in archive.entries().map_err(Error::Read)?.enumerate() {
        if n >= MAX_ENTRIES {
            return Err(Error::TooMany);
        }
        let mut entry = entry.map_err(Error::Read)?;
        n_bytes = n_bytes.saturating_add(entry.size());
        if n_bytes > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        unpack_entry(&mut entry, dir)?;
    }
    let topology = dir.join(TOPOLOGY_FILE);
    match fs::symlink_metadata(&topology) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(Error::NoTopology),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoTopology),
        Err(error) => Err(write(&topology, error)),
    }
}

fn unpack_entry(entry: &mut Entry<'_, File>, dir: &Path) -> Result<(), Error> {
    let name = entry.path().map_err(Error::Read)?.into_owned();
    let refused = |reason| Error::Refused { name: name.to_string_lossy().into_owned(), reason };
    let inside = inside(&name).ok_or_else(|| refused("has a path outside of the blob"))?;
    let path = dir.join(&inside);
    let write = |source| Error::Write { path: path.clone(), source };
    make_parents(dir, &inside).map_err(|error| match error {
        Parents::Occupied => refused("lies under something that is not a directory"),
        Parents::Io(error) => write(error),
    })?;
    let exists = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => refused("occurs twice"),
        _ => write(error),
    };
    match entry.header().entry_type() {
        EntryType::Directory => match fs::create_dir(&path) {
            // Created for an earlier entry, or the top itself.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_directory(&path) => Ok(()),
            made => made.map_err(exists),
        },
        EntryType::Regular | EntryType::Continuous => {
            let executable = entry.header().mode().map_err(Error::Read)? & 0o111 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            let mut file =
                File::options().write(true).create_new(true).mode(mode).open(&path).map_err(exists)?;
            match io::copy(entry, &mut file).map_err(write)? {
                n_bytes if n_bytes == entry.size() => Ok(()),
                _ => Err(Error::Read(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        EntryType::Symlink => {
            let target = entry
                .link_name()
                .map_err(Error::Read)?
                .ok_or_else(|| refused("is a link without a target"))?;
            if !stays_inside(&inside, &target) {
                return Err(refused("is a link to a path outside of the blob"));
            }
            symlink(&target, &path).map_err(exists)
        }
        EntryType::XGlobalHeader => Ok(()),
        _ => Err(refused("is neither a file, a directory nor a symbolic link")),
    }
}

/// The name as a path below the top; `None` if it is not below the top.
fn inside(name: &Path) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// Returns whether a link at `link` to `target` stays below the top. Steps upwards count from the
/// link's own directory, which is not a link, and must come first: after a name they would start
/// from the target of that name.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let depth = link.components().count().saturating_sub(1);
    let mut parts = target.components().filter(|part| *part != Component::CurDir).peekable();
    let mut n_up = 0;
    while parts.next_if_eq(&Component::ParentDir).is_some() {
        n_up += 1;
    }
    n_up <= depth && parts.all(|part| matches!(part, Component::Normal(_)))
}

enum Parents {
    Occupied,
    Io(io::Error),
}

/// Creates the missing directories above `inside`.
fn make_parents(dir: &Path, inside: &Path) -> Result<(), Parents> {
    let Some(parent) = inside.parent() else { return Ok(()) };
    let mut path = dir.to_owned();
    for part in parent.components() {
        path.push(part);
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !is_directory(&path) {
                    return Err(Parents::Occupied);
                }
            }
            Err(error) => return Err(Parents::Io(error)),
        }
    }
    Ok(())
}

/// True for a directory itself, false for a link to a directory.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tar::{Builder, Header};

    use super::*;

    struct Tar(Builder<Vec<u8>>);

    impl Tar {
        fn new() -> Self {
            Self(Builder::new(Vec::new())).file(TOPOLOGY_FILE, "{}", 0o600)
        }

        /// Sets the name by its bytes: the builder rejects some of the names tested here.
        fn add(mut self, name: &str, kind: EntryType, link: &str, mode: u32, data: &str) -> Self {
            let mut header = Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
            header.set_mode(mode);
            header.set_size(data.len() as u64);
            header.set_cksum();
            self.0.append(&header, data.as_bytes()).expect("appended");
            self
        }

        fn file(self, name: &str, data: &str, mode: u32) -> Self {
            self.add(name, EntryType::Regular, "", mode, data)
        }

        fn link(self, name: &str, target: &str) -> Self {
            self.add(name, EntryType::Symlink, target, 0o777, "")
        }

        fn unpack(self) -> Result<tempfile::TempDir, Error> {
            let top = tempfile::tempdir().expect("temporary directory");
            let blob = top.path().join("blob");
            fs::write(&blob, self.0.into_inner().expect("finished")).expect("written");
            unpack(&blob, &top.path().join("unpacked")).map(|()| top)
        }
    }

    #[test]
    fn files_directories_and_inner_links_are_unpacked() {
        let top = Tar::new()
            .add("resources/", EntryType::Directory, "", 0o755, "")
            .file("./resources/bin/run.sh", "#!/bin/sh", 0o4755)
            .file("resources/data", "1", 0o600)
            .link("resources/bin/data", "../data")
            .unpack()
            .expect("unpacked");
        let at = |name: &str| top.path().join("unpacked").join(name);
        assert_eq!(fs::read_to_string(at("resources/bin/data")).expect("read"), "1");
        let mode = |name| fs::metadata(at(name)).expect("there").permissions().mode() & 0o7777;
        assert_eq!(mode("resources/bin/run.sh") & 0o4100, 0o100);
        assert_eq!(mode("resources/data") & 0o111, 0);
    }

    #[test]
    fn entry_that_leaves_the_directory_is_rejected() {
        let cases: [(&str, Tar); 12] = [
            ("a parent", Tar::new().file("../x", "", 0o644)),
            ("a parent inside", Tar::new().file("a/../../x", "", 0o644)),
            ("an absolute name", Tar::new().file("/tmp/x", "", 0o644)),
            ("an absolute link", Tar::new().link("l", "/etc")),
            ("a link to a parent", Tar::new().link("a/l", "../../etc")),
            ("a link with a parent after a name", Tar::new().link("l", "a/../../etc")),
            ("a file through a link", Tar::new().link("l", "resources").file("l/x", "", 0o644)),
            ("a link through a link", Tar::new().link("a/b/l", "../..").link("a/b/l/m", "../../../x")),
            ("a hard link", Tar::new().add("h", EntryType::Link, "/etc/passwd", 0o644, "")),
            ("a device", Tar::new().add("d", EntryType::Char, "", 0o644, "")),
            ("a pipe", Tar::new().add("p", EntryType::Fifo, "", 0o644, "")),
            ("a duplicate name", Tar::new().file(TOPOLOGY_FILE, "", 0o644)),
        ];
        for (what, tar) in cases {
            assert!(matches!(tar.unpack(), Err(Error::Refused { .. })), "{what} was accepted");
        }
    }

    #[test]
    fn truncated_file_is_rejected() {
        let tar = Tar::new().file("resources/data", &"x".repeat(5000), 0o644);
        let whole = tar.0.into_inner().expect("finished");
        let top = tempfile::tempdir().expect("temporary directory");
        let blob = top.path().join("blob");
        fs::write(&blob, &whole[..4000]).expect("written");
        assert!(matches!(unpack(&blob, &top.path().join("u")), Err(Error::Read(_))));
    }

    #[test]
    fn file_that_is_not_a_topology_package_is_rejected() {
        assert!(matches!(
            Tar(Builder::new(Vec::new())).file("x", "", 0o644).unpack(),
            Err(Error::NoTopology)
        ));
        let top = tempfile::tempdir().expect("temporary directory");
        let blob = top.path().join("blob");
        fs::write(&blob, "not a tar file ".repeat(100)).expect("written");
        assert!(matches!(unpack(&blob, &top.path().join("u")), Err(Error::Read(_))));
    }
}
