//! Access of an emitting task to all other tasks.

use std::{collections::BTreeMap, ops::Range, sync::Arc, task::Poll};

use tokio::sync::watch;
use tracing::warn;

use super::{Counters, Inboxes, counters::add};
use crate::{
    limits::BATCH_TUPLES_MAX,
    queue::{Inlet, Lane, Refused},
};
use stormkeeper_model::TaskId;
use stormkeeper_stream::{Row, TaskList, Tuple, ValueWriter};

/// Location of each task: one consistent reading of an assignment.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) inboxes: Inboxes,
    /// Queue of the task's component at the peer that runs the task.
    pub(super) remote: BTreeMap<TaskId, Inlet>,
}

impl Directory {
    /// Returns the queue for a task, and whether it is that of a peer.
    fn of(&self, task: TaskId) -> Option<(&Inlet, bool)> {
        let local = self.inboxes.of(task).map(|inlet| (inlet, false));
        local.or_else(|| self.remote.get(&task).map(|inlet| (inlet, true)))
    }
}

/// Outcome of sending a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The tuple is in the receiver's inbox or in the queue to its worker.
    Queued,
    /// No worker runs the receiver, or the receiver left while the tuple waited. Counted.
    Dropped,
}

/// Access of an emitting task to all other tasks.
#[derive(Debug)]
pub struct Outbox {
    changes: watch::Receiver<Arc<Directory>>,
    directory: Arc<Directory>,
    counters: Arc<Counters>,
    lanes: Vec<Way>,
    // Position in `lanes` of the way to each task that was sent something, `None` if no worker runs it.
    known: BTreeMap<TaskId, Option<usize>>,
    // The last one of them.
    last: Option<(TaskId, Option<usize>)>,
    plan: Plan,
    // Number of tuples in a queue above which another one is chosen, if there is a choice.
    room: usize,
}

/// Way to the tasks of one queue.
#[derive(Debug)]
struct Way {
    lane: Lane,
    is_remote: bool,
}

/// Deliveries of one emission.
#[derive(Debug, Default)]
struct Plan {
    // Each is for one lane, and has a range of `tasks`.
    deliveries: Vec<(usize, Range<usize>)>,
    // The next one.
    next: usize,
    tasks: Vec<TaskId>,
    n_queued: usize,
    // A queue that took a tuple has less than half of its room left.
    is_pressed: bool,
}

impl Outbox {
    pub(super) fn new(
        changes: watch::Receiver<Arc<Directory>>,
        directory: Arc<Directory>,
        counters: Arc<Counters>,
    ) -> Self {
        let (lanes, known) = (Vec::new(), BTreeMap::new());
        Self {
            changes,
            directory,
            counters,
            lanes,
            known,
            last: None,
            plan: Plan::default(),
            room: usize::MAX,
        }
    }

    /// Begins an emission to `receivers`. [`push`](Self::push) goes on with it; what is left of the emission
    /// before is forgotten.
    #[inline]
    pub(crate) fn plan(&mut self, receivers: &[TaskId]) {
        // An error means that the peers were dropped; their last directory remains valid.
        if self.changes.has_changed().unwrap_or(false) {
            self.follow();
        }
        self.plan.deliveries.clear();
        self.plan.tasks.clear();
        (self.plan.next, self.plan.n_queued) = (0, 0);
        for receiver in receivers {
            match self.way_to(*receiver) {
                Some(way) => {
                    self.plan.deliveries.push((way, self.plan.tasks.len()..self.plan.tasks.len() + 1));
                    self.plan.tasks.push(*receiver);
                }
                None => count_unroutable(&self.counters, *receiver),
            }
        }
        if self.plan.deliveries.len() > 1 {
            self.merge();
        }
    }

