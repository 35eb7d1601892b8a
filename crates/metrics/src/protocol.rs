//! Metric messages to a nimbus: of workers and supervisors to the leader, and of followers to other
//! nimbuses. Bodies are MessagePack; every response has a header with the term.
//!
//! | request | sender | body and response |
//! | --- | --- | --- |
//! | `POST /api/stormkeeper/v1/metrics/register` | topology masters, supervisors | [`RegisterRequest`] → [`RegisterResponse`] |
//! | `POST /api/stormkeeper/v1/metrics/ingest` | the same | [`MetricBatch`] → [`IngestResponse`] |
//! | `GET /api/stormkeeper/v1/metrics/sync/log` | followers | [`LogQuery`] → [`LogPage`] |
//! | `GET /api/stormkeeper/v1/metrics/sync/checkpoint` | followers | the whole metric store as tar |
//! | `GET /api/stormkeeper/v1/metrics/sync/metas` | followers | [`MetaQuery`] → [`MetaPage`] |
//! | `GET /api/stormkeeper/v1/metrics/sync/points` | followers | [`PointsQuery`] → a list of minutes and points |
//! | `GET /api/stormkeeper/v1/metrics/sync/track` | followers | [`TrackQuery`] → a list of the metric store's task track entries |
//! | `GET /api/stormkeeper/v1/metrics/sync/history` | followers | [`HistoryQuery`] → a list of the metric store's history entries |
//!
//! Only the leader accepts the first two: another nimbus answers `no_leader`, and the sender should
//! retry.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{MetaType, MetricBatch, MetricId, MetricName, Minute, Window};
use stormkeeper_model::{LogPosition, NimbusId, TaskId, Term, TopologyId, TopologyName, WorkerId};

/// Content type of all bodies here.
pub const MSGPACK: &str = "application/msgpack";

/// Limit on names in one registration request.
pub const NAMES_MAX: usize = 10_000;

/// Limit on bytes of one body.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Registration of metric names with the leader; required before points of these metrics. A
/// repeated registration changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// Topology of the metrics. Metrics of `__CLUSTER__` may be among them.
    pub topology: TopologyId,
    /// The names, at most [`NAMES_MAX`], as texts, so that an invalid name is rejected alone and
    /// not with the others.
    pub registrations: Vec<Registration>,
}

/// One registration: a name, with the id that the measuring process has used for it so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The full name.
    pub name: String,
    /// The id: computed from the name, or assigned by an earlier leader.
    pub id: MetricId,
}

/// Response to a registration request: one result for each registration, in the same order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterResponse {
    /// The results.
    pub results: Vec<Registered>,
}

/// Result of one registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Registered {
    /// Accepted: points must be sent under this id, mostly the requested one.
    Accepted(MetricId),
    /// Rejected: the text is not a metric name, or the topology has too many names. Points of this
    /// metric must not be sent. The reason is for the log.
    Rejected(String),
}

/// Response to a metric batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum IngestResponse {
    /// The batch is stored, or all of its reports were before.
    Accepted {
        /// Position of the batch in the metric log.
        at: LogPosition,
        /// High watermark: the metric log up to here survives the loss of this leader and its
        /// disk, because another nimbus has it too, or there is no other nimbus. The sender must
        /// keep reports at later positions, to send them again.
        high_watermark: LogPosition,
    },
    /// Some reports of the batch were stored before, so nothing was stored: merge without these.
    Overlapping {
        /// The last stored report of each launch that has any.
        stored: Vec<IngestedUpTo>,
    },
    /// The batch has points of unregistered metrics, and nothing was stored: register the metrics,
    /// then send the batch again.
    UnknownMetrics {
        /// Ids of the unregistered metrics, at most [`NAMES_MAX`].
        ids: Vec<MetricId>,
    },
    /// Nothing was stored, and the sender should retry soon: the queue is full, or this nimbus does
    /// not know the topology yet.
    RetryLater {
        /// Reason, for the log.
        reason: String,
    },
    /// The batch will never be accepted: it is invalid, or its topology is unknown.
    Rejected {
        /// Reason, for the log.
        reason: String,
    },
}

/// The last stored report of a launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestedUpTo {
    /// The launch.
    pub worker: WorkerId,
    /// Sequence number of the report.
    pub last: u64,
}

/// Request for log entries, with the end of the sender's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogQuery {
    /// The requesting nimbus.
    pub nimbus: NimbusId,
    /// Term of the last entry of the sender's log.
    pub term: i32,
    /// Index of that entry; 0 for an empty log.
    pub index: u64,
    /// Approximate limit on the bytes of the response.
    pub max_bytes: u64,
    /// Term of the leader that the sender follows; a nimbus that is not that leader must not answer
    /// with entries. Absent if the sender leads itself and asks other nimbuses.
    pub leader_term: Option<Term>,
}

/// Response to [`LogQuery`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum LogPage {
    /// The entries after the end of the follower's log, in order; none if the follower is caught up.
    Entries {
        /// Each entry with its position.
        entries: Vec<(LogPosition, Vec<u8>)>,
        /// Position of the leader's last entry.
        last: LogPosition,
    },
    /// The follower's log ends before the leader's log begins, or has another entry at its end: the
    /// follower must fetch a checkpoint.
    Diverged,
    /// As `Diverged`, and the follower's log may contain committed entries that an unclean takeover
    /// discarded: the follower must quarantine its database, not delete it.
    DivergedCommitted,
}

/// Query for metric metas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetaQuery {
    /// The topology of the metas.
    pub topology: TopologyId,
    /// Level of the metas; all levels when absent.
    pub meta: Option<MetaType>,
    /// The page starts after this id; at the first id when absent.
    pub after: Option<MetricId>,
    /// Maximum number of metas.
    pub limit: usize,
}

/// A page of metas, in order of their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetaPage {
    /// The metas.
    pub metas: Vec<MetricMeta>,
    /// Start of the next page; `None` on the last page.
    pub next: Option<MetricId>,
}

/// A registered metric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MetricMeta {
    /// Id of the metric.
    pub id: MetricId,
    /// Name of the metric.
    pub name: MetricName,
}

/// Query for points of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PointsQuery {
    /// The metric.
    pub id: MetricId,
    /// Width of the points.
    pub window: Window,
    /// The first minute.
    pub from: Minute,
    /// The last minute.
    pub to: Minute,
    /// Maximum number of points.
    pub limit: usize,
}

/// Query for the task track: the workers in which tasks ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrackQuery {
    /// The topology.
    pub topology: TopologyId,
    /// The task; all tasks when absent.
    pub task: Option<TaskId>,
    /// Maximum number of entries.
    pub limit: usize,
}

/// Query for the history of submissions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryQuery {
    /// Topology name; all names when absent.
    pub name: Option<TopologyName>,
    /// Maximum number of submissions.
    pub limit: usize,
}

/// Body of the request that sends a metric batch.
pub type IngestRequest = MetricBatch;
