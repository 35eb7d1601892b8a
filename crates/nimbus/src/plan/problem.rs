//! Findings: problems that need an operator.

use crate::{failing_problem::FailingProblem, host_problem::HostProblem};
use stormkeeper_coordination::tree::TreePath;
use stormkeeper_model::{BlobKey, SupervisorId, TopologyId, TopologyName};
use stormkeeper_scheduler as scheduler;

/// A problem of a topology, or of the cluster, that needs an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topology concerned, if it is one.
    pub topology: Option<TopologyId>,
    /// The problem.
    pub problem: ClusterProblem,
}

/// Problems that nimbus cannot solve by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterProblem {
    /// A znode holds no valid record; nimbus does not act on anything that it concerns.
    #[error("{path} cannot be read, so nimbus leaves it unchanged: {reason}; {remedy}")]
    Unreadable {
        /// Path of the znode.
        path: TreePath,
        /// Parse error.
        reason: String,
        /// Remedy for an operator.
        remedy: &'static str,
    },
    /// Two topologies have one name.
    #[error(
        "{path} has the name {name}, which is the name of {by} too, so commands by that name mean either: correct the name in the \
         znode with zkCli, or kill one of them by its id"
    )]
    SharedName {
        /// Record of this topology.
        path: TreePath,
        /// The name.
        name: TopologyName,
        /// The other topology.
        by: TopologyId,
    },
    /// A znode holds no valid record, and its content follows from other records.
    #[error("{path} cannot be read; nimbus writes it again from {origin}: {reason}")]
    Rebuilt {
        /// Path of the znode.
        path: TreePath,
        /// Record from which the content follows.
        origin: &'static str,
        /// Parse error.
        reason: String,
    },
    /// Tasks have no slot.
    #[error("{n_tasks} tasks have no slot: {reason}")]
    NoSlot {
        /// Number of these tasks.
        n_tasks: usize,
        /// Reason given by the scheduler.
        reason: scheduler::UnplacedReason,
    },
    /// No nimbus has the package of a topology.
    #[error(
        "no nimbus has the topology's package {blob}: what runs keeps running, and its tasks can start only on hosts \
         that have the package; supervisors that have it offer it. If none does, bring back the blobs of a nimbus, \
         or kill the topology and submit it again"
    )]
    NoPackage {
        /// The package.
        blob: BlobKey,
    },
    /// A due rebalance waits for free slots.
    #[error("the rebalance waits for slots: {reason}")]
    RebalanceWaits {
        /// Reason given by the scheduler.
        reason: scheduler::UnplacedReason,
    },
    /// A topology must leave drained hosts but there are no free slots, so it keeps running there.
    #[error("the topology cannot leave {} yet: {reason}", .hosts.join(", "))]
    DrainWaits {
        /// The hosts.
        hosts: Vec<String>,
        /// Reason given by the scheduler.
        reason: scheduler::UnplacedReason,
    },
    /// A live topology has no task table.
    #[error("{path} is missing, so nimbus places no tasks of the topology; restore it, or kill the topology")]
    Missing {
        /// Expected path of the record.
        path: TreePath,
    },
    /// A topology has other records but not its topology record, which was deleted by hand.
    #[error("{path} is missing: unless it is restored, all other records of the topology are removed soon")]
    NoRecord {
        /// Expected path of the record.
        path: TreePath,
    },
    /// A removed topology has left a znode that the leader may not delete: one of its components has made it,
    /// with an access control list of its own.
    #[error(
        "{path} of a removed topology has an access control list that does not let a nimbus delete it; delete it as \
         ZooKeeper's superuser"
    )]
    Undeletable {
        /// The znode.
        path: TreePath,
    },
    /// No secret of the cluster opens the credentials of a topology.
    #[error(
        "{path} is encrypted with a cluster secret that this nimbus does not have: workers keep the credentials that \
         they have, and get no others; bring the secret back as the second line of its file, or set all credentials \
         again with `stormkeeper credentials --remove-others`"
    )]
    SealedCredentials {
        /// The record.
        path: TreePath,
    },
    /// The status of a topology is rebalancing, but its record contains no rebalance.
    #[error(
        "the status is rebalancing but the record contains no rebalance; kill the topology, or correct the record"
    )]
    NoPendingRebalance,
    /// A record or a transaction would exceed a limit.
    #[error("writing {path} and the records that change with it takes {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// Largest record of the transaction.
        path: TreePath,
        /// Size of the record or of the transaction.
        bytes: usize,
        /// The exceeded limit.
        limit: usize,
    },
    /// Supervisor assignments cannot be written, as that could remove entries that still count.
    #[error(
        "/supervisor-assignments/{supervisor} cannot be read, and neither can every assignment that may name this supervisor"
    )]
    SupervisorAssignmentsBlocked {
        /// The supervisor.
        supervisor: SupervisorId,
    },
    /// The limit on moves delays the replacement of lost workers.
    #[error("{n_tasks} tasks of lost workers wait for the next round (nimbus moves a few at a time)")]
    MovesCapped {
        /// Number of tasks that wait.
        n_tasks: usize,
    },
    /// Supervisors are absent.
    #[error(transparent)]
    Hosts(HostProblem),
    /// Something does not start, or starts again and again.
    #[error(transparent)]
    Failing(FailingProblem),
    /// The scheduler returned a solution that breaks a rule; nimbus writes nothing of it.
    #[error(
        "the scheduler returned an invalid placement, which is a bug of nimbus; nothing is placed: {violation}"
    )]
    BadPlacement {
        /// The broken rule.
        violation: String,
    },
}
