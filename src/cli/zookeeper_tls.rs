//! TLS to ZooKeeper as `storm.yaml` says it.

use anyhow::anyhow;

use crate::{
    cli::error::{ErrorKind, Failure},
    config::Config,
};
use stormkeeper_zookeeper_session::tls::{IdentityPaths, TlsFiles, TlsPaths};

/// Kind of process that connects to ZooKeeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    /// A nimbus, a supervisor or a command.
    Daemon,
    /// A worker, whose components can read what it can read.
    Worker,
}

/// Returns the files that `config` names for a kind of process, if it asks for TLS.
///
/// # Errors
/// If `config` has one of two keys that belong together.
pub(super) fn paths(config: &Config, process: Process) -> Result<Option<TlsPaths>, Failure> {
    let prefix = match process {
        Process::Daemon => "storm.zookeeper.tls",
        Process::Worker => "storm.zookeeper.tls.workers",
    };
    let [cert_key, key_key] = ["cert.file", "key.file"].map(|name| format!("{prefix}.{name}"));
    // The configuration has both or neither.
    let identity = config.file_if_set(&cert_key).zip(config.file_if_set(&key_key));
    let identity = identity.map(|(certificates, key)| IdentityPaths { certificates, key });
    match (config.file_if_set("storm.zookeeper.tls.ca.file"), identity) {
        (Some(authorities), identity) => Ok(Some(TlsPaths { authorities, identity })),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let error = anyhow!(
                "{cert_key} is set without storm.zookeeper.tls.ca.file, which turns TLS to ZooKeeper on"
            );
            Err(Failure::new(ErrorKind::Config, error))
        }
    }
}

/// Reads the files that `config` names for a kind of process, if it asks for TLS. Blocks.
///
/// # Errors
/// As [`paths`], and if a file cannot be read or used.
pub(super) fn open(config: &Config, process: Process) -> Result<Option<TlsFiles>, Failure> {
    let opened = paths(config, process)?.map(TlsFiles::open).transpose();
    opened.map_err(|error| Failure::new(ErrorKind::Config, error.into()))
}
