//! Failed writes of a daemon to its local directory, in one place: the path, the reason, and since
//! when.
//!
//! A writer records the result of each write. A write that failed is withdrawn by the next success
//! at the same path, or by [`FailedWrites::try_again`], which [`super::LockedDir::keep`] calls every
//! five seconds. The daemon shows the texts to operators.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tracing::{error, info};

use crate::watch;
use stormkeeper_model::{
    Timestamp,
    clock::{Clock, Monotonic},
};

/// File of an attempt to write, in the directory that is tried. It is removed at once.
const PROBE_FILE: &str = "write-probe";

/// Size of that file: more than a ledger entry and a launch spec need.
const PROBE_BYTES: usize = 16 << 10;

/// Maximum number of paths; while there are as many, a further one is only in the log of its writer.
const PATHS_MAX: usize = 32;

/// Maximum number of paths that are shown, so that a record stays small.
const SHOWN_MAX: usize = 3;

/// Time after which a failure that another file in its directory cannot disprove is withdrawn, if
/// nobody has tried to write its path again: longer than the longest pause between two launches.
const FORGET_AFTER: Duration = Duration::from_secs(120);

/// The failed writes of one daemon. Clones are the same. Methods with I/O block.
#[derive(Debug, Clone)]
pub struct FailedWrites(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    // Guards the failures while they are read and changed; never held during I/O.
    failures: Mutex<BTreeMap<PathBuf, Failure>>,
    texts: watch::Sender<Vec<String>>,
}

#[derive(Debug, Clone)]
struct Failure {
    since: Timestamp,
    last: Monotonic,
    kind: ErrorKind,
    reason: String,
}

impl Failure {
    /// True if the cause is that of a whole file system, so that any file in it shows its end.
    fn is_of_disk(&self) -> bool {
        matches!(self.kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem)
    }

    fn remedy(&self) -> &'static str {
        match self.kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there",
            ErrorKind::ReadOnlyFilesystem => "check the disk, and mount it writable again",
            ErrorKind::PermissionDenied => "let the user of this daemon write there",
            ErrorKind::AlreadyExists
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidInput => "move away what is in its place",
            ErrorKind::BrokenPipe => "start what reads it again",
            ErrorKind::ResourceBusy => "stop the other process",
            _ => "check the disk",
        }
    }
}

impl FailedWrites {
    /// Nothing has failed yet.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Shared { clock, failures: Mutex::default(), texts: watch::Sender::new(Vec::new()) }))
    }

    /// Records the result of a write to `path`, and returns it.
    ///
    /// # Errors
    /// The error of the write.
    pub fn record<T>(&self, path: &Path, result: io::Result<T>) -> io::Result<T> {
        match &result {
            Ok(_) => self.succeeded(path),
            Err(error) => self.failed(path, error.kind(), &error.to_string()),
        }
        result
    }

    /// Records a failed write to `path`.
    pub fn failed(&self, path: &Path, kind: ErrorKind, reason: &str) {
        let (now, last) = (self.0.clock.now(), self.0.clock.monotonic());
        let mut failures = self.failures();
        if failures.len() >= PATHS_MAX && !failures.contains_key(path) {
            return;
        }
        let known = failures.get(path).map(|failure| failure.since);
        if known.is_none() {
            error!(path = %path.display(), reason, "cannot write; trying again every few seconds");
        }
        let failure = Failure { since: known.unwrap_or(now), last, kind, reason: reason.to_owned() };
        failures.insert(path.to_owned(), failure);
        self.publish(&failures);
    }

    fn succeeded(&self, path: &Path) {
        let mut failures = self.failures();
        if let Some(failure) = failures.remove(path) {
            info!(path = %path.display(), since = %failure.since, "can be written again");
            self.publish(&failures);
        }
    }

    /// Tries to write in `dir`, and in the directories of the writes that failed before; withdraws
    /// those whose cause is gone.
    pub fn try_again(&self, dir: &Path) {
        let failed = self.failures().clone();
        let _recorded = self.record(dir, probe(dir, failed.contains_key(dir)));
        for (path, failure) in failed.iter().filter(|(path, _)| *path != dir) {
            let age = self.0.clock.monotonic().since(failure.last);
            if !failure.is_of_disk() && age < FORGET_AFTER {
                continue;
            }
            // The directory itself may have been removed since, as that of a worker is.
            let Some(parent) = path.ancestors().skip(1).find(|parent| parent.is_dir()) else { continue };
            match probe(parent, true) {
                Ok(()) => self.succeeded(path),
                Err(error) => self.failed(path, error.kind(), &error.to_string()),
            }
        }
    }

    /// Texts for operators: paths, reasons and remedies. Empty if nothing fails.
    pub fn texts(&self) -> Vec<String> {
        self.0.texts.subscribe().borrow().clone()
    }

    /// Watches the texts.
    pub fn watch(&self) -> watch::Receiver<Vec<String>> {
        self.0.texts.subscribe()
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Failure>> {
        self.0.failures.lock().expect("no one panics while holding the failures")
    }

    fn publish(&self, failures: &BTreeMap<PathBuf, Failure>) {
        let texts = texts(failures);
        self.0.texts.send_if_modified(|published| {
            let is_new = *published != texts;
            *published = texts;
            is_new
        });
    }
}