    /// Makes one delivery of those that go to one peer's queue.
    fn merge(&mut self) {
        let Self { lanes, plan: Plan { deliveries, tasks, .. }, .. } = self;
        if !deliveries.iter().any(|(way, _)| lanes[*way].is_remote) {
            return;
        }
        let mut sorted: Vec<_> = deliveries.drain(..).map(|(way, range)| (way, tasks[range.start])).collect();
        // Stable: the tasks of a queue keep their order.
        sorted.sort_by_key(|(way, _)| *way);
        tasks.clear();
        for (way, task) in sorted {
            let at = tasks.len();
            tasks.push(task);
            match deliveries.last_mut() {
                Some((last, range))
                    if *last == way && lanes[way].is_remote && range.len() < BATCH_TUPLES_MAX =>
                {
                    range.end += 1;
                }
                _ => deliveries.push((way, at..at + 1)),
            }
        }
    }

    /// Puts `row` into the queues of its receivers, those of the last [`plan`](Self::plan); its tasks are
    /// ignored. Returns false as soon as one has no room: then [`room`](Self::room) waits for it, and the
    /// next call goes on with this queue.
    ///
    /// # Ordering
    /// Tuples to one task arrive in the order of the calls, while the task stays where it is and its
    /// connection lives.
    #[inline]
    pub(crate) fn push(&mut self, row: &Row<'_>) -> bool {
        let Self { lanes, plan, counters, room, .. } = self;
        let Plan { deliveries, next, tasks, n_queued, is_pressed } = plan;
        while let Some((way, range)) = deliveries.get(*next) {
            let Way { lane, is_remote } = &mut lanes[*way];
            let (task, tasks) = (tasks[range.start], &tasks[range.clone()]);
            let tasks = if *is_remote { TaskList::Given(tasks) } else { TaskList::NONE };
            match lane.push(&Row { tasks, ..*row }) {
                Ok(()) => {
                    *n_queued += range.len();
                    *is_pressed |= lane.is_filling(*room);
                    if *is_remote {
                        counters.queued(range.len() as u64);
                    }
                }
                Err(Refused::Full) => return false,
                // The peer left the assignment, or the task is a spout.
                Err(Refused::Closed) if *is_remote => {
                    add(&counters.dropped, range.len() as u64);
                }
                Err(Refused::Closed) => count_unroutable(counters, task),
            }
            *next += 1;
        }
        true
    }

    /// Waits until there may be room in the queue for which [`push`](Self::push) had to stop.
    ///
    /// # Cancellation safety
    /// It only waits.
    pub(crate) async fn room(&self) {
        if let Some((way, _)) = self.plan.deliveries.get(self.plan.next) {
            self.lanes[*way].lane.room().await;
        }
    }

    /// Returns the receivers in whose queue there was no room.
    pub(crate) fn blocked(&self) -> &[TaskId] {
        let Plan { deliveries, next, tasks, .. } = &self.plan;
        deliveries.get(*next).map(|(_, range)| &tasks[range.clone()]).unwrap_or_default()
    }

    /// Returns the receivers in whose queues the current emission is.
    pub(crate) fn delivered(&self) -> impl Iterator<Item = &TaskId> {
        let Plan { deliveries, next, tasks, .. } = &self.plan;
        deliveries[..*next].iter().flat_map(|(_, range)| &tasks[range.clone()])
    }

    /// Leaves the receivers out in whose queue there was no room, and returns them.
    pub(crate) fn give_up(&mut self) -> &[TaskId] {
        let Plan { deliveries, next, tasks, .. } = &mut self.plan;
        if *next == deliveries.len() {
            return &[];
        }
        let (_, range) = deliveries.remove(*next);
        &tasks[range]
    }

    /// Returns the number of tuples of the current emission that were queued since the last call, one for
    /// each receiver.
    #[inline]
    pub(crate) fn take_n_queued(&mut self) -> usize {
        std::mem::take(&mut self.plan.n_queued)
    }

    /// Counts a queue with so many tuples as one without room, where another one can be chosen.
    pub(crate) fn choosing_above(self, room: usize) -> Self {
        Self { room, ..self }
    }

    /// Returns whether a queue had less than half of its room left when it took a tuple since the last call.
    #[inline]
    pub(crate) fn take_is_pressed(&mut self) -> bool {
        std::mem::take(&mut self.plan.is_pressed)
    }

