//! Watches that last: set on the server once per path, shared by all watchers of it, and set
//! again after every reconnect and in every new session.
//!
//! The client crate's own persistent watches go deaf at the first reconnect, silently, so a
//! watch counts as lost as soon as its session says `Disconnected`. Then the new one is set
//! before the old one is dropped, as the crate would otherwise take both off the server.
//!
//! A path has one mode per session (ZOOKEEPER-4466), so a recursive watch serves watchers of
//! either scope at its path, and no one-shot watch is ever set. Recursive watches do not
//! tell of changed children: that is derived from the child's own event.

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

use crate::{
    clock::Clock,
    daemon::tasks::{Ending, Tasks},
    tree::{
        Error, Scope, SessionId, TreePath,
        watch::{Event, WatchSink, WatchTable, Watcher},
        zookeeper::{
            errors::general_error,
            session::{Complaints, Link},
        },
    },
};

/// How many watches are set at once: enough to fill the connection, few beside its requests.
const MAX_SETTING: usize = 32;

/// The pause before a watch that could not be set is tried again, when the connection
/// stands all the same.
const RETRY: Duration = Duration::from_millis(500);

/// Everything that is watched through one connection.
#[derive(Debug)]
pub(super) struct Watches {
    // Guards the sinks; held while an event is handed to them, never across an await.
    sinks: Mutex<Sinks>,
    /// A watcher came or went, a watch was lost, or the session changed.
    pub(super) wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Sinks {
    /// Those whose watch is in place, or was: they hear of events and losses.
    placed: WatchTable,
    /// Those that have had no answer yet.
    waiting: Vec<WatchSink>,
}

/// A watch on the server.
struct Placed {
    scope: Scope,
    session: SessionId,
    lost: Arc<AtomicBool>,
    /// Owns the task that listens; dropping it takes the watch off the server.
    _listener: Tasks,
}

impl Watches {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { sinks: Mutex::default(), wake: Arc::new(Notify::new()) })
    }

    /// A watcher that is woken once its watch is in place.
    pub(super) fn add(&self, path: &TreePath, scope: Scope) -> Watcher {
        let (watcher, sink) = Watcher::with_drop_notice(path, scope, &self.wake);
        self.sinks().waiting.push(sink);
        self.wake.notify_one();
        watcher
    }

    /// Wakes every watcher, placed or not.
    pub(super) fn tell_everything(&self) {
        let sinks = self.sinks();
        sinks.placed.tell_everything();
        sinks.waiting.iter().for_each(WatchSink::note_everything);
    }

    fn sinks(&self) -> MutexGuard<'_, Sinks> {
        self.sinks.lock().expect("no one panics while holding the sinks")
    }

    /// What has to be watched, and how widely.
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

    /// Answers the waiting sinks of `path`, whose watch is in place.
    fn answer_waiting(&self, path: &TreePath, scope: Scope) {
        let mut sinks = self.sinks();
        let Sinks { placed, waiting } = &mut *sinks;
        // A wider scope may have come to wait since the watch was asked for.
        for sink in waiting.extract_if(.., |sink| sink.path() == path && sink.scope() <= scope) {
            sink.note_everything();
            placed.add(sink);
        }
    }

    /// Tells the sinks of `path` that they may have missed something.
    fn tell_loss(&self, path: &TreePath) {
        self.sinks().placed.at(path).for_each(WatchSink::note_everything);
    }
}

/// Keeps the watches of `watches` in place until it is cancelled.
pub(super) async fn keep(watches: Arc<Watches>, link: Arc<Link>) {
    let mut placed: HashMap<TreePath, Placed> = HashMap::new();
    let mut complaints = Complaints::new(Clock::new());
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
                // A watch is never made narrower: its other watchers need no second look.
                Some(watch) => missing.push((path, scope.max(watch.scope))),
                None => missing.push((path, scope)),
            }
        }
        match place(&watches, &link, session, missing, &mut placed).await {
            Ok(()) => watches.wake.notified().await,
            Err(error) => {
                // What a new connection may cure is told by the session's own log.
                if !error.is_retryable() && complaints.is_due() {
                    warn!(%error, "watches are not all in place; trying on");
                }
                // Waking early is harmless; a wake that comes meanwhile is kept.
                let _woken_or_not = tokio::time::timeout(RETRY, watches.wake.notified()).await;
            }
        }
    }
}

/// Sets the `missing` watches and answers who waits for them; the error of the last one that
/// could not be set.
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
                // The new watch is known to the crate by now; only then may the old one go.
                drop(placed.insert(path.clone(), watch));
                watches.tell_loss(&path);
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
        listener.start("tree-watch", Ending::Normal, async move {
            listen(&watches, &path, watcher, &flag).await;
        });
        Self { scope, session, lost, _listener: listener }
    }

    fn serves(&self, scope: Scope, session: SessionId) -> bool {
        self.scope >= scope && self.session == session && !self.lost.load(Ordering::Acquire)
    }
}

/// Hands events to the sinks of `path` until the session ends.
async fn listen(watches: &Watches, path: &TreePath, mut watcher: zk::PersistentWatcher, lost: &AtomicBool) {
    loop {
        let event = watcher.changed().await;
        let told = event.path.parse::<TreePath>();
        let told = match event.event_type {
            zk::EventType::Session => {
                let ended = event.session_state.is_terminated();
                if ended || event.session_state == zk::SessionState::Disconnected {
                    lost.store(true, Ordering::Release);
                    watches.wake.notify_one();
                }
                if ended {
                    // The crate panics when it is asked for more.
                    return;
                }
                continue;
            }
            zk::EventType::NodeCreated | zk::EventType::NodeDeleted => told.map(Event::CameOrWent),
            zk::EventType::NodeDataChanged | zk::EventType::NodeChildrenChanged => told.map(Event::Changed),
        };
        match told {
            Ok(event) => watches.sinks().placed.tell_at(path, &event),
            // A name that we would not read either: the server's own /zookeeper, or one
            // made by hand with a control character.
            Err(error) => debug!(%error, "a change that no one reads"),
        }
    }
}
