//! TLS in the types of the client crate, and the reason why a server cannot be reached over it.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use rustls::pki_types::ServerName;
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_rustls::TlsConnector;
use zookeeper_client as zk;

use super::ZooKeeperTree;
use crate::tree::tls::{Identity, Tls};

/// Maximum duration of the search for the reason.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// A server that refuses a certificate in TLS 1.3 says so after the handshake.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(500);

/// TLS in force, which may be replaced. Running sessions use the new one for their next connection.
#[derive(Debug, Clone)]
pub(super) struct CurrentTls {
    certificates: zk::TlsDynamicCerts,
    tls: Arc<RwLock<Tls>>,
}

impl CurrentTls {
    pub(super) fn new(tls: Tls) -> Self {
        Self { certificates: zk::TlsDynamicCerts::new(certificates(&tls)), tls: Arc::new(RwLock::new(tls)) }
    }

    pub(super) fn options(&self) -> zk::TlsOptions {
        zk::TlsOptions::new().with_certs(self.certificates.clone())
    }

    fn replace(&self, tls: Tls) {
        self.certificates.update(certificates(&tls));
        *self.tls.write().expect("nobody panics while holding the settings") = tls;
    }

    /// Returns the reason why no session can be opened with `server`, if it lies in TLS.
    pub(super) async fn problem(&self, server: &str) -> Option<String> {
        let client = self.tls.read().expect("nobody panics while holding the settings").client();
        let probe = async {
            let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let Ok(name) = ServerName::try_from(host.to_owned()) else {
                return Some(format!("{host:?} is no name that a certificate can have"));
            };
            // Without a connection TLS is not the reason.
            let stream = TcpStream::connect(server).await.ok()?;
            let mut stream = match TlsConnector::from(client).connect(name, stream).await {
                Ok(stream) => stream,
                Err(error) => return Some(error.to_string()),
            };
            match tokio::time::timeout(REFUSAL_TIMEOUT, stream.read_u8()).await {
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => Some(error.to_string()),
                // The server waits for a request.
                Err(_) | Ok(_) => None,
            }
        };
        let reason = tokio::time::timeout(PROBE_TIMEOUT, probe).await.ok()??;
        Some(format!("{server}: {reason}"))
    }
}

impl ZooKeeperTree {
    /// Replaces the authorities and the certificate of this process, for the connections that follow. A tree
    /// that was connected without TLS stays without.
    pub fn replace_tls(&self, tls: Tls) {
        if let Some(current) = &self.tls {
            current.replace(tls);
        }
    }
}

fn certificates(tls: &Tls) -> zk::TlsCerts {
    // `Tls` has been checked with the same library.
    let authorities = zk::TlsCa::from_pem(tls.authorities()).expect("checked");
    let certificates = zk::TlsCerts::builder().with_ca(authorities);
    let certificates = match tls.identity() {
        Some(Identity { certificates: own, key }) => {
            certificates.with_identity(zk::TlsIdentity::from_pem(own, key).expect("checked"))
        }
        None => certificates,
    };
    certificates.build().expect("there are authorities")
}

/// Returns the address of a server as the client crate wants it.
pub(super) fn address(server: &str) -> String {
    format!("tcp+tls://{server}")
}

#[cfg(test)]
mod tests;
