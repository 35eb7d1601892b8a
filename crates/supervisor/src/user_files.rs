//! Files that the user of a worker writes and the supervisor reads.
//!
//! With `supervisor.run.worker.as.user` the supervisor is root, and the user can put anything in the place
//! of such a file at any moment: a link, a FIFO, a file without an end, a descriptor of a device. What is
//! opened here is a regular file of that user, and opening it neither waits nor follows a link. Readers
//! bound what they read, and believe it for that worker alone. All functions block.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, fstat, openat},
    io::Errno,
};

use crate::run_as;
use stormkeeper_runtime::fs::regular_file;

const NO_LINK: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Opens a file in the directory of a worker for reading. `name` may have folders. In the directory of
/// another user no link is followed, and the file must belong to that user.
///
/// # Errors
/// If the file cannot be opened, is no regular file, or belongs to somebody else.
pub(super) fn open(dir: &Path, name: &str) -> io::Result<File> {
    if run_as::owner_if_other(dir)?.is_none() {
        return regular_file::open(&dir.join(name));
    }
    let mut parent = openat(CWD, dir, NO_LINK | OFlags::DIRECTORY, Mode::empty())?;
    let owner = fstat(&parent)?.st_uid;
    let (folders, name) = name.rsplit_once('/').map_or((None, name), |(folders, name)| (Some(folders), name));
    for folder in folders.into_iter().flat_map(|folders| folders.split('/')) {
        parent = openat(&parent, folder, NO_LINK | OFlags::DIRECTORY, Mode::empty())?;
    }
    open_in(&parent, name, Some(owner)).map(|(file, _)| file)
}

/// Opens a regular file in `dir` that is no link and, with an `owner`, belongs to that user. Does not wait
/// for a writer of a FIFO.
///
/// # Errors
/// If the file cannot be opened, is no regular file, or belongs to somebody else.
pub(super) fn open_in(dir: &OwnedFd, name: &str, owner: Option<u32>) -> io::Result<(File, fs::Metadata)> {
    let opened = openat(dir, name, NO_LINK, Mode::empty()).map_err(|error| match error {
        // With these flags, the error of a symbolic link.
        Errno::LOOP => io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link"),
        // The error of a socket.
        Errno::NXIO => no_regular_file(),
        error => error.into(),
    });
    let file = File::from(opened?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(no_regular_file());
    }
    match owner {
        Some(owner) if metadata.uid() != owner => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is in the directory of a user, and belongs to another one",
        )),
        Some(_) | None => Ok((file, metadata)),
    }
}

fn no_regular_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")
}

/// Opens a descriptor of another process, an entry of `/proc/<pid>/fd`, if it is a regular file. The
/// process can replace the descriptor at any moment, also by one of a device, which would notice that it is
/// opened: what is checked is what is opened.
///
/// # Errors
/// If it cannot be opened, or is no regular file.
pub(super) fn open_descriptor(path: &Path) -> io::Result<File> {
    let found = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let found = File::from(found);
    if !found.metadata()?.is_file() {
        return Err(no_regular_file());
    }
    regular_file::open(Path::new(&format!("/proc/self/fd/{}", found.as_raw_fd())))
}

/// Returns whether a regular file has exactly this text. Reads no more of it than that.
pub(super) fn has_text(path: &Path, text: &str) -> bool {
    let Ok(file) = regular_file::open(path) else { return false };
    let mut there = Vec::new();
    let read = file.take(text.len() as u64 + 1).read_to_end(&mut there);
    read.is_ok() && there == text.as_bytes()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use rustix::fs::{FileType, mknodat};

    #[test]
    fn descriptor_that_is_no_regular_file_is_not_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        fs::write(path("file"), "beat").expect("written");
        let fifo =
            openat(CWD, path("fifo"), OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).expect("opened");
        let device = openat(CWD, "/dev/null", OFlags::PATH, Mode::empty()).expect("opened");
        let file = openat(CWD, path("file"), OFlags::RDONLY, Mode::empty()).expect("opened");
        let of = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        for refused in [&fifo, &device] {
            open_descriptor(Path::new(&of(refused))).expect_err("no regular file");
        }
        let mut text = String::new();
        open_descriptor(Path::new(&of(&file))).expect("a file").read_to_string(&mut text).expect("read");
        assert_eq!(text, "beat");
    }

    #[test]
    fn file_in_a_folder_is_opened_and_a_link_or_a_file_of_another_user_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("logs")).expect("created");
        fs::write(dir.path().join("logs/worker.out"), "line").expect("written");
        symlink("worker.out", dir.path().join("logs/link")).expect("linked");
        let logs = openat(CWD, dir.path().join("logs"), NO_LINK | OFlags::DIRECTORY, Mode::empty());
        let logs = logs.expect("opened");
        let me = rustix::process::geteuid().as_raw();
        open_in(&logs, "worker.out", Some(me)).expect("its own");
        open_in(&logs, "worker.out", Some(me + 1)).expect_err("of another user");
        open_in(&logs, "link", None).expect_err("a link");
        open(dir.path(), "logs/worker.out").expect("a file of this user");
    }

    #[test]
    fn text_is_compared_without_reading_the_rest_of_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("access.keys");
        assert!(!has_text(&path, ""), "missing");
        fs::write(&path, "key").expect("written");
        assert!(has_text(&path, "key") && !has_text(&path, "ke") && !has_text(&path, "keys"));
        // A hole: reading all of it would fill the memory.
        File::options().write(true).open(&path).expect("there").set_len(1 << 40).expect("a hole");
        assert!(!has_text(&path, "key"));
    }
}
