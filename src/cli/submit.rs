//! `stormkeeper submit FILE`

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;

use crate::cli::{
    Global, client_runtime,
    error::{ErrorKind, Failure},
    metrics::number,
    output, parse_duration,
    progress::Progress,
    topology_file::TopologyFile,
    user,
};
use stormkeeper_api_types::{
    client::{self, Client},
    message::{Accepted, Code, InitialStatus, SubmitRequest},
};
use stormkeeper_model::{TopologyName, topology::Ackers};
use stormkeeper_topology_package::package;

/// Time between two requests for the state of a topology that is waited for.
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// Time for which a submission without `--wait` looks for a problem of the placement, which normally
/// takes a tenth of a second.
const PLACEMENT_WAIT: Duration = Duration::from_secs(1);

/// Note about a topology whose author may not know that its tuples are tracked.
const TRACKED_BY_DEFAULT: &str = "note: tuples that spouts emit with an id are acked when every bolt has acked them, \
    and fail after topology.message.timeout.secs; set topology.acker.executors to 0 if nobody needs that, to \
    another number or null to leave this note out";

/// Submit a topology file to the cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = "The directory resources/ next to the file is submitted with it.\n\
Example: stormkeeper submit examples/word-count/topology.yaml --wait")]
pub(super) struct Args {
    #[command(flatten)]
    topology: TopologyFile,
    /// Name the topology NAME instead of the name in the file
    #[arg(long)]
    name: Option<TopologyName>,
    /// Keep the spouts stopped until `stormkeeper activate`
    #[arg(long)]
    inactive: bool,
    /// Return only when every task is running
    #[arg(long)]
    wait: bool,
    /// With --wait: stop waiting after this long; the topology stays submitted
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    timeout: Duration,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let config = global.load()?;
    let bundle = args.topology.load(&config)?;
    let client = global.client_with(&config)?;
    let request = SubmitRequest {
        name: args.name.clone(),
        blob: bundle.key.clone(),
        owner: user(),
        status: if args.inactive { InitialStatus::Inactive } else { InitialStatus::Active },
    };
    // The package was made here, so it can be read.
    let topology = package::read_topology(&bundle.bytes[..]).ok();
    let is_tracked_by_default =
        topology.is_some_and(|topology| !topology.settings.contains_key(Ackers::SETTING));
    client_runtime()?.block_on(async {
        let mut progress = Progress::new();
        let uploading = format!("uploading {}", number::bytes(bundle.bytes.len() as f64));
        progress.during(&uploading, client.put_blob(&bundle.key, Bytes::from(bundle.bytes))).await?;
        let accepted = progress.during("waiting for the leader", client.submit(&request)).await?;
        drop(progress);
        if is_tracked_by_default {
            output::note(TRACKED_BY_DEFAULT);
        }
        if args.wait {
            wait_until_running(&client, &accepted, args.timeout).await?;
        } else if let Some(problem) = early_problem(&client, &accepted).await {
            output::note(&format!("warning: {problem}"));
        }
        if global.json {
            return output::print_json(&accepted);
        }
        let state = if args.wait { "is running" } else { "is submitted" };
        output::print(&format!("{} ({}) {state}\n", accepted.name, accepted.topology_id))
    })
}

/// Returns the problem that keeps the topology from being placed, if there is one within a second.
async fn early_problem(client: &Client, accepted: &Accepted) -> Option<String> {
    let deadline = tokio::time::Instant::now() + PLACEMENT_WAIT;
    while tokio::time::Instant::now() < deadline {
        // The topology was accepted: what cannot be read now is no reason to fail.
        let summary = client.show(accepted.topology_id.as_str()).await.ok().map(|detail| detail.summary);
        match summary {
            Some(summary) if summary.problem.is_some() => return summary.problem,
            Some(summary) if summary.tasks_assigned > 0 => return None,
            _ => tokio::time::sleep(POLL_PERIOD).await,
        }
    }
    None
}

async fn wait_until_running(client: &Client, accepted: &Accepted, timeout: Duration) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut progress = Progress::new();
    loop {
        let detail = match client.show(accepted.topology_id.as_str()).await {
            Ok(detail) => detail,
            // A follower may lag for a moment, and a failover takes a few seconds.
            Err(error) if is_transient(&error) && tokio::time::Instant::now() < deadline => {
                progress.say(&format!("waiting for a nimbus: {error}"));
                tokio::time::sleep(POLL_PERIOD).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if detail.is_running() {
            return Ok(());
        }
        let summary = &detail.summary;
        let problem = summary.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
        progress.say(&format!("{} of {} tasks run{problem}", detail.n_running(), summary.tasks_total));
        if tokio::time::Instant::now() >= deadline {
            let summary = &detail.summary;
            let error = anyhow::anyhow!(
                "{} of {} tasks are running after {timeout:?}",
                detail.n_running(),
                summary.tasks_total
            );
            let error = match &summary.problem {
                Some(problem) => Err::<(), _>(anyhow::Error::msg(problem.clone()))
                    .context(error.to_string())
                    .expect_err("made from an error"),
                None => error,
            };
            return Err(Failure::new(ErrorKind::Unavailable, error).with_hint(format!(
                "the topology stays submitted; see `stormkeeper show {0}` and `stormkeeper get-errors {0}`",
                accepted.name
            )));
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

/// True if the same request may succeed soon. The topology was accepted, so an unknown topology
/// is transient as well.
pub(super) fn is_transient(error: &client::Error) -> bool {
    match error {
        client::Error::Unreachable { .. } | client::Error::Unanswered { .. } => true,
        client::Error::Refused { body, .. } => {
            matches!(
                body.code,
                Code::NotReady | Code::TreeUnavailable | Code::NoLeader | Code::UnknownTopology
            )
        }
        client::Error::NoSeeds | client::Error::Setup(_) | client::Error::Foreign { .. } => false,
    }
}
