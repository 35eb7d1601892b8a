//! What is asked of the archive, and what it answers.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use stormkeeper_metrics::{
    MetaType, MetricId, Minute, Point, Window,
    protocol::{IngestedUpTo, MetricMeta},
};
use stormkeeper_model::{ComponentId, LogPosition, StreamId, TaskId, TopologyId};

/// What became of a batch in the archive.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// It is stored, or all of its reports were before. The log on disk reaches to here at least.
    Stored(LogPosition),
    /// Some of its reports were stored before, so nothing of it was: the last cut that is stored,
    /// of each of its launches that has any.
    Overlaps(Vec<IngestedUpTo>),
    /// Metrics that nobody registered; nothing was stored.
    Unregistered(Vec<MetricId>),
}

/// Which metrics are wanted, as they were last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatestQuery {
    /// Of which topology.
    pub topology: TopologyId,
    /// Over which stretch of time, ending with the last minute of each metric.
    pub window: Window,
    /// Of which level; all when absent.
    pub meta: Option<MetaType>,
    /// Of which component.
    pub component: Option<ComponentId>,
    /// Of which task.
    pub task: Option<TaskId>,
    /// Of which stream.
    pub stream: Option<StreamId>,
    /// Whose last part is this; `*` stands for any characters, `?` for one.
    pub name: Option<String>,
    /// Only those that have a point in this minute or later.
    pub since: Option<Minute>,
    /// Those after this id; from the beginning when absent.
    pub after: Option<MetricId>,
    /// At most so many.
    pub limit: usize,
}

impl LatestQuery {
    /// All metrics of a topology in their last minute, the first 1,000.
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

/// Metrics in the order of their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatestPage {
    /// The metrics.
    pub rows: Vec<LatestRow>,
    /// The id to go on after; none when this was the last page. A page may have less than was
    /// asked for and yet not be the last.
    pub next: Option<MetricId>,
}

/// A metric as it was last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatestRow {
    /// Which.
    pub meta: MetricMeta,
    /// The last minute that it has a point of.
    pub minute: Minute,
    /// The window that ends with that minute.
    pub point: Point,
}

/// Tells whether two nimbuses have the same metas of a topology.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// How many.
    pub count: u64,
    /// A digest over ids and names, the same in whichever order they came.
    pub digest: u64,
}

impl fmt::Display for Fingerprint {
    /// As it stands in `/metrics/{topology-id}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:016x}", self.count, self.digest)
    }
}

/// Why something was left out, or taken otherwise than it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DropCause {
    /// A registration that is no metric name, or of another topology. Counts registrations.
    InvalidName,
    /// A registration of a topology that has too many. Counts registrations.
    TooManyNames,
    /// A claimed id that was another metric's. Counts registrations; they got another id.
    IdTaken,
    /// Cuts that never came. Counts reports.
    MissingCut,
    /// Points of a minute that is still far off; they count for the current one. Counts points.
    FromFuture,
    /// Points of a minute that is not kept any more; they count for the oldest. Counts points.
    TooOld,
    /// Points that are not a finite number. Counts points.
    NotFinite,
    /// Points of another kind than their metric. Counts points.
    WrongKind,
    /// Entries of the upload queue that were dropped, for each uploader that had not
    /// acknowledged them. Counts entries.
    QueueFull,
}

impl DropCause {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::InvalidName,
        Self::TooManyNames,
        Self::IdTaken,
        Self::MissingCut,
        Self::FromFuture,
        Self::TooOld,
        Self::NotFinite,
        Self::WrongKind,
        Self::QueueFull,
    ];

    /// The word for it in the API and the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::InvalidName => "invalid-name",
            Self::TooManyNames => "too-many-names",
            Self::IdTaken => "id-taken",
            Self::MissingCut => "missing-cut",
            Self::FromFuture => "from-future",
            Self::TooOld => "too-old",
            Self::NotFinite => "not-finite",
            Self::WrongKind => "wrong-kind",
            Self::QueueFull => "queue-full",
        }
    }
}

/// How often each cause was met.
pub type Drops = BTreeMap<DropCause, u64>;

/// How the archive stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// About how many bytes it has on disk.
    pub bytes: u64,
    /// The last entry of its log on disk.
    pub position: LogPosition,
    /// The oldest entry of its log.
    pub log_from: u64,
    /// About how many bytes its log has.
    pub log_bytes: u64,
    /// How many metrics it knows.
    pub metas: u64,
    /// What was left out, of each topology.
    pub drops: BTreeMap<TopologyId, Drops>,
    /// The last write that failed, until one succeeds.
    pub failure: Option<String>,
    /// Archives that had what the leader's lacked, and were put aside.
    pub aside: Vec<PathBuf>,
}
