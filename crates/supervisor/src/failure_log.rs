//! Recent failures on this host, as the supervisor reports them in its record: launches and code that
//! failed, and what started again and again. Pure.

use std::{collections::BTreeMap, time::Duration};

use crate::slot::DesiredWorker;
use stormkeeper_coordination::cluster::failure::{FAILURES_MAX, FailureKind, ReportedFailure};
use stormkeeper_model::{
    ComponentId, Port, Timestamp, TopologyId,
    clock::Monotonic,
    restarts::{RESTARTS_TOLERATED, RestartHistory, one_line},
};
use stormkeeper_topology_package::worker_restarts::WorkerRestarts;

/// Number of failed attempts of one placement after which it counts as one that this supervisor
/// cannot bring up. The attempts are a second, then two, then four apart.
pub(super) const ATTEMPTS_OF_PLACEMENT: u32 = 3;

/// Number of failed launches that are reported: the first is often followed by a success.
const LAUNCHES_REPORTED_MIN: u32 = 2;

/// Minimum time between two reports that only forget failures.
const FORGET_PERIOD: Duration = Duration::from_secs(60);

/// Maximum number of things with a history; the one that failed least recently is forgotten.
const HISTORIES_MAX: usize = 256;

/// The failures of one supervisor within the window.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    histories: BTreeMap<Thing, History>,
    components: BTreeMap<Port, (TopologyId, WorkerRestarts)>,
    reported: Vec<ReportedFailure>,
    reported_at: Option<Monotonic>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Thing {
    kind: FailureKind,
    port: Port,
    topology: TopologyId,
}

#[derive(Debug, Default)]
struct History {
    failures: RestartHistory,
    everywhere: bool,
    /// The placement of the last failure, and the number of its failures.
    placed: Option<(Timestamp, u32)>,
}

impl FailureLog {
    /// Adds a launch of a worker that failed or ended before its first heartbeat.
    pub(super) fn launch_failed(
        &mut self,
        port: Port,
        desired: &DesiredWorker,
        reason: &str,
        now: Monotonic,
    ) {
        self.add(FailureKind::Launch, port, desired, (reason, false), now);
    }

    /// Adds a launch that failed or ended early for a reason that may be in the topology.
    pub(super) fn topology_failed(
        &mut self,
        port: Port,
        desired: &DesiredWorker,
        reason: &str,
        now: Monotonic,
    ) {
        self.add(FailureKind::Topology, port, desired, (reason, false), now);
    }

    /// Adds a failed attempt to bring the code of a worker to this host; `everywhere` if it would fail
    /// on any other host.
    pub(super) fn code_failed(
        &mut self,
        port: Port,
        desired: &DesiredWorker,
        (reason, everywhere): (&str, bool),
        now: Monotonic,
    ) {
        self.add(FailureKind::Code, port, desired, (reason, everywhere), now);
    }

    /// Adds the end of a worker that ran and is launched again.
    pub(super) fn worker_ended(&mut self, port: Port, desired: &DesiredWorker, reason: &str, now: Monotonic) {
        self.add(FailureKind::Worker, port, desired, (reason, false), now);
    }

    fn add(
        &mut self,
        kind: FailureKind,
        port: Port,
        desired: &DesiredWorker,
        (reason, everywhere): (&str, bool),
        now: Monotonic,
    ) {
        let thing = Thing { kind, port, topology: desired.topology.clone() };
        if !self.histories.contains_key(&thing) && self.histories.len() >= HISTORIES_MAX {
            let oldest = self.histories.iter().min_by_key(|(_, history)| history.failures.last());
            if let Some(oldest) = oldest.map(|(thing, _)| thing.clone()) {
                self.histories.remove(&oldest);
            }
        }
        let history = self.histories.entry(thing).or_default();
        history.failures.add(now, reason);
        history.everywhere = everywhere;
        let start = desired.worker.start;
        let n_before = history.placed.filter(|(placed, _)| *placed == start).map_or(0, |(_, n)| n);
        history.placed = Some((start, n_before.saturating_add(1)));
    }

    /// Sets the restarts of the components of the worker in a slot, as read from its file.
    pub(super) fn set_components(&mut self, port: Port, topology: &TopologyId, restarts: WorkerRestarts) {
        self.components.insert(port, (topology.clone(), restarts));
    }

