//! Watching a topology in local mode, and deciding when the run ends.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::local::{Error, HEARTBEAT_PERIOD};
use stormkeeper_api_types::{client::Client, message::TopologyDetail};
use stormkeeper_model::{
    TopologyId,
    clock::{Clock, Monotonic},
    heartbeat::TaskCounts,
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

/// Time without a change of the counts after which no tuple is under way: several heartbeats.
const QUIET: Duration = Duration::from_millis(4 * HEARTBEAT_PERIOD.as_millis() as u64);

/// Conditions that end a run.
#[derive(Debug, Clone, Default)]
pub struct Until {
    /// Maximum duration of the run.
    pub time: Option<Duration>,
    /// Time without a tuple emitted, executed or acked.
    pub idle: Option<Duration>,
}

/// Reason of the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The maximum duration was reached.
    Time,
    /// No tuple was emitted, executed or acked for the time of [`Until::idle`].
    Idle,
    /// The user asked for it.
    Interrupted,
}

/// Watches the topology until a condition ends the run; then stops its spouts, waits until the
/// remaining tuples are processed, and returns the last state of the topology.
pub(super) async fn watch(
    client: &Client,
    id: &TopologyId,
    until: &Until,
    clock: &Clock,
    stop: CancellationToken,
    progress: &impl Fn(&str),
) -> Result<(TopologyDetail, End), Error> {
    let start = clock.monotonic();
    let running = wait_until_running(client, id, clock, &stop).await?;
    if let Some(detail) = &running {
        let summary = &detail.summary;
        progress(&format!("{} tasks run in {} workers", summary.tasks_total, summary.workers_total));
    }
    let mut activity = Activity::new(clock.monotonic());
    let end = loop {
        if stop.is_cancelled() {
            break End::Interrupted;
        }
        let now = clock.monotonic();
        activity.update(now, &client.show(id.as_str()).await?);
        if until.time.is_some_and(|time| now.since(start) >= time) {
            break End::Time;
        }
        if until.idle.is_some_and(|idle| activity.quiet_for(now) >= idle) {
            break End::Idle;
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
        let is_drained = activity.quiet_for(now) >= QUIET && !is_working(&detail);
        if is_drained || now >= deadline {
            return Ok((detail, end));
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

/// Waits until all tasks run. Returns `None` if the user asked to stop before.
async fn wait_until_running(
    client: &Client,
    id: &TopologyId,
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
        let broken = detail.components.iter().find_map(|component| component.last_error.as_ref());
        let limit = if broken.is_some() { BROKEN_TIMEOUT } else { START_TIMEOUT };
        if clock.monotonic().since(start) >= limit {
            let error = broken.map(|error| format!("{}: {}", error.component, error.message));
            let problem =
                error.or(detail.summary.problem).unwrap_or_else(|| "the reason is unknown".to_owned());
            return Err(Error::NotRunning { alive, total, after: limit, problem });
        }
        pause(stop).await;
    }
}

/// True if a bolt has tuples that it has neither acked nor failed. For a bolt that never acks,
/// the drain lasts until its time limit.
fn is_working(detail: &TopologyDetail) -> bool {
    let bolts = detail.components.iter().filter(|component| component.kind == Some(ComponentKind::Bolt));
    let mut open = bolts.map(|bolt| bolt.counts.executed > bolt.counts.acked + bolt.counts.failed);
    open.any(|open| open)
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        // Cancel-safe: both branches only wait.
        () = stop.cancelled() => {}
        () = tokio::time::sleep(POLL_PERIOD) => {}
    }
}

/// The last change of the counts.
struct Activity {
    counts: TaskCounts,
    changed_at: Monotonic,
}

impl Activity {
    fn new(now: Monotonic) -> Self {
        Self { counts: TaskCounts::default(), changed_at: now }
    }

    fn update(&mut self, now: Monotonic, detail: &TopologyDetail) {
        let mut counts = TaskCounts::default();
        for component in &detail.components {
            counts += component.counts;
        }
        if counts != self.counts {
            self.counts = counts;
            self.changed_at = now;
        }
    }

    fn quiet_for(&self, now: Monotonic) -> Duration {
        now.since(self.changed_at)
    }
}
