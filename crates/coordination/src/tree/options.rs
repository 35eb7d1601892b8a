//! Connection options of ZooKeeper.

use std::time::Duration;

use crate::tree::{TreePath, access::Access, tls::Tls};

/// Treatment of a root that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissingRoot {
    /// Create it, as a nimbus does.
    Create,
    /// Wait until a nimbus has created it: a misspelt root must not become a znode.
    Wait,
}

/// Options of a connection to a ZooKeeper ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Servers of the ensemble, each `host:port`.
    pub servers: Vec<String>,
    /// Path of the cluster's root.
    pub root: TreePath,
    /// Treatment of a missing root.
    pub on_missing_root: OnMissingRoot,
    /// Names of znodes in the root of every cluster: a root below a znode that has all of them lies
    /// inside the tree of another cluster, and is refused. Empty: not checked.
    pub cluster_znodes: &'static [&'static str],
    /// Users of the sessions, and access control lists of what they create; `None` leaves everything
    /// open to whoever reaches the servers.
    pub access: Option<Access>,
    /// TLS of the connections; `None` connects without.
    pub tls: Option<Tls>,
    /// Requested session timeout. The server may grant another value.
    pub session_timeout: Duration,
    /// Maximum duration of one request, after which its outcome is reported as unknown.
    pub request_timeout: Duration,
}
