//! Watching a topology in local mode, and deciding when the run ends.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::local::{Error, HEARTBEAT_PERIOD, extent, unfinished};
use stormkeeper_api_types::{
    client::Client,
    message::{ComponentSummary, ErrorSummary, TaskSummary, TopologyDetail},
};
use stormkeeper_model::{
    TopologyId,
    clock::{Clock, Monotonic},
    heartbeat::{TaskCounts, TaskStatus},
    topology::ComponentKind,
};

/// Period of polling the topology.
pub(super) const POLL_PERIOD: Duration = Duration::from_millis(100);

/// Limit for the start of all tasks: Python starts in a tenth of a second, a busy host takes
/// longer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Limit for the start of all tasks after one of them has reported an error: several restarts.
const BROKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit for processing the remaining tuples after the spouts were stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which the run of [`Until::idle`] waits for tuples that a component has taken, answers
/// heartbeats, and does not ack: it may work on them in the background, or has forgotten them.
const UNACKED_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for which it waits for an answer that a spout owes: longer than any sensible timeout, at which
/// the worker itself ends the component and reports the error.
const UNANSWERED_TIMEOUT: Duration = Duration::from_secs(600);

/// Time without a change of the counts after which no tuple is under way: several heartbeats.
const QUIET: Duration = Duration::from_millis(4 * HEARTBEAT_PERIOD.as_millis() as u64);

/// Conditions that end a run.
#[derive(Debug, Clone, Default)]
pub struct Until {
    /// Maximum duration of the run.
    pub time: Option<Duration>,
    /// Time without a tuple emitted, executed, acked or with a component.
    pub idle: Option<Duration>,
}

/// Reason of the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The maximum duration was reached.
    Time,
    /// Nothing happened for the time of [`Until::idle`].
    Idle,
    /// The user asked for it.
    Interrupted,
}

/// End of a run.
pub(super) struct Ended {
    /// Last state of the topology.
    pub(super) detail: TopologyDetail,
    /// Reason of the end.
    pub(super) end: End,
    /// Work that was not done, a line each.
    pub(super) unfinished: Vec<String>,
}