    /// Waits until there may be room in the queue of one of `tasks`, for which
    /// [`has_room`](Self::has_room) said that there is none.
    ///
    /// # Cancellation safety
    /// It only waits.
    pub(crate) async fn room_of_any(&mut self, tasks: &[TaskId]) {
        let ways: Vec<usize> = tasks.iter().filter_map(|task| self.way_to(*task)).collect();
        let waits = ways.iter().map(|way| Box::pin(self.lanes[*way].lane.room()));
        let mut waits: Vec<_> = waits.collect();
        std::future::poll_fn(|context| {
            let is_any = waits.iter_mut().any(|room| room.as_mut().poll(context).is_ready());
            if is_any || waits.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Returns whether the queue for a task has room for a tuple of so many bytes, its anchors included,
    /// and is not so full that another one is chosen; if `must_be_full`, the latter does not count. A
    /// task that no worker runs has room: a tuple for it does not wait.
    pub(crate) fn has_room(&mut self, task: TaskId, n_bytes: usize, must_be_full: bool) -> bool {
        if self.changes.has_changed().unwrap_or(false) {
            self.follow();
        }
        let tuples = if must_be_full { usize::MAX } else { self.room };
        self.way_to(task).is_none_or(|way| self.lanes[way].lane.has_room(n_bytes, tuples))
    }

    /// Sends a tuple to a task, waiting while its queue is full.
    ///
    /// # Cancellation safety
    /// A dropped call may or may not have sent the tuple.
    ///
    /// # Ordering
    /// Tuples to one task arrive in the order of the calls, while the task stays where it is and its
    /// connection lives.
    pub async fn send(&mut self, task: TaskId, tuple: &Tuple) -> Sent {
        let values = ValueWriter::of(tuple.values());
        let row = Row::of(tuple, values.encoded());
        self.plan(&[task]);
        while !self.push(&row) {
            self.room().await;
        }
        if self.take_n_queued() > 0 { Sent::Queued } else { Sent::Dropped }
    }

    #[inline]
    fn way_to(&mut self, task: TaskId) -> Option<usize> {
        match self.last {
            Some((last, way)) if last == task => way,
            _ => {
                let way = self.look_up(task);
                self.last = Some((task, way));
                way
            }
        }
    }

    fn look_up(&mut self, task: TaskId) -> Option<usize> {
        if let Some(known) = self.known.get(&task) {
            return *known;
        }
        let Self { lanes, directory, known, .. } = self;
        let way = directory.of(task).map(|(inlet, is_remote)| {
            lanes.iter().position(|way| way.lane.leads_to(inlet)).unwrap_or_else(|| {
                lanes.push(Way { lane: inlet.lane(), is_remote });
                lanes.len() - 1
            })
        });
        known.insert(task, way);
        way
    }

    /// Follows a new directory. A queue that stays keeps its lane, and so the order of its tuples.
    fn follow(&mut self) {
        self.directory = self.changes.borrow_and_update().clone();
        self.known.clear();
        self.last = None;
        let directory = &self.directory;
        self.lanes
            .retain(|way| !way.is_remote || directory.remote.values().any(|inlet| way.lane.leads_to(inlet)));
    }
}

impl Clone for Outbox {
    /// Returns the outbox of another emitter.
    fn clone(&self) -> Self {
        Self::new(self.changes.clone(), Arc::clone(&self.directory), Arc::clone(&self.counters))
    }
}

fn count_unroutable(counters: &Counters, task: TaskId) {
    if let Some(so_far) = add(&counters.unroutable, 1) {
        warn!(%task, so_far, "dropped a tuple for a task that no worker runs");
    }
}

/// Puts a tuple for `tasks` into a lane, waiting for room.
pub(super) async fn send_tuple(lane: &mut Lane, tasks: &[TaskId], tuple: &Tuple) -> Sent {
    let values = ValueWriter::of(tuple.values());
    let row = Row { tasks: TaskList::Given(tasks), ..Row::of(tuple, values.encoded()) };
    send_row(lane, &row).await
}

/// Puts a row into a lane, waiting for room.
pub(super) async fn send_row(lane: &mut Lane, row: &Row<'_>) -> Sent {
    loop {
        match lane.push(row) {
            Ok(()) => return Sent::Queued,
            Err(Refused::Closed) => return Sent::Dropped,
            Err(Refused::Full) => lane.room().await,
        }
    }
}
