//! Local directory of a daemon: an id that lasts as long as the directory, and a lock that at most
//! one process can hold, so that no other process uses the id.

use std::{
    fmt::Display,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tracing::{error, info};

use super::{FailedWrites, FileLock, LayoutFile, atomic_file, layout_file, modes, place, regular_file};
use crate::{
    blocking, error_chain, lossy_log, proc,
    tasks::{OnExit, Tasks},
};
use stormkeeper_model::InvalidId;

/// Period of looking for deleted files, and of trying to write: an operator sees both within ten
/// seconds.
const CHECK_PERIOD: Duration = Duration::from_secs(5);

/// Name of the log of a daemon among the paths that cannot be written.
const LOG: &str = "its log (standard error)";

/// A locked directory and the id in it. The lock is held until this is dropped.
#[derive(Debug)]
pub struct LockedDir<Id> {
    /// The id of the daemon that owns the directory.
    pub id: Id,
    dir: PathBuf,
    layout: LayoutFile,
    // Replaced if the directory is created again.
    lock: Mutex<FileLock>,
    others: Mutex<Vec<OtherFile>>,
}

/// A file that another part of the daemon writes, and puts back if it was deleted: its path, and a
/// function that returns whether it was missing.
type PutBack = Box<dyn Fn() -> io::Result<bool> + Send + Sync>;

struct OtherFile(PathBuf, PutBack);

impl std::fmt::Debug for OtherFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

/// The process that holds the lock of a directory, as its lock file says: pid and start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The pid.
    pub pid: u32,
    /// Start time in ticks since the boot of the host.
    pub started: u64,
}

impl Holder {
    /// Returns whether the process exists, or may exist. Blocks.
    pub fn lives(self) -> bool {
        match proc::stat(self.pid) {
            Ok(Some(found)) => found.started == self.started && !found.is_zombie,
            Ok(None) => false,
            Err(_) => true,
        }
    }
}

impl FromStr for Holder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.trim().split_once(' ');
        let parsed = numbers.and_then(|(pid, started)| Some((pid.parse().ok()?, started.parse().ok()?)));
        parsed.map(|(pid, started)| Self { pid, started }).ok_or_else(|| format!("{text:?} names no process"))
    }
}

/// Reason why a daemon cannot use a local directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or a file in it cannot be used.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The directory has another layout, or belongs to another kind of daemon.
    #[error(transparent)]
    Layout(#[from] layout_file::Error),
    /// Another process holds the lock.
    #[error("another {daemon} is running in {}; give each its own storm.local.dir", dir.display())]
    InUse {
        /// Kind of daemon.
        daemon: &'static str,
        /// The locked directory.
        dir: PathBuf,
    },
    /// The directory is a copy of one that a running daemon uses.
    #[error(
        "{} is a copy of {}, in which a {daemon} is running: both would run under one id. To move the directory, stop \
         the {daemon} in {} first; for another {daemon}, set an empty storm.local.dir. Nothing was changed",
        dir.display(), original.display(), original.display()
    )]
    Copy {
        /// Kind of daemon.
        daemon: &'static str,
        /// The copy.
        dir: PathBuf,
        /// The directory that is in use.
        original: PathBuf,
    },
    /// A directory of an earlier build cannot be moved, because its new place is in use.
    #[error(
        "both {} and {} are directories of a {daemon}: move one of them away; which one the cluster knows, the file \
         {daemon}-id in it tells. Nothing was changed",
        former.display(), dir.display()
    )]
    Twice {
        /// Kind of daemon.
        daemon: &'static str,
        /// The directory of the earlier build.
        former: PathBuf,
        /// The directory of this build.
        dir: PathBuf,
    },
    /// The file with the id holds something else.
    #[error("{} does not hold a {daemon} id; write the former id into it, or delete it to become a new {daemon}", path.display())]
    NotAnId {
        /// Kind of daemon.
        daemon: &'static str,
        /// The file.
        path: PathBuf,
        /// Parse error.
        source: InvalidId,
    },
}

impl Error {
    /// Kind of the cause, which says what to do.
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } | Self::Layout(layout_file::Error::Io { source, .. }) => source.kind(),
            Self::InUse { .. } | Self::Copy { .. } => io::ErrorKind::ResourceBusy,
            Self::Layout(_) | Self::Twice { .. } | Self::NotAnId { .. } => io::ErrorKind::Other,
        }
    }
}

