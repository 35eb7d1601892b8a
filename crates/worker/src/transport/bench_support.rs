//! Connections over TLS, for benchmarks.

use std::path::Path;

use super::{Listener, PeerKeys, Peers};
use stormkeeper_access::{
    file::{WatchedFile, create_secret},
    secret::WorkerKeys,
    tls::{TlsMode, test_support::Authority, worker::WorkerTls},
};

/// Lets workers use TLS, and keys for their proofs, with files in the empty directory `dir`.
#[derive(Debug)]
pub struct Encryption(PeerKeys);

impl Encryption {
    /// Writes the files.
    pub fn new(dir: &Path) -> Self {
        let (keys, tls, ca) = (dir.join(WorkerKeys::FILE), dir.join(WorkerTls::FILE), dir.join("ca"));
        create_secret(&keys, &format!("required\n{}\n", "5a".repeat(32))).expect("written");
        Authority::new().write(&ca);
        let authorities = std::fs::read_to_string(&ca).expect("written");
        create_secret(&tls, &format!("{}\n{authorities}", TlsMode::Required)).expect("written");
        let keys = WatchedFile::open(&keys, WorkerKeys::read).expect("valid");
        let tls = WatchedFile::open(&tls, WorkerTls::read).expect("valid");
        Self(PeerKeys::new(Some(keys), Some(tls)))
    }

    /// Returns the listener, which accepts TLS only.
    pub fn of_listener(&self, listener: Listener) -> Listener {
        listener.with_keys(self.0.clone())
    }

    /// Returns the peers, which are sent tuples over TLS.
    pub fn of_peers(&self, peers: Peers) -> Peers {
        peers.with_keys(self.0.clone())
    }
}
