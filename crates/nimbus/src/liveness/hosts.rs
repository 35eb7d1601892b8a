//! Lost hosts: a supervisor and all of its workers are gone, and nobody announced it.
//!
//! The registration of a supervisor and the heartbeats of its workers belong to the sessions of
//! different processes. If all of them have expired, the host is down or cut off, and its tasks
//! need not wait for [`Policy::supervisor_timeout`]. They do wait if
//!
//! - the supervisor has announced its stop, and so may be restarting with its workers,
//! - the supervisor is of a build that does not announce stops,
//! - more than [`Policy::lost_hosts_share_max`] of the supervisors have vanished together: the cause
//!   is then between the hosts and ZooKeeper, and the hosts may be well, or
//! - the leader has had its connection for too short a time to know who comes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::policy::Policy;
use stormkeeper_coordination::cluster::{layout, view::ClusterView};
use stormkeeper_model::{SupervisorId, TopologyId, clock::Monotonic};

/// Time for which a host must be gone before it is lost. A process whose session has expired while
/// it was cut off for a moment opens a new one within this time.
const GONE_FOR: Duration = Duration::from_millis(500);

/// Shortest time with a connection after which an absence counts. A daemon that lost ZooKeeper at
/// the same time as this nimbus pauses for up to 5 s between two attempts to connect, and for as
/// long again if the first registration fails.
const RECONNECT: Duration = Duration::from_secs(10);

/// Time after which an absent supervisor without tasks is forgotten.
const KEPT: Duration = Duration::from_secs(600);

/// Time for which a supervisor without tasks that has vanished is part of the cluster to which a
/// new term belongs.
const RECENT: Duration = Duration::from_secs(30);

/// The supervisors that are registered, that have assigned workers, or that were registered a
/// short time ago.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts {
    known: BTreeMap<SupervisorId, Host>,
}

#[derive(Debug, Clone, Default)]
struct Host {
    /// True if the supervisor announces its stops, according to its last registration.
    announces_stop: bool,
    /// Time since which it is not registered.
    absent_since: Option<Monotonic>,
    /// True if it has announced the stop after which it is absent.
    has_stopped: bool,
    /// True if it has assigned workers.
    is_needed: bool,
    /// Time since which none of its workers has had a heartbeat.
    silent_since: Option<Monotonic>,
}

/// An absent supervisor that has assigned workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsentSupervisor<'a> {
    /// The supervisor.
    pub supervisor: &'a SupervisorId,
    /// Time since which it is absent, or since which this leader knows.
    pub since: Monotonic,
    /// True if it has announced its stop.
    pub has_stopped: bool,
    /// True if none of its workers has a heartbeat.
    pub is_silent: bool,
}

/// Number of supervisors that vanished together, if they are more than the policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VanishedTogether {
    /// Supervisors that vanished.
    pub n_vanished: usize,
    /// All supervisors.
    pub n_supervisors: usize,
}

impl Hosts {
    /// Returns the supervisors that announce their stops, except those that are gone for good.
    pub(super) fn announcers(&self, now: Monotonic) -> impl Iterator<Item = &SupervisorId> {
        let is_recent = move |host: &Host| {
            host.is_needed || host.absent_since.is_none_or(|since| now.since(since) < RECENT)
        };
        self.known.iter().filter(move |(_, host)| host.announces_stop && is_recent(host)).map(|(id, _)| id)
    }

    /// Adds supervisors that announce their stops, as this nimbus saw before its term.
    pub(super) fn add_announcers(&mut self, announcers: &BTreeSet<SupervisorId>) {
        for id in announcers {
            self.known.entry(id.clone()).or_default().announces_stop = true;
        }
    }

    /// Updates the states from a fresh view.
    pub(super) fn observe(&mut self, view: &ClusterView, now: Monotonic) {
        let is_silent = silent_by_supervisor(view);
        for (id, record) in &view.supervisors {
            self.host(id).announces_stop = record.announces_stop;
        }
        for id in is_silent.keys() {
            self.host(id);
        }
        for (id, host) in &mut self.known {
            // A registration that cannot be read may belong to a supervisor that runs.
            let is_here = view.supervisors.contains_key(id) || view.is_unreadable(&layout::supervisor(id));
            host.absent_since = (!is_here).then(|| host.absent_since.unwrap_or(now));
            host.has_stopped = !is_here
                && (view.stopped_supervisors.contains_key(id)
                    || view.is_unreadable(&layout::stopped_supervisor(id)));
            host.is_needed = is_silent.contains_key(id);
            let is_silent = is_silent.get(id).copied().unwrap_or_default();
            host.silent_since = is_silent.then(|| host.silent_since.unwrap_or(now));
        }
        self.known.retain(|_, host| {
            host.is_needed || host.absent_since.is_none_or(|since| now.since(since) < KEPT)
        });
    }

