//! Keeps a [`ClusterView`] fresh: watches wake it, it reads again, it publishes a copy.
//!
//! ```text
//!  watches ─▶ dirty paths ─▶ read them in batches ─▶ fold into the view ─▶ publish
//!     ▲                                                                      │
//!     ├───────────────── rest, so that what comes in a row is read together ◀┘
//!     └── on a reconnect, and every few minutes: all of it is dirty
//! ```
//!
//! An event says only where to look. Beats are watched by the names of the children of
//! each `/taskbeats/{topology-id}`, never by data: a hundred thousand tasks that refresh
//! their beats wake nobody.

mod fold;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, future::select_all};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use crate::{
    backoff::Backoff,
    clock::{Clock, Monotonic},
    cluster::{layout, store, view::ClusterView},
    daemon::{
        tasks::{Ending, Tasks},
        watch,
    },
    tree::{self, Changes, READ_BATCH, ReadTree, Scope, SessionState, TreePath, Watcher},
};

/// A full read bounds what a lost event can cost; it takes about 6 µs per znode.
const FULL_READ_PERIOD: Duration = Duration::from_secs(300);

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The pause after a read that a watch woke, as long as the read took but within these: the
/// thousand tasks of a topology that begin to beat are then read a few times and not a
/// thousand, and the first change after a quiet time is read at once.
const REST_MIN: Duration = Duration::from_millis(20);
const REST_MAX: Duration = Duration::from_millis(100);

/// How many calls of [`Observer::read_now`] and [`Observer::read_again`] may wait at a time;
/// more wait for a place.
const REQUESTS: usize = 16;

/// The view as it was last read, and how far to trust it.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The view.
    pub view: Arc<ClusterView>,
    /// When it was last known to be up to date.
    pub read_at: Monotonic,
    /// False before the first read, and while the tree cannot be reached.
    pub fresh: bool,
}

/// A handle on the task that observes. Clones share it.
#[derive(Debug, Clone)]
pub struct Observer {
    observations: watch::Receiver<Observation>,
    requests: mpsc::Sender<Request>,
}

/// A reading that someone waits for.
#[derive(Debug)]
struct Request {
    what: Asked,
    reply: oneshot::Sender<Result<Arc<ClusterView>, tree::Error>>,
}

#[derive(Debug)]
enum Asked {
    Everything,
    /// These znodes, what watches have told, and which records there are.
    Again(Vec<TreePath>),
}

impl Observer {
    /// Starts observing `tree`; ends with `tasks`.
    pub fn start(tree: Arc<dyn ReadTree>, clock: Clock, tasks: &Tasks) -> Self {
        let view = Arc::new(ClusterView::default());
        let (publish, observations) =
            watch::channel(Observation { view, read_at: clock.monotonic(), fresh: false });
        let (requests, asked) = mpsc::channel(REQUESTS);
        let watching = Watching::new(Arc::clone(&tree));
        let observing = Observing {
            tree,
            clock,
            publish,
            asked,
            watching,
            view: ClusterView::default(),
            is_unpublished: false,
            rested: tokio::time::Instant::now(),
        };
        tasks.start("observer", Ending::StopsOwner, observing.run());
        Self { observations, requests }
    }

    /// The observations, as a value that can be watched.
    pub fn observe(&self) -> watch::Receiver<Observation> {
        self.observations.clone()
    }

    /// Reads everything again and answers it; it is published as well.
    ///
    /// # Errors
    /// Those of the tree, and `Closed` when the observer has ended.
    pub async fn read_now(&self) -> Result<Arc<ClusterView>, store::Error> {
        self.ask(Asked::Everything).await
    }

