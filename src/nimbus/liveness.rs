//! Who is alive, by what this leader itself has seen in this term.
//!
//! A beat is an ephemeral znode: it exists or it does not. All times are of our own
//! monotonic clock, from when *we* first saw a change; no two machines' clocks are compared,
//! and nothing from before our term, or from before the connection was last lost, counts.
//!
//! The unit of loss is the worker: as long as one of its tasks beats its process lives, and
//! restarting its other tasks is its own business. So a healthy task is never touched on
//! account of a neighbour.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    clock::Monotonic,
    cluster::{layout, view::ClusterView},
    model::{
        BlobKey, Slot, SupervisorId, TaskId, Timestamp, TopologyId, assignment::AssignedWorker,
        task_set::TaskSet,
    },
    nimbus::{measure::is_of_daemons, policy::Policy},
};

/// What one leader has seen come and go.
#[derive(Debug, Clone)]
pub struct Liveness {
    term_began: Monotonic,
    /// When the term began or the connection last came back: nobody could show itself before.
    connected: Monotonic,
    interrupted: bool,
    topologies: BTreeMap<TopologyId, Seen>,
    /// Supervisors that have workers and are not there, since when.
    gone: BTreeMap<SupervisorId, Monotonic>,
    /// Topologies with beats and without an assignment, since when.
    unassigned: BTreeMap<TopologyId, Monotonic>,
    /// Blobs that nobody holds, since when.
    unheld: BTreeMap<BlobKey, Monotonic>,
    /// Topologies without a record of their own that have others, since when.
    orphans: BTreeMap<TopologyId, Monotonic>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    /// When each worker, told apart by its start, was first seen assigned.
    placed: BTreeMap<Slot, (Timestamp, Monotonic)>,
    /// Since when each assigned task that does not beat has been silent.
    silent: BTreeMap<TaskId, Monotonic>,
}

/// How a worker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// At least one of its tasks beats.
    Alive,
    /// None of its tasks beats, and it is too early to say why.
    Unknown {
        /// When it is given up if it stays so.
        until: Monotonic,
    },
    /// It is given up.
    Lost(Loss),
}

/// Why a worker is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// Its supervisor has been gone too long, and its tasks do not beat.
    #[error("its supervisor has been gone for {0:?}")]
    SupervisorGone(Duration),
    /// Its supervisor is there, and none of its tasks beats.
    #[error("none of its tasks has beaten for {0:?}")]
    Silent(Duration),
}

impl Liveness {
    /// The knowledge of a leader whose term begins `now`: none.
    pub fn new(now: Monotonic) -> Self {
        Self {
            term_began: now,
            connected: now,
            interrupted: false,
            topologies: BTreeMap::new(),
            gone: BTreeMap::new(),
            unassigned: BTreeMap::new(),
            unheld: BTreeMap::new(),
            orphans: BTreeMap::new(),
        }
    }

    /// Notes that the tree cannot be reached. What is missing in the next view may be
    /// missing because nobody could register: every timer then starts afresh.
    pub fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// Takes in a fresh view.
    pub fn observe(&mut self, view: &ClusterView, now: Monotonic) {
        #[cfg(any(test, feature = "test-support"))]
        let now = self.sabotaged(now);
        if std::mem::take(&mut self.interrupted) {
            self.connected = now;
        }
        // An assignment that cannot be read may still be the one we know.
        self.topologies
            .retain(|id, _| view.assignments.contains_key(id) || view.is_unreadable(&layout::assignment(id)));
        let nobody = TaskSet::default();
        for (id, assignment) in &view.assignments {
            let beats = view.beats.get(id).unwrap_or(&nobody);
            self.topologies.entry(id.clone()).or_default().observe(&assignment.value.workers, beats, now);
        }
        let needed = view.assignments.values().flat_map(|assignment| assignment.value.supervisors());
        let gone = needed
            .filter(|id| !view.supervisors.contains_key(*id) && !view.is_unreadable(&layout::supervisor(id)));
        keep_first(&mut self.gone, gone, now);
        let unassigned = view
            .beats
            .iter()
            .filter(|(id, beats)| !beats.is_empty() && !view.assignments.contains_key(*id))
            .map(|(id, _)| id);
        keep_first(&mut self.unassigned, unassigned, now);
        let unheld = view.blobs.iter().filter(|(_, holders)| holders.is_empty()).map(|(key, _)| key);
        keep_first(&mut self.unheld, unheld, now);
        let orphans = orphans(view);
        keep_first(&mut self.orphans, orphans.iter(), now);
    }

