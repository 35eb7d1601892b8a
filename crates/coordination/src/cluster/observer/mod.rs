//! Observer: keeps a [`ClusterView`] fresh by reading changed records and publishing copies.
//!
//! ```text
//!  watches ─▶ dirty paths ─▶ read in batches ─▶ fold into the view ─▶ publish
//!     ▲                                                                  │
//!     ├──────────── pause, so that successive changes are read together ◀┘
//!     ├── every second: a share of all records, because some changes are no events
//!     └── on a reconnect, and every few minutes: everything is dirty
//! ```
//!
//! An event names only the path to read. Heartbeats are watched by the names of the children of
//! each `/taskbeats/{topology-id}`, never by data: a hundred thousand tasks that refresh their
//! heartbeats wake nobody.

mod fold;
mod recheck;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, future::select_all};
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};
use tracing::{debug, error, info, warn};

use crate::{
    cluster::{layout, record::Leader, store, view::ClusterView},
    tree::{self, Changes, READ_BATCH, ReadTree, Scope, SessionState, TreePath, Watcher},
};
use recheck::Recheck;
use stormkeeper_model::{
    Zxid,
    backoff::Delays,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

/// Interval of full reads, which bounds the effect of a lost event. A full read takes about 6 µs
/// per znode.
const FULL_READ_PERIOD: Duration = Duration::from_secs(300);

const RETRY: Delays = Delays::between(Duration::from_millis(50), Duration::from_secs(2));

/// Bounds of the pause after a read that a watch caused; the pause is as long as that read took. So
/// a thousand tasks of a topology that start to send heartbeats cause a few reads instead of a
/// thousand, and the first change after a quiet time is read at once.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Maximum number of queued calls of [`Observer::read_all`] and [`Observer::read_written`]; further
/// calls wait for room in the queue.
const REQUESTS: usize = 16;

/// The view as it was last read, and its freshness.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The view.
    pub view: Arc<ClusterView>,
    /// Time at which the view was last known to be up to date.
    pub read_at: Monotonic,
    /// False before the first read, and while the tree is unreachable.
    pub fresh: bool,
    /// Number of times that the tree became unreachable: a reader that misses a short interruption
    /// sees that there was one.
    pub n_interruptions: u64,
    /// The error that keeps the state from being read, if it is none of the connection, such as an
    /// access control list that excludes this process from a list of records.
    pub fault: Option<String>,
}

/// Handle of the observer task. Clones share it.
#[derive(Debug, Clone)]
pub struct Observer {
    observations: watch::Receiver<Observation>,
    requests: mpsc::Sender<Request>,
}

/// A read that a caller waits for.
#[derive(Debug)]
struct Request {
    what: ReadScope,
    reply: oneshot::Sender<Result<Arc<ClusterView>, tree::Error>>,
}

#[derive(Debug)]
enum ReadScope {
    Everything,
    /// These znodes, the znodes reported by watches, and the lists of records.
    Again(Vec<TreePath>),
}

impl Observer {
    /// Starts to observe `tree`; ends with `tasks`.
    pub fn start(tree: Arc<dyn ReadTree>, clock: Clock, tasks: &Tasks) -> Self {
        let view = Arc::new(ClusterView::default());
        let (publish, observations) = watch::channel(Observation {
            view,
            read_at: clock.monotonic(),
            fresh: false,
            n_interruptions: 0,
            fault: None,
        });
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let watches = WatchSet::new(Arc::clone(&tree));
        let task = ObserverTask {
            tree,
            clock,
            publish,
            requests: receiver,
            watches,
            view: ClusterView::default(),
            is_unpublished: false,
            recheck: Recheck::default(),
            fault: None,
            is_recheck_only: false,
            quiet_until: tokio::time::Instant::now(),
        };
        tasks.start("observer", OnExit::StopOwner, task.run());
        Self { observations, requests }
    }

    /// Returns the observations, as a value that can be watched.
    pub fn observe(&self) -> watch::Receiver<Observation> {
        self.observations.clone()
    }

    /// Reads the whole state again, publishes it and returns it.
    ///
    /// # Errors
    /// Errors of the tree, and `Closed` if the observer has ended.
    pub async fn read_all(&self) -> Result<Arc<ClusterView>, store::Error> {
        self.ask(ReadScope::Everything).await
    }

