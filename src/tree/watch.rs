//! Watchers: a set of paths that may have changed, filled by a backend, drained by a reader.
//!
//! What is noted, in every backend alike:
//!
//! - a write of `/a/b`: `/a/b`;
//! - the creation or deletion of `/a/b`: `/a/b`, and `/a`, whose list of children changed.
//!
//! Of these a [`Scope::Node`] watcher is told its own path alone, and a [`Scope::Subtree`]
//! watcher all that are at or below its path. So a reader that reads the noted paths again,
//! each with its children, has the whole change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, Weak},
};

use tokio::sync::Notify;

use crate::tree::{Scope, TreePath};

/// A watcher remembers at most this many changed paths; one more and it says
/// [`Changes::Everything`], which costs the reader a full read and loses nothing.
const MAX_PATHS: usize = 50_000;

/// What may have changed since the last answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Read all that is watched: nobody knows what was missed.
    Everything,
    /// These znodes were created, deleted or written, or gained or lost a child.
    Paths(BTreeSet<TreePath>),
}

/// Wakes its owner when something in its scope may have changed. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
}

/// The backend's end of a [`Watcher`]; does not keep it alive.
#[derive(Debug, Clone)]
pub struct WatchSink {
    shared: Weak<Shared>,
    path: TreePath,
    scope: Scope,
}

#[derive(Debug)]
struct Shared {
    // Guards the set that backends fill and the owner takes; held for a few instructions.
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
    /// A watcher of `path` and the end that feeds it.
    pub fn new(path: &TreePath, scope: Scope) -> (Self, WatchSink) {
        Self::build(path, scope, None)
    }

    /// Like [`Watcher::new`]; `dropped` is notified once the watcher is gone, so that its
    /// feeder can let go at once.
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

    /// Waits until something may have changed and takes all that has gathered.
    ///
    /// # Cancellation safety
    /// Safe: nothing is taken unless it is returned.
    pub async fn changed(&mut self) -> Changes {
        loop {
            if let Some(changes) = self.take() {
                return changes;
            }
            self.wait().await;
        }
    }

    /// Waits until there is something to take.
    ///
    /// # Cancellation safety
    /// Safe: nothing is taken.
    pub async fn wait(&self) {
        while self.pending().is_none() {
            // A change that comes between the look and this wait left a permit behind.
            self.shared.wake.notified().await;
        }
    }

    /// What has gathered so far, without waiting.
    pub fn take(&mut self) -> Option<Changes> {
        self.pending().take()
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Option<Changes>> {
        self.shared.pending.lock().expect("no one panics while holding the pending changes")
    }
}

impl WatchSink {
    /// The path that is watched.
    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// How much of it is watched.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Whether the [`Watcher`] still exists.
    pub fn is_alive(&self) -> bool {
        self.shared.strong_count() > 0
    }

    /// Whether a change of `path` is in the watcher's scope.
    pub fn covers(&self, path: &TreePath) -> bool {
        match self.scope {
            Scope::Node => *path == self.path,
            Scope::Subtree => path.is_at_or_below(&self.path),
        }
    }

    /// Adds one path and wakes the owner.
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

    /// Says that anything may have changed and wakes the owner.
    pub fn note_everything(&self) {
        self.merge(|pending| *pending = Some(Changes::Everything));
    }

    fn merge(&self, add: impl FnOnce(&mut Option<Changes>)) {
        let Some(shared) = self.shared.upgrade() else { return };
        add(&mut shared.pending.lock().expect("no one panics while holding the pending changes"));
        // One permit is kept when nobody waits, so a change between a look and a wait wakes.
        shared.wake.notify_one();
    }
}

/// What happened to a znode, as far as watchers care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its data was written, or (as ZooKeeper's non-recursive watches tell it) its children
    /// changed.
    Changed(TreePath),
    /// It was created or deleted.
    CameOrWent(TreePath),
}

impl Event {
    /// The paths that watchers are told of.
    fn noted(&self) -> impl Iterator<Item = TreePath> {
        let (path, parent) = match self {
            Self::Changed(path) => (path, None),
            Self::CameOrWent(path) => (path, path.parent()),
        };
        std::iter::once(path.clone()).chain(parent)
    }
}

/// The sinks of one connection, found by the path they watch. Ordered, so that they are woken
/// in the same order each time.
#[derive(Debug, Default)]
pub(crate) struct WatchTable {
    sinks: BTreeMap<Box<str>, Vec<WatchSink>>,
    n_sinks: usize,
    n_at_last_prune: usize,
}

impl WatchTable {
    /// Adds a sink. Dead ones are dropped whenever their number may have doubled, so the
    /// table stays within twice the living sinks.
    pub(crate) fn add(&mut self, sink: WatchSink) {
        self.sinks.entry(sink.path().as_str().into()).or_default().push(sink);
        self.n_sinks += 1;
        if self.n_sinks > 2 * self.n_at_last_prune {
            self.prune();
        }
    }

