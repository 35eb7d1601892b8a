//! TLS of the connections to the servers: which authorities are trusted, and the certificate that this
//! process presents.
//!
//! A server is trusted if one of the authorities has signed its certificate for the name or the
//! address by which it is listed.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::WebPkiServerVerifier,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

/// Trusted authorities, and the certificate of this process with its key.
#[derive(Clone)]
pub struct Tls {
    authorities: String,
    identity: Option<Identity>,
    client: Arc<ClientConfig>,
}

/// Certificate of a process, with those between it and an authority, and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Certificates, the one of the process first.
    pub certificates: String,
    /// Private key of the first certificate.
    pub key: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.authorities == other.authorities && self.identity == other.identity
    }
}

impl Eq for Tls {}

/// Reason why texts in PEM are not what TLS needs.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTls {
    /// There is no certificate of an authority.
    #[error("the file of the authorities has no certificate (`-----BEGIN CERTIFICATE-----`)")]
    NoAuthority,
    /// A certificate of an authority, or a list of revoked ones, cannot be used.
    #[error("the file of the authorities cannot be used: {0}")]
    Authority(String),
    /// The file of the certificate has none.
    #[error("the file of the certificate has no certificate (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// A text is not PEM.
    #[error("{what} is not valid PEM: {source}")]
    Pem {
        /// The file, by what it has.
        what: &'static str,
        /// Cause.
        source: pem::Error,
    },
    /// The key is not that of the certificate, or its kind is unknown.
    #[error("the key cannot be used with the certificate: {0}")]
    Key(rustls::Error),
}

impl Tls {
    /// Returns what these texts, in PEM, say. Lists of revoked certificates among the authorities
    /// are heeded.
    ///
    /// # Errors
    /// [`InvalidTls`].
    pub fn new(authorities: String, identity: Option<Identity>) -> Result<Self, InvalidTls> {
        let pem = |what| move |source| InvalidTls::Pem { what, source };
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            let authority = authority.map_err(pem("the file of the authorities"))?;
            roots.add(authority).map_err(|error| InvalidTls::Authority(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(InvalidTls::NoAuthority);
        }
        let revoked: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(authorities.as_bytes()).collect();
        let revoked = revoked.map_err(pem("the file of the authorities"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
            .with_crls(revoked)
            .build()
            .map_err(|error| InvalidTls::Authority(error.to_string()))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_webpki_verifier(verifier);
        let client = match &identity {
            None => builder.with_no_client_auth(),
            Some(Identity { certificates, key }) => {
                let chain: Result<Vec<_>, _> =
                    CertificateDer::pem_slice_iter(certificates.as_bytes()).collect();
                let chain = chain.map_err(pem("the file of the certificate"))?;
                if chain.is_empty() {
                    return Err(InvalidTls::NoCertificate);
                }
                let key =
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(pem("the file of the key"))?;
                builder.with_client_auth_cert(chain, key).map_err(InvalidTls::Key)?
            }
        };
        Ok(Self { authorities, identity, client: Arc::new(client) })
    }

    /// Authorities as PEM.
    pub(super) fn authorities(&self) -> &str {
        &self.authorities
    }

    /// Certificate and key of this process.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Settings of a connection.
    pub(super) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }
}
