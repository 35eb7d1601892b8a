//! Heartbeat for the supervisor: a file in the worker's directory, and the same bytes in memory.
//!
//! Both are written in place. So a heartbeat needs no block on the disk and no new descriptor, and a
//! worker is alive also when its directory was deleted or its disk cannot be written: the supervisor
//! then reads the memory through `/proc` (a memfd, see [`HEARTBEAT_MEMORY`]).

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use rustix::fs::{MemfdFlags, Timespec, Timestamps, UTIME_NOW, futimens, memfd_create};
use tracing::{error, info, warn};

use crate::{
    Options,
    multilang::PYTHON_ADAPTER,
    owner::{Owner, SupervisorState},
};
use stormkeeper_runtime::{
    blocking,
    fs::modes,
    tasks::{OnExit, Tasks},
};
use stormkeeper_topology_package::launch::{HEARTBEAT_MEMORY, LaunchSpec};

/// Name of the heartbeat file in a worker's directory.
pub const HEARTBEAT_FILE: &str = "heartbeat";

/// Format of the heartbeat. All heartbeats of a worker have the same length.
const FORMAT: &str = "v1";

/// Writes the heartbeat every `heartbeat_period`: its format, a growing number and our pid. It
/// depends on nothing but this host, so that an unavailable tree does not look like a dead worker.
pub(super) fn start(options: &Options, owner: &Owner, tasks: &Tasks) {
    let (mut heartbeat, period) =
        (Heartbeat::new(options.spec.clone(), owner.clone()), options.spec.heartbeat_period);
    tasks.start("heartbeat file", OnExit::StopOwner, async move {
        let mut period = tokio::time::interval(period);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for beat in 1_u64.. {
            period.tick().await;
            heartbeat = blocking::run(move || {
                heartbeat.beat(beat);
                heartbeat
            })
            .await;
        }
    });
}

#[derive(Debug)]
struct Heartbeat {
    spec: LaunchSpec,
    path: PathBuf,
    owner: Owner,
    memory: Option<File>,
    file: Option<File>,
    has_failed: bool,
}

impl Heartbeat {
    fn new(spec: LaunchSpec, owner: Owner) -> Self {
        let memory = memfd_create(format!("{HEARTBEAT_MEMORY}{}", spec.worker), MemfdFlags::CLOEXEC);
        if let Err(error) = &memory {
            warn!(%error, "no memory for the heartbeat: the supervisor reads only its file");
        }
        let path = spec.dir.join(HEARTBEAT_FILE);
        Self { spec, path, owner, memory: memory.ok().map(File::from), file: None, has_failed: false }
    }

    /// Writes one heartbeat. Blocks.
    fn beat(&mut self, beat: u64) {
        let text = format!("{FORMAT} {beat:020} {}\n", std::process::id());
        if let Some(memory) = &self.memory {
            // Memory for one page was there at the first heartbeat.
            let _written = memory.write_all_at(text.as_bytes(), 0);
        }
        match self.write_file(text.as_bytes()) {
            Ok(()) if self.has_failed => {
                info!(path = %self.path.display(), "the heartbeat file is written again");
                self.has_failed = false;
            }
            Ok(()) => {}
            Err(error) => {
                self.file = None;
                if !self.has_failed {
                    warn!(
                        path = %self.path.display(), %error,
                        "cannot write the heartbeat file; the supervisor reads the heartbeat in memory"
                    );
                }
                self.has_failed = true;
            }
        }
    }

    fn write_file(&mut self, text: &[u8]) -> io::Result<()> {
        // The file may have been deleted, alone or with its directory.
        let file = self.file.take_if(|file| !is_at(file, &self.path));
        if file.is_some() || !self.spec.dir.exists() {
            self.put_back()?;
        }
        let file = match &self.file {
            Some(file) => file,
            None => {
                let open = OpenOptions::new().write(true).create(true).mode(modes::FILE).open(&self.path)?;
                self.file.insert(open)
            }
        };
        file.write_all_at(text, 0).or_else(|error| {
            // Without a free block: a file system that never writes in place still has the time.
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            futimens(file, &Timestamps { last_access: now, last_modification: now }).map_err(|_| error)
        })
    }

    /// Creates the worker's directory again if it was deleted and the supervisor lives. Without a
    /// supervisor nobody needs it, and its absence is a sign that nobody owns this worker any more.
    fn put_back(&self) -> io::Result<()> {
        let dir = &self.spec.dir;
        if dir.exists() {
            return Ok(());
        }
        if self.owner.supervisor() == SupervisorState::Gone {
            return Err(io::ErrorKind::NotFound.into());
        }
        // The supervisor creates its own directory.
        if let Some(workers) = dir.parent() {
            create_dir(workers)?;
        }
        [dir.clone(), dir.join("pids"), dir.join("logs"), dir.join("python"), dir.join("metrics")]
            .iter()
            .try_for_each(|dir| create_dir(dir))?;
        std::fs::write(self.spec.path(), self.spec.encode()?)?;
        std::fs::write(dir.join("python/stormkeeper.py"), PYTHON_ADAPTER)?;
        error!(
            dir = %dir.display(),
            "the directory of this worker was deleted: put back; logs and metric reports that were in it are lost"
        );
        Ok(())
    }
}

fn create_dir(dir: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;

    match std::fs::DirBuilder::new().mode(modes::DIR).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// Returns whether an open file is still the one at this path.
fn is_at(file: &File, path: &std::path::Path) -> bool {
    let key = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().map(key).ok() == std::fs::symlink_metadata(path).map(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::options;

    fn text(path: &std::path::Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn heartbeat_is_written_in_place_and_also_in_memory() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let options = options(dir.path());
        let mut heartbeat = Heartbeat::new(options.spec.clone(), Owner::of(&options.spec));
        heartbeat.beat(1);
        let inode = std::fs::metadata(&heartbeat.path).expect("written").ino();
        heartbeat.beat(2);
        assert_eq!(
            std::fs::metadata(&heartbeat.path).expect("written").ino(),
            inode,
            "a new file needs a block"
        );
        let expected = format!("v1 00000000000000000002 {}\n", std::process::id());
        assert_eq!(text(&heartbeat.path), expected);
        let mut memory = vec![0; expected.len()];
        heartbeat.memory.as_ref().expect("memory").read_exact_at(&mut memory, 0).expect("read");
        assert_eq!(memory, expected.as_bytes());
    }

    #[test]
    fn deleted_file_and_directory_are_put_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let options = options(dir.path());
        let mut heartbeat = Heartbeat::new(options.spec.clone(), Owner::of(&options.spec));
        heartbeat.beat(1);
        std::fs::remove_file(&heartbeat.path).expect("deleted");
        heartbeat.beat(2);
        assert!(text(&heartbeat.path).starts_with("v1 00000000000000000002"));
        std::fs::remove_dir_all(&options.spec.dir).expect("deleted");
        heartbeat.beat(3);
        assert!(text(&heartbeat.path).starts_with("v1 00000000000000000003"));
        assert_eq!(LaunchSpec::read(&options.spec.path()).expect("put back"), options.spec);
        assert!(
            ["pids", "logs", "python/stormkeeper.py"].iter().all(|name| options.spec.dir.join(name).exists())
        );
    }
}
