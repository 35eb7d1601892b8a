//! Records, the values of keys other than points, in MessagePack. Every change that an older version
//! cannot read increments [`FORMAT`]. This version reads format 2 and no earlier format; a later
//! version must also read each format from 2 on.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Error, ExportKey};
use stormkeeper_metrics::{MetricName, Minute, messagepack};
use stormkeeper_model::Timestamp;

/// Version of keys, records and entries. Format 1, of builds before the first release, has other
/// log entries and names of metrics, and is not read.
pub(super) const FORMAT: u32 = 2;

/// Value of a meta's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MetaRecord {
    /// Registration number, which exporters use to continue.
    pub(super) n: u64,
    pub(super) name: MetricName,
}

/// Value of a launch's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReportRecord {
    /// Number of the last report that was stored.
    pub(super) last: u64,
    /// Minute that the report counted for, or the last closed minute if that is later: a report that
    /// arrives late is remembered as long as any other, as it may be sent again.
    pub(super) minute: Minute,
}

/// Minute of a topology that has data and is not closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reserved {
    /// Number of points of the topology and of components.
    pub(super) n_top: u64,
    /// Number of points of all other levels.
    pub(super) n_rest: u64,
    /// Size of the stored points in bytes.
    pub(super) bytes: u64,
}

/// Entry of the export queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Queued {
    pub(super) key: ExportKey,
    pub(super) n_points: u64,
    pub(super) bytes: u64,
    /// Exporters that acknowledged the entry.
    pub(super) acked: Vec<String>,
}

/// Persisted progress of an exporter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) n_acked: u64,
    pub(super) n_dropped: u64,
    /// Number of the last meta that the exporter acknowledged.
    pub(super) metas: u64,
}

/// Segment of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    /// Term of its last entry.
    pub(super) term: i32,
    /// Index of its last entry.
    pub(super) last: u64,
    pub(super) bytes: u64,
    /// Time of the write of its last entry.
    pub(super) at: Timestamp,
}

pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    rmp_serde::to_vec(record).expect("records have no maps with strange keys and no unsized sequences")
}

pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    messagepack::decode(bytes)
        .map_err(|error| Error::Unreadable { what: what.to_owned(), detail: error.to_string() })
}
