//! What workers and supervisors tell the leading nimbus of their metrics, and what following
//! nimbuses ask of it. Bodies are MessagePack; every answer names the term.
//!
//! | request | who | body and answer |
//! | --- | --- | --- |
//! | `POST /api/v1/metrics/register` | topology masters, supervisors | [`RegisterRequest`] → [`RegisterAnswer`] |
//! | `POST /api/v1/metrics/contribute` | the same | [`Contribution`] → [`ContributeAnswer`] |
//! | `GET /api/v1/metrics/sync/log` | following nimbuses | [`LogQuery`] → [`LogPage`] |
//! | `GET /api/v1/metrics/sync/checkpoint` | following nimbuses | the whole archive as tar |
//! | `GET /api/v1/metrics/sync/metas` | following nimbuses | [`MetaQuery`] → [`MetaPage`] |
//! | `GET /api/v1/metrics/sync/points` | following nimbuses | [`PointsQuery`] → a list of minutes and points |
//! | `GET /api/v1/metrics/sync/track` | following nimbuses | [`TrackQuery`] → a list of the archive's track entries |
//! | `GET /api/v1/metrics/sync/history` | following nimbuses | [`HistoryQuery`] → a list of the archive's history entries |
//!
//! The first two are taken by the leader alone: another nimbus answers `no_leader`, which is
//! worth another try.

use serde::{Deserialize, Serialize};

use crate::{
    metrics::{Contribution, MetaType, MetricId, MetricName, Minute, Window},
    model::{NimbusId, Position, TaskId, Term, TopologyId, TopologyName, WorkerId},
};

/// The content type of all bodies here.
pub const MSGPACK: &str = "application/msgpack";

/// The most names in one registration.
pub const NAMES_MAX: usize = 10_000;

/// The most bytes of one body.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Names to be known by the leader before points of them come. Registering one again changes
/// nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// Whose metrics they are. Metrics of `__CLUSTER__` may be among them.
    pub topology: TopologyId,
    /// The names, at most [`NAMES_MAX`], as texts, so that one that is invalid refuses itself
    /// and not the others.
    pub claims: Vec<Claim>,
}

/// A name, with the id that its measurer has used for it so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The full name.
    pub name: String,
    /// The id: what follows from the name, or what an earlier leader answered.
    pub id: MetricId,
}

/// One answer for each claim, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterAnswer {
    /// The answers.
    pub claims: Vec<Registered>,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Registered {
    /// Its points are to come under this id: mostly the claimed one.
    As(MetricId),
    /// It is not a name, or too many of this topology are known: its points are not wanted. The
    /// reason is for the log.
    Refused(String),
}

/// What became of a contribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ContributeAnswer {
    /// It is stored, or all of its cuts were before.
    Stored {
        /// Where it stands in the archive's log.
        at: Position,
        /// Up to here the log would survive the loss of this leader with its disk: another
        /// nimbus has it too, or there is none. What stands later is to be kept for a resend.
        safe: Position,
    },
    /// A part of its cuts was stored before, so nothing of it was: merge anew without these.
    Overlaps {
        /// The last cut that is stored, of each launch that has any.
        stored: Vec<StoredCut>,
    },
    /// Metrics that nobody registered here: register them, then send it again. Nothing of it
    /// was stored.
    Unregistered {
        /// Their ids, at most [`NAMES_MAX`].
        ids: Vec<MetricId>,
    },
    /// Nothing was stored, and it is worth another try in a moment: the queue is full, or the
    /// topology is not known here yet.
    NotNow {
        /// Why, for the log.
        reason: String,
    },
    /// It will never be taken: not a contribution of a known topology, or without sense.
    Refused {
        /// Why, for the log.
        reason: String,
    },
}

/// The last cut of a launch that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCut {
    /// The launch.
    pub worker: WorkerId,
    /// The number of the cut.
    pub last: u64,
}

/// What a following nimbus has, and how much more it wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogQuery {
    /// Who asks.
    pub nimbus: NimbusId,
    /// The term of the last entry that it has.
    pub term: i32,
    /// The number of that entry; 0 for none.
    pub seq: u64,
    /// At most about so many bytes.
    pub max_bytes: u64,
    /// It follows the leader of this term, and takes nothing from another nimbus; absent when it
    /// asks whoever there is, as it leads itself.
    pub leads: Option<Term>,
}

/// Log entries, or why there are none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum LogPage {
    /// The entries after the asked one, in order; none when it has all.
    Entries {
        /// Each with its place.
        entries: Vec<(Position, Vec<u8>)>,
        /// The last that the leader has.
        last: Position,
    },
    /// The log does not reach back to there, or holds another entry there: fetch a checkpoint.
    Diverged,
    /// The same; and entries up to there may be safe ones that a leader went on without: what the
    /// asker has is to be kept.
    Lacking,
}

/// Which metas are wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetaQuery {
    /// Of which topology.
    pub topology: TopologyId,
    /// Of which level; all when absent.
    pub meta: Option<MetaType>,
    /// Those after this id; from the beginning when absent.
    pub after: Option<MetricId>,
    /// At most so many.
    pub limit: usize,
}

/// Metas in the order of their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetaPage {
    /// The metas.
    pub metas: Vec<Meta>,
    /// The id to go on after; none when this was the last page.
    pub next: Option<MetricId>,
}

/// A known metric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Meta {
    /// Its id.
    pub id: MetricId,
    /// Its name.
    pub name: MetricName,
}

/// Which points of a metric are wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointsQuery {
    /// Of which metric.
    pub id: MetricId,
    /// How wide each is.
    pub window: Window,
    /// The first minute.
    pub from: Minute,
    /// The last minute.
    pub to: Minute,
    /// At most so many.
    pub limit: usize,
}

/// Which places of tasks are wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackQuery {
    /// Of which topology.
    pub topology: TopologyId,
    /// Of which task; of all when absent.
    pub task: Option<TaskId>,
    /// At most so many.
    pub limit: usize,
}

/// Which submissions are wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryQuery {
    /// Of which name; of all when absent.
    pub name: Option<TopologyName>,
    /// At most so many.
    pub limit: usize,
}

/// The body of a contribution.
pub type ContributeRequest = Contribution;
