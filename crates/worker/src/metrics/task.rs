//! Metrics of one task, recorded by its own loop.
//!
//! The loop owns these instruments: counting takes no lock, and finding a stream's instruments
//! takes a linear search through the task's streams.

mod calls;
mod ledger;
mod whole_task;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tracing::warn;

use calls::Calls;
use ledger::Ledger;
use whole_task::WholeTask;

use super::{
    Metrics,
    load::{BoltLoad, Load},
    user::UserInstrument,
};
use stormkeeper_metric_shipping::spool::CounterFile;
use stormkeeper_metrics::{
    MetricName, MetricType, Subject, UserMetrics, builtin,
    instrument::{Counter, Gauge, Histogram, Meter},
    name::UDF,
};
use stormkeeper_model::{
    ComponentId, StreamId, TaskId,
    clock::{Clock, Monotonic},
};
use stormkeeper_stream::{Origin, Value};

/// Limit of streams of a task with their own metrics, in each direction: no topology declares as
/// many. Tuples of further streams count for the task as a whole.
const STREAMS_MAX: usize = 1000;

/// One in this many messages of a child is timed: two readings of the clock cost a tenth of what
/// parsing a small message does.
const TIMED_MESSAGES: u64 = 16;

/// Index of a stream in the task's list of input streams or of output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamIndex(u16);

impl StreamIndex {
    /// No stream: metrics are disabled, or there are too many streams.
    pub(crate) const UNKNOWN: Self = Self(u16::MAX);
}

/// Metrics of one task; empty if metrics are disabled.
#[derive(Debug, Default)]
pub(crate) struct TaskMetrics(Option<Box<TaskInstruments>>);

#[derive(Debug)]
struct TaskInstruments {
    metrics: Metrics,
    component: ComponentId,
    task: TaskId,
    outputs: Vec<(StreamId, OutputStream)>,
    inputs: Vec<((ComponentId, StreamId), InputStream)>,
    whole: WholeTask,
    calls: Calls,
    // Created with the first pending tuple of a spout.
    pending: Option<Gauge>,
    load: Arc<Load>,
    bolt: BoltLoad,
    // Time of the current batch of messages.
    now: Option<Monotonic>,
    taken: Option<Monotonic>,
    n_messages: u64,
    client: UserMetrics,
    user_instruments: HashMap<(&'static str, String), UserInstrument>,
    ledger: Ledger,
}

/// Instruments of a stream that the task emits to.
#[derive(Debug)]
struct OutputStream {
    emitted: Counter,
    transferred: Counter,
    sent: Meter,
    acked: Counter,
    // Created with the first tuple whose tree ends.
    trees: Option<Trees>,
}

/// Instruments of the trees that begin on a stream of a spout.
#[derive(Debug)]
struct Trees {
    failed: Counter,
    latency: Histogram,
}

/// Instruments of a stream that the task receives.
#[derive(Debug)]
struct InputStream {
    executed: Counter,
    received: Meter,
    acked: Counter,
    failed: Counter,
    latency: Histogram,
    life: Histogram,
}

impl TaskMetrics {
    /// Creates the metrics of a task of this worker.
    pub(crate) fn new(metrics: &Metrics, component: ComponentId, task: TaskId) -> Self {
        let file = CounterFile::create(metrics.dir(), task);
        if let Err(error) = &file {
            warn!(%task, %error, "cannot create the counter file of a task; a crash loses counts that are not yet in a report");
        }
        let mut ledger = Ledger { task, file: file.ok(), counters: Vec::new(), n_failures: 0 };
        let load = Arc::new(Load::new(metrics.clock().monotonic()));
        metrics.keep_load(task, &load);
        let whole = WholeTask::new(metrics, &component, task, &load, &mut ledger);
        let client = metrics.user_client(component.clone(), task);
        Self(Some(Box::new(TaskInstruments {
            metrics: metrics.clone(),
            component,
            task,
            outputs: Vec::new(),
            inputs: Vec::new(),
            whole,
            calls: Calls::new(),
            pending: None,
            bolt: BoltLoad::new(Arc::clone(&load)),
            load,
            now: None,
            taken: None,
            n_messages: 0,
            client,
            user_instruments: HashMap::new(),
            ledger,
        })))
    }

    /// Returns whether metrics are enabled, so that the clock must be read.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Counts one emit to a stream. Returns the index of the stream.
    pub(crate) fn emitted(&mut self, stream: &StreamId) -> StreamIndex {
        let Some(on) = &mut self.0 else { return StreamIndex::UNKNOWN };
        let source = on.output(stream);
        if let Some((_, output)) = on.outputs.get(usize::from(source.0)) {
            output.emitted.increment();
            output.sent.mark();
        }
        source
    }

