//! Errors of requests to nimbus.

use std::{fmt, time::Duration};

use crate::{blobs, plan::ClusterProblem};
use stormkeeper_access::{quota::Exceeded, sealed::SealError};
use stormkeeper_api_types::message::Code;
use stormkeeper_coordination::{
    cluster::{record::Leader, store, tree_id::ForeignTree},
    election::WriteError,
    tree::{self, TreePath},
};
use stormkeeper_metrics_service::RequestError;
use stormkeeper_model::{
    BlobKey, ComponentId, HostName, Term, TopologyId, TopologyName, id::quoted, status::IllegalTransition,
};

/// A rejected or failed request. Unless the error says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another nimbus leads, or no nimbus does.
    #[error("{}", match .leader {
        Some(leader) => format!("this nimbus does not lead: {} leads, at {}", leader.nimbus, leader.api),
        None => "there is no leader now".to_owned(),
    })]
    NotLeading {
        /// The leader in the view of this nimbus.
        leader: Option<Box<Leader>>,
    },
    /// This nimbus has not read the cluster yet.
    #[error("this nimbus has not read the cluster state yet")]
    NotReady,
    /// This nimbus has had no connection to ZooKeeper for longer than its session lasts.
    #[error("the view of this nimbus is {}s old: it has no connection to ZooKeeper", .age.as_secs())]
    Outdated {
        /// Age of the view.
        age: Duration,
    },
    /// ZooKeeper has another tree than that of this nimbus.
    #[error("{0}")]
    AnotherTree(Box<ForeignTree>),
    /// The copy of this nimbus cannot be brought back.
    #[error("the tree cannot be recovered from this nimbus: {reason}")]
    NotRecoverable {
        /// Cause.
        reason: String,
    },
    /// Metrics are not ingested or served here now.
    #[error("metrics are not available on this nimbus now: {reason}")]
    NoMetrics {
        /// Text for the operator, with the remedy if there is one.
        reason: String,
    },
    /// Metrics that were to be deleted would be registered again.
    #[error("metrics of {topology} cannot be deleted: it still runs and would register them again")]
    StillMeasured {
        /// The running topology.
        topology: TopologyId,
    },
    /// The sender is limited to an owner, and the package is in topologies of others only.
    #[error("the package {key} belongs to topologies of others, and its owner has not uploaded it here")]
    PackageOfOthers {
        /// The package.
        key: BlobKey,
    },
    /// The sender is limited to another topology.
    #[error("a worker of {own} cannot send metrics of {topology}")]
    OtherTopology {
        /// Topology of the sender.
        own: TopologyId,
        /// Topology of the metrics.
        topology: TopologyId,
    },
    /// The queue of requests for the leader is full.
    #[error("too many requests wait for the leader")]
    Busy,
    /// There is no such topology.
    #[error("there is no topology {topology:?}")]
    UnknownTopology {
        /// The requested id or name.
        topology: String,
    },
    /// There is neither such a topology nor an event of one.
    #[error("there is no topology {topology:?}, and no event of one is kept")]
    NoEvents {
        /// The requested id or name.
        topology: String,
    },
    /// The topology record was deleted by hand.
    #[error(
        "{path} is missing: the topology {id} runs, and is removed within a minute unless the znode is restored"
    )]
    RecordMissing {
        /// The topology.
        id: TopologyId,
        /// Expected path of the record.
        path: TreePath,
    },
    /// Another topology has the name.
    #[error("the name {name} is in use by {by}{}", if *.is_killed { ", which is being removed" } else { "" })]
    NameInUse {
        /// The name.
        name: TopologyName,
        /// The topology that has it.
        by: TopologyId,
        /// True if that topology is killed and not removed yet.
        is_killed: bool,
    },
    /// The name looks like that of another topology.
    #[error("the name {} looks like that of {by}", quoted(.name.as_str()))]
    NameLooksLike {
        /// The name.
        name: TopologyName,
        /// The topology for which it could be taken.
        by: TopologyId,
    },
    /// The name is the id of a topology.
    #[error("{id} is the id of a topology, and commands could not tell that topology from one of this name")]
    NameIsId {
        /// The id.
        id: TopologyId,
    },
    /// An unreadable record may have the name.
    #[error("the name {name} may be in use by {path}, which cannot be read")]
    NameUnclear {
        /// The name.
        name: TopologyName,
        /// The unreadable record.
        path: TreePath,
    },
    /// The topology is invalid.
    #[error("the topology cannot run: {}", .problems.join("; "))]
    InvalidTopology {
        /// Its problems, or the first of them.
        problems: Vec<String>,
    },
    /// The blob is not a topology package.
    #[error("blob {key} is not a topology package: {reason}")]
    InvalidPackage {
        /// The blob.
        key: BlobKey,
        /// Parse error.
        reason: String,
    },
    /// The blob is not here, and could not be fetched from another nimbus.
    #[error("no reachable nimbus has blob {key}")]
    BlobMissing {
        /// The blob.
        key: BlobKey,
    },
    /// The view of this nimbus contains no nimbus with an API at this address.
    #[error("no nimbus is known at {}", quoted(.api))]
    UnknownNimbus {
        /// The address.
        api: String,
    },
    /// Fewer nimbuses than requested have the blob.
    #[error("blob {key} is on {there} of the {wanted} nimbuses required after {wait:?}; {n_nimbuses} are live{}",
        match .reasons.is_empty() { true => String::new(), false => format!(" ({})", .reasons.join("; ")) })]
    NotReplicated {
        /// The blob.
        key: BlobKey,
        /// Number of nimbuses required.
        wanted: usize,
        /// Number of nimbuses that have it.
        there: usize,
        /// Number of live nimbuses.
        n_nimbuses: usize,
        /// Time waited.
        wait: Duration,
        /// Errors of the nimbuses that do not have it, where they sent one.
        reasons: Vec<String>,
    },
    /// The request comes from the leader of an earlier term.
    #[error("term {term} is over: term {later} has begun")]
    TermIsOver {
        /// Term of the sender.
        term: Term,
        /// Latest term known here.
        later: Term,
    },
    /// A blob could not be stored or read.
    #[error(transparent)]
    Blob(#[from] blobs::Error),
    /// The records of the topology would exceed a limit.
    #[error("the topology is too large to be stored: {0}")]
    TooLarge(ClusterProblem),
    /// The quota of an owner does not allow the request.
    #[error("{owner} may not have this: {exceeded}")]
    QuotaExceeded {
        /// The owner.
        owner: String,
        /// The quota, and what is in use.
        exceeded: Exceeded,
    },
    /// Credentials need a cluster secret, with which they are encrypted.
    #[error("credentials are encrypted with the cluster secret, and this nimbus has none")]
    NoClusterSecret,
    /// The present credentials of a topology cannot be read.
    #[error("the credentials of {topology} cannot be read: {error}")]
    SealedCredentials {
        /// The topology.
        topology: TopologyId,
        /// Cause.
        error: SealError,
    },
    /// An option is invalid for this topology.
    #[error("{0}")]
    BadOption(String),
    /// There is no such component.
    #[error("{topology} has no component {component}")]
    UnknownComponent {
        /// The topology.
        topology: TopologyId,
        /// The requested component.
        component: ComponentId,
        /// Components of the topology.
        known: Vec<ComponentId>,
    },
    /// The host has neither a supervisor nor a worker.
    #[error("there is no supervisor on host {host}")]
    UnknownHost {
        /// The requested host.
        host: HostName,
        /// Hosts of the cluster.
        known: Vec<String>,
    },
    /// The host is not drained.
    #[error("host {host} is not drained")]
    NotDrained {
        /// The requested host.
        host: HostName,
        /// Drained hosts.
        drained: Vec<HostName>,
    },
    /// The status of the topology does not allow the request.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The record was written concurrently in every attempt.
    #[error("{path} was changed concurrently in every attempt; try again")]
    Conflict {
        /// The record.
        path: TreePath,
    },
    /// A required record cannot be read.
    #[error("{path} does not hold a valid record: {reason}")]
    Unreadable {
        /// The record.
        path: TreePath,
        /// Parse error.
        reason: String,
        /// Remedy for an operator.
        remedy: &'static str,
    },
    /// ZooKeeper rejected or did not answer a request.
    #[error("the cluster state in ZooKeeper cannot be read or written")]
    Tree(#[source] tree::Error),
    /// The response to a write was lost, and reading back did not show the outcome.
    #[error("the connection broke during a write: its outcome is unknown")]
    OutcomeUnknown,
}

/// Remedies of what concerns owners.
const QUOTA_HINT: &str = "`stormkeeper owners` shows what is used; kill a topology, or ask an administrator, who can raise \
                          the quota in nimbus.quotas.file of each nimbus";
const SECRET_HINT: &str = "make a secret with `stormkeeper secret new FILE`, copy it to every host, and set \
                           storm.cluster.secret.file";
const SEALED_HINT: &str = "bring back the cluster secret as the second line of its file, or set all credentials again with \
                           --remove-others";

impl Refusal {
    /// Error code for the API.
    pub fn code(&self) -> Code {
        match self {
            Self::NotLeading { .. } | Self::Busy => Code::NoLeader,
            Self::NotReady | Self::Outdated { .. } | Self::NoMetrics { .. } => Code::NotReady,
            Self::OtherTopology { .. } | Self::PackageOfOthers { .. } => Code::Forbidden,
            Self::AnotherTree(_) => Code::AnotherTree,
            Self::NotRecoverable { .. } => Code::NotRecoverable,
            Self::UnknownTopology { .. } | Self::NoEvents { .. } | Self::RecordMissing { .. } => {
                Code::UnknownTopology
            }
            Self::UnknownHost { .. } | Self::NotDrained { .. } => Code::UnknownHost,
            Self::NameInUse { .. }
            | Self::NameLooksLike { .. }
            | Self::NameIsId { .. }
            | Self::NameUnclear { .. } => Code::NameInUse,
            Self::InvalidTopology { .. } | Self::InvalidPackage { .. } => Code::InvalidTopology,
            Self::BlobMissing { .. } => Code::BlobMissing,
            Self::NotReplicated { .. } => Code::NotReplicated,
            Self::TermIsOver { .. } | Self::StillMeasured { .. } => Code::Conflict,
            Self::Blob(error) => error.code(),
            Self::TooLarge(_) => Code::TooLarge,
            Self::BadOption(_) | Self::UnknownComponent { .. } | Self::UnknownNimbus { .. } => {
                Code::InvalidRequest
            }
            Self::QuotaExceeded { .. } => Code::QuotaExceeded,
            Self::NoClusterSecret => Code::SwitchedOff,
            Self::SealedCredentials { .. } => Code::UnreadableRecord,
            Self::Illegal(_) => Code::IllegalTransition,
            Self::Conflict { .. } => Code::Conflict,
            Self::Unreadable { .. } => Code::UnreadableRecord,
            // A client must not retry it: it cannot succeed before an operator has done something.
            Self::Tree(error) if matches!(error.root(), tree::Error::NotAuthorized { .. }) => {
                Code::UnreadableRecord
            }
            Self::Tree(_) => Code::TreeUnavailable,
            Self::OutcomeUnknown => Code::OutcomeUnknown,
        }
    }

    /// Remedy for the operator, if there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotLeading { leader: Some(leader) } => format!("send the request to {}", leader.api),
            Self::NotLeading { leader: None } | Self::NotReady | Self::Busy => {
                "try again in a moment".to_owned()
            }
            Self::Outdated { .. } => "check that ZooKeeper is up and that this host reaches it".to_owned(),
            Self::AnotherTree(foreign) => foreign.advice().to_owned(),
            Self::UnknownTopology { .. } => "`stormkeeper list` shows all topologies".to_owned(),
            Self::NoEvents { .. } => "`stormkeeper list` shows all topologies; events of a removed topology are found \
                                      by its id, as in `stormkeeper events`"
                .to_owned(),
            Self::RecordMissing { .. } => "restore it from a backup, or submit the topology again later".to_owned(),
            Self::StillMeasured { .. } => "only metrics of removed topologies can be deleted; to reduce those of a \
                                           running one, use `stormkeeper metrics-control`"
                .to_owned(),
            Self::NameInUse { is_killed: true, .. } => "try again when it is removed".to_owned(),
            Self::NameInUse { name, .. } => {
                format!("kill it first (`stormkeeper kill {name}`), or submit under another name")
            }
            Self::NameLooksLike { .. } | Self::NameIsId { .. } => "submit it under another name".to_owned(),
            Self::NameUnclear { path, .. } => format!(
                "read {path} with zkCli; write a valid record, or delete it: all other records of that topology are \
                 then removed after a minute"
            ),
            Self::Unreadable { remedy, .. } => (*remedy).to_owned(),
            Self::UnknownNimbus { .. } => "`stormkeeper nimbuses` lists the nimbuses".to_owned(),
            Self::NotReplicated { .. } => {
                "start more nimbuses, or require fewer copies (topology.min.replication.count)".to_owned()
            }
            Self::BlobMissing { key } => format!("upload it first: PUT /api/stormkeeper/v1/blobs/{key}"),
            Self::Blob(blobs::Error::NoRoom { reason, .. }) => reason.hint(),
            Self::QuotaExceeded { .. } => QUOTA_HINT.to_owned(),
            Self::NoClusterSecret => SECRET_HINT.to_owned(),
            Self::SealedCredentials { .. } => SEALED_HINT.to_owned(),
            Self::TooLarge(_) => "use fewer workers or tasks".to_owned(),
            Self::UnknownComponent { known, .. } => components_hint(known),
            Self::PackageOfOthers { .. } => {
                "submit its files, as `stormkeeper submit` does, and not its key alone".to_owned()
            }
            Self::UnknownHost { known, .. } => match known.is_empty() {
                true => "the cluster has no supervisor; `stormkeeper cluster` lists supervisors".to_owned(),
                false => format!("the hosts are {}", some_of(known.iter())),
            },
            Self::NotDrained { drained, .. } if drained.is_empty() => "no host is drained".to_owned(),
            Self::NotDrained { drained, .. } => format!("the drained hosts are {}", some_of(drained.iter())),
            Self::Illegal(illegal) => match illegal.from {
                stormkeeper_model::status::TopologyStatus::Rebalancing => {
                    "wait until the rebalance is done, or kill the topology".to_owned()
                }
                _ => return None,
            },
            Self::Tree(error) if matches!(error.root(), tree::Error::NotAuthorized { .. }) => {
                "the access control list of a znode excludes this nimbus: restore it with zkCli, as \
                 `setAcl PATH world:anyone:cdrwa`, with storm.zookeeper.root before the path"
                    .to_owned()
            }
            Self::Tree(_) => "check that ZooKeeper is up and reachable".to_owned(),
            Self::OutcomeUnknown => "check the state of the topology before trying again".to_owned(),
            Self::InvalidTopology { .. }
            | Self::InvalidPackage { .. }
            | Self::Blob(_)
            | Self::TermIsOver { .. }
            | Self::OtherTopology { .. }
            | Self::BadOption(_)
            | Self::NotRecoverable { .. }
            // The reason contains the remedy if there is one.
            | Self::NoMetrics { .. }
            | Self::Conflict { .. } => return None,
        };
        Some(hint)
    }
}

fn components_hint(known: &[ComponentId]) -> String {
    let known: Vec<&str> = known.iter().map(ComponentId::as_str).collect();
    format!("its components are {}", known.join(", "))
}

/// Joins at most 20 names for a hint, and the number of the others.
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
                let remedy = unreadable.defect.remedy(&unreadable.path);
                Self::Unreadable { path: unreadable.path, reason: unreadable.defect.reason, remedy }
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

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Unavailable { reason } => Self::NoMetrics { reason },
            RequestError::NotReady => Self::NotReady,
            RequestError::Deposed => Self::NotLeading { leader: None },
            RequestError::StillMeasured { topology } => Self::StillMeasured { topology },
            RequestError::OtherTopology { own, topology } => Self::OtherTopology { own, topology },
            RequestError::Invalid(reason) => Self::BadOption(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_coordination::cluster::layout;

    #[test]
    fn denied_access_is_no_error_to_retry_and_says_what_to_do() {
        let path = Some(layout::term());
        let refusal = Refusal::from(WriteError::NotSent(tree::Error::NotAuthorized { path }));
        assert_eq!(refusal.code(), Code::UnreadableRecord);
        assert!(refusal.hint().is_some_and(|hint| hint.contains("setAcl")));
    }
}
