//! What the leader wants of this machine, read from the tree.
//!
//! The watch on `/orders/{id}` only wakes: everything is read again. Only the assignments that
//! the orders name are read, and those again only when their version is another one or a
//! periodic pass is due. What cannot be read is marked as such and never taken for absent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Notify, time::MissedTickBehavior};
use tracing::warn;

use crate::{
    backoff::Backoff,
    cluster::{layout, store, store::Store},
    daemon::watch,
    model::{Port, SupervisorId, TopologyId},
    supervisor::slot::{Desired, Wanted},
    tree::{Changes, Scope, Version},
};

/// Between two tries to read while the tree does not answer or something in it is unreadable.
/// The watch wakes as well when the connection is back.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The orders as they were last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ordered {
    /// They were never read.
    Unknown,
    /// They were read.
    Known(Known),
}

/// Orders with their assignments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Each topology's workers on this machine.
    pub(super) workers: BTreeMap<Port, Vec<Desired>>,
    /// Topologies that are ordered here but could not be read, and why.
    pub(super) unreadable: BTreeMap<TopologyId, String>,
}

impl Ordered {
    /// What is wanted of the slot at `port`, in which `held` runs or is to run.
    pub(super) fn wanted(&self, port: Port, held: Option<&Desired>) -> Wanted {
        let Self::Known(known) = self else { return Wanted::Unknown };
        let here = known.workers.get(&port).map_or(&[][..], Vec::as_slice);
        if let Some(held) = held {
            if let Some(same) = here.iter().find(|desired| desired.is_same_worker(held)) {
                return Wanted::Worker(same.clone());
            }
            if known.unreadable.contains_key(&held.topology) {
                return Wanted::Unknown;
            }
        }
        // Two topologies in one slot are a mistake of the leader's; the later one is what it
        // wants now.
        let latest = here.iter().max_by_key(|desired| (desired.worker.start, &desired.topology));
        latest.map_or(Wanted::Nothing, |desired| Wanted::Worker(desired.clone()))
    }

    /// What an operator should know.
    pub(super) fn problems(&self, own: &BTreeSet<Port>) -> Vec<String> {
        let Self::Known(known) = self else { return Vec::new() };
        let unreadable = known.unreadable.values().cloned();
        let crowded =
            known.workers.iter().filter(|(_, here)| here.len() > 1).map(|(port, here)| {
                format!("{} topologies are assigned to the slot at port {port}", here.len())
            });
        let foreign = known.workers.keys().filter(|port| !own.contains(port));
        let foreign = foreign.map(|port| format!("port {port} is assigned but is none of this supervisor's"));
        unreadable.chain(crowded).chain(foreign).collect()
    }
}

/// Reads the orders of one supervisor for as long as it runs.
#[derive(Debug)]
pub(super) struct OrdersReader {
    store: Store,
    me: SupervisorId,
    period: Duration,
    /// Wakes as the watch does.
    doubt: Arc<Notify>,
    read: BTreeMap<TopologyId, Read>,
}

/// An assignment as read.
#[derive(Debug)]
struct Read {
    version: Version,
    workers: Vec<(Port, Desired)>,
}

/// What one topology of the orders turned out to be.
enum Outcome {
    Read(Read),
    Gone,
    Unreadable(String),
}

/// Whether what was read before will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Read what has another version.
    Changed,
    /// Read all: versions tell nothing about a tree that was lost and made anew, nor about a
    /// znode that could not be read.
    Everything,
}

impl OrdersReader {
    /// Reads at least every `period`, and when somebody has a `doubt` whether the orders are
    /// still the same.
    pub(super) fn new(store: Store, me: SupervisorId, period: Duration, doubt: Arc<Notify>) -> Self {
        Self { store, me, period, doubt, read: BTreeMap::new() }
    }

