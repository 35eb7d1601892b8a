//! TLS to ZooKeeper: the files of the authorities and of the certificate, read again when they change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use tracing::{info, warn};

use crate::{
    cli::error::{ErrorKind, Failure},
    config::Config,
};
use stormkeeper_access::{file::PERIOD, tls::pem_file};
use stormkeeper_coordination::tree::{
    tls::{Identity, Tls},
    zookeeper::ZooKeeperTree,
};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
    watch,
};
use stormkeeper_supervisor::{IdentityFiles, ZOOKEEPER_IDENTITY_FILE};

/// Kind of process that connects to ZooKeeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    /// A nimbus, a supervisor or a command.
    Daemon,
    /// A worker, whose components can read what it can read.
    Worker,
}

/// TLS that the files on the disk say.
#[derive(Debug)]
pub(super) struct TlsFiles {
    files: Files,
    in_force: Tls,
}

/// Paths of the files.
#[derive(Debug, Clone)]
struct Files {
    authorities: PathBuf,
    identity: Option<IdentityFiles>,
}

impl Files {
    /// Returns the files that `config` names, if it asks for TLS.
    fn of(config: &Config, process: Process) -> Result<Option<Self>, Failure> {
        let prefix = match process {
            Process::Daemon => "storm.zookeeper.tls",
            Process::Worker => "storm.zookeeper.tls.workers",
        };
        let [cert_key, key_key] = ["cert.file", "key.file"].map(|name| format!("{prefix}.{name}"));
        // The configuration has both or neither.
        let identity = config.file_if_set(&cert_key).zip(config.file_if_set(&key_key));
        let identity = identity.map(|(certificates, key)| IdentityFiles { certificates, key });
        match (config.file_if_set("storm.zookeeper.tls.ca.file"), identity) {
            (Some(authorities), identity) => Ok(Some(Self { authorities, identity })),
            (None, None) => Ok(None),
            (None, Some(_)) => {
                let error = anyhow!(
                    "{cert_key} is set without storm.zookeeper.tls.ca.file, which turns TLS to ZooKeeper on"
                );
                Err(Failure::new(ErrorKind::Config, error))
            }
        }
    }

    fn read(&self) -> anyhow::Result<Tls> {
        let authorities = pem_file::read_certificates(&self.authorities)?;
        let identity = self.identity.as_ref().map(|files| {
            let (certificates, key) = pem_file::read_pair(&files.certificates, &files.key)?;
            anyhow::Ok(Identity { certificates, key })
        });
        let named = || match &self.identity {
            None => format!("TLS to ZooKeeper, {}", self.authorities.display()),
            Some(IdentityFiles { certificates, key }) => format!(
                "TLS to ZooKeeper, {}, {} and {}",
                self.authorities.display(),
                certificates.display(),
                key.display()
            ),
        };
        Tls::new(authorities, identity.transpose()?).with_context(named)
    }
}

impl TlsFiles {
    /// Reads the files that `config` names, if it asks for TLS. Blocks.
    ///
    /// # Errors
    /// If `config` has one of two keys that belong together, or a file cannot be read or used.
    pub(super) fn open(config: &Config, process: Process) -> Result<Option<Self>, Failure> {
        Self::of(Files::of(config, process)?)
    }

    /// Reads the files of a worker as [`open`](Self::open) does, and in place of its certificate and key
    /// the copy that the supervisor has written into `dir`, if there is one. Blocks.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn open_in_worker(config: &Config, dir: &Path) -> Result<Option<Self>, Failure> {
        let mut files = Files::of(config, Process::Worker)?;
        let copy = dir.join(ZOOKEEPER_IDENTITY_FILE);
        if let Some(identity) =
            files.as_mut().and_then(|files| files.identity.as_mut()).filter(|_| copy.exists())
        {
            *identity = IdentityFiles { certificates: copy.clone(), key: copy };
        }
        Self::of(files)
    }

    fn of(files: Option<Files>) -> Result<Option<Self>, Failure> {
        let Some(files) = files else { return Ok(None) };
        let in_force = files.read().map_err(|error| Failure::new(ErrorKind::Config, error))?;
        Ok(Some(Self { files, in_force }))
    }

    /// Files with the certificate and the key of this side, if it presents one.
    pub(super) fn identity(&self) -> Option<&IdentityFiles> {
        self.files.identity.as_ref()
    }

    /// TLS in force, for a connection.
    pub(super) fn tls(&self) -> Tls {
        self.in_force.clone()
    }

    /// Reads the files again every two seconds, and lets the tree have what has changed. Files that
    /// cannot be used leave the last good ones in force; the log says why, and the returned value.
    pub(super) fn keep_fresh(
        self,
        tree: Arc<ZooKeeperTree>,
        tasks: &Tasks,
    ) -> watch::Receiver<Option<String>> {
        let Self { files, mut in_force } = self;
        let (problem, seen) = watch::channel(None);
        tasks.start("TLS to ZooKeeper", OnExit::Ignore, async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                let files = files.clone();
                match blocking::run(move || files.read()).await {
                    Ok(tls) if tls == in_force => set(&problem, None),
                    Ok(tls) => {
                        info!("read changed certificates for ZooKeeper; the next connection uses them");
                        set(&problem, None);
                        tree.replace_tls(tls.clone());
                        in_force = tls;
                    }
                    Err(error) => {
                        let reason = format!("{error:#}");
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