    /// Reads the records at or around `written` again, which the caller has written, and
    /// what else is known to have changed. Which records there are is looked at anew; one
    /// that is in the view and was written by another session is read when its watch says so.
    ///
    /// On a large cluster this takes a fraction of [`Observer::read_now`].
    ///
    /// # Errors
    /// Those of the tree, and `Closed` when the observer has ended.
    pub async fn read_again(&self, written: Vec<TreePath>) -> Result<Arc<ClusterView>, store::Error> {
        self.ask(Asked::Again(written)).await
    }

    async fn ask(&self, what: Asked) -> Result<Arc<ClusterView>, store::Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { what, reply }).await.map_err(|_ended| tree::Error::Closed)?;
        Ok(answer.await.map_err(|_ended| tree::Error::Closed)??)
    }
}

/// The watches, and what they said.
struct Watching {
    tree: Arc<dyn ReadTree>,
    watchers: BTreeMap<TreePath, Watcher>,
    dirty: BTreeSet<TreePath>,
    all_dirty: bool,
}

impl Watching {
    fn new(tree: Arc<dyn ReadTree>) -> Self {
        let subtrees = [
            layout::storms(),
            layout::tasks_root(),
            layout::assignments(),
            layout::supervisors(),
            layout::nimbuses(),
            layout::orders_root(),
            layout::drains(),
            layout::events(),
            layout::blobs(),
            layout::metrics_root(),
        ];
        let nodes = [layout::leader(), layout::taskbeats_root(), layout::taskerrors_root()];
        let watchers = (subtrees.into_iter().map(|path| (path, Scope::Subtree)))
            .chain(nodes.into_iter().map(|path| (path, Scope::Node)))
            .map(|(path, scope)| (path.clone(), tree.watch(&path, scope)));
        Self { watchers: watchers.collect(), tree, dirty: BTreeSet::new(), all_dirty: true }
    }

    /// Waits for any watch, then takes what all of them have gathered.
    ///
    /// # Cancellation safety
    /// Safe: what is taken is in `self` before anything else is awaited.
    async fn changed(&mut self) {
        let waits = self.watchers.iter_mut().map(|(path, watcher)| {
            let path = path.clone();
            watcher.changed().map(|changes| (path, changes)).boxed()
        });
        let ((path, changes), _, _) = select_all(waits).await;
        self.note(&path, changes);
        self.gather();
    }

    /// Takes what the watches have gathered, without waiting.
    fn gather(&mut self) {
        let told: Vec<(TreePath, Changes)> = (self.watchers.iter_mut())
            .filter_map(|(path, watcher)| Some((path.clone(), watcher.take()?)))
            .collect();
        for (path, changes) in told {
            self.note(&path, changes);
        }
    }

    fn note(&mut self, watched: &TreePath, changes: Changes) {
        match changes {
            Changes::Paths(paths) => self.dirty.extend(paths.iter().map(fold::record_path)),
            // One topology's beats are one record; below a root, anything may have changed.
            Changes::Everything if watched.parts().count() == 2 => self.dirty.extend([watched.clone()]),
            Changes::Everything => self.all_dirty = true,
        }
    }

    /// Marks what someone asks for.
    fn mark(&mut self, asked: Asked) {
        match asked {
            Asked::Everything => self.all_dirty |= !believes_watches(),
            Asked::Again(written) => {
                self.gather();
                self.dirty.extend(fold::roots());
                self.dirty.extend(written.iter().map(fold::record_path));
            }
        }
    }

    /// Watches the beats of every topology that has a place for them, and of no other.
    fn follow_beats(&mut self, view: &ClusterView) {
        let root = layout::taskbeats_root();
        let wanted: BTreeSet<TreePath> = view.beats.keys().map(layout::taskbeats).collect();
        self.watchers.retain(|path, _| path.parent().as_ref() != Some(&root) || wanted.contains(path));
        for path in wanted {
            let tree = &self.tree;
            self.watchers.entry(path.clone()).or_insert_with(|| tree.watch(&path, Scope::Node));
        }
    }
}

