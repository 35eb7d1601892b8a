//! TLS of a process: its certificate, the authorities that it trusts, and the use of both.
//!
//! | side | type |
//! | --- | --- |
//! | port of a nimbus, or of the agent of a supervisor | [`server::ServerTls`] |
//! | requests to them | [`client::ClientTls`] |
//! | connections between workers | [`ephemeral::EphemeralTls`], [`worker::WorkerTls`] |
//!
//! Files are read again when they change, and connections that are opened later use the new content.
//! A bad file leaves the last good content in force. Sessions are not resumed: the certificates of every
//! connection are checked.

/// Methods of a verifier that are the same for the certificates of servers and of clients: the other end has
/// the key of its certificate. The verifier has the field `algorithms`.
macro_rules! verify_handshake_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

pub mod certificate;
pub mod client;
pub mod ephemeral;
mod files;
pub mod pem_file;
pub mod server;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
pub mod worker;

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use rustls::crypto::CryptoProvider;
use tracing::warn;

use crate::file::{FileError, PERIOD, WatchedFile};
use certificate::{DaemonNames, Expiry, expiry};
use client::ClientTls;
use files::{DaemonFiles, DaemonPaths, Demands};
use server::ServerTls;
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
    watch,
};

/// Use of TLS by a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Ports speak plain HTTP, and so do requests.
    #[default]
    Off,
    /// Ports speak both. Requests are sent over TLS to those that speak it: the step between the two others
    /// in a running cluster.
    Optional,
    /// Ports and requests speak TLS only.
    Required,
}

impl TlsMode {
    const ALL: [Self; 3] = [Self::Off, Self::Optional, Self::Required];

    /// Name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Error of a text that is no mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `off`, `optional` or `required`")]
pub struct InvalidTlsMode;

impl FromStr for TlsMode {
    type Err = InvalidTlsMode;

    fn from_str(text: &str) -> Result<Self, InvalidTlsMode> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(InvalidTlsMode)
    }
}

/// Settings of a process, as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// `storm.tls`; without it, `required` if there is a certificate, else `off`.
    pub mode: Option<TlsMode>,
    /// `storm.tls.cert.file`.
    pub certificate: Option<PathBuf>,
    /// `storm.tls.key.file`.
    pub key: Option<PathBuf>,
    /// `storm.tls.ca.file`.
    pub authorities: Option<PathBuf>,
    /// `storm.tls.client.certificates`, in the same words as `storm.tls`.
    pub client_certificates: TlsMode,
    /// `storm.tls.daemons`.
    pub daemons: Vec<String>,
    /// `storm.local.hostname`: the name that other daemons expect in the certificate.
    pub host: String,
}

/// Error of the TLS settings or files of a process: it must not start.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key is missing.
    #[error("{why}, but {missing} is not set: {remedy}")]
    Missing {
        /// Cause of the need.
        why: &'static str,
        /// The key.
        missing: &'static str,
        /// Remedy.
        remedy: &'static str,
    },
}

fn missing(why: &'static str, missing: &'static str, remedy: &'static str) -> TlsError {
    TlsError::Missing { why, missing, remedy }
}

/// TLS of a daemon. Clones share the contents of the files.
#[derive(Debug, Clone, Default)]
pub struct Tls(Option<Arc<Enabled>>);

#[derive(Debug)]
struct Enabled {
    mode: TlsMode,
    client_certificates: TlsMode,
    daemons: DaemonNames,
    files: WatchedFile<DaemonFiles>,
}

