//! `stormkeeper kill NAME`

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    time::Duration,
};

use crate::cli::{Global, activate::report, client_runtime, error::Failure, parse_duration, whole_seconds};
use stormkeeper_api_types::message::KillRequest;

/// Remove a topology.
#[derive(Debug, clap::Args)]
#[command(after_help = "At a terminal it asks first; in a script, or with --yes, it does not.\n\
Example: stormkeeper kill word-count -w 5s")]
pub(super) struct Args {
    /// Its name or id
    topology: String,
    /// Stop spouts for this long before; the topology's message timeout when not given
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    if !args.yes && io::stdin().is_terminal() && !confirmed(&args.topology) {
        return Err(Failure::usage("nothing was done"));
    }
    let request = KillRequest { wait_secs: args.wait.map(whole_seconds) };
    report(global, &client_runtime()?.block_on(client.kill(&args.topology, &request))?)
}

fn confirmed(topology: &str) -> bool {
    let mut stderr = io::stderr();
    let asked =
        write!(stderr, "Remove {topology} and stop all of its workers? [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    asked.is_ok()
        && io::stdin().lock().read_line(&mut answer).is_ok()
        && matches!(answer.trim(), "y" | "Y" | "yes")
}
