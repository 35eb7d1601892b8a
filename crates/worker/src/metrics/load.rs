//! Busy time of a component, as far as its worker can see it.
//!
//! - A *spout* is busy from a `next` until the `sync` that ends it.
//! - A *bolt* is busy from the delivery of a tuple until its ack or fail; of tuples that are settled
//!   together, the one delivered last counts, as a bolt may keep tuples while it waits for more.
//! - A bolt is also busy while it does not answer a heartbeat, which it reads after the tuples that
//!   were sent before: so a bolt that hangs, takes long for a tuple, or never acks is not idle.
//! - While a tuple, a call or a heartbeat is open, its time counts already.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use stormkeeper_model::clock::Monotonic;

/// Maximum number of unanswered heartbeats that are remembered. They are a second apart, and a child
/// that is silent for longer than its time-out is ended.
const ASKED_MAX: usize = 128;

/// Totals from which gauges are computed when they are read by another task.
#[derive(Debug)]
pub(super) struct Load {
    began: Monotonic,
    busy_nanos: AtomicU64,
    // Begin of the busy time that is not in `busy_nanos` yet, in nanoseconds, plus one; 0 if the
    // component is idle.
    busy_since: AtomicU64,
    n_calls: AtomicU64,
    n_empty_calls: AtomicU64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Load {
    pub(super) fn new(began: Monotonic) -> Self {
        Self {
            began,
            busy_nanos: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            n_calls: AtomicU64::new(0),
            n_empty_calls: AtomicU64::new(0),
        }
    }

    /// Returns the busy time until `now`, in nanoseconds.
    pub(super) fn busy_nanos(&self, now: Monotonic) -> u64 {
        let open = match self.busy_since.load(Ordering::Relaxed) {
            0 => 0,
            since => nanos(now.since(self.began)).saturating_sub(since - 1),
        };
        self.busy_nanos.load(Ordering::Relaxed).saturating_add(open)
    }

    pub(super) fn n_calls(&self) -> u64 {
        self.n_calls.load(Ordering::Relaxed)
    }

    pub(super) fn n_empty_calls(&self) -> u64 {
        self.n_empty_calls.load(Ordering::Relaxed)
    }

    // A reader between the two stores sees too little, and the rest with its next reading.
    fn add(&self, busy: Duration, busy_since: Option<Monotonic>) {
        self.busy_since
            .store(busy_since.map_or(0, |since| nanos(since.since(self.began)) + 1), Ordering::Relaxed);
        self.busy_nanos.fetch_add(nanos(busy), Ordering::Relaxed);
    }

    /// Records that a `next` of a spout began.
    pub(super) fn call_began(&self, now: Monotonic) {
        self.add(Duration::ZERO, Some(now));
    }

    /// Records a completed `next` of a spout.
    pub(super) fn call_ended(&self, took: Duration, is_empty: bool) {
        self.add(took, None);
        self.n_calls.fetch_add(1, Ordering::Relaxed);
        self.n_empty_calls.fetch_add(u64::from(is_empty), Ordering::Relaxed);
    }

    /// Records the time of calls of a component in this program; the next one begins at `goes_on`, if it does
    /// at once.
    pub(super) fn worked(&self, took: Duration, goes_on: Option<Monotonic>) {
        self.add(took, goes_on);
    }

    /// Counts calls of a spout in this program.
    pub(super) fn called(&self, n: u64, n_empty: u64) {
        self.n_calls.fetch_add(n, Ordering::Relaxed);
        self.n_empty_calls.fetch_add(n_empty, Ordering::Relaxed);
    }

    /// Records that the child ended.
    pub(super) fn child_ended(&self) {
        self.add(Duration::ZERO, None);
    }
}

/// Busy time of a bolt.
#[derive(Debug)]
pub(super) struct BoltLoad {
    shared: Arc<Load>,
    // Busy time before this is counted.
    counted_until: Option<Monotonic>,
    // Times of the unanswered heartbeats, the oldest first.
    asked: VecDeque<Monotonic>,
    // True once the child has answered a heartbeat; until then any message counts as the response.
    is_answering: bool,
    n_answers: usize,
    // Tuples settled since the last call of `handled`, and the latest of their deliveries.
    n_settled: u32,
    delivered: Option<Monotonic>,
    // Busy time since a tuple was last settled.
    since_settled: Duration,
}

impl BoltLoad {
    pub(super) fn new(shared: Arc<Load>) -> Self {
        Self {
            shared,
            counted_until: None,
            asked: VecDeque::new(),
            is_answering: false,
            n_answers: 0,
            n_settled: 0,
            delivered: None,
            since_settled: Duration::ZERO,
        }
    }

