//! Routing of a task's emits to the receiving tasks.

use std::sync::Arc;

use super::{
    Cycle,
    choice::{self, Choice},
};
use crate::{
    counters::TaskCounters,
    limits::{self, TREES_MAX, VALUE_DEPTH_MAX},
    metrics::{StreamIndex, TaskMetrics},
    multilang::message::Emit,
    samples::{Sampler, Values, Way},
    tracking::PENDING_MAX,
    transport::Outbox,
};
use stormkeeper_model::{
    ComponentId, InvalidId, StreamId, TaskId,
    clock::Clock,
    task_set::TaskSet,
    topology::{TaskTable, Topology},
};
use stormkeeper_stream::{
    Anchor, AnchorList, Anchors, Encoded, Row, TaskList, ValueWriter,
    grouping::{self, Router},
};

/// Inputs of routing, the same for as long as the worker runs.
#[derive(Debug)]
pub(crate) struct Wiring {
    pub(crate) topology: Arc<Topology>,
    pub(crate) table: TaskTable,
    /// Tasks of this worker.
    pub(crate) local: TaskSet,
}

impl Wiring {
    fn router(&self, component: &ComponentId, task: TaskId) -> Result<Router, grouping::Error> {
        Router::new(&self.topology, &self.table, component, task, &self.local)
    }
}

/// Stream and receiver of an emit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Target<'a> {
    /// Stream; `None` for the default stream.
    pub(crate) stream: Option<&'a StreamId>,
    /// Receiving task of a direct emit.
    pub(crate) direct: Option<TaskId>,
}

/// Reason for which a tuple is sent to nobody.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// The tuple does not fit to its stream.
    #[error(transparent)]
    Route(#[from] grouping::Error),
    /// The values are too large.
    #[error(
        "the values of a tuple for stream {stream:?} take {bytes} bytes, and no worker can be sent more than \
         {limit}; emit smaller values, or put them in a store and emit where they are"
    )]
    TooLarge {
        /// The stream.
        stream: StreamId,
        /// Size of the values.
        bytes: usize,
        /// Limit of their size.
        limit: usize,
    },
    /// The tuple is anchored in too many trees.
    #[error(
        "a tuple for stream {stream:?} is anchored in {n} tuple trees, and no tuple may belong to more than \
         {TREES_MAX}; emit several tuples, each with some of the anchors"
    )]
    TooManyTrees {
        /// The stream.
        stream: StreamId,
        /// Number of trees.
        n: usize,
    },
    /// The stream's name is not valid.
    #[error("{stream:?} is no name of a stream: {error}")]
    InvalidStream {
        /// The name.
        stream: String,
        /// Cause.
        error: InvalidId,
    },
    /// Lists and maps are nested too deep.
    #[error("lists and maps are nested more than {VALUE_DEPTH_MAX} deep; emit flatter values, or text")]
    TooDeep,
    /// The spout has as many pending tuples as can be tracked.
    #[error(
        "{PENDING_MAX} tuples of this task are pending, and no more can be tracked; set topology.max.spout.pending"
    )]
    TooManyPending,
    /// The worker is stopping.
    #[error("the worker is stopping")]
    Stopping,
}

/// Memory that is kept for encoding the values of an emit.
const SCRATCH_BYTES: usize = 64 << 10;

/// Routes, sends and counts the emits of one task.
#[derive(Debug)]
pub(crate) struct Emitter {
    router: Router,
    outbox: Outbox,
    counters: Arc<TaskCounters>,
    clock: Clock,
    receivers: Vec<TaskId>,
    // Encoded values of an emit of a child.
    values: ValueWriter,
    // The receivers that are in a cycle with the task.
    cycle: Option<Cycle>,
    choice: Choice,
    // Tasks whose queues are full.
    full: Vec<TaskId>,
    sampler: Sampler,
}

impl Emitter {
    /// Creates the emitter of a task.
    ///
    /// # Errors
    /// The errors of [`Router::new`].
    pub(crate) fn new(
        component: ComponentId,
        task: TaskId,
        wiring: &Wiring,
        outbox: Outbox,
        counters: Arc<TaskCounters>,
        clock: Clock,
    ) -> Result<Self, grouping::Error> {
        let router = wiring.router(&component, task)?;
        let (receivers, values) = (Vec::new(), ValueWriter::default());
        Ok(Self {
            router,
            outbox,
            counters,
            clock,
            receivers,
            values,
            cycle: None,
            choice: Choice::default(),
            full: Vec::new(),
            sampler: Sampler::default(),
        })
    }

    /// Waits for a limited time for receivers that are in a cycle with the task.
    pub(crate) fn breaking(self, cycle: Option<Cycle>) -> Self {
        Self { cycle, ..self }
    }

    /// Lets shuffles pass over tasks whose queues are full, if `is_on` and there are tasks to choose from.
    /// A queue with `room` tuples counts as full as long as others have fewer.
    pub(crate) fn passing_over_full(self, is_on: bool, room: usize) -> Self {
        let choice = Choice::new(is_on && self.router.has_choice());
        Self { choice, outbox: self.outbox.choosing_above(room), ..self }
    }

    /// Shows tuples to operators who ask for a sample.
    pub(crate) fn sampled_by(self, sampler: Sampler) -> Self {
        Self { sampler, ..self }
    }

    /// Returns the receivers of the last emit.
    pub(crate) fn receivers(&self) -> &[TaskId] {
        &self.receivers
    }

