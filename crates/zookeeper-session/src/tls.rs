//! TLS to ZooKeeper: the files of the authorities and of the certificate, read again when they change.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::{info, warn};

use stormkeeper_access::{
    file::{FileError, PERIOD},
    tls::pem_file,
};
use stormkeeper_coordination::tree::{
    tls::{Identity, InvalidTls, Tls},
    zookeeper::ZooKeeperTree,
};
use stormkeeper_runtime::{
    blocking, error_chain,
    tasks::{OnExit, Tasks},
    watch,
};

/// Certificate that a process presents to ZooKeeper, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityPaths {
    /// The certificate, with those between it and its authority, in PEM.
    pub certificates: PathBuf,
    /// Its key in PEM, which nobody but its owner may read.
    pub key: PathBuf,
}

/// Paths of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPaths {
    /// Certificates of the authorities that sign those of the servers.
    pub authorities: PathBuf,
    /// Certificate and key of this side, if it presents one.
    pub identity: Option<IdentityPaths>,
}

/// Error of files for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has something else.
    #[error(transparent)]
    File(#[from] FileError),
    /// The contents cannot be used together.
    #[error("TLS to ZooKeeper, {files}")]
    Content {
        /// The files.
        files: String,
        /// Cause.
        source: InvalidTls,
    },
}

/// TLS that the files on the disk say.
#[derive(Debug)]
pub struct TlsFiles {
    paths: TlsPaths,
    in_force: Tls,
}

impl TlsPaths {
    /// Takes a copy of the certificate and the key in the one file `copy`, if it exists and they are set.
    pub fn with_copied_identity(self, copy: &Path) -> Self {
        let copied = || IdentityPaths { certificates: copy.to_owned(), key: copy.to_owned() };
        let identity = self.identity.map(|own| if copy.exists() { copied() } else { own });
        Self { identity, ..self }
    }

    fn read(&self) -> Result<Tls, TlsError> {
        let authorities = pem_file::read_certificates(&self.authorities)?;
        let identity = self.identity.as_ref().map(|paths| {
            let (certificates, key) = pem_file::read_pair(&paths.certificates, &paths.key)?;
            Ok::<_, FileError>(Identity { certificates, key })
        });
        let invalid = |source| TlsError::Content { files: self.names(), source };
        Tls::new(authorities, identity.transpose()?).map_err(invalid)
    }

    fn names(&self) -> String {
        let mut names = self.authorities.display().to_string();
        if let Some(IdentityPaths { certificates, key }) = &self.identity {
            // Writing to a string does not fail.
            let _always = write!(names, ", {} and {}", certificates.display(), key.display());
        }
        names
    }
}

impl TlsFiles {
    /// Reads the files at `paths`. Blocks.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn open(paths: TlsPaths) -> Result<Self, TlsError> {
        let in_force = paths.read()?;
        Ok(Self { paths, in_force })
    }

    /// Files with the certificate and the key of this side, if it presents one.
    pub fn identity(&self) -> Option<&IdentityPaths> {
        self.paths.identity.as_ref()
    }

    /// Paths of all files.
    pub fn paths(&self) -> &TlsPaths {
        &self.paths
    }

    /// TLS in force, for a connection.
    pub fn tls(&self) -> Tls {
        self.in_force.clone()
    }

    /// Reads the files again every two seconds, and lets the tree have what has changed. Files that
    /// cannot be used leave the last good ones in force; the log says why, and the returned value.
    pub fn keep_fresh(self, tree: Arc<ZooKeeperTree>, tasks: &Tasks) -> watch::Receiver<Option<String>> {
        let Self { paths, mut in_force } = self;
        let (problem, seen) = watch::channel(None);
        tasks.start("TLS to ZooKeeper", OnExit::Ignore, async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                let paths = paths.clone();
                match blocking::run(move || paths.read()).await {
                    Ok(tls) if tls == in_force => set(&problem, None),
                    Ok(tls) => {
                        info!("read changed certificates for ZooKeeper; the next connection uses them");
                        set(&problem, None);
                        tree.replace_tls(tls.clone());
                        in_force = tls;
                    }
                    Err(error) => {
                        let reason = error_chain(&error).to_string();
                        let text = Some(format!("{reason}; the last good certificates for ZooKeeper are in force"));
                        if *problem.borrow() != text {
                            warn!(reason, "changed certificates for ZooKeeper cannot be used; the last good ones stay in force");
                            set(&problem, text);
                        }
                    }
                }
            }
        });
        seen
    }
}

/// Sets a problem, and wakes its readers if it is another one.
fn set(problem: &watch::Sender<Option<String>>, text: Option<String>) {
    problem.send_if_modified(|before| {
        let is_new = *before != text;
        *before = text;
        is_new
    });
}