    /// Drops the sinks whose watchers are gone.
    pub(crate) fn prune(&mut self) {
        self.sinks.retain(|_, sinks| {
            sinks.retain(WatchSink::is_alive);
            !sinks.is_empty()
        });
        self.n_sinks = self.sinks.values().map(Vec::len).sum();
        self.n_at_last_prune = self.n_sinks.max(16);
    }

    /// The sinks of `path` itself.
    pub(crate) fn at(&self, path: &TreePath) -> impl Iterator<Item = &WatchSink> {
        self.sinks.get(path.as_str()).into_iter().flatten()
    }

    /// All sinks.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &WatchSink> {
        self.sinks.values().flatten()
    }

    /// Wakes the watchers that `event` concerns.
    pub(crate) fn tell(&self, event: &Event) {
        if self.sinks.is_empty() {
            return;
        }
        for path in event.noted() {
            self.note(&path);
        }
    }

    /// Wakes the watchers of `path` itself that `event` concerns.
    pub(crate) fn tell_at(&self, path: &TreePath, event: &Event) {
        for sink in self.at(path) {
            for noted in event.noted() {
                if sink.covers(&noted) {
                    sink.note(&noted);
                }
            }
        }
    }

    /// Wakes every watcher: anything may have changed.
    pub(crate) fn tell_everything(&self) {
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
    async fn changes_gather_until_taken() {
        let (mut watcher, sink) = Watcher::new(&path("/a"), Scope::Subtree);
        sink.note(&path("/a/1"));
        sink.note(&path("/a/2"));
        sink.note(&path("/a/1"));
        assert_eq!(watcher.changed().await, Changes::Paths([path("/a/1"), path("/a/2")].into()));
        assert_eq!(watcher.take(), None);
    }

    #[test]
    fn too_many_paths_become_everything() {
        let (mut watcher, sink) = Watcher::new(&path("/a"), Scope::Subtree);
        for i in 0..=MAX_PATHS {
            sink.note(&path(&format!("/a/{i}")));
        }
        assert_eq!(watcher.take(), Some(Changes::Everything));
    }

    #[test]
    fn a_dropped_watcher_is_seen_by_its_feeder() {
        let (watcher, sink) = Watcher::new(&path("/a"), Scope::Node);
        assert!(sink.is_alive() && sink.covers(&path("/a")) && !sink.covers(&path("/a/b")));
        drop(watcher);
        assert!(!sink.is_alive());
        sink.note(&path("/a"));
    }

    fn told(event: &Event) -> Vec<(&'static str, Scope, Vec<String>)> {
        let mut table = WatchTable::default();
        let watched =
            [("/", Scope::Subtree), ("/a", Scope::Node), ("/a", Scope::Subtree), ("/a/b", Scope::Node)];
        let mut watchers: Vec<Watcher> = Vec::new();
        for (at, scope) in watched {
            let (watcher, sink) = Watcher::new(&path(at), scope);
            table.add(sink);
            watchers.push(watcher);
        }
        table.tell(event);
        let heard = watchers.iter_mut().map(|watcher| match watcher.take() {
            Some(Changes::Paths(paths)) => paths.iter().map(ToString::to_string).collect(),
            Some(Changes::Everything) => vec!["everything".to_owned()],
            None => Vec::new(),
        });
        watched.iter().zip(heard).map(|(&(at, scope), heard)| (at, scope, heard)).collect()
    }

    #[test]
    fn each_scope_is_told_what_it_covers() {
        let heard = |event| told(&event).into_iter().map(|(_, _, heard)| heard.join(" ")).collect::<Vec<_>>();
        assert_eq!(heard(Event::Changed(path("/a/b"))), ["/a/b", "", "/a/b", "/a/b"]);
        assert_eq!(heard(Event::CameOrWent(path("/a/b"))), ["/a /a/b", "/a", "/a /a/b", "/a/b"]);
        assert_eq!(heard(Event::CameOrWent(path("/a"))), ["/ /a", "/a", "/a", ""]);
        assert_eq!(heard(Event::CameOrWent(path("/a/b/c"))), ["/a/b /a/b/c", "", "/a/b /a/b/c", "/a/b"]);
        assert_eq!(heard(Event::CameOrWent(path("/ab"))), ["/ /ab", "", "", ""]);
    }

    #[test]
    fn dead_sinks_leave_the_table() {
        let mut table = WatchTable::default();
        for _ in 0..10_000 {
            let (_watcher, sink) = Watcher::new(&path("/a"), Scope::Node);
            table.add(sink);
        }
        assert!(table.n_sinks <= 64, "{} dead sinks are kept", table.n_sinks);
    }

    #[tokio::test]
    async fn the_feeder_hears_of_a_dropped_watcher() {
        let dropped = Arc::new(Notify::new());
        drop(Watcher::with_drop_notice(&path("/a"), Scope::Node, &dropped));
        dropped.notified().await;
    }
}
