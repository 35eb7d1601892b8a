//! Status of a metric store, of its export and of its followers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MetricStoreView;
use stormkeeper_model::{NimbusId, Timestamp, TopologyId};

/// `GET /api/stormkeeper/v1/metrics/status`: metric store and export queue of the answering nimbus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricStoreStatus {
    /// The answering nimbus.
    pub store: MetricStoreView,
    /// State of the replica: `following`, `taking over` or `leading`.
    pub state: String,
    /// The last problem with following or taking over, until the next success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// On a leader, the log position of each live follower.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followers: Vec<FollowerSummary>,
    /// Approximate size on disk, in bytes.
    pub bytes: u64,
    /// Number of known metrics, over all topologies.
    pub metas: u64,
    /// Index of the oldest entry of the metric log.
    pub log_from: u64,
    /// Approximate size of the metric log, in bytes.
    pub log_bytes: u64,
    /// The last failed write, until a write succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Paths of the quarantined databases, which may contain committed entries that the leader's
    /// log is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<String>,
    /// Number of items that were dropped or changed, by topology and cause, since the store exists.
    pub drops: Vec<DropSummary>,
    /// The export queue.
    pub queue: ExportQueueSummary,
}

/// A follower, as known to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FollowerSummary {
    /// The follower.
    pub nimbus: NimbusId,
    /// Index of the last entry of its log.
    pub index: u64,
}

/// Number of dropped items of one topology and cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DropSummary {
    /// The topology.
    pub topology_id: TopologyId,
    /// Cause: `invalid-name`, `too-many-names`, `queue-full`, …
    pub cause: String,
    /// Number of items.
    pub count: u64,
}

/// The export queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportQueueSummary {
    /// Number of minutes of topologies that are not closed.
    pub reserved: usize,
    /// Number of entries that at least one exporter has not acknowledged.
    pub ready: usize,
    /// Approximate number of bytes to export.
    pub bytes: u64,
    /// Minute of the oldest entry; absent if the queue is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<Timestamp>,
    /// Sorted by name.
    pub exporters: Vec<ExporterSummary>,
}

/// One exporter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExporterSummary {
    /// Name of the exporter.
    pub name: String,
    /// Number of entries that the exporter has not acknowledged.
    pub pending: usize,
    /// Number of leased entries.
    pub leased: usize,
    /// Number of acknowledged entries since the store exists.
    pub acked: u64,
    /// Number of entries dropped before their acknowledgement, since the store exists.
    pub dropped: u64,
    /// Number of entries that were nacked or timed out, since this nimbus started.
    pub nacked: u64,
    /// Reason of the last nack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_nack: Option<String>,
    /// Activity of the exporter, while this nimbus leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<ExporterWork>,
}

/// Activity of an exporter, and its counts since this nimbus leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExporterWork {
    /// Current activity: `starting`, `idle`, `leased`, `pausing` or `stuck`.
    pub doing: String,
    /// Start of the current activity.
    pub since_ms: Timestamp,
    /// Number of points that the external store accepted.
    pub points: u64,
    /// Number of points that the external store, or the exporter's rules, rejected for good.
    pub points_rejected: u64,
    /// Number of failures, panics and timeouts.
    pub failures: u64,
    /// Number of events that the exporter received.
    pub events: u64,
    /// Number of events that the exporter missed, because it was behind or failed.
    pub events_dropped: u64,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Reason of the last rejection of points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rejection: Option<String>,
}