    /// Returns the state of a host, which is new if the supervisor is not known yet.
    fn host(&mut self, id: &SupervisorId) -> &mut Host {
        // Without this look, an id would be copied for each supervisor and round.
        if !self.known.contains_key(id) {
            self.known.insert(id.clone(), Host::default());
        }
        self.known.get_mut(id).expect("it is known")
    }

    /// Time at which the workers of `id` are lost with their host. `None` if the loss of its host
    /// does not follow from what is seen now.
    pub(super) fn lost_at(
        &self,
        id: &SupervisorId,
        connected_since: Monotonic,
        now: Monotonic,
        policy: &Policy,
    ) -> Option<Monotonic> {
        let host = self.known.get(id)?;
        let (absent_since, silent_since) = (host.absent_since?, host.silent_since?);
        let has_stopped = host.has_stopped && !ignores_stops();
        if has_stopped
            || !host.announces_stop
            || self.vanished_together(connected_since, now, policy).is_some()
        {
            return None;
        }
        let gone_since = absent_since.max(silent_since).max(connected_since);
        Some(gone_since.plus(GONE_FOR).max(connected_since.plus(policy.settle.max(RECONNECT))))
    }

    /// The supervisors that vanished together, if they are too many to treat their hosts as lost.
    pub(super) fn vanished_together(
        &self,
        connected_since: Monotonic,
        now: Monotonic,
        policy: &Policy,
    ) -> Option<VanishedTogether> {
        let (mut n_vanished, mut n_supervisors) = (0, 0);
        for host in self.known.values() {
            let timeout = policy.supervisor_timeout;
            match host.vanished_since(connected_since, timeout) {
                None => n_supervisors += 1,
                Some(since) if now.since(since) < timeout => {
                    n_supervisors += 1;
                    n_vanished += usize::from(!host.has_stopped);
                }
                // It has been away for longer, and is no part of what happens now.
                Some(_) => {}
            }
        }
        let is_over = !policy.lost_hosts_share_max.allows(n_vanished, n_supervisors);
        is_over.then_some(VanishedTogether { n_vanished, n_supervisors })
    }

    /// The absent supervisors that have assigned workers.
    pub(super) fn absent(&self, connected_since: Monotonic) -> impl Iterator<Item = AbsentSupervisor<'_>> {
        let needed = self.known.iter().filter(|(_, host)| host.is_needed);
        needed.filter_map(move |(supervisor, host)| {
            Some(AbsentSupervisor {
                supervisor,
                since: host.absent_since?.max(connected_since),
                has_stopped: host.has_stopped,
                is_silent: host.silent_since.is_some(),
            })
        })
    }
}

impl Host {
    /// Time since which the supervisor is absent. It begins again with the connection, except for a
    /// supervisor that was gone for good before.
    fn vanished_since(&self, connected_since: Monotonic, timeout: Duration) -> Option<Monotonic> {
        let since = self.absent_since?;
        let begins_again = self.is_needed || connected_since.since(since) < timeout;
        Some(if begins_again { since.max(connected_since) } else { since })
    }
}

/// Returns, for each supervisor with assigned workers, whether all of them are without heartbeats.
fn silent_by_supervisor(view: &ClusterView) -> BTreeMap<&SupervisorId, bool> {
    let mut is_silent = BTreeMap::new();
    for (id, assignment) in &view.assignments {
        let heartbeats = view.heartbeats.get(id);
        for (slot, worker) in &assignment.value.workers {
            // Without the parent of the heartbeats, no worker can have one.
            let is_worker_silent = heartbeats
                .is_some_and(|heartbeats| !worker.tasks.iter().any(|task| heartbeats.contains(task)));
            let all = is_silent.entry(&slot.supervisor).or_insert(true);
            *all &= is_worker_silent;
        }
    }
    // An assignment that cannot be read may contain a worker that is alive.
    let is_hidden = |id: &TopologyId| view.is_unreadable(&layout::assignment(id));
    for (supervisor, all) in is_silent.iter_mut().filter(|(_, all)| **all) {
        let named = view.supervisor_assignments.get(*supervisor);
        let is_any_hidden = named.is_some_and(|named| named.value.topologies.keys().any(is_hidden))
            || view.is_unreadable(&layout::supervisor_assignments(supervisor));
        *all = !is_any_hidden;
    }
    is_silent
}

/// True if the bug of treating an announced stop as a loss is injected.
#[cfg(feature = "injected-bugs")]
fn ignores_stops() -> bool {
    use stormkeeper_runtime::injected_bugs::{InjectedBug, is_injected};
    is_injected(InjectedBug::IgnoresStops)
}

#[cfg(not(feature = "injected-bugs"))]
const fn ignores_stops() -> bool {
    false
}
