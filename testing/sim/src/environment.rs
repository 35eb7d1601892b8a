//! The environment shared by all parts of a simulated cluster.

use std::{
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicBool},
    time::Duration,
};

use crate::{journal::Journal, masters::Masters, metric_log::StoreDisk, network::Network, scratch::Scratch};
use stormkeeper_coordination::tree::memory::MemoryTree;
use stormkeeper_model::{
    Timestamp,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::tasks::Tasks;

/// Start time of a run on a correct clock.
const START_TIME: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// The tree's server, the network, the disks, and the journal of what happens.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) server: MemoryTree,
    pub(super) network: Arc<Network>,
    pub(super) scratch: Scratch,
    /// Tasks besides the processes: timeouts, ends of faults, clients.
    pub(super) tasks: Tasks,
    // Guards the journal. Locked while the tree is locked, so the holder of this lock must not
    // access the tree.
    journal: Arc<Mutex<Journal>>,
    clock: Clock,
    start: Monotonic,
    /// The topology masters of all workers.
    pub(super) masters: Arc<Masters>,
    /// False once the tasks of the workers count no more.
    pub(super) is_counting: AtomicBool,
}

impl Environment {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let (clock, server) = (Clock::paced(START_TIME), MemoryTree::new());
        let journal = Arc::new(Mutex::new(Journal::new(clock.clone())));
        let listener = Arc::clone(&journal);
        server.listen(move |commit| lock(&listener).commit(commit));
        Arc::new(Self {
            server,
            network: Arc::new(Network::new(
                fastrand::Rng::with_seed(seed ^ 0x6e65_7477),
                Arc::clone(&journal),
            )),
            scratch: Scratch::new(seed),
            tasks: Tasks::default(),
            journal,
            start: clock.monotonic(),
            clock,
            masters: Arc::default(),
            is_counting: AtomicBool::new(true),
        })
    }

    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    pub(super) fn shared_journal(&self) -> &Arc<Mutex<Journal>> {
        &self.journal
    }

    /// Connects the disk of a nimbus' metric store to the journal.
    pub(super) fn attach_disk(&self, nimbus: &str, disk: &StoreDisk) {
        self.journal().register_disk(nimbus, disk);
        // Journal and disk must not keep each other alive.
        let (journal, nimbus) = (Arc::downgrade(&self.journal), nimbus.to_owned());
        disk.disk.listen(move |change| {
            if let Some(journal) = journal.upgrade() {
                lock(&journal).directory_change(&nimbus, change);
            }
        });
    }

    /// Time since the start of the run.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic().since(self.start)
    }

    /// A clock with an error of `millis`.
    pub(super) fn skewed_clock(&self, millis: i64) -> Clock {
        Clock::paced(skewed(self.clock.now(), millis))
    }

    /// Sets the error of a clock to `millis`.
    pub(super) fn skew(&self, clock: &Clock, millis: i64) {
        clock.set(skewed(self.clock.now(), millis));
    }
}

fn skewed(at: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_millis(at.as_millis().saturating_add_signed(millis))
}

pub(super) fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().expect("the journal and its checks do not panic")
}
