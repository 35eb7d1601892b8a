//! One launch as a task: prepare, start, record, watch, clean up.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::{
    LaunchDefaults,
    agent::Event,
    credentials::KnownCredentials,
    ledger::Ledger,
    process::{self, ProcessId, Processes},
    run_as::{self, FilesPlace, RunAsError},
    slot::DesiredWorker,
    unpack::TOPOLOGY_FILE,
    worker_dir, worker_keys,
};
use stormkeeper_access::file::WatchedFile;
use stormkeeper_coordination::cluster::store::Store;
use stormkeeper_model::{Port, Slot, SupervisorId, WorkerId};
use stormkeeper_runtime::{
    blocking,
    fs::regular_file,
    tasks::{OnExit, Tasks},
};
use stormkeeper_topology_package::{
    launch::{CREDENTIALS_FILE, LaunchSpec},
    package::PROGRAM,
};

/// Cause of a failed launch.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The blob was present earlier and has disappeared.
    #[error("the topology's code is no longer on this host, or is damaged")]
    CodeIsGone,
    #[error(
        "cannot read the topology's code in {}: {source}; make it readable for the user of the supervisor",
        path.display()
    )]
    Code { path: PathBuf, source: io::Error },
    #[error("cannot prepare {}: {source}", path.display())]
    Prepare { path: PathBuf, source: io::Error },
    #[error("{0}")]
    PortTaken(String),
    #[error("{0}")]
    RunAs(RunAsError),
    #[error("cannot write the ledger: {0}")]
    Ledger(io::Error),
    // Includes the source: the text is one line in the topology's errors.
    #[error("{error}{}", error_cause(.error))]
    Process { error: process::Error },
    #[error("the topology's worker program does not start: {error}{}", error_cause(.error))]
    Program { error: process::Error },
}

impl Error {
    /// Returns whether the topology or its owner is the cause, and not this host.
    pub(super) fn is_of_topology(&self) -> bool {
        match self {
            Self::RunAs(error) => error.is_of_owner(),
            Self::Program { .. } => true,
            Self::CodeIsGone
            | Self::Code { .. }
            | Self::Prepare { .. }
            | Self::PortTaken(_)
            | Self::Ledger(_)
            | Self::Process { .. } => false,
        }
    }
}

fn error_cause(error: &process::Error) -> String {
    std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
}

/// Checks that the code of a topology is there with a topology that can be read. What may be whole and
/// cannot be read now is not damaged.
fn check_code(code: &Path) -> Result<(), Error> {
    match regular_file::read(&code.join(TOPOLOGY_FILE)) {
        Ok(bytes) => {
            let parsed = serde_json::from_slice::<ProgramOnly>(&bytes);
            let ProgramOnly { program } = parsed.map_err(|_damaged| Error::CodeIsGone)?;
            match program.is_none() || code.join(PROGRAM).is_file() {
                true => Ok(()),
                false => Err(Error::CodeIsGone),
            }
        }
        Err(error) if is_damage(&error) => Err(Error::CodeIsGone),
        Err(source) => Err(Error::Code { path: code.to_owned(), source }),
    }
}

/// The part of a topology that says whether it has a worker program.
#[derive(serde::Deserialize)]
struct ProgramOnly {
    #[serde(default)]
    program: Option<serde::de::IgnoredAny>,
}

/// Returns whether a failed read means that the file is gone or damaged, and not that this process may
/// not read it, or cannot at the moment.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind as K;

    let is_gone = matches!(error.kind(), K::NotFound | K::NotADirectory | K::IsADirectory | K::InvalidInput);
    is_gone || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Launches workers and watches their processes, each in a separate task, so that a slow disk or
/// a slow start of one worker does not delay another worker.
#[derive(Debug, Clone)]
pub(super) struct Launcher {
    pub(super) me: SupervisorId,
    pub(super) local_dir: PathBuf,
    pub(super) defaults: Arc<LaunchDefaults>,
    pub(super) ledger: Ledger,
    pub(super) store: Store,
    pub(super) credentials: KnownCredentials,
    pub(super) processes: Arc<dyn Processes>,
    pub(super) events: mpsc::Sender<Event>,
}

