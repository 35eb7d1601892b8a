//! Connections of workers as `storm.yaml` says them.

use crate::config::Config;
use stormkeeper_coordination::tree::options::OnMissingRoot;
use stormkeeper_runtime::net::ListenOn;
use stormkeeper_topology_package::launch::{Connections, Listen, ZooKeeper};
use stormkeeper_zookeeper_session::tls::{IdentityPaths, TlsPaths};

/// Returns the connections of a worker with this configuration, which presents `tls` to ZooKeeper.
pub(super) fn connections(config: &Config, tls: Option<&TlsPaths>) -> Connections {
    let tree = config.tree_options(OnMissingRoot::Wait);
    let identity = tls.and_then(|tls| tls.identity.clone());
    Connections {
        zookeeper: ZooKeeper {
            servers: tree.servers,
            root: tree.root.to_string(),
            session_timeout: tree.session_timeout,
            request_timeout: tree.request_timeout,
            authorities: tls.map(|tls| tls.authorities.clone()),
            identity: identity.map(|IdentityPaths { certificates, key }| (certificates, key)),
        },
        shared_tree: None,
        sends_metrics: false,
        listen: match config.workers_listen_on() {
            ListenOn::All => Listen::All,
            ListenOn::Address(address) => Listen::Address(address),
            ListenOn::Preferred(address) => Listen::Preferred(address),
        },
        unfinished_frame_bytes: config.unfinished_frame_bytes(),
    }
}
