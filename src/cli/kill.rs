//! `stormkeeper kill NAME`

use std::time::Duration;

use crate::cli::{
    Global, activate::report, client_runtime, confirm::confirm, error::Failure, parse_duration, whole_seconds,
};
use stormkeeper_api_types::message::KillRequest;

/// Remove a topology.
#[derive(Debug, clap::Args)]
#[command(after_help = "Asks for confirmation at a terminal; not in a script, and not with --yes.\n\
Example: stormkeeper kill word-count -w 5s")]
pub(super) struct Args {
    /// Name or id of the topology
    topology: String,
    /// Stop the spouts and wait until tuples in flight are processed, but not longer than this
    /// [default: the topology's message timeout]
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Do not ask for confirmation
    #[arg(short = 'y', long)]
    yes: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    confirm(args.yes, &format!("Remove {} and stop all of its workers?", args.topology))?;
    let request = KillRequest { wait_secs: args.wait.map(whole_seconds) };
    report(global, &client_runtime()?.block_on(client.kill(&args.topology, &request))?)
}
