//! Failures of workers, and of bringing their code to this host, reported as task errors, where the
//! author of the topology looks for them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::{
    logs,
    slot::{DesiredWorker, SlotReason},
    worker_dir,
};
use stormkeeper_coordination::cluster::store::Store;
use stormkeeper_model::{
    ComponentId, Port, TaskId, WorkerId,
    clock::{Clock, Monotonic},
    error::TaskError,
};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};

/// Length of the queue of failures to report. A failure is dropped if the queue is full: the
/// worker's next failure carries the same information.
const QUEUE_LEN: usize = 16;

/// Minimum time between two reports of the same slot. Otherwise a crash loop would replace all of
/// a task's newest ten errors.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of components for which one failure is reported.
const MAX_COMPONENTS: usize = 100;

/// Attempts to report a failure while the tree does not respond, and the pause between them.
const TRIES: usize = 3;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A failure in a slot.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) port: Port,
    pub(super) desired: DesiredWorker,
    pub(super) what: FailedThing,
}

/// The thing that failed.
#[derive(Debug)]
pub(super) enum FailedThing {
    /// A launch of the worker, with its directory.
    Worker { worker: WorkerId, reason: SlotReason, dir: PathBuf },
    /// An attempt to bring the code of the topology to this host.
    Code { reason: String },
}

/// Receives failures and reports them in a separate task.
#[derive(Debug)]
pub(super) struct FailureReporter {
    queue: mpsc::Sender<Failure>,
}

impl FailureReporter {
    pub(super) fn start(store: Store, clock: Clock, tasks: &Tasks) -> Self {
        let (queue, failures) = mpsc::channel(QUEUE_LEN);
        tasks.start("report failures", OnExit::StopOwner, report_all(store, clock, failures));
        Self { queue }
    }

    pub(super) fn report(&self, failure: Failure) {
        if let Err(error) = self.queue.try_send(failure) {
            debug!(%error, "a failure is not reported");
        }
    }
}

async fn report_all(store: Store, clock: Clock, mut failures: mpsc::Receiver<Failure>) {
    let mut last: BTreeMap<Port, Monotonic> = BTreeMap::new();
    while let Some(failure) = failures.recv().await {
        let now = clock.monotonic();
        if last.get(&failure.port).is_some_and(|last| now.since(*last) < MIN_INTERVAL) {
            continue;
        }
        last.insert(failure.port, now);
        let stack = log_tail(&failure).await;
        let said = exit_reason(&failure).await;
        for attempt in 1..=TRIES {
            match report(&store, &clock, &failure, (&said, &stack)).await {
                Ok(()) => break,
                Err(error) if attempt == TRIES => {
                    warn!(%error, port = %failure.port, topology = %failure.desired.topology, "cannot report a failure");
                }
                Err(_) => tokio::time::sleep(RETRY_AFTER).await,
            }
        }
    }
}

async fn log_tail(failure: &Failure) -> String {
    let FailedThing::Worker { dir, .. } = &failure.what else { return String::new() };
    let dir = dir.clone();
    blocking::run(move || logs::tail(&dir))
        .await
        .unwrap_or_else(|error| format!("(the worker's log cannot be read: {error})"))
}

/// The reason that the worker wrote before it exited, to be appended to the reason of the slot.
async fn exit_reason(failure: &Failure) -> String {
    let FailedThing::Worker { reason: SlotReason::Exited { .. }, dir, .. } = &failure.what else {
        return String::new();
    };
    let dir = dir.clone();
    let reason = blocking::run(move || worker_dir::exit_reason(&dir)).await;
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// Writes one error for each component, at its first task in the worker.
async fn report(
    store: &Store,
    clock: &Clock,
    failure: &Failure,
    (said, stack): (&str, &str),
) -> Result<(), stormkeeper_coordination::cluster::store::Error> {
    let Failure { port, desired, what } = failure;
    let message = match what {
        FailedThing::Worker { worker, reason, .. } => format!("worker {worker} {reason}"),
        FailedThing::Code { reason } => {
            format!("the code of the topology cannot be brought to {}: {reason}", desired.worker.host)
        }
    };
    let Some(table) = store.tasks(&desired.topology).await? else { return Ok(()) };
    let mut firsts: BTreeMap<&ComponentId, TaskId> = BTreeMap::new();
    for (component, task) in table.value.iter().filter(|(_, task)| desired.worker.tasks.contains(*task)) {
        firsts.entry(component).or_insert(task);
    }
    for (component, task) in firsts.into_iter().take(MAX_COMPONENTS) {
        let error = TaskError {
            component: component.clone(),
            task,
            time: clock.now(),
            host: desired.worker.host.clone(),
            port: *port,
            message: format!("{message}{said}"),
            stack: stack.to_owned(),
        };
        store.report_error(&desired.topology, error).await?;
    }
    Ok(())
}
