//! Lasting watches: each is set on the server once per path, shared by all watchers of that path,
//! and set again after every reconnect and in every new session.
//!
//! The client crate's own persistent watches stop reporting at the first reconnect, without an
//! error, so a watch counts as lost when its session reports `Disconnected`. The new watch is then
//! set before the old watch is dropped, because the crate would otherwise remove both from the
//! server.
//!
//! A path has one mode per session (ZOOKEEPER-4466), so a recursive watch serves watchers of either
//! scope at its path, and no one-shot watch is ever set. Recursive watches do not report changed
//! children: that change is derived from the child's own event.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;
use tracing::{debug, warn};
use zookeeper_client as zk;

use crate::tree::{
    Error, Scope, SessionId, TreePath,
    watch::{NodeEvent, WatchSink, WatchTable, Watcher},
    zookeeper::{
        errors::general_error,
        session::{Link, LogThrottle},
    },
};
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Maximum number of watches that are set at once: enough to fill the connection, few beside its
/// requests.
const MAX_SETTING: usize = 32;

/// Pause before a watch that could not be set is retried, if the connection is still up.
const RETRY: Duration = Duration::from_millis(500);

/// All watches of one connection.
#[derive(Debug)]
pub(super) struct Watches {
    // Guards the sinks; held while an event is passed to them, never across an await.
    sinks: Mutex<Sinks>,
    /// Notified when a watcher is added or dropped, a watch is lost, or the session changes.
    pub(super) wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Sinks {
    /// Sinks whose watch is in place, or was: they receive events and losses.
    placed: WatchTable,
    /// Sinks that have not received a report yet.
    waiting: Vec<WatchSink>,
}

/// A watch on the server.
struct Placed {
    scope: Scope,
    session: SessionId,
    lost: Arc<AtomicBool>,
    /// Owns the listening task; dropping it removes the watch from the server.
    _listener: Tasks,
}

impl Watches {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { sinks: Mutex::default(), wake: Arc::new(Notify::new()) })
    }

    /// Returns a watcher that is woken as soon as its watch is in place.
    pub(super) fn add(&self, path: &TreePath, scope: Scope) -> Watcher {
        let (watcher, sink) = Watcher::with_drop_notice(path, scope, &self.wake);
        self.sinks().waiting.push(sink);
        self.wake.notify_one();
        watcher
    }

    /// Wakes every watcher, whether or not its watch is in place.
    pub(super) fn notify_everything(&self) {
        let sinks = self.sinks();
        sinks.placed.notify_everything();
        sinks.waiting.iter().for_each(WatchSink::note_everything);
    }

    fn sinks(&self) -> MutexGuard<'_, Sinks> {
        self.sinks.lock().expect("no one panics while holding the sinks")
    }

    /// Returns the paths that must be watched, each with its widest scope.
    fn wanted(&self) -> HashMap<TreePath, Scope> {
        let mut sinks = self.sinks();
        sinks.placed.prune();
        sinks.waiting.retain(WatchSink::is_alive);
        let mut wanted = HashMap::new();
        for sink in sinks.placed.iter().chain(&sinks.waiting) {
            let scope = wanted.entry(sink.path().clone()).or_insert(sink.scope());
            *scope = sink.scope().max(*scope);
        }
        wanted
    }

    /// Wakes the waiting sinks of `path`, whose watch is in place now.
    fn answer_waiting(&self, path: &TreePath, scope: Scope) {
        let mut sinks = self.sinks();
        let Sinks { placed, waiting } = &mut *sinks;
        // A sink with a wider scope may have been added since the watch was requested.
        for sink in waiting.extract_if(.., |sink| sink.path() == path && sink.scope() <= scope) {
            sink.note_everything();
            placed.add(sink);
        }
    }

    /// Reports to the sinks of `path` that they may have missed changes.
    fn notify_loss(&self, path: &TreePath) {
        self.sinks().placed.at(path).for_each(WatchSink::note_everything);
    }
}

