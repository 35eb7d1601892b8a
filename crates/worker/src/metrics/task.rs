//! What is measured of one task, by its own loop.
//!
//! The loop owns all of this: counting costs no lock, and a stream costs a look-up in a list
//! that is as long as the task has streams.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tracing::warn;

use super::{Metrics, user::User};
use stormkeeper_metric_shipping::spool::CounterFile;
use stormkeeper_metrics::{
    Builtin, MetricName, MetricType, Subject, UserMetrics, builtin,
    instrument::{Counter, Gauge, Histogram, Meter},
    name::UDF,
};
use stormkeeper_model::{
    ComponentId, StreamId, TaskId,
    clock::{Clock, Monotonic},
};
use stormkeeper_stream::{Tuple, Value};

/// How many streams of a task are told apart in each direction: no topology declares as many.
/// What comes on others counts for the task as a whole.
const STREAMS_MAX: usize = 1000;

/// One message of a child in so many is timed: two readings of the clock cost a tenth of what
/// reading a small message does.
const TIMED_MESSAGES: u64 = 16;

/// The stream that a bolt's tuple came on; a place in a list of its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source(u16);

impl Source {
    /// Nothing is measured, or there are too many.
    pub(crate) const UNKNOWN: Self = Self(u16::MAX);
}

/// What one task measures; nothing when that is switched off.
#[derive(Debug, Default)]
pub(crate) struct TaskMetrics(Option<Box<Measured>>);

#[derive(Debug)]
struct Measured {
    metrics: Metrics,
    component: ComponentId,
    task: TaskId,
    sinks: Vec<(StreamId, Sink)>,
    sources: Vec<((ComponentId, StreamId), Incoming)>,
    whole: Whole,
    load: Arc<Load>,
    // When the component was last seen to be done with something.
    done: Option<Monotonic>,
    // Acked since the last look at the clock.
    n_done: u32,
    // The time of the batch of messages in hand.
    now: Option<Monotonic>,
    taken: Option<Monotonic>,
    n_messages: u64,
    client: UserMetrics,
    users: HashMap<(&'static str, String), User>,
    ledger: Ledger,
}

/// A stream that the task emits to.
#[derive(Debug)]
struct Sink {
    emitted: Counter,
    transferred: Counter,
    sent: Meter,
    acked: Counter,
}

/// A stream that it receives.
#[derive(Debug)]
struct Incoming {
    executed: Counter,
    received: Meter,
    acked: Counter,
    failed: Counter,
    latency: Histogram,
    life: Histogram,
}

/// What is of the whole task.
#[derive(Debug)]
struct Whole {
    failed: Counter,
    executor_time: Histogram,
    emit_time: Histogram,
    serialize_time: Histogram,
    deserialize_time: Histogram,
    batch_inter_time: Histogram,
    serialize_queue: Gauge,
}

/// What gauges are made of when they are read.
#[derive(Debug, Default)]
struct Load {
    busy_micros: AtomicU64,
    n_calls: AtomicU64,
    n_empty_calls: AtomicU64,
}

/// How far the counters are, on disk.
#[derive(Debug)]
struct Ledger {
    task: TaskId,
    file: Option<CounterFile>,
    counters: Vec<Counter>,
    n_failures: u64,
}

impl TaskMetrics {
    /// Of a task of this worker.
    pub(crate) fn new(metrics: &Metrics, component: ComponentId, task: TaskId) -> Self {
        let file = CounterFile::create(metrics.dir(), task);
        if let Err(error) = &file {
            warn!(%task, %error, "counts of this task are not kept on disk; a crash loses what no report holds");
        }
        let mut ledger = Ledger { task, file: file.ok(), counters: Vec::new(), n_failures: 0 };
        let load = Arc::new(Load::default());
        let whole = Whole::new(metrics, &component, task, &load, &mut ledger);
        let client = metrics.user_client(component.clone(), task);
        Self(Some(Box::new(Measured {
            metrics: metrics.clone(),
            component,
            task,
            sinks: Vec::new(),
            sources: Vec::new(),
            whole,
            load,
            done: None,
            n_done: 0,
            now: None,
            taken: None,
            n_messages: 0,
            client,
            users: HashMap::new(),
            ledger,
        })))
    }

