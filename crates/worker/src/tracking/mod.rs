//! Tracking of tuple trees: every tuple that a spout emits with an id is acked or failed to the spout once.
//!
//! ```text
//!  spout task ── begun ──▶ acker's ledger ◀── acked, failed, reset ── bolt tasks
//!      ▲                        │                 (of other workers: Outgoing ══ TCP ══▶)
//!      └──────── mailbox ◀──────┘
//! ```
//!
//! - A worker has one acker, a ledger behind a lock and not a task with a queue: recording a change never
//!   waits, so that acks cannot be stuck behind data, whatever the graph is like.
//! - A tree is tracked by the acker of the spout's own worker if it has one; beginning and completing the
//!   tree then needs no network. With fewer ackers than workers (`topology.acker.executors`), the
//!   other workers use those of the first workers of the assignment, each the same one.
//! - An acker is addressed by a task that runs in its worker. If that task moves, its worker has
//!   ended, and so have the trees; what is sent to the new worker is ignored there.
//! - The spout's task measures the timeout ([`PendingTuples`]), so a tree whose acker or bolts are gone
//!   fails too. Lost messages, dropped changes and tuples that are never acked end in this way.
//! - A topology is tracked as its record says, which a submit decides: workers of one topology agree.
//!
//! Delivery is at least once for a spout that emits failed tuples again, and that after a restart goes on
//! from its oldest tuple that was not acked.

#[cfg(feature = "test-support")]
pub mod bench_support;
mod delivery;
mod ledger;
mod message;
mod outgoing;
mod pending;
mod roots;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use tracing::{info, warn};

pub(crate) use delivery::Delivery;
pub(crate) use ledger::Outcome;
use ledger::{Ended, Ledger};
use message::Changes;
pub(crate) use message::{ACKER, Invalid};
use outgoing::Change;
pub(crate) use outgoing::Outgoing;
pub(crate) use pending::{PendingTuple, PendingTuples};

use stormkeeper_model::{Slot, TaskId, assignment::Assignment, task_set::TaskSet, topology::Ackers};
use stormkeeper_runtime::tasks::{OnExit, Tasks};
use stormkeeper_stream::{Anchor, Tuple};

/// Limit of news that wait for a spout; beyond it they are dropped, and their trees time out. Only a faulty
/// peer reaches it: a spout has at most [`PENDING_MAX`] pending tuples.
const MAIL_MAX: usize = 2 * PENDING_MAX;

/// Limit of the pending tuples of a spout task without `topology.max.spout.pending`. A spout that has as
/// many is not asked for more; what one `next` emits beyond it is not tracked, and reported.
pub(crate) const PENDING_MAX: usize = 1_000_000;

/// Rotations of the ledger in one message timeout.
const ROTATIONS: u32 = 2;

/// News about one tree for its spout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// The tree has ended.
    Ended(Outcome),
    /// A bolt asked for more time.
    TimeoutReset,
}

/// Result of a delivery, by the task of a bolt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// It is done; the edges are its own and those of the tuples that it emitted.
    Acked(u64),
    /// It failed.
    Failed,
    /// It needs more time.
    TimeoutReset,
}

/// A settlement of a delivery in one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) acker: TaskId,
    pub(crate) root: u64,
    pub(crate) settlement: Settlement,
}

/// News for one spout task.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    news: Mutex<Vec<(u64, News)>>,
    // To be looked at without the lock.
    has_news: AtomicBool,
    added: Notify,
}

impl Mailbox {
    /// Returns whether there are news.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.has_news.load(Ordering::Relaxed)
    }

    /// Resolves when there may be news.
    ///
    /// # Cancellation safety
    /// A call that is dropped has taken nothing; its wake-up may be lost, so take after each wait.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// Takes all news: the root of a tree, and what became of it.
    pub(crate) fn take(&self) -> Vec<(u64, News)> {
        if !self.has_news.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, root: u64, news: News) {
        let mut waiting = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAIL_MAX {
            waiting.push((root, news));
        }
        drop(waiting);
        self.has_news.store(true, Ordering::Release);
        self.added.notify_one();
    }
}

