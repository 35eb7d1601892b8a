//! Topology packages.

use std::{fs, path::Path};

use stormkeeper_model::topology::Topology;
use stormkeeper_runtime::error_chain;
use stormkeeper_supervisor::fuzzing::unpack;
use stormkeeper_topology_package::package::{TOPOLOGY, pack, read_topology};

use crate::{check_error, scratch};

/// Reads a package as a nimbus does, and unpacks it as a supervisor does.
///
/// A supervisor unpacks every package that a nimbus accepts. Nothing is written outside of the
/// supervisor's folder, and nothing in it leads outside. A topology reads back from a package.
///
/// # Panics
/// If a property does not hold.
pub fn package_tar(data: &[u8]) {
    let top = scratch();
    let (blob, dir) = (top.path().join("blob"), top.path().join("dir"));
    fs::write(&blob, data).expect("written");
    let unpacked = unpack(&blob, &dir);
    assert_eq!(names(top.path()), ["blob", "dir"], "something was written outside of the folder");
    let n_bytes = check_inside(&dir, &dir);
    if unpacked.is_ok() {
        assert!(n_bytes <= data.len() as u64, "{n_bytes} bytes of {}", data.len());
    }
    match read_topology(data) {
        Ok(topology) => {
            unpacked.expect("a supervisor unpacks what a nimbus accepts");
            let json = fs::read(dir.join(TOPOLOGY)).expect("a file");
            assert_eq!(serde_json::from_slice::<Topology>(&json).expect("a topology"), topology);
            let package =
                pack(&topology, topology.program.is_some().then_some(&b"program"[..]), Vec::new(), u64::MAX)
                    .expect("packs");
            assert_eq!(read_topology(&package.bytes[..]).expect("reads back"), topology);
        }
        Err(error) => check_error(&error_chain(&error)),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("readable").file_name();
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("readable")
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Checks that all links below `dir` stay below `top`. Returns the size of all files.
fn check_inside(top: &Path, dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let mut n_bytes = 0;
    for entry in entries {
        let path = entry.expect("readable").path();
        let metadata = fs::symlink_metadata(&path).expect("there");
        if metadata.is_symlink() {
            // A link may lead to nothing, or in a circle.
            if let Ok(target) = path.canonicalize() {
                let top = top.canonicalize().expect("there");
                assert!(target.starts_with(top), "{} leads to {}", path.display(), target.display());
            }
        } else if metadata.is_dir() {
            n_bytes += check_inside(top, &path);
        } else {
            n_bytes += metadata.len();
        }
    }
    n_bytes
}
