//! Where ZooKeeper is.

use std::time::Duration;

use crate::tree::TreePath;

/// How to reach a ZooKeeper ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Its servers, each `host:port`.
    pub servers: Vec<String>,
    /// The path that is our root; created when it is missing.
    pub root: TreePath,
    /// The session timeout asked for. The server may grant another.
    pub session_timeout: Duration,
    /// How long one request may take before its outcome is called unknown.
    pub request_timeout: Duration,
}