    /// A bug that can be put in on purpose: what is not there at the first look has not been
    /// there for as long as this process runs, and nobody needs time to come back.
    #[cfg(any(test, feature = "test-support"))]
    fn sabotaged(&mut self, now: Monotonic) -> Monotonic {
        use crate::test_support::sabotage::{Sabotage, is_put_in};
        let is_first = self.topologies.is_empty();
        match is_put_in(Sabotage::LivenessFromBefore) && is_first {
            true => {
                (self.term_began, self.connected) = (Monotonic::START, Monotonic::START);
                Monotonic::START
            }
            false => now,
        }
    }

    /// How the worker of `id` in `slot` is.
    pub fn worker(
        &self,
        id: &TopologyId,
        slot: &Slot,
        worker: &AssignedWorker,
        now: Monotonic,
        policy: &Policy,
    ) -> Verdict {
        let seen = self.topologies.get(id);
        let silent_since = |task| seen.and_then(|seen| seen.silent.get(&task)).copied();
        let mut last = None;
        for task in worker.tasks.iter() {
            match silent_since(task) {
                Some(since) => last = last.max(Some(since)),
                None => return Verdict::Alive,
            }
        }
        let silent = last.unwrap_or(now).max(self.connected);
        let settled = self.connected.plus(policy.settle);
        if let Some(gone) = self.gone.get(&slot.supervisor) {
            let gone = (*gone).max(self.connected);
            let until = gone.plus(policy.supervisor_timeout).max(settled);
            return match now >= until {
                true => Verdict::Lost(Loss::SupervisorGone(now.since(gone))),
                false => Verdict::Unknown { until },
            };
        }
        let placed = seen.and_then(|seen| seen.placed.get(slot)).map_or(now, |(_, placed)| *placed);
        let until = (placed.max(self.term_began).plus(policy.task_launch))
            .max(silent.plus(policy.task_timeout))
            .max(settled);
        match now >= until {
            true => Verdict::Lost(Loss::Silent(now.since(silent))),
            false => Verdict::Unknown { until },
        }
    }

    /// When the beats of a topology without an assignment are those of workers that do not
    /// stop, and may be removed.
    pub fn beats_end(&self, id: &TopologyId, now: Monotonic, policy: &Policy) -> Monotonic {
        let since = self.unassigned.get(id).copied().unwrap_or(now);
        since.max(self.connected).plus(policy.task_timeout)
    }

    /// The topologies without a record that have others, and since when.
    pub fn orphans(&self) -> impl Iterator<Item = (&TopologyId, Monotonic)> {
        self.orphans.iter().map(|(id, since)| (id, (*since).max(self.connected)))
    }

    /// Since when nobody has held a blob.
    pub fn unheld_since(&self, key: &BlobKey) -> Option<Monotonic> {
        self.unheld.get(key).map(|since| (*since).max(self.connected))
    }
}

impl Seen {
    fn observe(&mut self, workers: &BTreeMap<Slot, AssignedWorker>, beats: &TaskSet, now: Monotonic) {
        self.placed.retain(|slot, _| workers.contains_key(slot));
        let mut silent = BTreeMap::new();
        for (slot, worker) in workers {
            let placed = self.placed.entry(slot.clone()).or_insert((worker.start, now));
            if placed.0 != worker.start {
                *placed = (worker.start, now);
            }
            for task in worker.tasks.iter().filter(|task| !beats.contains(*task)) {
                silent.insert(task, self.silent.get(&task).copied().unwrap_or(now));
            }
        }
        self.silent = silent;
    }
}

/// The topologies whose record is not there, while others of them are.
fn orphans(view: &ClusterView) -> BTreeSet<TopologyId> {
    let roots =
        [layout::assignments(), layout::tasks_root(), layout::taskbeats_root(), layout::metrics_root()];
    let unreadable = (view.unreadable.keys())
        .filter(|path| path.parent().is_some_and(|parent| roots.contains(&parent)))
        .filter_map(|path| path.name().parse().ok());
    let readable = (view.assignments.keys())
        .chain(view.tasks.keys())
        .chain(view.beats.keys())
        .chain(&view.errors)
        .chain(view.metrics.keys());
    readable
        .cloned()
        .chain(unreadable)
        .filter(|id| {
            !is_of_daemons(id) && !view.storms.contains_key(id) && !view.is_unreadable(&layout::storm(id))
        })
        .collect()
}

/// Makes the keys of `since` those of `keys`, each with the time it came in.
fn keep_first<'a, K: Ord + Clone + 'a>(
    since: &mut BTreeMap<K, Monotonic>,
    keys: impl Iterator<Item = &'a K>,
    now: Monotonic,
) {
    let mut kept = BTreeMap::new();
    for key in keys {
        kept.insert(key.clone(), since.get(key).copied().unwrap_or(now));
    }
    *since = kept;
}
