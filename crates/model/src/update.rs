//! An update of a running topology: another package under the same id, a few workers at a time.

use serde::{Deserialize, Serialize};

use crate::{BlobKey, Slot, Timestamp, WorkerId, assignment::Assignment};

/// Most workers of an update that may start at a time.
pub const AT_ONCE_MAX: u32 = 100;

/// The package that workers leave, and what of the topology record goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerPackage {
    /// Its blob.
    pub blob: BlobKey,
    /// Its bytes, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_bytes: Option<u64>,
    /// Message timeout of its topology.
    pub message_timeout_secs: u64,
}

/// A worker of an assignment: a worker that is placed again, or replaced, has another start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedWorker {
    /// Its slot.
    pub slot: Slot,
    /// The time at which it was placed there, as in the assignment.
    #[serde(rename = "start_ms")]
    pub start: Timestamp,
    /// The launch that it replaces, if that ran: heartbeats of it say nothing about this worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<WorkerId>,
}

/// An update that is under way. The topology record has the package that workers get; a worker that is placed
/// for another reason gets it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The package that workers leave. If the update goes back, this is the one that failed.
    pub former: FormerPackage,
    /// Workers with the package that is left, the next one first.
    pub left: Vec<PlacedWorker>,
    /// Number of workers to replace in all, in the present direction.
    pub total: usize,
    /// Workers that may start at a time, once the first one runs. One drains at a time: tuples between two
    /// workers that drain would reach neither.
    pub at_once: u32,
    /// Worker that drains before it is replaced, until the deadline in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<Turn>,
    /// Workers that were replaced and must run for a while. At its deadline, one has failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starting: Vec<Turn>,
    /// Reason for which the update goes back to the package that the topology had, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A worker whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The worker.
    pub worker: PlacedWorker,
    /// End of the turn, by the clock of the leader that began it.
    #[serde(rename = "deadline_ms")]
    pub deadline: Timestamp,
}

impl PlacedWorker {
    /// Returns the workers of an assignment.
    pub fn all_of(assignment: &Assignment) -> impl Iterator<Item = Self> {
        let of = |(slot, worker): (&Slot, &crate::assignment::AssignedWorker)| Self {
            slot: slot.clone(),
            start: worker.start,
            replaces: None,
        };
        assignment.workers.iter().map(of)
    }

    /// Returns whether an assignment has this worker.
    pub fn is_in(&self, assignment: &Assignment) -> bool {
        assignment.workers.get(&self.slot).is_some_and(|worker| worker.start == self.start)
    }

    /// Returns whether both are the same worker.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.slot, self.start) == (&other.slot, other.start)
    }
}

impl Update {
    /// Returns the workers whose turn it is.
    pub fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.draining.iter().chain(&self.starting)
    }

    /// Returns the deadline until which the worker in `slot` drains, if it is its turn.
    pub fn drains(&self, slot: &Slot, start: Timestamp) -> Option<Timestamp> {
        let turn = self.draining.as_ref()?;
        (turn.worker.slot == *slot && turn.worker.start == start).then_some(turn.deadline)
    }

    /// Returns whether a worker still has the package that is left, and should if it starts again. An update
    /// that goes back starts no worker with the package that failed.
    pub fn keeps_former(&self, slot: &Slot, start: Timestamp) -> bool {
        self.failure.is_none() && self.left.iter().any(|left| left.slot == *slot && left.start == start)
    }

    /// Returns the number of workers that were replaced, in the present direction.
    pub fn n_replaced(&self) -> usize {
        self.total.saturating_sub(self.left.len())
    }

    /// Returns the number of those that run.
    pub fn n_steady(&self) -> usize {
        self.n_replaced().saturating_sub(self.starting.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(port: u16, start: u64) -> PlacedWorker {
        let slot = Slot { supervisor: "s1".parse().expect("valid"), port: crate::Port(port) };
        PlacedWorker { slot, start: Timestamp::from_millis(start), replaces: None }
    }

    fn update(failure: Option<&str>) -> Update {
        let (first, second) = (worker(6700, 1), worker(6701, 1));
        let former = FormerPackage { blob: BlobKey::of(b"x"), blob_bytes: None, message_timeout_secs: 30 };
        let deadline = Timestamp::from_millis(9);
        let draining = Some(Turn { worker: first.clone(), deadline });
        let failure = failure.map(str::to_owned);
        let left = vec![first, second];
        Update { former, left, total: 3, at_once: 1, draining, starting: Vec::new(), failure }
    }

    #[test]
    fn only_the_worker_whose_turn_it_is_drains_and_no_later_one_in_its_slot() {
        let update = update(None);
        let slot = worker(6700, 1).slot;
        assert_eq!(update.drains(&slot, Timestamp::from_millis(1)), Some(Timestamp::from_millis(9)));
        assert_eq!(update.drains(&slot, Timestamp::from_millis(2)), None);
        assert_eq!(update.drains(&worker(6701, 1).slot, Timestamp::from_millis(1)), None);
        assert_eq!(update.n_replaced(), 1);
    }

    #[test]
    fn worker_that_is_left_starts_again_with_its_package_unless_that_failed() {
        let (slot, start) = (worker(6701, 1).slot, Timestamp::from_millis(1));
        assert!(update(None).keeps_former(&slot, start));
        assert!(!update(None).keeps_former(&slot, Timestamp::from_millis(2)));
        assert!(!update(Some("it dies")).keeps_former(&slot, start));
    }
}
