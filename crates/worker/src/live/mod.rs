//! Live numbers: a sample of the counts of this worker each second, for those who read its socket.
//!
//! The socket is in the directory of the worker, and serves the user of the worker and root. Nothing is
//! read or written while nobody is connected. A worker that cannot open the socket runs without.
//! `docs/design/live.md` has the design.

mod sampler;
mod server;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use tracing::warn;

pub(crate) use sampler::{LiveTask, Sampler};
use server::Server;
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};

/// Serves samples in the directory `dir`.
pub(crate) fn start(dir: PathBuf, sampler: Sampler, tasks: &Tasks) {
    let connections = tasks.child();
    tasks.start("live numbers", OnExit::Ignore, async move {
        let bound = blocking::run(move || server::bind(&dir)).await;
        match bound.and_then(Server::new) {
            Ok(server) => server.run(sampler, &connections).await,
            Err(error) => warn!(%error, "no live numbers: cannot open the socket for their readers"),
        }
    });
}