/// Tracking of the trees of one worker. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Tracker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ackers: Ackers,
    own: Slot,
    ledger: Mutex<Ledger>,
    // One for each task of this worker.
    mailboxes: BTreeMap<TaskId, Arc<Mailbox>>,
    routes: RwLock<Routes>,
    n_late: AtomicU64,
}

/// Consequences of the assignment.
#[derive(Debug, Default)]
struct Routes {
    // `None` if the acker is in this worker.
    acker: Option<TaskId>,
    remote: BTreeMap<TaskId, Arc<Outgoing>>,
}

impl Tracker {
    /// Creates the tracker of the worker in slot `own` with the tasks `local`, whose ledger forgets trees
    /// after `timeout` and a half. Its background task is a child of `tasks`.
    pub(crate) fn start(
        ackers: Ackers,
        own: Slot,
        local: &TaskSet,
        timeout: Option<Duration>,
        tasks: &Tasks,
    ) -> Self {
        let tracker = Self(Arc::new(Shared {
            ackers,
            own,
            ledger: Mutex::default(),
            mailboxes: local.iter().map(|task| (task, Arc::default())).collect(),
            routes: RwLock::default(),
            n_late: AtomicU64::new(0),
        }));
        if let Some(timeout) = timeout {
            let rotating = tracker.clone();
            tasks.start("forget old tuple trees", OnExit::Ignore, async move {
                loop {
                    tokio::time::sleep(timeout / ROTATIONS).await;
                    rotating.rotate();
                }
            });
        }
        tracker
    }

    /// Follows an assignment. `remote` has where to send changes for the worker of each task elsewhere.
    pub(crate) fn update(&self, assignment: &Assignment, remote: BTreeMap<TaskId, Arc<Outgoing>>) {
        let acker = acker_of(self.0.ackers, &self.0.own, assignment);
        let mut routes = self.0.routes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(acker) = acker.filter(|acker| routes.acker != Some(*acker)) {
            info!(%acker, "this worker has no acker; the worker of this task tracks the tuples of its spouts");
        }
        *routes = Routes { acker, remote };
    }

    /// Returns a task in the worker whose acker tracks the tuples of the spout task `spout` of this worker.
    pub(crate) fn acker_for(&self, spout: TaskId) -> TaskId {
        self.0.routes.read().unwrap_or_else(PoisonError::into_inner).acker.unwrap_or(spout)
    }

    /// Returns the mailbox of a spout task of this worker.
    ///
    /// # Panics
    /// If the task is not of this worker.
    pub(crate) fn mailbox(&self, spout: TaskId) -> Arc<Mailbox> {
        Arc::clone(&self.0.mailboxes[&spout])
    }

    /// Records that a tuple of `spout` is about to be sent to `receivers`.
    pub(crate) fn begin(&self, anchor: Anchor, spout: TaskId, receivers: &[TaskId]) {
        let (root, edges) = (anchor.root, anchor.edges_to(receivers));
        self.change(anchor.acker, Change::Begun { root, spout, edges });
    }

    /// Forgets a tree that this worker's acker may have: its spout has told the outcome.
    pub(crate) fn forget(&self, root: u64) {
        self.ledger().forget(root);
    }

    /// Records what bolts did, and empties `settled`.
    pub(crate) fn settle(&self, settled: &mut Vec<Settled>) {
        if settled.is_empty() {
            return;
        }
        let (mut ended, mut reset) = (Vec::new(), Vec::new());
        let mut ledger = self.ledger();
        settled.retain(|Settled { acker, root, settlement }| {
            if !self.0.mailboxes.contains_key(acker) {
                return true;
            }
            match *settlement {
                Settlement::Acked(edges) => ended.extend(ledger.ack(*root, edges)),
                Settlement::Failed => ended.extend(ledger.fail(*root)),
                Settlement::TimeoutReset => {
                    reset.extend(ledger.reset_timeout(*root).map(|spout| (spout, *root)));
                }
            }
            false
        });
        drop(ledger);
        self.tell(ended, reset);
        for Settled { acker, root, settlement } in settled.drain(..) {
            let change = match settlement {
                Settlement::Acked(edges) => Change::Acked { root, edges },
                Settlement::Failed => Change::Failed { root },
                Settlement::TimeoutReset => Change::Reset { root },
            };
            self.send(acker, change);
        }
    }

