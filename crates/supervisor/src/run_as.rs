//! Workers that run as the user of this host whose name is the owner of their topology
//! (`supervisor.run.worker.as.user`).
//!
//! Files that the supervisor writes for such a worker, as its keys, are in a directory of their own
//! (`worker-files/<worker id>/`) that only root may change. The launch specification there belongs to
//! root, and the group of the user may read it: it says whose launch it is. The other files belong to the
//! user, and are for the worker alone: the supervisor believes nothing in them.
//!
//! The directory of the worker belongs to the user, who can put links there: the supervisor, which is root,
//! creates nothing in it after it was handed over, follows no link in it, and reads only files that belong
//! to the same user (`user_files`). A package is copied for each user.

use std::{
    ffi::{CStr, OsStr, OsString},
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown, fchown, lchown},
    path::{Path, PathBuf},
};

use uzers::os::unix::UserExt as _;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};

use crate::{logs, user_files, worker_dir};
use stormkeeper_access::file;
use stormkeeper_model::{BlobKey, WorkerId};
use stormkeeper_runtime::error_chain;
use stormkeeper_topology_package::launch::{LaunchSpec, SPEC_FILE, WorkerUser};

/// Directory of the packages of users, in the data directory.
const PACKAGES_DIR: &str = "packages-of-users";

/// Beginning of the names of copies that are not complete.
const UNFINISHED: &str = ".unfinished-";

/// Mode of directories through which users reach what is theirs, and which they cannot list.
const PASSAGE: u32 = 0o711;

/// Mode of the launch specification of a worker of another user.
const READ_BY_GROUP: u32 = 0o640;

/// Maximum number of bytes of a log that are kept when it is rotated. The user can make it longer by a
/// hole that takes no room, and the copy has no holes.
const ROTATED_BYTES_MAX: u64 = 10 * logs::MAX_LOG_BYTES;

/// Maximum depth of a package.
const DEPTH_MAX: usize = 64;

/// Settings of workers that run as the owners of their topologies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunAs {
    /// Smallest id of a user; those below are of the system.
    pub min_uid: u32,
}

/// Reason why no worker runs as the owner of its topology.
#[derive(Debug, thiserror::Error)]
pub enum RunAsError {
    /// The supervisor may not start processes of other users.
    #[error(
        "supervisor.run.worker.as.user is set, but this supervisor runs as the user {uid} and not as root: start it as \
         root, or unset the key"
    )]
    NotRoot {
        /// User of the supervisor.
        uid: u32,
    },
    /// Other users cannot reach the data directory.
    #[error(
        "supervisor.run.worker.as.user is set, but other users cannot pass through {}: run `chmod o+x` on it, or set \
         storm.local.dir to another directory", .0.display()
    )]
    Unreachable(PathBuf),
    /// Other users cannot reach the program.
    #[error(
        "supervisor.run.worker.as.user is set, but other users cannot start {}: run `chmod o+x` on {}, or install the \
         program elsewhere", program.display(), closed.display()
    )]
    Program {
        /// The program.
        program: PathBuf,
        /// The program itself, or a directory above it.
        closed: PathBuf,
    },
    /// A directory cannot be prepared.
    #[error("cannot prepare {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// There is no such user.
    #[error(
        "the owner {owner:?} of the topology is no user of this host: create the user, or submit as another owner"
    )]
    UnknownUser {
        /// The owner.
        owner: String,
    },
    /// The user stands for everybody who has no user here.
    #[error(
        "the owner {owner:?} of the topology is the user {uid} of this host, which services and containers share: \
         workers do not run as that user; submit as another owner"
    )]
    Nobody {
        /// The owner.
        owner: String,
        /// Id of the user.
        uid: u32,
    },
    /// The user is root or of the system.
    #[error(
        "the owner {owner:?} of the topology is the user {uid} of this host, and workers run only as users from \
         {min_uid} (supervisor.run.worker.as.user.min.uid)"
    )]
    SystemUser {
        /// The owner.
        owner: String,
        /// Id of the user.
        uid: u32,
        /// Smallest id that is allowed.
        min_uid: u32,
    },
}

impl RunAsError {
    /// Returns whether the owner of the topology is the cause, and not the host.
    pub(super) fn is_of_owner(&self) -> bool {
        match self {
            Self::UnknownUser { .. } | Self::Nobody { .. } | Self::SystemUser { .. } => true,
            Self::NotRoot { .. } | Self::Unreachable(_) | Self::Program { .. } | Self::Directory { .. } => {
                false
            }
        }
    }
}