impl<Id: FromStr<Err = InvalidId> + Display> LockedDir<Id> {
    /// Locks the directory at `dir`, which is created if it is missing, and reads the id of the
    /// daemon in it. The first time, creates the layout and an id from `host`. Blocks.
    ///
    /// # Errors
    /// [`Error`]; above all when another process uses the directory.
    pub fn acquire(dir: &Path, layout: &LayoutFile, host: &str) -> Result<Self, Error> {
        // Before the lock: its file must not appear in a directory of another layout.
        layout.check(dir)?;
        modes::create_dir_all(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })?;
        let lock = lock(dir, layout.kind)?;
        layout.check_or_create(dir)?;
        place::check(dir, layout.kind, lock.file())?;
        let id = read_or_create_id(dir, layout.kind, host)?;
        Ok(Self {
            id,
            dir: dir.to_owned(),
            layout: *layout,
            lock: Mutex::new(lock),
            others: Mutex::default(),
        })
    }

    /// Makes [`LockedDir::put_back`] put back the file `name` as well: `put_back` writes it if it is
    /// missing, and returns whether it was.
    pub fn keep_file(&self, name: &str, put_back: impl Fn() -> io::Result<bool> + Send + Sync + 'static) {
        let other = OtherFile(self.dir.join(name), Box::new(put_back));
        self.others.lock().unwrap_or_else(PoisonError::into_inner).push(other);
    }

    /// Creates the directory with its identity, layout and lock again, if they were deleted while
    /// the daemon runs: its next start would otherwise be another daemon. Returns whether something
    /// was missing. Blocks.
    ///
    /// # Errors
    /// [`Error`] if it cannot be created, or if another process uses the directory by now.
    pub fn put_back(&self) -> Result<bool, Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        let kind = self.layout.kind;
        modes::create_dir_all(&self.dir).map_err(io(&self.dir))?;
        let is_locked = self.is_lock_in_place();
        if !is_locked {
            let lock = lock(&self.dir, kind)?;
            *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock;
        }
        // An operator may have deleted the traces of the daemon in part.
        let layout = LayoutFile { traces: &[], ..self.layout };
        let had_layout = layout.is_present(&self.dir)?;
        if !had_layout {
            layout.check_or_create(&self.dir)?;
        }
        let path = id_path(&self.dir, kind);
        let had_id = path.try_exists().map_err(io(&path))?;
        if !had_id {
            atomic_file::write(&path, format!("{}\n", self.id).as_bytes()).map_err(io(&path))?;
        }
        let had_place = !place::put_back(&self.dir).map_err(io(&self.dir))?;
        let mut had_others = true;
        for OtherFile(path, put_back) in &*self.others.lock().unwrap_or_else(PoisonError::into_inner) {
            had_others &= !put_back().map_err(io(path))?;
        }
        Ok(!(is_locked && had_layout && had_id && had_place && had_others))
    }

    /// Returns whether the file that this process has locked is still the one in the directory.
    fn is_lock_in_place(&self) -> bool {
        let held = self.lock.lock().unwrap_or_else(PoisonError::into_inner).file().metadata();
        let in_place = fs::metadata(lock_path(&self.dir, self.layout.kind));
        let key = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
        matches!((&held, &in_place), (Ok(held), Ok(in_place)) if key(held) == key(in_place))
    }
}

impl<Id: FromStr<Err = InvalidId> + Display + Send + Sync + 'static> LockedDir<Id> {
    /// Keeps the directory in place as [`LockedDir::put_back`] does, and tries to write in it, until
    /// `tasks` end or this is dropped. Failures are recorded in `writes`.
    pub fn keep(self: &Arc<Self>, writes: &FailedWrites, tasks: &Tasks) {
        // The lock ends with its owner, not with this task.
        let (this, dir, writes) = (Arc::downgrade(self), self.dir.clone(), writes.clone());
        tasks.start("local directory", OnExit::Ignore, async move {
            loop {
                let Some(checked) = this.upgrade() else { return };
                let (writes, of_log) = (writes.clone(), writes.clone());
                let was_missing = blocking::run(move || checked.put_back_and_try(&writes)).await;
                try_log(&of_log);
                if was_missing {
                    error!(
                        dir = %dir.display(),
                        "the data directory or a file in it was deleted while its daemon runs: put back identity, \
                         layout and lock"
                    );
                }
                tokio::time::sleep(CHECK_PERIOD).await;
            }
        });
    }

    /// Puts the directory back and tries to write in it. Returns whether something was missing.
    fn put_back_and_try(&self, writes: &FailedWrites) -> bool {
        match self.put_back() {
            Ok(was_missing) => {
                writes.try_again(&self.dir);
                was_missing
            }
            Err(error) => {
                writes.failed(&self.dir, error.io_kind(), &error_chain(&error));
                false
            }
        }
    }
}

/// Records whether the log of this process can be written, and tries it if it could not.
fn try_log(writes: &FailedWrites) {
    if lossy_log::last_line().is_err() {
        info!("trying to write this log again");
    }
    let _recorded = writes.record(Path::new(LOG), lossy_log::last_line());
}