impl Tls {
    /// Reads the files of a daemon. Blocks.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn of_daemon(settings: &TlsSettings, has_secret: bool) -> Result<Self, TlsError> {
        const ALL_FOUR: &str = "set storm.tls.cert.file, storm.tls.key.file and storm.tls.ca.file, or set \
                                storm.tls to `off`; `scripts/make-certificates` makes the files";
        const ON: &str = "storm.tls is on";
        let mode = settings.mode.unwrap_or(match settings.certificate {
            Some(_) => TlsMode::Required,
            None => TlsMode::Off,
        });
        if mode == TlsMode::Off {
            return match settings.client_certificates {
                TlsMode::Off => Ok(Self::default()),
                _ => Err(missing("storm.tls.client.certificates is set", "storm.tls.cert.file", ALL_FOUR)),
            };
        }
        let certificate = settings.certificate.as_ref();
        let certificate = certificate.ok_or_else(|| missing(ON, "storm.tls.cert.file", ALL_FOUR))?;
        let key = settings.key.as_ref().ok_or_else(|| missing(ON, "storm.tls.key.file", ALL_FOUR))?;
        let authorities = settings.authorities.as_ref();
        let authorities = authorities.ok_or_else(|| missing(ON, "storm.tls.ca.file", ALL_FOUR))?;
        if !has_secret {
            return Err(missing(
                ON,
                "storm.cluster.secret.file",
                "workers prove with keys of the cluster secret that no third party is between them; make one with \
                 `stormkeeper secret new FILE` and copy it to every host",
            ));
        }
        if settings.client_certificates == TlsMode::Required && settings.daemons.is_empty() {
            return Err(missing(
                "storm.tls.client.certificates is `required`",
                "storm.tls.daemons",
                "name the certificates of nimbuses and supervisors, separated by commas, for example \
                 `*.storm.example.com`",
            ));
        }
        let daemons = DaemonNames::new(settings.daemons.clone());
        let asks_clients = settings.client_certificates != TlsMode::Off;
        let demands = Demands { host: settings.host.clone(), clients: asks_clients.then(|| daemons.clone()) };
        let paths = DaemonPaths {
            certificate: certificate.clone(),
            key: key.clone(),
            authorities: authorities.clone(),
        };
        Ok(Self(Some(Arc::new(Enabled {
            mode,
            client_certificates: settings.client_certificates,
            daemons,
            files: DaemonFiles::watch(paths, demands)?,
        }))))
    }

    /// Use of TLS.
    pub fn mode(&self) -> TlsMode {
        self.0.as_ref().map_or(TlsMode::Off, |tls| tls.mode)
    }

    /// True if clients are asked for certificates.
    pub(crate) fn asks_clients(&self) -> bool {
        self.0.as_ref().is_some_and(|tls| tls.client_certificates != TlsMode::Off)
    }

    /// The names of the certificates of daemons, if a daemon must have one.
    pub fn required_daemons(&self) -> Option<&DaemonNames> {
        let tls = self.0.as_ref()?;
        (tls.client_certificates == TlsMode::Required).then_some(&tls.daemons)
    }

    /// TLS of the ports of this daemon; `None` if they speak plain HTTP.
    pub fn server(&self) -> Option<ServerTls> {
        let tls = self.0.as_ref()?;
        Some(ServerTls::new(tls.mode, tls.files.clone(), tls.client_certificates != TlsMode::Off))
    }

    /// TLS of the requests of this daemon, which show its certificate.
    pub fn client(&self) -> ClientTls {
        match &self.0 {
            None => ClientTls::off(),
            Some(tls) => ClientTls::of_daemon(tls.mode, tls.files.clone()),
        }
    }

    /// Returns the file from which a worker learns whether and whom to trust; `None` without TLS.
    pub fn worker_text(&self) -> Option<String> {
        let tls = self.0.as_ref()?;
        Some(worker::text(tls.mode, tls.files.get().trust.pem()))
    }

    /// Starts to read the files again when they change. Receives what an operator must know: a file that is
    /// not in force, a certificate that has expired or will soon. The second value is true while the
    /// certificate has expired.
    pub fn keep_fresh(
        &self,
        clock: Clock,
        tasks: &Tasks,
    ) -> (watch::Receiver<Option<String>>, watch::Receiver<bool>) {
        let (problem, seen) = watch::channel(None);
        let (is_expired, expiry_seen) = watch::channel(false);
        if let Some(tls) = self.0.clone() {
            tasks.start("certificates", OnExit::Ignore, async move {
                loop {
                    let files = tls.files.clone();
                    blocking::run(move || files.refresh()).await;
                    let now = tls.problem(&clock);
                    is_expired.send_if_modified(|before| {
                        let is_now = tls.expiry(&clock) == Expiry::Past;
                        std::mem::replace(before, is_now) != is_now
                    });
                    problem.send_if_modified(|before| {
                        let is_new = *before != now;
                        if let Some(reason) = now.as_ref().filter(|_| is_new) {
                            warn!(reason, "the certificate of this daemon needs an operator");
                        }
                        is_new && {
                            *before = now;
                            true
                        }
                    });
                    tokio::time::sleep(PERIOD).await;
                }
            });
        }
        (seen, expiry_seen)
    }
}

impl Enabled {
    fn expiry(&self, clock: &Clock) -> Expiry {
        expiry(self.files.get().own.leaf().not_after, clock.now())
    }

    fn problem(&self, clock: &Clock) -> Option<String> {
        let own = &self.files.get().own;
        let of_expiry = match self.expiry(clock) {
            Expiry::Far => None,
            Expiry::Soon { days } => Some(format!(
                "the certificate in {} expires in {days} days, at {}; replace the file, no restart is needed",
                own.path().display(),
                own.leaf().not_after
            )),
            Expiry::Past => Some(format!(
                "the certificate in {} has expired at {}: nobody can connect over TLS; replace the file, no \
                 restart is needed",
                own.path().display(),
                own.leaf().not_after
            )),
        };
        let of_files = self.files.problem().borrow().clone();
        let texts: Vec<String> = [of_files, of_expiry].into_iter().flatten().collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// The cryptography of all connections.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