/// Keeps the watches of `watches` in place until the task is cancelled.
pub(super) async fn keep(watches: Arc<Watches>, link: Arc<Link>) {
    let mut placed: HashMap<TreePath, Placed> = HashMap::new();
    let mut log_throttle = LogThrottle::new(Clock::new());
    loop {
        let wanted = watches.wanted();
        placed.retain(|path, _| wanted.contains_key(path));
        let Some(session) = link.session() else {
            watches.wake.notified().await;
            continue;
        };
        let mut missing = Vec::new();
        for (path, scope) in wanted {
            match placed.get(&path) {
                Some(watch) if watch.serves(scope, session) => watches.answer_waiting(&path, watch.scope),
                // The scope of a watch is never narrowed: its other watchers would read again.
                Some(watch) => missing.push((path, scope.max(watch.scope))),
                None => missing.push((path, scope)),
            }
        }
        match place(&watches, &link, session, missing, &mut placed).await {
            Ok(()) => watches.wake.notified().await,
            Err(error) => {
                // Errors that a new connection may cure are logged with the session.
                if !error.is_retryable() && log_throttle.is_due() {
                    warn!(%error, "cannot set all ZooKeeper watches; retrying");
                }
                // Waking early is harmless; a notification in between is kept.
                let _woken_or_not = tokio::time::timeout(RETRY, watches.wake.notified()).await;
            }
        }
    }
}

/// Sets the `missing` watches and wakes the sinks that wait for them. Returns the error of the last
/// watch that could not be set.
async fn place(
    watches: &Arc<Watches>,
    link: &Arc<Link>,
    session: SessionId,
    missing: Vec<(TreePath, Scope)>,
    placed: &mut HashMap<TreePath, Placed>,
) -> Result<(), Error> {
    let mut result = Ok(());
    let mut setting = stream::iter(missing)
        .map(|(path, scope)| async move {
            let set = set(link, &path, scope).await;
            (path, scope, set)
        })
        .buffer_unordered(MAX_SETTING);
    while let Some((path, scope, set)) = setting.next().await {
        match set {
            Err(error) => result = Err(error),
            Ok(watcher) => {
                let watch = Placed::listen(watches, path.clone(), scope, session, watcher);
                // The crate has registered the new watch; only now may the old watch be dropped.
                drop(placed.insert(path.clone(), watch));
                watches.notify_loss(&path);
                watches.answer_waiting(&path, scope);
            }
        }
    }
    result
}

async fn set(link: &Link, path: &TreePath, scope: Scope) -> Result<zk::PersistentWatcher, Error> {
    let mode = match scope {
        Scope::Node => zk::AddWatchMode::Persistent,
        Scope::Subtree => zk::AddWatchMode::PersistentRecursive,
    };
    let answer = link.request(async |client: zk::Client| client.watch(path.as_str(), mode).await).await?;
    answer.map_err(general_error)
}

impl Placed {
    fn listen(
        watches: &Arc<Watches>,
        path: TreePath,
        scope: Scope,
        session: SessionId,
        watcher: zk::PersistentWatcher,
    ) -> Self {
        let lost = Arc::new(AtomicBool::new(false));
        let listener = Tasks::default();
        let (watches, flag) = (Arc::clone(watches), Arc::clone(&lost));
        listener.start("tree-watch", OnExit::Ignore, async move {
            listen(&watches, &path, watcher, &flag).await;
        });
        Self { scope, session, lost, _listener: listener }
    }

    fn serves(&self, scope: Scope, session: SessionId) -> bool {
        self.scope >= scope && self.session == session && !self.lost.load(Ordering::Acquire)
    }
}

/// Passes events to the sinks of `path` until the session ends.
async fn listen(watches: &Watches, path: &TreePath, mut watcher: zk::PersistentWatcher, lost: &AtomicBool) {
    loop {
        let event = watcher.changed().await;
        let changed = event.path.parse::<TreePath>();
        let changed = match event.event_type {
            zk::EventType::Session => {
                let ended = event.session_state.is_terminated();
                if ended || event.session_state == zk::SessionState::Disconnected {
                    lost.store(true, Ordering::Release);
                    watches.wake.notify_one();
                }
                if ended {
                    // The crate panics if `changed` is called after the last event.
                    return;
                }
                continue;
            }
            zk::EventType::NodeCreated | zk::EventType::NodeDeleted => {
                changed.map(NodeEvent::CreatedOrDeleted)
            }
            zk::EventType::NodeDataChanged | zk::EventType::NodeChildrenChanged => {
                changed.map(NodeEvent::Changed)
            }
        };
        match changed {
            Ok(event) => watches.sinks().placed.notify_at(path, &event),
            // An invalid path is not one of ours: the server's own /zookeeper, or a znode that was
            // created by hand with a control character.
            Err(error) => debug!(%error, "ignored a change at a path that is not part of the layout"),
        }
    }
}
