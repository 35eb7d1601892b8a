//! An emitting task's way to every other task.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{
    mpsc::{self, error::TrySendError},
    watch,
};
use tracing::{info, warn};

use super::{
    Counters, INBOX_TUPLES, Identity, PEER_QUEUE_TUPLES,
    counters::add,
    measures::{Connection, Wanted},
    peer::{self, Address},
    wire::Addressed,
};
use stormkeeper_model::{ComponentId, TaskId, assignment::Assignment, topology::TaskTable};
use stormkeeper_runtime::tasks::{OnExit, Tasks};
use stormkeeper_stream::Tuple;

/// The sending ends of the inboxes of this worker's tasks. Fixed for the worker's life, as
/// its tasks are.
#[derive(Debug, Clone, Default)]
pub struct Inboxes(Arc<BTreeMap<TaskId, mpsc::Sender<Tuple>>>);

impl Inboxes {
    /// Makes an inbox of [`INBOX_TUPLES`] for each of `tasks`; gives back the receiving ends.
    /// A task takes many at once by [`mpsc::Receiver::recv_many`].
    pub fn new(tasks: impl IntoIterator<Item = TaskId>) -> (Self, BTreeMap<TaskId, mpsc::Receiver<Tuple>>) {
        let (mut senders, mut receivers) = (BTreeMap::new(), BTreeMap::new());
        for task in tasks {
            let (sender, receiver) = mpsc::channel(INBOX_TUPLES);
            senders.insert(task, sender);
            receivers.insert(task, receiver);
        }
        (Self(Arc::new(senders)), receivers)
    }

    /// How full the inbox of a task is, 0 to 1; none once nobody can fill it.
    pub(crate) fn fill_of(&self, task: TaskId) -> impl Fn() -> Option<f64> + use<> {
        let inbox = self.of(task).map(mpsc::Sender::downgrade);
        move || {
            let inbox = inbox.as_ref()?.upgrade()?;
            Some(1.0 - inbox.capacity() as f64 / inbox.max_capacity() as f64)
        }
    }

    pub(super) fn of(&self, task: TaskId) -> Option<&mpsc::Sender<Tuple>> {
        self.0.get(&task)
    }
}

/// Where each task is reached: one consistent reading of an assignment.
#[derive(Debug, Default)]
struct Directory {
    inboxes: Inboxes,
    // The queue of the task's component at the peer that runs it.
    remote: BTreeMap<TaskId, mpsc::Sender<Addressed>>,
}

/// The connections to the other workers of the topology.
#[derive(Debug)]
pub struct Peers {
    me: Identity,
    counters: Arc<Counters>,
    tasks: Tasks,
    inboxes: Inboxes,
    directory: watch::Sender<Arc<Directory>>,
    // One for each component that a worker runs: a queue for several would let a full inbox
    // hold up tuples that its own task waits for, and so stop topologies without a cycle.
    connected: BTreeMap<(Address, ComponentId), Peer>,
    // What is measured of each of them.
    wanted: Wanted,
}

/// The tasks of one component in one other worker.
#[derive(Debug)]
struct Peer {
    queue: mpsc::Sender<Addressed>,
    measured: Option<Arc<Connection>>,
    // Dropping them ends the connection and drops what is queued.
    _tasks: Tasks,
}

impl Peers {
    /// No peers yet. The connections are `tasks`' and end with them.
    pub fn new(me: Identity, inboxes: Inboxes, counters: Arc<Counters>, tasks: &Tasks) -> Self {
        let directory = Directory { inboxes: inboxes.clone(), remote: BTreeMap::new() };
        Self {
            me,
            counters,
            tasks: tasks.child(),
            inboxes,
            directory: watch::Sender::new(Arc::new(directory)),
            connected: BTreeMap::new(),
            wanted: Wanted::default(),
        }
    }

    /// Follows an assignment: makes queues for the components of workers that came, drops
    /// those that went with what was queued for them, and shows every [`Outbox`] where each
    /// task is now. A component that stays with a worker keeps its connection and its queue.
    ///
    /// Tasks that `table` does not know are left out: nobody emits to them.
    pub fn update(&mut self, assignment: &Assignment, table: &TaskTable) {
        let components: BTreeMap<TaskId, &ComponentId> =
            table.iter().map(|(component, task)| (task, component)).collect();
        let mut remote = BTreeMap::new();
        let mut left = std::mem::take(&mut self.connected);
        for (slot, worker) in assignment.workers.iter().filter(|(slot, _)| **slot != self.me.slot) {
            let address = Address { slot: slot.clone(), host: worker.host.clone() };
            for task in worker.tasks.iter() {
                let Some(&component) = components.get(&task) else { continue };
                let key = (address.clone(), component.clone());
                let peer = self.connected.entry(key).or_insert_with_key(|key| {
                    left.remove(key).unwrap_or_else(|| {
                        let peer = Peer::start(key, &self.me, &self.counters, &self.tasks);
                        peer.follow(self.wanted);
                        peer
                    })
                });
                remote.insert(task, peer.queue.clone());
            }
        }
        // Outboxes turn to the new directory before the queues of the old one close.
        self.directory.send_replace(Arc::new(Directory { inboxes: self.inboxes.clone(), remote }));
        for (address, component) in left.keys() {
            info!(peer = %address, %component, "a component left a worker of the assignment");
        }
    }

