//! Watchers: a set of paths that may have changed, filled by a backend, drained by a reader.

use std::{
    collections::BTreeSet,
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
}

impl Watcher {
    /// A watcher of `path` and the end that feeds it.
    pub fn new(path: &TreePath, scope: Scope) -> (Self, WatchSink) {
        let shared = Arc::new(Shared { pending: Mutex::new(None), wake: Notify::new() });
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
            // A change that comes between the look and this wait left a permit behind.
            self.shared.wake.notified().await;
        }
    }

    /// What has gathered so far, without waiting.
    pub fn take(&mut self) -> Option<Changes> {
        self.shared.pending.lock().expect("no one panics while holding the pending changes").take()
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
}
