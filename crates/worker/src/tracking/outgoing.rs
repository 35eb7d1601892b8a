//! Changes that wait to be sent to the tracker of one other worker.
//!
//! Adding never waits: a bolt that had to wait until its acks were sent could be what the receiver waits
//! for. Acks of one tree are merged, so that what waits is bounded by the trees in flight; beyond
//! [`WAITING_MAX`], which takes a worker that is away for long, changes are dropped and counted, and
//! their trees end by their timeout.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::{News, message::Changes, roots::RootMap};
use stormkeeper_model::TaskId;

/// Limit of changes that wait: some 24 MB.
const WAITING_MAX: usize = 1 << 20;

/// Number of changes in one message.
const MESSAGE_CHANGES: usize = 1024;

/// Changes for one worker. Shared by all tasks of this worker and the task that sends them.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    waiting: Mutex<Waiting>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    // Edges of acked deliveries by root.
    acked: RootMap<u64>,
    others: Changes,
    n_dropped: u64,
}

/// A change for the tracker of another worker.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Begun { root: u64, spout: TaskId, edges: u64 },
    Acked { root: u64, edges: u64 },
    Failed { root: u64 },
    Reset { root: u64 },
    Told { spout: TaskId, root: u64, news: News },
}

impl Outgoing {
    /// Adds changes. Returns the number that was dropped so far if this call dropped some.
    pub(super) fn add(&self, changes: impl IntoIterator<Item = Change>) -> Option<u64> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waiting.n_dropped;
        for change in changes {
            waiting.add(change);
        }
        let n_dropped = waiting.n_dropped;
        drop(waiting);
        self.added.notify_one();
        (n_dropped > before).then_some(n_dropped)
    }

    /// Returns the next message, at once or when something is added.
    ///
    /// # Cancellation safety
    /// A call that is dropped has taken nothing.
    pub(super) async fn next(&self) -> Changes {
        loop {
            let added = self.added.notified();
            if let Some(changes) = self.take() {
                return changes;
            }
            added.await;
        }
    }

    fn take(&self) -> Option<Changes> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { acked, others, .. } = &mut *waiting;
        let mut room = MESSAGE_CHANGES;
        let changes = Changes {
            begun: take_last(&mut others.begun, &mut room),
            acked: take_any(acked, &mut room),
            failed: take_last(&mut others.failed, &mut room),
            reset: take_last(&mut others.reset, &mut room),
            told: take_last(&mut others.told, &mut room),
        };
        (room < MESSAGE_CHANGES).then_some(changes)
    }
}

impl Waiting {
    fn add(&mut self, change: Change) {
        if let Change::Acked { root, edges } = change
            && let Some(waiting) = self.acked.get_mut(&root)
        {
            *waiting ^= edges;
            return;
        }
        let Changes { begun, failed, reset, told, .. } = &mut self.others;
        if self.acked.len() + begun.len() + failed.len() + reset.len() + told.len() >= WAITING_MAX {
            self.n_dropped += 1;
            return;
        }
        match change {
            Change::Begun { root, spout, edges } => begun.push((root, spout, edges)),
            Change::Acked { root, edges } => drop(self.acked.insert(root, edges)),
            Change::Failed { root } => failed.push(root),
            Change::Reset { root } => reset.push(root),
            Change::Told { spout, root, news } => told.push((spout, root, news)),
        }
    }
}

/// Takes at most `room` elements, in no order: an outcome depends on none.
fn take_last<T>(list: &mut Vec<T>, room: &mut usize) -> Vec<T> {
    let taken = list.split_off(list.len() - list.len().min(*room));
    *room -= taken.len();
    taken
}

fn take_any(map: &mut RootMap<u64>, room: &mut usize) -> Vec<(u64, u64)> {
    if map.len() <= *room {
        *room -= map.len();
        return map.drain().collect();
    }
    let roots: Vec<u64> = map.keys().copied().take(*room).collect();
    *room -= roots.len();
    roots.into_iter().filter_map(|root| map.remove_entry(&root)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_of_one_tree_are_merged_and_nothing_is_lost_between_messages() {
        let outgoing = Outgoing::default();
        assert!(outgoing.take().is_none());
        for n in 0..2 {
            let acks = (0..2000).map(|root| Change::Acked { root, edges: 1 << n });
            assert_eq!(outgoing.add(acks), None);
        }
        outgoing.add((0..100).map(|root| Change::Failed { root }));
        let (mut acked, mut n_failed, mut n_messages) = (Vec::new(), 0, 0);
        while let Some(changes) = outgoing.take() {
            assert!(changes.acked.len() + changes.failed.len() <= MESSAGE_CHANGES);
            acked.extend(changes.acked);
            n_failed += changes.failed.len();
            n_messages += 1;
        }
        acked.sort_unstable();
        assert_eq!(acked, (0..2000).map(|root| (root, 3)).collect::<Vec<_>>());
        assert_eq!((n_failed, n_messages), (100, 3));
    }

    #[test]
    fn changes_beyond_the_limit_are_dropped_and_counted() {
        let outgoing = Outgoing::default();
        let acks = |range: std::ops::Range<u64>| range.map(|root| Change::Acked { root, edges: 1 });
        assert_eq!(outgoing.add(acks(0..WAITING_MAX as u64)), None);
        assert_eq!(outgoing.add([Change::Failed { root: 1 }]), Some(1));
        assert_eq!(outgoing.add([Change::Acked { root: 5, edges: 2 }]), None, "merged");
        assert!(outgoing.take().is_some());
        assert_eq!(outgoing.add([Change::Reset { root: 1 }]), None);
    }

    #[tokio::test]
    async fn next_message_comes_when_something_is_added() {
        let outgoing = Outgoing::default();
        let told = (TaskId(3), 9, News::TimeoutReset);
        let add = async {
            tokio::task::yield_now().await;
            outgoing.add([Change::Told { spout: told.0, root: told.1, news: told.2 }]);
        };
        let (changes, ()) = tokio::join!(outgoing.next(), add);
        assert_eq!(changes, Changes { told: vec![told], ..Changes::default() });
    }
}
