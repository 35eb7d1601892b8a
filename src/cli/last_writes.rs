//! Memory of the command line: the changes that commands of this user wrote within the last minute.
//!
//! A command sends them with its reads, so it sees what the command before it wrote, whichever nimbus
//! answers. They are kept in `stormkeeper/last-writes.json` in the user's state directory
//! (`$XDG_STATE_HOME`, else `~/.local/state`). A file that cannot be read or written costs this
//! memory and nothing else: reads are then at most one notification of a watch behind.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::cli::output;
use stormkeeper_api_types::{
    client::Listener,
    seen::{Change, Seen, TREES_MAX},
};
use stormkeeper_model::{Timestamp, TreeId, Zxid, clock::Clock};

/// Time for which a write is remembered.
const MEMORY: Duration = Duration::from_secs(60);

/// Maximum bytes of the file; a longer one was written by something else.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Memory of the user's last writes. Its file is locked while it is read or changed; a lock that
/// another command holds at that moment costs the memory of this write.
#[derive(Debug)]
pub(super) struct LastWrites {
    /// The file; `None` for a user without a home.
    file: Option<PathBuf>,
    clock: Clock,
    /// A command that reads again and again warns once.
    has_warned: AtomicBool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    writes: Vec<Write>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Write {
    tree: TreeId,
    zxid: Zxid,
    at: Timestamp,
}

impl LastWrites {
    /// The memory of the user that runs this process.
    pub(super) fn of_user() -> Self {
        let dir = |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        let state = dir("XDG_STATE_HOME").or_else(|| dir("HOME").map(|home| home.join(".local/state")));
        Self::new(state.map(|state| state.join("stormkeeper/last-writes.json")), Clock::new())
    }

    fn new(file: Option<PathBuf>, clock: Clock) -> Self {
        Self { file, clock, has_warned: AtomicBool::new(false) }
    }

    /// Returns the writes of the last minute.
    pub(super) fn recall(&self) -> Seen {
        let writes = self.open(false).and_then(|mut file| self.read(&mut file)).unwrap_or_default();
        writes.into_iter().map(|write| Change { tree: write.tree, zxid: write.zxid }).collect()
    }

    fn remember(&self, change: &Change) -> io::Result<()> {
        let mut file = self.open(true)?;
        let mut writes = self.read(&mut file)?;
        let known = writes.iter().position(|write| write.tree == change.tree).map(|at| writes.remove(at));
        let zxid = known.map_or(change.zxid, |write| write.zxid.max(change.zxid));
        writes.push(Write { tree: change.tree.clone(), zxid, at: self.clock.now() });
        writes.drain(..writes.len().saturating_sub(TREES_MAX));
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(&serde_json::to_vec(&Record { writes })?)
    }

