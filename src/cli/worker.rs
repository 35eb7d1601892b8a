//! `stormkeeper worker --spec FILE`: started by a supervisor, not by people.

use std::path::PathBuf;

use crate::{
    cli::{
        error::{ErrorKind, Failure},
        log_filter,
        worker_connections::connections,
        zookeeper_tls::{self, Process},
    },
    config::{Config, Environment},
};
use stormkeeper_topology_package::launch::LaunchSpec;
use stormkeeper_worker::component::Components;
use stormkeeper_worker_process as worker_process;
use stormkeeper_worker_process::Error;

/// Run a worker.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Launch spec written by the supervisor
    #[arg(long)]
    spec: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let spec = LaunchSpec::read(&args.spec).map_err(|error| Failure::internal(error.into()))?;
    worker_process::prepare(&spec, log_filter().as_deref()).map_err(failure)?;
    let connections = match spec.connections.clone() {
        Some(connections) => connections,
        // Of an older supervisor.
        None => {
            let loaded =
                Config::load(spec.config_file.as_deref(), &spec.overrides, &Environment::of_process());
            let (config, _warnings_were_the_supervisors) = loaded?;
            connections(&config, zookeeper_tls::paths(&config, Process::Worker)?.as_ref())
        }
    };
    worker_process::run(spec, connections, Components::default()).map_err(failure)
}

fn failure(error: Error) -> Failure {
    let kind = match &error {
        Error::File(_) | Error::Tls(_) => ErrorKind::Config,
        _ => ErrorKind::Internal,
    };
    Failure::new(kind, error.into())
}
