//! TLS of the requests of a process.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, Error, OtherError, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{ServerCertVerified, ServerCertVerifier},
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};

use super::{
    TlsMode,
    certificate::PeerCertificate,
    files::{DaemonFiles, OwnCertificate, Trust},
    provider,
    worker::WorkerTls,
};
use crate::file::{FileError, WatchedFile};

/// Authorities and certificate that are in force, and whether TLS is.
#[derive(Debug, Clone)]
enum Source {
    Off,
    Daemon(TlsMode, WatchedFile<DaemonFiles>),
    Command(TlsMode, WatchedFile<Trust>, Option<WatchedFile<OwnCertificate>>),
    Worker(WatchedFile<Option<WorkerTls>>),
}

impl Source {
    fn mode(&self) -> TlsMode {
        match self {
            Self::Off => TlsMode::Off,
            Self::Daemon(mode, _) | Self::Command(mode, ..) => *mode,
            Self::Worker(file) => file.get().as_ref().as_ref().map_or(TlsMode::Off, WorkerTls::mode),
        }
    }

    fn own(&self) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::Off | Self::Worker(_) => None,
            Self::Daemon(_, files) => Some(files.get().own.key()),
            Self::Command(_, _, own) => own.as_ref().map(|own| own.get().key()),
        }
    }
}

/// TLS of the requests of a process. Clones share the contents of the files.
#[derive(Debug, Clone)]
pub struct ClientTls(Source);

impl ClientTls {
    /// Requests are plain.
    pub fn off() -> Self {
        Self(Source::Off)
    }

    /// Requests show the certificate of the daemon.
    pub(super) fn of_daemon(mode: TlsMode, files: WatchedFile<DaemonFiles>) -> Self {
        Self(Source::Daemon(mode, files))
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
        if mode == TlsMode::Off {
            return Ok(Self::off());
        }
        let trust = WatchedFile::open(authorities, Trust::read)?;
        let own = certificate_and_key.map(|(certificate, key)| OwnCertificate::watch(certificate, key));
        Ok(Self(Source::Command(mode, trust, own.transpose()?)))
    }

    /// TLS of a worker, which its supervisor changes while it runs.
    pub fn of_worker(file: WatchedFile<Option<WorkerTls>>) -> Self {
        Self(Source::Worker(file))
    }

    /// Use of TLS at this moment.
    pub fn mode(&self) -> TlsMode {
        self.0.mode()
    }

    /// Configuration of the connections.
    pub fn config(&self) -> ClientConfig {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has cipher suites of both versions");
        let verifier = Servers { source: self.0.clone(), algorithms };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = builder.with_client_cert_resolver(Arc::new(Own(self.0.clone())));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        config
    }
}

/// The certificate that is in force when a connection is opened, if there is one.
#[derive(Debug)]
struct Own(Source);

impl ResolvesClientCert for Own {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.own()
    }

    fn has_certs(&self) -> bool {
        self.0.own().is_some()
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
            Source::Daemon(_, files) => verify(&files.get().trust),
            Source::Command(_, trust, _) => verify(&trust.get()),
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

    verify_handshake_signatures!();
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
