//! Unpacking a blob, which comes from an author and is not trusted.
//!
//! The entries are checked by the function that checks them at the submit ([`entries`]): plain files
//! and folders whose paths stay inside and occur once. Owners and times are discarded; of the
//! permissions, only the executable bit is kept.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use stormkeeper_topology_package::{
    entries::{self, CopyError, EntryKind},
    package,
};

/// The file at the top of every blob.
pub(super) const TOPOLOGY_FILE: &str = package::TOPOLOGY;

/// Cause of a failure to unpack a blob.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot read the blob {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// No supervisor can unpack it.
    #[error(transparent)]
    Package(#[from] package::Error),
}

/// Unpacks the tar file at `blob` into the new directory `dir`. Blocks.
pub(super) fn unpack(blob: &Path, dir: &Path) -> Result<(), Error> {
    let write = |path: &Path, source| Error::Write { path: path.to_owned(), source };
    fs::create_dir(dir).map_err(|error| write(dir, error))?;
    let file = File::open(blob).map_err(|source| Error::Read { path: blob.to_owned(), source })?;
    entries::visit(BufReader::new(file), |path, kind, entry| {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| write(parent, error))?;
        }
        match kind {
            EntryKind::Folder => fs::create_dir_all(&path).map_err(|error| write(&path, error)),
            EntryKind::File { is_executable } => {
                let mode = if is_executable { 0o755 } else { 0o644 };
                let mut options = File::options();
                let created = options.write(true).create_new(true).mode(mode).open(&path);
                let mut file = created.map_err(|error| write(&path, error))?;
                entries::copy(entry, &mut file).map_err(|error| match error {
                    CopyError::Package(error) => Error::Package(error),
                    CopyError::Write(error) => write(&path, error),
                })
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tar::{Builder, EntryType, Header};

    use super::*;

    struct Tar(Builder<Vec<u8>>);

    impl Tar {
        fn new() -> Self {
            Self::without_topology().file(TOPOLOGY_FILE, "{}", 0o600)
        }

        fn without_topology() -> Self {
            Self(Builder::new(Vec::new()))
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
    fn files_and_directories_are_unpacked() {
        let top = Tar::new()
            .add("resources/", EntryType::Directory, "", 0o755, "")
            .file("resources/bin/run.sh", "#!/bin/sh", 0o4755)
            .file("resources/bin//./data", "1", 0o600)
            .unpack()
            .expect("unpacked");
        let at = |name: &str| top.path().join("unpacked").join(name);
        assert_eq!(fs::read_to_string(at("resources/bin/data")).expect("read"), "1");
        let mode = |name| fs::metadata(at(name)).expect("there").permissions().mode() & 0o7777;
        assert_eq!(mode("resources/bin/run.sh") & 0o4100, 0o100);
        assert_eq!(mode("resources/bin/data") & 0o111, 0);
    }

    #[test]
    fn entry_that_leaves_the_directory_or_is_no_file_is_rejected() {
        let cases: [(&str, Tar); 11] = [
            ("a parent", Tar::new().file("../x", "", 0o644)),
            ("a parent inside", Tar::new().file("a/../../x", "", 0o644)),
            ("an absolute name", Tar::new().file("/tmp/x", "", 0o644)),
            ("a link", Tar::new().link("resources/l", "data")),
            ("an absolute link", Tar::new().link("l", "/etc")),
            ("a file through a link", Tar::new().link("l", "resources").file("l/x", "", 0o644)),
            ("a hard link", Tar::new().add("h", EntryType::Link, "/etc/passwd", 0o644, "")),
            ("a device", Tar::new().add("d", EntryType::Char, "", 0o644, "")),
            ("a pipe", Tar::new().add("p", EntryType::Fifo, "", 0o644, "")),
            ("a duplicate name", Tar::new().file(TOPOLOGY_FILE, "", 0o644)),
            ("a file at the top", Tar::new().file("x", "", 0o644)),
        ];
        for (what, tar) in cases {
            let error = tar.unpack().expect_err(what);
            assert!(matches!(error, Error::Package(package::Error::Entry { .. })), "{what}: {error}");
        }
    }

    proptest::proptest! {
        /// The submit and unpacking check with the same function.
        #[test]
        fn package_that_is_accepted_at_the_submit_can_be_unpacked(
            names in proptest::collection::vec("resources/([ab]/){0,2}[ab]/?|(\\./)?[ab]|topology.json", 0..6),
        ) {
            let mut tar = Tar::without_topology();
            let topology = r#"{"name":"t","components":{}}"#;
            tar = tar.file(TOPOLOGY_FILE, topology, 0o644);
            for name in names {
                let kind = if name.ends_with('/') { EntryType::Directory } else { EntryType::Regular };
                tar = tar.add(&name, kind, "", 0o644, "");
            }
            let bytes = tar.0.into_inner().expect("finished");
            let top = tempfile::tempdir().expect("temporary directory");
            let blob = top.path().join("blob");
            fs::write(&blob, &bytes).expect("written");
            let is_unpacked = unpack(&blob, &top.path().join("u")).is_ok();
            proptest::prop_assert_eq!(is_unpacked, package::read_topology(&bytes[..]).is_ok());
        }
    }

    #[test]
    fn truncated_file_is_rejected() {
        let tar = Tar::new().file("resources/data", &"x".repeat(5000), 0o644);
        let whole = tar.0.into_inner().expect("finished");
        let top = tempfile::tempdir().expect("temporary directory");
        let blob = top.path().join("blob");
        fs::write(&blob, &whole[..4000]).expect("written");
        let error = unpack(&blob, &top.path().join("u")).expect_err("rejected");
        assert!(matches!(error, Error::Package(package::Error::NotATar(_))), "{error}");
    }

    #[test]
    fn file_that_is_not_a_topology_package_is_rejected() {
        let error = Tar::without_topology().file("resources/x", "", 0o644).unpack().expect_err("rejected");
        assert!(matches!(error, Error::Package(package::Error::NoTopology)), "{error}");
        let top = tempfile::tempdir().expect("temporary directory");
        let blob = top.path().join("blob");
        fs::write(&blob, "not a tar file ".repeat(100)).expect("written");
        let error = unpack(&blob, &top.path().join("u")).expect_err("rejected");
        assert!(matches!(error, Error::Package(package::Error::NotATar(_))), "{error}");
    }
}
