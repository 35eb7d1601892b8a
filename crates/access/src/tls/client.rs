//! TLS of the requests of a process.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};

use super::{
    TlsMode,
    certificate::PeerCertificate,
    files::{OwnCertificate, Trust},
    provider,
    worker::WorkerTls,
};
use crate::file::{FileError, WatchedFile};

/// Authorities that are in force, and whether TLS is.
#[derive(Debug, Clone)]
enum Source {
    Off,
    Process(TlsMode, WatchedFile<Trust>),
    Worker(WatchedFile<Option<WorkerTls>>),
}

impl Source {
    fn mode(&self) -> TlsMode {
        match self {
            Self::Off => TlsMode::Off,
            Self::Process(mode, _) => *mode,
            Self::Worker(file) => file.get().as_ref().as_ref().map_or(TlsMode::Off, WorkerTls::mode),
        }
    }
}

/// TLS of the requests of a process. Clones share the contents of the files.
#[derive(Debug, Clone)]
pub struct ClientTls {
    source: Source,
    own: Option<WatchedFile<OwnCertificate>>,
}

impl ClientTls {
    /// Requests are plain.
    pub fn off() -> Self {
        Self { source: Source::Off, own: None }
    }

    pub(super) fn of_process(
        mode: TlsMode,
        trust: WatchedFile<Trust>,
        own: Option<WatchedFile<OwnCertificate>>,
    ) -> Self {
        let source = if mode == TlsMode::Off { Source::Off } else { Source::Process(mode, trust) };
        Self { source, own }
    }

    /// TLS of a command, with the certificate of a person if there is one. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn of_command(
        mode: TlsMode,
        authorities: &Path,
        certificate_and_key: Option<(&Path, &Path)>,
    ) -> Result<Self, FileError> {
        let trust = WatchedFile::open(authorities, Trust::read)?;
        let own = certificate_and_key.map(|(certificate, key)| OwnCertificate::watch(certificate, key));
        Ok(Self::of_process(mode, trust, own.transpose()?))
    }

    /// TLS of a worker, which its supervisor changes while it runs.
    pub fn of_worker(file: WatchedFile<Option<WorkerTls>>) -> Self {
        Self { source: Source::Worker(file), own: None }
    }

    /// Use of TLS at this moment.
    pub fn mode(&self) -> TlsMode {
        self.source.mode()
    }

    /// Configuration of the connections.
    pub fn config(&self) -> ClientConfig {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has cipher suites of both versions");
        let verifier = Servers { source: self.source.clone(), algorithms };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match self.own.clone() {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_cert_resolver(Arc::new(Own(own))),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        config
    }
}

/// The certificate that is in force when a connection is opened.
#[derive(Debug)]
struct Own(WatchedFile<OwnCertificate>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get().key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Checks the certificates of servers with the authorities that are in force.
#[derive(Debug)]
struct Servers {
    source: Source,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |trust: &Trust| {
            let servers = trust.servers();
            servers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        let verified = match &self.source {
            Source::Process(_, trust) => verify(&trust.get()),
            Source::Worker(file) => match file.get().as_ref() {
                Some(tls) => verify(tls.trust()),
                None => Err(CertificateError::UnknownIssuer.into()),
            },
            Source::Off => Err(CertificateError::UnknownIssuer.into()),
        };
        verified.map_err(|error| match error {
            Error::InvalidCertificate(cause) => explained(cause, server_name, end_entity),
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Certificate of a server that is refused, with the remedy.
#[derive(Debug)]
struct RefusedCertificate(String);

impl fmt::Display for RefusedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RefusedCertificate {}

fn explained(cause: CertificateError, server: &ServerName<'_>, end_entity: &CertificateDer<'_>) -> Error {
    let server = server.to_str();
    let facts = PeerCertificate::parse(end_entity);
    let text = match &cause {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let at = facts.map(|facts| format!(" at {}", facts.not_after)).unwrap_or_default();
            format!("the certificate of {server} has expired{at}; replace storm.tls.cert.file there")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => format!(
            "the certificate of {server} is not valid yet; look at the clocks of both hosts, or replace \
             storm.tls.cert.file there"
        ),
        // One of an authority that has the name of a trusted one has a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "no authority in storm.tls.ca.file (or --ca) has signed the certificate of {server}; set the file of \
             the authority that did"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let names = facts.map(|facts| facts.names.join(", ")).unwrap_or_default();
            format!(
                "the certificate of {server} is for other names ({names}); it needs one for {server}, its \
                 storm.local.hostname"
            )
        }
        _ => return Error::InvalidCertificate(cause),
    };
    Error::Other(OtherError(Arc::new(RefusedCertificate(text))))
}

/// Returns why the certificate of a server was refused, with the remedy, if `error` is that.
pub fn refused_certificate(error: &Error) -> Option<String> {
    match error {
        Error::Other(OtherError(cause)) => {
            cause.downcast_ref::<RefusedCertificate>().map(ToString::to_string)
        }
        _ => None,
    }
}