    /// Forgets the components of slots without a worker.
    pub(super) fn retain_components(&mut self, has_worker: impl Fn(Port) -> bool) {
        self.components.retain(|port, _| has_worker(*port));
    }

    /// Returns the failures to report, if they must be written now: at once if there is a new one or
    /// one was counted up, otherwise once in a while.
    pub(super) fn report(&mut self, n_starts: u32, now: Monotonic) -> Option<&[ReportedFailure]> {
        let current = self.current(n_starts, now);
        if current == self.reported {
            return None;
        }
        let is_known = |new: &ReportedFailure| {
            let same = |old: &&ReportedFailure| key(old) == key(new);
            self.reported.iter().find(same).is_some_and(|old| new.n <= old.n && new.placed == old.placed)
        };
        let is_over = self.reported_at.is_none_or(|at| now.since(at) >= FORGET_PERIOD);
        if current.iter().all(is_known) && !is_over {
            return None;
        }
        (self.reported, self.reported_at) = (current, Some(now));
        Some(&self.reported)
    }

    fn current(&mut self, n_starts: u32, now: Monotonic) -> Vec<ReportedFailure> {
        let mut failures = Vec::new();
        if n_starts > RESTARTS_TOLERATED {
            failures.push(failure(FailureKind::Supervisor, n_starts, NOT_STOPPED));
        }
        self.histories.retain(|thing, history| {
            let n = history.failures.count(now);
            let is_launch = thing.kind.is_start();
            let n_min = if is_launch { LAUNCHES_REPORTED_MIN } else { RESTARTS_TOLERATED + 1 };
            if n >= n_min {
                let placed = history.placed.filter(|(_, n)| is_launch && *n >= ATTEMPTS_OF_PLACEMENT);
                failures.push(ReportedFailure {
                    port: Some(thing.port),
                    topology: Some(thing.topology.clone()),
                    placed: placed.map(|(start, _)| start),
                    everywhere: history.everywhere,
                    ..failure(thing.kind, n, history.failures.reason())
                });
            }
            n > 0
        });
        // The kinds in their order, and of each kind those that failed most.
        failures.sort_by(|a, b| (a.kind, b.n, key(a)).cmp(&(b.kind, a.n, key(b))));
        failures.extend(self.of_components());
        failures.truncate(FAILURES_MAX);
        failures
    }

    /// Components that start again and again: the worst of each worker before the second of any. A
    /// component may have written the file of its worker, and must not fill the list alone.
    fn of_components(&self) -> Vec<ReportedFailure> {
        let mut ranked = Vec::new();
        for (port, (topology, restarts)) in &self.components {
            let again = restarts.components.iter().filter(|it| it.n > RESTARTS_TOLERATED);
            let mut of_worker: BTreeMap<&ComponentId, ReportedFailure> = BTreeMap::new();
            for it in again {
                of_worker.entry(&it.component).or_insert_with(|| ReportedFailure {
                    port: Some(*port),
                    topology: Some(topology.clone()),
                    component: Some(it.component.clone()),
                    ..failure(FailureKind::Component, it.n, &it.reason)
                });
            }
            let mut of_worker: Vec<ReportedFailure> = of_worker.into_values().collect();
            of_worker.sort_by_key(|failure| std::cmp::Reverse(failure.n));
            ranked.extend(of_worker.into_iter().enumerate());
        }
        ranked.sort_by_key(|(rank, failure)| (*rank, std::cmp::Reverse(failure.n)));
        ranked.into_iter().map(|(_, failure)| failure).collect()
    }
}

const NOT_STOPPED: &str =
    "its last run ended without a stop: it crashed, or it was killed, for example for memory";

fn failure(kind: FailureKind, n: u32, reason: &str) -> ReportedFailure {
    ReportedFailure::new(kind, n, one_line(reason))
}

type Key<'a> = (FailureKind, Option<Port>, Option<&'a TopologyId>, Option<&'a ComponentId>);

fn key(failure: &ReportedFailure) -> Key<'_> {
    (failure.kind, failure.port, failure.topology.as_ref(), failure.component.as_ref())
}

#[cfg(test)]
#[path = "failure_log_tests.rs"]
mod tests;
