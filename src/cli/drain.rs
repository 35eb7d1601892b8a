//! `stormkeeper drain HOST` and `stormkeeper undrain HOST`

use std::time::Duration;

use crate::cli::{
    Global, client_runtime,
    error::{ErrorKind, Failure},
    output, parse_duration, whole_seconds,
};
use stormkeeper_api_types::{
    client::Client,
    message::{DrainRequest, DrainSummary, HostAccepted},
};
use stormkeeper_model::HostName;

/// Between two looks at a host that is waited for.
const POLL_PERIOD: Duration = Duration::from_millis(200);

/// Have the workers of a host leave it, and keep others away.
#[derive(Debug, clap::Args)]
#[command(after_help = "Each topology on the host stops its spouts for a while, so that tuples under way \
are worked off, and then starts what was on the host elsewhere; the rest of it stays where it is. A topology \
that has nowhere to go runs on, and `stormkeeper list` says so.\n\
Example: stormkeeper drain node-3 -w 10s --wait")]
pub(super) struct Args {
    /// The host, as `stormkeeper cluster` shows it
    host: HostName,
    /// Stop spouts for this long before; each topology's message timeout when not given
    #[arg(short = 'w', long = "spout-wait", value_name = "DURATION", value_parser = parse_duration)]
    spout_wait: Option<Duration>,
    /// Return only when no worker is left there
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this long; the host stays drained
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    timeout: Duration,
}

/// Let a drained host be used again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing moves back by itself: new topologies and rebalances use the host.\n\
Example: stormkeeper undrain node-3")]
pub(super) struct UndrainArgs {
    /// The host
    host: HostName,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    let request = DrainRequest { wait_secs: args.spout_wait.map(whole_seconds) };
    let accepted = client_runtime()?.block_on(async {
        let mut accepted = client.drain(&args.host, &request).await?;
        if args.wait {
            wait_until_empty(&client, args).await?;
            accepted.workers_left = 0;
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
        (_, 0) => "is drained: nothing is assigned to it".to_owned(),
        (_, 1) => "is being drained: 1 worker is left there".to_owned(),
        (_, n) => format!("is being drained: {n} workers are left there"),
    };
    output::print(&format!("{host} {state}\n"))
}

async fn wait_until_empty(client: &Client, args: &Args) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + args.timeout;
    loop {
        let drains = client.supervisors().await?.drains;
        let left = drains.iter().find(|drain| drain.host == args.host).map(|drain| drain.workers_left);
        // Not in the list: the nimbus that answered has not heard of it yet.
        if left == Some(0) {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(still_there(&args.host, left, args.timeout));
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

fn still_there(host: &HostName, left: Option<usize>, timeout: Duration) -> Failure {
    let error = match left {
        Some(n) => anyhow::anyhow!("{n} workers are still on {host} after {timeout:?}"),
        None => anyhow::anyhow!("{host} is no longer drained"),
    };
    Failure::new(ErrorKind::Unavailable, error)
        .with_hint("`stormkeeper list` shows the topologies that have nowhere to go".to_owned())
}

/// How far a host is, for the table of supervisors.
pub(super) fn state(drains: &[DrainSummary], host: &str) -> String {
    match drains.iter().find(|drain| drain.host.as_str() == host).map(|drain| drain.workers_left) {
        None => "in use".to_owned(),
        Some(0) => "drained".to_owned(),
        Some(n) => format!("draining ({n} left)"),
    }
}
