//! Connection options of ZooKeeper.

use std::time::Duration;

use crate::tree::TreePath;

/// Options of a connection to a ZooKeeper ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Servers of the ensemble, each `host:port`.
    pub servers: Vec<String>,
    /// Path of the cluster's root; created if it is missing.
    pub root: TreePath,
    /// Requested session timeout. The server may grant another value.
    pub session_timeout: Duration,
    /// Maximum duration of one request, after which its outcome is reported as unknown.
    pub request_timeout: Duration,
}
