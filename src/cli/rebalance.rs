//! `stormkeeper rebalance NAME`

use std::time::Duration;

use crate::cli::{Global, activate::report, client_runtime, error::Failure, parse_duration, whole_seconds};
use stormkeeper_api_types::message::RebalanceRequest;
use stormkeeper_model::ComponentId;

/// Place the tasks of a topology anew.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: stormkeeper rebalance word-count -w 5s -n 4 -e split=8")]
pub(super) struct Args {
    /// Its name or id
    topology: String,
    /// Stop spouts for this long before; the topology's message timeout when not given
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Use this many workers from then on
    #[arg(short = 'n', long, value_name = "N")]
    workers: Option<u32>,
    /// Run this many tasks of a component from then on (can be repeated)
    #[arg(short = 'e', long = "tasks", value_name = "COMPONENT=N", value_parser = parse_tasks)]
    tasks: Vec<(ComponentId, u32)>,
}

fn parse_tasks(text: &str) -> Result<(ComponentId, u32), String> {
    let (component, n) = text.split_once('=').ok_or("it is not of the form COMPONENT=N")?;
    let component = component.parse().map_err(|error: stormkeeper_model::InvalidId| error.to_string())?;
    let n = n.parse().map_err(|_| format!("{n:?} is not a whole number"))?;
    Ok((component, n))
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    let request = RebalanceRequest {
        wait_secs: args.wait.map(whole_seconds),
        workers: args.workers,
        parallelism: args.tasks.iter().cloned().collect(),
    };
    report(global, &client_runtime()?.block_on(client.rebalance(&args.topology, &request))?)
}
