//! Numbers of a task between two samples, and their sums for a component. Pure.

use std::collections::BTreeMap;

use stormkeeper_api_types::message::live::{LiveComponent, LiveRates, LiveStream};
use stormkeeper_metrics::live::{StreamCounts, TaskSample, Total};
use stormkeeper_model::{ComponentId, StreamId, heartbeat::TaskCounts};

/// Maximum number of streams of a component in an answer; further ones are counted.
const STREAMS_MAX: usize = 50;

/// What a task did between two samples.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) rates: Option<LiveRates>,
    pub(super) capacity: Option<f64>,
    execute: Total,
    process: Total,
    /// Tuples emitted to each stream, per second.
    streams: BTreeMap<StreamId, f64>,
}

impl Measured {
    /// Returns what a task did from `before` until `now`, in some `seconds`; nothing without `before`.
    pub(super) fn between(before: Option<&TaskSample>, now: &TaskSample, seconds: f64) -> Self {
        let Some(before) = before else { return Self::default() };
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let emitted = |stream: &StreamId| before.streams.get(stream).map_or(0, |counts| counts.emitted);
        let busy = now.busy_us.zip(before.busy_us);
        Self {
            rates: Some(rates(&before.counts, &now.counts, per_second)),
            capacity: busy.map(|(now, before)| (per_second(now, before) / 1e6).min(1.0)),
            execute: now.execute.since(before.execute),
            process: now.process.since(before.process),
            streams: now
                .streams
                .iter()
                .map(|(stream, counts)| (stream.clone(), per_second(counts.emitted, emitted(stream))))
                .collect(),
        }
    }
}

fn rates(before: &TaskCounts, now: &TaskCounts, per_second: impl Fn(u64, u64) -> f64) -> LiveRates {
    LiveRates {
        emitted: per_second(now.emitted, before.emitted),
        transferred: per_second(now.transferred, before.transferred),
        executed: per_second(now.executed, before.executed),
        acked: per_second(now.acked, before.acked),
        failed: per_second(now.failed, before.failed),
    }
}

/// Sums of the tasks of a component.
#[derive(Debug, Default)]
pub(super) struct ComponentSum {
    n_tasks: usize,
    counts: TaskCounts,
    rates: Option<LiveRates>,
    pending: u64,
    /// Sum of the busy shares, and the number of tasks that have one.
    busy: (f64, usize),
    queue: Option<f64>,
    execute: Total,
    process: Total,
    streams: BTreeMap<StreamId, (StreamCounts, Option<f64>)>,
}

impl ComponentSum {
    pub(super) fn add(&mut self, task: &TaskSample, measured: Measured) {
        self.n_tasks += 1;
        self.counts += task.counts;
        self.pending = self.pending.saturating_add(task.pending);
        self.queue = task.queue.into_iter().chain(self.queue).reduce(f64::max);
        self.execute.add(measured.execute);
        self.process.add(measured.process);
        if let Some(share) = measured.capacity {
            self.busy = (self.busy.0 + share, self.busy.1 + 1);
        }
        if let Some(of_task) = measured.rates {
            let sum = self.rates.get_or_insert_default();
            sum.emitted += of_task.emitted;
            sum.transferred += of_task.transferred;
            sum.executed += of_task.executed;
            sum.acked += of_task.acked;
            sum.failed += of_task.failed;
        }
        for (stream, counts) in &task.streams {
            let (sum, _) = self.streams.entry(stream.clone()).or_default();
            sum.emitted = sum.emitted.saturating_add(counts.emitted);
            sum.transferred = sum.transferred.saturating_add(counts.transferred);
        }
        for (stream, rate) in measured.streams {
            let (_, sum) = self.streams.entry(stream).or_default();
            *sum = Some(sum.unwrap_or_default() + rate);
        }
    }

    /// Returns the numbers of the component, and the number of streams that are left out.
    pub(super) fn result(self, id: ComponentId) -> (LiveComponent, usize) {
        let (busy, n_busy) = self.busy;
        let omitted = self.streams.len().saturating_sub(STREAMS_MAX);
        let streams = self.streams.into_iter().take(STREAMS_MAX).map(|(id, (counts, emitted_rate))| {
            let StreamCounts { emitted, transferred } = counts;
            LiveStream { id, emitted, transferred, emitted_rate }
        });
        let component = LiveComponent {
            id,
            tasks: self.n_tasks,
            counts: self.counts,
            rates: self.rates,
            pending: self.pending,
            capacity: (n_busy > 0).then(|| busy / n_busy as f64),
            queue: self.queue,
            execute_us: self.execute.mean(),
            process_us: self.process.mean(),
            streams: streams.collect(),
        };
        (component, omitted)
    }
}
