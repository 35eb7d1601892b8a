//! Live sample: the counts of a worker at one moment, for those who look at this moment.
//!
//! Everything in a sample is cumulative since the start of the worker, so a reader computes rates from
//! any two samples of one launch, and a lost sample loses nothing. `docs/design/live.md` has the way of a
//! sample.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{MetricName, Subject, builtin, name::SYS, registry::Reading};
use stormkeeper_model::{ComponentId, StreamId, TaskId, heartbeat::TaskCounts};

/// Name of the socket in a worker's directory.
pub const SOCKET: &str = "live.sock";

/// Maximum bytes of a sample as a line.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// State of a worker at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveSample {
    /// Milliseconds since the start of the worker.
    pub uptime_ms: u64,
    /// Its tasks.
    pub tasks: Vec<TaskSample>,
}

/// State of a task at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSample {
    /// The task.
    pub task: TaskId,
    /// Its component.
    pub component: ComponentId,
    /// Counts since the start of the worker, as in heartbeats.
    pub counts: TaskCounts,
    /// Tuples that the component has not finished, as in heartbeats.
    #[serde(default)]
    pub pending: u64,
    /// Fill of its queue, 0 to 1; none of a spout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<f64>,
    /// Time in which the component was busy, in µs; none without metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_us: Option<u64>,
    /// Times of its calls (`ExecutorTime`), in µs.
    #[serde(default, skip_serializing_if = "Total::is_empty")]
    pub execute: Total,
    /// Latencies of its tuples (`ProcessLatency`), in µs.
    #[serde(default, skip_serializing_if = "Total::is_empty")]
    pub process: Total,
    /// Counts of the streams that it emits to; none without metrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<StreamId, StreamCounts>,
}

/// Tuples of a stream since the start of the worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCounts {
    /// Tuples that were emitted.
    pub emitted: u64,
    /// Copies sent to receiving tasks.
    #[serde(default)]
    pub transferred: u64,
}

/// Number and sum of values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Total {
    /// Number.
    pub n: u64,
    /// Sum.
    pub sum: f64,
}

impl Total {
    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Adds other values.
    pub fn add(&mut self, other: Self) {
        self.n = self.n.saturating_add(other.n);
        // A number that is not finite would be no JSON.
        self.sum = (self.sum + other.sum).clamp(f64::MIN, f64::MAX);
    }

    /// Returns the values since `before`; none if there were more before.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        match self.n.checked_sub(before.n) {
            Some(n) => Self { n, sum: self.sum - before.sum },
            None => Self::default(),
        }
    }

    /// Returns the mean; `None` without values.
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }
}

impl TaskSample {
    /// Returns a sample of a task with its counts.
    pub fn new(task: TaskId, component: ComponentId, counts: TaskCounts, pending: u64) -> Self {
        Self {
            task,
            component,
            counts,
            pending,
            queue: None,
            busy_us: None,
            execute: Total::default(),
            process: Total::default(),
            streams: BTreeMap::new(),
        }
    }

    /// Takes the reading of a built-in metric of this task or of one of its streams; ignores others.
    pub fn take(&mut self, name: &MetricName, reading: Reading) {
        if name.group() != SYS {
            return;
        }
        let is = |metric: &builtin::Builtin| name.name() == metric.name;
        match (name.subject(), reading) {
            (Subject::Stream { stream, .. }, Reading::Count(n)) if n > 0 => {
                if is(&builtin::EMITTED) {
                    self.streams.entry(stream.clone()).or_default().emitted = n;
                } else if is(&builtin::TRANSFERRED) {
                    self.streams.entry(stream.clone()).or_default().transferred = n;
                }
            }
            (Subject::Stream { .. }, Reading::Total(total)) if is(&builtin::PROCESS_LATENCY) => {
                self.process.add(total);
            }
            (Subject::Task { .. }, Reading::Total(total)) if is(&builtin::EXECUTOR_TIME) => {
                self.execute.add(total);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Control, Registry};
    use stormkeeper_model::clock::Monotonic;

    fn task() -> TaskSample {
        TaskSample::new(TaskId(4), "split".parse().expect("valid"), TaskCounts::default(), 0)
    }

    #[test]
    fn sample_has_the_streams_and_latencies_of_built_in_metrics_and_ignores_those_of_users() {
        let registry = Registry::new(Control::default(), Monotonic::START);
        let name = |text: &str| text.parse::<MetricName>().expect("a name");
        registry.counter(name("3@1@t-1-100@split@4@default@sys@Emitted")).add(5);
        registry.counter(name("3@1@t-1-100@split@4@default@sys@Transferred")).add(9);
        registry.counter(name("3@1@t-1-100@split@4@default@udf@Emitted")).add(100);
        registry.counter(name("3@1@t-1-100@split@4@quiet@sys@Emitted"));
        registry.histogram(name("3@4@t-1-100@split@4@default@sys@ProcessLatency")).update(30.0);
        registry.histogram(name("3@4@t-1-100@split@4@other@sys@ProcessLatency")).update(50.0);
        let mut sample = task();
        registry.read_tasks(|task, name, reading| {
            assert_eq!(task, TaskId(4));
            sample.take(name, reading);
        });
        let default: StreamId = "default".parse().expect("valid");
        assert_eq!(sample.streams, [(default, StreamCounts { emitted: 5, transferred: 9 })].into());
        assert_eq!(sample.process, Total { n: 2, sum: 80.0 });
        assert_eq!(sample.process.mean(), Some(40.0));
    }

    #[test]
    fn sample_of_another_build_is_read_with_what_is_known() {
        let text = r#"{"uptime_ms":5,"new":1,"tasks":[{"task":4,"component":"split","later":[],
            "counts":{"emitted":1,"transferred":2,"executed":3,"acked":4,"failed":5,"more":6}}]}"#;
        let sample: LiveSample = serde_json::from_str(text).expect("valid");
        assert_eq!((sample.uptime_ms, sample.tasks[0].counts.failed, sample.tasks[0].queue), (5, 5, None));
        let text = serde_json::to_string(&sample).expect("JSON");
        assert_eq!(serde_json::from_str::<LiveSample>(&text).expect("valid"), sample);
    }

    #[test]
    fn values_since_a_larger_total_are_none() {
        let total = |n, sum| Total { n, sum };
        assert_eq!(total(5, 50.0).since(total(3, 20.0)), total(2, 30.0));
        assert_eq!(total(1, 5.0).since(total(3, 20.0)), Total::default());
        assert_eq!(Total::default().mean(), None);
    }
}