    /// Reads the records at or around `written` again, which the caller has written, and the
    /// records that are known to have changed. The lists of records are read again too. A record
    /// that is in the view and was written by another session is read when its watch reports it.
    ///
    /// On a large cluster this takes a fraction of the time of [`Observer::read_all`].
    ///
    /// # Errors
    /// Errors of the tree, and `Closed` if the observer has ended.
    pub async fn read_written(&self, written: Vec<TreePath>) -> Result<Arc<ClusterView>, store::Error> {
        self.ask(ReadScope::Again(written)).await
    }

    async fn ask(&self, what: ReadScope) -> Result<Arc<ClusterView>, store::Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { what, reply }).await.map_err(|_ended| tree::Error::Closed)?;
        Ok(answer.await.map_err(|_ended| tree::Error::Closed)??)
    }
}

/// The watches, and the paths that they have reported.
struct WatchSet {
    tree: Arc<dyn ReadTree>,
    watchers: BTreeMap<TreePath, Watcher>,
    dirty: BTreeSet<TreePath>,
    all_dirty: bool,
}

impl WatchSet {
    fn new(tree: Arc<dyn ReadTree>) -> Self {
        let subtrees = [
            layout::storms(),
            layout::tasks_parent(),
            layout::assignments(),
            layout::supervisors(),
            layout::stopped_supervisors(),
            layout::nimbuses(),
            layout::supervisor_assignments_parent(),
            layout::drains(),
            layout::events(),
            layout::blobs(),
            layout::metrics_parent(),
        ];
        let nodes = [layout::leader(), layout::taskbeats_parent(), layout::taskerrors_parent()];
        let watchers = (subtrees.into_iter().map(|path| (path, Scope::Subtree)))
            .chain(nodes.into_iter().map(|path| (path, Scope::Node)))
            .map(|(path, scope)| (path.clone(), tree.watch(&path, scope)));
        Self { watchers: watchers.collect(), tree, dirty: BTreeSet::new(), all_dirty: true }
    }

    /// Waits for any watch, then takes the pending changes of all watches.
    ///
    /// # Cancellation safety
    /// Safe: changes that are taken are in `self` before anything else is awaited.
    async fn changed(&mut self) {
        let waits = self.watchers.iter_mut().map(|(path, watcher)| {
            let path = path.clone();
            watcher.changed().map(|changes| (path, changes)).boxed()
        });
        let ((path, changes), _, _) = select_all(waits).await;
        self.note(&path, changes);
        self.gather();
    }

    /// Takes the pending changes of all watches, without waiting.
    fn gather(&mut self) {
        let changed: Vec<(TreePath, Changes)> = (self.watchers.iter_mut())
            .filter_map(|(path, watcher)| Some((path.clone(), watcher.take()?)))
            .collect();
        for (path, changes) in changed {
            self.note(&path, changes);
        }
    }

    fn note(&mut self, watched: &TreePath, changes: Changes) {
        match changes {
            Changes::Paths(paths) => self.dirty.extend(paths.iter().map(fold::record_path)),
            // The heartbeats of one topology are one record; below a root, anything may have
            // changed.
            Changes::Everything if watched.parts().count() == 2 => self.dirty.extend([watched.clone()]),
            Changes::Everything => self.all_dirty = true,
        }
    }

    /// Marks the znodes that a request asks for.
    fn mark_dirty(&mut self, what: ReadScope) {
        match what {
            ReadScope::Everything => self.all_dirty |= !trusts_watches(),
            ReadScope::Again(written) => {
                self.gather();
                self.dirty.extend(fold::top_level());
                self.dirty.extend(written.iter().map(fold::record_path));
            }
        }
    }

    /// Watches the heartbeats of every topology that has a znode for them, and of no other
    /// topology.
    fn watch_heartbeats(&mut self, view: &ClusterView) {
        let root = layout::taskbeats_parent();
        let wanted: BTreeSet<TreePath> = view.heartbeats.keys().map(layout::taskbeats).collect();
        self.watchers.retain(|path, _| path.parent().as_ref() != Some(&root) || wanted.contains(path));
        for path in wanted {
            let tree = &self.tree;
            self.watchers.entry(path.clone()).or_insert_with(|| tree.watch(&path, Scope::Node));
        }
    }
}

