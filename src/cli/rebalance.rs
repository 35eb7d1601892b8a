//! `stormkeeper rebalance NAME`

use std::time::Duration;

use crate::cli::{
    Global, activate::report, client_runtime, confirm::confirm, error::Failure, output, parse_duration, room,
    whole_seconds,
};
use stormkeeper_api_types::message::RebalanceRequest;
use stormkeeper_model::ComponentId;

/// Reassign the tasks of a topology.
///
/// Tasks stay where they are as far as they are spread evenly then; a worker that keeps its tasks runs on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Asks for confirmation at a terminal; not in a script, and not with --yes.\n\
Example: stormkeeper rebalance word-count -w 5s -n 4 -e split=8")]
pub(super) struct Args {
    /// Name or id of the topology
    topology: String,
    /// Stop the spouts and wait until tuples in flight are processed, but not longer than this
    /// [default: the topology's message timeout]
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Set the number of workers
    #[arg(short = 'n', long, value_name = "N")]
    workers: Option<u32>,
    /// Set the number of tasks of a component (can be repeated)
    #[arg(short = 'e', long = "tasks", value_name = "COMPONENT=N", value_parser = parse_tasks)]
    tasks: Vec<(ComponentId, u32)>,
    /// Do not ask for confirmation
    #[arg(short = 'y', long)]
    yes: bool,
    /// Start every worker again, also those that keep their tasks
    #[arg(long)]
    restart: bool,
}

fn parse_tasks(text: &str) -> Result<(ComponentId, u32), String> {
    let (component, n) = text.split_once('=').ok_or("it is not of the form COMPONENT=N")?;
    let component = component.parse().map_err(|error: stormkeeper_model::InvalidId| error.to_string())?;
    let n = n.parse().map_err(|_| format!("{n:?} is not a whole number from 0 to {}", u32::MAX))?;
    Ok((component, n))
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    confirm(
        args.yes,
        &format!("Stop the spouts of {} for a while, and place its tasks anew?", args.topology),
    )?;
    let request = RebalanceRequest {
        wait_secs: args.wait.map(whole_seconds),
        workers: args.workers,
        parallelism: args.tasks.iter().cloned().collect(),
        restart: args.restart,
    };
    let accepted = client_runtime()?.block_on(async {
        let accepted = client.rebalance(&args.topology, &request).await?;
        // The request is accepted, whether or not there is an answer to this.
        if let Some(n_workers) = args.workers
            && let Ok(list) = client.supervisors().await
            && let Some(note) = room::lacking_for_workers(&list, n_workers as usize)
        {
            output::note(&note);
        }
        Ok::<_, Failure>(accepted)
    })?;
    report(global, &accepted)
}
