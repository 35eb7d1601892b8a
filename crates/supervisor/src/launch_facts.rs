//! Facts about a launch that others depend on: whose it is, and where it ran.
//!
//! They are read from the launch specification, and only where the worker could not have changed it: that
//! of a worker of another user belongs to the user of the supervisor, in a directory that only that user
//! may change. All functions block.

use std::{
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::Deserialize;

use crate::{run_as, user_files, worker_dir};
use stormkeeper_model::{Slot, Timestamp, TopologyId, WorkerId};
use stormkeeper_topology_package::launch::SPEC_FILE;

/// Maximum bytes of a launch specification.
const SPEC_BYTES_MAX: u64 = 1 << 20;

/// Facts about a launch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct LaunchFacts {
    pub(super) topology: TopologyId,
    pub(super) slot: Slot,
    #[serde(rename = "start_ms")]
    pub(super) start: Timestamp,
    /// Owner of the topology; empty if an earlier build launched it.
    #[serde(default)]
    pub(super) owner: String,
}

/// Reads the facts about a launch; `None` if there is no launch specification that can be believed.
pub(super) fn read(local_dir: &Path, worker: &WorkerId) -> Option<LaunchFacts> {
    let (file, metadata) = match files_dir(local_dir, worker) {
        Ok(dir) => {
            let (file, metadata) = user_files::open_in(&dir, SPEC_FILE, None).ok()?;
            // An earlier build gave it to the user.
            run_as::is_of_this_process(&metadata).then_some((file, metadata))?
        }
        Err(_no_other_user) => user_files::open_in(&dir(local_dir, worker).ok()?, SPEC_FILE, None).ok()?,
    };
    let mut bytes = Vec::new();
    file.take(SPEC_BYTES_MAX.min(metadata.len())).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Opens the directory of what the supervisor writes for a worker of another user.
fn files_dir(local_dir: &Path, worker: &WorkerId) -> io::Result<OwnedFd> {
    let path = run_as::files_dir(local_dir).join(worker.as_str());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(CWD, &path, flags, Mode::empty())?)
}

/// Opens the directory of a launch.
///
/// # Errors
/// If there is none.
pub(super) fn dir(local_dir: &Path, worker: &WorkerId) -> io::Result<OwnedFd> {
    // An operator may have made `workers` a link; its entries are written by workers.
    let path = worker_dir::path(local_dir, worker);
    let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let workers = openat(CWD, parent, flags, Mode::empty())?;
    Ok(openat(workers, worker.as_str(), flags | OFlags::NOFOLLOW, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, lchown},
    };

    use super::*;

    fn spec(topology: &str) -> String {
        let slot = serde_json::json!({ "supervisor": "s", "port": 6700 });
        serde_json::json!({ "topology": topology, "slot": slot, "start_ms": 5, "owner": "ann" }).to_string()
    }

    #[test]
    fn specification_that_the_user_of_the_worker_could_write_is_not_believed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!(
                "specification_that_the_user_of_the_worker_could_write_is_not_believed did not run: no root"
            );
            return;
        }
        let top = tempfile::tempdir().expect("a directory");
        let worker: WorkerId = "6700-1-00000a".parse().expect("valid");
        let (dir, files) =
            (worker_dir::path(top.path(), &worker), run_as::files_dir(top.path()).join(worker.as_str()));
        fs::create_dir_all(&dir).expect("created");
        fs::create_dir_all(&files).expect("created");
        fs::write(files.join(SPEC_FILE), spec("wc-1-100")).expect("written");
        let facts = read(top.path(), &worker).expect("of the supervisor");
        assert_eq!((facts.topology.as_str(), &*facts.owner), ("wc-1-100", "ann"));
        // What is in the directory of the worker says nothing, whatever the mode of the other one.
        fs::write(dir.join(SPEC_FILE), spec("victim-1-100")).expect("written");
        assert_eq!(read(top.path(), &worker), Some(facts));
        lchown(files.join(SPEC_FILE), Some(3_999_001), Some(3_999_001)).expect("given");
        assert_eq!(read(top.path(), &worker), None, "of the user");
        fs::set_permissions(files.join(SPEC_FILE), fs::Permissions::from_mode(0o400)).expect("set");
        assert_eq!(read(top.path(), &worker), None, "the owner can change the mode");
    }
}
