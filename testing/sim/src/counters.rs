//! What the simulated tasks and workers counted, and what the metric stores must therefore have:
//! derived from the journal alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
};

use crate::metric_log::MetricLogEvent;
use stormkeeper_coordination::cluster::metric_log::UncleanTakeover;
use stormkeeper_metrics::{
    Builtin, MetricId, MetricName, MetricType, Minute, Point, Subject, builtin, name::UDF, rollup,
};
use stormkeeper_model::{ComponentId, LogPosition, Port, StreamId, TaskId, Term, TopologyId, WorkerId};
use stormkeeper_worker::fake_worker::WORKER_COUNTER;

/// Counts of one worker since its last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) topology: TopologyId,
    pub(super) worker: WorkerId,
    pub(super) host: String,
    pub(super) port: Port,
    pub(super) tasks: Vec<TaskCounts>,
    /// Counts of the worker itself.
    pub(super) own: u64,
    /// Total of these counts that was in reports when the worker counted.
    pub(super) reported: u64,
}

/// Counts of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TaskCounts {
    pub(super) component: ComponentId,
    pub(super) task: TaskId,
    pub(super) emitted: u64,
    pub(super) failed: u64,
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} counted {}, of all {} are in reports", self.worker, self.own, self.reported)?;
        self.tasks.iter().try_for_each(|TaskCounts { task, emitted, failed, .. }| {
            write!(f, "; task {task} {emitted} emitted, {failed} failed")
        })
    }
}

/// Bounds of a counter in every metric store, once all reports are committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) min: u64,
    pub(super) max: u64,
}

/// Counts of a whole run.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Counts of tasks, on every level.
    tasks: BTreeMap<MetricName, u64>,
    /// Counts of the workers themselves.
    workers: BTreeMap<WorkerId, WorkerCount>,
    /// Counters of the batches in the metric log, by the position that the leader answered.
    batches: BTreeMap<LogPosition, BTreeMap<MetricId, u64>>,
    /// Sums of the batches that recorded unclean takeovers discarded.
    discarded: BTreeMap<MetricId, u64>,
    /// Term of the last unclean takeover.
    unclean: Option<Term>,
    /// Last value that the external store accepted of each counter of a minute.
    exported: BTreeMap<(MetricName, Minute), u64>,
}

#[derive(Debug)]
struct WorkerCount {
    names: Vec<MetricName>,
    total: u64,
    reported: u64,
    was_killed: bool,
}

impl Counters {
    /// Adds the counts of a worker.
    pub(super) fn count(&mut self, counts: &Counts) {
        for TaskCounts { component, task, emitted, failed } in &counts.tasks {
            for name in levels(&counts.topology, component, *task, &builtin::FAILED, false) {
                *self.tasks.entry(name).or_default() += failed;
            }
            for metric in [&builtin::EMITTED, &builtin::TRANSFERRED] {
                for name in levels(&counts.topology, component, *task, metric, true) {
                    *self.tasks.entry(name).or_default() += emitted;
                }
            }
        }
        let new = || {
            let worker = Subject::Worker { host: counts.host.clone(), port: counts.port.0 };
            let name = |topology, subject| {
                let name = MetricName::new(topology, MetricType::Counter, subject, UDF, WORKER_COUNTER);
                name.expect("hosts of a simulation are valid in names")
            };
            let names = vec![
                name(counts.topology.clone(), worker),
                name(counts.topology.clone(), Subject::Topology),
                name(rollup::cluster(), Subject::Topology),
            ];
            WorkerCount { names, total: 0, reported: 0, was_killed: false }
        };
        let worker = self.workers.entry(counts.worker.clone()).or_insert_with(new);
        worker.total += counts.own;
        worker.reported = counts.reported;
    }

    /// Notes that a worker ended before it had written its last report: the counts of its tasks are
    /// in their counter files, and those of the worker itself may be lost.
    pub(super) fn killed(&mut self, worker: &WorkerId) {
        if let Some(count) = self.workers.get_mut(worker) {
            count.was_killed = true;
        }
    }

