//! Draining a host: its workers move elsewhere without loss, and no new ones are placed there.
//!
//! The request of an operator is one record. Its consequences are decided together with
//! everything else, so that any later leader continues the drain.

use std::collections::BTreeSet;

use crate::{plan::ClusterProblem, refusal::Refusal};
use stormkeeper_coordination::{
    cluster::{
        event::EventDraft,
        layout,
        record::{self, Drain, UnknownFields},
        view::ClusterView,
    },
    election::{FencedWriter, WriteError},
    tree::{self, CreateMode, Op},
};
use stormkeeper_model::{HostName, Timestamp, event::EventKind};

/// Most hosts that may be drained at a time; the API returns the list in one piece.
const DRAINS_MAX: usize = 1000;

/// Longest wait: a topology whose spouts are stopped longer is as good as killed.
pub(crate) const WAIT_SECS_MAX: u64 = 24 * 3600;

/// Request of an operator for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainChange {
    /// Move all workers away and place none there.
    Drain {
        /// Longest time for which workers may drain, with their spouts stopped, before their topology
        /// moves; the message timeout of the topology if absent.
        wait_secs: Option<u64>,
    },
    /// Allow placement again.
    Undrain,
}

impl DrainChange {
    /// Name of the change in the API and the CLI.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Drain { .. } => "drain",
            Self::Undrain => "undrain",
        }
    }
}

/// Writes or deletes the drain record of `host`. The same request again changes nothing.
pub(super) async fn execute(
    host: &HostName,
    (change, by): (DrainChange, &Option<String>),
    now: Timestamp,
    view: &ClusterView,
    writer: &FencedWriter,
) -> Result<(), Refusal> {
    let path = layout::drain(host);
    let before = view.drains.get(host);
    let damaged = view.is_unreadable(&path);
    let (op, event, reason) = match change {
        DrainChange::Drain { wait_secs } => {
            check_drain(host, wait_secs, view)?;
            if before.is_some_and(|before| before.value.wait_secs == wait_secs) {
                return Ok(());
            }
            let drain = Drain {
                since: before.map_or(now, |before| before.value.since),
                by: by.clone().unwrap_or_else(|| "unknown".to_owned()),
                wait_secs,
                unknown_fields: before
                    .map_or_else(UnknownFields::new, |before| before.value.unknown_fields.clone()),
            };
            let data = record::encode(&drain);
            let op = match (before, damaged) {
                (Some(before), _) => Op::Set { path, data, version: Some(before.version) },
                (None, true) => Op::Set { path, data, version: None },
                (None, false) => Op::Create { path, data, mode: CreateMode::Persistent },
            };
            (op, EventKind::Drained, format!("host {host} is being drained"))
        }
        DrainChange::Undrain => {
            if before.is_none() && !damaged {
                return Err(Refusal::NotDrained { host: host.clone(), drained: names(view) });
            }
            let version = before.map(|before| before.version);
            (Op::Delete { path, version }, EventKind::Undrained, format!("host {host} may be used again"))
        }
    };
    let event = EventDraft { by: by.clone(), ..EventDraft::of_cluster(event, reason) };
    match writer.commit_with_event(vec![op], event).await {
        Ok(_) => Ok(()),
        // Apart from us only a person with zkCli writes here, and the caller may try again.
        Err(WriteError::Op {
            source:
                tree::Error::BadVersion { path } | tree::Error::NoNode { path } | tree::Error::NodeExists { path },
            ..
        }) => Err(Refusal::Conflict { path }),
        Err(error) => Err(error.into()),
    }
}

/// Checks the wait of a request against [`WAIT_SECS_MAX`].
///
/// # Errors
/// [`Refusal::BadOption`].
pub(crate) fn check_wait(wait_secs: Option<u64>) -> Result<(), Refusal> {
    match wait_secs.is_some_and(|secs| secs > WAIT_SECS_MAX) {
        true => Err(Refusal::BadOption(format!("the wait is longer than the limit of {WAIT_SECS_MAX} s"))),
        false => Ok(()),
    }
}

fn check_drain(host: &HostName, wait_secs: Option<u64>, view: &ClusterView) -> Result<(), Refusal> {
    check_wait(wait_secs)?;
    let assigned = view.assignments.values().flat_map(|assignment| assignment.value.workers.values());
    let known: BTreeSet<&str> = (view.supervisors.values().map(|supervisor| supervisor.host.as_str()))
        .chain(assigned.map(|worker| worker.host.as_str()))
        .collect();
    // A mistyped host would appear to be empty at once.
    if !known.contains(host.as_str()) && !view.is_drained(host.as_str()) {
        let known = known.into_iter().map(str::to_owned).collect();
        return Err(Refusal::UnknownHost { host: host.clone(), known });
    }
    if view.drains.len() >= DRAINS_MAX {
        let (path, limit) = (layout::drains(), DRAINS_MAX);
        return Err(Refusal::TooLarge(ClusterProblem::TooLarge { path, bytes: view.drains.len(), limit }));
    }
    Ok(())
}

fn names(view: &ClusterView) -> Vec<HostName> {
    view.drains.keys().cloned().collect()
}
