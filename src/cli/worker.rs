//! `stormkeeper worker --spec FILE`: started by a supervisor, not by people.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    cli::{
        daemon_runtime, end_descendants,
        error::{ErrorKind, Failure},
        keep_orphans, log_filter, stop_on_signal,
        zookeeper_tls::TlsFiles,
        zookeeper_users,
    },
    config::{Config, Environment},
};
use stormkeeper_access::{
    credentials::{Credentials, Signer},
    locks,
    tls::client::ClientTls,
};
use stormkeeper_coordination::{
    cluster::{store::Store, users::Users},
    tree::{self, Tree as _, options::OnMissingRoot, zookeeper::ZooKeeperTree},
};
use stormkeeper_metric_shipping::ingest_client::IngestClient;
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::{error_chain, fs::modes, tasks::Tasks, telemetry};
use stormkeeper_supervisor::USERS_FILE;
use stormkeeper_topology_package::launch::LaunchSpec;
use stormkeeper_worker as worker;
use stormkeeper_worker::log::RotatingFile;

/// Run a worker.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Launch spec written by the supervisor
    #[arg(long)]
    spec: PathBuf,
}

/// Longest wait for the tasks of the ZooKeeper tree to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let spec = LaunchSpec::read(&args.spec).map_err(|error| Failure::internal(error.into()))?;
    modes::restrict_new_files();
    let logs = spec.dir.join("logs");
    let file = RotatingFile::open(&logs, worker::log::MAX_BYTES, worker::log::N_FILES)
        .with_context(|| format!("opening the log in {}", logs.display()))
        .map_err(Failure::internal)?;
    telemetry::log_to(file, log_filter().as_deref());
    let config = Config::load(spec.config_file.as_deref(), &spec.overrides, &Environment::of_process());
    let (config, _warnings_were_the_supervisors) = config?;
    let users = zookeeper_users::of_worker(&spec.files_dir().join(USERS_FILE))?;
    let access = |users: &Option<Users>| users.as_ref().map(zookeeper_users::access_of_worker);
    let tls = TlsFiles::open_in_worker(&config, spec.files_dir())?;
    daemon_runtime()?.block_on(async {
        let tasks = Tasks::default();
        let stop = CancellationToken::new();
        stop_on_signal(&tasks, stop.clone());
        keep_orphans(&tasks);
        let tree_options = tree::options::Options {
            access: access(&users.get()),
            tls: tls.as_ref().map(TlsFiles::tls),
            ..config.tree_options(OnMissingRoot::Wait)
        };
        let tree = ZooKeeperTree::connect(tree_options, fastrand::Rng::new(), &tasks);
        zookeeper_users::keep_fresh(users, Arc::clone(&tree), &tasks, access, |_users| {});
        if let Some(files) = tls {
            // The worker has no other reader of its problems than its log.
            drop(files.keep_fresh(Arc::clone(&tree), &tasks));
        }
        let worker = spec.worker.clone();
        let clock = Clock::new();
        let keys =
            locks::worker_keys(spec.files_dir(), &tasks).map_err(|error| Failure::internal(error.into()))?;
        let signer = Signer::worker(spec.topology.clone(), keys.clone(), clock.clone());
        let tls =
            locks::worker_tls(spec.files_dir(), &tasks).map_err(|error| Failure::internal(error.into()))?;
        let ingest =
            IngestClient::over(&ClientTls::of_worker(tls.clone()), Store::new(Arc::clone(&tree) as _))
                .map_err(|error| Failure::internal(error.into()))?;
        let ingest = Some(Arc::new(ingest.with_credentials(Credentials::Signer(signer))) as _);
        let options = worker::Options {
            listen_on: config.workers_listen_on(),
            unfinished_bytes: config.unfinished_frame_bytes(),
            keys: Some(keys),
            tls: Some(tls),
            ..spec.into()
        };
        let ended = worker::run(options, Arc::clone(&tree) as _, ingest, clock, stop).await;
        tree.close().await;
        end_descendants().await;
        tasks.stop(SHUTDOWN_TIMEOUT).await;
        match ended {
            Ok(ended) => {
                info!(%worker, ?ended, "worker exits");
                Ok(())
            }
            Err(failed) => {
                error!(%worker, error = %error_chain(&failed), "the worker failed");
                Err(Failure::new(ErrorKind::Internal, failed.into()))
            }
        }
    })
}
