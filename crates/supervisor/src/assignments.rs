//! The supervisor assignments, read from the tree: the workers that the leader assigned here.
//!
//! The watch on `/supervisor-assignments/{id}` only wakes the reader, which then reads everything
//! again. Only the assignments that the znode names are read, and they are read again only when
//! their version differs or a periodic pass is due. A record that cannot be read is marked as
//! unreadable and never treated as absent.
//!
//! A record that does not exist may have been deleted by hand, and ends no worker until a leader has
//! looked. Without `/supervisor-assignments/{id}`, the assignments of the topologies that run here
//! decide, which only a leader writes. Without the assignment of a topology that was not killed, its
//! workers run on until a leader has placed it again. If `/supervisor-assignments/{id}` does not name
//! a topology whose assignment has workers here, which no leader writes, they run on for a minute: the
//! leader writes it again within seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior},
};
use tracing::{debug, info, warn};

use crate::{
    slot::{DesiredWorker, Target},
    status::Status,
};
use stormkeeper_coordination::{
    cluster::{
        layout,
        store::{self, Store},
    },
    tree::{self, Changes, Scope, Version},
};
use stormkeeper_model::{Port, Slot, SupervisorId, TopologyId, backoff::Delays, status::TopologyStatus};
use stormkeeper_runtime::{outage::Outage, watch};

/// Bounds of the pause between two attempts to read while the tree does not respond or a record
/// is unreadable. The watch also wakes the reader when the connection is back.
const RETRY: Delays = Delays::between(Duration::from_millis(200), Duration::from_secs(10));

/// Time for which the workers of a topology run on that the supervisor assignments do not name although
/// its own assignment does: longer than an election takes.
const UNNAMED_MAX: Duration = Duration::from_secs(60);

/// The supervisor assignments as last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AssignmentsState {
    /// Never read.
    Unknown,
    /// Read at least once.
    Known(AssignedSlots),
}

/// The assigned workers of all slots of this supervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AssignedSlots {
    /// The assigned workers by port, at most one for each topology.
    pub(super) workers: BTreeMap<Port, Vec<DesiredWorker>>,
    /// Topologies that are assigned here but could not be read, with the error.
    pub(super) unreadable: BTreeMap<TopologyId, String>,
    /// True if the supervisor assignments do not exist although workers run here.
    pub(super) is_missing: bool,
}

impl AssignmentsState {
    /// The content that the slot at `port` should have, where `held` runs or should run now.
    pub(super) fn target(&self, port: Port, held: Option<&DesiredWorker>) -> Target {
        let Self::Known(known) = self else { return Target::Unknown };
        let here = known.workers.get(&port).map_or(&[][..], Vec::as_slice);
        if let Some(held) = held {
            if let Some(same) = here.iter().find(|desired| desired.is_same_worker(held)) {
                return Target::Worker(same.clone());
            }
            if known.unreadable.contains_key(&held.topology) {
                return Target::Unknown;
            }
        }
        // Two topologies in one slot are an error of the leader; the later one is the leader's
        // current decision.
        let latest = here.iter().max_by_key(|desired| (desired.worker.start, &desired.topology));
        latest.map_or(Target::Nothing, |desired| Target::Worker(desired.clone()))
    }

    /// Problems that need an operator.
    pub(super) fn problems(&self, own: &BTreeSet<Port>) -> Vec<String> {
        let Self::Known(known) = self else { return Vec::new() };
        let unreadable = known.unreadable.values().cloned();
        let missing = known.is_missing.then(|| {
            "the supervisor assignments do not exist: workers run on as the assignments of their topologies name them, \
             until a leader has written the supervisor assignments again"
                .to_owned()
        });
        let crowded =
            known.workers.iter().filter(|(_, here)| here.len() > 1).map(|(port, here)| {
                format!("{} topologies are assigned to the slot at port {port}", here.len())
            });
        let foreign = known.workers.keys().filter(|port| !own.contains(port));
        let foreign =
            foreign.map(|port| format!("port {port} is assigned but is not a port of this supervisor"));
        unreadable.chain(missing).chain(crowded).chain(foreign).collect()
    }
}

/// Reads the assignments of one supervisor for as long as it runs.
#[derive(Debug)]
pub(super) struct AssignmentsReader {
    store: Store,
    me: SupervisorId,
    period: Duration,
    /// Wakes the reader like the watch does.
    recheck: Arc<Notify>,
    /// The status of the supervisor, which names the topologies that run here.
    status: watch::Receiver<Status>,
    cached: BTreeMap<TopologyId, CachedAssignment>,
    /// Topologies that run here and are not named, with the time of the first read that showed it.
    unnamed: BTreeMap<TopologyId, Instant>,
}