    /// Counts `n` copies of a tuple that were put in the queues of receivers.
    pub(crate) fn transferred(&mut self, stream: StreamIndex, n: u64) {
        if let Some((_, output)) = self.0.as_ref().and_then(|on| on.outputs.get(usize::from(stream.0))) {
            output.transferred.add(n);
        }
    }

    /// Counts a spout's tuple as acked, directly after the emit.
    pub(crate) fn acked_at_once(&mut self, stream: Option<&StreamId>) {
        let Some(on) = &mut self.0 else { return };
        let source = match stream {
            Some(stream) => on.output(stream),
            None => on.output(&StreamId::default_stream()),
        };
        if let Some((_, output)) = on.outputs.get(usize::from(source.0)) {
            output.acked.increment();
        }
    }

    /// Counts a spout's tuple whose tree is complete, after this time.
    pub(crate) fn tree_acked(&mut self, stream: StreamIndex, took: Duration) {
        let Some(on) = &mut self.0 else { return };
        let Some(trees) = on.trees(stream) else { return };
        trees.latency.update(micros(took));
        if let Some((_, output)) = on.outputs.get(usize::from(stream.0)) {
            output.acked.increment();
        }
    }

    /// Counts a spout's tuple whose tree has failed or timed out.
    pub(crate) fn tree_failed(&mut self, stream: StreamIndex) {
        let Some(on) = &mut self.0 else { return };
        match on.trees(stream) {
            Some(trees) => trees.failed.increment(),
            None => on.whole.failed.increment(),
        }
    }

    /// Records the time of telling the ackers what became of tuples.
    pub(crate) fn settled(&mut self, took: Duration) {
        if let Some(on) = &self.0 {
            on.whole.acker_time.update(micros(took));
        }
    }

    /// Sets the number of a spout's tuples whose outcome it does not know.
    pub(crate) fn pending(&mut self, n: usize) {
        let Some(on) = &mut self.0 else { return };
        if n > 0 || on.pending.is_some() {
            on.pending().set(n as f64);
        }
    }

    /// Records the time of an emit until its tuples were in all queues; called only if enabled.
    pub(crate) fn record_emit_time(&mut self, took: Duration) {
        if let Some(on) = &self.0 {
            on.whole.emit_time.update(micros(took));
        }
    }

    /// Returns the time at which the current batch of messages began: a reading of the clock for
    /// each emit would cost as much as all of its counting. `None` if metrics are disabled.
    pub(crate) fn now(&mut self, clock: &Clock) -> Option<Monotonic> {
        let on = self.0.as_mut()?;
        match on.now.filter(|_| !on.metrics.times_emits()) {
            Some(now) => Some(now),
            None => {
                let now = clock.monotonic();
                on.now = Some(now);
                Some(now)
            }
        }
    }

    /// Returns whether [`record_emit_time`](Self::record_emit_time) is enabled.
    pub(crate) fn times_emits(&self) -> bool {
        self.0.as_ref().is_some_and(|on| on.metrics.times_emits())
    }

    /// Records that tuples were taken from the inbox.
    pub(crate) fn batch_received(&mut self, now: Monotonic) {
        if let Some(on) = &mut self.0
            && let Some(before) = on.taken.replace(now)
        {
            on.whole.batch_inter_time.update(micros(now.since(before)));
        }
    }

    /// Counts a tuple that is sent to the bolt. Returns the index of the tuple's input stream.
    pub(crate) fn executed(
        &mut self,
        origin: &Origin,
        emitted_at: Option<Monotonic>,
        now: Monotonic,
    ) -> StreamIndex {
        let Some(on) = &mut self.0 else { return StreamIndex::UNKNOWN };
        let source = on.input(&origin.component, &origin.stream);
        if let Some((_, input)) = on.inputs.get(usize::from(source.0)) {
            input.executed.increment();
            input.received.mark();
            if let Some(emitted) = emitted_at {
                input.life.update(micros(now.since(emitted)));
            }
        }
        source
    }

    /// Records that a batch of tuples was encoded for the child's stdin.
    pub(crate) fn serialized(&mut self, took: Duration) {
        if let Some(on) = &self.0 {
            on.whole.serialize_time.update(micros(took));
        }
    }

    /// Records that `waiting` of at most `limit` tuples wait for the child.
    pub(crate) fn waiting(&mut self, waiting: usize, limit: usize) {
        if let Some(on) = &self.0 {
            on.whole.serialize_queue.set(100.0 * waiting as f64 / limit.max(1) as f64);
        }
    }

