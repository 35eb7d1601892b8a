//! `stormkeeper activate NAME` and `stormkeeper deactivate NAME`

use crate::cli::{Global, client_runtime, error::Failure, output};
use stormkeeper_api_types::message::Accepted;

/// Start or stop the spouts of a topology.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name or id of the topology
    topology: String,
}

pub(super) fn activate(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    report(global, &client_runtime()?.block_on(client.activate(&args.topology))?)
}

pub(super) fn deactivate(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    report(global, &client_runtime()?.block_on(client.deactivate(&args.topology))?)
}

/// Prints the result of an operation.
pub(super) fn report(global: &Global, accepted: &Accepted) -> Result<(), Failure> {
    if global.json {
        return output::print_json(accepted);
    }
    let when = accepted
        .pending
        .as_ref()
        .map_or_else(String::new, |pending| format!(", due in {}s", pending.remaining_ms.div_ceil(1000)));
    output::print(&format!("{} ({}) is {}{when}\n", accepted.name, accepted.topology_id, accepted.status))
}
