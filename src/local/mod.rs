//! A whole cluster in one process, on the memory tree: two nimbuses, two supervisors, and
//! workers that run as tasks of this process with real shell components.
//!
//! No part is left out: the topology package is uploaded and the topology submitted over HTTP on
//! the loopback, the blob is fetched and unpacked, tuples between workers travel by TCP.
//! Differences from a real cluster: the tree is in memory, heartbeats come every 250 ms, and a
//! worker cannot be killed with a signal.

mod own_dir;
mod ports;
mod processes;
mod programs;
mod unfinished;
mod watch;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use own_dir::{Leftover, OwnDir, end_leftovers};
pub use watch::{End, Until};

use processes::InProcess;
use stormkeeper_access::{credentials::Credentials, tls::client::ClientTls};
use stormkeeper_api_types::{
    client::{self, Client, Timeouts},
    message::{InitialStatus, KillRequest, SubmitRequest, TopologyDetail, TopologyErrors, TopologySummary},
};
use stormkeeper_coordination::{
    cluster::{layout_version, store::Store},
    tree::memory::MemoryTree,
};
use stormkeeper_metrics_service::exporters::ExporterOptions;
use stormkeeper_model::{BlobKey, TopologyId, clock::Clock, text::counted};
use stormkeeper_nimbus as nimbus;
use stormkeeper_nimbus::{api, options::MetricOptions};
use stormkeeper_runtime::tasks::{OnExit, Tasks};
use stormkeeper_supervisor as supervisor;
use stormkeeper_supervisor::{LaunchDefaults, OnStop};

/// Numbers of nimbuses and supervisors: enough that a topology spreads over hosts and a leader is
/// elected among several nimbuses.
const N_NIMBUSES: usize = 2;
const N_SUPERVISORS: usize = 2;

/// The slots of each supervisor.
const N_SLOTS: usize = 4;

/// Period of refreshing heartbeats; printed counts are at most this old.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_millis(250);

/// Limit for the stop of a daemon.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the supervisors to register.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit for the removal of the topology at the end.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The topology and the settings of a local run.
#[derive(Debug)]
pub struct Options {
    /// The bytes of the topology package.
    pub bundle: Bytes,
    /// The key of the topology package.
    pub key: BlobKey,
    /// The user recorded as the topology's owner.
    pub owner: String,
    /// Directory of all daemons' files; the caller removes it.
    pub dir: PathBuf,
    /// The settings of every nimbus; its directory and address are set here.
    pub nimbus: nimbus::Options,
    /// The settings of every supervisor; its directory and ports are set here.
    pub supervisor: supervisor::Options,
    /// Launch settings of all workers.
    pub launch: LaunchDefaults,
    /// Keeps metrics for the time of the run, and says where the page is.
    pub ui: bool,
    /// Conditions that end the run.
    pub until: Until,
}

/// Result of a local run.
#[derive(Debug)]
pub struct Outcome {
    /// The topology at the end of the run.
    pub detail: TopologyDetail,
    /// The errors of the topology's tasks.
    pub errors: TopologyErrors,
    /// Reason of the end.
    pub end: End,
    /// Work that was not done at the end, a line each; tuples that a sink leaves unacked are among it.
    pub unfinished: Vec<String>,
}