    /// Publishes the orders whenever they may have changed. Ends only by being dropped.
    pub(super) async fn run(mut self, orders: watch::Sender<Ordered>) {
        let mut watcher = self.store.tree().watch(&layout::orders(&self.me), Scope::Node);
        let mut pass = tokio::time::interval(self.period);
        pass.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff =
            Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new()).expect("constants in order");
        let mut retry_in = None;
        loop {
            let depth = tokio::select! {
                // What reads everything comes first: changes without end cannot put it off.
                biased;
                // Cancel-safe: a tick that is not returned is still due.
                _tick = pass.tick() => Depth::Everything,
                // Cancel-safe: a pause has no state.
                () = tokio::time::sleep(retry_in.unwrap_or_default()), if retry_in.is_some() => Depth::Everything,
                // Cancel-safe: a change that is not returned stays pending.
                changes = watcher.changed() => match (changes, retry_in) {
                    (Changes::Paths(_), None) => Depth::Changed,
                    (Changes::Paths(_), Some(_)) | (Changes::Everything, _) => Depth::Everything,
                },
                // Cancel-safe: a doubt that was not looked into stays.
                () = self.doubt.notified() => match retry_in {
                    None => Depth::Changed,
                    Some(_) => Depth::Everything,
                },
            };
            retry_in = match self.read(depth).await {
                Ok(known) => {
                    let is_complete = known.unreadable.is_empty();
                    publish(&orders, known);
                    (!is_complete).then(|| backoff.next_delay())
                }
                Err(error) => {
                    let delay = backoff.next_delay();
                    if retry_in.is_none() {
                        warn!(%error, "cannot read the orders, trying again; what runs keeps running");
                    }
                    Some(delay)
                }
            };
            if retry_in.is_none() {
                backoff.reset();
            }
        }
    }

    async fn read(&mut self, depth: Depth) -> Result<Known, store::Error> {
        let ordered = self.store.orders(&self.me).await?;
        let topologies = ordered.map(|orders| orders.value.topologies).unwrap_or_default();
        self.read.retain(|topology, _| topologies.contains_key(topology));
        let mut known = Known::default();
        for (topology, version) in topologies {
            let is_current = self.read.get(&topology).is_some_and(|read| read.version == version);
            if depth == Depth::Everything || !is_current {
                match self.read_topology(&topology).await? {
                    Outcome::Read(read) => _ = self.read.insert(topology.clone(), read),
                    Outcome::Gone => _ = self.read.remove(&topology),
                    Outcome::Unreadable(reason) => {
                        self.read.remove(&topology);
                        known.unreadable.insert(topology.clone(), reason);
                    }
                }
            }
            for (port, desired) in self.read.get(&topology).into_iter().flat_map(|read| &read.workers) {
                known.workers.entry(*port).or_default().push(desired.clone());
            }
        }
        Ok(known)
    }

    /// Fails only when the tree does not answer.
    async fn read_topology(&self, topology: &TopologyId) -> Result<Outcome, store::Error> {
        let assignment = match self.store.assignment(topology).await {
            Ok(Some(assignment)) => assignment,
            // Removed after the orders were read; they are about to change as well.
            Ok(None) => return Ok(Outcome::Gone),
            Err(store::Error::Unreadable(error)) => return Ok(Outcome::Unreadable(error.to_string())),
            Err(error @ store::Error::Tree(_)) => return Err(error),
        };
        let storm = match self.store.storm(topology).await {
            Ok(Some(storm)) => storm,
            Ok(None) => {
                let path = layout::storm(topology);
                return Ok(Outcome::Unreadable(format!("{path} does not exist, though it is assigned")));
            }
            Err(store::Error::Unreadable(error)) => return Ok(Outcome::Unreadable(error.to_string())),
            Err(error @ store::Error::Tree(_)) => return Err(error),
        };
        let desired = assignment.value.workers_of(&self.me).map(|(port, worker)| {
            let (topology, blob) = (topology.clone(), storm.value.blob.clone());
            (port, Desired { topology, worker: worker.clone(), blob })
        });
        Ok(Outcome::Read(Read { version: assignment.version, workers: desired.collect() }))
    }
}

fn publish(orders: &watch::Sender<Ordered>, known: Known) {
    let known = Ordered::Known(known);
    if *orders.borrow() == known {
        return;
    }
    if let Ordered::Known(Known { unreadable, .. }) = &known {
        for reason in unreadable.values() {
            warn!(reason, "what runs of this topology keeps running");
        }
    }
    orders.send_replace(known);
}
