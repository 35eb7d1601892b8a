//! Routing of a task's emits to the receiving tasks.

use std::sync::Arc;

use crate::{
    counters::TaskCounters,
    limits::{self, TREES_MAX, VALUE_DEPTH_MAX},
    metrics::{StreamIndex, TaskMetrics},
    multilang::message::Emit,
    tracking::PENDING_MAX,
    transport::{Outbox, Sent, excess},
};
use stormkeeper_model::{
    ComponentId, InvalidId, StreamId, TaskId,
    clock::Clock,
    task_set::TaskSet,
    topology::{TaskTable, Topology},
};
use stormkeeper_stream::{
    Anchors, Tuple, Value,
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

/// Values that a component emits.
#[derive(Debug)]
pub(crate) struct Emitted {
    /// Stream; `None` for the default stream.
    pub(crate) stream: Option<StreamId>,
    /// Receiving task of a direct emit.
    pub(crate) direct: Option<TaskId>,
    pub(crate) values: Vec<Value>,
}

impl From<Emit> for Emitted {
    fn from(Emit { stream, direct, values, .. }: Emit) -> Self {
        Self { stream, direct, values }
    }
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

/// Routes, sends and counts the emits of one task.
#[derive(Debug)]
pub(crate) struct Emitter {
    router: Router,
    outbox: Outbox,
    counters: Arc<TaskCounters>,
    clock: Clock,
    default_stream: StreamId,
    receivers: Vec<TaskId>,
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
        let default_stream = StreamId::default_stream();
        let receivers = Vec::new();
        Ok(Self { router, outbox, counters, clock, default_stream, receivers })
    }

    /// Returns the receivers of the last emit.
    pub(crate) fn receivers(&self) -> &[TaskId] {
        &self.receivers
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
        emit: impl Into<Emitted>,
        n_trees: usize,
        metrics: &mut TaskMetrics,
        anchor: impl FnOnce(&[TaskId], StreamIndex) -> Anchors,
    ) -> Result<&[TaskId], EmitError> {
        let emit = emit.into();
        let stream = emit.stream.as_ref().unwrap_or(&self.default_stream);
        self.router.route(stream, &emit.values, emit.direct, &mut self.receivers)?;
        if n_trees > TREES_MAX {
            return Err(EmitError::TooManyTrees { stream: stream.clone(), n: n_trees });
        }
        let limit = limits::tuple_bytes_max(n_trees);
        if let Some(bytes) = excess(&emit.values, limit) {
            return Err(EmitError::TooLarge { stream: stream.clone(), bytes, limit });
        }
        self.counters.emitted.add(1);
        let measured = metrics.emitted(stream);
        let begun = metrics.now(&self.clock);
        // A stream that was routed has an origin; without receivers no tuple is needed.
        let Some(origin) = self.router.origin(stream).filter(|_| !self.receivers.is_empty()) else {
            return Ok(&[]);
        };
        let anchors = anchor(&self.receivers, measured);
        let tuple = Tuple::new(Arc::clone(origin), emit.values).in_trees(anchors).at(begun);
        for receiver in &self.receivers {
            // The loop may be killed while it waits for room: write the counters first.
            let sent = self.outbox.send_or(*receiver, tuple.clone(), || metrics.settle()).await;
            if sent == Sent::Queued {
                self.counters.transferred.add(1);
                metrics.transferred(measured);
            }
        }
        if let Some(begun) = begun.filter(|_| metrics.times_emits()) {
            metrics.record_emit_time(self.clock.monotonic().since(begun));
        }
        Ok(&self.receivers)
    }
}