impl Launcher {
    /// Starts a worker that runs the code in the directory `code`. Sends [`Event::Launched`] and,
    /// if a process was started, [`Event::Exited`].
    pub(super) fn launch(
        &self,
        tasks: &Tasks,
        (port, worker): (Port, WorkerId),
        desired: DesiredWorker,
        code: PathBuf,
    ) {
        let (this, cancel) = (self.clone(), tasks.cancelled());
        // Not cancelled between the start of a process and its entry in the ledger.
        tasks.start_graceful("worker", OnExit::Ignore, async move {
            let program = code.join(PROGRAM);
            let started = this.start(port, &worker, &desired, code).await;
            let has_program = blocking::run(move || program.is_file()).await;
            let started = started.map_err(|error| match error {
                Error::Process { error } if has_program => Error::Program { error },
                error => error,
            });
            let process = started.as_ref().ok().copied();
            if let Err(error) = &started {
                warn!(%worker, %error, "cannot launch a worker");
                this.remove_entry(port, &worker).await;
            }
            this.send(Event::Launched { port, worker: worker.clone(), started }).await;
            let Some(process) = process else { return };
            this.record_process(port, &worker, desired, process).await;
            tokio::select! {
                biased;
                // Cancel-safe: the next supervisor adopts the process.
                () = cancel.cancelled() => {}
                // Cancel-safe: as above.
                () = this.watch_to_end(port, worker, process, has_program) => {}
            }
        });
    }

    /// Watches a process that an earlier supervisor launched. Sends [`Event::Exited`].
    pub(super) fn adopt(&self, tasks: &Tasks, port: Port, worker: WorkerId, process: ProcessId) {
        let this = self.clone();
        tasks.start("adopted worker", OnExit::Ignore, async move {
            // It has run, so its program can.
            this.watch_to_end(port, worker, process, false).await;
        });
    }

    async fn start(
        &self,
        port: Port,
        worker: &WorkerId,
        desired: &DesiredWorker,
        code: PathBuf,
    ) -> Result<ProcessId, Error> {
        if let Some(obstacle) = self.processes.port_obstacle(port).await {
            return Err(Error::PortTaken(obstacle));
        }
        if self.defaults.locks.secrets().is_some() {
            self.credentials.read_for_launch(&desired.topology, &self.store).await;
        }
        let (this, spec, intent) = (self.clone(), self.spec(port, worker, desired, code), desired.clone());
        let spec = blocking::run(move || this.prepare(spec, port, &intent)).await?;
        self.processes.launch(&spec).await.map_err(|error| Error::Process { error })
    }

    /// Writes the files of a new worker and its intent into the ledger. Returns the complete spec. Blocks.
    fn prepare(&self, spec: LaunchSpec, port: Port, intent: &DesiredWorker) -> Result<LaunchSpec, Error> {
        check_code(&spec.code)?;
        let spec = self.with_user(spec, &intent.owner)?;
        let (place, topology, locks) = (FilesPlace::of_spec(&spec), &spec.topology, &self.defaults.locks);
        // The launches have directories of their own: this stands for all of them.
        let parent = spec.dir.parent().unwrap_or(&spec.dir);
        let writes = &self.ledger.writes;
        writes
            .record(parent, worker_dir::prepare(&spec))
            .and_then(|()| worker_keys::put(&place, topology, locks))
            .and_then(|()| {
                let users = self.defaults.zookeeper_users.as_ref().map(WatchedFile::get);
                worker_keys::put_users(&place, topology, users.as_deref())
            })
            .and_then(|()| self.credentials.put(&place, topology, locks))
            .and_then(|()| match (&self.defaults.fixed_credentials, locks.secrets()) {
                (Some(text), None) => place.replace_secret(CREDENTIALS_FILE, text),
                (None, _) | (_, Some(_)) => Ok(()),
            })
            .and_then(|()| {
                worker_keys::put_zookeeper_identity(&place, self.defaults.zookeeper_identity.as_ref())
            })
            .map_err(|source| Error::Prepare { path: spec.dir.clone(), source })?;
        self.ledger.record_intent(port, &spec.worker, intent).map_err(Error::Ledger)?;
        Ok(spec)
    }

    /// Adds the user as whom a worker runs, if it runs as the owner of its topology, and what is that
    /// user's.
    fn with_user(&self, spec: LaunchSpec, owner: &str) -> Result<LaunchSpec, Error> {
        let Some(run_as) = self.defaults.run_as else { return Ok(spec) };
        let user = run_as.user(owner).map_err(Error::RunAs)?;
        let failed = |source| Error::Prepare { path: spec.code.clone(), source };
        let code = run_as::package_of(&self.local_dir, &spec.code, &user).map_err(failed)?;
        let files = run_as::files_dir(&self.local_dir).join(spec.worker.as_str());
        Ok(LaunchSpec { code, files: Some(files), user: Some(user), ..spec })
    }