    /// Returns whether the parsing of the next message must be timed.
    pub(crate) fn times_message(&mut self) -> bool {
        self.0.as_mut().is_some_and(|on| {
            on.n_messages = on.n_messages.wrapping_add(1);
            on.n_messages.is_multiple_of(TIMED_MESSAGES)
        })
    }

    /// Records the parsing time of one message.
    pub(crate) fn deserialized(&mut self, took: Duration) {
        if let Some(on) = &self.0 {
            on.whole.deserialize_time.update(micros(took));
        }
    }

    /// Counts a tuple that a bolt's child acked.
    pub(crate) fn child_acked(&mut self, source: StreamIndex, given: Monotonic, now: Monotonic) {
        if let Some(on) = &mut self.0 {
            on.bolt.settled(given);
        }
        self.acked(source, given, now);
    }

    /// Counts a tuple that a bolt's child failed, or that was in flight when the child ended.
    pub(crate) fn child_failed(&mut self, source: StreamIndex, given: Monotonic) {
        if let Some(on) = &mut self.0 {
            on.bolt.settled(given);
        }
        self.failed(source);
    }

    /// Counts a tuple that was acked after the call in which it came.
    pub(crate) fn acked(&mut self, source: StreamIndex, given: Monotonic, now: Monotonic) {
        let Some(on) = &mut self.0 else { return };
        if let Some((_, input)) = on.inputs.get(usize::from(source.0)) {
            input.acked.increment();
            input.latency.update(micros(now.since(given)));
        }
    }

    /// Counts a tuple that failed.
    pub(crate) fn failed(&mut self, source: StreamIndex) {
        let Some(on) = &mut self.0 else { return };
        match on.inputs.get(usize::from(source.0)) {
            Some((_, input)) => input.failed.increment(),
            None => on.whole.failed.increment(),
        }
    }

    /// Counts a spout's tuple that was refused or had no receiver.
    pub(crate) fn failed_at_once(&mut self) {
        if let Some(on) = &self.0 {
            on.whole.failed.increment();
        }
    }

    /// Records that a heartbeat was sent to a bolt's child.
    pub(crate) fn heartbeat_sent(&mut self, now: Monotonic) {
        if let Some(on) = &mut self.0 {
            on.bolt.asked(now);
        }
    }

    /// Records that a bolt's child answered a heartbeat.
    pub(crate) fn heartbeat_answered(&mut self) {
        if let Some(on) = &mut self.0 {
            on.bolt.answered();
        }
    }

    /// Records that a batch of messages of a bolt's child was handled. The busy time since the last
    /// completed tuple is divided among the tuples completed in this batch.
    pub(crate) fn bolt_messages_handled(&mut self, now: Monotonic) {
        let Some(on) = &mut self.0 else { return };
        if let Some((n, busy)) = on.bolt.handled(now) {
            for _ in 0..n {
                on.whole.executor_time.update(micros(busy));
            }
        }
        on.ledger.write();
    }

    /// Returns the user metrics of the task; `None` if metrics are disabled.
    pub(crate) fn user_client(&self) -> Option<UserMetrics> {
        self.0.as_ref().map(|on| on.client.clone())
    }

    /// Adds a user's counter to those that survive a crash.
    pub(crate) fn keep_user_counter(&mut self, name: &str) {
        let Some(on) = &mut self.0 else { return };
        let TaskInstruments { metrics, ledger, component, task, .. } = &mut **on;
        let subject = Subject::Task { component: component.clone(), task: *task };
        let name = MetricName::new(metrics.topology().clone(), MetricType::Counter, subject, UDF, name);
        if let Ok(name) = name {
            ledger.add(metrics, &name);
        }
    }

    /// Records that a `next` was sent to a spout.
    pub(crate) fn spout_call_began(&mut self, now: Monotonic) {
        if let Some(on) = &mut self.0 {
            on.load.call_began(now);
        }
    }

    /// Records a completed `next` of a spout.
    pub(crate) fn spout_called(&mut self, took: Duration, is_empty: bool) {
        let Some(on) = &mut self.0 else { return };
        on.whole.executor_time.update(micros(took));
        on.load.call_ended(took, is_empty);
    }

    /// Records the end of the child; the tuples that were in flight are counted as failed before.
    pub(crate) fn child_ended(&mut self) {
        let Some(on) = &mut self.0 else { return };
        on.load.child_ended();
        if let Some(busy) = on.bolt.child_ended(on.metrics.clock().monotonic()) {
            on.whole.executor_time.update(micros(busy));
        }
    }

