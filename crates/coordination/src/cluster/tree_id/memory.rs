//! Memory of a daemon about its tree: the file `tree` in its data directory.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tracing::{info, warn};

use super::{ForeignTree, FoundTree, TreeMark, Verdict, compare};
use crate::{cluster::record, tree::TreePath};
use stormkeeper_model::{
    Term,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::{
    blocking,
    fs::{atomic_file, regular_file},
    watch,
};

/// Name of the file.
pub const FILE: &str = "tree";

/// Shortest time between two writes of the file that only move its transaction forward. A new id and
/// a new term are written at once: there is one per recovery and per election.
const WRITE_PERIOD: Duration = Duration::from_secs(30);

/// Memory of one daemon. Clones share it.
#[derive(Debug, Clone)]
pub struct TreeMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The file; `None` for a process that remembers its tree only while it runs.
    path: Option<PathBuf>,
    clock: Clock,
    mark: watch::Sender<Option<TreeMark>>,
    foreign: watch::Sender<Option<ForeignTree>>,
    // Held while the file is written: two writers would use one temporary file.
    writing: Mutex<()>,
    // Guards the bookkeeping of the file; held for a few instructions.
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    mark: Option<TreeMark>,
    at: Option<Monotonic>,
}

impl TreeMemory {
    /// Reads the memory of the daemon whose data directory is `dir`. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged: a daemon must not take the first tree that it meets
    /// for its own.
    pub fn load(dir: &Path, clock: Clock) -> io::Result<Self> {
        let path = dir.join(FILE);
        let mark = match regular_file::read(&path) {
            Ok(bytes) => Some(decode(&path, &bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let text = format!("cannot read {}: {error}", path.display());
                return Err(io::Error::new(error.kind(), text));
            }
        };
        Ok(Self::new(Some(path), mark, clock))
    }

    /// Memory of a process without a data directory: it belongs to the first tree that it meets.
    pub fn of_process(clock: Clock) -> Self {
        Self::new(None, None, clock)
    }

    fn new(path: Option<PathBuf>, mark: Option<TreeMark>, clock: Clock) -> Self {
        let written = Mutex::new(Written { mark: mark.clone(), at: None });
        let (mark, foreign) = (watch::Sender::new(mark), watch::Sender::new(None));
        Self(Arc::new(Shared { path, clock, mark, foreign, writing: Mutex::default(), written }))
    }

    /// Returns the remembered tree; `None` for a daemon that remembers nothing.
    pub fn mark(&self) -> Option<TreeMark> {
        self.0.mark.borrow().clone()
    }

    /// Returns the latest term that the daemon remembers.
    pub fn term(&self) -> Term {
        self.0.mark.borrow().as_ref().map_or(Term(0), |mark| mark.term)
    }

    /// Follows the tree that the daemon has met and must not use, while it meets one.
    pub fn foreign(&self) -> watch::Receiver<Option<ForeignTree>> {
        self.0.foreign.subscribe()
    }

    /// Compares a tree with the remembered tree.
    pub fn compare(&self, found: &FoundTree) -> Verdict {
        compare(self.0.mark.borrow().as_ref(), found)
    }

    /// Records that the daemon has met its own tree again.
    pub(crate) async fn accept(&self, mark: Option<TreeMark>) {
        if self.0.foreign.send_replace(None).is_some() {
            info!("ZooKeeper has the tree of this daemon again");
        }
        if let Some(mark) = mark {
            self.remember(mark).await;
        }
    }

    /// Records that the daemon has met a tree that it must not use.
    pub(crate) fn reject(&self, root: &TreePath, difference: super::Difference) {
        let Some(remembered) = self.mark() else { return };
        let foreign = ForeignTree { root: root.clone(), remembered, difference };
        let is_new = self.0.foreign.borrow().as_ref() != Some(&foreign);
        if is_new {
            tracing::error!("{foreign}; {}", foreign.advice());
            self.0.foreign.send_replace(Some(foreign));
        }
    }

    async fn remember(&self, mark: TreeMark) {
        let is_same_tree = |known: &Option<TreeMark>| known.as_ref().is_some_and(|known| known.id == mark.id);
        if !is_same_tree(&self.0.mark.borrow()) {
            info!(tree = %mark.id, term = %mark.term, "this daemon belongs to this tree from now on");
        }
        self.0.mark.send_replace(Some(mark.clone()));
        let Some(path) = self.0.path.clone() else { return };
        if !self.is_write_due(&mark) {
            return;
        }
        let this = self.clone();
        let write = move || {
            let _writing = this.0.writing.lock().expect("no one panics while holding it");
            // Another task may have remembered a later one meanwhile.
            let mark = this.mark().unwrap_or(mark);
            atomic_file::write(&path, &record::encode(&mark)).map(|()| mark)
        };
        match blocking::run(write).await {
            Ok(mark) => self.written(Some(mark)),
            // The memory of this process is up to date; the file is written with the next change.
            Err(error) => warn!(%error, "cannot write the memory of the tree; writing it again later"),
        }
    }

    /// Writes the file again if it was deleted: the next start would take any tree for its own. Returns
    /// whether it was missing. Blocks.
    ///
    /// # Errors
    /// If the file cannot be looked for or written.
    pub fn put_back(&self) -> io::Result<bool> {
        let Some(path) = &self.0.path else { return Ok(false) };
        let _writing = self.0.writing.lock().expect("no one panics while holding it");
        let Some(mark) = self.mark().filter(|_| !path.exists()) else { return Ok(false) };
        // A daemon that has just met its tree has not written the file yet.
        let was_there = self.0.written.lock().expect("no one panics while holding it").mark.is_some();
        atomic_file::write(path, &record::encode(&mark)).map(|()| was_there)
    }

    /// Decides whether the file is to be written now, and notes the attempt.
    fn is_write_due(&self, mark: &TreeMark) -> bool {
        let now = self.0.clock.monotonic();
        let mut written = self.0.written.lock().expect("no one panics while holding it");
        let is_moved_only = written.mark.as_ref().is_some_and(|last| {
            (&last.id, last.term, last.term_created) == (&mark.id, mark.term, mark.term_created)
        });
        let is_early = written.at.is_some_and(|at| now.since(at) < WRITE_PERIOD);
        if written.mark.as_ref() == Some(mark) || (is_moved_only && is_early) {
            return false;
        }
        written.at = Some(now);
        true
    }

    fn written(&self, mark: Option<TreeMark>) {
        self.0.written.lock().expect("no one panics while holding it").mark = mark;
    }
}

fn decode(path: &Path, bytes: &[u8]) -> io::Result<TreeMark> {
    let at_root = TreePath::root();
    record::decode(&at_root, bytes).map_err(|error| {
        let text = format!(
            "{} does not say to which tree this daemon belongs ({}); delete it if storm.zookeeper.servers lead to the \
             right tree",
            path.display(),
            error.defect
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}