/// The workers of one topology on this host, as last read.
#[derive(Debug)]
struct CachedAssignment {
    version: Version,
    workers: Vec<(Port, DesiredWorker)>,
}

/// Result of reading one topology.
enum ReadOutcome {
    Read(CachedAssignment),
    Gone,
    Unreadable(String),
}

/// Extent of one pass of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Reads the assignments whose version differs.
    Changed,
    /// Reads all assignments: versions prove nothing after the tree was lost and created again,
    /// nor for a znode that could not be read.
    Everything,
}

impl AssignmentsReader {
    /// Creates a reader that reads at least every `period`, and whenever `recheck` is notified.
    pub(super) fn new(
        store: Store,
        me: SupervisorId,
        period: Duration,
        recheck: Arc<Notify>,
        status: watch::Receiver<Status>,
    ) -> Self {
        Self { store, me, period, recheck, status, cached: BTreeMap::new(), unnamed: BTreeMap::new() }
    }

    /// Publishes the assignments whenever they changed. Ends only by being dropped.
    pub(super) async fn run(mut self, assignments: watch::Sender<AssignmentsState>) {
        let mut watcher = self.store.tree().watch(&layout::supervisor_assignments(&self.me), Scope::Node);
        let mut pass = tokio::time::interval(self.period);
        pass.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = RETRY.backoff();
        let mut retry_in = None;
        let mut outage = Outage::default();
        loop {
            let depth = tokio::select! {
                // Full passes come first, so that continuous changes cannot postpone them.
                biased;
                // Cancel-safe: a tick that is not returned is still due.
                _tick = pass.tick() => Depth::Everything,
                // Cancel-safe: a sleep has no state.
                () = tokio::time::sleep(retry_in.unwrap_or_default()), if retry_in.is_some() => Depth::Everything,
                // Cancel-safe: a change that is not returned stays pending.
                changes = watcher.changed() => match (changes, retry_in) {
                    (Changes::Paths(_), None) => Depth::Changed,
                    (Changes::Paths(_), Some(_)) | (Changes::Everything, _) => Depth::Everything,
                },
                // Cancel-safe: a notification that was not consumed stays pending.
                () = self.recheck.notified() => match retry_in {
                    None => Depth::Changed,
                    Some(_) => Depth::Everything,
                },
            };
            retry_in = match self.read(depth).await {
                Ok(known) => {
                    if let Some(lasted) = outage.ends() {
                        info!(?lasted, "read the supervisor assignments again");
                    }
                    let is_complete = known.unreadable.is_empty();
                    publish(&assignments, known);
                    (!is_complete).then(|| backoff.next_delay())
                }
                Err(error) => {
                    match error {
                        // The connection logs why there is none.
                        store::Error::Tree(tree::Error::Disconnected) => {
                            debug!("not connected to ZooKeeper; running workers stay");
                        }
                        error if outage.begins() => {
                            warn!(%error, "cannot read the supervisor assignments, trying again; running workers stay");
                        }
                        error => debug!(%error, "cannot read the supervisor assignments yet"),
                    }
                    Some(backoff.next_delay())
                }
            };
            if retry_in.is_none() {
                backoff.reset();
            }
        }
    }

    async fn read(&mut self, depth: Depth) -> Result<AssignedSlots, store::Error> {
        let record = self.store.supervisor_assignments(&self.me).await?;
        let is_missing = record.is_none();
        let named = |topologies: BTreeMap<TopologyId, Version>| -> BTreeMap<_, _> {
            topologies.into_iter().map(|(topology, version)| (topology, Some(version))).collect()
        };
        let topologies = match record {
            Some(record) => named(record.value.topologies),
            None => self.held(),
        };
        let is_missing = is_missing && !topologies.is_empty();
        let mut known = AssignedSlots { is_missing, ..AssignedSlots::default() };
        self.cached.retain(|topology, _| topologies.contains_key(topology));
        for (topology, version) in topologies {
            let cached = self.cached.get(&topology);
            let is_current = cached.is_some_and(|cached| Some(cached.version) == version);
            if depth == Depth::Everything || !is_current {
                match self.read_topology(&topology).await? {
                    ReadOutcome::Read(read) => _ = self.cached.insert(topology.clone(), read),
                    ReadOutcome::Gone => _ = self.cached.remove(&topology),
                    ReadOutcome::Unreadable(reason) => {
                        self.cached.remove(&topology);
                        known.unreadable.insert(topology.clone(), reason);
                    }
                }
            }
            for (port, desired) in self.cached.get(&topology).into_iter().flat_map(|cached| &cached.workers) {
                known.workers.entry(*port).or_default().push(desired.clone());
            }
        }
        self.read_unnamed(&mut known).await?;
        Ok(known)
    }