/// The texts of `failures`, without paths below another one that fails as well.
fn texts(failures: &BTreeMap<PathBuf, Failure>) -> Vec<String> {
    let is_shown = |path: &Path| !path.ancestors().skip(1).any(|ancestor| failures.contains_key(ancestor));
    let mut shown: Vec<_> = failures.iter().filter(|(path, _)| is_shown(path)).collect();
    shown.sort_by_key(|(_, failure)| failure.since);
    let n_more = shown.len().saturating_sub(SHOWN_MAX);
    let text = |(path, failure): &(&PathBuf, &Failure)| {
        let Failure { since, reason, .. } = failure;
        format!("cannot write {} since {since}: {reason}; {}", path.display(), failure.remedy())
    };
    let mut texts: Vec<String> = shown.iter().take(SHOWN_MAX).map(text).collect();
    if n_more > 0 {
        texts.push(format!("cannot write {n_more} more files: see the log"));
    }
    texts
}

/// Writes a small file in `dir`. A file system takes the blocks for it at once, even if it writes
/// them later; `sync` waits for the disk, which shows a device that fails.
fn probe(dir: &Path, sync: bool) -> io::Result<()> {
    let path = dir.join(PROBE_FILE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0x5a; PROBE_BYTES])?;
        if sync { file.sync_data() } else { Ok(()) }
    });
    // Written over by the next attempt if it stays.
    let _removed = fs::remove_file(&path);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Daemon {
        dir: tempfile::TempDir,
        clock: Clock,
        writes: FailedWrites,
    }

    impl Daemon {
        fn new() -> Self {
            let clock = Clock::manual(Timestamp::EPOCH);
            let writes = FailedWrites::new(clock.clone());
            Self { dir: tempfile::tempdir().expect("temporary directory"), clock, writes }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn fail(&self, name: &str, kind: ErrorKind) {
            let failed = self.writes.record::<()>(&self.path(name), Err(kind.into()));
            assert_eq!(failed.expect_err("passed on").kind(), kind);
        }

        fn shown(&self) -> usize {
            self.writes.try_again(self.dir.path());
            self.writes.texts().len()
        }
    }

    #[test]
    fn failed_write_is_shown_with_its_time_and_remedy_until_the_same_path_is_written() {
        let daemon = Daemon::new();
        daemon.fail("starts.json", ErrorKind::IsADirectory);
        daemon.clock.advance(SECOND);
        daemon.fail("starts.json", ErrorKind::IsADirectory);
        let text = daemon.writes.texts().join("\n");
        let expected = format!(
            "cannot write {} since 1970-01-01T00:00:00.000Z: is a directory; move away what is in its place",
            daemon.path("starts.json").display()
        );
        assert_eq!(text, expected);
        assert_eq!(daemon.shown(), 1, "another file in the directory does not disprove it");
        daemon.writes.record(&daemon.path("starts.json"), Ok(())).expect("passed on");
        assert_eq!(daemon.shown(), 0);
    }

    #[test]
    fn full_disk_is_withdrawn_when_a_file_can_be_written_there_and_no_probe_remains() {
        let daemon = Daemon::new();
        daemon.fail("workers/w1/worker.json", ErrorKind::StorageFull);
        assert!(daemon.writes.texts()[0].ends_with("; make room there"), "{:?}", daemon.writes.texts());
        assert_eq!(daemon.shown(), 0);
        assert_eq!(fs::read_dir(daemon.dir.path()).expect("listed").count(), 0);
    }

    #[test]
    fn directory_that_cannot_be_written_hides_the_files_below_it_and_comes_back() {
        let daemon = Daemon::new();
        daemon.fail("ledger/6700.json", ErrorKind::NotADirectory);
        // In the way of the probe, also for root.
        fs::create_dir(daemon.path(PROBE_FILE)).expect("created");
        assert_eq!(daemon.shown(), 1);
        let text = daemon.writes.texts().join("\n");
        assert!(text.starts_with(&format!("cannot write {} since", daemon.dir.path().display())), "{text}");
        fs::remove_dir(daemon.path(PROBE_FILE)).expect("removed");
        assert_eq!(daemon.shown(), 1, "the file");
        daemon.clock.advance(FORGET_AFTER);
        assert_eq!(daemon.shown(), 0, "a file that nobody writes any more");
    }

    #[test]
    fn paths_and_texts_are_bounded() {
        let daemon = Daemon::new();
        for n in 0..2 * PATHS_MAX {
            daemon.fail(&n.to_string(), ErrorKind::Other);
        }
        let texts = daemon.writes.texts();
        assert_eq!(texts.len(), SHOWN_MAX + 1);
        assert_eq!(
            texts[SHOWN_MAX],
            format!("cannot write {} more files: see the log", PATHS_MAX - SHOWN_MAX)
        );
    }
}
