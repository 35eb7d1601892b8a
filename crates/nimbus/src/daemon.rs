//! Assembly of a nimbus from its parts.

mod parts;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    Options, blobs,
    check_turn::CheckTurns,
    dry_run::diagnose,
    handle::{Handle, recovery::Recovery},
    leader::{LeaderContext, LeaderStatus},
    other_trees,
    role::{PublishedStatus, register},
    twin::{self, Twin},
};
use parts::{
    compare_with_leader, keep_dir, load_memory, open_blobs, registration, start_metrics, start_replicator,
    start_role, start_tree_copy,
};
use stormkeeper_access::{gate::Gate, locks::Problems};
use stormkeeper_api_types::{
    blobs::{BlobClient, BlobPeers, FetchError},
    http,
    leader_clock::{NimbusTime, NimbusTimeClient, ProcessName},
    proof_check::{ProofClient, ShowProof},
};
use stormkeeper_coordination::{
    cluster::{
        checked_tree::{CheckedTree, OnEmpty, TreeRefusal},
        layout_version,
        observer::Observer,
        presence::Presence,
        record,
        store::Store,
        tree_id::TreeMemory,
    },
    election::Candidate,
    tree::Tree,
};
use stormkeeper_metrics_service as metrics_service;
use stormkeeper_metrics_service::MetricsService;
use stormkeeper_model::{NimbusId, address::host_port, clock::Clock};
use stormkeeper_runtime::{
    fs::{FormerDir, LayoutFile, LockedDir, locked_dir},
    tasks::{OnExit, Tasks},
    watch,
};

/// Time that the tasks of a nimbus may take to end on a stop: a leader finishes the write in
/// progress and resigns.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Layout of the data directory of a nimbus. The metric store has its own in `metrics`.
///
/// The lock in the directory lets a restarted nimbus take over from its own dead session: no other
/// process can use its id.
const LAYOUT: LayoutFile = LayoutFile {
    kind: "nimbus",
    traces: &["nimbus-id", "blobs"],
    remedy: "set another storm.local.dir, or stop the nimbus and move the directory away: a new nimbus then fetches \
             blobs and metrics from the other nimbuses",
};

/// The files of a nimbus in `storm.local.dir` itself, where earlier builds kept them. No process uses
/// them while no nimbus runs, so all of them are moved, with checkpoints that were interrupted. The
/// files of the exporter `file` stay: other programs read them.
const FORMER_DIR: FormerDir = FormerDir {
    layout: LayoutFile { traces: &["nimbus-id"], ..LAYOUT },
    // Earlier builds do not have all of these, but an operator who goes back moves them up.
    moved: &[
        "nimbus-id",
        "blobs",
        "metrics",
        "metrics-sent-",
        "metrics-received-",
        "tree",
        "tree-copy.json",
        "directory",
    ],
    linked: &[],
};

/// Returns the data directory of a nimbus in `storm_local_dir`, after files of an earlier build were
/// moved there. Blocks.
///
/// # Errors
/// [`Error::Identity`] if they cannot be moved.
pub fn data_dir(storm_local_dir: &Path) -> Result<PathBuf, Error> {
    Ok(FORMER_DIR.settle(storm_local_dir)?)
}

