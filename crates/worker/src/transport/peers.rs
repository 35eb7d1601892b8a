//! Inboxes of this worker's tasks, and connections to the other workers.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use tokio::sync::watch;
use tracing::info;

use super::{
    Counters, INBOX, Identity, PEER_QUEUE, PeerKeys,
    metrics::{ConnectionMetricSet, ConnectionMetrics},
    outbox::{Directory, Outbox, Sent, send_tuple},
    peer::{self, Address, Route},
};
use crate::{
    queue::{Capacity, Inbox, Inlet, QueueGauge, queue},
    report::Problems,
    tracking::{self, Outgoing, Tracker},
};
use stormkeeper_model::{ComponentId, TaskId, assignment::Assignment, topology::TaskTable};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Ways to the inboxes of this worker's tasks. The set is fixed for the worker's life, as the set of its
/// tasks is.
#[derive(Debug, Clone, Default)]
pub struct Inboxes(Arc<BTreeMap<TaskId, Inlet>>);

impl Inboxes {
    /// Creates an inbox for each of `tasks`, and returns the receiving ends.
    pub fn new(tasks: impl IntoIterator<Item = TaskId>) -> (Self, BTreeMap<TaskId, Inbox>) {
        let (mut inlets, mut inboxes) = (BTreeMap::new(), BTreeMap::new());
        for task in tasks {
            let (inlet, inbox) = queue(INBOX);
            inlets.insert(task, inlet);
            inboxes.insert(task, inbox);
        }
        (Self(Arc::new(inlets)), inboxes)
    }

    /// Returns a view of a task's inbox.
    pub(crate) fn gauge_of(&self, task: TaskId) -> Option<QueueGauge> {
        self.of(task).map(Inlet::gauge)
    }

    pub(super) fn of(&self, task: TaskId) -> Option<&Inlet> {
        self.0.get(&task)
    }
}

/// Connections to the other workers of the topology.
#[derive(Debug)]
pub struct Peers {
    me: Identity,
    counters: Arc<Counters>,
    tasks: Tasks,
    inboxes: Inboxes,
    directory: watch::Sender<Arc<Directory>>,
    // One entry per component of each worker: with one queue for several components, a full inbox
    // could block tuples that its own task waits for, which would deadlock topologies without a
    // cycle.
    connected: BTreeMap<(Address, ComponentId), Peer>,
    // Changes for the acker and the spouts of each other worker, on a connection of its own: they wait behind
    // no data.
    tracked: BTreeMap<Address, TrackedPeer>,
    tracker: Option<Tracker>,
    // Metrics recorded for each connection.
    metric_set: ConnectionMetricSet,
    problems: Problems,
    own_host: OwnHost,
    keys: PeerKeys,
    is_compressing: bool,
}

/// The host of this worker, to reach other workers on the same host.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnHost {
    /// Name under which other hosts reach it.
    pub(crate) name: String,
    /// Addresses at which workers of this host listen.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Connection to the tasks of one component in one other worker.
#[derive(Debug)]
struct Peer {
    queue: Inlet,
    metrics: Option<Arc<ConnectionMetrics>>,
    // Dropping the tasks closes the connection and drops the queued tuples.
    tasks: Tasks,
}

/// Connection to the tracker of one other worker.
#[derive(Debug)]
struct TrackedPeer {
    outgoing: Arc<Outgoing>,
    // Dropping it closes the connection.
    _peer: Peer,
}

impl Peers {
    /// Creates an empty set of peers. The connections are children of `tasks` and end with it.
    pub fn new(me: Identity, inboxes: Inboxes, counters: Arc<Counters>, tasks: &Tasks) -> Self {
        let directory = Directory { inboxes: inboxes.clone(), remote: BTreeMap::new() };
        Self {
            me,
            counters,
            tasks: tasks.child(),
            inboxes,
            directory: watch::Sender::new(Arc::new(directory)),
            connected: BTreeMap::new(),
            tracked: BTreeMap::new(),
            tracker: None,
            metric_set: ConnectionMetricSet::default(),
            problems: Problems::default(),
            own_host: OwnHost::default(),
            keys: PeerKeys::default(),
            is_compressing: false,
        }
    }

    /// Reports peers that cannot be reached, and connects to peers on `own_host` within it.
    pub(crate) fn reporting_to(self, problems: Problems, own_host: OwnHost) -> Self {
        Self { problems, own_host, ..self }
    }

    /// Greets peers with one of `keys`, where that is required.
    pub(crate) fn with_keys(self, keys: PeerKeys) -> Self {
        Self { keys, ..self }
    }

    /// Compresses the frames to the peers that can read it.
    pub(crate) fn compressing(self, is_on: bool) -> Self {
        Self { is_compressing: is_on, ..self }
    }

    /// Also connects the tracker of this worker with those of the others.
    pub(crate) fn with_tracker(self, tracker: Option<Tracker>) -> Self {
        Self { tracker, ..self }
    }

