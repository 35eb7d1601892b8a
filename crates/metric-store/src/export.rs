//! Export queue as exporters see it.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use stormkeeper_metrics::{MetaType, MetricId, Minute, Point, protocol::MetricMeta};
use stormkeeper_model::TopologyId;

/// Part of a topology's minute that an export contains, divided as in JStorm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ExportKind {
    /// `TP`: the topology and its components.
    Topology,
    /// `TASK`: tasks, streams, workers and connections.
    Task,
    /// `ALL`: both.
    All,
}

impl ExportKind {
    /// JStorm's word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Topology => "TP",
            Self::Task => "TASK",
            Self::All => "ALL",
        }
    }

    /// Returns whether metrics of this level are part of it.
    pub const fn holds(self, meta: MetaType) -> bool {
        let is_top = matches!(meta, MetaType::Topology | MetaType::Component | MetaType::Nimbus);
        match self {
            Self::Topology => is_top,
            Self::Task => !is_top,
            Self::All => true,
        }
    }
}

/// Key of one entry of the queue, and with it of a payload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExportKey {
    /// Number in the queue; later entries have larger numbers.
    pub number: u64,
    /// Topology of the metrics.
    pub topology: TopologyId,
    /// Minute of the points.
    pub minute: Minute,
    /// Levels of the metrics.
    pub kind: ExportKind,
    /// Part of these levels, counted from 0.
    pub part: u32,
    /// Number of parts.
    pub parts: u32,
}

impl fmt::Display for ExportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} of {}", self.number, self.kind.word(), self.topology, self.minute)?;
        if self.parts > 1 {
            write!(f, " ({} of {})", self.part + 1, self.parts)?;
        }
        Ok(())
    }
}

/// Entry that is leased to an exporter until it is acked or nacked, or the lease times out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportLease {
    /// Key of the entry; [`super::MetricStore::payload`] reads its points.
    pub key: ExportKey,
    /// Number of earlier leases to this exporter since this process started.
    pub attempts: u32,
    /// Approximate number of points.
    pub points: u64,
    /// Duration of the lease; when it ends, the entry counts as nacked.
    pub timeout: Duration,
}

/// Points of one export, sorted by id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PayloadPage {
    /// Metrics and their points in the minute.
    pub points: Vec<(MetricMeta, Point)>,
    /// Id to continue after; `None` after the last page. A page may be empty without being the
    /// last.
    pub next: Option<MetricId>,
}

/// Status of the export queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Number of pairs of minute and topology that are not closed.
    pub reserved: usize,
    /// Number of entries that at least one exporter has not acknowledged.
    pub ready: usize,
    /// Approximate number of bytes to export.
    pub bytes: u64,
    /// Minute of the oldest entry.
    pub oldest: Option<Minute>,
    /// Status of each exporter, by name.
    pub exporters: BTreeMap<String, ExporterStatus>,
}

/// Status of one exporter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExporterStatus {
    /// Number of entries that the exporter has not acknowledged.
    pub pending: usize,
    /// Number of entries leased to the exporter now.
    pub leased: usize,
    /// Total number of entries that the exporter acknowledged.
    pub acked: u64,
    /// Total number of entries that were dropped before the exporter acknowledged them.
    pub dropped: u64,
    /// Number of nacks and timeouts since this process started.
    pub nacked: u64,
    /// Reason of the last nack.
    pub last_nack: Option<String>,
}
