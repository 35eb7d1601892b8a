//! A directory for one run: in memory where there is such a place, as it holds thousands of
//! small files that are synced all the time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const IN_MEMORY: &str = "/dev/shm";

/// Removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// # Panics
    /// When no directory can be made.
    pub(super) fn new(seed: u64) -> Self {
        let in_memory = Path::new(IN_MEMORY);
        let parent = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
        // The same seed may be running in another thread of this process.
        for n in 0.. {
            let dir = parent.join(format!("stormkeeper-sim-{}-{seed}-{n}", std::process::id()));
            match fs::create_dir(&dir) {
                Ok(()) => return Self(dir),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("cannot make {}: {error}", dir.display()),
            }
        }
        unreachable!("there are more numbers than directories")
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is in a place that is cleared with the machine's next start.
        let _left = fs::remove_dir_all(&self.0);
    }
}
