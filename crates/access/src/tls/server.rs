//! TLS of a port.

use std::sync::Arc;

use rustls::{
    CertificateError, DistinguishedName, Error, ServerConfig,
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use super::{TlsMode, files::DaemonFiles, provider};
use crate::file::WatchedFile;

/// TLS of a port.
#[derive(Debug, Clone)]
pub struct ServerTls {
    mode: TlsMode,
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Shows the certificate of `files`, and asks clients for one if `asks_clients`.
    pub(super) fn new(mode: TlsMode, files: WatchedFile<DaemonFiles>, asks_clients: bool) -> Self {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has cipher suites of both versions");
        let builder = if asks_clients {
            builder.with_client_cert_verifier(Arc::new(Clients { files: files.clone(), algorithms }))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(Arc::new(Own(files)));
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Self { mode, config: Arc::new(config) }
    }

    /// True if the port speaks TLS only.
    pub fn is_required(&self) -> bool {
        self.mode == TlsMode::Required
    }

    /// Configuration of the handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// The certificate that is in force when a connection is opened.
#[derive(Debug)]
struct Own(WatchedFile<DaemonFiles>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get().own.key())
    }
}

/// Checks the certificates of clients with the authorities that are in force.
#[derive(Debug)]
struct Clients {
    files: WatchedFile<DaemonFiles>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Names no authority: a client shows the certificate that it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.files.get().trust.clients().verify_client_cert(end_entity, intermediates, now)
    }

    verify_handshake_signatures!();
}

/// Returns why the handshake with a client failed, with the remedy.
pub fn reason_of_client(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the certificate of the client has expired; it needs a new one".to_owned()
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "no authority in storm.tls.ca.file has signed the certificate of the client".to_owned()
        }
        Error::AlertReceived(alert) => format!(
            "the client refused the certificate of this daemon ({alert:?}); its authority, its names or its end \
             may be wrong: see storm.tls.cert.file here and storm.tls.ca.file there"
        ),
        other => other.to_string(),
    }
}