    /// Adds a batch that the leader has stored at `at` or before.
    pub(super) fn stored(&mut self, at: LogPosition, points: &[(MetricId, Point)]) {
        let counters = points.iter().filter_map(|(id, point)| match point {
            Point::Counter(counter) => Some((*id, counter.count)),
            Point::Gauge(_) | Point::Meter(_) | Point::Histogram(_) | Point::Timer(_) => None,
        });
        let sums = self.batches.entry(at).or_default();
        counters.for_each(|(id, count)| *sums.entry(id).or_default() += count);
    }

    /// Notes which batches an unclean takeover discards.
    pub(super) fn metric_log(&mut self, event: &MetricLogEvent) {
        let MetricLogEvent::Published { state, log, .. } = event else { return };
        if let Some(takeover) = state.unclean_takeover.filter(|it| self.unclean < Some(it.term)) {
            self.discard(takeover, &log.iter().copied().collect());
        }
    }

    fn discard(&mut self, takeover: UncleanTakeover, log: &BTreeSet<LogPosition>) {
        self.unclean = Some(takeover.term);
        let UncleanTakeover { log_end, discarded_through, .. } = takeover;
        for (at, counters) in &self.batches {
            if *at > log_end && *at <= discarded_through && !log.contains(at) {
                counters.iter().for_each(|(id, count)| *self.discarded.entry(*id).or_default() += count);
            }
        }
    }

    /// Adds the counters of a minute that the external store accepted: an entry may be exported again,
    /// with the same or with corrected values.
    pub(super) fn exported(&mut self, minute: Minute, counters: &[(MetricName, u64)]) {
        self.exported.extend(counters.iter().map(|(name, count)| ((name.clone(), minute), *count)));
    }

    /// Returns the sum that the external store has of each counter.
    pub(super) fn exports(&self) -> BTreeMap<MetricName, u64> {
        let mut sums = BTreeMap::new();
        for ((name, _), count) in &self.exported {
            *sums.entry(name.clone()).or_default() += count;
        }
        sums
    }

    /// Returns the bounds of each counter.
    pub(super) fn bounds(&self) -> BTreeMap<MetricName, Bounds> {
        let of_tasks = self.tasks.iter().map(|(name, n)| (name.clone(), Bounds { min: *n, max: *n }));
        let mut bounds: BTreeMap<MetricName, Bounds> = of_tasks.collect();
        for WorkerCount { names, total, reported, was_killed } in self.workers.values() {
            for name in names {
                let bounds = bounds.entry(name.clone()).or_default();
                bounds.min += if *was_killed { reported } else { total };
                bounds.max += total;
            }
        }
        bounds
    }

    /// Returns the sum that recorded unclean takeovers discarded of a counter, or more: a batch that
    /// was sent again counts twice here.
    pub(super) fn discarded(&self, id: MetricId) -> u64 {
        self.discarded.get(&id).copied().unwrap_or(0)
    }
}

/// Names of a counter of a task on its own level and on all levels above.
fn levels(
    topology: &TopologyId,
    component: &ComponentId,
    task: TaskId,
    metric: &Builtin,
    has_streams: bool,
) -> Vec<MetricName> {
    let (component, stream) = (component.clone(), StreamId::default_stream());
    let mut subjects = vec![
        Subject::Task { component: component.clone(), task },
        Subject::Component { component: component.clone() },
        Subject::Topology,
    ];
    if has_streams {
        subjects.push(Subject::Stream { component: component.clone(), task, stream: stream.clone() });
        subjects.push(Subject::ComponentStream { component, stream });
    }
    let of_topology = subjects.into_iter().map(|subject| (topology.clone(), subject));
    let all = of_topology.chain([(rollup::cluster(), Subject::Topology)]);
    all.map(|(topology, subject)| metric.of(topology, subject).expect("ids are valid in names")).collect()
}