impl RunAs {
    /// Checks that this process can start workers of other users, and prepares the directories through
    /// which they reach their files. Blocks.
    ///
    /// # Errors
    /// [`RunAsError`]: the supervisor must not start.
    pub fn prepare(self, local_dir: &Path) -> Result<(), RunAsError> {
        let uid = rustix::process::geteuid();
        if !uid.is_root() {
            return Err(RunAsError::NotRoot { uid: uid.as_raw() });
        }
        let dirs =
            [local_dir.to_owned(), local_dir.join("workers"), files_dir(local_dir), packages(local_dir)];
        for path in dirs {
            let made = fs::DirBuilder::new().recursive(true).mode(PASSAGE).create(&path);
            let opened = made.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(PASSAGE)));
            opened.map_err(|source| RunAsError::Directory { path, source })?;
        }
        // `storm.local.dir` is made by the supervisor too, with a mode for one user.
        if let Some(parent) = local_dir.parent()
            && fs::metadata(parent).is_ok_and(|parent| parent.uid() == 0 && parent.mode() & 0o077 == 0)
            && local_dir.file_name() == Some(OsStr::new("supervisor"))
        {
            let opened = fs::set_permissions(parent, fs::Permissions::from_mode(PASSAGE));
            opened.map_err(|source| RunAsError::Directory { path: parent.to_owned(), source })?;
        }
        let closed =
            local_dir.ancestors().find(|dir| fs::metadata(dir).is_ok_and(|dir| dir.mode() & 0o001 == 0));
        closed.map_or(Ok(()), |dir| Err(RunAsError::Unreachable(dir.to_owned())))
    }

    /// Checks that other users can start `program`. Blocks.
    ///
    /// # Errors
    /// [`RunAsError::Program`].
    pub fn check_program(self, program: &Path) -> Result<(), RunAsError> {
        let is_closed = |path: &&Path| fs::metadata(path).is_ok_and(|path| path.mode() & 0o001 == 0);
        let closed = program.ancestors().find(is_closed).map(Path::to_owned);
        closed.map_or(Ok(()), |closed| Err(RunAsError::Program { program: program.to_owned(), closed }))
    }

    /// Returns the user of this host as whom the workers of an owner run. Blocks.
    ///
    /// # Errors
    /// [`RunAsError::UnknownUser`], [`RunAsError::Nobody`], [`RunAsError::SystemUser`].
    pub fn user(self, owner: &str) -> Result<WorkerUser, RunAsError> {
        let unknown = || RunAsError::UnknownUser { owner: owner.to_owned() };
        // A name with a NUL character is no name of a user.
        if owner.is_empty() || CStr::from_bytes_with_nul(&[owner.as_bytes(), b"\0"].concat()).is_err() {
            return Err(unknown());
        }
        let user = uzers::get_user_by_name(owner).ok_or_else(unknown)?;
        let (uid, min_uid) = (user.uid(), self.min_uid.max(1));
        if is_nobody(owner, uid) {
            return Err(RunAsError::Nobody { owner: owner.to_owned(), uid });
        }
        match uid < min_uid || user.primary_group_id() == 0 {
            true => Err(RunAsError::SystemUser { owner: owner.to_owned(), uid, min_uid }),
            false => Ok(WorkerUser {
                name: owner.to_owned(),
                uid,
                gid: user.primary_group_id(),
                home: user.home_dir().to_owned(),
            }),
        }
    }
}

/// Id of `nobody` on Linux, which is the id that files and processes of unknown users seem to have.
const NOBODY: u32 = 65534;

/// Returns whether a user is `nobody`, by its name, its usual id, or the id that this kernel shows for
/// unknown users.
fn is_nobody(name: &str, uid: u32) -> bool {
    let overflow = || fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse::<u32>().ok();
    name == "nobody" || uid == NOBODY || overflow() == Some(uid)
}

/// Directory of what the supervisor writes for the workers of other users.
pub(super) fn files_dir(local_dir: &Path) -> PathBuf {
    local_dir.join("worker-files")
}

fn packages(local_dir: &Path) -> PathBuf {
    local_dir.join(PACKAGES_DIR)
}