    /// Whether anything is measured, so that reading the clock is worth it.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// One emit to a stream. Answers which of the task's streams it is.
    pub(crate) fn emitted(&mut self, stream: &StreamId) -> Source {
        let Some(on) = &mut self.0 else { return Source::UNKNOWN };
        let source = on.sink(stream);
        if let Some((_, sink)) = on.sinks.get(usize::from(source.0)) {
            sink.emitted.increment();
            sink.sent.mark();
        }
        source
    }

    /// One tuple is in the queue of a receiver.
    pub(crate) fn transferred(&mut self, stream: Source) {
        if let Some((_, sink)) = self.0.as_ref().and_then(|on| on.sinks.get(usize::from(stream.0))) {
            sink.transferred.increment();
        }
    }

    /// A spout's tuple counts as acked as soon as it was emitted.
    pub(crate) fn acked_at_once(&mut self, stream: Option<&StreamId>) {
        let Some(on) = &mut self.0 else { return };
        let source = match stream {
            Some(stream) => on.sink(stream),
            None => on.sink(&StreamId::default_stream()),
        };
        if let Some((_, sink)) = on.sinks.get(usize::from(source.0)) {
            sink.acked.increment();
        }
    }

    /// How long an emit took until its tuples were in all queues; asked for only when wanted.
    pub(crate) fn emit_took(&mut self, took: Duration) {
        if let Some(on) = &self.0 {
            on.whole.emit_time.update(micros(took));
        }
    }

    /// The time, as of the beginning of the batch of messages in hand: a reading for each emit
    /// would cost as much as all that is counted of it. None when nothing is measured.
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

    /// Whether [`emit_took`](Self::emit_took) is wanted.
    pub(crate) fn times_emits(&self) -> bool {
        self.0.as_ref().is_some_and(|on| on.metrics.times_emits())
    }

    /// Tuples were taken out of the inbox.
    pub(crate) fn took_batch(&mut self, now: Monotonic) {
        if let Some(on) = &mut self.0
            && let Some(before) = on.taken.replace(now)
        {
            on.whole.batch_inter_time.update(micros(now.since(before)));
        }
    }

    /// A tuple is handed to the bolt. Answers which stream it came on.
    pub(crate) fn executed(&mut self, tuple: &Tuple, now: Monotonic) -> Source {
        let Some(on) = &mut self.0 else { return Source::UNKNOWN };
        let source = on.source(tuple.component(), tuple.stream());
        if let Some((_, incoming)) = on.sources.get(usize::from(source.0)) {
            incoming.executed.increment();
            incoming.received.mark();
            if let Some(emitted) = tuple.emitted_at() {
                incoming.life.update(micros(now.since(emitted)));
            }
        }
        source
    }

    /// Tuples were made ready for the child's stdin; `waiting` of at most `limit` are ahead of it.
    pub(crate) fn serialized(&mut self, n: usize, took: Duration, (waiting, limit): (usize, usize)) {
        let Some(on) = &self.0 else { return };
        if n > 0 {
            on.whole.serialize_time.update(micros(took));
        }
        on.whole.serialize_queue.set(100.0 * waiting as f64 / limit.max(1) as f64);
    }

    /// Whether the reading of the next message is to be timed.
    pub(crate) fn times_message(&mut self) -> bool {
        self.0.as_mut().is_some_and(|on| {
            on.n_messages = on.n_messages.wrapping_add(1);
            on.n_messages.is_multiple_of(TIMED_MESSAGES)
        })
    }

    /// How long one message took to be read.
    pub(crate) fn deserialized(&mut self, took: Duration) {
        if let Some(on) = &self.0 {
            on.whole.deserialize_time.update(micros(took));
        }
    }

    /// The bolt acked a tuple.
    pub(crate) fn acked(&mut self, source: Source, given: Monotonic, now: Monotonic) {
        let Some(on) = &mut self.0 else { return };
        on.n_done += 1;
        if let Some((_, incoming)) = on.sources.get(usize::from(source.0)) {
            incoming.acked.increment();
            incoming.latency.update(micros(now.since(given)));
        }
        on.done = Some(on.done.map_or(given, |done| done.max(given)));
    }