    /// Updates a user metric.
    ///
    /// # Errors
    /// Description of the error in the update, for operators.
    pub(crate) fn update_user_metric(&mut self, name: &str, params: &Value) -> Result<(), String> {
        let Some(on) = &mut self.0 else { return Ok(()) };
        let TaskInstruments { metrics, client, user_instruments, ledger, component, task, .. } = &mut **on;
        super::user::apply(user_instruments, client, name, params, |name| {
            let subject = Subject::Task { component: component.clone(), task: *task };
            let name = MetricName::new(metrics.topology().clone(), MetricType::Counter, subject, UDF, name);
            if let Ok(name) = name {
                ledger.add(metrics, &name);
            }
        })
    }

    /// Writes the counters to disk before the loop waits, and ends the batch of messages: the next
    /// batch reads the clock again.
    pub(crate) fn settle(&mut self) {
        if let Some(on) = &mut self.0 {
            on.ledger.write();
            on.now = None;
        }
    }
}

impl TaskInstruments {
    fn trees(&mut self, stream: StreamIndex) -> Option<&Trees> {
        let Self { outputs, metrics, component, task, ledger, .. } = self;
        let (stream, output) = outputs.get_mut(usize::from(stream.0))?;
        Some(output.trees.get_or_insert_with(|| {
            let subject = stream_of(component, *task, stream);
            Trees {
                failed: ledger.counter(metrics, &builtin::FAILED, &subject),
                latency: metrics.registry().histogram(metrics.name(&builtin::PROCESS_LATENCY, &subject)),
            }
        }))
    }

    fn pending(&mut self) -> &Gauge {
        let Self { pending, metrics, component, task, .. } = self;
        pending.get_or_insert_with(|| {
            let subject = Subject::Task { component: component.clone(), task: *task };
            metrics.registry().gauge(metrics.name(&builtin::PENDING_NUM, &subject))
        })
    }

    fn output(&mut self, stream: &StreamId) -> StreamIndex {
        if let Some(place) = self.outputs.iter().position(|(known, _)| known == stream) {
            return stream_index(place);
        }
        if self.outputs.len() >= STREAMS_MAX {
            return StreamIndex::UNKNOWN;
        }
        let (metrics, ledger) = (self.metrics.clone(), &mut self.ledger);
        let subject = stream_of(&self.component, self.task, stream);
        let output = OutputStream {
            emitted: ledger.counter(&metrics, &builtin::EMITTED, &subject),
            transferred: ledger.counter(&metrics, &builtin::TRANSFERRED, &subject),
            sent: metrics.registry().meter(metrics.name(&builtin::SEND_TPS, &subject)),
            acked: ledger.counter(&metrics, &builtin::ACKED, &subject),
            trees: None,
        };
        self.outputs.push((stream.clone(), output));
        stream_index(self.outputs.len() - 1)
    }

    fn input(&mut self, component: &ComponentId, stream: &StreamId) -> StreamIndex {
        let place = self.inputs.iter().position(|((from, on), _)| on == stream && from == component);
        if let Some(place) = place {
            return stream_index(place);
        }
        if self.inputs.len() >= STREAMS_MAX {
            return StreamIndex::UNKNOWN;
        }
        let (metrics, ledger) = (self.metrics.clone(), &mut self.ledger);
        let subject = stream_of(&self.component, self.task, stream);
        let histogram = |metric| metrics.registry().histogram(metrics.name(metric, &subject));
        let received = metrics.instance_name(&builtin::RECV_TPS, &subject, component.as_str());
        let input = InputStream {
            executed: ledger.counter(&metrics, &builtin::EXECUTED, &subject),
            received: metrics.registry().meter(received),
            acked: ledger.counter(&metrics, &builtin::ACKED, &subject),
            failed: ledger.counter(&metrics, &builtin::FAILED, &subject),
            latency: histogram(&builtin::PROCESS_LATENCY),
            life: histogram(&builtin::TUPLE_LIFE_CYCLE),
        };
        self.inputs.push(((component.clone(), stream.clone()), input));
        stream_index(self.inputs.len() - 1)
    }
}

fn stream_index(place: usize) -> StreamIndex {
    StreamIndex(u16::try_from(place).expect("there are at most STREAMS_MAX"))
}

fn stream_of(component: &ComponentId, task: TaskId, stream: &StreamId) -> Subject {
    Subject::Stream { component: component.clone(), task, stream: stream.clone() }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