/// Variables of a worker that name its user, in place of those of the supervisor.
pub(super) fn environment(user: &WorkerUser) -> [(&'static str, OsString); 3] {
    let (name, home) = (OsString::from(&user.name), user.home.clone().into_os_string());
    [("HOME", home), ("USER", name.clone()), ("LOGNAME", name)]
}

/// Hands the new directory of a worker over to its user, with the file `log` in it. Nothing may be
/// created there afterwards. Blocks.
///
/// # Errors
/// If the owner of a file cannot be changed.
pub(super) fn hand_over(dir: &Path, log: &File, user: &WorkerUser) -> io::Result<()> {
    let (uid, gid) = (Some(user.uid), Some(user.gid));
    fchown(log, uid, gid)?;
    // The directory itself is last: until then its user cannot reach the others.
    [dir.join("pids"), dir.join("logs"), dir.to_owned()].iter().try_for_each(|dir| lchown(dir, uid, gid))
}

/// Place of the files that the supervisor writes for a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilesPlace {
    dir: PathBuf,
    /// User and group of the worker, if it runs as another user than this process.
    user: Option<(u32, u32)>,
}

impl FilesPlace {
    /// The place of a new worker.
    pub(super) fn of_spec(spec: &LaunchSpec) -> Self {
        let user = spec.user.as_ref().map(|user| (user.uid, user.gid));
        Self { dir: spec.files_dir().to_owned(), user }
    }

    /// The place of a worker that was launched before. Blocks.
    ///
    /// # Errors
    /// If its launch specification cannot be read, or is missing for a worker of another user.
    pub(super) fn of_worker(local_dir: &Path, worker: &WorkerId) -> io::Result<Self> {
        let dir = files_dir(local_dir).join(worker.as_str());
        let spec = match fs::symlink_metadata(dir.join(SPEC_FILE)) {
            Ok(spec) => spec,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let plain = worker_dir::path(local_dir, worker);
                let is_of_user = files_dir(local_dir).is_dir()
                    && owner_if_other(&plain).is_ok_and(|owner| owner.is_some());
                return match is_of_user {
                    true => Err(io::Error::new(
                        io::ErrorKind::NotFound,
                        format!("{} was removed: rebalance the topology of the worker", dir.display()),
                    )),
                    false => Ok(Self::plain(&plain)),
                };
            }
            Err(error) => return Err(error),
        };
        if is_of_this_process(&spec) {
            let spec = LaunchSpec::read(&dir.join(SPEC_FILE)).map_err(io::Error::other)?;
            let user = spec.user.map(|user| (user.uid, user.gid));
            return Ok(Self { dir, user });
        }
        // An earlier build gave the specification to the user.
        Ok(Self { dir, user: Some((spec.uid(), spec.gid())) })
    }

    /// The directory of a worker that runs as the user of this process.
    pub(super) fn plain(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), user: None }
    }

    /// User of the worker, if it is another one than that of this process.
    pub(super) fn uid(&self) -> Option<u32> {
        self.user.map(|(uid, _)| uid)
    }

    /// The directory of what the supervisor writes for a worker of this user and group.
    #[cfg(test)]
    pub(super) fn of_user(dir: &Path, owner: (u32, u32)) -> Self {
        Self { dir: dir.to_owned(), user: Some(owner) }
    }

    /// True if the worker runs as another user than this process.
    pub(super) fn is_of_another_user(&self) -> bool {
        self.user.is_some()
    }

    /// Path of a file.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads the launch specification. Blocks.
    ///
    /// # Errors
    /// If it cannot be read, or if the user of the worker may have changed it.
    pub(super) fn read_spec(&self) -> Result<LaunchSpec, String> {
        let path = self.path(SPEC_FILE);
        let is_ours = || fs::symlink_metadata(&path).is_ok_and(|spec| is_of_this_process(&spec));
        if self.user.is_some() && !is_ours() {
            return Err(format!("the user of the worker may have changed {}", path.display()));
        }
        LaunchSpec::read(&path).map_err(|error| error_chain(&error))
    }

    /// Writes the launch specification of a new worker of another user, who may read and not change it.
    /// Blocks.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write_spec(&self, text: &str) -> io::Result<()> {
        let path = self.path(SPEC_FILE);
        file::create_secret(&path, text)?;
        if let Some((_uid, gid)) = self.user {
            lchown(&path, None, Some(gid))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(READ_BY_GROUP))?;
        }
        Ok(())
    }

    /// Replaces a file by one that only the user of the worker may read. Writes nothing if it has this
    /// text already. Blocks.
    ///
    /// # Errors
    /// If it cannot be written; the file before is still there then.
    pub(super) fn replace_secret(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.path(name);
        let Some((uid, gid)) = self.user else { return file::replace_secret(&path, text) };
        // The user may have made the file as long as the disk.
        if user_files::has_text(&path, text) {
            return Ok(());
        }
        let temporary = path.with_extension("tmp");
        match fs::remove_file(&temporary) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        file::create_secret(&temporary, text)?;
        lchown(&temporary, Some(uid), Some(gid))?;
        fs::rename(&temporary, path)
    }
}