pub(super) fn lock_path(dir: &Path, daemon: &str) -> PathBuf {
    dir.join(format!("{daemon}.lock"))
}

pub(super) fn id_path(dir: &Path, daemon: &str) -> PathBuf {
    dir.join(format!("{daemon}-id"))
}

pub(super) fn lock(dir: &Path, daemon: &'static str) -> Result<FileLock, Error> {
    let path = lock_path(dir, daemon);
    let locked = regular_file::open_with(&path, File::options().create(true).append(true));
    let locked = locked.map_err(TryLockError::Error);
    match locked.and_then(|file| file.try_lock().map(|()| file)) {
        Ok(file) => {
            // Without it, workers do not know whether their supervisor runs; they then assume it.
            let _unknown = write_holder(&file);
            Ok(FileLock::held(file))
        }
        Err(TryLockError::WouldBlock) => Err(Error::InUse { daemon, dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::Io { path, source }),
    }
}

fn write_holder(mut file: &File) -> io::Result<()> {
    use io::Write as _;

    let pid = std::process::id();
    file.set_len(0)?;
    if let Some(me) = proc::stat(pid)? {
        file.write_all(format!("{pid} {}\n", me.started).as_bytes())?;
    }
    Ok(())
}

fn read_or_create_id<Id>(dir: &Path, daemon: &'static str, host: &str) -> Result<Id, Error>
where
    Id: FromStr<Err = InvalidId> + Display,
{
    let path = id_path(dir, daemon);
    let not_an_id = |path| move |source| Error::NotAnId { daemon, path, source };
    match regular_file::read(&path) {
        // Bytes that are not UTF-8 are no id either.
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().parse().map_err(not_an_id(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = new_id(host, fastrand::u32(..)).parse().map_err(not_an_id(path.clone()))?;
            match atomic_file::write(&path, format!("{id}\n").as_bytes()) {
                Ok(()) => Ok(id),
                Err(source) => Err(Error::Io { path, source }),
            }
        }
        Err(source) => Err(Error::Io { path, source }),
    }
}

/// `host-8 hex digits`, with a dash for each character that an id may not contain.
fn new_id(host: &str, random: u32) -> String {
    /// Leaves room for the digits in the longest id that is allowed.
    const HOST_CHARS_MAX: usize = 100;
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
    let host: String = host.chars().take(HOST_CHARS_MAX).map(fits).collect();
    format!("{host}-{random:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_model::{NimbusId, SupervisorId, Timestamp, clock::Clock};

    const LAYOUT: LayoutFile =
        LayoutFile { kind: "nimbus", traces: &["nimbus-id", "blobs"], remedy: "move the directory away" };

    fn acquire(dir: &Path, host: &str) -> Result<LockedDir<NimbusId>, Error> {
        LockedDir::acquire(dir, &LAYOUT, host)
    }

    #[test]
    fn id_survives_a_restart_with_another_host() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = acquire(dir.path(), "host.example").expect("free").id;
        assert!(first.as_str().starts_with("host.example-"), "{first}");
        assert_eq!(acquire(dir.path(), "other").expect("free").id, first);
        assert!(dir.path().join("nimbus.lock").exists() && dir.path().join("nimbus-id").exists());
    }

    #[test]
    fn second_process_is_rejected_until_the_first_ends() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = acquire(dir.path(), "h").expect("free");
        let refused = acquire(dir.path(), "h").expect_err("in use");
        assert!(matches!(refused, Error::InUse { .. }), "{refused}");
        let text = refused.to_string();
        assert!(text.contains("nimbus") && text.contains(&dir.path().display().to_string()), "{text}");
        let holder = fs::read_to_string(dir.path().join("nimbus.lock")).expect("read");
        let holder: Holder = holder.parse().expect("pid and start time");
        assert!(holder.pid == std::process::id() && holder.lives());
        assert!(!Holder { started: holder.started + 1, ..holder }.lives(), "another process with this pid");
        assert!("".parse::<Holder>().is_err());
        drop(first);
        acquire(dir.path(), "h").expect("free again");
    }

    #[test]
    fn directory_of_an_earlier_build_is_refused_and_not_changed() {
        for trace in LAYOUT.traces {
            let dir = tempfile::tempdir().expect("temporary directory");
            fs::write(dir.path().join(trace), "").expect("written");
            let refused = acquire(dir.path(), "h").expect_err("refused");
            assert!(matches!(refused, Error::Layout(layout_file::Error::Unversioned { .. })), "{refused}");
            assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
        }
    }

    #[test]
    fn deleted_directory_or_file_of_a_running_daemon_is_put_back_and_locked() {
        let parent = tempfile::tempdir().expect("temporary directory");
        let dir = parent.path().join("nimbus");
        let first = acquire(&dir, "h").expect("free");
        assert!(!first.put_back().expect("whole"));
        let file = |name: &str| dir.join(name);
        for deleted in ["nimbus-id", "layout", "nimbus.lock", "directory"] {
            fs::remove_file(file(deleted)).expect("deleted");
            assert!(first.put_back().expect("put back"), "{deleted}");
            assert!(file(deleted).exists() && !first.put_back().expect("whole"), "{deleted}");
        }
        fs::remove_dir_all(&dir).expect("deleted");
        assert!(first.put_back().expect("put back"));
        let refused = acquire(&dir, "h").expect_err("in use");
        assert!(matches!(refused, Error::InUse { .. }), "{refused}");
        fs::remove_dir_all(&dir).expect("deleted");
        let other = acquire(&dir, "h").expect("free");
        let refused = first.put_back().expect_err("another process uses it");
        assert!(matches!(refused, Error::InUse { .. }), "{refused}");
        assert_ne!(other.id, first.id);
        drop(other);
    }

    #[test]
    fn directory_that_cannot_be_put_back_is_recorded_until_it_is() {
        let parent = tempfile::tempdir().expect("temporary directory");
        let dir = parent.path().join("nimbus");
        let writes = FailedWrites::new(Clock::manual(Timestamp::EPOCH));
        let first = acquire(&dir, "h").expect("free");
        fs::remove_dir_all(&dir).expect("deleted");
        fs::write(&dir, "").expect("a file in its place");
        assert!(!first.put_back_and_try(&writes));
        let text = writes.texts().join("\n");
        assert!(text.starts_with(&format!("cannot write {} since", dir.display())), "{text}");
        assert!(text.ends_with("; move away what is in its place"), "{text}");
        fs::remove_file(&dir).expect("removed");
        assert!(first.put_back_and_try(&writes));
        assert_eq!(writes.texts(), Vec::<String>::new());
    }

    #[test]
    fn deleted_file_of_another_part_of_the_daemon_is_put_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let daemon = acquire(dir.path(), "h").expect("free");
        let path = dir.path().join("tree");
        let kept = path.clone();
        daemon.keep_file("tree", move || {
            let is_missing = !kept.exists();
            fs::write(&kept, "t").map(|()| is_missing)
        });
        assert!(daemon.put_back().expect("put back"));
        assert!(path.exists() && !daemon.put_back().expect("whole"));
        daemon.keep_file("starts.json", || Err(io::ErrorKind::StorageFull.into()));
        let refused = daemon.put_back().expect_err("cannot be written").to_string();
        assert!(refused.contains("starts.json"), "{refused}");
    }

    #[test]
    fn damaged_id_file_is_named_in_the_error() {
        let dir = tempfile::tempdir().expect("temporary directory");
        drop(acquire(dir.path(), "h").expect("free"));
        for damaged in [&b"not / an id"[..], b"", b"h-0000\xff01"] {
            fs::write(dir.path().join("nimbus-id"), damaged).expect("written");
            let refused = acquire(dir.path(), "h").expect_err("damaged");
            assert!(matches!(refused, Error::NotAnId { .. }), "{refused}");
            assert!(refused.to_string().contains("nimbus-id"), "{refused}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        for name in ["layout", "nimbus.lock", "nimbus-id", "directory", "layout.tmp"] {
            let dir = tempfile::tempdir().expect("temporary directory");
            drop(acquire(dir.path(), "h").expect("free"));
            let path = dir.path().join(name);
            let _may_be_missing = fs::remove_file(&path);
            let _may_be_missing = fs::remove_file(dir.path().join(name.trim_end_matches(".tmp")));
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
            if name == "layout.tmp" {
                fs::remove_file(dir.path().join("nimbus-id")).expect("removed");
            }
            let refused = error_chain(&acquire(dir.path(), "h").expect_err("refused"));
            let place = path.display().to_string();
            let place = place.trim_end_matches(".tmp");
            assert!(refused.contains("it is a FIFO") && refused.contains(place), "{refused}");
        }
    }

    #[test]
    fn any_host_yields_a_valid_id() {
        for host in ["::1", "a b", "", "ä", "ho:st/1", "a_b", &"x".repeat(300)] {
            let id = new_id(host, 1);
            assert!(id.ends_with("-00000001"), "{id}");
            id.parse::<NimbusId>().expect("valid");
            id.parse::<SupervisorId>().expect("valid");
        }
        assert!(new_id("ho:st/1", 1).starts_with("ho-st-1-"));
    }
}
