//! Files of certificates, keys and authorities, in PEM.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, Error, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject as _},
    },
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use super::{
    certificate::{DaemonNames, PeerCertificate},
    pem_file, provider,
};
use crate::file::{FileError, WatchedFile};

/// Maximum number of certificates in a file.
const CERTIFICATES_MAX: usize = 1000;

/// Reads the certificates of a file.
fn certificates(path: &Path, text: &str) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let fail = |fault: String| FileError::Content { path: path.to_owned(), fault };
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text.as_bytes()).take(CERTIFICATES_MAX + 1).collect();
    let read = read.map_err(|error| fail(fault_of_pem(&error)))?;
    match read.len() {
        0 => Err(fail("it has no certificate: expected `-----BEGIN CERTIFICATE-----`".to_owned())),
        n if n > CERTIFICATES_MAX => Err(fail(format!("it has more than {CERTIFICATES_MAX} certificates"))),
        _ => Ok(read),
    }
}

fn fault_of_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            let end = String::from_utf8_lossy(end_marker);
            let end = end.trim_matches(|c: char| c == '-' || c.is_whitespace()).trim_start_matches("END ");
            format!("it ends within a section, as a file that was cut: expected `-----END {end}-----`")
        }
        pem::Error::IllegalSectionStart { line } => {
            let line: String = String::from_utf8_lossy(line).trim().chars().take(40).collect();
            format!("it is no PEM file: a section cannot begin with `{line}`")
        }
        _ => "it is no PEM file: the text between the lines `-----BEGIN …` and `-----END …` is no base64"
            .to_owned(),
    }
}

/// Removes the character that editors of Windows put first.
fn without_mark(text: String) -> String {
    text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)
}

/// Certificate and authorities of a daemon. They are one content, since a certificate that the authorities
/// have not signed is one that no other daemon accepts.
#[derive(Debug)]
pub(super) struct DaemonFiles {
    pub(super) own: OwnCertificate,
    pub(super) trust: Trust,
}

/// Paths of the files of a daemon.
#[derive(Debug)]
pub(super) struct DaemonPaths {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) authorities: PathBuf,
}

/// Demands of other daemons on the certificate of a daemon.
#[derive(Debug)]
pub(super) struct Demands {
    /// The name under which they reach this one.
    pub(super) host: String,
    /// The names of daemons, if they ask for certificates of clients; empty accepts every name.
    pub(super) clients: Option<DaemonNames>,
}

impl DaemonFiles {
    /// Reads the files, and again when one of them changes. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn watch(paths: DaemonPaths, demands: Demands) -> Result<WatchedFile<Self>, FileError> {
        let all = vec![paths.certificate.clone(), paths.key.clone(), paths.authorities.clone()];
        WatchedFile::open_all(all, move || Self::read(&paths, &demands))
    }

    fn read(paths: &DaemonPaths, demands: &Demands) -> Result<Self, FileError> {
        let own = OwnCertificate::read(&paths.certificate, &paths.key)?;
        let trust = Trust::read(&paths.authorities)?;
        let fail = |fault: String| FileError::Content { path: paths.certificate.clone(), fault };
        let host = &demands.host;
        let asked = ServerName::try_from(host.as_str()).map_err(|_| {
            fail(format!(
                "no certificate can be for {host}: set storm.local.hostname to a name or an address"
            ))
        })?;
        let chain = &own.key.cert;
        // The clock of handshakes.
        let now = UnixTime::now();
        let as_server = trust.servers.verify_server_cert(&chain[0], &chain[1..], &asked, &[], now);
        let as_client = match demands.clients {
            Some(_) => trust.clients.verify_client_cert(&chain[0], &chain[1..], now).map(|_| ()),
            None => Ok(()),
        };
        as_server.map(|_| ()).and(as_client).map_err(|error| fail(own.fault(&error, host, paths)))?;
        if let Some(names) = &demands.clients
            && !names.is_empty()
            && !names.include(&own.leaf)
        {
            return Err(fail(format!(
                "none of its names ({}) is in storm.tls.daemons, so other daemons would refuse it; add one there, on \
                 every host",
                own.leaf.names.join(", ")
            )));
        }
        Ok(Self { own, trust })
    }
}