    /// Takes a message of the tracker of another worker.
    ///
    /// # Errors
    /// [`Invalid`] if it is none; it has no effect then.
    pub(crate) fn receive(&self, message: &Tuple) -> Result<(), Invalid> {
        let changes = Changes::of_tuple(message)?;
        let (mut ended, mut reset) = (Vec::new(), Vec::new());
        let mut ledger = self.ledger();
        ended.extend(
            changes.begun.iter().filter_map(|(root, spout, edges)| ledger.begin(*root, *spout, *edges)),
        );
        ended.extend(changes.acked.iter().filter_map(|(root, edges)| ledger.ack(*root, *edges)));
        ended.extend(changes.failed.iter().filter_map(|root| ledger.fail(*root)));
        let resets = changes.reset.iter();
        reset.extend(resets.filter_map(|root| ledger.reset_timeout(*root).map(|spout| (spout, *root))));
        drop(ledger);
        self.tell(ended, reset);
        for (spout, root, news) in changes.told {
            if let Some(mailbox) = self.0.mailboxes.get(&spout) {
                mailbox.put(root, news);
            }
        }
        Ok(())
    }

    /// Returns the number of trees that this worker's acker tracks.
    #[cfg(test)]
    fn n_trees(&self) -> usize {
        self.ledger().len()
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rotate(&self) {
        let n_late = self.ledger().rotate();
        let before = self.0.n_late.fetch_add(n_late, Ordering::Relaxed);
        // Logged at each doubling.
        if n_late > 0 && before.checked_ilog2() != (before + n_late).checked_ilog2() {
            info!(
                n_late,
                so_far = before + n_late,
                "acks or fails arrived after the message timeout of their tuple trees, or for a spout that has restarted"
            );
        }
    }

    fn change(&self, acker: TaskId, change: Change) {
        match change {
            Change::Begun { root, spout, edges } if self.0.mailboxes.contains_key(&acker) => {
                let ended = self.ledger().begin(root, spout, edges);
                self.tell(ended.into_iter().collect(), Vec::new());
            }
            change => self.send(acker, change),
        }
    }

    fn tell(&self, ended: Vec<Ended>, reset: Vec<(TaskId, u64)>) {
        let ended =
            ended.into_iter().map(|Ended { spout, root, outcome }| (spout, root, News::Ended(outcome)));
        let reset = reset.into_iter().map(|(spout, root)| (spout, root, News::TimeoutReset));
        for (spout, root, news) in ended.chain(reset) {
            match self.0.mailboxes.get(&spout) {
                Some(mailbox) => mailbox.put(root, news),
                None => self.send(spout, Change::Told { spout, root, news }),
            }
        }
    }

    /// Sends a change to the worker of `task`. Without such a worker it is lost, and the tree times out.
    fn send(&self, task: TaskId, change: Change) {
        let routes = self.0.routes.read().unwrap_or_else(PoisonError::into_inner);
        let Some(outgoing) = routes.remote.get(&task) else { return };
        if let Some(so_far) = outgoing.add([change])
            && so_far.is_power_of_two()
        {
            warn!(so_far, %task, "dropped acks for a worker that is away for long; their tuples time out");
        }
    }
}

/// Sends the changes for one worker as tuples by `send`, until it is dropped.
pub(crate) async fn pump(outgoing: Arc<Outgoing>, mut send: impl AsyncFnMut(Tuple)) {
    loop {
        let changes = outgoing.next().await;
        send(changes.to_tuple()).await;
    }
}

/// Returns a task in the worker whose acker serves the worker `own`; `None` if that is `own` itself.
fn acker_of(ackers: Ackers, own: &Slot, assignment: &Assignment) -> Option<TaskId> {
    let n_ackers = match ackers {
        Ackers::PerWorker => return None,
        Ackers::Count(n) => n.max(1) as usize,
    };
    let place = assignment.workers.keys().position(|slot| slot == own)?;
    if place < n_ackers {
        return None;
    }
    let worker = assignment.workers.values().nth(place % n_ackers)?;
    worker.tasks.iter().next()
}
