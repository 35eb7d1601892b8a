//! Task errors, written to the tree: rate-limited, queued and retried without blocking a task.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::{Options, log, settings::ErrorThrottle};
use stormkeeper_coordination::cluster::store::{self, Store};
use stormkeeper_model::{
    ComponentId, Port, TaskId, TopologyId,
    backoff::Delays,
    clock::{Clock, Monotonic},
    error::TaskError,
};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Number of errors that are queued while the tree is unavailable: a minute of one rate-limited
/// task's errors, or the first error of each of a few hundred tasks. When the queue is full,
/// further errors are only logged.
const MAX_QUEUED: usize = 256;

/// Longest time for which one error is retried: longer than an ensemble takes to restart. After
/// that the error is dropped, and only the log has it.
const RETRY_MAX_TIME: Duration = Duration::from_secs(300);

const RETRY: Delays = Delays::between(Duration::from_millis(100), Duration::from_secs(5));

/// Queue of the errors of a worker's tasks. Clones share one queue.
#[derive(Debug, Clone)]
pub(crate) struct ErrorReporter {
    shared: Arc<Shared>,
    queue: mpsc::Sender<TaskError>,
}

#[derive(Debug)]
struct Shared {
    host: String,
    port: Port,
    clock: Clock,
    throttle: ErrorThrottle,
    // Guards the error counts of each task's current interval; held for a few instructions.
    intervals: Mutex<HashMap<TaskId, Interval>>,
    dropped: AtomicU64,
    // Errors that are neither stored nor dropped.
    n_unwritten: watch::Sender<usize>,
}

#[derive(Debug)]
struct Interval {
    began: Monotonic,
    n_reported: usize,
    n_suppressed: usize,
}

impl Interval {
    /// Counts one more error at `now`. Returns `None` if the error is over the limit, else the
    /// number of errors suppressed since the last admitted one.
    fn admit(&mut self, now: Monotonic, throttle: ErrorThrottle) -> Option<usize> {
        if now.since(self.began) >= throttle.interval {
            (self.began, self.n_reported) = (now, 0);
        }
        if self.n_reported >= throttle.per_interval {
            self.n_suppressed += 1;
            return None;
        }
        self.n_reported += 1;
        Some(std::mem::take(&mut self.n_suppressed))
    }
}

impl ErrorReporter {
    /// Starts writing errors to `store`; the writer ends with `tasks`.
    pub(crate) fn start(
        store: Store,
        options: &Options,
        throttle: ErrorThrottle,
        clock: Clock,
        tasks: &Tasks,
    ) -> Self {
        let (queue, queued) = mpsc::channel(MAX_QUEUED);
        let shared = Arc::new(Shared {
            host: options.spec.host.clone(),
            port: options.port(),
            clock,
            throttle,
            intervals: Mutex::new(HashMap::new()),
            dropped: AtomicU64::new(0),
            n_unwritten: watch::Sender::new(0),
        });
        let writer =
            Writer { store, topology: options.spec.topology.clone(), shared: Arc::clone(&shared), queued };
        tasks.start("errors of tasks", OnExit::StopOwner, writer.run());
        Self { shared, queue }
    }

    /// Reports an error of a task: `message` is one line, `stack` may be empty. Returns at
    /// once. Errors over the task's limit are counted, and the next admitted error reports
    /// their number.
    pub(crate) fn report(&self, component: &ComponentId, task: TaskId, mut message: String, stack: String) {
        let Shared { clock, throttle, .. } = &*self.shared;
        let now = clock.monotonic();
        let admitted = {
            let mut intervals = self.shared.intervals.lock().expect("no one panics while counting errors");
            let first = Interval { began: now, n_reported: 0, n_suppressed: 0 };
            intervals.entry(task).or_insert(first).admit(now, *throttle)
        };
        let Some(n_suppressed) = admitted else { return };
        if n_suppressed > 0 {
            message.push_str(&format!(" ({n_suppressed} earlier errors of this task were suppressed)"));
        }
        warn!(%component, %task, "task error: {}", log::shortened(&message));
        let error = TaskError {
            component: component.clone(),
            task,
            time: clock.now(),
            host: self.shared.host.clone(),
            port: self.shared.port,
            message,
            stack,
        };
        self.shared.n_unwritten.send_modify(|n| *n += 1);
        if self.queue.try_send(error).is_err() {
            self.shared.drop_one("too many errors are queued for the tree");
            self.shared.n_unwritten.send_modify(|n| *n -= 1);
        }
    }

