//! Watchers: sets of paths that may have changed, filled by a backend, drained by a reader.
//!
//! Every backend reports the same paths for a change:
//!
//! - a write of `/a/b`: `/a/b`;
//! - the creation or deletion of `/a/b`: `/a/b`, and `/a`, whose list of children changed.
//!
//! A [`Scope::Node`] watcher receives only its own path, and a [`Scope::Subtree`] watcher all paths
//! at or below its path. A reader that reads the reported paths again, each with its children, has
//! therefore seen the whole change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, Weak},
};

use tokio::sync::Notify;

use crate::tree::{Scope, TreePath};

/// Maximum number of changed paths that a watcher keeps. Beyond it the watcher reports
/// [`Changes::Everything`], which costs the reader a full read and loses nothing.
const MAX_PATHS: usize = 50_000;

/// Paths that may have changed since the last report.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Changes {
    /// Anything that is watched may have changed: read all of it.
    Everything,
    /// These znodes were created, deleted or written, or gained or lost a child.
    Paths(BTreeSet<TreePath>),
}

/// Wakes its owner when something in its scope may have changed. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
}

/// The backend's end of a [`Watcher`]; does not keep the watcher alive.
#[derive(Debug, Clone)]
pub struct WatchSink {
    shared: Weak<Shared>,
    path: TreePath,
    scope: Scope,
}

#[derive(Debug)]
struct Shared {
    // Guards the set that backends fill and the owner drains; held for a few instructions.
    pending: Mutex<Option<Changes>>,
    wake: Notify,
    dropped: Option<Arc<Notify>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            dropped.notify_one();
        }
    }
}

impl Watcher {
    /// Returns a watcher of `path` and the sink that feeds it.
    pub fn new(path: &TreePath, scope: Scope) -> (Self, WatchSink) {
        Self::build(path, scope, None)
    }

    /// Like [`Watcher::new`]; `dropped` is notified when the watcher is dropped, so that its feeder
    /// can release the watch at once.
    pub(crate) fn with_drop_notice(
        path: &TreePath,
        scope: Scope,
        dropped: &Arc<Notify>,
    ) -> (Self, WatchSink) {
        Self::build(path, scope, Some(Arc::clone(dropped)))
    }

    fn build(path: &TreePath, scope: Scope, dropped: Option<Arc<Notify>>) -> (Self, WatchSink) {
        let shared = Arc::new(Shared { pending: Mutex::new(None), wake: Notify::new(), dropped });
        let sink = WatchSink { shared: Arc::downgrade(&shared), path: path.clone(), scope };
        (Self { shared }, sink)
    }

    /// Waits until something may have changed, then takes and returns all pending changes.
    ///
    /// # Cancellation safety
    /// Safe: changes are taken only when they are returned.
    pub async fn changed(&mut self) -> Changes {
        loop {
            if let Some(changes) = self.take() {
                return changes;
            }
            self.wait().await;
        }
    }

    /// Waits until there are pending changes.
    ///
    /// # Cancellation safety
    /// Safe: nothing is taken.
    pub async fn wait(&self) {
        while self.pending().is_none() {
            // A change between the check and this wait has left a permit.
            self.shared.wake.notified().await;
        }
    }

    /// Takes and returns the pending changes, without waiting.
    pub fn take(&mut self) -> Option<Changes> {
        self.pending().take()
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Option<Changes>> {
        self.shared.pending.lock().expect("no one panics while holding the pending changes")
    }
}

impl WatchSink {
    /// Returns the watched path.
    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// Returns the watched scope.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// True if the [`Watcher`] still exists.
    pub fn is_alive(&self) -> bool {
        self.shared.strong_count() > 0
    }

    /// True if a change of `path` is in the watcher's scope.
    pub fn covers(&self, path: &TreePath) -> bool {
        match self.scope {
            Scope::Node => *path == self.path,
            Scope::Subtree => path.is_at_or_below(&self.path),
        }
    }

