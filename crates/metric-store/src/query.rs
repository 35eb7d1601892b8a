//! Queries to the metric store, and their responses.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use stormkeeper_metrics::{
    MetaType, MetricId, Minute, Point, Window,
    protocol::{IngestedUpTo, MetricMeta},
};
use stormkeeper_model::{ComponentId, LogPosition, StreamId, TaskId, TopologyId};

/// Outcome of ingesting a metric batch.
#[derive(Debug, Clone, PartialEq)]
pub enum IngestOutcome {
    /// The batch is stored now, or all of its reports were before. The log on disk ends here or later.
    Accepted(LogPosition),
    /// Some of its reports were stored before, so nothing of the batch was: the last stored report of
    /// each of its launches that has any.
    Overlapping(Vec<IngestedUpTo>),
    /// Metrics that are not registered; nothing of the batch was stored.
    UnknownMetrics(Vec<MetricId>),
}

/// Query for metrics in their last minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatestQuery {
    /// Topology of the metrics.
    pub topology: TopologyId,
    /// Length of the window, which ends with the last minute of each metric.
    pub window: Window,
    /// Level; all levels if absent.
    pub meta: Option<MetaType>,
    /// Component; all if absent.
    pub component: Option<ComponentId>,
    /// Task; all if absent.
    pub task: Option<TaskId>,
    /// Stream; all if absent.
    pub stream: Option<StreamId>,
    /// Pattern for the last part of the name; `*` matches any characters, `?` matches one.
    pub name: Option<String>,
    /// Only metrics that have a point in this minute or later.
    pub since: Option<Minute>,
    /// Only metrics after this id; from the first one if absent.
    pub after: Option<MetricId>,
    /// Maximum number of metrics.
    pub limit: usize,
}

impl LatestQuery {
    /// Query for the first 1,000 metrics of a topology over one minute.
    pub fn all(topology: TopologyId) -> Self {
        Self {
            topology,
            window: Window::M1,
            meta: None,
            component: None,
            task: None,
            stream: None,
            name: None,
            since: None,
            after: None,
            limit: 1000,
        }
    }
}

/// Metrics, sorted by id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatestPage {
    /// Metrics of this page.
    pub rows: Vec<LatestRow>,
    /// Id to continue after; `None` after the last page. A page may have fewer metrics than asked
    /// for without being the last.
    pub next: Option<MetricId>,
}

/// Metric in its last minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatestRow {
    /// Id and name.
    pub meta: MetricMeta,
    /// Last minute in which the metric has a point.
    pub minute: Minute,
    /// Point of the window that ends with that minute.
    pub point: Point,
}

/// Fingerprint of a topology's metas, to compare two nimbuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Number of metas.
    pub count: u64,
    /// Digest over ids and names, independent of their order.
    pub digest: u64,
}

impl fmt::Display for Fingerprint {
    /// Text as in `/metrics/{topology-id}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:016x}", self.count, self.digest)
    }
}

/// Cause for which data was dropped, or stored differently than it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DropCause {
    /// Registrations of an invalid name, or of a name of another topology. Counts registrations.
    InvalidName,
    /// Registrations of a topology that has too many names. Counts registrations.
    TooManyNames,
    /// Registrations whose id belongs to another metric; they got another id. Counts registrations.
    IdTaken,
    /// Reports that never arrived. Counts reports.
    MissingReport,
    /// Points of a future minute; they count for the current one. Counts points.
    FromFuture,
    /// Points of a minute beyond the retention; they count for the oldest one kept. Counts points.
    TooOld,
    /// Points with a number that is not finite. Counts points.
    NotFinite,
    /// Points whose kind is not that of their metric. Counts points.
    WrongKind,
    /// Entries dropped from the export queue, once for each exporter that had not acknowledged
    /// them. Counts entries.
    QueueFull,
}

impl DropCause {
    /// All causes.
    pub const ALL: [Self; 9] = [
        Self::InvalidName,
        Self::TooManyNames,
        Self::IdTaken,
        Self::MissingReport,
        Self::FromFuture,
        Self::TooOld,
        Self::NotFinite,
        Self::WrongKind,
        Self::QueueFull,
    ];

    /// Returns its word in the API and the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::InvalidName => "invalid-name",
            Self::TooManyNames => "too-many-names",
            Self::IdTaken => "id-taken",
            Self::MissingReport => "missing-report",
            Self::FromFuture => "from-future",
            Self::TooOld => "too-old",
            Self::NotFinite => "not-finite",
            Self::WrongKind => "wrong-kind",
            Self::QueueFull => "queue-full",
        }
    }
}

/// Drop counts, by cause.
pub type Drops = BTreeMap<DropCause, u64>;

/// Status of the metric store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Approximate size on disk in bytes.
    pub bytes: u64,
    /// Last log entry on disk.
    pub position: LogPosition,
    /// Index of the oldest log entry.
    pub log_from: u64,
    /// Approximate size of the log in bytes.
    pub log_bytes: u64,
    /// Number of registered metrics.
    pub metas: u64,
    /// Drop counts of each topology.
    pub drops: BTreeMap<TopologyId, Drops>,
    /// Reason of the last failed write; absent after a write succeeds.
    pub failure: Option<String>,
    /// Quarantined databases: they may hold committed entries that the leader's database is missing.
    pub quarantined: Vec<PathBuf>,
}
