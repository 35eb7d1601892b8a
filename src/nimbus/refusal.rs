//! Why nimbus did not do what it was asked.

use std::{fmt, time::Duration};

use crate::{
    cluster::{layout, record::Leader, store},
    election::WriteError,
    model::{BlobKey, ComponentId, HostName, Term, TopologyId, TopologyName, status::IllegalTransition},
    nimbus::{blobs, plan::Trouble},
    rpc::message::Code,
    tree::{self, TreePath},
};

/// A request that was not carried out. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another nimbus leads, or none.
    #[error("{}", match .leader {
        Some(leader) => format!("{} leads, at {}", leader.nimbus, leader.api),
        None => "there is no leader now".to_owned(),
    })]
    NotLeading {
        /// Who leads, as far as this nimbus knows.
        leader: Option<Leader>,
    },
    /// This nimbus has not read the cluster yet.
    #[error("this nimbus has not read the cluster state yet")]
    NotReady,
    /// Metrics are not taken or shown here now.
    #[error("no metrics here now: {reason}")]
    NoMetrics {
        /// Why.
        reason: String,
    },
    /// What was to be forgotten would be registered again.
    #[error("{topology} is still measured: what is forgotten of it would be registered again")]
    StillMeasured {
        /// The topology.
        topology: TopologyId,
    },
    /// Too many requests wait already.
    #[error("too many requests wait for the leader")]
    Busy,
    /// There is no such topology.
    #[error("there is no topology {topology:?}")]
    UnknownTopology {
        /// The id or name asked for.
        topology: String,
    },
    /// The name is taken.
    #[error("the name {name} is in use by {by}{}", if *.is_killed { ", which is being removed" } else { "" })]
    NameInUse {
        /// The name.
        name: TopologyName,
        /// Who has it.
        by: TopologyId,
        /// Whether that one is killed and not yet gone.
        is_killed: bool,
    },
    /// A record that may have the name cannot be read.
    #[error("the name {name} may be in use by {path}, which cannot be read")]
    NameUnclear {
        /// The name.
        name: TopologyName,
        /// The record.
        path: TreePath,
    },
    /// The topology cannot run.
    #[error("the topology cannot run: {}", .problems.join("; "))]
    InvalidTopology {
        /// Everything that is wrong with it.
        problems: Vec<String>,
    },
    /// The blob is no bundle of a topology.
    #[error("blob {key} does not hold a topology: {reason}")]
    BadBundle {
        /// The blob.
        key: BlobKey,
        /// What is wrong with it.
        reason: String,
    },
    /// The blob is not here, and nobody who has it could be asked.
    #[error("no nimbus that can be reached has blob {key}")]
    BlobMissing {
        /// The blob.
        key: BlobKey,
    },
    /// Too few nimbuses have the blob, and as many were asked for.
    #[error("blob {key} is on {there} of the {wanted} nimbuses wanted after {wait:?}; {n_nimbuses} are live{}",
        match .reasons.is_empty() { true => String::new(), false => format!(" ({})", .reasons.join("; ")) })]
    NotReplicated {
        /// The blob.
        key: BlobKey,
        /// How many were asked for.
        wanted: usize,
        /// How many have it.
        there: usize,
        /// How many live nimbuses there are.
        n_nimbuses: usize,
        /// How long was waited.
        wait: Duration,
        /// Why others have it not, as far as they said.
        reasons: Vec<String>,
    },
    /// A leader of the past asks for something.
    #[error("term {term} is over: term {later} has begun")]
    TermIsOver {
        /// In which it leads.
        term: Term,
        /// The latest that is known.
        later: Term,
    },
    /// A blob could not be stored or read.
    #[error(transparent)]
    Blob(#[from] blobs::Error),
    /// The records of the topology would be over a limit.
    #[error("the topology is too large to be stored: {0}")]
    TooLarge(Trouble),
    /// An option makes no sense for this topology.
    #[error("{0}")]
    BadOption(String),
    /// There is no such component.
    #[error("{topology} has no component {component}")]
    UnknownComponent {
        /// The topology.
        topology: TopologyId,
        /// What was asked for.
        component: ComponentId,
        /// Those that it has.
        known: Vec<ComponentId>,
    },
    /// No supervisor is on such a host, and no worker.
    #[error("there is no supervisor on host {host}")]
    UnknownHost {
        /// What was asked for.
        host: HostName,
        /// The hosts that there are.
        known: Vec<String>,
    },
    /// The host is not drained.
    #[error("host {host} is not drained")]
    NotDrained {
        /// What was asked for.
        host: HostName,
        /// Those that are.
        drained: Vec<HostName>,
    },
    /// The status does not allow it.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// Someone else wrote the same record each time.
    #[error("{path} was changed by someone else again and again")]
    Conflict {
        /// The record.
        path: TreePath,
    },
    /// A record that is needed cannot be read.
    #[error("{path} does not hold a valid record: {reason}")]
    Unreadable {
        /// The record.
        path: TreePath,
        /// What is wrong with it.
        reason: String,
    },
    /// The tree did not do it.
    #[error("the cluster state cannot be reached")]
    Tree(#[source] tree::Error),
    /// The answer to a write was lost and could not be found out either.
    #[error("the connection broke while writing: whether it took effect is not known")]
    OutcomeUnknown,
}

impl Refusal {
    /// What kind of trouble it is.
    pub fn code(&self) -> Code {
        match self {
            Self::NotLeading { .. } | Self::Busy => Code::NoLeader,
            Self::NotReady | Self::NoMetrics { .. } => Code::NotReady,
            Self::UnknownTopology { .. } => Code::UnknownTopology,
            Self::UnknownHost { .. } | Self::NotDrained { .. } => Code::UnknownHost,
            Self::NameInUse { .. } | Self::NameUnclear { .. } => Code::NameInUse,
            Self::InvalidTopology { .. } | Self::BadBundle { .. } => Code::InvalidTopology,
            Self::BlobMissing { .. } => Code::BlobMissing,
            Self::NotReplicated { .. } => Code::NotReplicated,
            Self::TermIsOver { .. } | Self::StillMeasured { .. } => Code::Conflict,
            Self::Blob(error) => error.code(),
            Self::TooLarge(_) => Code::TooLarge,
            Self::BadOption(_) | Self::UnknownComponent { .. } => Code::InvalidRequest,
            Self::Illegal(_) => Code::IllegalTransition,
            Self::Conflict { .. } => Code::Conflict,
            Self::Unreadable { .. } => Code::UnreadableRecord,
            Self::Tree(_) => Code::TreeUnavailable,
            Self::OutcomeUnknown => Code::OutcomeUnknown,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotLeading { leader: Some(leader) } => format!("ask {}", leader.api),
            Self::NotLeading { leader: None } | Self::NotReady | Self::Busy => {
                "try again in a moment".to_owned()
            }
            Self::UnknownTopology { .. } => "`stormkeeper list` shows the ones there are".to_owned(),
            Self::StillMeasured { .. } => "metrics of topologies that are gone can be forgotten; to have less of \
                                           others: `stormkeeper metrics-control`"
                .to_owned(),
            Self::NameInUse { is_killed: true, .. } => "try again when it is gone".to_owned(),
            Self::NameInUse { name, .. } => {
                format!("kill it first (`stormkeeper kill {name}`), or submit under another name")
            }
            Self::NameUnclear { path, .. } | Self::Unreadable { path, .. }
                if path.parent() == Some(layout::storms()) =>
            {
                format!(
                    "look at {path} with zkCli; write a valid record, or delete it: \
                     what else there is of that topology is then removed after a minute"
                )
            }
            Self::NameUnclear { path, .. } | Self::Unreadable { path, .. } => {
                format!("look at {path} with zkCli; write a valid record or delete it")
            }
            Self::NotReplicated { .. } => {
                "start more nimbuses, or ask for fewer copies (topology.min.replication.count)".to_owned()
            }
            Self::BlobMissing { key } => format!("put it first: PUT /api/v1/blobs/{key}"),
            Self::TooLarge(_) => "use fewer workers or tasks".to_owned(),
            Self::UnknownComponent { known, .. } => {
                let known: Vec<&str> = known.iter().map(ComponentId::as_str).collect();
                format!("it has {}", known.join(", "))
            }
            Self::UnknownHost { known, .. } => match known.is_empty() {
                true => "no supervisor is there at all; `stormkeeper cluster` shows them".to_owned(),
                false => format!("the hosts are {}", some_of(known.iter())),
            },
            Self::NotDrained { drained, .. } => match drained.is_empty() {
                true => "no host is".to_owned(),
                false => format!("drained are {}", some_of(drained.iter())),
            },
            Self::Illegal(illegal) => match illegal.from {
                crate::model::status::TopologyStatus::Rebalancing => {
                    "wait until the rebalance is done, or kill it".to_owned()
                }
                _ => return None,
            },
            Self::Tree(_) => "check that ZooKeeper is up and reachable".to_owned(),
            Self::OutcomeUnknown => "look at the topology before trying again".to_owned(),
            Self::InvalidTopology { .. }
            | Self::BadBundle { .. }
            | Self::Blob(_)
            | Self::TermIsOver { .. }
            | Self::BadOption(_)
            // The reason says what to do where there is something to do.
            | Self::NoMetrics { .. }
            | Self::Conflict { .. } => return None,
        };
        Some(hint)
    }
}

/// Names for a hint: as many as a person reads.
fn some_of(names: impl ExactSizeIterator<Item = impl fmt::Display>) -> String {
    const SHOWN: usize = 20;
    let n_more = names.len().saturating_sub(SHOWN);
    let shown: Vec<String> = names.take(SHOWN).map(|name| name.to_string()).collect();
    match n_more {
        0 => shown.join(", "),
        n => format!("{} and {n} more", shown.join(", ")),
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Tree(error) => Self::Tree(error),
            store::Error::Unreadable(unreadable) => {
                Self::Unreadable { path: unreadable.path, reason: unreadable.reason }
            }
        }
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Deposed { .. } => Self::NotLeading { leader: None },
            WriteError::Op { source, .. } | WriteError::NotSent(source) => Self::Tree(source),
            WriteError::Unknown(_) => Self::OutcomeUnknown,
        }
    }
}
