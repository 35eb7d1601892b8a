//! TLS in the types of the client crate, and the reason why a server cannot be reached over it.

use std::{
    io,
    sync::{Arc, RwLock},
    time::Duration,
};

use rustls::{AlertDescription, CertificateError, Error, pki_types::ServerName};
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
                Err(error) => return Some(reason(&error)),
            };
            match tokio::time::timeout(REFUSAL_TIMEOUT, stream.read_u8()).await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Some(reason(&error)),
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

/// Returns why a connection failed, with the remedy.
fn reason(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::InvalidCertificate(cause)) => reason_of_server(cause),
        Some(Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "it asks for a certificate: set storm.zookeeper.tls.cert.file and .key.file (for workers: \
             storm.zookeeper.tls.workers.cert.file and .key.file)"
                .to_owned()
        }
        Some(Error::AlertReceived(AlertDescription::CertificateExpired)) => {
            "it refused the certificate of this process, which has expired; replace storm.zookeeper.tls.cert.file \
             (of workers: storm.zookeeper.tls.workers.cert.file)"
                .to_owned()
        }
        Some(Error::AlertReceived(alert)) => format!(
            "it refused the connection ({alert:?}): an authority in its trust store must have signed \
             storm.zookeeper.tls.cert.file (of workers: storm.zookeeper.tls.workers.cert.file)"
        ),
        Some(Error::InvalidMessage(_)) => NO_TLS.to_owned(),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => NO_TLS.to_owned(),
        None => error.to_string(),
    }
}

/// Reason of a port that does not answer as TLS does.
const NO_TLS: &str =
    "it speaks no TLS at this port: storm.zookeeper.port must be the secureClientPort of the servers";

fn reason_of_server(cause: &CertificateError) -> String {
    use CertificateError as E;
    match cause {
        E::Expired | E::ExpiredContext { .. } => "its certificate has expired; replace it there".to_owned(),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "its certificate is not valid yet; look at the clocks of both hosts".to_owned()
        }
        E::UnknownIssuer | E::BadSignature => {
            "no authority in storm.zookeeper.tls.ca.file has signed its certificate; add the one that has"
                .to_owned()
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "its certificate is for other names; storm.zookeeper.servers must name it as its certificate does"
                .to_owned()
        }
        E::Revoked => "its certificate is revoked by a list in storm.zookeeper.tls.ca.file".to_owned(),
        other => format!("its certificate cannot be used: {other}"),
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
