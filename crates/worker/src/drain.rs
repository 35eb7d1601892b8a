//! Draining of a worker: its spouts are stopped, and what it has accepted is finished.
//!
//! For a change of the whole topology, each worker says that it is drained, for the leader, and everything
//! stays open. A worker that must end by itself also closes its intake, so that it can become empty while
//! others still send: see `docs/design/updates.md`.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info};

use crate::{
    counters::CounterRegistry,
    heartbeat::StatusBoard,
    transport::{Counters, Intake},
};
use stormkeeper_model::{Timestamp, task_set::TaskSet};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Period of looking at the load.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// Time without load and without any movement after which the worker is drained. A tuple that is on a healthy
/// connection arrives within it.
const QUIET: Duration = Duration::from_secs(1);

/// The same for a worker that ends, whose intake is closed: nothing can arrive any more.
const QUIET_AT_END: Duration = Duration::from_millis(100);

/// Longest time for draining a worker that ends: it must be over before the supervisor sends SIGKILL.
const END_MAX: Duration = Duration::from_secs(1);

/// Time without movement after which a worker that ends is not waited for any more.
const STUCK: Duration = Duration::from_millis(250);

/// What a worker must finish.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) board: StatusBoard,
    pub(crate) counters: CounterRegistry,
    pub(crate) transport: Arc<Counters>,
    pub(crate) spouts: TaskSet,
    pub(crate) bolts: TaskSet,
}

/// A look at the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    is_empty: bool,
    /// Sum of counts that grow with everything that happens to a tuple.
    moved: u64,
}

impl Load {
    /// Returns whether no spout is asked for tuples, or waits for the end of a tree.
    fn spouts_are_done(&self) -> bool {
        let is_done = |spout| !self.board.is_running(spout) && self.counters.read(spout).1 == 0;
        self.spouts.iter().all(is_done)
    }

    fn look(&self) -> Look {
        let transport = self.transport.read();
        let mut look = Look {
            is_empty: self.transport.n_unsent() == 0
                && !self.spouts.iter().any(|spout| self.board.is_running(spout)),
            moved: transport.sent.wrapping_add(transport.received),
        };
        for task in self.spouts.iter().chain(self.bolts.iter()) {
            let (counts, pending) = self.counters.read(task);
            look.is_empty &= pending == 0;
            for count in [counts.emitted, counts.transferred, counts.executed, counts.acked, counts.failed] {
                look.moved = look.moved.wrapping_add(count);
            }
        }
        look
    }
}

/// Looks one after the other: how long nothing has moved.
#[derive(Debug)]
struct Watch {
    last: Look,
    since: Instant,
}

impl Watch {
    fn new(first: Look, now: Instant) -> Self {
        Self { last: first, since: now }
    }

    /// Returns how long the worker has been as it is.
    fn see(&mut self, look: Look, now: Instant) -> Duration {
        if look != self.last {
            *self = Self::new(look, now);
        }
        now.duration_since(self.since)
    }

    fn is_quiet(&mut self, look: Look, now: Instant, quiet: Duration) -> bool {
        self.see(look, now) >= quiet && look.is_empty
    }
}

/// Draining that the topology record asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Work on.
    #[default]
    None,
    /// Say when all is done, for the change with this deadline; everything stays open.
    Quiet(Timestamp),
    /// Become empty although others still send, and say so for the step of an update with this deadline.
    Leave(Timestamp),
}

/// Draining of one worker.
#[derive(Debug)]
pub(crate) struct Drain {
    load: Load,
    intake: Intake,
    wish: watch::Sender<Wish>,
}

impl Drain {
    /// Begins to wait for wishes.
    pub(crate) fn start(load: Load, intake: Intake, tasks: &Tasks) -> Self {
        let (wish, wishes) = watch::channel(Wish::None);
        tasks.start("draining", OnExit::Ignore, follow(load.clone(), intake.clone(), wishes));
        Self { load, intake, wish }
    }

    /// Follows the record of the topology.
    pub(crate) fn wish(&self, wish: Wish) {
        self.wish.send_if_modified(|current| std::mem::replace(current, wish) != wish);
    }

    /// Empties the worker before it ends, as far as that succeeds in a short time. Its spouts are stopped.
    pub(crate) async fn finish(&self) {
        self.intake.close();
        let began = Instant::now();
        let emptied = timeout(END_MAX, async {
            let mut watch = Watch::new(self.load.look(), began);
            loop {
                sleep(LOOK_PERIOD).await;
                let (look, now) = (self.load.look(), Instant::now());
                let lasted = watch.see(look, now);
                let is_done = look.is_empty && self.intake.is_over();
                if is_done && lasted >= QUIET_AT_END {
                    return true;
                }
                if lasted >= STUCK {
                    return is_done;
                }
            }
        })
        .await
        .unwrap_or(false);
        match emptied {
            true => debug!("all that this worker has accepted is finished"),
            false => info!("the worker ends before all that it has accepted is finished"),
        }
    }
}

