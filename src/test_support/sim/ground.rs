//! What all parts of a simulated cluster stand on.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use crate::{
    clock::{Clock, Monotonic},
    daemon::tasks::Tasks,
    model::Timestamp,
    test_support::sim::{journal::Journal, network::Network, scratch::Scratch},
    tree::memory::MemoryTree,
};

/// When a run begins, by a clock that goes right.
const BEGINNING: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// The tree's server, the network, the disks, and the journal of what happens.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) server: MemoryTree,
    pub(super) network: Arc<Network>,
    pub(super) scratch: Scratch,
    /// Own what happens besides the processes: timeouts, faults that end, clients.
    pub(super) tasks: Tasks,
    // Guards the journal; taken while the tree stands still, so nobody who holds it may ask
    // the tree for anything.
    journal: Arc<Mutex<Journal>>,
    clock: Clock,
    start: Monotonic,
}

impl Ground {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let (clock, server) = (Clock::paced(BEGINNING), MemoryTree::new());
        let journal = Arc::new(Mutex::new(Journal::new(clock.clone())));
        let listener = Arc::clone(&journal);
        server.listen(move |commit| lock(&listener).commit(commit));
        Arc::new(Self {
            server,
            network: Arc::default(),
            scratch: Scratch::new(seed),
            tasks: Tasks::default(),
            journal,
            start: clock.monotonic(),
            clock,
        })
    }

    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    /// How long the run has lasted.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic().since(self.start)
    }

    /// A clock that is wrong by so many milliseconds.
    pub(super) fn skewed_clock(&self, millis: i64) -> Clock {
        Clock::paced(skewed(self.clock.now(), millis))
    }

    /// Makes a clock wrong by so many milliseconds.
    pub(super) fn skew(&self, clock: &Clock, millis: i64) {
        clock.set(skewed(self.clock.now(), millis));
    }
}

fn skewed(at: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_millis(at.as_millis().saturating_add_signed(millis))
}

fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().expect("the journal and its checks do not panic")
}
