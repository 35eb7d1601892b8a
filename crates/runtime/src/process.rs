//! Runtime and signals of a process that is a daemon or a worker.

use std::io;

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    shutdown,
    tasks::{OnExit, Tasks},
};

/// Starts an async runtime with a thread for each processor.
///
/// # Errors
/// If the system has no threads or file descriptors left.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Cancels `stop` when the process receives a signal to stop.
pub fn stop_on_signal(tasks: &Tasks, stop: CancellationToken) {
    tasks.start("signals", OnExit::Ignore, async move {
        match shutdown::requested().await {
            Ok(signal) => info!(signal, "stopping on a signal"),
            Err(error) => error!(%error, "cannot listen for signals: stopping"),
        }
        stop.cancel();
    });
}