    /// Returns the number of errors that were logged but not stored.
    #[cfg(test)]
    pub(crate) fn n_dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all errors are stored or dropped, at most `timeout`.
    pub(crate) async fn drained(&self, timeout: Duration) {
        let mut n_unwritten = self.shared.n_unwritten.subscribe();
        let _still_queued = tokio::time::timeout(timeout, n_unwritten.wait_for(|n| *n == 0)).await;
    }
}

impl Shared {
    fn drop_one(&self, why: &str) {
        let n_dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        warn!(n_dropped, why, "task error dropped: it was logged but not stored in the tree");
    }
}

struct Writer {
    store: Store,
    topology: TopologyId,
    shared: Arc<Shared>,
    queued: mpsc::Receiver<TaskError>,
}

impl Writer {
    async fn run(mut self) {
        while let Some(error) = self.queued.recv().await {
            self.write(error).await;
            self.shared.n_unwritten.send_modify(|n| *n -= 1);
        }
    }

    async fn write(&self, error: TaskError) {
        let began = self.shared.clock.monotonic();
        let mut backoff = RETRY.backoff();
        loop {
            let failure = match self.store.report_error(&self.topology, error.clone()).await {
                Ok(()) => return,
                Err(failure) => failure,
            };
            let hopeless = match &failure {
                store::Error::Tree(failure) => !failure.is_retryable(),
                store::Error::Unreadable(_) => true,
            };
            debug!(error = %failure, "cannot store a task error");
            if hopeless || self.shared.clock.monotonic().since(began) > RETRY_MAX_TIME {
                return self.shared.drop_one(&failure.to_string());
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::options;
    use stormkeeper_coordination::{
        cluster::layout,
        tree::{Tree as _, memory::MemoryTree},
    };
    use stormkeeper_runtime::test_support::wait_until;

    #[test]
    fn errors_over_the_limit_are_suppressed_and_counted() {
        let throttle = ErrorThrottle { per_interval: 2, interval: Duration::from_secs(10) };
        let clock = Clock::manual(stormkeeper_model::Timestamp::EPOCH);
        let mut interval = Interval { began: clock.monotonic(), n_reported: 0, n_suppressed: 0 };
        let mut admit = |expected: Option<usize>| {
            assert_eq!(interval.admit(clock.monotonic(), throttle), expected);
        };
        admit(Some(0));
        admit(Some(0));
        admit(None);
        admit(None);
        clock.advance(Duration::from_secs(9));
        admit(None);
        clock.advance(Duration::from_secs(1));
        admit(Some(3));
        admit(Some(0));
        admit(None);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_queued_while_the_tree_is_unavailable_and_the_excess_is_counted() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (server, options) = (MemoryTree::new(), options(dir.path()));
        let store = Store::new(server.connect());
        store.ensure_layout().await.expect("created");
        server.connect().ensure(&layout::last_errors(&options.spec.topology)).await.expect("created");
        server.set_online(false);
        let throttle = ErrorThrottle { per_interval: 1, interval: Duration::from_secs(10) };
        let tasks = Tasks::default();
        let reporter = ErrorReporter::start(store.clone(), &options, throttle, Clock::new(), &tasks);
        let component = "c".parse().expect("valid");
        let n_reported = u32::try_from(MAX_QUEUED).expect("small") + 20;
        for task in 1..=n_reported {
            reporter.report(&component, TaskId(task), format!("error {task}"), String::new());
        }
        assert!((19..=20).contains(&reporter.n_dropped()), "{}", reporter.n_dropped());
        server.set_online(true);
        wait_until("the first error is stored", Duration::from_secs(60), || async {
            let errors = store.errors(&options.spec.topology, TaskId(1)).await.map_err(|e| e.to_string())?;
            errors.first().map(|error| assert_eq!(error.message, "error 1")).ok_or("none yet".to_owned())
        })
        .await;
    }
}