    /// Adds one changed path and wakes the owner.
    pub fn note(&self, path: &TreePath) {
        self.merge(|pending| match pending {
            Some(Changes::Everything) => {}
            Some(Changes::Paths(paths)) => {
                paths.insert(path.clone());
                if paths.len() > MAX_PATHS {
                    *pending = Some(Changes::Everything);
                }
            }
            None => *pending = Some(Changes::Paths(BTreeSet::from([path.clone()]))),
        });
    }

    /// Reports that anything may have changed and wakes the owner.
    pub fn note_everything(&self) {
        self.merge(|pending| *pending = Some(Changes::Everything));
    }

    fn merge(&self, add: impl FnOnce(&mut Option<Changes>)) {
        let Some(shared) = self.shared.upgrade() else { return };
        add(&mut shared.pending.lock().expect("no one panics while holding the pending changes"));
        // One permit is kept if nobody waits, so a change between a check and a wait wakes the
        // owner.
        shared.wake.notify_one();
    }
}

/// Change of a znode that watchers are notified of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeEvent {
    /// The data was written, or (as ZooKeeper's non-recursive watches report it) the children
    /// changed.
    Changed(TreePath),
    /// The znode was created or deleted.
    CreatedOrDeleted(TreePath),
}

impl NodeEvent {
    /// Returns the paths that are reported to watchers.
    fn reported_paths(&self) -> impl Iterator<Item = TreePath> {
        let (path, parent) = match self {
            Self::Changed(path) => (path, None),
            Self::CreatedOrDeleted(path) => (path, path.parent()),
        };
        std::iter::once(path.clone()).chain(parent)
    }
}

/// The sinks of one connection, by watched path. Ordered, so that sinks are woken in the same order
/// each time.
#[derive(Debug, Default)]
pub(crate) struct WatchTable {
    sinks: BTreeMap<Box<str>, Vec<WatchSink>>,
    n_sinks: usize,
    n_at_last_prune: usize,
}

impl WatchTable {
    /// Adds a sink. Dead sinks are dropped whenever their number may have doubled, so the table
    /// contains at most twice as many sinks as are alive.
    pub(crate) fn add(&mut self, sink: WatchSink) {
        self.sinks.entry(sink.path().as_str().into()).or_default().push(sink);
        self.n_sinks += 1;
        if self.n_sinks > 2 * self.n_at_last_prune {
            self.prune();
        }
    }

    /// Drops the sinks whose watchers have been dropped.
    pub(crate) fn prune(&mut self) {
        self.sinks.retain(|_, sinks| {
            sinks.retain(WatchSink::is_alive);
            !sinks.is_empty()
        });
        self.n_sinks = self.sinks.values().map(Vec::len).sum();
        self.n_at_last_prune = self.n_sinks.max(16);
    }

    /// Returns the sinks of `path` itself.
    pub(crate) fn at(&self, path: &TreePath) -> impl Iterator<Item = &WatchSink> {
        self.sinks.get(path.as_str()).into_iter().flatten()
    }