    /// Measures this of each connection from now on, and of those to come.
    pub(crate) fn measure(&mut self, wanted: Wanted) {
        if self.wanted != wanted {
            self.wanted = wanted;
            for peer in self.connected.values() {
                peer.follow(wanted);
            }
        }
    }

    /// How many tuples the queues of all peers have room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.connected.values().map(|peer| peer.queue.capacity()).sum()
    }

    /// A way to every task, for one emitting task.
    pub fn outbox(&self) -> Outbox {
        let changes = self.directory.subscribe();
        let directory = changes.borrow().clone();
        Outbox { changes, directory, counters: self.counters.clone() }
    }
}

impl Peer {
    fn start(
        (address, component): &(Address, ComponentId),
        me: &Identity,
        counters: &Arc<Counters>,
        tasks: &Tasks,
    ) -> Self {
        let (queue, queued) = mpsc::channel(PEER_QUEUE_TUPLES);
        let tasks = tasks.child();
        let (address, component) = (address.clone(), component.clone());
        let measured = counters.measures.as_ref();
        let measured = measured.map(|measures| Arc::new(measures.connection(&address, &component, &queue)));
        let queued = (queued, measured.clone());
        let sender = peer::Sender::new(me.clone(), address, component, queued, Arc::clone(counters));
        tasks.start("tuples to a peer", OnExit::Ignore, sender.run());
        Self { queue, measured, _tasks: tasks }
    }

    fn follow(&self, wanted: Wanted) {
        if let Some(measured) = &self.measured {
            measured.follow(wanted);
        }
    }
}

/// What became of a tuple that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in the receiver's inbox or in the queue to its worker.
    Queued,
    /// The receiver is nowhere, or left while the tuple waited. Counted.
    Dropped,
}

/// An emitting task's way to every other task; each has its own clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    changes: watch::Receiver<Arc<Directory>>,
    directory: Arc<Directory>,
    counters: Arc<Counters>,
}

impl Outbox {
    /// Sends a tuple to a task, waiting while its queue is full.
    ///
    /// # Cancellation safety
    /// A call that is dropped has sent the tuple or has not; ask for no more.
    ///
    /// # Ordering
    /// Tuples to one task arrive in the order of the calls, while the task stays where it is
    /// and its connection lives.
    pub async fn send(&mut self, task: TaskId, tuple: Tuple) -> Sent {
        self.send_or(task, tuple, || {}).await
    }

    /// As [`Outbox::send`]; `before_wait` is called first when the queue is full.
    ///
    /// # Cancellation safety
    /// As [`Outbox::send`].
    ///
    /// # Ordering
    /// As [`Outbox::send`].
    pub async fn send_or(&mut self, task: TaskId, tuple: Tuple, before_wait: impl FnOnce()) -> Sent {
        // An error means that the peers are gone; their last directory still holds.
        if self.changes.has_changed().unwrap_or(false) {
            self.directory = self.changes.borrow_and_update().clone();
        }
        if let Some(inbox) = self.directory.inboxes.of(task) {
            return match offer_or(inbox, tuple, before_wait).await {
                Sent::Queued => Sent::Queued,
                Sent::Dropped => self.unroutable(task),
            };
        }
        let Some(peer) = self.directory.remote.get(&task) else { return self.unroutable(task) };
        let sent = offer_or(peer, Addressed { task, tuple }, before_wait).await;
        if sent == Sent::Dropped {
            add(&self.counters.dropped, 1);
        }
        sent
    }

    fn unroutable(&self, task: TaskId) -> Sent {
        if let Some(so_far) = add(&self.counters.unroutable, 1) {
            warn!(%task, so_far, "a tuple was emitted to a task that runs nowhere; dropped");
        }
        Sent::Dropped
    }
}

pub(super) async fn offer<T>(queue: &mpsc::Sender<T>, item: T) -> Sent {
    offer_or(queue, item, || {}).await
}

async fn offer_or<T>(queue: &mpsc::Sender<T>, item: T, before_wait: impl FnOnce()) -> Sent {
    // Without waiting there is no future to build and park: the common case, and the fast one.
    match queue.try_send(item) {
        Ok(()) => Sent::Queued,
        Err(TrySendError::Closed(_)) => Sent::Dropped,
        Err(TrySendError::Full(item)) => {
            before_wait();
            match queue.send(item).await {
                Ok(()) => Sent::Queued,
                Err(_closed) => Sent::Dropped,
            }
        }
    }
}
