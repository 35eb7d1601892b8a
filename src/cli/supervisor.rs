//! `stormkeeper supervisor`

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::cli::{
    Global, daemon_runtime,
    error::{ErrorKind, Failure},
    exposure, launch_defaults, local_dir, log_filter,
    worker_connections::connections,
    zookeeper_tls::{self, Process},
    zookeeper_users::{self, DaemonKind},
};
use stormkeeper_access::locks::Locks;
use stormkeeper_coordination::tree::{self, Tree as _, options::OnMissingRoot, zookeeper::ZooKeeperTree};
use stormkeeper_model::{clock::Clock, platform::Platform};
use stormkeeper_runtime::{
    blocking,
    fs::modes,
    inherited, process,
    tasks::{OnExit, Tasks},
    telemetry,
};
use stormkeeper_supervisor as supervisor;
use stormkeeper_supervisor::{
    IdentityFiles, OnStop,
    process::{environment::WorkerEnvironment, os::OsProcesses},
    run_as::RunAs,
};

use stormkeeper_topology_package::executable;
use stormkeeper_zookeeper_session::tls::{IdentityPaths, TlsFiles};

/// Longest wait for the last tasks to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Run the supervisor of this host in the foreground.
#[derive(Debug, clap::Args)]
#[command(after_help = "SIGTERM stops it and leaves its workers running; the next supervisor adopts them. \
Logs go to standard error; STORMKEEPER_LOG filters them (like RUST_LOG).\n\
Example: stormkeeper supervisor --config /etc/stormkeeper/storm.yaml")]
pub(super) struct Args {
    /// Stop the workers when the supervisor stops, as needed in a container, which ends with the supervisor
    #[arg(long)]
    stop_workers: bool,
    /// Listen where other hosts reach it although nothing is locked, as with storm.insecure: true
    #[arg(long)]
    insecure: bool,
}

/// Checks that workers of other users can run, and warns about what they would get from this process.
fn check_run_as(run_as: Option<RunAs>, program: &Path) -> Result<(), Failure> {
    let Some(run_as) = run_as else { return Ok(()) };
    run_as.check_program(program).map_err(|error| Failure::new(ErrorKind::Config, error.into()))?;
    for (descriptor, target) in inherited::descriptors() {
        warn!(
            descriptor,
            target,
            "workers of other users inherit this open file: start the supervisor without it, as systemd does"
        );
    }
    Ok(())
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    telemetry::log_to_stderr(log_filter().as_deref());
    let config = global.load()?;
    let program = std::env::current_exe().context("finding the program itself").map_err(Failure::internal)?;
    let locks = Locks::of_supervisor(&config.access_settings());
    let locks = locks.map_err(|error| Failure::new(ErrorKind::Config, error.into()))?;
    let exposed = exposure::said(config.exposure_of_supervisor(args.insecure))?;
    let users = zookeeper_users::of_daemon(&config, DaemonKind::Supervisor)?;
    let access = users.as_ref().zip(config.zookeeper_users_file());
    let access = access.map(|(users, path)| zookeeper_users::access(&users.get(), &path));
    let tls = zookeeper_tls::open(&config, Process::Daemon)?;
    // A mistake in what workers will read shows now and not at their start.
    let of_workers = zookeeper_tls::open(&config, Process::Worker)?;
    let run_as = config.run_as();
    check_run_as(run_as, &program)?;
    modes::restrict_new_files();
    local_dir::warn_if_others_may_change(&config.local_dir());
    let local_dir = supervisor::data_dir(&config.local_dir()).map_err(failure)?;
    daemon_runtime()?.block_on(async {
        let tasks = Tasks::default();
        let stop = CancellationToken::new();
        let dir = local_dir.clone();
        // With workers of other users, they must reach their files.
        if run_as.is_none() {
            tasks.start("file modes", OnExit::Ignore, async move {
                blocking::run(move || modes::restrict(&dir)).await
            });
        }
        process::stop_on_signal(&tasks, stop.clone());
        let tree_options = tree::options::Options {
            access,
            tls: tls.as_ref().map(TlsFiles::tls),
            ..config.tree_options(OnMissingRoot::Wait)
        };
        let tree = ZooKeeperTree::connect(tree_options, fastrand::Rng::new(), &tasks);
        let mut options = config.supervisor_options();
        (options.local_dir, options.exposed) = (local_dir, exposed);
        options.platform = platform().await;
        let environment = WorkerEnvironment::select(std::env::vars_os(), &config.allowed_variables());
        let mut launch = launch_defaults(&config);
        launch.withheld_variables = environment.withheld().to_vec();
        let processes = OsProcesses::new(program, config.local_dir(), environment);
        let processes = Arc::new(processes.listening_on(config.workers_listen_on()));
        let looked_after = Arc::clone(&processes);
        tasks.start("processes", OnExit::Ignore, async move { looked_after.look_after().await });
        if args.stop_workers {
            launch.on_stop = OnStop::StopWorkers;
        }
        let clock = Clock::new();
        let credentials = locks.credentials(&format!("supervisor on {}", options.host), &clock);
        let client_tls = locks.tls().client();
        launch.locks = locks;
        launch.run_as = run_as;
        let identity = of_workers.as_ref().and_then(TlsFiles::identity).cloned();
        launch.zookeeper_identity =
            identity.map(|IdentityPaths { certificates, key }| IdentityFiles { certificates, key });
        launch.connections = Some(connections(&config, of_workers.as_ref().map(TlsFiles::paths)));
        launch.zookeeper_users = users.clone();
        let fresh = zookeeper_users::keep_fresh_of_daemon(&config, users, &tree, &tasks);
        options.zookeeper_problems = fresh.problems(tls, &tree, &tasks);
        options.held_users = fresh.held;
        let clients =
            supervisor::SupervisorClients::over_http(Arc::clone(&tree) as _, (&credentials, &client_tls))
                .map_err(|error| Failure::internal(error.into()))?;
        let ended =
            supervisor::run(options, Arc::clone(&tree) as _, processes, clients, launch, clock, stop).await;
        tree.close().await;
        tasks.stop(SHUTDOWN_TIMEOUT).await;
        ended.map_err(failure)
    })
}

/// Returns what worker programs of topologies can expect of this host.
async fn platform() -> Option<Platform> {
    match blocking::run(executable::of_this_host).await {
        Ok(platform) => Some(platform),
        Err(error) => {
            warn!(%error, "cannot find out the C library of this host: topologies with worker programs are refused");
            None
        }
    }
}

/// A local directory that cannot be used is a mistake that the operator corrects, as one in `storm.yaml`.
fn failure(error: supervisor::Error) -> Failure {
    use supervisor::Error as E;
    let kind = match &error {
        E::Identity(_) | E::LocalDir { .. } | E::RunAs(_) => ErrorKind::Config,
        _ => ErrorKind::Internal,
    };
    Failure::new(kind, error.into())
}