/// Watches the topology until a condition ends the run; then stops its spouts, and waits until the
/// remaining tuples are processed.
pub(super) async fn watch(
    client: &Client,
    id: &TopologyId,
    until: &Until,
    clock: &Clock,
    stop: CancellationToken,
    progress: &impl Fn(&str),
) -> Result<Ended, Error> {
    let start = clock.monotonic();
    let running = wait_until_running(client, id, until.time, clock, &stop).await?;
    if let Some(detail) = &running {
        progress(&format!("running {}", extent(&detail.summary)));
    }
    let mut activity = Activity::new(clock.monotonic());
    let mut is_waiting = false;
    let mut unfinished = Vec::new();
    let end = loop {
        if stop.is_cancelled() {
            break End::Interrupted;
        }
        let now = clock.monotonic();
        let detail = client.show(id.as_str()).await?;
        activity.update(now, &detail);
        unfinished = unfinished::of_spouts(&detail);
        if until.time.is_some_and(|time| now.since(start) >= time) {
            break End::Time;
        }
        if let Some(idle) = until.idle.filter(|idle| activity.quiet_for(now) >= *idle) {
            let limit = match (activity.n_unanswered, activity.n_pending) {
                // An answer that a spout owes is shown within a second.
                (0, 0) => idle.max(QUIET),
                (0, _) => idle.max(UNACKED_TIMEOUT),
                (_, _) => idle.max(UNANSWERED_TIMEOUT),
            };
            if activity.quiet_for(now) >= limit {
                break End::Idle;
            }
            if !is_waiting {
                progress(&activity.waited_for());
            }
            is_waiting = true;
        }
        pause(&stop).await;
    };
    client.deactivate(id.as_str()).await?;
    let deadline = clock.monotonic().plus(DRAIN_TIMEOUT);
    let mut activity = Activity::new(clock.monotonic());
    loop {
        let detail = client.show(id.as_str()).await?;
        let now = clock.monotonic();
        activity.update(now, &detail);
        let is_drained = activity.quiet_for(now) >= QUIET && activity.n_pending == 0;
        if is_drained || now >= deadline {
            unfinished.extend(unfinished::of_bolts(&detail));
            return Ok(Ended { detail, end, unfinished });
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

/// Waits until all tasks run. A run that may take less time than a start does not fail for that, unless a
/// component is broken. Returns `None` if the user asked to stop before.
async fn wait_until_running(
    client: &Client,
    id: &TopologyId,
    time: Option<Duration>,
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<Option<TopologyDetail>, Error> {
    let start = clock.monotonic();
    loop {
        let detail = client.show(id.as_str()).await?;
        let (alive, total) = (detail.n_running(), detail.summary.tasks_total);
        if detail.is_running() {
            return Ok(Some(detail));
        }
        if stop.is_cancelled() {
            return Ok(None);
        }
        let broken = broken(&detail);
        let limit = match broken {
            Some(_) => time.unwrap_or(BROKEN_TIMEOUT).min(BROKEN_TIMEOUT),
            None => START_TIMEOUT,
        };
        if clock.monotonic().since(start) >= limit {
            let error = broken.map(|error| format!("{}: {}", error.component, error.message));
            let problem =
                error.or(detail.summary.problem).unwrap_or_else(|| "the reason is unknown".to_owned());
            return Err(Error::NotRunning { alive, total, after: limit, problem });
        }
        pause(stop).await;
    }
}

/// Returns the error of a component whose tasks do not all run, or of any if all have failed at times.
fn broken(detail: &TopologyDetail) -> Option<&ErrorSummary> {
    let is_up = |task: &TaskSummary| matches!(task.status, Some(TaskStatus::Running | TaskStatus::Inactive));
    let is_down =
        |one: &&ComponentSummary| detail.tasks.iter().any(|task| task.component == one.id && !is_up(task));
    let down = detail.components.iter().filter(is_down).find_map(|component| component.last_error.as_ref());
    down.or_else(|| detail.components.iter().find_map(|component| component.last_error.as_ref()))
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        // Cancel-safe: both branches only wait.
        () = stop.cancelled() => {}
        () = tokio::time::sleep(POLL_PERIOD) => {}
    }
}

/// The last change of the counts and of the number of pending tuples.
struct Activity {
    counts: TaskCounts,
    n_pending: u64,
    // Spouts that owe the answer to a command. A spout may take its time in each call, so a change of
    // it is no activity.
    n_unanswered: u64,
    changed_at: Monotonic,
}

impl Activity {
    fn new(now: Monotonic) -> Self {
        Self { counts: TaskCounts::default(), n_pending: 0, n_unanswered: 0, changed_at: now }
    }

    fn update(&mut self, now: Monotonic, detail: &TopologyDetail) {
        let mut counts = TaskCounts::default();
        for component in &detail.components {
            counts += component.counts;
        }
        let pending_of = |is_spout| {
            let of_kind =
                detail.components.iter().filter(|one| (one.kind == Some(ComponentKind::Spout)) == is_spout);
            of_kind.map(|component| component.pending).sum()
        };
        let n_pending = pending_of(false);
        self.n_unanswered = pending_of(true);
        if (counts, n_pending) != (self.counts, self.n_pending) {
            (self.counts, self.n_pending) = (counts, n_pending);
            self.changed_at = now;
        }
    }

    fn waited_for(&self) -> String {
        match self.n_pending {
            0 => "waiting for the answer of a spout".to_owned(),
            1 => "waiting for a tuple that is with a component".to_owned(),
            n => format!("waiting for {n} tuples that are with components"),
        }
    }

    fn quiet_for(&self, now: Monotonic) -> Duration {
        now.since(self.changed_at)
    }
}