/// Cause of a failure of local mode.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A nimbus could not start or failed.
    #[error("a nimbus of the local cluster failed")]
    Nimbus(#[from] nimbus::Error),
    /// A supervisor could not start or failed.
    #[error("a supervisor of the local cluster failed")]
    Supervisor(#[from] supervisor::Error),
    /// A request to the local cluster failed.
    #[error("a request to the local cluster failed")]
    Client(#[from] client::Error),
    /// The fixed znodes could not be created.
    #[error("cannot create the fixed znodes of the local cluster")]
    Layout(#[from] layout_version::Error),
    /// There are too few free ports.
    #[error("no free ports for workers on the loopback")]
    Ports(#[source] io::Error),
    /// Some tasks did not run in time.
    #[error("only {alive} of {total} tasks ran after {after:?}: {problem}")]
    NotRunning {
        /// Number of running tasks.
        alive: usize,
        /// Number of all tasks.
        total: usize,
        /// Time waited for them.
        after: Duration,
        /// Reason for which the others do not run.
        problem: String,
    },
}

/// Returns the number of tasks and of workers of a topology, for users.
pub fn extent(summary: &TopologySummary) -> String {
    format!("{} in {}", counted(summary.tasks_total, "task"), counted(summary.workers_total, "worker"))
}

/// Runs a topology in a cluster of its own until a condition of `options` ends it, passes messages
/// for the user to `progress`, and stops the cluster.
///
/// # Errors
/// See [`Error`]. The cluster is stopped in this case as well.
pub async fn run(
    options: Options,
    clock: Clock,
    stop: CancellationToken,
    progress: impl Fn(&str),
) -> Result<Outcome, Error> {
    let cluster = Cluster::start(&options, clock.clone()).await?;
    if let Some(nimbus) = cluster.nimbuses.first().filter(|_| options.ui) {
        progress(&format!("page: http://{}/ui/", nimbus.address()));
    }
    let outcome = cluster.run_topology(&options, &clock, stop, &progress).await;
    progress("stopping");
    cluster.stop().await;
    outcome
}

struct Cluster {
    client: Client,
    nimbuses: Vec<api::Running>,
    stop_nimbuses: CancellationToken,
    stop_supervisors: CancellationToken,
    supervisors: Tasks,
}

/// Metrics that stay in the run: the configuration may be that of a cluster.
fn without_exporters(metrics: MetricOptions) -> MetricOptions {
    let exporters = ExporterOptions { exporters: "none".to_owned(), ..metrics.exporters };
    MetricOptions { exporters, ..metrics }
}

impl Cluster {
    async fn start(options: &Options, clock: Clock) -> Result<Self, Error> {
        let server = MemoryTree::new();
        Store::new(server.connect()).ensure_layout().await?;
        let (stop_nimbuses, stop_supervisors) = (CancellationToken::new(), CancellationToken::new());
        let (mut nimbuses, mut seeds) = (Vec::new(), Vec::new());
        for i in 1..=N_NIMBUSES {
            let nimbus = nimbus::Options {
                local_dir: options.dir.join(format!("nimbus-{i}")),
                // The cluster is gone after the run, so history has no use without the page.
                metrics: options.nimbus.metrics.clone().filter(|_| options.ui).map(without_exporters),
                // The disk is the author's own business.
                upload_limits: nimbus::options::UploadLimits {
                    free_bytes_min: Some(0),
                    ..options.nimbus.upload_limits
                },
                ..options.nimbus.clone()
            };
            let nimbus = api::start(nimbus, server.connect(), clock.clone(), stop_nimbuses.clone()).await?;
            seeds.push(nimbus.address().to_string());
            nimbuses.push(nimbus);
        }
        let supervisors = Tasks::default();
        let clients = || {
            let access = (&Credentials::None, &ClientTls::off());
            supervisor::SupervisorClients::over_http(server.connect(), access)
        };
        let ingest = options.ui.then(clients).transpose()?.map(|clients| clients.ingest);
        let socket = options.dir.join("tree");
        let processes = Arc::new(InProcess::new(server.clone(), socket, ingest, clock.clone()));
        let ports = ports::free(N_SUPERVISORS * N_SLOTS).map_err(Error::Ports)?;
        for (i, ports) in ports.chunks(N_SLOTS).enumerate() {
            let supervisor = supervisor::Options {
                local_dir: options.dir.join(format!("supervisor-{}", i + 1)),
                ports: ports.to_vec(),
                ..options.supervisor.clone()
            };
            let running = supervisor::run(
                supervisor,
                server.connect(),
                Arc::clone(&processes) as _,
                clients()?,
                LaunchDefaults { on_stop: OnStop::StopWorkers, ..options.launch.clone() },
                clock.clone(),
                stop_supervisors.clone(),
            );
            supervisors.start_graceful("supervisor", OnExit::Ignore, async move {
                if let Err(error) = running.await {
                    warn!(%error, "a supervisor of the local cluster failed");
                }
            });
        }
        let client = Client::new(seeds, Timeouts::default())?;
        Ok(Self { client, nimbuses, stop_nimbuses, stop_supervisors, supervisors })
    }

    async fn run_topology(
        &self,
        options: &Options,
        clock: &Clock,
        stop: CancellationToken,
        progress: &impl Fn(&str),
    ) -> Result<Outcome, Error> {
        self.client.put_blob(&options.key, options.bundle.clone()).await?;
        let request = SubmitRequest {
            name: None,
            blob: options.key.clone(),
            owner: options.owner.clone(),
            status: InitialStatus::Active,
        };
        self.wait_for_supervisors(clock).await?;
        let accepted = self.client.submit(&request).await?;
        let watch::Ended { detail, end, unfinished } =
            watch::watch(&self.client, &accepted.topology_id, &options.until, clock, stop, progress).await?;
        let errors = self.client.errors(accepted.topology_id.as_str()).await?;
        self.remove(&accepted.topology_id, clock).await;
        Ok(Outcome { detail, errors, end, unfinished })
    }

    /// Waits until all supervisors are registered, so that a normal start reports no tasks without slots.
    /// After the limit the topology is submitted all the same, and its problem says what is missing.
    async fn wait_for_supervisors(&self, clock: &Clock) -> Result<(), Error> {
        let deadline = clock.monotonic().plus(REGISTRATION_TIMEOUT);
        while self.client.supervisors().await?.supervisors.len() < N_SUPERVISORS
            && clock.monotonic() < deadline
        {
            tokio::time::sleep(watch::POLL_PERIOD / 10).await;
        }
        Ok(())
    }

    /// Kills the topology and waits until it is removed. A failure is only logged: the whole
    /// cluster is stopped next.
    async fn remove(&self, id: &TopologyId, clock: &Clock) {
        if let Err(error) = self.client.kill(id.as_str(), &KillRequest { wait_secs: Some(0) }).await {
            warn!(%id, %error, "cannot kill the topology; stopping the local cluster all the same");
            return;
        }
        let deadline = clock.monotonic().plus(REMOVAL_TIMEOUT);
        while clock.monotonic() < deadline {
            match self.client.list().await {
                Ok(list) if list.topologies.iter().all(|topology| topology.id != *id) => return,
                Ok(_) => tokio::time::sleep(watch::POLL_PERIOD).await,
                Err(error) => {
                    warn!(%id, %error, "cannot list topologies; the topology may not be removed yet");
                    return;
                }
            }
        }
        warn!(%id, "the topology was not removed in time; stopping the local cluster");
    }

    /// Stops the supervisors with their workers, then the nimbuses.
    async fn stop(self) {
        self.stop_supervisors.cancel();
        if !self.supervisors.stop(STOP_TIMEOUT).await {
            warn!("a supervisor of the local cluster did not stop in time");
        }
        self.stop_nimbuses.cancel();
        for nimbus in self.nimbuses {
            if let Err(error) = nimbus.stopped().await {
                warn!(%error, "a nimbus of the local cluster failed while stopping");
            }
        }
    }
}

#[cfg(test)]
mod tests;