struct Observing {
    tree: Arc<dyn ReadTree>,
    clock: Clock,
    publish: watch::Sender<Observation>,
    asked: mpsc::Receiver<Request>,
    watching: Watching,
    view: ClusterView,
    /// Whether the view is another one than the published: a read may fail half-way.
    is_unpublished: bool,
    /// When the rest after the last read is over.
    rested: tokio::time::Instant,
}

impl Observing {
    async fn run(mut self) {
        let mut sessions = self.tree.session();
        let mut backoff =
            Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new()).expect("the constants are in order");
        let mut full_read = tokio::time::interval(FULL_READ_PERIOD);
        full_read.tick().await;
        loop {
            let mut retry = None;
            let state = *sessions.borrow_and_update();
            match state {
                SessionState::Connected(_) => match self.catch_up().await {
                    Ok(()) => backoff.reset(),
                    Err(error) => {
                        debug!(%error, "could not read the cluster state yet");
                        self.publish_stale();
                        retry = Some(backoff.next_delay());
                    }
                },
                SessionState::Connecting | SessionState::Disconnected(_) => {
                    self.watching.all_dirty = true;
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
            let rested = self.rested;
            let woken = async {
                tokio::time::sleep_until(rested).await;
                self.watching.changed().await;
            };
            tokio::select! {
                // What is rare and bounded comes first, so that nothing is starved.
                biased;
                // Cancel-safe: `changed` keeps what it took, the others only wait or hand over.
                changed = sessions.changed() => if changed.is_err() { return },
                _ = full_read.tick() => self.watching.all_dirty |= !believes_watches(),
                Some(Request { what, reply }) = self.asked.recv() => {
                    self.watching.mark(what);
                    let result = self.catch_up().await.map(|()| Arc::clone(&self.publish.borrow().view));
                    // The asker may have gone away; the view is published all the same.
                    let _gone = reply.send(result);
                }
                () = retry => {}
                () = woken => {}
            }
        }
    }

    /// Reads what is dirty, folds it in, and publishes. On an error it all stays dirty.
    async fn catch_up(&mut self) -> Result<(), tree::Error> {
        if self.watching.all_dirty {
            self.watching.dirty.extend(fold::roots());
            self.watching.dirty.extend(fold::records(&self.view));
        }
        let began = tokio::time::Instant::now();
        let mut unread: BTreeSet<TreePath> = self.watching.dirty.clone();
        let mut read = BTreeSet::new();
        while !unread.is_empty() {
            let batch: Vec<TreePath> = unread.iter().take(READ_BATCH).cloned().collect();
            let families = self.tree.get_many(&batch).await?;
            for (path, family) in batch.iter().zip(families) {
                unread.remove(path);
                read.insert(path.clone());
                let folded = fold::fold(&mut self.view, path, family.as_ref());
                self.is_unpublished |= folded.changed;
                // New children, and records that are no longer listed, are read as well.
                unread.extend(folded.look_at.into_iter().filter(|path| !read.contains(path)));
                if let Some(reason) = folded.newly_unreadable {
                    warn!(%path, reason, "a znode cannot be read and is left alone");
                }
            }
        }
        self.watching.dirty.clear();
        self.watching.all_dirty = false;
        self.watching.follow_beats(&self.view);
        if !read.is_empty() {
            let now = tokio::time::Instant::now();
            self.rested = now + now.duration_since(began).clamp(REST_MIN, REST_MAX);
        }
        let is_changed = std::mem::take(&mut self.is_unpublished);
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
        self.publish.send_if_modified(|observation| std::mem::replace(&mut observation.fresh, false));
    }
}

/// A bug that can be put in on purpose.
#[cfg(any(test, feature = "test-support"))]
fn believes_watches() -> bool {
    use crate::test_support::sabotage::{Sabotage, is_put_in};
    is_put_in(Sabotage::BelievesWatches)
}

#[cfg(not(any(test, feature = "test-support")))]
const fn believes_watches() -> bool {
    false
}