    /// Returns all sinks.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &WatchSink> {
        self.sinks.values().flatten()
    }

    /// Wakes the watchers whose scope covers `event`.
    pub(crate) fn notify(&self, event: &NodeEvent) {
        if self.sinks.is_empty() {
            return;
        }
        for path in event.reported_paths() {
            self.note(&path);
        }
    }

    /// Wakes the watchers of `path` itself whose scope covers `event`.
    pub(crate) fn notify_at(&self, path: &TreePath, event: &NodeEvent) {
        for sink in self.at(path) {
            for reported in event.reported_paths() {
                if sink.covers(&reported) {
                    sink.note(&reported);
                }
            }
        }
    }

    /// Wakes every watcher and reports that anything may have changed.
    pub(crate) fn notify_everything(&self) {
        self.iter().for_each(WatchSink::note_everything);
    }

    fn note(&self, path: &TreePath) {
        let mut watched = Some(path.as_str());
        while let Some(at) = watched {
            for sink in self.sinks.get(at).into_iter().flatten() {
                if sink.covers(path) {
                    sink.note(path);
                }
            }
            watched = match at.rfind('/') {
                Some(0) if at.len() > 1 => Some("/"),
                Some(0) | None => None,
                Some(end) => Some(&at[..end]),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        text.parse().expect("valid path")
    }

    #[tokio::test]
    async fn changes_accumulate_until_they_are_taken() {
        let (mut watcher, sink) = Watcher::new(&path("/a"), Scope::Subtree);
        sink.note(&path("/a/1"));
        sink.note(&path("/a/2"));
        sink.note(&path("/a/1"));
        assert_eq!(watcher.changed().await, Changes::Paths([path("/a/1"), path("/a/2")].into()));
        assert_eq!(watcher.take(), None);
    }

    #[test]
    fn watcher_with_too_many_paths_reports_everything() {
        let (mut watcher, sink) = Watcher::new(&path("/a"), Scope::Subtree);
        for i in 0..=MAX_PATHS {
            sink.note(&path(&format!("/a/{i}")));
        }
        assert_eq!(watcher.take(), Some(Changes::Everything));
    }

    #[test]
    fn sink_of_a_dropped_watcher_is_dead() {
        let (watcher, sink) = Watcher::new(&path("/a"), Scope::Node);
        assert!(sink.is_alive() && sink.covers(&path("/a")) && !sink.covers(&path("/a/b")));
        drop(watcher);
        assert!(!sink.is_alive());
        sink.note(&path("/a"));
    }

    fn reports(event: &NodeEvent) -> Vec<(&'static str, Scope, Vec<String>)> {
        let mut table = WatchTable::default();
        let watched =
            [("/", Scope::Subtree), ("/a", Scope::Node), ("/a", Scope::Subtree), ("/a/b", Scope::Node)];
        let mut watchers: Vec<Watcher> = Vec::new();
        for (at, scope) in watched {
            let (watcher, sink) = Watcher::new(&path(at), scope);
            table.add(sink);
            watchers.push(watcher);
        }
        table.notify(event);
        let reported = watchers.iter_mut().map(|watcher| match watcher.take() {
            Some(Changes::Paths(paths)) => paths.iter().map(ToString::to_string).collect(),
            Some(Changes::Everything) => vec!["everything".to_owned()],
            None => Vec::new(),
        });
        watched.iter().zip(reported).map(|(&(at, scope), reported)| (at, scope, reported)).collect()
    }

    #[test]
    fn each_scope_is_notified_of_the_paths_it_covers() {
        let reported = |event| {
            reports(&event).into_iter().map(|(_, _, reported)| reported.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(reported(NodeEvent::Changed(path("/a/b"))), ["/a/b", "", "/a/b", "/a/b"]);
        assert_eq!(reported(NodeEvent::CreatedOrDeleted(path("/a/b"))), ["/a /a/b", "/a", "/a /a/b", "/a/b"]);
        assert_eq!(reported(NodeEvent::CreatedOrDeleted(path("/a"))), ["/ /a", "/a", "/a", ""]);
        assert_eq!(
            reported(NodeEvent::CreatedOrDeleted(path("/a/b/c"))),
            ["/a/b /a/b/c", "", "/a/b /a/b/c", "/a/b"]
        );
        assert_eq!(reported(NodeEvent::CreatedOrDeleted(path("/ab"))), ["/ /ab", "", "", ""]);
    }

    #[test]
    fn dead_sinks_are_removed_from_the_table() {
        let mut table = WatchTable::default();
        for _ in 0..10_000 {
            let (_watcher, sink) = Watcher::new(&path("/a"), Scope::Node);
            table.add(sink);
        }
        assert!(table.n_sinks <= 64, "{} dead sinks are in the table", table.n_sinks);
    }

    #[tokio::test]
    async fn feeder_is_notified_of_a_dropped_watcher() {
        let dropped = Arc::new(Notify::new());
        drop(Watcher::with_drop_notice(&path("/a"), Scope::Node, &dropped));
        dropped.notified().await;
    }
}