    /// Records that a heartbeat was sent.
    pub(super) fn asked(&mut self, now: Monotonic) {
        if self.asked.len() < ASKED_MAX {
            self.asked.push_back(now);
        }
        self.publish(Duration::ZERO);
    }

    /// Records the response to a heartbeat.
    pub(super) fn answered(&mut self) {
        self.n_answers += 1;
    }

    /// Records that a tuple was acked, failed, or lost with its child.
    pub(super) fn settled(&mut self, delivered: Monotonic) {
        self.n_settled += 1;
        self.delivered = self.delivered.max(Some(delivered));
    }

    /// Counts the busy time until `now`, at which a batch of messages arrived. Returns the number of
    /// tuples settled in this batch, and the busy time of each.
    pub(super) fn handled(&mut self, now: Monotonic) -> Option<(u32, Duration)> {
        let delivered = self.delivered.take();
        self.count(now, delivered);
        if self.n_answers > 0 {
            self.is_answering = true;
            self.asked.drain(..self.n_answers.min(self.asked.len()));
            self.n_answers = 0;
        } else if !self.is_answering {
            self.asked.clear();
        }
        self.publish(Duration::ZERO);
        let n = std::mem::take(&mut self.n_settled);
        (n > 0).then(|| (n, std::mem::take(&mut self.since_settled) / n))
    }

    /// Counts the busy time until the end of the child. Returns the busy time of the tuple on which
    /// the child worked, if tuples were lost.
    pub(super) fn child_ended(&mut self, now: Monotonic) -> Option<Duration> {
        let delivered = self.delivered.take();
        self.count(now, delivered);
        self.asked.clear();
        self.publish(Duration::ZERO);
        let n_lost = std::mem::take(&mut self.n_settled);
        let busy = std::mem::take(&mut self.since_settled);
        (self.n_answers, self.is_answering) = (0, false);
        (n_lost > 0).then_some(busy)
    }

    /// Counts the time from the oldest unanswered heartbeat, or from `delivered`, until `now`.
    fn count(&mut self, now: Monotonic, delivered: Option<Monotonic>) {
        let begins = [self.asked.front().copied(), delivered];
        let Some(begin) = begins.into_iter().flatten().min() else { return };
        let begin = self.counted_until.map_or(begin, |until| until.max(begin));
        let busy = now.since(begin);
        self.counted_until = self.counted_until.max(Some(now));
        self.since_settled += busy;
        self.publish(busy);
    }

