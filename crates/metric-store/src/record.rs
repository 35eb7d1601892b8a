//! What stands behind keys, besides points: MessagePack. [`FORMAT`] goes up with every change
//! that an older version would not read.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Error, UploadKey};
use stormkeeper_metrics::{MetricName, Minute};
use stormkeeper_model::Timestamp;

/// The version of keys, records and entries.
pub(super) const FORMAT: u32 = 1;

/// Behind a meta's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MetaRecord {
    /// Metas are counted as they are registered, for the uploaders.
    pub(super) n: u64,
    pub(super) name: MetricName,
}

/// Behind the key of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CutRecord {
    /// The last cut that was taken.
    pub(super) last: u64,
    /// The minute that it counted for.
    pub(super) minute: Minute,
}

/// A minute of a topology that has data and is not closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reserved {
    /// Points of the topology and of components.
    pub(super) n_top: u64,
    /// Points of all other levels.
    pub(super) n_rest: u64,
    /// Their bytes, as they are stored.
    pub(super) bytes: u64,
}

/// An entry of the upload queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Queued {
    pub(super) key: UploadKey,
    pub(super) n_points: u64,
    pub(super) bytes: u64,
    /// Who has acknowledged it.
    pub(super) acked: Vec<String>,
}

/// What is kept of an uploader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) n_acked: u64,
    pub(super) n_dropped: u64,
    /// Up to here it knows the metas.
    pub(super) metas: u64,
}

/// A stretch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    /// The term of its last entry.
    pub(super) term: i32,
    /// Its last entry.
    pub(super) last: u64,
    pub(super) bytes: u64,
    /// When its last entry was written.
    pub(super) at: Timestamp,
}

pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    rmp_serde::to_vec(record).expect("records have no maps with strange keys and no unsized sequences")
}

pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| Error::Unreadable { what: what.to_owned(), detail: error.to_string() })
}