    /// Follows an assignment: creates queues for the components of new workers, drops the queues
    /// of removed workers with their tuples, and updates every [`Outbox`]. A component that stays
    /// in a worker keeps its connection and its queue.
    ///
    /// Tasks that are not in `table` are left out: no task emits to them.
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
                        let own = (&self.problems, &self.own_host, &self.keys, self.is_compressing);
                        let worker = (&self.me, &self.counters);
                        let peer = Peer::start(key, PEER_QUEUE, worker, own, &self.tasks);
                        peer.apply(self.metric_set);
                        peer
                    })
                });
                remote.insert(task, peer.queue.clone());
            }
        }
        self.update_tracker(assignment);
        // Outboxes receive the new directory before the queues of the old one close.
        self.directory.send_replace(Arc::new(Directory { inboxes: self.inboxes.clone(), remote }));
        for (address, component) in left.keys() {
            info!(peer = %address, %component, "a component left a worker of the assignment; closing its connection");
        }
    }

    fn update_tracker(&mut self, assignment: &Assignment) {
        let Some(tracker) = &self.tracker else { return };
        let (mut remote, mut left) = (BTreeMap::new(), std::mem::take(&mut self.tracked));
        for (slot, worker) in assignment.workers.iter().filter(|(slot, _)| **slot != self.me.slot) {
            let address = Address { slot: slot.clone(), host: worker.host.clone() };
            let tracked = left.remove(&address).unwrap_or_else(|| {
                let own = (&self.problems, &self.own_host, &self.keys, self.is_compressing);
                TrackedPeer::start(address.clone(), &self.me, &self.counters, own, &self.tasks)
            });
            remote.extend(worker.tasks.iter().map(|task| (task, Arc::clone(&tracked.outgoing))));
            self.tracked.insert(address, tracked);
        }
        tracker.update(assignment, remote);
    }

    /// Sets the metrics recorded for each current and future connection.
    pub(crate) fn set_metrics(&mut self, metric_set: ConnectionMetricSet) {
        if self.metric_set != metric_set {
            self.metric_set = metric_set;
            for peer in self.connected.values() {
                peer.apply(metric_set);
            }
        }
    }

    /// Returns whether an emitter waits for room in the queue of a peer.
    #[cfg(test)]
    pub(super) fn are_full(&self) -> bool {
        self.connected.values().any(|peer| peer.queue.is_full())
    }

    /// Creates the outbox of one emitting task.
    pub fn outbox(&self) -> Outbox {
        let changes = self.directory.subscribe();
        let directory = changes.borrow().clone();
        Outbox::new(changes, directory, self.counters.clone())
    }
}

/// Capacity of the queue for one worker's tracker: each tuple has many changes, and more are merged while
/// they wait.
const TRACKED_QUEUE: Capacity = Capacity { tuples: 4, bytes: PEER_QUEUE.bytes };

impl TrackedPeer {
    fn start(
        address: Address,
        me: &Identity,
        counters: &Arc<Counters>,
        own: (&Problems, &OwnHost, &PeerKeys, bool),
        tasks: &Tasks,
    ) -> Self {
        let component = tracking::ACKER.parse().expect("a valid id");
        let peer = Peer::start(&(address, component), TRACKED_QUEUE, (me, counters), own, tasks);
        let (outgoing, mut lane) = (Arc::<Outgoing>::default(), peer.queue.lane());
        let counters = Arc::clone(counters);
        let pump = tracking::pump(Arc::clone(&outgoing), async move |tuple| {
            // The receiver looks at the origin alone.
            if send_tuple(&mut lane, &[TaskId(0)], &tuple).await == Sent::Queued {
                counters.queued(1);
            }
        });
        peer.tasks.start("acks to a peer", OnExit::Ignore, pump);
        Self { outgoing, _peer: peer }
    }
}

impl Peer {
    fn start(
        (address, component): &(Address, ComponentId),
        capacity: Capacity,
        (me, counters): (&Identity, &Arc<Counters>),
        (problems, own_host, keys, is_compressing): (&Problems, &OwnHost, &PeerKeys, bool),
        tasks: &Tasks,
    ) -> Self {
        let route = Route::to(address, me, own_host);
        let (queue, queued) = queue(capacity);
        let tasks = tasks.child();
        let (address, component) = (address.clone(), component.clone());
        let metrics = counters.transport_metrics.as_ref();
        let metrics = metrics
            .map(|transport_metrics| Arc::new(transport_metrics.connection(&address, &component, &queue)));
        let queued = (queued, metrics.clone());
        let sender = peer::Sender::new(me.clone(), (address, route), component, queued, Arc::clone(counters));
        let sender =
            sender.reporting_to(problems.clone()).with_keys(keys.clone()).compressing(is_compressing);
        tasks.start("tuples to a peer", OnExit::Ignore, sender.run());
        Self { queue, metrics, tasks }
    }

    fn apply(&self, metric_set: ConnectionMetricSet) {
        if let Some(metrics) = &self.metrics {
            metrics.apply(metric_set);
        }
    }
}
