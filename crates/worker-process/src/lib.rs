//! A process that is a worker: its log, its connections, its signals and its end.
//!
//! `stormkeeper worker` is one, with no components of its own, and so is the program of an author of Rust
//! components. Both are started by a supervisor with a [`LaunchSpec`].

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use stormkeeper_access::{
    credentials::{Credentials, Signer},
    file::FileError,
    locks,
    tls::client::ClientTls,
};
use stormkeeper_coordination::{
    cluster::{layout, store::Store, users::Users},
    tree::{self, Tree as _, options::OnMissingRoot, shared::SharedTree, zookeeper::ZooKeeperTree},
};
use stormkeeper_metric_shipping::ingest_client::{IngestClient, IngestError};
use stormkeeper_model::{clock::Clock, platform::Formats};
use stormkeeper_runtime::{
    descendants, error_chain,
    fs::modes,
    net::ListenOn,
    process,
    tasks::{OnExit, Tasks},
    telemetry,
};
use stormkeeper_topology_package::launch::{
    self, Connections, LaunchSpec, Listen, USERS_FILE, ZOOKEEPER_IDENTITY_FILE,
};
use stormkeeper_worker::{self as worker, Ended, component::Components, log::RotatingFile};
use stormkeeper_zookeeper_session::{
    tls::{IdentityPaths, TlsError, TlsFiles, TlsPaths},
    users,
};

/// Longest wait for the tasks of the ZooKeeper tree to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Log filter of a local run without another one: what components log, and problems.
const LOCAL_FILTER: &str = "warn";

/// Formats that workers of this build read and write.
pub const FORMATS: Formats = Formats { launch: launch::FORMAT, tree: layout::LAYOUT_VERSION };