    /// Sends an emit of a child. Otherwise as [`emit`](Self::emit).
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    ///
    /// # Cancellation safety
    /// As [`emit`](Self::emit).
    pub(crate) async fn emit_message(
        &mut self,
        emit: &Emit,
        n_trees: usize,
        metrics: &mut TaskMetrics,
        anchor: impl FnOnce(&[TaskId], StreamIndex) -> Anchors,
    ) -> Result<&[TaskId], EmitError> {
        let mut values = std::mem::take(&mut self.values);
        values.values(&emit.values);
        let target = Target { stream: emit.stream.as_ref(), direct: emit.direct };
        let sent = self.emit(target, values.encoded(), n_trees, metrics, anchor).await.map(drop);
        values.shrink(SCRATCH_BYTES);
        self.values = values;
        sent.map(|()| self.receivers.as_slice())
    }

    /// Sends a tuple to its receivers, waiting for each receiver that has no room, and returns
    /// the receivers. The tuple belongs to at most `n_trees` trees; `anchor` says which once the receivers
    /// are known, and is not called if there are none.
    ///
    /// # Errors
    /// The errors of [`Router::route`], [`EmitError::TooLarge`], whichever worker the receivers run
    /// in, and [`EmitError::TooManyTrees`]; nothing is sent, anchored and counted in these cases.
    ///
    /// # Cancellation safety
    /// A call that is dropped has sent the tuple to none, some or all of its receivers.
    pub(crate) async fn emit(
        &mut self,
        target: Target<'_>,
        values: Encoded<'_>,
        n_trees: usize,
        metrics: &mut TaskMetrics,
        anchor: impl FnOnce(&[TaskId], StreamIndex) -> Anchors,
    ) -> Result<&[TaskId], EmitError> {
        if self.choice.looks() && target.direct.is_none() {
            self.pass_over(target.stream, choice::row_bytes(values.bytes().len(), n_trees), metrics).await;
        }
        let origin = self.router.route(target.stream, values, target.direct, &mut self.receivers)?;
        let stream = &origin.stream;
        if n_trees > TREES_MAX {
            return Err(EmitError::TooManyTrees { stream: stream.clone(), n: n_trees });
        }
        let (bytes, limit) = (values.bytes().len(), limits::tuple_bytes_max(n_trees));
        if bytes > limit {
            return Err(EmitError::TooLarge { stream: stream.clone(), bytes, limit });
        }
        self.counters.emitted.add(1);
        let measured = metrics.emitted(stream);
        let begun = metrics.now(&self.clock);
        let is_shown = self.sampler.is_next();
        // Without receivers no tuple is needed.
        if self.receivers.is_empty() {
            if is_shown {
                let way = Way::Emitted { origin, to: &[], trees: AnchorList::Given(&[]) };
                self.sampler.show(way, Values::Encoded(values));
            }
            return Ok(&[]);
        }
        let anchors = anchor(&self.receivers, measured);
        let list = AnchorList::Given(anchors.as_slice());
        if is_shown {
            let way = Way::Emitted { origin, to: &self.receivers, trees: list };
            self.sampler.show(way, Values::Encoded(values));
        }
        let row = Row { origin, tasks: TaskList::NONE, anchors: list, emitted_at: begun, values };
        self.outbox.plan(&self.receivers);
        loop {
            let is_done = self.outbox.push(&row);
            if let Some(cycle) = &mut self.cycle {
                cycle.delivered(self.outbox.delivered());
            }
            if self.outbox.take_is_pressed() {
                self.choice.begin();
            }
            let n_queued = self.outbox.take_n_queued() as u64;
            self.counters.transferred.add(n_queued);
            metrics.transferred(measured, n_queued);
            if is_done {
                break;
            }
            // The loop may be killed while it waits for room: write the counters first.
            metrics.settle();
            wait_for_room(&mut self.outbox, self.cycle.as_mut(), anchors.as_slice()).await;
        }
        if let Some(begun) = begun.filter(|_| metrics.times_emits()) {
            metrics.record_emit_time(self.clock.monotonic().since(begun));
        }
        Ok(&self.receivers)
    }
}

impl Emitter {
    /// Lets shuffles pass over tasks whose queues have no room for a tuple of so many bytes, and waits
    /// while the queues of all of them are full.
    async fn pass_over(&mut self, stream: Option<&StreamId>, n_bytes: usize, metrics: &mut TaskMetrics) {
        let mut must_be_full = false;
        loop {
            self.full.clear();
            let mut is_any_full = false;
            let has_room = |task| {
                let has_room = self.outbox.has_room(task, n_bytes, must_be_full);
                is_any_full |= !has_room;
                has_room
            };
            self.router.pass_over(stream, has_room, &mut self.full);
            if is_any_full {
                self.choice.begin();
            }
            if self.full.is_empty() {
                return;
            }
            // A full cycle is broken when the tuple is on its way.
            if must_be_full && self.cycle.is_some() {
                return;
            }
            if must_be_full {
                metrics.settle();
                self.outbox.room_of_any(&self.full).await;
            }
            // None is waited for while any has room, however little.
            must_be_full = true;
        }
    }
}

/// Waits until there may be room where the outbox has none. Gives the delivery up if it is in a cycle whose
/// time is over.
async fn wait_for_room(outbox: &mut Outbox, cycle: Option<&mut Cycle>, anchors: &[Anchor]) {
    let limited = cycle.and_then(|cycle| {
        let limit = outbox.blocked().iter().find_map(|receiver| cycle.limit(*receiver))?;
        Some((cycle, limit))
    });
    let Some((cycle, limit)) = limited else { return outbox.room().await };
    // The first poll of an emit of a component in this program is outside of the runtime, where there are no
    // timers.
    tokio::task::yield_now().await;
    if tokio::time::timeout(limit, outbox.room()).await.is_err() {
        cycle.give_up(outbox.give_up(), anchors);
    }
}
