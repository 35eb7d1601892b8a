//! Status of the metrics service, for people.

use std::collections::BTreeMap;

use crate::{MetricsService, counters};
use stormkeeper_metric_store as metric_store;
use stormkeeper_model::{LogPosition, NimbusId, Timestamp};

/// Status of the metrics service of a nimbus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsStatus {
    /// Reason why the metric store is not open; absent while it is open.
    pub closed: Option<String>,
    /// Role of this nimbus in the replication.
    pub state: ReplicaState,
    /// Last entry of the local log.
    pub position: LogPosition,
    /// Last entry of the leader's log, at the latest fetch.
    pub leader: Option<LogPosition>,
    /// Time at which the local log last had every entry of the leader's; absent on the leader.
    pub caught_up_at: Option<Timestamp>,
    /// Last problem of following or of the takeover, until the next success.
    pub problem: Option<String>,
    /// High watermark, while this nimbus leads.
    pub high_watermark: LogPosition,
    /// Log end of each other live nimbus, while this nimbus leads.
    pub followers: BTreeMap<NimbusId, LogPosition>,
    /// Status of the metric store, if the store answers.
    pub store: Option<metric_store::StoreStatus>,
    /// Status of the export queue, if the store answers.
    pub queue: Option<metric_store::QueueStatus>,
    /// State of each exporter, while this nimbus leads.
    pub exporters: BTreeMap<String, ExporterState>,
    /// Counters since the start.
    pub counts: CounterValues,
}

/// Distance of a nimbus from the leader's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Last entry of the leader's log, at the latest fetch.
    pub leader: Option<LogPosition>,
    /// Time at which the local log last had every entry of the leader's; absent on the leader.
    pub caught_up_at: Option<Timestamp>,
}

/// Role of a nimbus in the replication of the metric log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReplicaState {
    /// The nimbus follows the leader's log.
    #[default]
    Following,
    /// The nimbus was elected, and fetches the entries that its log is missing.
    TakingOver,
    /// The nimbus ingests metrics.
    Leading,
}

impl ReplicaState {
    /// Returns the word for the API and for logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::TakingOver => "taking over",
            Self::Leading => "leading",
        }
    }
}

/// State of an exporter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExporterState {
    /// Current activity.
    pub activity: ExporterActivity,
    /// Start of the current activity.
    pub since: Timestamp,
    /// Number of points that the external store accepted.
    pub points: u64,
    /// Number of points that the external store, or the rules of the exporter, rejected for good.
    pub rejected: u64,
    /// Number of failures, panics and timeouts.
    pub failures: u64,
    /// Number of events sent to the exporter.
    pub events: u64,
    /// Number of events that the exporter did not get, because it was behind or failed.
    pub events_dropped: u64,
    /// Last failure.
    pub last_failure: Option<String>,
    /// Reason of the last rejection of points.
    pub last_rejection: Option<String>,
}

impl ExporterState {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            activity: ExporterActivity::Starting,
            since: now,
            points: 0,
            rejected: 0,
            failures: 0,
            events: 0,
            events_dropped: 0,
            last_failure: None,
            last_rejection: None,
        }
    }
}

/// Activity of an exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExporterActivity {
    /// The exporter is being started.
    Starting,
    /// The export queue has nothing to send.
    Idle,
    /// The exporter is sending.
    Exporting,
    /// The exporter failed and pauses.
    Pausing,
    /// The last call timed out and is still running: the exporter is suspended until the call ends.
    Stuck,
}

impl ExporterActivity {
    /// Returns the word for the API and for logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Exporting => "exporting",
            Self::Pausing => "pausing",
            Self::Stuck => "stuck",
        }
    }
}

/// Values of the counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CounterValues {
    /// Ingested metric batches.
    pub batches: u64,
    /// Points of the ingested batches.
    pub points: u64,
    /// Batches that were stored before.
    pub duplicates: u64,
    /// Batches of which a part was stored before.
    pub overlapping: u64,
    /// Batches and registrations that the sender must retry.
    pub retry_later: u64,
    /// Batches that are rejected for good.
    pub rejected: u64,
    /// Bodies that could not be decoded.
    pub undecodable: u64,
    /// Registrations of names, repeated ones included.
    pub registrations: u64,
    /// Rejected registrations.
    pub registrations_rejected: u64,
    /// Checkpoints of other nimbuses that replaced the local database.
    pub checkpoints: u64,
    /// Topologies whose metas differed from the leader's and were replaced.
    pub metas_repaired: u64,
}

impl MetricsService {
    /// Returns the status of the metrics service.
    pub async fn status(&self) -> MetricsStatus {
        let (replication, state) = (&self.replication, self.replication.state());
        let Lag { leader, caught_up_at } = replication.fetched();
        let mut status = MetricsStatus {
            state,
            leader,
            caught_up_at,
            problem: replication.problem(),
            counts: counters::values(self.ingest.counters(), replication.counters()),
            ..MetricsStatus::default()
        };
        let store = match self.metric_store() {
            Ok(store) => store,
            Err(refusal) => {
                status.closed = Some(refusal.to_string());
                return status;
            }
        };
        status.position = store.position();
        status.store = store.status().await.ok();
        status.queue = store.queue_status().await.ok();
        if state == ReplicaState::Leading {
            status.leader = Some(status.position);
            status.high_watermark = replication.high_watermark();
            status.followers = replication.follower_log_ends();
            status.exporters = self.export.states();
        }
        status
    }
}
