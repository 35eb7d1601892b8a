//! `stormkeeper nimbus`

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::cli::{
    Global, daemon_runtime,
    error::{ErrorKind, Failure},
    exposure, local_dir, log_filter,
    zookeeper_tls::{self, Process},
    zookeeper_users::{self, DaemonKind},
};
use stormkeeper_access::{file::WatchedFile, locks::Locks, quota::Quotas};
use stormkeeper_coordination::tree::{self, Tree as _, options::OnMissingRoot, zookeeper::ZooKeeperTree};
use stormkeeper_model::clock::Clock;
use stormkeeper_nimbus as nimbus;
use stormkeeper_nimbus::api;
use stormkeeper_runtime::{
    blocking,
    fs::modes,
    process,
    tasks::{OnExit, Tasks},
    telemetry,
};
use stormkeeper_zookeeper_session::tls::TlsFiles;

/// Longest wait for the last tasks to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Run a nimbus replica in the foreground.
#[derive(Debug, clap::Args)]
#[command(after_help = "SIGTERM stops it; a leader resigns at once. Logs go to standard error; \
STORMKEEPER_LOG filters them (like RUST_LOG).\n\
Example: stormkeeper nimbus --config /etc/stormkeeper/storm.yaml")]
pub(super) struct Args {
    /// Listen where other hosts reach it although nothing is locked, as with storm.insecure: true
    #[arg(long)]
    insecure: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    telemetry::log_to_stderr(log_filter().as_deref());
    let config = global.load()?;
    let locks = Locks::of_nimbus(&config.access_settings());
    let locks = locks.map_err(|error| Failure::new(ErrorKind::Config, error.into()))?;
    let exposed = exposure::said(config.exposure_of_nimbus(args.insecure))?;
    let quotas = config.quotas_file().map(|path| WatchedFile::open(&path, Quotas::read)).transpose();
    let quotas = quotas.map_err(|error| Failure::new(ErrorKind::Config, error.into()))?;
    let users = zookeeper_users::of_daemon(&config, DaemonKind::Nimbus)?;
    let access = users.as_ref().zip(config.zookeeper_users_file());
    let access = access.map(|(users, path)| zookeeper_users::access(&users.get(), &path));
    let tls = zookeeper_tls::open(&config, Process::Daemon)?;
    modes::restrict_new_files();
    local_dir::warn_if_others_may_change(&config.local_dir());
    let local_dir = nimbus::daemon::data_dir(&config.local_dir()).map_err(failure)?;
    daemon_runtime()?.block_on(async {
        let tasks = Tasks::default();
        let stop = CancellationToken::new();
        let dir = local_dir.clone();
        tasks.start("file modes", OnExit::Ignore, async move {
            blocking::run(move || modes::restrict(&dir)).await
        });
        process::stop_on_signal(&tasks, stop.clone());
        let tree_options = tree::options::Options {
            access,
            tls: tls.as_ref().map(TlsFiles::tls),
            ..config.tree_options(OnMissingRoot::Create)
        };
        let tree = ZooKeeperTree::connect(tree_options, fastrand::Rng::new(), &tasks);
        let mut options = config.nimbus_options();
        let fresh = zookeeper_users::keep_fresh_of_daemon(&config, users, &tree, &tasks);
        options.zookeeper_problems = fresh.problems(tls, &tree, &tasks);
        options.held_users = fresh.held;
        options.local_dir = local_dir;
        (options.locks, options.exposed, options.quotas) = (locks, exposed, quotas);
        let ended = api::run(options, Arc::clone(&tree) as _, Clock::new(), stop).await;
        tree.close().await;
        tasks.stop(SHUTDOWN_TIMEOUT).await;
        ended.map_err(failure)
    })
}

/// A local directory that cannot be used is a mistake that the operator corrects, as one in `storm.yaml`.
fn failure(error: nimbus::daemon::Error) -> Failure {
    use nimbus::daemon::Error as E;
    let kind = match &error {
        E::Identity(_) | E::Tree(_) | E::Blobs(_) => ErrorKind::Config,
        _ => ErrorKind::Internal,
    };
    Failure::new(kind, error.into())
}