/// Reason why a nimbus could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The local directory gives no identity.
    #[error("the local directory cannot be used")]
    Identity(#[from] locked_dir::Error),
    /// The blob directory cannot be used.
    #[error("the blob store cannot be opened")]
    Blobs(#[from] blobs::Error),
    /// The memory of the tree cannot be read.
    #[error("the local directory does not say to which tree this nimbus belongs")]
    Tree(#[source] io::Error),
    /// The client for blobs of other nimbuses cannot be set up.
    #[error("the client that fetches blobs from other nimbuses cannot be set up")]
    BlobClient(#[from] FetchError),
    /// The API address cannot be bound.
    #[error("the API cannot listen at {address} (`ui.host`, `ui.port`)")]
    Bind {
        /// The configured address.
        address: std::net::SocketAddr,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The client that asks the leader for its time cannot be set up.
    #[error("the client that asks the leader for its time cannot be set up")]
    TimeClient(#[from] http::Error),
    /// The clients of the metrics service cannot be set up.
    #[error("metrics cannot be set up")]
    Metrics(#[from] metrics_service::Error),
    /// The tree has another layout.
    #[error("the tree in ZooKeeper cannot be used")]
    Layout(#[from] layout_version::Refused),
    /// Another process has the id of this nimbus.
    #[error(transparent)]
    Twin(Twin),
    /// A required task has ended.
    #[error("a required task of the nimbus has ended unexpectedly; the log names the task")]
    Broken,
}

/// A running nimbus, without its HTTP API: the caller serves [`Nimbus::handle`] at the listener
/// that comes with it.
#[derive(Debug)]
pub struct Nimbus {
    handle: Handle,
    tasks: Tasks,
    stop: CancellationToken,
    refusal: TreeRefusal,
    twin: Arc<OnceLock<Twin>>,
    api_accepts: watch::Sender<bool>,
    _identity: Arc<LockedDir<NimbusId>>,
}

/// Connections of a nimbus to other nimbuses and to external stores of metrics. A nimbus makes none
/// itself, so a simulation replaces them.
#[derive(Debug, Clone)]
pub struct NimbusClients {
    /// Fetches blobs from other nimbuses.
    pub blobs: Arc<dyn BlobPeers>,
    /// Connections of the metrics service; without them this nimbus keeps no metrics.
    pub metrics: Option<metrics_service::MetricsClients>,
    /// Asks the leader for its time; without it the clocks are not compared.
    pub time: Option<Arc<dyn NimbusTime>>,
    /// Asks the leader whether it believes the proofs of this nimbus; without it that is not known.
    pub proof: Option<Arc<dyn ShowProof>>,
}

impl NimbusClients {
    /// Creates the HTTP clients and exporters that `options` need.
    ///
    /// # Errors
    /// [`Error::BlobClient`], [`Error::Metrics`].
    pub fn over_http(options: &Options, tree: Arc<dyn Tree>, clock: &Clock) -> Result<Self, Error> {
        let (store, credentials) = (Store::new(tree), options.credentials(clock));
        let tls = options.locks.tls().client();
        let of_metrics =
            |metrics| metrics_service::MetricsClients::over_http(metrics, &store, (&credentials, &tls));
        let metrics = options.metrics.as_ref().map(of_metrics).transpose()?;
        let time = Some(Arc::new(NimbusTimeClient::new(&tls)?) as Arc<dyn NimbusTime>);
        let proof = Some(Arc::new(ProofClient::new(credentials.clone(), &tls)?) as Arc<dyn ShowProof>);
        let blobs = Arc::new(BlobClient::new(&tls)?.with_credentials(credentials));
        Ok(Self { blobs, metrics, time, proof })
    }
}

/// Starts a nimbus on `tree` that runs until `stop`, and binds the address of its API.
///
/// It does not wait for ZooKeeper: without a connection it waits in the background.
///
/// # Errors
/// See [`Error`]; nothing is running then.
pub async fn start(
    options: Options,
    clients: NimbusClients,
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(Nimbus, TcpListener), Error> {
    let identity = LockedDir::acquire(&options.local_dir, &LAYOUT, &options.host)?;
    let bind = |source| Error::Bind { address: options.api, source };
    let listener = TcpListener::bind(options.api).await.map_err(bind)?;
    let api = host_port(&options.host, listener.local_addr().map_err(bind)?.port());
    Ok((assemble(options, identity, (api, clients), tree, clock, stop)?, listener))
}

/// Starts a nimbus without its HTTP API. Other nimbuses reach it at `api`, and it reaches them by
/// `clients`: for callers that simulate the network.
///
/// # Errors
/// See [`Error`]; nothing is running then.
#[cfg(any(test, feature = "test-support"))]
pub fn start_at(
    options: Options,
    (api, clients): (String, NimbusClients),
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Nimbus, Error> {
    let identity = LockedDir::acquire(&options.local_dir, &LAYOUT, &options.host)?;
    assemble(options, identity, (api, clients), tree, clock, stop)
}

fn assemble(
    options: Options,
    identity: LockedDir<NimbusId>,
    (api, clients): (String, NimbusClients),
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Nimbus, Error> {
    let me = identity.id.clone();
    let tasks = Tasks::new(stop.child_token());
    let (identity, writes) = keep_dir(identity, &clock, &tasks);
    let memory = load_memory(&options, &identity, clock.clone())?;
    let (unchecked, (tree, refusal)) = (Arc::clone(&tree), checked(tree, &memory, &tasks));
    let (store, presence) = (Store::new(Arc::clone(&tree)), Presence::start(Arc::clone(&tree), &tasks));
    let observer = Observer::start(store.tree(), clock.clone(), &tasks);
    let blobs = open_blobs(&options, me.clone(), (&store, &presence), (&clock, &writes))?;
    let (missing, disk_problem) =
        start_replicator(&blobs, &me, Arc::clone(&clients.blobs), &observer, &options, &tasks);

    let metrics = start_metrics((&me, &api), (&store, &observer, &clock), &options, clients.metrics, &tasks);
    let copy = start_tree_copy(&options, (&memory, &writes), &store, &observer, &clock, &tasks);
    let (role, role_seen) = watch::channel(record::Role::Follower);
    let registration = registration(&options, &api, clock.now());
    let process = ProcessName::new(&me, registration.start);
    let own = (&me, &registration, &*options.local_dir);
    let (twin, is_alone) = twin::search(clients.time.clone(), own, &store, &tasks);
    let elsewhere = other_trees::follow(clients.time.clone(), &options.seeds, &memory, &tasks);
    let access = keep_files_fresh(&options, &clock, &tasks);
    let of_others = (missing.clone(), access.certificate_expired.clone(), is_alone.clone());
    let published = PublishedStatus {
        role: role_seen,
        n_missing: missing,
        disk_problem,
        failed_writes: writes.watch(),
        comparison: compare_with_leader(clients.time, clients.proof, &me, (&observer, &clock), &tasks),
        held_users: options.held_users.clone(),
        access,
        metrics_error: metrics.as_ref().map(MetricsService::closed),
    };
    let registered = register(is_alone, (me.clone(), registration), published, presence);
    tasks.start("registration", OnExit::Ignore, registered);
    let options = Arc::new(options);
    let (commands, commands_seen) = watch::channel(None);
    let (status, status_seen) = watch::channel(LeaderStatus::default());
    let context = LeaderContext {
        options: Arc::clone(&options),
        observer: observer.clone(),
        store: store.clone(),
        tree: memory.clone(),
        clock: clock.clone(),
        commands,
        status,
        announcers: watch::Sender::new(BTreeSet::new()),
        blobs: blobs.clone(),
        metrics: metrics.clone(),
    };
    tasks.start("dry run", OnExit::StopOwner, diagnose(context.clone()));
    let candidate = Candidate::new(tree, me.clone(), api.clone(), memory.clone(), clock.clone());
    let api_accepts = start_role((&me, candidate, context), role, of_others, &tasks);
    info!(nimbus = %me, api, "started");
    let handle = Handle {
        gate: Arc::new(Gate::new(options.locks.clone(), api.clone(), clock.clone())),
        me,
        api,
        process,
        options,
        clock,
        observer,
        store,
        recovery: Recovery { unchecked, memory, copy, elsewhere },
        blobs,
        client: clients.blobs,
        status: status_seen,
        commands: commands_seen,
        metrics,
        check_turns: CheckTurns::new(),
        see_turn: Arc::default(),
    };
    Ok(Nimbus { handle, tasks, stop, refusal, twin, api_accepts, _identity: identity })
}

/// Starts to read the files again that say who may do what. Returns what is wrong with them.
fn keep_files_fresh(options: &Options, clock: &Clock, tasks: &Tasks) -> Problems {
    let problems = options.locks.keep_fresh(clock, tasks).with_quotas(options.quotas.as_ref(), tasks);
    problems.with_zookeeper(options.zookeeper_problems.clone())
}

/// Returns the tree for the tasks of a nimbus: none uses it before its layout and its identity are
/// checked.
fn checked(tree: Arc<dyn Tree>, memory: &TreeMemory, tasks: &Tasks) -> (Arc<dyn Tree>, TreeRefusal) {
    let (tree, refusal) = CheckedTree::start(tree, OnEmpty::Create, memory.clone(), tasks);
    (tree, refusal)
}

impl Nimbus {
    /// Handle for requests to this nimbus.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Its tasks. The HTTP server of its API must be one of them: it ends with them, and ends
    /// them if it fails.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Receives whether the API can accept connections. A leader that cannot resigns.
    pub(crate) fn api_accepts(&self) -> &watch::Sender<bool> {
        &self.api_accepts
    }

    /// Waits until a stop is requested or a required task ends, then ends the other tasks. A
    /// leader has resigned when this returns.
    ///
    /// # Errors
    /// [`Error::Layout`] if the tree has another layout, [`Error::Twin`], and [`Error::Broken`] if no
    /// stop was requested.
    pub async fn stopped(self) -> Result<(), Error> {
        self.tasks.cancelled().cancelled().await;
        let was_requested = self.stop.is_cancelled();
        self.tasks.stop(STOP_TIMEOUT).await;
        if let Some(metrics) = &self.handle.metrics {
            metrics.stop().await;
        }
        info!(nimbus = %self.handle.me, "stopped");
        if let Some(refused) = self.refusal.get() {
            return Err(refused.into());
        }
        if let Some(twin) = self.twin.get() {
            return Err(Error::Twin(twin.clone()));
        }
        if was_requested { Ok(()) } else { Err(Error::Broken) }
    }
}