struct ObserverTask {
    tree: Arc<dyn ReadTree>,
    clock: Clock,
    publish: watch::Sender<Observation>,
    requests: mpsc::Receiver<Request>,
    watches: WatchSet,
    view: ClusterView,
    /// True if the view differs from the published view: a read may fail half-way.
    is_unpublished: bool,
    /// The records that are read again without an event.
    recheck: Recheck,
    /// The error that keeps the state from being read, if it is none of the connection.
    fault: Option<String>,
    /// True if nothing but a share of the records is to be read again.
    is_recheck_only: bool,
    /// End of the pause after the last read.
    quiet_until: tokio::time::Instant,
}

impl ObserverTask {
    async fn run(mut self) {
        let mut sessions = self.tree.session();
        let mut backoff = RETRY.backoff();
        let mut full_read = tokio::time::interval(FULL_READ_PERIOD);
        full_read.tick().await;
        let mut recheck = tokio::time::interval(recheck::PERIOD);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut retry = None;
            let state = *sessions.borrow_and_update();
            match state {
                SessionState::Connected(_) => match self.catch_up().await {
                    Ok(()) => {
                        backoff.reset();
                        self.log_fault(None);
                    }
                    Err(error) => {
                        debug!(%error, "could not read the cluster state; retrying");
                        self.log_fault(Some(&error));
                        self.publish_stale();
                        retry = Some(backoff.next_delay());
                    }
                },
                SessionState::Connecting | SessionState::Disconnected(_) => {
                    self.watches.all_dirty = true;
                    self.publish_stale();
                }
                SessionState::Closed => return,
            }
            let retry = async {
                match retry {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => std::future::pending().await,
                }
            };
            let quiet_until = self.quiet_until;
            let woken = async {
                tokio::time::sleep_until(quiet_until).await;
                self.watches.changed().await;
            };
            tokio::select! {
                // Rare and bounded events come first, so that none is starved.
                biased;
                // Cancel-safe: `changed` keeps the changes it took, the others only wait or
                // receive.
                changed = sessions.changed() => if changed.is_err() { return },
                _ = full_read.tick() => self.watches.all_dirty |= !trusts_watches(),
                _ = recheck.tick() => self.recheck_share(),
                Some(Request { what, reply }) = self.requests.recv() => {
                    self.watches.mark_dirty(what);
                    let result = self.catch_up().await.map(|()| Arc::clone(&self.publish.borrow().view));
                    // The caller may have gone away; the view is published all the same.
                    let _gone = reply.send(result);
                }
                () = retry => {}
                () = woken => {}
            }
        }
    }

    /// Marks the next share of the records, which is read at once. Without other news this causes no
    /// pause: the next change that a watch reports is read at once as well.
    fn recheck_share(&mut self) {
        if trusts_watches() || self.watches.all_dirty {
            return;
        }
        self.is_recheck_only = self.watches.dirty.is_empty();
        let share = self.recheck.next_share(fold::top_level(), || fold::records(&self.view));
        self.watches.dirty.extend(share);
    }

    /// Logs that the state cannot be read for a reason other than the connection, and that it can be
    /// read again, once each.
    fn log_fault(&mut self, error: Option<&tree::Error>) {
        let fault = error.filter(|error| !error.root().is_retryable()).map(fault_text);
        match (&self.fault, &fault) {
            (before, Some(error)) if before.as_ref() != Some(error) => {
                error!(%error, "the cluster state cannot be read; nothing is decided until it can be");
            }
            (Some(_), None) if error.is_none() => info!("the cluster state can be read again"),
            // The connection was lost meanwhile.
            (Some(_), None) => return,
            _ => {}
        }
        self.publish.send_if_modified(|observation| {
            let is_news = observation.fault != fault;
            observation.fault.clone_from(&fault);
            is_news
        });
        self.fault = fault;
    }

    /// Reads the dirty records, folds them in, and publishes. After an error they all stay dirty.
    async fn catch_up(&mut self) -> Result<(), tree::Error> {
        if self.watches.all_dirty {
            self.watches.dirty.extend(fold::top_level());
            self.watches.dirty.extend(fold::records(&self.view));
            // A new session may have begun at a server that is behind: the events say what is read.
            self.view.zxid = Zxid::default();
        }
        let began = tokio::time::Instant::now();
        let mut unread: BTreeSet<TreePath> = self.watches.dirty.clone();
        let (mut read, mut batch_max) = (BTreeSet::new(), READ_BATCH);
        while !unread.is_empty() {
            let batch: Vec<TreePath> = unread.iter().take(batch_max).cloned().collect();
            let znodes = match self.tree.get_many(&batch).await {
                Err(tree::Error::NotAuthorized { path: Some(path) }) => {
                    let error = tree::Error::NotAuthorized { path: Some(path.clone()) };
                    let folded = fold::deny(&mut self.view, &path).ok_or(error)?;
                    self.is_unpublished |= folded.changed;
                    if let Some(reason) = folded.newly_unreadable {
                        warn!(%path, reason, "a znode cannot be read; nothing that it concerns is changed");
                    }
                    unread.remove(&path);
                    self.watches.dirty.remove(&path);
                    // The others of the batch are read once more: fewer at once where many are denied.
                    batch_max = (batch_max / 2).max(1);
                    continue;
                }
                znodes => znodes?,
            };
            batch_max = (batch_max * 2).min(READ_BATCH);
            let mut again = Vec::new();
            for (path, znode) in batch.iter().zip(znodes) {
                unread.remove(path);
                read.insert(path.clone());
                let folded = fold::fold(&mut self.view, path, znode.as_ref());
                self.is_unpublished |= folded.changed;
                // New children, and records that are no longer listed, are read too.
                unread.extend(folded.read_next.into_iter().filter(|path| !read.contains(path)));
                again.extend(folded.read_again);
                if let Some(reason) = folded.newly_unreadable {
                    warn!(%path, reason, "invalid znode; it is skipped and not changed until it is valid or deleted");
                }
            }
            self.watches.dirty.extend(again.iter().cloned());
            unread.extend(again);
        }
        self.watches.dirty.clear();
        self.watches.all_dirty = false;
        self.watches.watch_heartbeats(&self.view);
        if !read.is_empty() && !std::mem::take(&mut self.is_recheck_only) {
            let now = tokio::time::Instant::now();
            self.quiet_until = now + now.duration_since(began).clamp(PAUSE_MIN, PAUSE_MAX);
        }
        let is_changed = std::mem::take(&mut self.is_unpublished);
        log_leader(self.publish.borrow().view.leader.as_ref(), self.view.leader.as_ref());
        let read_at = self.clock.monotonic();
        self.publish.send_if_modified(|observation| {
            let news = is_changed || !observation.fresh;
            if is_changed {
                observation.view = Arc::new(self.view.clone());
            }
            observation.read_at = read_at;
            observation.fresh = true;
            news
        });
        Ok(())
    }

    fn publish_stale(&self) {
        self.publish.send_if_modified(|observation| {
            let was_fresh = std::mem::replace(&mut observation.fresh, false);
            observation.n_interruptions += u64::from(was_fresh);
            was_fresh
        });
    }
}

