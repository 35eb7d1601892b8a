//! How the metrics of a nimbus stand, for people.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    archive,
    model::{NimbusId, Position, Timestamp},
};

/// How the metrics of a nimbus stand.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MeasureStatus {
    /// Why the archive is not open; absent while it is.
    pub closed: Option<String>,
    /// What it does for metrics.
    pub stage: Stage,
    /// The last entry of its archive's log.
    pub position: Position,
    /// The last entry of the leader's log, as far as this nimbus has heard.
    pub leader: Option<Position>,
    /// When it last had everything that the leader had; on the leader itself absent.
    pub level_at: Option<Timestamp>,
    /// What went wrong last with following or taking over, until something goes right.
    pub trouble: Option<String>,
    /// While it leads: up to where the log would survive its loss.
    pub safe: Position,
    /// While it leads: what each live follower has.
    pub followers: BTreeMap<NimbusId, Position>,
    /// The archive, when it answers.
    pub archive: Option<archive::Status>,
    /// The upload queue, when the archive answers.
    pub queue: Option<archive::QueueStatus>,
    /// While it leads: each uploader.
    pub uploaders: BTreeMap<String, UploaderState>,
    /// What was counted since the start.
    pub counts: CountsNow,
}

/// What a nimbus knows of the leader's archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// The last entry of the leader's log, as far as this nimbus has heard.
    pub leader: Option<Position>,
    /// When it last had everything that the leader had; on the leader itself absent.
    pub level_at: Option<Timestamp>,
}

/// What a nimbus does for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// It follows the leader's archive.
    #[default]
    Following,
    /// It leads since a moment ago, and takes what other nimbuses have beyond its own.
    TakingOver,
    /// It takes metrics in.
    Leading,
}

impl Stage {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::TakingOver => "taking over",
            Self::Leading => "leading",
        }
    }
}

/// What an uploader is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploaderState {
    /// What it does, or waits for.
    pub doing: Doing,
    /// Since when.
    pub since: Timestamp,
    /// How many points its store took.
    pub points: u64,
    /// How many its store, or its rules, refused for good.
    pub refused: u64,
    /// How often it failed, panicked and ran out of time.
    pub failures: u64,
    /// How many events were told to it.
    pub events: u64,
    /// How many events it was not told, as it was behind or failed.
    pub events_lost: u64,
    /// How it failed last.
    pub last_failure: Option<String>,
}

impl UploaderState {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            doing: Doing::Starting,
            since: now,
            points: 0,
            refused: 0,
            failures: 0,
            events: 0,
            events_lost: 0,
            last_failure: None,
        }
    }
}

/// What an uploader does, or waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// It is being started.
    Starting,
    /// There is nothing to send.
    Idle,
    /// It sends.
    Uploading,
    /// It failed and is left alone for a moment.
    Pausing,
    /// Its last call was given up and does not end: nothing is asked of it meanwhile.
    Stuck,
}

impl Doing {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Uploading => "uploading",
            Self::Pausing => "pausing",
            Self::Stuck => "stuck",
        }
    }
}

/// What is counted of the intake.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) contributions: AtomicU64,
    pub(super) points: AtomicU64,
    pub(super) repeats: AtomicU64,
    pub(super) overlaps: AtomicU64,
    pub(super) not_now: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) undecodable: AtomicU64,
    pub(super) claims: AtomicU64,
    pub(super) claims_refused: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) metas_repaired: AtomicU64,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CountsNow {
    /// Contributions that were stored.
    pub contributions: u64,
    /// Their points.
    pub points: u64,
    /// Contributions that were stored before.
    pub repeats: u64,
    /// Contributions of which a part was stored before.
    pub overlaps: u64,
    /// Contributions and registrations that are to come again.
    pub not_now: u64,
    /// Contributions that will never be taken.
    pub refused: u64,
    /// Bodies that are no messages.
    pub undecodable: u64,
    /// Names that were registered, again or for the first time.
    pub claims: u64,
    /// Names that were refused.
    pub claims_refused: u64,
    /// Whole archives fetched from another nimbus.
    pub checkpoints: u64,
    /// Topologies whose metas differed from the leader's and were made equal to them.
    pub metas_repaired: u64,
}

pub(super) fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Counts {
    pub(super) fn now(&self) -> CountsNow {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountsNow {
            contributions: read(&self.contributions),
            points: read(&self.points),
            repeats: read(&self.repeats),
            overlaps: read(&self.overlaps),
            not_now: read(&self.not_now),
            refused: read(&self.refused),
            undecodable: read(&self.undecodable),
            claims: read(&self.claims),
            claims_refused: read(&self.claims_refused),
            checkpoints: read(&self.checkpoints),
            metas_repaired: read(&self.metas_repaired),
        }
    }
}
