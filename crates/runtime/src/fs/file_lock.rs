//! Lock on an open file, held by at most one process at a time.

use std::fs::File;

/// An open file whose lock this process holds (`flock`). Released when this is dropped, or when the
/// process ends.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Takes over a file that is locked.
    pub fn held(file: File) -> Self {
        Self(file)
    }

    /// Returns the locked file.
    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for FileLock {
    /// Releases the lock explicitly: a child process that is being started, and has not replaced its
    /// program yet, shares the open file, so closing it here would leave the file locked for a moment.
    fn drop(&mut self) {
        // Fails only if the file system fails; then the lock ends with the process.
        let _released = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_ends_with_its_owner_even_if_another_handle_shares_the_open_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        let file = File::create(&path).expect("created");
        file.try_lock().expect("locked");
        let shared = file.try_clone().expect("cloned");
        let other = File::open(&path).expect("opened");
        let lock = FileLock::held(file);
        other.try_lock().expect_err("locked by its owner");
        drop(lock);
        other.try_lock().expect("free");
        drop(shared);
    }
}
