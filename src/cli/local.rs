//! `stormkeeper local FILE`

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{
        Global, daemon_runtime,
        error::{ErrorKind, Failure},
        launch_defaults, load_topology, log_filter, output, parse_duration, show, user,
    },
    local::{self, End, Outcome, Until},
};
use stormkeeper_api_types::message::{TopologyDetail, TopologyErrors};
use stormkeeper_model::clock::Clock;
use stormkeeper_nimbus as nimbus;
use stormkeeper_runtime::{shutdown, tasks::Tasks, telemetry};
use stormkeeper_supervisor as supervisor;
use stormkeeper_supervisor::LaunchDefaults;

/// What is logged when nothing is said: what components report, and trouble.
const DEFAULT_LOG_FILTER: &str = "warn";

/// Run a topology in a whole cluster within this process.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without --for and --until-idle it runs until Ctrl-C. At the end spouts are \
stopped, tuples under way are worked off, and what each component did is printed.\n\
Example: stormkeeper local examples/word-count/topology.yaml --until-idle 5s")]
pub(super) struct Args {
    /// The topology file (Flux YAML)
    file: PathBuf,
    /// End after this long
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    time: Option<Duration>,
    /// End once nothing has happened for this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    until_idle: Option<Duration>,
}

#[derive(Serialize)]
struct Report<'a> {
    topology: &'a TopologyDetail,
    errors: &'a TopologyErrors,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    telemetry::log_to_stderr(Some(log_filter().as_deref().unwrap_or(DEFAULT_LOG_FILTER)));
    let config = global.load()?;
    let bundle = load_topology(&args.file, &config)?;
    let dir = std::env::temp_dir().join(format!("stormkeeper-local-{:08x}", fastrand::u32(..)));
    fs::create_dir_all(&dir)
        .with_context(|| format!("making {}", dir.display()))
        .map_err(Failure::internal)?;
    let loopback = ([127, 0, 0, 1], 0).into();
    let options = local::Options {
        bundle: Bytes::from(bundle.bytes),
        key: bundle.key,
        owner: user(),
        nimbus: nimbus::Options { host: "127.0.0.1".to_owned(), api: loopback, ..config.nimbus_options() },
        supervisor: supervisor::Options { host: "127.0.0.1".to_owned(), ..config.supervisor_options() },
        launch: LaunchDefaults { task_beat_period: local::BEAT_PERIOD, ..launch_defaults(&config) },
        until: Until { time: args.time, idle: args.until_idle },
        dir: dir.clone(),
    };
    let outcome = daemon_runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let tasks = Tasks::default();
        let asked = stop.clone();
        tasks.start("signals", stormkeeper_runtime::tasks::Ending::Normal, async move {
            if let Ok(signal) = shutdown::requested().await {
                output::note(&format!("{signal}: ending"));
                asked.cancel();
            }
        });
        local::run(options, Clock::new(), stop, output::note).await
    });
    if let Err(error) = fs::remove_dir_all(&dir) {
        output::note(&format!("warning: {} is left over: {error}", dir.display()));
    }
    let outcome = outcome.map_err(|error| Failure::new(ErrorKind::Refused, error.into()))?;
    report(global, &outcome)
}

fn report(global: &Global, Outcome { detail, errors, end }: &Outcome) -> Result<(), Failure> {
    if global.json {
        return output::print_json(&Report { topology: detail, errors });
    }
    let why = match end {
        End::Time => "its time was over",
        End::Idle => "nothing more happened",
        End::Asked => "you asked for it",
    };
    let summary = &detail.summary;
    let mut text = format!(
        "{} ran {} tasks in {} workers and ended as {why}.\n\n",
        summary.name, summary.tasks_total, summary.workers_total
    );
    text.push_str(&show::components(&detail.components).text(2));
    if !errors.last.is_empty() {
        text.push_str(&format!("\nErrors: {} kept, the last of each component:\n", errors.errors.len()));
    }
    for (component, error) in &errors.last {
        let message = error.message.lines().next().unwrap_or_default();
        text.push_str(&format!("  {component} (task {}): {message}\n", error.task));
    }
    output::print(&text)
}