/// Returns the text for an error that is none of the connection, with the remedy if there is one.
fn fault_text(error: &tree::Error) -> String {
    match error.root() {
        tree::Error::NotAuthorized { path: Some(path) } => format!(
            "{error}; restore the access control list with zkCli, as `setAcl {path} world:anyone:cdrwa`, with \
             storm.zookeeper.root before the path, or if the tree has users, with `stormkeeper zookeeper protect`"
        ),
        _ => error.to_string(),
    }
}

/// Logs a change of the leader.
fn log_leader(before: Option<&Leader>, now: Option<&Leader>) {
    match (before, now) {
        (Some(before), None) => info!(term = %before.term, nimbus = %before.nimbus, "the leader is gone"),
        (_, Some(now)) if before.is_none_or(|before| before.term != now.term) => {
            info!(term = %now.term, nimbus = %now.nimbus, api = now.api, "a nimbus leads");
        }
        (None | Some(_), _) => {}
    }
}

/// True if the bug of trusting watches without full reads is injected.
#[cfg(feature = "injected-bugs")]
fn trusts_watches() -> bool {
    use stormkeeper_runtime::injected_bugs::{InjectedBug, is_injected};
    is_injected(InjectedBug::TrustsWatches)
}

#[cfg(not(feature = "injected-bugs"))]
const fn trusts_watches() -> bool {
    false
}
