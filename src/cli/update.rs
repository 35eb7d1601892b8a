//! `stormkeeper update TOPOLOGY FILE`

use std::time::Duration;

use bytes::Bytes;

use crate::cli::{
    Global, client_runtime,
    error::{ErrorKind, Failure},
    output, parse_duration,
    submit::is_transient,
    topology_file::TopologyFile,
};
use stormkeeper_api_types::{
    client::Client,
    message::{UpdateRequest, UpdateView},
};

/// Time between two requests for the progress.
const POLL_PERIOD: Duration = Duration::from_millis(500);

/// Run new code in a running topology, a few workers at a time.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The topology keeps its id, its history and the places of its tasks. Each worker is drained before it is \
replaced: its spouts stop until their tuples are processed, and other workers keep what they have for it. If a worker \
does not run steadily with the new code, those that were replaced go back to the former code, in the same way.\n\
The new file has the same components, streams, tasks and resources as the one that runs; code and settings may differ. \
`stormkeeper show` has the progress, and `stormkeeper events` each step.\n\
Example: stormkeeper update word-count examples/word-count/topology.yaml --wait"
)]
pub(super) struct Args {
    /// Name or id of the topology
    #[arg(value_name = "TOPOLOGY")]
    name: String,
    #[command(flatten)]
    topology: TopologyFile,
    /// Let this many workers start at a time, 1 to 100, once the first one runs [default: 1]
    #[arg(long, value_name = "N")]
    at_once: Option<u32>,
    /// Return only when all workers run the new code; fail if they went back to the former one
    #[arg(long)]
    wait: bool,
    /// With --wait: stop waiting after this long; the update goes on
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_duration)]
    timeout: Duration,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let config = global.load()?;
    let bundle = args.topology.load(&config)?;
    let client = global.client_with(&config)?;
    let request = UpdateRequest { blob: bundle.key.clone(), at_once: args.at_once };
    client_runtime()?.block_on(async {
        client.put_blob(&bundle.key, Bytes::from(bundle.bytes)).await?;
        let accepted = client.update(&args.name, &request).await?;
        if args.wait {
            wait_until_done(&client, accepted.topology_id.as_str(), &request, args.timeout).await?;
        }
        if global.json {
            return output::print_json(&accepted);
        }
        let state = if args.wait { "runs the new code" } else { "is being updated" };
        output::print(&format!("{} ({}) {state}\n", accepted.name, accepted.topology_id))
    })
}

async fn wait_until_done(
    client: &Client,
    id: &str,
    request: &UpdateRequest,
    timeout: Duration,
) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut shown = String::new();
    loop {
        let detail = match client.show(id).await {
            Ok(detail) => Some(detail),
            // A follower may lag for a moment, and a failover takes a few seconds.
            Err(error) if is_transient(&error) && tokio::time::Instant::now() < deadline => None,
            Err(error) => return Err(error.into()),
        };
        match detail {
            Some(detail) if detail.update.is_none() && detail.blob == request.blob => return Ok(()),
            Some(detail) if detail.update.is_none() => {
                let error =
                    anyhow::anyhow!("the new code did not run, and all workers have the former code again");
                return Err(Failure::new(ErrorKind::Refused, error).with_hint(format!(
                    "`stormkeeper events` says why; see `stormkeeper get-errors {id}` too"
                )));
            }
            Some(detail) => {
                let line = detail.update.as_ref().map(line).unwrap_or_default();
                if line != shown {
                    output::note(&line);
                    shown = line;
                }
            }
            None => {}
        }
        if tokio::time::Instant::now() >= deadline {
            let error = anyhow::anyhow!("the update is not done after {timeout:?}: {shown}");
            return Err(Failure::new(ErrorKind::Unavailable, error)
                .with_hint(format!("it goes on; see `stormkeeper show {id}`")));
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

/// Returns a line about the progress of an update.
pub(super) fn line(update: &UpdateView) -> String {
    let mut line = match &update.failure {
        None => "update".to_owned(),
        Some(failure) => format!("update failed ({}); going back", output::one_line(failure)),
    };
    line.push_str(&format!(
        ": {} of {} workers replaced, {} run",
        update.replaced, update.total, update.running
    ));
    let starting = (!update.starting.is_empty()).then(|| update.starting.join(", "));
    for (what, places) in [("draining", update.draining.clone()), ("starting", starting)] {
        if let Some(places) = places {
            line.push_str(&format!("; {what}: {}", output::one_line(&places)));
        }
    }
    line
}
