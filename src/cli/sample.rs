//! `stormkeeper sample TOPOLOGY --component COMPONENT`

mod tuples;

use std::{collections::BTreeMap, time::Duration};

use futures_util::future;
use tokio::time::Instant;

use crate::cli::{Global, client_runtime, error::Failure, output, parse_duration, whole_seconds};
use stormkeeper_api_types::{
    client::{Client, Error, LogAt},
    message::{Code, SampleRequest, SampleView, logs::UnavailableAgent},
};
use stormkeeper_model::{ComponentId, Timestamp, WorkerId, tuple_samples::SAMPLES_FILE};
use stormkeeper_runtime::shutdown;
use tuples::{Reader, Wanted};

/// Period of looking for new tuples, and for new workers.
const PERIOD: Duration = Duration::from_millis(500);

/// Time after the end for the last tuples to reach the files of the workers.
const GRACE: Duration = Duration::from_secs(2);

/// Time limit for ending a sample when the command is interrupted.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Show tuples that a component receives and emits, as they pass.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each task shows its first tuple and then a share of what it receives and of what it emits. The sample \
ends by itself, and with Ctrl-C. Workers follow within seconds and are not restarted; without a sample they spend \
nothing on it.\n\
\n\
Tuples may be secrets: the command needs a token of the role operator, for the owner of the topology if the token is \
limited to one.\n\
\n\
A line has the time, the task, what it received (<-, from which task) or emitted (->, to which tasks), the stream \
and the values. With --json it is the line of the worker: also with the tuple trees, and with the number of tuples \
that were left out before it because of --per-sec.\n\
\n\
Examples:\n  \
stormkeeper sample word-count --component split\n  \
stormkeeper sample word-count --component split --one-in 1 --per-sec 100 --for 10s --json\n  \
stormkeeper sample word-count --component split --stop"
)]
pub(super) struct Args {
    /// Name or id of the topology
    topology: String,
    /// The component
    #[arg(long, value_name = "COMPONENT")]
    component: ComponentId,
    /// Show one of N tuples of each task [default: 100]
    #[arg(long, value_name = "N")]
    one_in: Option<u32>,
    /// Show at most N tuples of each worker in a second, at most 200 [default: 10]
    #[arg(long, value_name = "N")]
    per_sec: Option<u32>,
    /// End after this long, at most 1h [default: 60s]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Only end a sample of the component that was begun before
    #[arg(long, conflicts_with_all = ["one_in", "per_sec", "duration"])]
    stop: bool,
}

impl Args {
    fn request(&self, stop: bool) -> SampleRequest {
        let component = self.component.clone();
        match stop {
            true => SampleRequest { component, one_in: None, per_sec: None, for_secs: None, stop },
            false => SampleRequest {
                component,
                one_in: self.one_in,
                per_sec: self.per_sec,
                for_secs: self.duration.map(whole_seconds),
                stop,
            },
        }
    }
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    client_runtime()?.block_on(async {
        client.sample(&args.topology, &args.request(args.stop)).await.map_err(of_older_build)?;
        if args.stop {
            return Ok(());
        }
        let ended = tokio::select! {
            // Cancel-safe: what was printed is printed.
            ended = follow(&client, global.json, args) => ended?,
            // Cancel-safe: nothing is lost, the command ends.
            _signal = shutdown::requested() => Ended::Interrupted,
        };
        match ended {
            Ended::OfItself => Ok(()),
            Ended::Interrupted => stop(&client, args).await,
        }
    })
}

/// Adds what to do if a nimbus does not know samples.
fn of_older_build(error: Error) -> Failure {
    let is_unknown = error.refusal().is_some_and(|body| body.code == Code::NoSuchRoute);
    let failure = Failure::from(error);
    match is_unknown {
        true => failure.with_hint("the nimbus runs an older build; upgrade all nimbuses first"),
        false => failure,
    }
}

/// Ends the sample. It would end by itself, so a failure is only said.
async fn stop(client: &Client, args: &Args) -> Result<(), Failure> {
    let request = args.request(true);
    match tokio::time::timeout(STOP_TIMEOUT, client.sample(&args.topology, &request)).await {
        Ok(Ok(_accepted)) => output::note("The sample was ended."),
        Ok(Err(error)) => output::note(&format!("! the sample goes on until its time is over: {error}")),
        Err(_elapsed) => output::note("! the sample goes on until its time is over: no nimbus answers"),
    }
    Ok(())
}

/// Reason for which no more tuples are printed.
enum Ended {
    /// The time is over, or somebody else has ended or replaced the sample.
    OfItself,
    /// Nobody reads what is printed.
    Interrupted,
}

