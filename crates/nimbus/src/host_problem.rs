//! Problems with absent supervisors, for operators.

use std::time::Duration;

use crate::liveness::VanishedTogether;
use stormkeeper_model::SupervisorId;

/// A problem with absent supervisors that run, or ran, workers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostProblem {
    /// A supervisor has stopped, and its workers with it.
    #[error(
        "the supervisor {supervisor} on {host} has stopped, and its workers with it: start it, or its tasks move {timeout:?} after the stop"
    )]
    SupervisorStopped {
        /// The supervisor.
        supervisor: SupervisorId,
        /// Its host.
        host: String,
        /// Time after which its tasks move.
        timeout: Duration,
    },
    /// A supervisor is absent, and its workers run.
    #[error(
        "the supervisor {supervisor} on {host} is absent, so nobody restarts its workers, which run on: start it, or read its log if it runs"
    )]
    SupervisorAbsent {
        /// The supervisor.
        supervisor: SupervisorId,
        /// Its host.
        host: String,
    },
    /// A supervisor and its workers are absent, and the tasks have no other place yet.
    #[error(
        "the host {host} is gone with its supervisor {supervisor} and all of its workers: start it again, or add slots so that its tasks can move"
    )]
    HostAbsent {
        /// The supervisor.
        supervisor: SupervisorId,
        /// Its host.
        host: String,
    },
    /// More supervisors vanished together than may be treated as lost.
    #[error(
        "the host {host} is gone, and with it {} of {} supervisors, which is more than nimbus.lost.hosts.share.max: no task moves until they return, or for {timeout:?}; check the network between these hosts and ZooKeeper",
        .together.n_vanished, .together.n_supervisors
    )]
    VanishedTogether {
        /// One of the hosts.
        host: String,
        /// Number of supervisors.
        together: VanishedTogether,
        /// Time after which tasks move all the same.
        timeout: Duration,
    },
}
