//! Draining a host: to have its workers leave it without loss, and to keep others away.
//!
//! All that an operator's wish changes is one record; what follows from it is decided with
//! everything else, so that whoever leads carries on with it.

use std::collections::BTreeSet;

use crate::{
    cluster::{
        event::Told,
        layout,
        record::{self, Drain, Rest},
        view::ClusterView,
    },
    election::{FencedWriter, WriteError},
    model::{HostName, Timestamp, event::EventKind},
    nimbus::{plan::Trouble, refusal::Refusal},
    tree::{self, CreateMode, Op},
};

/// How many hosts may be drained at a time; the list of them is shown whole.
const DRAINS_MAX: usize = 1000;

/// The longest wait: a topology whose spouts are stopped longer is as good as killed.
const WAIT_SECS_MAX: u64 = 24 * 3600;

/// What an operator asks of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainChange {
    /// Empty it and keep it empty.
    Drain {
        /// How long spouts are stopped before their topology moves; its message timeout when
        /// absent.
        wait_secs: Option<u64>,
    },
    /// Use it again.
    Undrain,
}

impl DrainChange {
    /// The word for it, as in the API and the CLI.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Drain { .. } => "drain",
            Self::Undrain => "undrain",
        }
    }
}

/// Writes the wish of an operator about `host`. Wishing the same again changes nothing.
pub(super) async fn carry_out(
    host: &HostName,
    (change, by): (DrainChange, &Option<String>),
    now: Timestamp,
    view: &ClusterView,
    writer: &FencedWriter,
) -> Result<(), Refusal> {
    let path = layout::drain(host);
    let before = view.drains.get(host);
    let spoilt = view.is_unreadable(&path);
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
                rest: before.map_or_else(Rest::new, |before| before.value.rest.clone()),
            };
            let data = record::encode(&drain);
            let op = match (before, spoilt) {
                (Some(before), _) => Op::Set { path, data, version: Some(before.version) },
                (None, true) => Op::Set { path, data, version: None },
                (None, false) => Op::Create { path, data, mode: CreateMode::Persistent },
            };
            (op, EventKind::Drained, format!("host {host} is to be emptied"))
        }
        DrainChange::Undrain => {
            if before.is_none() && !spoilt {
                return Err(Refusal::NotDrained { host: host.clone(), drained: names(view) });
            }
            let version = before.map(|before| before.version);
            (Op::Delete { path, version }, EventKind::Undrained, format!("host {host} may be used again"))
        }
    };
    let told = Told { by: by.clone(), ..Told::of_cluster(event, reason) };
    match writer.commit_and_tell(vec![op], told).await {
        Ok(_) => Ok(()),
        // Only a person with zkCli writes here besides us, and the caller may ask again.
        Err(WriteError::Op {
            source:
                tree::Error::BadVersion { path } | tree::Error::NoNode { path } | tree::Error::NodeExists { path },
            ..
        }) => Err(Refusal::Conflict { path }),
        Err(error) => Err(error.into()),
    }
}

fn check_drain(host: &HostName, wait_secs: Option<u64>, view: &ClusterView) -> Result<(), Refusal> {
    if wait_secs.is_some_and(|secs| secs > WAIT_SECS_MAX) {
        return Err(Refusal::BadOption(format!("the wait is longer than {WAIT_SECS_MAX} s")));
    }
    let assigned = view.assignments.values().flat_map(|assignment| assignment.value.workers.values());
    let known: BTreeSet<&str> = (view.supervisors.values().map(|supervisor| supervisor.host.as_str()))
        .chain(assigned.map(|worker| worker.host.as_str()))
        .collect();
    // A mistyped name would seem to be empty at once.
    if !known.contains(host.as_str()) && !view.is_drained(host.as_str()) {
        let known = known.into_iter().map(str::to_owned).collect();
        return Err(Refusal::UnknownHost { host: host.clone(), known });
    }
    if view.drains.len() >= DRAINS_MAX {
        let (path, limit) = (layout::drains(), DRAINS_MAX);
        return Err(Refusal::TooLarge(Trouble::TooLarge { path, bytes: view.drains.len(), limit }));
    }
    Ok(())
}

fn names(view: &ClusterView) -> Vec<HostName> {
    view.drains.keys().cloned().collect()
}