    fn spec(&self, port: Port, worker: &WorkerId, desired: &DesiredWorker, code: PathBuf) -> LaunchSpec {
        let defaults = &*self.defaults;
        LaunchSpec {
            topology: desired.topology.clone(),
            slot: Slot { supervisor: self.me.clone(), port },
            start: desired.worker.start,
            tasks: desired.worker.tasks.clone(),
            worker: worker.clone(),
            host: desired.worker.host.clone(),
            dir: worker_dir::path(&self.local_dir, worker),
            code,
            defaults: defaults.settings.clone(),
            heartbeat_period: defaults.heartbeat_period,
            task_heartbeat_period: defaults.task_heartbeat_period,
            subprocess_timeout: defaults.subprocess_timeout,
            metric_report_period: defaults.metric_report_period,
            config_file: defaults.config_file.clone(),
            overrides: defaults.overrides.clone(),
            withheld_variables: defaults.withheld_variables.clone(),
            abandoned_after: defaults.abandoned_after,
            owner: desired.owner.clone(),
            files: None,
            user: None,
            connections: defaults.connections.clone(),
        }
    }

    /// Records the process of a launch in the ledger.
    pub(super) async fn record_process(
        &self,
        port: Port,
        worker: &WorkerId,
        desired: DesiredWorker,
        process: ProcessId,
    ) {
        let (ledger, id) = (self.ledger.clone(), worker.clone());
        let write = move || ledger.record_process(port, &id, &desired, process);
        let written = blocking::run(write).await;
        if let Err(error) = written {
            error!(%worker, %process, %error, "cannot record a worker's process in the ledger; a restarted supervisor searches for it");
        }
    }

    /// Removes a launch that has ended from the ledger.
    pub(super) async fn remove_entry(&self, port: Port, worker: &WorkerId) {
        let (ledger, id) = (self.ledger.clone(), worker.clone());
        let removed = blocking::run(move || ledger.remove(port, &id)).await;
        if let Err(error) = removed {
            error!(%worker, %error, "cannot remove a worker that has ended from the ledger");
        }
    }

    /// Watches a process to its end. One that ends before its first heartbeat is a fault of this host, unless
    /// it `has_program` of its topology.
    async fn watch_to_end(&self, port: Port, worker: WorkerId, process: ProcessId, has_program: bool) {
        let report = self.processes.exited(process).await;
        let dir = worker_dir::path(&self.local_dir, &worker);
        let had_heartbeat = blocking::run(move || worker_dir::heartbeat(&dir).is_some()).await;
        let n_swept = self.processes.sweep(&worker).await;
        if n_swept > 0 {
            warn!(%worker, n_processes = n_swept, "killed processes that a worker left behind");
        }
        self.remove_entry(port, &worker).await;
        let is_of_topology = had_heartbeat || has_program;
        self.send(Event::Exited { port, worker, report, is_of_topology }).await;
    }

    async fn send(&self, event: Event) {
        // Fails only when the agent has ended and needs no events.
        let _agent_is_gone = self.events.send(event).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_may_not_be_read_is_not_damaged() {
        let damage = |kind: io::ErrorKind| is_damage(&kind.into());
        assert!(!damage(io::ErrorKind::PermissionDenied));
        assert!(!is_damage(&rustix::io::Errno::MFILE.into()) && is_damage(&rustix::io::Errno::IO.into()));
        assert!(damage(io::ErrorKind::NotFound) && damage(io::ErrorKind::NotADirectory));

        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(check_code(dir.path()), Err(Error::CodeIsGone)));
        let file = dir.path().join(TOPOLOGY_FILE);
        std::fs::write(&file, "{").expect("written");
        assert!(matches!(check_code(dir.path()), Err(Error::CodeIsGone)));
        std::fs::write(&file, "{}").expect("written");
        check_code(dir.path()).expect("whole");
        std::fs::write(&file, r#"{"program":{"version":"0"}}"#).expect("written");
        assert!(matches!(check_code(dir.path()), Err(Error::CodeIsGone)), "without its program");
        std::fs::write(dir.path().join(PROGRAM), "").expect("written");
        check_code(dir.path()).expect("with its program");
        // A link to itself cannot be read by anybody, also not by a user who may read everything.
        std::fs::remove_file(&file).expect("removed");
        std::os::unix::fs::symlink(TOPOLOGY_FILE, &file).expect("linked");
        let error = check_code(dir.path()).expect_err("unreadable").to_string();
        let path = dir.path().display().to_string();
        assert!(error.contains(&path) && error.contains("readable for the user"), "{error}");
    }
}
