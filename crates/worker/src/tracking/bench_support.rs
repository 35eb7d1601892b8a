//! Cost of tracking for each tuple of a spout, for `benches/tracking.rs`: the calls of a spout's task and
//! of a bolt's, in the same worker, without components.

use std::time::Duration;

use super::{Ackers, Delivery, PendingTuple, PendingTuples, Settled, Tracker};
use crate::metrics::StreamIndex;
use stormkeeper_model::{Port, Slot, TaskId, clock::Clock, task_set::TaskSet};
use stormkeeper_runtime::tasks::Tasks;
use stormkeeper_stream::{Anchor, AnchorList, Value};

const SPOUT: TaskId = TaskId(1);
const BOLT: TaskId = TaskId(2);

/// A spout and a bolt that acks its tuples.
#[derive(Debug)]
pub struct Tracked {
    tracker: Tracker,
    pending: PendingTuples,
    settled: Vec<Settled>,
    clock: Clock,
}

/// A tuple in the hands of the bolt.
#[derive(Debug)]
pub struct InHand(Delivery);

impl Tracked {
    /// Creates them in one worker. Needs a runtime.
    pub fn new(tasks: &Tasks) -> Self {
        let own = Slot { supervisor: "bench".parse().expect("a valid id"), port: Port(6700) };
        let local: TaskSet = [SPOUT, BOLT].into_iter().collect();
        let timeout = Some(Duration::from_secs(3600));
        let tracker = Tracker::start(Ackers::PerWorker, own, &local, timeout, tasks);
        Self { tracker, pending: PendingTuples::new(timeout), settled: Vec::new(), clock: Clock::new() }
    }

    /// Emits a tuple with the id `id` to the bolt.
    pub fn emit(&mut self, id: i64) -> InHand {
        let acker = self.tracker.acker_for(SPOUT);
        let anchor = Anchor { acker, root: fastrand::u64(..), edge: fastrand::u64(..) };
        let emitted = self.clock.monotonic();
        self.pending
            .add(anchor.root, PendingTuple { id: Value::Int(id), emitted, stream: StreamIndex::UNKNOWN });
        self.tracker.begin(anchor, SPOUT, &[BOLT]);
        InHand(Delivery::of(AnchorList::Given(&[anchor]), BOLT))
    }

    /// Acks tuples, as a bolt does with those whose acks it reads together.
    pub fn ack(&mut self, tuples: impl IntoIterator<Item = InHand>) {
        for InHand(delivery) in tuples {
            self.settled.extend(delivery.acked());
        }
        self.tracker.settle(&mut self.settled);
    }

    /// Takes the outcomes to the spout. Returns their number.
    pub fn take_outcomes(&mut self) -> usize {
        let news = self.tracker.mailbox(SPOUT).take();
        news.iter().filter(|(root, _)| self.pending.settle(*root).is_some()).count()
    }
}