    fn publish(&self, busy: Duration) {
        let open =
            self.asked.front().map(|asked| self.counted_until.map_or(*asked, |until| until.max(*asked)));
        self.shared.add(busy, open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::START.plus(Duration::from_millis(millis))
    }

    fn millis(busy: Duration) -> u128 {
        busy.as_millis()
    }

    struct Bolt {
        shared: Arc<Load>,
        load: BoltLoad,
    }

    impl Bolt {
        fn new() -> Self {
            let shared = Arc::new(Load::new(at(0)));
            Self { load: BoltLoad::new(Arc::clone(&shared)), shared }
        }

        /// Busy milliseconds until a time.
        fn busy(&self, now: u64) -> u64 {
            self.shared.busy_nanos(at(now)) / 1_000_000
        }

        fn settle(&mut self, delivered: &[u64], now: u64) -> Option<(u32, u128)> {
            delivered.iter().for_each(|time| self.load.settled(at(*time)));
            self.load.handled(at(now)).map(|(n, busy)| (n, millis(busy)))
        }

        fn answer(&mut self, now: u64) {
            self.load.answered();
            assert_eq!(self.load.handled(at(now)), None);
        }
    }

    #[test]
    fn bolt_is_busy_from_delivery_to_ack_and_overlapping_times_count_once() {
        let mut bolt = Bolt::new();
        assert_eq!(bolt.settle(&[100], 150), Some((1, 50)));
        // Delivered while the bolt worked on the one before.
        assert_eq!(bolt.settle(&[120], 200), Some((1, 50)));
        assert_eq!(bolt.busy(1000), 100);
        // Kept until more arrived: the bolt waited.
        assert_eq!(bolt.settle(&[1000, 1500, 1990], 2000), Some((3, 3)));
        assert_eq!(bolt.busy(2000), 110);
    }

    #[test]
    fn bolt_that_hangs_is_busy_while_it_hangs_and_until_it_is_killed() {
        let mut bolt = Bolt::new();
        bolt.load.asked(at(1000));
        bolt.answer(1001);
        assert_eq!(bolt.busy(1500), 1, "idle");
        // A tuple is delivered at 1500; the heartbeat of 2000 is not answered.
        bolt.load.asked(at(2000));
        assert_eq!(bolt.busy(2500), 501);
        bolt.load.asked(at(3000));
        assert_eq!(bolt.busy(5000), 3001);
        bolt.load.settled(at(1500));
        assert_eq!(bolt.load.child_ended(at(6000)).map(millis), Some(4501));
        assert_eq!(bolt.busy(9000), 4501, "not busy without a child");
    }

    #[test]
    fn bolt_that_never_acks_is_busy_only_while_it_does_not_answer() {
        let mut bolt = Bolt::new();
        for second in 1..=5 {
            bolt.load.asked(at(1000 * second));
            bolt.answer(1000 * second + 2);
        }
        assert_eq!(bolt.busy(6000), 10);
        // A backlog of three seconds: three heartbeats are in the pipe, and each has its response.
        for second in [6, 7, 8] {
            bolt.load.asked(at(1000 * second));
        }
        bolt.answer(9000);
        bolt.load.asked(at(9000));
        for time in [9500, 9900, 10_000] {
            bolt.answer(time);
        }
        assert_eq!(bolt.busy(20_000), 10 + 4000);
        assert_eq!(bolt.settle(&[], 20_000), None);
    }

    #[test]
    fn any_message_is_an_answer_of_a_bolt_that_answers_no_heartbeats() {
        let mut bolt = Bolt::new();
        bolt.load.asked(at(1000));
        assert_eq!(bolt.busy(1400), 400, "silent");
        assert_eq!(bolt.load.handled(at(1500)), None);
        assert_eq!(bolt.busy(9000), 500);
    }

    #[test]
    fn slow_tuple_counts_while_it_is_worked_on_and_once() {
        let mut bolt = Bolt::new();
        bolt.load.asked(at(100));
        bolt.answer(100);
        bolt.load.asked(at(1100));
        assert_eq!(bolt.busy(3000), 1900);
        // Ack and answer arrive together.
        bolt.load.answered();
        assert_eq!(bolt.settle(&[1000], 4000), Some((1, 3000)));
        assert_eq!(bolt.busy(5000), 3000);
    }

    #[test]
    fn spout_is_busy_during_a_call() {
        let load = Load::new(at(0));
        load.call_began(at(100));
        assert_eq!(load.busy_nanos(at(300)), 200_000_000);
        load.call_ended(Duration::from_millis(300), true);
        assert_eq!(load.busy_nanos(at(900)), 300_000_000);
        assert_eq!((load.n_calls(), load.n_empty_calls()), (1, 1));
        load.call_began(at(1000));
        load.child_ended();
        assert_eq!(load.busy_nanos(at(2000)), 300_000_000);
    }
}
