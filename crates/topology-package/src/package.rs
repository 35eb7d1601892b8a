//! Topology package: the blob with which a topology is submitted. One uncompressed tar with
//! `topology.json` at its top, the author's worker program beside it if the topology has one, and the
//! author's files under `resources/`.
//!
//! The same topology and files give the same bytes, and so the same blob key: the entries are
//! sorted and have no time and no owner. A package is untrusted input: entries that are not plain
//! files, or whose names lead elsewhere, are rejected.

use std::{
    io::{self, Read},
    path::Path,
};

use crate::entries::{self, CopyError, EntryKind};
use stormkeeper_model::{BlobKey, topology::Topology};

/// The entry that contains the topology.
pub const TOPOLOGY: &str = "topology.json";

/// The folder of the author's files; components are started in it.
pub const RESOURCES: &str = "resources";

/// The entry that contains the author's worker program.
pub const PROGRAM: &str = "worker";

/// Limit on `topology.json`: enough for thousands of components.
const MAX_TOPOLOGY_BYTES: u64 = 8 << 20;

/// Limit on the entries of a package; each costs a file on every supervisor.
pub const MAX_FILES: usize = 100_000;

/// A topology package in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct TopologyPackage {
    /// The sha256 of the bytes.
    pub key: BlobKey,
    /// The tar.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for TopologyPackage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TopologyPackage({}, {} bytes)", self.key, self.bytes.len())
    }
}

/// One of the author's files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageFile {
    /// Path below `resources/`, with `/` between the parts.
    pub path: String,
    /// File mode: plain or executable.
    pub mode: Mode,
    /// Content of the file.
    pub bytes: Vec<u8>,
}

/// Mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Data.
    Plain,
    /// A program.
    Executable,
}

/// Error of packing or reading a topology package.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The package would be too large.
    #[error(
        "the topology and its resources take {bytes} bytes, more than the {limit} allowed (nimbus.max.blob.bytes)"
    )]
    TooLarge {
        /// Size of the package, as far as it was packed.
        bytes: u64,
        /// Maximum size.
        limit: u64,
    },
    /// The package has too many files.
    #[error("the topology package has more than {MAX_FILES} files")]
    TooManyFiles,
    /// The package is not a tar, or ends too early.
    #[error("the topology package is not a complete tar file")]
    NotATar(#[source] io::Error),
    /// The package has a forbidden entry.
    #[error("the topology package contains {path:?}, {what}")]
    Entry {
        /// Path of the entry.
        path: String,
        /// Rule that the entry breaks.
        what: &'static str,
    },
    /// The topology is missing.
    #[error("the topology package contains no {TOPOLOGY}")]
    NoTopology,
    /// The topology and the entries of the package say different things about a worker program.
    #[error("{0}")]
    Program(&'static str),
    /// The topology cannot be parsed.
    #[error("{TOPOLOGY} in the topology package is not a topology")]
    BadTopology(#[source] serde_json::Error),
}

/// Packs a topology, its worker program if it has one, and its files.
///
/// # Errors
/// [`Error::TooLarge`] and [`Error::TooManyFiles`].
pub fn pack(
    topology: &Topology,
    program: Option<&[u8]>,
    mut files: Vec<PackageFile>,
    max_bytes: u64,
) -> Result<TopologyPackage, Error> {
    if files.len() >= MAX_FILES {
        return Err(Error::TooManyFiles);
    }
    files.sort();
    let json = serde_json::to_vec_pretty(topology).map_err(Error::BadTopology)?;
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, TOPOLOGY, Mode::Plain, &json)?;
    if let Some(program) = program {
        check_size(tar.get_ref().len() + program.len(), max_bytes)?;
        append(&mut tar, PROGRAM, Mode::Executable, program)?;
    }
    for PackageFile { path, mode, bytes } in &files {
        append(&mut tar, &format!("{RESOURCES}/{path}"), *mode, bytes)?;
        check_size(tar.get_ref().len(), max_bytes)?;
    }
    let bytes = tar.into_inner().map_err(Error::NotATar)?;
    check_size(bytes.len(), max_bytes)?;
    Ok(TopologyPackage { key: BlobKey::of(&bytes), bytes })
}

fn check_size(bytes: usize, limit: u64) -> Result<(), Error> {
    let bytes = bytes as u64;
    match bytes > limit {
        true => Err(Error::TooLarge { bytes, limit }),
        false => Ok(()),
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: Mode, bytes: &[u8]) -> Result<(), Error> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes.len() as u64);
    header.set_mode(match mode {
        Mode::Plain => 0o644,
        Mode::Executable => 0o755,
    });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, path, bytes).map_err(Error::NotATar)
}

/// Reads the topology from a package, and checks every entry as unpacking does.
///
/// # Errors
/// [`Error`] for every defect of the package.
pub fn read_topology(blob: impl Read) -> Result<Topology, Error> {
    let (mut topology, mut has_program) = (None::<Topology>, false);
    entries::visit(blob, |path, kind, entry| {
        match kind {
            EntryKind::Folder => {}
            EntryKind::File { is_executable } if path == Path::new(PROGRAM) => {
                if !is_executable {
                    return Err(Error::Program(
                        "the worker program in the topology package is not executable",
                    ));
                }
                has_program = true;
                copy_all(entry, &mut io::sink())?;
            }
            EntryKind::File { .. } if path == Path::new(TOPOLOGY) => {
                if entry.size() > MAX_TOPOLOGY_BYTES {
                    return Err(Error::Entry {
                        path: TOPOLOGY.to_owned(),
                        what: "which is larger than 8 MiB",
                    });
                }
                let mut json = Vec::new();
                copy_all(entry, &mut json)?;
                topology = Some(serde_json::from_slice(&json).map_err(Error::BadTopology)?);
            }
            // A truncated entry is detected here, not by the supervisors.
            EntryKind::File { .. } => copy_all(entry, &mut io::sink())?,
        }
        Ok(())
    })?;
    let topology = topology.ok_or(Error::NoTopology)?;
    match (topology.program.is_some(), has_program) {
        (true, false) => Err(Error::Program("the topology has a worker program, and the package has none")),
        (false, true) => Err(Error::Program("the package has a worker program, and the topology has none")),
        (true, true) | (false, false) => Ok(topology),
    }
}

