//! What uploaders see of the queue.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use stormkeeper_metrics::{MetaType, MetricId, Minute, Point, protocol::MetricMeta};
use stormkeeper_model::TopologyId;

/// Which part of a topology's minute an upload holds, as JStorm divides them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum UploadKind {
    /// `TP`: the topology and its components.
    Topology,
    /// `TASK`: tasks, streams, workers and connections.
    Task,
    /// `ALL`: both.
    All,
}

impl UploadKind {
    /// JStorm's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Topology => "TP",
            Self::Task => "TASK",
            Self::All => "ALL",
        }
    }

    /// Whether metrics of this level are in it.
    pub const fn holds(self, meta: MetaType) -> bool {
        let is_top = matches!(meta, MetaType::Topology | MetaType::Component | MetaType::Nimbus);
        match self {
            Self::Topology => is_top,
            Self::Task => !is_top,
            Self::All => true,
        }
    }
}

/// Names one entry of the queue, and with it a payload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UploadKey {
    /// Its number in the queue: later ones are larger.
    pub index: u64,
    /// Whose metrics they are.
    pub topology: TopologyId,
    /// Of which minute.
    pub minute: Minute,
    /// Which levels.
    pub kind: UploadKind,
    /// Which part of these levels, from 0 on.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
}

impl fmt::Display for UploadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} of {}", self.index, self.kind.word(), self.topology, self.minute)?;
        if self.parts > 1 {
            write!(f, " ({} of {})", self.part + 1, self.parts)?;
        }
        Ok(())
    }
}

/// An entry that an uploader has now, until it acknowledges or refuses it or its time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// What to upload; [`super::MetricStore::payload`] reads it.
    pub key: UploadKey,
    /// How often this uploader had it before, since this process started.
    pub attempts: u32,
    /// About how many points it has.
    pub points: u64,
    /// After so long it counts as refused.
    pub timeout: Duration,
}

/// Points of one upload, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PayloadPage {
    /// Metrics and what they were in the minute.
    pub points: Vec<(MetricMeta, Point)>,
    /// The id to go on after; none when this was the last page. A page may be empty and yet
    /// not the last.
    pub next: Option<MetricId>,
}

/// How the queue stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Minutes of topologies that are not closed.
    pub reserved: usize,
    /// Entries that at least one uploader has not acknowledged.
    pub ready: usize,
    /// About so many bytes are to be uploaded.
    pub bytes: u64,
    /// The minute of the oldest entry.
    pub oldest: Option<Minute>,
    /// Each uploader.
    pub uploaders: BTreeMap<String, UploaderStatus>,
}

/// How one uploader stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UploaderStatus {
    /// Entries that it has not acknowledged.
    pub pending: usize,
    /// Entries that it has now.
    pub uploading: usize,
    /// Entries that it has acknowledged, ever.
    pub acked: u64,
    /// Entries that were dropped before it acknowledged them, ever.
    pub dropped: u64,
    /// Entries that it refused or that ran out of time, since this process started.
    pub refused: u64,
    /// Why it refused one last.
    pub last_refusal: Option<String>,
}
