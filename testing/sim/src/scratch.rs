//! A directory for one run, in memory where possible, because it holds thousands of small files
//! that are synced frequently.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const IN_MEMORY: &str = "/dev/shm";

/// A directory that is removed with its content on drop.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// # Panics
    /// If no directory can be created.
    pub(super) fn new(seed: u64) -> Self {
        let in_memory = Path::new(IN_MEMORY);
        let parent = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
        // Another thread of this process may be running the same seed.
        for n in 0.. {
            let dir = parent.join(format!("stormkeeper-sim-{}-{seed}-{n}", std::process::id()));
            match fs::create_dir(&dir) {
                Ok(()) => return Self(dir),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("cannot create {}: {error}", dir.display()),
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
        // A directory that stays here is removed at the next boot of the machine.
        let _left = fs::remove_dir_all(&self.0);
    }
}