/// Says on the board when the worker has drained for the change at hand.
async fn follow(load: Load, intake: Intake, mut wishes: watch::Receiver<Wish>) {
    loop {
        let wish = *wishes.borrow_and_update();
        load.board.set_drained_for(None);
        let drained = async {
            let change = match wish {
                Wish::None => return std::future::pending().await,
                Wish::Quiet(change) => change,
                Wish::Leave(step) => {
                    // The trees of its spouts may still pass through it.
                    while !load.spouts_are_done() {
                        sleep(LOOK_PERIOD).await;
                    }
                    intake.close();
                    while !intake.is_over() {
                        sleep(LOOK_PERIOD).await;
                    }
                    step
                }
            };
            let mut watch = Watch::new(load.look(), Instant::now());
            while !watch.is_quiet(load.look(), Instant::now(), QUIET) {
                sleep(LOOK_PERIOD).await;
            }
            info!("the worker has processed all tuples");
            load.board.set_drained_for(Some(change));
            // A late tuple takes it back.
            while load.look() == watch.last {
                sleep(LOOK_PERIOD).await;
            }
        };
        tokio::select! {
            // Cancel-safe: the wish itself is read above.
            changed = wishes.changed() => if changed.is_err() {
                return;
            },
            // Cancel-safe: begun anew with the next turn.
            () = drained => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_model::{TaskId, heartbeat::TaskStatus};

    fn load() -> Load {
        let (spout, bolt) = (TaskId(1), TaskId(2));
        let board = StatusBoard::new([spout, bolt]);
        board.set(spout, TaskStatus::Inactive);
        board.set(bolt, TaskStatus::Running);
        Load {
            board,
            counters: CounterRegistry::default(),
            transport: Arc::default(),
            spouts: [spout].into_iter().collect(),
            bolts: [bolt].into_iter().collect(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn worker_is_drained_for_a_change_once_nothing_is_pending_and_nothing_has_moved_for_a_while() {
        let (load, tasks) = (load(), Tasks::default());
        let bolt = load.counters.of(TaskId(2));
        bolt.set_pending(1);
        let drain = Drain::start(load.clone(), Intake::default(), &tasks);
        let change = Timestamp::from_millis(7);
        drain.wish(Wish::Quiet(change));
        sleep(10 * QUIET).await;
        assert_eq!(load.board.drained_for(), None, "a tuple is pending");
        bolt.set_pending(0);
        for _ in 0..20 {
            bolt.executed.add(1);
            sleep(QUIET / 2).await;
            assert_eq!(load.board.drained_for(), None, "tuples still move");
        }
        load.transport.queued(1);
        sleep(10 * QUIET).await;
        assert_eq!(load.board.drained_for(), None, "a tuple waits for another worker");
        load.transport.unqueued(1);
        sleep(2 * QUIET).await;
        assert_eq!(load.board.drained_for(), Some(change));
        bolt.executed.add(1);
        sleep(QUIET / 2).await;
        assert_eq!(load.board.drained_for(), None, "a late tuple takes it back");
        sleep(2 * QUIET).await;
        assert_eq!(load.board.drained_for(), Some(change));
        drain.wish(Wish::None);
        sleep(QUIET).await;
        assert_eq!(load.board.drained_for(), None, "it works again");
    }

    #[tokio::test(start_paused = true)]
    async fn worker_that_leaves_closes_its_intake_once_its_spouts_are_done_and_says_when_it_is_empty() {
        let (load, tasks, intake) = (load(), Tasks::default(), Intake::default());
        let [spout, bolt] = [TaskId(1), TaskId(2)].map(|task| load.counters.of(task));
        spout.set_pending(1);
        bolt.set_pending(1);
        let (drain, step) = (Drain::start(load.clone(), intake.clone(), &tasks), Timestamp::from_millis(7));
        drain.wish(Wish::Leave(step));
        sleep(10 * QUIET).await;
        assert!(!intake.is_closed(), "the trees of its spout may pass through it");
        spout.set_pending(0);
        sleep(QUIET / 2).await;
        assert!(intake.is_closed());
        sleep(10 * QUIET).await;
        assert_eq!(load.board.drained_for(), None, "a tuple is pending");
        bolt.set_pending(0);
        sleep(2 * QUIET).await;
        assert_eq!(load.board.drained_for(), Some(step));
    }

    #[tokio::test(start_paused = true)]
    async fn worker_that_ends_waits_while_its_tuples_move_and_not_for_one_that_is_stuck() {
        let (load, tasks) = (load(), Tasks::default());
        let (bolt, intake) = (load.counters.of(TaskId(2)), Intake::default());
        let drain = Drain::start(load.clone(), intake.clone(), &tasks);
        bolt.set_pending(3);
        let work = async {
            for left in (0..3).rev() {
                sleep(STUCK / 2).await;
                bolt.executed.add(1);
                bolt.set_pending(left);
            }
        };
        let began = Instant::now();
        tokio::join!(drain.finish(), work);
        assert!(began.elapsed() >= 3 * STUCK / 2, "{:?}", began.elapsed());
        assert!(intake.is_closed());
        bolt.set_pending(1);
        let began = Instant::now();
        drain.finish().await;
        assert!(began.elapsed() < 2 * STUCK, "{:?}", began.elapsed());
        load.board.set(TaskId(1), TaskStatus::Running);
        assert!(!load.look().is_empty, "a spout may still emit");
    }
}
