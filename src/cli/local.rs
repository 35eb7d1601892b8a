//! `stormkeeper local FILE`

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{
        Global, credentials, daemon_runtime,
        error::{ErrorKind, Failure},
        launch_defaults, log_filter, output, parse_duration, show,
        topology_file::TopologyFile,
        user,
    },
    local::{self, End, Leftover, Outcome, OwnDir, Until},
};
use stormkeeper_api_types::message::{TopologyDetail, TopologyErrors};
use stormkeeper_model::clock::Clock;
use stormkeeper_nimbus as nimbus;
use stormkeeper_runtime::{descendants, shutdown, tasks::Tasks, telemetry};
use stormkeeper_supervisor as supervisor;
use stormkeeper_supervisor::LaunchDefaults;
use stormkeeper_topology_package::executable;

/// Log filter without `STORMKEEPER_LOG`: messages of components, and problems.
const DEFAULT_LOG_FILTER: &str = "warn,stormkeeper_worker::task=info,stormkeeper_worker::multilang=info";

/// Run a topology on a complete cluster in this process, without ZooKeeper.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --for and --until-idle it runs until Ctrl-C. At the end it stops the spouts, \
waits until tuples in flight are processed, and prints the counts of each component.\n\
Example: stormkeeper local examples/word-count/topology.yaml --until-idle 5s"
)]
pub(super) struct Args {
    #[command(flatten)]
    topology: TopologyFile,
    /// Stop after this long
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    time: Option<Duration>,
    /// Stop when no tuple was processed for this long, none is with a component, and no spout owes an
    /// answer. What a bolt that never acks has read is done
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    until_idle: Option<Duration>,
    /// Keep metrics while it runs, and show the address of a page with rates, latencies and logs of errors
    #[arg(long)]
    ui: bool,
    /// Hand the credentials in this JSON file, as of `stormkeeper credentials`, to the components; without it
    /// there are none
    #[arg(long, value_name = "FILE")]
    credentials: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    topology: &'a TopologyDetail,
    errors: &'a TopologyErrors,
    unfinished: &'a [String],
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    telemetry::log_to_stderr(Some(log_filter().as_deref().unwrap_or(DEFAULT_LOG_FILTER)));
    let config = global.load()?;
    let bundle = args.topology.load(&config)?;
    let credentials = credentials::text_of_file(args.credentials.as_deref())?;
    let (runtime, parent) = (daemon_runtime()?, std::env::temp_dir());
    for Leftover { dir, n_processes } in runtime.block_on(local::end_leftovers(&parent)) {
        output::note(&format!(
            "a local run was killed before: removed {} and ended {n_processes} of its processes",
            dir.display()
        ));
    }
    let own_dir = OwnDir::create(&parent)
        .with_context(|| format!("creating a directory in {}", parent.display()))
        .map_err(Failure::internal)?;
    let dir = own_dir.path().to_owned();
    let loopback = ([127, 0, 0, 1], 0).into();
    let options = local::Options {
        bundle: Bytes::from(bundle.bytes),
        key: bundle.key,
        owner: user(),
        nimbus: nimbus::Options {
            host: "127.0.0.1".to_owned(),
            api: loopback,
            // The settings of a cluster's API do not concern a run of one topology.
            storm_api: Default::default(),
            // Those of the configuration are of a cluster, which has another tree.
            seeds: Vec::new(),
            ..config.nimbus_options()
        },
        supervisor: supervisor::Options {
            host: "127.0.0.1".to_owned(),
            // The log of a local run is on the terminal; the page reads the live numbers of its workers.
            agent: args.ui.then(|| supervisor::AgentOptions {
                address: loopback,
                may_move: true,
                names: Vec::new(),
            }),
            // The program has just run here, to describe its topology.
            platform: executable::of_this_host().ok(),
            ..config.supervisor_options()
        },
        launch: LaunchDefaults {
            task_heartbeat_period: local::HEARTBEAT_PERIOD,
            fixed_credentials: Some(credentials),
            ..launch_defaults(&config)
        },
        ui: args.ui,
        until: Until { time: args.time, idle: args.until_idle },
        dir: dir.clone(),
    };
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let tasks = Tasks::default();
        let stop_requested = stop.clone();
        tasks.start("signals", stormkeeper_runtime::tasks::OnExit::Ignore, async move {
            if let Ok(signal) = shutdown::requested().await {
                output::note(&format!("{signal}: stopping"));
                stop_requested.cancel();
            }
        });
        descendants::keep_orphans(&tasks);
        let outcome = local::run(options, Clock::new(), stop, output::note).await;
        descendants::end_all().await;
        outcome
    });
    if let Err(error) = own_dir.remove() {
        output::note(&format!("warning: cannot remove {}: {error}", dir.display()));
    }
    let outcome = outcome.map_err(|error| Failure::new(ErrorKind::Refused, error.into()))?;
    report(global, &outcome)
}

fn report(global: &Global, Outcome { detail, errors, end, unfinished }: &Outcome) -> Result<(), Failure> {
    if global.json {
        return output::print_json(&Report { topology: detail, errors, unfinished });
    }
    let reason = match end {
        End::Time => "the time given by --for is over",
        End::Idle => "the topology is idle",
        End::Interrupted => "it was interrupted",
    };
    let summary = &detail.summary;
    let mut text =
        format!("{} ran {} and stopped because {reason}.\n\n", summary.name, local::extent(summary));
    text.push_str(&show::components(&detail.components).text(2));
    for line in unfinished {
        text.push_str(&format!("! {line}\n"));
    }
    if !errors.last.is_empty() {
        text.push_str(&format!(
            "\nErrors: {} recorded; the last one of each component:\n",
            errors.errors.len()
        ));
    }
    for (component, error) in &errors.last {
        let message = output::one_line(error.message.lines().next().unwrap_or_default());
        text.push_str(&format!("  {component} (task {}): {message}\n", error.task));
    }
    output::print(&text)
}
