//! The workers of the assignment, the only ones whose connections are accepted.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use stormkeeper_model::{Slot, assignment::Assignment};

/// Time for which an unknown sender may be missing in the assignment: the sender may have read a newer
/// assignment than this worker, which reads it again.
const LAG_MAX: Duration = Duration::from_secs(2);

/// Minimum time between two readings of the assignment that unknown senders cause.
const READ_PAUSE: Duration = Duration::from_millis(250);

/// The slots of the assignment, as last read. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    slots: Arc<watch::Sender<BTreeSet<Slot>>>,
    read_again: Arc<Notify>,
    // Time of the last wish to read again; held for a few instructions.
    asked: Arc<Mutex<Option<Instant>>>,
}

impl Membership {
    /// The workers of `assignment`.
    pub(crate) fn of(assignment: &Assignment) -> Self {
        let slots = assignment.workers.keys().cloned().collect();
        Self { slots: Arc::new(watch::Sender::new(slots)), read_again: Arc::default(), asked: Arc::default() }
    }

    /// Follows a newer assignment.
    pub(crate) fn update(&self, assignment: &Assignment) {
        self.slots.send_if_modified(|slots| {
            let is_same = slots.iter().eq(assignment.workers.keys());
            if !is_same {
                *slots = assignment.workers.keys().cloned().collect();
            }
            !is_same
        });
    }

    /// Resolves when the assignment should be read again.
    pub(crate) async fn read_again(&self) {
        self.read_again.notified().await;
    }

    /// Returns whether the worker in `slot` is in the assignment. If it is not, the assignment is read
    /// again first, and awaited for up to two seconds.
    pub(super) async fn contains(&self, slot: &Slot) -> bool {
        if self.slots.borrow().contains(slot) {
            return true;
        }
        self.ask();
        let mut slots = self.slots.subscribe();
        // The sender lives as long as this membership.
        timeout(LAG_MAX, slots.wait_for(|slots| slots.contains(slot))).await.is_ok_and(|found| found.is_ok())
    }

    fn ask(&self) {
        let mut asked = self.asked.lock().expect("no one panics while holding the time");
        if asked.is_none_or(|at| at.elapsed() >= READ_PAUSE) {
            *asked = Some(Instant::now());
            self.read_again.notify_one();
        }
    }
}
