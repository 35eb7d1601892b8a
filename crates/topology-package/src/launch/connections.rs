//! Connections of a worker, as its supervisor's configuration has them.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::millis;

/// Connections of a worker: to ZooKeeper, and from other workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// ZooKeeper.
    pub zookeeper: ZooKeeper,
    /// Socket of the tree of a local run, which takes the place of ZooKeeper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_tree: Option<PathBuf>,
    /// True if a local run keeps metrics, so that its workers send them. Workers on ZooKeeper always do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sends_metrics: bool,
    /// Addresses on which the worker listens for tuples.
    #[serde(default)]
    pub listen: Listen,
    /// Limit of the bytes of all unfinished frames of other workers.
    pub unfinished_frame_bytes: usize,
}

/// Connection to ZooKeeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZooKeeper {
    /// Servers of the ensemble, each `host:port`.
    pub servers: Vec<String>,
    /// Path of the cluster's root.
    pub root: String,
    /// Requested session timeout.
    #[serde(rename = "session_timeout_ms", with = "millis")]
    pub session_timeout: Duration,
    /// Maximum duration of one request.
    #[serde(rename = "request_timeout_ms", with = "millis")]
    pub request_timeout: Duration,
    /// File with the certificates of the authorities of the servers; none for connections without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<PathBuf>,
    /// Files with the certificate and with the key that the worker presents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Addresses on which a worker listens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listen {
    /// All addresses of the host.
    #[default]
    All,
    /// This address.
    Address(IpAddr),
    /// This address or, if the host does not have it, all.
    Preferred(IpAddr),
}