    /// Opens and locks the file.
    fn open(&self, to_write: bool) -> io::Result<File> {
        let path = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        if let Some(dir) = path.parent().filter(|_| to_write) {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file = OpenOptions::new().read(true).write(to_write).create(to_write).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Reads the writes of the last minute. What is no record of this memory is nothing.
    fn read(&self, file: &mut File) -> io::Result<Vec<Write>> {
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        let record: Record = serde_json::from_slice(&bytes).unwrap_or_default();
        let now = self.clock.now().as_millis();
        // A write of the future is of a clock that was set back since.
        let is_recent = |write: &Write| {
            let age = now.checked_sub(write.at.as_millis());
            age.is_some_and(|age| u128::from(age) <= MEMORY.as_millis())
        };
        Ok(record.writes.into_iter().filter(is_recent).collect())
    }
}

impl Listener for LastWrites {
    fn written(&self, change: &Change) {
        // Nobody can do anything about it, and the write itself has succeeded.
        let _forgotten = self.remember(change);
    }

    fn behind(&self, nimbus: &str, age: Duration) {
        if self.has_warned.swap(true, Ordering::Relaxed) {
            return;
        }
        let problem = match age.is_zero() {
            true => "has not seen your last change yet".to_owned(),
            false => {
                format!("has lost ZooKeeper, or is late: this is the state of {:.1} s ago", age.as_secs_f64())
            }
        };
        output::note(&format!(
            "warning: {nimbus} {problem}\nhint: `stormkeeper nimbuses` shows the state of each nimbus"
        ));
    }

    fn waiting(&self, limit: Duration) {
        output::note(&format!("no leader answers at the moment; trying for {} s", limit.as_secs()));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    struct Fixture {
        dir: tempfile::TempDir,
        clock: Clock,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().expect("made"),
                clock: Clock::manual(Timestamp::from_millis(10_000_000)),
            }
        }

        fn file(&self) -> PathBuf {
            self.dir.path().join("state/stormkeeper/last-writes.json")
        }

        fn command(&self) -> LastWrites {
            LastWrites::new(Some(self.file()), self.clock.clone())
        }

        fn recalled(&self) -> Option<String> {
            self.command().recall().header()
        }
    }

    fn change(tree: &str, zxid: i64) -> Change {
        Change { tree: TreeId(tree.to_owned()), zxid: Zxid(zxid) }
    }

    #[test]
    fn a_command_recalls_what_the_commands_before_it_wrote() {
        let fixture = Fixture::new();
        assert_eq!(fixture.recalled(), None);
        fixture.command().written(&change("a", 7));
        fixture.command().written(&change("b", 3));
        fixture.command().written(&change("a", 5));
        assert_eq!(fixture.recalled().as_deref(), Some("b:3,a:7"));
        let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(fixture.file()), 0o600);
        assert_eq!(mode(fixture.dir.path().join("state/stormkeeper")), 0o700);
    }

    #[test]
    fn a_write_is_forgotten_after_a_minute_and_when_the_clock_was_set_back() {
        let mut fixture = Fixture::new();
        fixture.command().written(&change("a", 7));
        fixture.clock.advance(MEMORY);
        assert_eq!(fixture.recalled().as_deref(), Some("a:7"));
        fixture.clock.advance(Duration::from_millis(1));
        assert_eq!(fixture.recalled(), None);
        fixture.command().written(&change("a", 8));
        fixture.clock = Clock::manual(Timestamp::from_millis(9_000_000));
        assert_eq!(fixture.recalled(), None);
    }

    #[test]
    fn the_file_is_bounded() {
        let fixture = Fixture::new();
        (0..100).for_each(|n| fixture.command().written(&change(&format!("t{n}"), n)));
        assert_eq!(fixture.command().recall().iter().count(), TREES_MAX);
        assert!(fs::metadata(fixture.file()).expect("there").len() < 1_000);
    }

    #[test]
    fn a_file_that_is_of_no_use_costs_the_memory_only() {
        let fixture = Fixture::new();
        fixture.command().written(&change("a", 7));
        for garbage in ["", "{", "[1]", "{\"writes\": 3}", &"x".repeat(1 << 20)] {
            fs::write(fixture.file(), garbage).expect("written");
            assert_eq!(fixture.recalled(), None, "{garbage:.9}");
            fixture.command().written(&change("a", 7));
            assert_eq!(fixture.recalled().as_deref(), Some("a:7"), "{garbage:.9}");
        }
        let held = fixture.command().open(true).expect("opened");
        fixture.command().written(&change("a", 9));
        drop(held);
        assert_eq!(fixture.recalled().as_deref(), Some("a:7"), "nobody waits for another command");

        fs::remove_file(fixture.file()).expect("removed");
        fs::create_dir(fixture.file()).expect("made");
        fixture.command().written(&change("a", 9));
        assert_eq!(fixture.recalled(), None);
        let homeless = LastWrites::new(None, fixture.clock.clone());
        homeless.written(&change("a", 9));
        assert_eq!(homeless.recall(), Seen::default());
    }
}
