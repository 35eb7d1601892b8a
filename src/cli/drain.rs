//! `stormkeeper drain HOST` and `stormkeeper undrain HOST`

use std::time::Duration;

use crate::cli::{
    Global, client_runtime,
    confirm::confirm,
    error::{ErrorKind, Failure},
    output, parse_duration,
    progress::Progress,
    room, whole_seconds,
};
use stormkeeper_api_types::{
    client::Client,
    message::{DrainRequest, DrainSummary, HostAccepted},
};
use stormkeeper_model::{HostName, text::counted};

/// Time between two requests for the state of a host that is waited for.
const POLL_PERIOD: Duration = Duration::from_millis(200);

/// Move the workers of a host elsewhere and place no more workers on it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Each topology on the host stops its spouts for a while, so that tuples in flight \
are processed, and then starts its tasks of that host elsewhere; its other tasks stay where they are. A \
topology for which there is no room elsewhere keeps running, and `stormkeeper list` shows it.\n\
Asks for confirmation at a terminal; not in a script, and not with --yes.\n\
Example: stormkeeper drain node-3 -w 10s --wait")]
pub(super) struct Args {
    /// Host, as shown by `stormkeeper cluster`
    host: HostName,
    /// Stop the spouts and wait until tuples in flight are processed, but not longer than this
    /// [default: each topology's message timeout]
    #[arg(short = 'w', long = "spout-wait", value_name = "DURATION", value_parser = parse_duration)]
    spout_wait: Option<Duration>,
    /// Return only when the host has no workers left
    #[arg(long)]
    wait: bool,
    /// With --wait: stop waiting after this long; the host stays drained
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    timeout: Duration,
    /// Do not ask for confirmation
    #[arg(short = 'y', long)]
    yes: bool,
}

/// Allow workers on a drained host again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Workers that moved away do not move back: only new topologies and rebalances use the host.\n\
Example: stormkeeper undrain node-3"
)]
pub(super) struct UndrainArgs {
    /// Host, as shown by `stormkeeper cluster`
    host: HostName,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    confirm(args.yes, &format!("Move all workers away from {}, and place none there?", args.host))?;
    let request = DrainRequest { wait_secs: args.spout_wait.map(whole_seconds) };
    let accepted = client_runtime()?.block_on(async {
        let mut accepted = client.drain(&args.host, &request).await?;
        if args.wait {
            wait_until_empty(&client, args).await?;
            accepted.workers_left = 0;
        } else if let Ok(list) = client.supervisors().await
            && let Some(note) = room::lacking_for_drain(&list, accepted.workers_left)
        {
            // The drain is accepted, whether or not there is an answer to this.
            output::note(&note);
        }
        Ok::<_, Failure>(accepted)
    })?;
    report(global, &accepted)
}

pub(super) fn undrain(global: &Global, args: &UndrainArgs) -> Result<(), Failure> {
    let client = global.client()?;
    report(global, &client_runtime()?.block_on(client.undrain(&args.host))?)
}

fn report(global: &Global, accepted: &HostAccepted) -> Result<(), Failure> {
    if global.json {
        return output::print_json(accepted);
    }
    let HostAccepted { host_operation, host, workers_left } = accepted;
    let state = match (host_operation.as_str(), workers_left) {
        ("undrain", _) => "may be used again".to_owned(),
        (_, 0) => "is drained: no worker is assigned to it".to_owned(),
        (_, 1) => "is being drained: 1 worker left".to_owned(),
        (_, n) => format!("is being drained: {n} workers left"),
    };
    output::print(&format!("{host} {state}\n"))
}

async fn wait_until_empty(client: &Client, args: &Args) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + args.timeout;
    let mut progress = Progress::new();
    loop {
        let drains = client.supervisors().await?.drains;
        let left = drains.iter().find(|drain| drain.host == args.host).map(|drain| drain.workers_left);
        // A nimbus whose view is older than the drain does not list the host yet.
        if left == Some(0) {
            return Ok(());
        }
        match left {
            Some(n) => progress.say(&format!("{} left on {}", counted(n, "worker"), args.host)),
            None => progress.say("waiting for a nimbus that knows of the drain"),
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(not_empty(&args.host, left, args.timeout));
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

fn not_empty(host: &HostName, left: Option<usize>, timeout: Duration) -> Failure {
    let error = match left {
        Some(n) => anyhow::anyhow!("{n} workers are still on {host} after {timeout:?}"),
        None => anyhow::anyhow!("{host} is no longer drained"),
    };
    Failure::new(ErrorKind::Unavailable, error)
        .with_hint("`stormkeeper list` shows the topologies for which there is no room elsewhere".to_owned())
}

/// State of a host, for the table of supervisors.
pub(super) fn state(drains: &[DrainSummary], host: &str) -> String {
    match drains.iter().find(|drain| drain.host.as_str() == host).map(|drain| drain.workers_left) {
        None => "in use".to_owned(),
        Some(0) => "drained".to_owned(),
        Some(n) => format!("draining ({n} left)"),
    }
}