async fn follow(client: &Client, json: bool, args: &Args) -> Result<Ended, Failure> {
    let Some(SampleView { one_in, per_sec, until_ms }) = sample(client, args).await? else {
        return Ok(Ended::OfItself);
    };
    output::note(&format!(
        "One in {one_in} tuples of {}, at most {per_sec} a second of each worker, until {until_ms}; Ctrl-C ends it.",
        args.component
    ));
    let mut files = Files {
        client,
        topology: &args.topology,
        wanted: Wanted { component: args.component.clone(), until: until_ms },
        readers: BTreeMap::new(),
        missing: Vec::new(),
    };
    let mut rounds = tokio::time::interval(PERIOD);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last: Option<Instant> = None;
    loop {
        rounds.tick().await;
        if last.is_none() && !is_on(client, args, until_ms).await? {
            last = Some(Instant::now() + GRACE);
        }
        files.look().await?;
        let tuples = files.read().await?;
        let lines = tuples.iter().map(|tuple| if json { tuple.json() } else { Ok(tuple.text()) });
        let text = lines.collect::<Result<String, Failure>>()?;
        if !text.is_empty() && !output::print_while_read(&text)? {
            return Ok(Ended::Interrupted);
        }
        if last.is_some_and(|last| Instant::now() >= last) {
            return Ok(Ended::OfItself);
        }
    }
}

async fn sample(client: &Client, args: &Args) -> Result<Option<SampleView>, Failure> {
    Ok(client.samples(&args.topology).await?.components.get(&args.component).copied())
}

/// Returns whether the sample has not ended. A nimbus that does not answer for a moment ends nothing.
async fn is_on(client: &Client, args: &Args, until: Timestamp) -> Result<bool, Failure> {
    match sample(client, args).await {
        Ok(found) => Ok(found.is_some_and(|sample| sample.until_ms == until)),
        Err(failure) if failure.is_transient() => Ok(true),
        Err(failure) => Err(failure),
    }
}

/// The files of the samples of all workers of the topology.
struct Files<'a> {
    client: &'a Client,
    topology: &'a str,
    wanted: Wanted,
    readers: BTreeMap<WorkerId, (LogAt, Reader)>,
    /// Supervisors that did not answer the last list.
    missing: Vec<UnavailableAgent>,
}

impl Files<'_> {
    /// Looks for new workers.
    async fn look(&mut self) -> Result<(), Failure> {
        let listed = match self.client.logs(self.topology, false).await.map_err(Failure::from) {
            Ok(listed) => listed,
            Err(failure) if failure.is_transient() => return Ok(()),
            Err(failure) => return Err(failure),
        };
        for missing in &listed.unavailable {
            if !self.missing.iter().any(|known| known.supervisor == missing.supervisor) {
                let UnavailableAgent { host, reason, .. } = missing;
                output::note(&format!("! the tuples of workers on {host} are missing: {reason}"));
            }
        }
        self.missing = listed.unavailable;
        for logs in listed.supervisors {
            for worker in logs.workers.into_iter().filter(|worker| worker.running) {
                let at = LogAt {
                    supervisor: logs.supervisor.clone(),
                    port: worker.port,
                    worker: worker.worker.clone(),
                    file: SAMPLES_FILE.to_owned(),
                };
                self.readers.entry(worker.worker).or_insert_with(|| (at, Reader::new(self.wanted.clone())));
            }
        }
        Ok(())
    }

    /// Reads what is new in all files, each at most [`tuples::CHUNKS_MAX`] parts.
    async fn read(&mut self) -> Result<Vec<tuples::Tuple>, Failure> {
        let (client, topology) = (self.client, self.topology);
        let read = self.readers.values_mut().map(async |(at, reader)| {
            let mut found = Vec::new();
            for _ in 0..tuples::CHUNKS_MAX {
                match client.read_log(topology, at, reader.position()).await {
                    Ok(chunk) => {
                        let is_end = chunk.end;
                        found.extend(reader.take(chunk));
                        if is_end {
                            break;
                        }
                    }
                    // No task of the worker has shown a tuple yet, or its host is away for a moment.
                    Err(error) if error.refusal().is_none_or(|body| body.code != Code::Forbidden) => break,
                    Err(error) => return Err(Failure::from(error)),
                }
            }
            Ok(found)
        });
        let mut found = Vec::new();
        for tuples in future::join_all(read).await {
            found.extend(tuples?);
        }
        found.sort_by(|a, b| a.time().cmp(b.time()));
        Ok(found)
    }
}
