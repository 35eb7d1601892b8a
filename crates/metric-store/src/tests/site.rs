//! Media of tests.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::clock;
use crate::{Medium, MemoryDisk, Options, store::Store};

/// Runs tests on a disk and in memory.
macro_rules! on_each_medium {
    ($($test:ident),+ $(,)?) => {
        mod on_disk {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&crate::tests::site::Site::on_disk()).await;
            })+
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&crate::tests::site::Site::in_memory()).await;
            })+
        }
    };
}
pub(crate) use on_each_medium;

/// Medium of a test, and an empty directory on it, which ends with the test.
pub(crate) struct Site {
    pub(crate) medium: Medium,
    path: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Site {
    pub(crate) fn on_disk() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { medium: Medium::Disk, path: folder.path().to_owned(), _folder: Some(folder) }
    }

    pub(crate) fn in_memory() -> Self {
        Self { medium: Medium::Memory(MemoryDisk::default()), path: PathBuf::from("/memory"), _folder: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a directory with content of an earlier time.
    pub(crate) fn leave(&self, dir: &Path) {
        match &self.medium {
            Medium::Disk => {
                std::fs::create_dir_all(dir).expect("made");
                std::fs::write(dir.join("CURRENT"), "x").expect("written");
            }
            // There a directory is nothing without a database.
            Medium::Memory(_) => {
                let store = Store::open(&self.path.join("leave"), &self.options()).expect("opened");
                store.checkpoint(dir).expect("copied");
            }
        }
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.medium.exists(path)
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) {
        self.medium.rename(from, to).expect("moved");
    }

    pub(crate) fn options(&self) -> Options {
        let exporters = vec!["log".to_owned(), "store".to_owned()];
        Options { exporters, medium: self.medium.clone(), ..Options::of_test(clock()) }
    }
}

impl Site {
    /// Kills the process that has `store` open in `dir`. In memory, and as far as a test can do it
    /// on disk, everything that is not synced is lost.
    pub(crate) fn crash(&self, dir: &Path, store: Store) {
        match &self.medium {
            Medium::Disk => {
                // Dropping the store would write what a killed process does not.
                let before = self.dir("before-crash");
                copy_all(dir, &before);
                drop(store);
                fs::remove_dir_all(dir).expect("removed");
                fs::rename(before, dir).expect("moved");
            }
            Medium::Memory(disk) => {
                disk.crash(dir);
                drop(store);
            }
        }
    }

    /// Makes a disk that can be filled; `None` where mounting is not allowed.
    pub(crate) fn small_disk(&self) -> Option<SmallDisk> {
        let dir = self.dir("small");
        if matches!(self.medium, Medium::Disk) {
            fs::create_dir(&dir).expect("made");
            let mount =
                Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&dir).output();
            if !mount.is_ok_and(|output| output.status.success()) {
                return None;
            }
        }
        Some(SmallDisk { medium: self.medium.clone(), dir })
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("read").map(|entry| entry.expect("read")) {
        let copy = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &copy);
        } else {
            fs::copy(entry.path(), copy).expect("copied");
        }
    }
}

/// Disk that can be filled: a file system of 24 MiB, or the disk in memory.
pub(crate) struct SmallDisk {
    medium: Medium,
    dir: PathBuf,
}

impl SmallDisk {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Fills the disk completely.
    pub(crate) fn fill(&self) {
        match &self.medium {
            Medium::Disk => {
                let path = self.dir.join("ballast");
                let mut ballast =
                    fs::OpenOptions::new().create(true).append(true).open(path).expect("opened");
                let mut n_bytes = 32 << 20;
                while n_bytes > 0 {
                    if ballast.write_all(&vec![1; n_bytes]).is_err() {
                        n_bytes /= 2;
                    }
                }
            }
            Medium::Memory(disk) => disk.set_full(true),
        }
    }

    pub(crate) fn free(&self) {
        match &self.medium {
            Medium::Disk => fs::remove_file(self.dir.join("ballast")).expect("removed"),
            Medium::Memory(disk) => disk.set_full(false),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if matches!(self.medium, Medium::Disk) {
            let _unmounted = Command::new("umount").arg("-l").arg(&self.dir).output();
        }
    }
}