/// Copies to a destination that accepts all bytes.
fn copy_all<R: Read>(entry: &mut tar::Entry<'_, R>, to: &mut impl io::Write) -> Result<(), Error> {
    match entries::copy(entry, to) {
        Ok(()) => Ok(()),
        Err(CopyError::Package(error)) => Err(error),
        Err(CopyError::Write(error)) => Err(Error::NotATar(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        Topology {
            name: "wc".parse().expect("valid name"),
            settings: Default::default(),
            components: Default::default(),
            program: None,
            given_at_submission: Default::default(),
        }
    }

    fn file(path: &str, mode: Mode, text: &str) -> PackageFile {
        PackageFile { path: path.to_owned(), mode, bytes: text.as_bytes().to_vec() }
    }

    /// A tar with the topology and one unusual entry.
    fn with_entry(path: &str, kind: tar::EntryType) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let json = serde_json::to_vec(&topology()).expect("JSON");
        append(&mut tar, TOPOLOGY, Mode::Plain, &json).expect("in memory");
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().expect("is gnu").name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, io::empty()).expect("in memory");
        tar.into_inner().expect("in memory")
    }

    /// A tar with the topology and files of these names and contents.
    fn with_entries(files: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let json = serde_json::to_vec(&topology()).expect("JSON");
        append(&mut tar, TOPOLOGY, Mode::Plain, &json).expect("in memory");
        for (path, text) in files {
            append(&mut tar, path, Mode::Plain, text.as_bytes()).expect("in memory");
        }
        tar.into_inner().expect("in memory")
    }

    #[test]
    fn the_key_does_not_depend_on_the_order_of_files() {
        let a = file("lib/words.py", Mode::Plain, "x = 1");
        let b = file("split", Mode::Executable, "#!/bin/sh");
        let one = pack(&topology(), None, vec![a.clone(), b.clone()], 1 << 20).expect("packs");
        let two = pack(&topology(), None, vec![b, a], 1 << 20).expect("packs");
        assert_eq!(one, two);
        assert_eq!(one.key, BlobKey::of(&one.bytes));
        assert_eq!(read_topology(&one.bytes[..]).expect("reads"), topology());
        let mut archive = tar::Archive::new(&one.bytes[..]);
        let entries: Vec<(String, u32)> = archive
            .entries()
            .expect("a tar")
            .map(|entry| entry.expect("an entry"))
            .map(|e| (e.path().expect("a path").display().to_string(), e.header().mode().expect("a mode")))
            .collect();
        let expected =
            [("topology.json", 0o644), ("resources/lib/words.py", 0o644), ("resources/split", 0o755)];
        assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn long_paths_are_packed() {
        let path = format!("{}/x.py", "deep".repeat(40));
        let bundle = pack(&topology(), None, vec![file(&path, Mode::Plain, "")], 1 << 20).expect("packs");
        assert_eq!(read_topology(&bundle.bytes[..]).expect("reads"), topology());
    }

    #[test]
    fn an_oversized_package_is_rejected_with_the_limit() {
        let big = vec![file("data", Mode::Plain, &"x".repeat(5000))];
        let error = pack(&topology(), None, big, 4096).expect_err("refused");
        assert!(error.to_string().contains("more than the 4096 allowed (nimbus.max.blob.bytes)"), "{error}");
    }

    #[test]
    fn malformed_packages_are_rejected() {
        use tar::EntryType as Kind;
        let check = |blob: &[u8], expected: &str| {
            let error = read_topology(blob).expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(&with_entry("../etc/passwd", Kind::Regular), "leads out of the package");
        check(&with_entry("/etc/passwd", Kind::Regular), "leads out of the package");
        check(&with_entry("resources/../../x", Kind::Regular), "leads out of the package");
        check(
            &with_entry("other/x", Kind::Regular),
            "neither topology.json, nor worker, nor below resources/",
        );
        check(&with_entry("resources/link", Kind::Symlink), "neither a file nor a folder");
        check(&with_entry("resources/link", Kind::Link), "neither a file nor a folder");
        check(&with_entry(TOPOLOGY, Kind::Regular), "which occurs twice");
        check(&with_entries(&[("resources/d/x", ""), ("resources/d//./x", "")]), "which occurs twice");
        check(&with_entries(&[("resources/d", ""), ("resources/d/x", "")]), "which lies under a file");
        check(&with_entries(&[("resources/d/x", ""), ("resources/d", "")]), "which occurs twice");
        let long = format!("resources/{}", "x".repeat(256));
        check(&with_entries(&[(&long, "")]), "whose name is longer than a file system allows");
        let long = format!("resources/{}x", "x/".repeat(600));
        check(&with_entries(&[(&long, "")]), "whose name is longer than a file system allows");
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, TOPOLOGY, Mode::Plain, b"{}").expect("in memory");
        check(tar.get_ref(), "not a topology");
        check(b"", "contains no topology.json");
        check(&[7; 2000], "not a complete tar");
        let whole = pack(&topology(), None, vec![file("data", Mode::Plain, &"x".repeat(5000))], 1 << 20)
            .expect("packs");
        check(&whole.bytes[..4000], "not a complete tar");
        assert!(read_topology(&with_entry("resources/d", Kind::Directory)[..]).is_ok());
    }
}