/// Failure of a worker process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log cannot be written.
    #[error("cannot open the log in {}", dir.display())]
    Log {
        /// Directory of the log.
        dir: PathBuf,
        /// I/O error.
        source: std::io::Error,
    },
    /// The async runtime cannot be started.
    #[error("cannot start the async runtime")]
    Runtime(#[source] std::io::Error),
    /// The tree of a local run cannot be reached.
    #[error("cannot reach the tree of the local run at {}", socket.display())]
    SharedTree {
        /// Its socket.
        socket: PathBuf,
        /// I/O error.
        source: std::io::Error,
    },
    /// The root of the tree is no path.
    #[error("the launch spec has no valid root of the tree: {0}")]
    Root(String),
    /// A file of the supervisor cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Files for TLS to ZooKeeper cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client that sends metrics cannot be created.
    #[error(transparent)]
    Metrics(#[from] IngestError),
    /// The worker failed.
    #[error(transparent)]
    Worker(#[from] worker::Error),
}

/// Prepares this process to be the worker of `spec`: what it logs goes to its own log from now on, through
/// `filter`; in a local run, to the terminal. Blocks.
///
/// # Errors
/// [`Error::Log`].
pub fn prepare(spec: &LaunchSpec, filter: Option<&str>) -> Result<(), Error> {
    if spec.connections.as_ref().is_some_and(|connections| connections.shared_tree.is_some()) {
        telemetry::log_to_stderr(Some(filter.unwrap_or(LOCAL_FILTER)));
        return Ok(());
    }
    modes::restrict_new_files();
    let dir = spec.dir.join("logs");
    let file = RotatingFile::open(&dir, worker::log::MAX_BYTES, worker::log::N_FILES);
    telemetry::log_to(file.map_err(|source| Error::Log { dir, source })?, filter);
    Ok(())
}

/// Runs the worker of `spec` with these `components` until its end. Blocks.
///
/// # Errors
/// [`Error`]; the log has it as well.
pub fn run(spec: LaunchSpec, connections: Connections, components: Components) -> Result<(), Error> {
    process::runtime().map_err(Error::Runtime)?.block_on(async {
        let tasks = Tasks::default();
        let stop = CancellationToken::new();
        process::stop_on_signal(&tasks, stop.clone());
        descendants::keep_orphans(&tasks);
        let worker = spec.worker.clone();
        let options = worker::Options {
            listen_on: listen_on(connections.listen),
            unfinished_bytes: connections.unfinished_frame_bytes,
            components,
            ..spec.clone().into()
        };
        let ended = match connections.shared_tree.clone() {
            Some(socket) => run_locally(options, (socket, connections.sends_metrics), (stop, &tasks)).await,
            None => run_in_cluster(options, &spec, &connections, (stop, &tasks)).await,
        };
        descendants::end_all().await;
        tasks.stop(SHUTDOWN_TIMEOUT).await;
        match ended {
            Ok(ended) => {
                info!(%worker, ?ended, "worker exits");
                Ok(())
            }
            Err(failed) => {
                error!(%worker, error = %error_chain(&failed), "the worker failed");
                Err(failed)
            }
        }
    })
}

async fn run_in_cluster(
    options: worker::Options,
    spec: &LaunchSpec,
    connections: &Connections,
    (stop, tasks): (CancellationToken, &Tasks),
) -> Result<Ended, Error> {
    let users = users::of_worker(&spec.files_dir().join(USERS_FILE))?;
    let tls = tls_files(connections, spec)?;
    let access = |users: &Option<Users>| users.as_ref().map(users::access_of_worker);
    let tree_options = tree::options::Options {
        access: access(&users.get()),
        tls: tls.as_ref().map(TlsFiles::tls),
        ..tree_options(connections)?
    };
    let tree = ZooKeeperTree::connect(tree_options, fastrand::Rng::new(), tasks);
    users::keep_fresh(users, Arc::clone(&tree), tasks, access, |_users| {});
    if let Some(files) = tls {
        // The worker has no other reader of its problems than its log.
        drop(files.keep_fresh(Arc::clone(&tree), tasks));
    }
    let clock = Clock::new();
    let keys = locks::worker_keys(spec.files_dir(), tasks)?;
    let signer = Signer::worker(spec.topology.clone(), keys.clone(), clock.clone());
    let tls = locks::worker_tls(spec.files_dir(), tasks)?;
    let ingest = IngestClient::over(&ClientTls::of_worker(tls.clone()), Store::new(Arc::clone(&tree) as _))?;
    let ingest = Some(Arc::new(ingest.with_credentials(Credentials::Signer(signer))) as _);
    let options = worker::Options { keys: Some(keys), tls: Some(tls), ..options };
    let ended = worker::run(options, Arc::clone(&tree) as _, ingest, clock, stop).await;
    tree.close().await;
    Ok(ended?)
}

/// Runs a worker on the tree of a local run. Without metrics, heartbeats carry the counts.
async fn run_locally(
    options: worker::Options,
    (socket, sends_metrics): (PathBuf, bool),
    (stop, tasks): (CancellationToken, &Tasks),
) -> Result<Ended, Error> {
    let connected = SharedTree::connect(&socket, tasks).await;
    let tree = connected.map_err(|source| Error::SharedTree { socket, source })?;
    let (lost, stop_if_lost) = (Arc::clone(&tree), stop.clone());
    tasks.start("end of the local run", OnExit::Ignore, async move {
        lost.lost().await;
        stop_if_lost.cancel();
    });
    let ingest =
        sends_metrics.then(|| IngestClient::over(&ClientTls::off(), Store::new(Arc::clone(&tree) as _)));
    let ingest = ingest.transpose()?.map(|ingest| Arc::new(ingest) as _);
    let ended = worker::run(options, Arc::clone(&tree) as _, ingest, Clock::new(), stop).await;
    tree.close().await;
    Ok(ended?)
}

fn tree_options(connections: &Connections) -> Result<tree::options::Options, Error> {
    let zookeeper = &connections.zookeeper;
    let root = zookeeper.root.parse().map_err(|error| Error::Root(format!("{}: {error}", zookeeper.root)))?;
    Ok(tree::options::Options {
        servers: zookeeper.servers.clone(),
        root,
        on_missing_root: OnMissingRoot::Wait,
        cluster_znodes: layout::CLUSTER_ZNODES,
        access: None,
        tls: None,
        session_timeout: zookeeper.session_timeout,
        request_timeout: zookeeper.request_timeout,
    })
}

fn tls_files(connections: &Connections, spec: &LaunchSpec) -> Result<Option<TlsFiles>, Error> {
    let zookeeper = &connections.zookeeper;
    let Some(authorities) = zookeeper.authorities.clone() else { return Ok(None) };
    let identity = zookeeper.identity.clone();
    let identity = identity.map(|(certificates, key)| IdentityPaths { certificates, key });
    let paths = TlsPaths { authorities, identity };
    // The supervisor has made a copy for a worker of another user.
    let paths = paths.with_copied_identity(&spec.files_dir().join(ZOOKEEPER_IDENTITY_FILE));
    Ok(Some(TlsFiles::open(paths)?))
}

fn listen_on(listen: Listen) -> ListenOn {
    match listen {
        Listen::All => ListenOn::All,
        Listen::Address(address) => ListenOn::Address(address),
        Listen::Preferred(address) => ListenOn::Preferred(address),
    }
}