    /// The bolt failed a tuple, or died with it.
    pub(crate) fn failed(&mut self, source: Source) {
        let Some(on) = &mut self.0 else { return };
        match on.sources.get(usize::from(source.0)) {
            Some((_, incoming)) => incoming.failed.increment(),
            None => on.whole.failed.increment(),
        }
    }

    /// Messages of a bolt's child were handled: what it was busy with since it was last done is
    /// shared out over the tuples that it is done with now.
    pub(crate) fn bolt_heard(&mut self, now: Monotonic) {
        let Some(on) = &mut self.0 else { return };
        let n = std::mem::take(&mut on.n_done);
        if let Some(begun) = on.done.filter(|_| n > 0) {
            let busy = now.since(begun);
            for _ in 0..n {
                on.whole.executor_time.update(micros(busy) / f64::from(n));
            }
            on.load.busy(busy);
            on.done = Some(now);
        }
        on.ledger.write();
    }

    /// A spout's `next` is done.
    pub(crate) fn called(&mut self, took: Duration, is_empty: bool) {
        let Some(on) = &mut self.0 else { return };
        on.whole.executor_time.update(micros(took));
        on.load.busy(took);
        on.load.n_calls.fetch_add(1, Ordering::Relaxed);
        on.load.n_empty_calls.fetch_add(u64::from(is_empty), Ordering::Relaxed);
    }

    /// A value of a metric of the component's own.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(crate) fn user(&mut self, name: &str, params: &Value) -> Result<(), String> {
        let Some(on) = &mut self.0 else { return Ok(()) };
        let Measured { metrics, client, users, ledger, component, task, .. } = &mut **on;
        super::user::take(users, client, name, params, |name| {
            let subject = Subject::Task { component: component.clone(), task: *task };
            let name = MetricName::new(metrics.topology().clone(), MetricType::Counter, subject, UDF, name);
            if let Ok(name) = name {
                ledger.add(metrics, &name);
            }
        })
    }

    /// Writes how far the counters are, before the loop waits for something; the time is another
    /// after it.
    pub(crate) fn settle(&mut self) {
        if let Some(on) = &mut self.0 {
            on.ledger.write();
            on.now = None;
        }
    }
}

impl Measured {
    fn sink(&mut self, stream: &StreamId) -> Source {
        if let Some(place) = self.sinks.iter().position(|(known, _)| known == stream) {
            return place_of(place);
        }
        if self.sinks.len() >= STREAMS_MAX {
            return Source::UNKNOWN;
        }
        let (metrics, ledger) = (self.metrics.clone(), &mut self.ledger);
        let subject = stream_of(&self.component, self.task, stream);
        let sink = Sink {
            emitted: ledger.counter(&metrics, &builtin::EMITTED, &subject),
            transferred: ledger.counter(&metrics, &builtin::TRANSFERRED, &subject),
            sent: metrics.registry().meter(metrics.name(&builtin::SEND_TPS, &subject)),
            acked: ledger.counter(&metrics, &builtin::ACKED, &subject),
        };
        self.sinks.push((stream.clone(), sink));
        place_of(self.sinks.len() - 1)
    }

    fn source(&mut self, component: &ComponentId, stream: &StreamId) -> Source {
        let place = self.sources.iter().position(|((from, on), _)| on == stream && from == component);
        if let Some(place) = place {
            return place_of(place);
        }
        if self.sources.len() >= STREAMS_MAX {
            return Source::UNKNOWN;
        }
        let (metrics, ledger) = (self.metrics.clone(), &mut self.ledger);
        let subject = stream_of(&self.component, self.task, stream);
        let histogram = |metric| metrics.registry().histogram(metrics.name(metric, &subject));
        let received = metrics.name_of_one(&builtin::RECV_TPS, &subject, component.as_str());
        let incoming = Incoming {
            executed: ledger.counter(&metrics, &builtin::EXECUTED, &subject),
            received: metrics.registry().meter(received),
            acked: ledger.counter(&metrics, &builtin::ACKED, &subject),
            failed: ledger.counter(&metrics, &builtin::FAILED, &subject),
            latency: histogram(&builtin::PROCESS_LATENCY),
            life: histogram(&builtin::TUPLE_LIFE_CYCLE),
        };
        self.sources.push(((component.clone(), stream.clone()), incoming));
        place_of(self.sources.len() - 1)
    }
}

