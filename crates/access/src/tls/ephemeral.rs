//! TLS between workers.
//!
//! A worker must not read the key of its host, since its components run as the same user. So it makes a
//! certificate of its own in memory, and each end accepts any certificate: TLS keeps others from reading,
//! and the proof of the topology's key, which covers [`BINDING`], shows that nobody is in between.

use std::sync::Arc;

use rustls::{
    CipherSuite, ClientConfig, Error, ServerConfig,
    client::{
        Resumption,
        danger::{ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::NoServerSessionStorage,
    version::TLS13,
};

use super::provider;

/// Label of the key material that both ends of a connection know, and that differs between the two
/// connections of somebody in between.
pub const BINDING: &[u8] = b"EXPORTER-stormkeeper-workers-1";

/// Name in the certificates, which nobody compares.
const NAME: &str = "worker";

/// Configurations of both ends of a connection between workers.
#[derive(Debug, Clone)]
pub struct EphemeralTls {
    /// Configuration of the end that accepts.
    pub server: Arc<ServerConfig>,
    /// Configuration of the end that connects.
    pub client: Arc<ClientConfig>,
}

/// Error of making a certificate.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate for connections to other workers: {0}")]
pub struct NoCertificate(String);

impl EphemeralTls {
    /// Makes a certificate.
    ///
    /// # Errors
    /// [`NoCertificate`].
    pub fn new() -> Result<Self, NoCertificate> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]);
        let made = made.map_err(|error| NoCertificate(error.to_string()))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = fast_provider();
        let algorithms = provider.signature_verification_algorithms;
        let failed = |error: Error| NoCertificate(error.to_string());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?
            .with_no_client_auth();
        let mut server = server.with_single_cert(vec![made.cert.der().clone()], key).map_err(failed)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Any { algorithms }))
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }

    /// Returns the name that a client passes to the handshake; it is not sent.
    pub fn server_name() -> ServerName<'static> {
        ServerName::try_from(NAME).expect("it is a DNS name")
    }
}

/// Returns the algorithms with AES-128-GCM first, which costs a quarter less than the default, AES-256-GCM.
fn fast_provider() -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider::clone(&provider());
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// Accepts every certificate whose key its owner has.
#[derive(Debug)]
struct Any {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    verify_handshake_signatures!();
}
