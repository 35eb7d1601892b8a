//! Watching a topology run, and knowing when to end.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, Monotonic},
    local::{BEAT_PERIOD, Error},
    model::{TopologyId, beat::TaskCounts, topology::ComponentKind},
    rpc::{client::Client, message::TopologyDetail},
};

/// Between two looks.
pub(super) const POLL_PERIOD: Duration = Duration::from_millis(100);

/// How long the tasks may take to run: Python starts in a tenth of a second, a busy machine
/// takes its time.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long they may take when one of them has reported an error: some restarts' worth.
const BROKEN_PATIENCE: Duration = Duration::from_secs(10);

/// How long tuples under way are waited for, once spouts were stopped.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Nothing counted for this long means that nothing is under way: some beats' worth.
const QUIET: Duration = Duration::from_millis(4 * BEAT_PERIOD.as_millis() as u64);

/// When to end.
#[derive(Debug, Clone, Default)]
pub struct Until {
    /// After this long.
    pub time: Option<Duration>,
    /// Once nothing was emitted, executed or acked for this long.
    pub idle: Option<Duration>,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The time was over.
    Time,
    /// Nothing happened any more.
    Idle,
    /// The user asked for it.
    Asked,
}

/// Watches the topology until it is time to end; then stops its spouts, waits until what is
/// under way is worked off, and answers what was last seen.
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
            break End::Asked;
        }
        let now = clock.monotonic();
        activity.note(now, &client.show(id.as_str()).await?);
        if until.time.is_some_and(|time| now.since(start) >= time) {
            break End::Time;
        }
        if until.idle.is_some_and(|idle| activity.quiet_for(now) >= idle) {
            break End::Idle;
        }
        pause(&stop).await;
    };
    client.deactivate(id.as_str()).await?;
    let deadline = clock.monotonic().plus(DRAIN_PATIENCE);
    let mut activity = Activity::new(clock.monotonic());
    loop {
        let detail = client.show(id.as_str()).await?;
        let now = clock.monotonic();
        activity.note(now, &detail);
        let is_drained = activity.quiet_for(now) >= QUIET && !is_working(&detail);
        if is_drained || now >= deadline {
            return Ok((detail, end));
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

/// `None` when the user asked to stop before.
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
        let patience = if broken.is_some() { BROKEN_PATIENCE } else { START_PATIENCE };
        if clock.monotonic().since(start) >= patience {
            let error = broken.map(|error| format!("{}: {}", error.component, error.message));
            let trouble = error.or(detail.summary.trouble).unwrap_or_else(|| "no reason is known".to_owned());
            return Err(Error::NotRunning { alive, total, after: patience, trouble });
        }
        pause(stop).await;
    }
}

/// Whether a bolt has tuples that it has neither acked nor failed. One that never acks is
/// waited for until the patience is over.
fn is_working(detail: &TopologyDetail) -> bool {
    let bolts = detail.components.iter().filter(|component| component.kind == Some(ComponentKind::Bolt));
    let mut open = bolts.map(|bolt| bolt.counts.executed > bolt.counts.acked + bolt.counts.failed);
    open.any(|open| open)
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        // Cancel-safe: both only wait.
        () = stop.cancelled() => {}
        () = tokio::time::sleep(POLL_PERIOD) => {}
    }
}

/// When something was last counted.
struct Activity {
    counts: TaskCounts,
    changed: Monotonic,
}

impl Activity {
    fn new(now: Monotonic) -> Self {
        Self { counts: TaskCounts::default(), changed: now }
    }

    fn note(&mut self, now: Monotonic, detail: &TopologyDetail) {
        let mut counts = TaskCounts::default();
        for component in &detail.components {
            counts += component.counts;
        }
        if counts != self.counts {
            self.counts = counts;
            self.changed = now;
        }
    }

    fn quiet_for(&self, now: Monotonic) -> Duration {
        now.since(self.changed)
    }
}