    /// Marks the topologies that run here, are not named by the supervisor assignments, and have workers
    /// here by their own assignment.
    async fn read_unnamed(&mut self, known: &mut AssignedSlots) -> Result<(), store::Error> {
        let is_named = |id: &TopologyId| self.cached.contains_key(id) || known.unreadable.contains_key(id);
        let held: BTreeSet<TopologyId> = self.held().into_keys().filter(|id| !is_named(id)).collect();
        self.unnamed.retain(|id, _| held.contains(id));
        for topology in held {
            let since = self.unnamed.get(&topology).copied();
            if since.is_some_and(|since| since.elapsed() >= UNNAMED_MAX) {
                continue;
            }
            let ReadOutcome::Read(read) = self.read_topology(&topology).await? else { continue };
            if read.workers.is_empty() {
                continue;
            }
            let reason = format!(
                "{} does not name the topology, although {} has workers here: they run on for a minute, until a \
                 leader has written it again",
                layout::supervisor_assignments(&self.me),
                layout::assignment(&topology)
            );
            self.unnamed.entry(topology.clone()).or_insert_with(Instant::now);
            known.unreadable.insert(topology, reason);
        }
        Ok(())
    }

    /// The topologies that run here or should run here, without versions of their assignments.
    fn held(&self) -> BTreeMap<TopologyId, Option<Version>> {
        let status = self.status.borrow();
        status.slots.values().filter_map(|slot| Some((slot.topology.clone()?, None))).collect()
    }

    /// Returns the result of reading a topology whose assignment does not exist.
    async fn read_unassigned(&self, topology: &TopologyId) -> Result<ReadOutcome, store::Error> {
        let path = layout::assignment(topology);
        Ok(match self.store.topology_record(topology).await {
            // The leader deletes the assignment of a killed topology, and its record last.
            Ok(None) => ReadOutcome::Gone,
            Ok(Some(record)) if record.value.status == TopologyStatus::Killed => ReadOutcome::Gone,
            Ok(Some(_)) => ReadOutcome::Unreadable(format!(
                "{path} does not exist, but the topology is not killed: its workers run on until a leader has placed it"
            )),
            Err(error) => return unreadable(error),
        })
    }

    /// Fails only when the tree does not respond.
    async fn read_topology(&self, topology: &TopologyId) -> Result<ReadOutcome, store::Error> {
        let assignment = match self.store.assignment(topology).await {
            Ok(Some(assignment)) => assignment,
            Ok(None) => return self.read_unassigned(topology).await,
            Err(error) => return unreadable(error),
        };
        let topology_record = match self.store.topology_record(topology).await {
            Ok(Some(topology_record)) => topology_record,
            Ok(None) => {
                let path = layout::storm(topology);
                return Ok(ReadOutcome::Unreadable(format!(
                    "{path} does not exist, but the topology is assigned"
                )));
            }
            Err(error) => return unreadable(error),
        };
        let desired = assignment.value.workers_of(&self.me).map(|(port, worker)| {
            let slot = Slot { supervisor: self.me.clone(), port };
            let blob = topology_record.value.blob_of(&slot, worker.start).clone();
            let topology = topology.clone();
            let owner = topology_record.value.owner.clone();
            (port, DesiredWorker { topology, worker: worker.clone(), blob, owner })
        });
        Ok(ReadOutcome::Read(CachedAssignment { version: assignment.version, workers: desired.collect() }))
    }
}

/// Returns the result of reading a topology with an error, if the error concerns its records alone.
fn unreadable(error: store::Error) -> Result<ReadOutcome, store::Error> {
    match error {
        store::Error::Unreadable(error) => Ok(ReadOutcome::Unreadable(error.to_string())),
        store::Error::Tree(error @ tree::Error::NotAuthorized { .. }) => {
            Ok(ReadOutcome::Unreadable(error.to_string()))
        }
        error @ store::Error::Tree(_) => Err(error),
    }
}

fn publish(assignments: &watch::Sender<AssignmentsState>, known: AssignedSlots) {
    let known = AssignmentsState::Known(known);
    if *assignments.borrow() == known {
        return;
    }
    if let AssignmentsState::Known(AssignedSlots { unreadable, .. }) = &known {
        for reason in unreadable.values() {
            warn!(reason, "the assignment of a topology is not clear; its running workers stay");
        }
    }
    assignments.send_replace(known);
}