/// Certificate of this process with its key.
#[derive(Debug)]
pub(super) struct OwnCertificate {
    path: PathBuf,
    leaf: PeerCertificate,
    key: Arc<CertifiedKey>,
}

impl OwnCertificate {
    /// Reads a certificate and its key, and again when one of the files changes. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn watch(certificate: &Path, key: &Path) -> Result<WatchedFile<Self>, FileError> {
        let paths = vec![certificate.to_owned(), key.to_owned()];
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        WatchedFile::open_all(paths, move || Self::read(&certificate, &key))
    }

    /// Reads a certificate, with those between it and its authority, and its key. No error contains a key.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn read(path: &Path, key: &Path) -> Result<Self, FileError> {
        let (text, key_text) = pem_file::read_pair(path, key)?;
        let chain = certificates(path, &without_mark(text))?;
        let fail = |fault: String| FileError::Content { path: path.to_owned(), fault };
        let leaf = PeerCertificate::parse(&chain[0]).map_err(&fail)?;
        let no_key = || FileError::Content {
            path: key.to_owned(),
            fault:
                "it has no private key in PEM: expected `-----BEGIN PRIVATE KEY-----`, without a passphrase"
                    .to_owned(),
        };
        // The error of the parser may quote a line of the key.
        let private = PrivateKeyDer::from_pem_slice(key_text.as_bytes()).map_err(|_| no_key())?;
        let key = CertifiedKey::from_der(chain, private, &provider())
            .map_err(|error| fail(format!("it does not fit the key in {}: {error}", key.display())))?;
        Ok(Self { path: path.to_owned(), leaf, key: Arc::new(key) })
    }

    /// Returns why other daemons would refuse the certificate, with the remedy.
    fn fault(&self, error: &Error, host: &str, paths: &DaemonPaths) -> String {
        let Error::InvalidCertificate(cause) = error else { return error.to_string() };
        match cause {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("it has expired at {}; replace it", self.leaf.not_after)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "it is not valid yet; look at the clock of this host, or replace it".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "it is for other names ({}); other daemons reach this one as {host}, its storm.local.hostname",
                self.leaf.names.join(", ")
            ),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "no authority in {} has signed it; add the one that has there first, on every host",
                paths.authorities.display()
            ),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "it must be for servers and for clients (`serverAuth`, `clientAuth`), or not limit its use"
                    .to_owned()
            }
            other => format!("other daemons would refuse it: {other}"),
        }
    }

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }

    pub(super) fn leaf(&self) -> &PeerCertificate {
        &self.leaf
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Authorities whose certificates are believed.
#[derive(Debug)]
pub(super) struct Trust {
    pem: String,
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    /// Reads a file that nobody but its owner may change. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let text = pem_file::read_certificates(path)?;
        Self::parse(path, &without_mark(text))
    }

    /// Parses the text of the file at `path`.
    ///
    /// # Errors
    /// [`FileError::Content`].
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let fail = |fault: String| FileError::Content { path: path.to_owned(), fault };
        let mut roots = RootCertStore::empty();
        for (index, certificate) in certificates(path, text)?.into_iter().enumerate() {
            let number = index + 1;
            roots.add(certificate).map_err(|error| fail(format!("certificate {number}: {error}")))?;
        }
        let roots = Arc::new(roots);
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider()).build();
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider());
        // The need for a certificate depends on the sender of a request.
        let clients = clients.allow_unauthenticated().build();
        Ok(Self {
            pem: text.to_owned(),
            servers: servers.map_err(|error| fail(error.to_string()))?,
            clients: clients.map_err(|error| fail(error.to_string()))?,
        })
    }

    /// The text of the file.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn servers(&self) -> &WebPkiServerVerifier {
        &self.servers
    }

    pub(super) fn clients(&self) -> &dyn ClientCertVerifier {
        &*self.clients
    }
}