fn place_of(place: usize) -> Source {
    Source(u16::try_from(place).expect("there are at most STREAMS_MAX"))
}

fn stream_of(component: &ComponentId, task: TaskId, stream: &StreamId) -> Subject {
    Subject::Stream { component: component.clone(), task, stream: stream.clone() }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl Whole {
    fn new(
        metrics: &Metrics,
        component: &ComponentId,
        task: TaskId,
        load: &Arc<Load>,
        ledger: &mut Ledger,
    ) -> Self {
        let subject = Subject::Task { component: component.clone(), task };
        let name = |metric: &Builtin| metrics.name(metric, &subject);
        let histogram = |metric| metrics.registry().histogram(name(metric));
        let share = |part: fn(&Load) -> u64, whole: fn(&Load) -> u64| {
            let (load, before) = (Arc::clone(load), (AtomicU64::new(0), AtomicU64::new(0)));
            move || {
                let since =
                    |now: u64, before: &AtomicU64| now.saturating_sub(before.swap(now, Ordering::Relaxed));
                let (part, whole) = (since(part(&load), &before.0), since(whole(&load), &before.1));
                (whole > 0).then(|| (part as f64 / whole as f64).min(1.0))
            }
        };
        let empty = share(
            |load| load.n_empty_calls.load(Ordering::Relaxed),
            |load| load.n_calls.load(Ordering::Relaxed),
        );
        let (clock, busy, before) = (metrics.clock().clone(), Arc::clone(load), AtomicU64::new(0));
        let began = clock.monotonic();
        let passed = AtomicU64::new(0);
        let capacity = move || {
            let now = u64::try_from(clock.monotonic().since(began).as_micros()).unwrap_or(u64::MAX);
            let time = now.saturating_sub(passed.swap(now, Ordering::Relaxed));
            let total = busy.busy_micros.load(Ordering::Relaxed);
            let worked = total.saturating_sub(before.swap(total, Ordering::Relaxed));
            (time > 0).then(|| (worked as f64 / time as f64).min(1.0))
        };
        // A worker that is full of metrics does without; the refusal is counted.
        let _full = metrics.registry().gauge_fn(name(&builtin::EMPTY_CPU_RATIO), empty);
        let _full = metrics.registry().gauge_fn(name(&builtin::CAPACITY), capacity);
        Self {
            failed: ledger.counter(metrics, &builtin::FAILED, &subject),
            executor_time: histogram(&builtin::EXECUTOR_TIME),
            emit_time: histogram(&builtin::EMIT_TIME),
            serialize_time: histogram(&builtin::SERIALIZE_TIME),
            deserialize_time: histogram(&builtin::DESERIALIZE_TIME),
            batch_inter_time: histogram(&builtin::BATCH_INTER_TIME),
            serialize_queue: metrics.registry().gauge(name(&builtin::SERIALIZE_QUEUE)),
        }
    }
}

impl Load {
    fn busy(&self, time: Duration) {
        self.busy_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(0), Ordering::Relaxed);
    }
}

impl Ledger {
    fn counter(&mut self, metrics: &Metrics, metric: &Builtin, subject: &Subject) -> Counter {
        let name = metrics.name(metric, subject);
        let counter = metrics.registry().counter(name.clone());
        self.add(metrics, &name);
        counter
    }

    /// Keeps a counter on disk from now on, if it is not one that is kept already.
    fn add(&mut self, metrics: &Metrics, name: &MetricName) {
        let Some(file) = &mut self.file else { return };
        // Only this task's loop makes counters of the task, so a new one is the last.
        let row = metrics.registry().counters_of(self.task);
        let next = self.counters.len();
        let (Some(id), Some(counter)) = (row.ids.get(next), row.counters.get(next)) else { return };
        match file.add_slot(*id, name) {
            Ok(()) => self.counters.push(counter.clone()),
            Err(error) => {
                warn!(%name, %error, "the counts of a task are not kept on disk any more; a crash loses what no report holds");
                self.file = None;
            }
        }
    }

    fn write(&mut self) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write(self.counters.iter().map(Counter::read)) {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.n_failures += 1;
        // Once for each doubling: a full disk fails with every batch.
        if self.n_failures.is_power_of_two() {
            warn!(%error, so_far = self.n_failures, "counts cannot be written to disk; a crash would lose them");
        }
    }
}