/// Returns whether a file belongs to the user of this process, so that no worker of another user may
/// have changed it.
pub(super) fn is_of_this_process(file: &fs::Metadata) -> bool {
    file.uid() == rustix::process::geteuid().as_raw()
}

/// Creates the directory of the files that the supervisor writes for a worker of another user. Blocks.
///
/// # Errors
/// If it cannot be created.
pub(super) fn create_files_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    // The umask takes the bits of others from what is created.
    fs::set_permissions(dir, fs::Permissions::from_mode(PASSAGE))
}

/// Rotates a log in the directory of another user: copies it, or the end of one that is very long, and
/// truncates it. No link is followed. Blocks.
///
/// # Errors
/// If a file cannot be written, or belongs to somebody else.
pub(super) fn rotate_in_place(logs: &Path, (log, older): (&str, &str), owner: u32) -> io::Result<()> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let dir = openat(CWD, logs, flags | OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let mut log = File::from(openat(&dir, log, flags | OFlags::RDWR, Mode::empty())?);
    let metadata = log.metadata()?;
    if !metadata.is_file() || metadata.uid() != owner {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the log is no file of its worker"));
    }
    match unlinkat(&dir, older, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let create = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mut older = File::from(openat(&dir, older, create, Mode::from_raw_mode(0o600))?);
    fchown(&older, Some(owner), Some(metadata.gid()))?;
    copy_end(&mut log, &mut older)?;
    log.set_len(0)
}

/// Copies a log, or the end of one that is very long.
pub(super) fn copy_end(log: &mut File, older: &mut File) -> io::Result<u64> {
    let len = log.metadata()?.len();
    log.seek(SeekFrom::Start(len.saturating_sub(ROTATED_BYTES_MAX)))?;
    // The log may still grow.
    io::copy(&mut log.take(ROTATED_BYTES_MAX), older)
}

/// Returns the user to whom a directory belongs, if it is not the user of this process.
pub(super) fn owner_if_other(dir: &Path) -> io::Result<Option<u32>> {
    let owner = fs::symlink_metadata(dir)?.uid();
    Ok((owner != rustix::process::geteuid().as_raw()).then_some(owner))
}

/// Copies the unpacked package `code` for a user, unless it is copied. Returns the directory of the
/// copy. Blocks.
///
/// # Errors
/// If it cannot be copied.
pub(super) fn package_of(local_dir: &Path, code: &Path, user: &WorkerUser) -> io::Result<PathBuf> {
    let parent = packages(local_dir);
    let key = code.file_name().unwrap_or_default();
    let name = [OsStr::new(&user.uid.to_string()), key].join(OsStr::new("-"));
    let copy = parent.join(&name);
    if copy.is_dir() {
        return Ok(copy);
    }
    // Only root reaches it until it is complete.
    let unfinished = parent.join([OsStr::new(UNFINISHED), &name].join(OsStr::new("")));
    match fs::remove_dir_all(&unfinished) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    copy_dir(code, &unfinished, user, 0)?;
    match fs::rename(&unfinished, &copy) {
        // Another worker of the user has copied it meanwhile.
        Err(_) if copy.is_dir() => fs::remove_dir_all(&unfinished)?,
        renamed => renamed?,
    }
    Ok(copy)
}

fn copy_dir(from: &Path, to: &Path, user: &WorkerUser, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the package has too many folders in each other",
        ));
    }
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            copy_dir(&source, &target, user, depth + 1)?;
        } else if kind.is_file() {
            // With its mode, of which the bits of its owner count.
            fs::copy(&source, &target)?;
            chown(&target, Some(user.uid), Some(user.gid))?;
        }
    }
    // Last, so that the user cannot change what is copied into it.
    lchown(to, Some(user.uid), Some(user.gid))
}

/// Removes copies of packages that are not `kept` any more. Blocks.
pub(super) fn remove_packages(local_dir: &Path, is_kept: impl Fn(&BlobKey) -> bool) {
    for entry in fs::read_dir(packages(local_dir)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let key = name.split_once('-').and_then(|(_uid, key)| key.parse::<BlobKey>().ok());
        if key.is_some_and(|key| !is_kept(&key))
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove the package of a user");
        }
    }
}

#[cfg(test)]
mod tests;
