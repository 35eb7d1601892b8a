//! `stormkeeper worker --spec FILE`: what a supervisor starts; not for people.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    cli::{
        daemon_runtime,
        error::{ErrorKind, Failure},
        log_filter,
    },
    clock::Clock,
    config::{Config, Environment},
    daemon::{shutdown, tasks::Tasks, telemetry},
    rpc::launch::LaunchSpec,
    tree::{Tree as _, zookeeper::ZooKeeperTree},
    worker::{self, log::RotatingFile},
};

/// Run a worker.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The launch spec that the supervisor wrote
    #[arg(long)]
    spec: PathBuf,
}

/// How long the tasks of the tree may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let spec = LaunchSpec::read(&args.spec).map_err(|error| Failure::internal(error.into()))?;
    let logs = spec.dir.join("logs");
    let file = RotatingFile::open(&logs, worker::log::MAX_BYTES, worker::log::N_FILES)
        .with_context(|| format!("opening the log in {}", logs.display()))
        .map_err(Failure::internal)?;
    telemetry::log_to(file, log_filter().as_deref());
    let config = Config::load(spec.config_file.as_deref(), &spec.overrides, &Environment::of_process());
    let (config, _warnings_were_the_supervisors) = config?;
    daemon_runtime()?.block_on(async {
        let tasks = Tasks::default();
        let stop = CancellationToken::new();
        let asked = stop.clone();
        tasks.start("signals", crate::daemon::tasks::Ending::Normal, async move {
            match shutdown::requested().await {
                Ok(signal) => info!(signal, "asked to stop"),
                Err(error) => error!(%error, "cannot listen for signals"),
            }
            asked.cancel();
        });
        let tree = ZooKeeperTree::connect(config.tree_options(), fastrand::Rng::new(), &tasks);
        let worker = spec.worker.clone();
        let ended = worker::run(spec.into(), Arc::clone(&tree) as _, Clock::new(), stop).await;
        tree.close().await;
        tasks.stop(PATIENCE).await;
        match ended {
            Ok(ended) => {
                info!(%worker, ?ended, "the worker ends");
                Ok(())
            }
            Err(failed) => {
                error!(%worker, error = %chain(&failed), "the worker failed");
                Err(Failure::new(ErrorKind::Internal, failed.into()))
            }
        }
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
