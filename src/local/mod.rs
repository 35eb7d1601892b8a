//! A whole cluster in one process, on the memory tree: two nimbuses, two supervisors, and
//! workers that run as tasks of this process with real shell components.
//!
//! Nothing is left out: the topology is put and submitted over HTTP on the loopback, the
//! blob is fetched and unpacked, tuples between workers travel by TCP. What is other than on
//! a cluster: the tree is in memory, the beats come twice a second, and a worker cannot be
//! killed with a signal.

mod ports;
mod processes;
mod watch;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use watch::{End, Until};

use crate::{
    api,
    clock::Clock,
    cluster::store::{self, Store},
    daemon::tasks::{Ending, Tasks},
    model::{BlobKey, TopologyId},
    nimbus,
    rpc::{
        client::{self, Client, Timeouts},
        message::{InitialStatus, KillRequest, SubmitRequest, TopologyDetail, TopologyErrors},
    },
    supervisor::{self, LaunchDefaults, OnStop},
    tree::memory::MemoryTree,
};
use processes::InProcess;

/// How many nimbuses and supervisors the cluster has: enough that a topology spreads over
/// hosts and a leader is elected among others.
const N_NIMBUSES: usize = 2;
const N_SUPERVISORS: usize = 2;

/// The slots of each supervisor.
const N_SLOTS: usize = 4;

/// How often beats are refreshed: what is printed is at most this old.
pub const BEAT_PERIOD: Duration = Duration::from_millis(250);

/// How long a daemon may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long the removal of the topology may take at the end.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// The blob of the topology.
    pub bundle: Bytes,
    /// Its key.
    pub key: BlobKey,
    /// Who runs it.
    pub owner: String,
    /// Where the daemons keep their files; the caller's to remove.
    pub dir: PathBuf,
    /// The settings of every nimbus; its directory and address are set here.
    pub nimbus: nimbus::Options,
    /// The settings of every supervisor; its directory and ports are set here.
    pub supervisor: supervisor::Options,
    /// What workers are launched with.
    pub launch: LaunchDefaults,
    /// When to end.
    pub until: Until,
}

/// What ran.
#[derive(Debug)]
pub struct Outcome {
    /// The topology as it was last seen.
    pub detail: TopologyDetail,
    /// The errors of its tasks.
    pub errors: TopologyErrors,
    /// Why it ended.
    pub end: End,
}

/// Why local mode failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A nimbus could not start or broke.
    #[error("a nimbus of the local cluster failed")]
    Nimbus(#[from] nimbus::Error),
    /// A supervisor could not start or broke.
    #[error("a supervisor of the local cluster failed")]
    Supervisor(#[from] supervisor::Error),
    /// The cluster refused.
    #[error("the local cluster refused")]
    Client(#[from] client::Error),
    /// The tree could not be laid out.
    #[error("the local tree could not be laid out")]
    Layout(#[from] store::Error),
    /// No ports.
    #[error("no free ports for workers on the loopback")]
    Ports(#[source] io::Error),
    /// Not every task ran in time.
    #[error("only {alive} of {total} tasks ran after {after:?}: {trouble}")]
    NotRunning {
        /// How many did.
        alive: usize,
        /// How many should.
        total: usize,
        /// After how long.
        after: Duration,
        /// What kept the rest.
        trouble: String,
    },
}

/// Runs a topology in a cluster of its own until it is time to end, tells `progress` what is
/// going on, and stops everything again.
///
/// # Errors
/// See [`Error`]. The cluster is stopped all the same.
pub async fn run(
    options: Options,
    clock: Clock,
    stop: CancellationToken,
    progress: impl Fn(&str),
) -> Result<Outcome, Error> {
    let cluster = Cluster::start(&options, clock.clone()).await?;
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

impl Cluster {
    async fn start(options: &Options, clock: Clock) -> Result<Self, Error> {
        let server = MemoryTree::new();
        Store::new(server.connect()).ensure_layout().await?;
        let (stop_nimbuses, stop_supervisors) = (CancellationToken::new(), CancellationToken::new());
        let (mut nimbuses, mut seeds) = (Vec::new(), Vec::new());
        for i in 1..=N_NIMBUSES {
            let nimbus = nimbus::Options {
                local_dir: options.dir.join(format!("nimbus-{i}")),
                // A cluster that is gone in a moment has no history.
                metrics: None,
                ..options.nimbus.clone()
            };
            let nimbus = api::start(nimbus, server.connect(), clock.clone(), stop_nimbuses.clone()).await?;
            seeds.push(nimbus.address().to_string());
            nimbuses.push(nimbus);
        }
        let supervisors = Tasks::default();
        let processes = Arc::new(InProcess::new(server.clone(), clock.clone()));
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
                LaunchDefaults { on_stop: OnStop::StopWorkers, ..options.launch.clone() },
                clock.clone(),
                stop_supervisors.clone(),
            );
            supervisors.start_graceful("supervisor", Ending::Normal, async move {
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
        let accepted = self.client.submit(&request).await?;
        let (detail, end) =
            watch::watch(&self.client, &accepted.topology_id, &options.until, clock, stop, progress).await?;
        let errors = self.client.errors(accepted.topology_id.as_str()).await?;
        self.remove(&accepted.topology_id, clock).await;
        Ok(Outcome { detail, errors, end })
    }

    /// Kills the topology and waits until nothing of it is left. A failure costs nothing: the
    /// whole cluster goes next.
    async fn remove(&self, id: &TopologyId, clock: &Clock) {
        if let Err(error) = self.client.kill(id.as_str(), &KillRequest { wait_secs: Some(0) }).await {
            warn!(%error, "the topology was not removed");
            return;
        }
        let deadline = clock.monotonic().plus(REMOVAL_PATIENCE);
        while clock.monotonic() < deadline {
            match self.client.list().await {
                Ok(list) if list.topologies.iter().all(|topology| topology.id != *id) => return,
                Ok(_) => tokio::time::sleep(watch::POLL_PERIOD).await,
                Err(error) => {
                    warn!(%error, "the topology may not be removed");
                    return;
                }
            }
        }
        warn!(%id, "the topology is still being removed");
    }

    /// Supervisors first, with their workers; then nimbuses.
    async fn stop(self) {
        self.stop_supervisors.cancel();
        if !self.supervisors.stop(STOP_PATIENCE).await {
            warn!("a supervisor took too long to stop");
        }
        self.stop_nimbuses.cancel();
        for nimbus in self.nimbuses {
            if let Err(error) = nimbus.stopped().await {
                warn!(%error, "a nimbus did not stop well");
            }
        }
    }
}

#[cfg(test)]
mod tests;
