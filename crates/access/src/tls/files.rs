//! Files of certificates, keys and authorities, in PEM.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    client::WebPkiServerVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use super::{certificate::PeerCertificate, provider};
use crate::file::{self, FileError, Protection, WatchedFile};

/// Maximum number of certificates in a file.
const CERTIFICATES_MAX: usize = 1000;

/// Reads the certificates of a file.
fn certificates(path: &Path, text: &str) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let fail = |fault: String| FileError::Content { path: path.to_owned(), fault };
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text.as_bytes()).take(CERTIFICATES_MAX + 1).collect();
    let read = read.map_err(|error| fail(format!("it is no PEM file: {error}")))?;
    match read.len() {
        0 => Err(fail("it has no certificate: expected `-----BEGIN CERTIFICATE-----`".to_owned())),
        n if n > CERTIFICATES_MAX => Err(fail(format!("it has more than {CERTIFICATES_MAX} certificates"))),
        _ => Ok(read),
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
    fn read(path: &Path, key: &Path) -> Result<Self, FileError> {
        let chain = certificates(path, &file::read(path, Protection::Unchanged)?)?;
        let fail = |fault: String| FileError::Content { path: path.to_owned(), fault };
        let leaf = PeerCertificate::parse(&chain[0]).map_err(&fail)?;
        let no_key = || FileError::Content {
            path: key.to_owned(),
            fault:
                "it has no private key in PEM: expected `-----BEGIN PRIVATE KEY-----`, without a passphrase"
                    .to_owned(),
        };
        let text = file::read(key, Protection::Secret)?;
        // The error of the parser may quote a line of the key.
        let private = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| no_key())?;
        let key = CertifiedKey::from_der(chain, private, &provider())
            .map_err(|error| fail(format!("it does not fit the key in {}: {error}", key.display())))?;
        Ok(Self { path: path.to_owned(), leaf, key: Arc::new(key) })
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
        Self::parse(path, &file::read(path, Protection::Unchanged)?)
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
