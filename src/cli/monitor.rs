//! `stormkeeper monitor TOPOLOGY`

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::cli::{
    Global, client_runtime,
    error::{ErrorKind, Failure},
    live,
    metrics::number,
    output, parse_duration,
};
use stormkeeper_api_types::{
    client::{Client, MetricFilter, Page},
    message::{MetricValue, TopologyDetail},
};
use stormkeeper_metrics::{MetaType, Window};
use stormkeeper_model::{
    ComponentId, StreamId, TaskId, Timestamp,
    clock::{Clock, Monotonic},
    heartbeat::TaskCounts,
    suggest,
};

/// Shortest time between two lines.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Maximum number of metrics of one stream that are added up.
const METRICS_MAX: usize = 5000;

/// Print a line with the throughput of a topology in each interval.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each line has the tuples that were counted since the line before. Counts of workers that send \
live numbers are a second old; others report every 10 seconds (task.heartbeat.frequency.secs), so their lines of a \
shorter interval are uneven. Counts of one stream are those of full minutes: a line follows each minute. \
With --json each line is an object.\n\
Examples:\n  \
stormkeeper monitor word-count\n  \
stormkeeper monitor word-count --component split --watch acked --interval 30s"
)]
pub(super) struct Args {
    /// Name or id of the topology
    topology: String,
    /// Time between two lines, at least 1s
    #[arg(short = 'i', long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    interval: Duration,
    /// Count the tuples of this component only
    #[arg(short = 'm', long)]
    component: Option<ComponentId>,
    /// Count the tuples of this stream only, which are emitted to it
    #[arg(short = 's', long)]
    stream: Option<StreamId>,
    /// What is counted
    #[arg(short = 'w', long, value_enum, default_value = "emitted")]
    watch: Watched,
    /// End after this many lines
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Watched {
    /// Tuples that components emitted
    Emitted,
    /// Copies of tuples that were sent to tasks
    #[value(alias = "transferred")]
    Sent,
    /// Tuples that bolts executed
    Executed,
    /// Tuples that were acked
    Acked,
    /// Tuples that failed
    Failed,
}

impl Watched {
    fn of(self, counts: &TaskCounts) -> u64 {
        match self {
            Self::Emitted => counts.emitted,
            Self::Sent => counts.transferred,
            Self::Executed => counts.executed,
            Self::Acked => counts.acked,
            Self::Failed => counts.failed,
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Emitted => "EMITTED",
            Self::Sent => "SENT",
            Self::Executed => "EXECUTED",
            Self::Acked => "ACKED",
            Self::Failed => "FAILED",
        }
    }
}

/// State of a topology at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Reading {
    status: String,
    tasks_alive: usize,
    tasks_total: usize,
    workers: usize,
    /// Counts of the selected tasks since their workers started.
    counts: BTreeMap<TaskId, u64>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    time_ms: Timestamp,
    topology: String,
    status: String,
    workers: usize,
    tasks_alive: usize,
    tasks_total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    watched: Watched,
    seconds: f64,
    count: u64,
    per_second: f64,
}

/// Returns the number of tuples counted from one reading to the next. A task that starts again counts from 0.
fn counted_since(before: &Reading, now: &Reading) -> u64 {
    let of_task = |(task, count): (&TaskId, &u64)| {
        let known = before.counts.get(task).copied().unwrap_or_default();
        if *count >= known { *count - known } else { *count }
    };
    now.counts.iter().map(of_task).sum()
}

fn reading(detail: &TopologyDetail, args: &Args) -> Result<Reading, Failure> {
    if let Some(component) = &args.component {
        let known = detail.components.iter().map(|one| one.id.as_str());
        if known.clone().all(|one| one != component.as_str()) {
            let error = anyhow::anyhow!("{} has no component {:?}", detail.summary.name, component.as_str());
            let failure = Failure::new(ErrorKind::Refused, error);
            return Err(match suggest::hint(component.as_str(), known) {
                Some(hint) => failure.with_hint(hint),
                None => failure.with_hint("`stormkeeper show` lists the components"),
            });
        }
    }
    let is_selected = |id: &ComponentId| args.component.as_ref().is_none_or(|component| component == id);
    let tasks = detail.tasks.iter().filter(|task| is_selected(&task.component));
    let summary = &detail.summary;
    Ok(Reading {
        status: summary.status.to_string(),
        tasks_alive: summary.tasks_alive,
        tasks_total: summary.tasks_total,
        workers: summary.workers_total,
        counts: tasks.map(|task| (task.task, args.watch.of(&task.counts))).collect(),
    })
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    if args.stream.is_some() && args.watch != Watched::Emitted {
        return Err(Failure::usage("of one stream only the emitted tuples are counted: leave --watch out"));
    }
    let client = global.client()?;
    client_runtime()?.block_on(monitor(global, args, &client))
}

async fn monitor(global: &Global, args: &Args, client: &Client) -> Result<(), Failure> {
    let clock = Clock::new();
    let mut source = Source::start(args, client, &clock).await?;
    if !global.json && !output::print_while_read(&heading(args))? {
        return Ok(());
    }
    let mut n_lines = 0;
    while args.lines.is_none_or(|n| n_lines < n) {
        tokio::time::sleep(args.interval.max(INTERVAL_MIN)).await;
        let line = match source.next(args, client, &clock).await {
            Ok(Some(line)) => line,
            // The minute is not over.
            Ok(None) => continue,
            Err(failure) if failure.is_transient() => {
                failure.report();
                continue;
            }
            Err(failure) => return Err(failure),
        };
        n_lines += 1;
        let text = if global.json { output::json_line(&line)? } else { text(&line) };
        if !output::print_while_read(&text)? {
            break;
        }
    }
    Ok(())
}

/// State between two lines.
struct Source {
    before: Reading,
    at: Monotonic,
    /// End of the last minute that was printed, of a stream.
    minute: Option<Timestamp>,
}

impl Source {
    async fn start(args: &Args, client: &Client, clock: &Clock) -> Result<Self, Failure> {
        let (before, at) = Self::read(args, client, clock).await?;
        Ok(Self { before, at, minute: None })
    }

    /// Reads the counts, and returns them with the time at which they were counted, by the clock of this
    /// process.
    async fn read(args: &Args, client: &Client, clock: &Clock) -> Result<(Reading, Monotonic), Failure> {
        let mut detail = client.show(&args.topology).await?;
        let live = match args.stream {
            None => live::read(client, detail.summary.id.as_str(), false).await,
            Some(_) => None,
        };
        let at = clock.monotonic();
        let age = live.as_ref().and_then(|live| live.age_ms).map(Duration::from_millis);
        if let Some(live) = &live {
            live::overlay(&mut detail, live);
        }
        Ok((reading(&detail, args)?, at.minus(age.unwrap_or_default())))
    }

    async fn next(&mut self, args: &Args, client: &Client, clock: &Clock) -> Result<Option<Line>, Failure> {
        let (now, at) = Self::read(args, client, clock).await?;
        let (count, seconds) = match &args.stream {
            None => {
                let seconds = at.since(self.at).as_secs_f64();
                self.at = at;
                (counted_since(&self.before, &now), seconds)
            }
            Some(stream) => match minute_of(args, stream, client).await? {
                Some((end, count)) if self.minute != Some(end) => {
                    self.minute = Some(end);
                    (count, Window::M1.secs().into())
                }
                _ => return Ok(None),
            },
        };
        let line = Line {
            time_ms: clock.now(),
            topology: args.topology.clone(),
            status: now.status.clone(),
            workers: now.workers,
            tasks_alive: now.tasks_alive,
            tasks_total: now.tasks_total,
            component: args.component.as_ref().map(ToString::to_string),
            stream: args.stream.as_ref().map(ToString::to_string),
            watched: args.watch,
            seconds,
            count,
            per_second: count as f64 / seconds.max(0.001),
        };
        self.before = now;
        Ok(Some(line))
    }
}

/// Returns the end of the last full minute and the tuples that were emitted to a stream in it.
async fn minute_of(
    args: &Args,
    stream: &StreamId,
    client: &Client,
) -> Result<Option<(Timestamp, u64)>, Failure> {
    let filter = MetricFilter {
        level: Some(MetaType::ComponentStream),
        component: args.component.clone(),
        stream: Some(stream.clone()),
        name: Some("Emitted".to_owned()),
        ..MetricFilter::default()
    };
    let page = Page { after: None, limit: Some(METRICS_MAX) };
    let values = client.latest_metrics(&args.topology, Window::M1, &filter, &page).await?.values;
    let Some(end) = values.iter().map(|value| value.to_ms).max() else { return Ok(None) };
    let counts = values.iter().filter(|value| value.to_ms == end).map(|value| match value.value {
        MetricValue::Counter(counter) => counter.count,
        MetricValue::Meter(meter) => meter.count,
        _ => 0,
    });
    Ok(Some((end, counts.sum())))
}

/// Columns of the same width in every line.
fn columns(cells: [&str; 8]) -> String {
    let [time, status, workers, tasks, component, stream, count, rate] = cells;
    let text = format!(
        "{time:<20}  {status:<11}  {workers:>7}  {tasks:>9}  {component:<16}  {stream:<10}  {count:>12}  {rate}"
    );
    text.trim_end().to_owned() + "\n"
}

fn heading(args: &Args) -> String {
    columns(["TIME", "STATUS", "WORKERS", "TASKS", "COMPONENT", "STREAM", args.watch.heading(), "RATE"])
}

fn text(line: &Line) -> String {
    let time: String =
        line.time_ms.to_string().chars().take("2026-11-26T01:02:03".len()).chain(['Z']).collect();
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "all".to_owned());
    columns([
        &time,
        &line.status,
        &line.workers.to_string(),
        &format!("{}/{}", line.tasks_alive, line.tasks_total),
        &name(&line.component),
        &name(&line.stream),
        &output::count(line.count),
        &number::rate(line.per_second),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(u32, u64)]) -> Reading {
        Reading { counts: counts.iter().map(|(task, n)| (TaskId(*task), *n)).collect(), ..Reading::default() }
    }

    #[test]
    fn tasks_that_start_again_move_or_are_new_count_what_they_did_since() {
        let before = counts(&[(1, 100), (2, 50), (3, 7)]);
        assert_eq!(counted_since(&before, &before), 0);
        assert_eq!(counted_since(&before, &counts(&[(1, 130), (2, 50), (3, 8)])), 31);
        assert_eq!(counted_since(&before, &counts(&[(1, 20), (2, 50), (3, 7)])), 20, "1 started again");
        assert_eq!(counted_since(&before, &counts(&[(1, 100), (9, 5)])), 5, "2 and 3 are gone, 9 is new");
    }

    #[test]
    fn lines_have_the_columns_of_the_heading_and_json_has_exact_numbers() {
        let line = Line {
            time_ms: Timestamp::EPOCH,
            topology: "wc".to_owned(),
            status: "ACTIVE".to_owned(),
            workers: 2,
            tasks_alive: 6,
            tasks_total: 7,
            component: Some("split".to_owned()),
            stream: None,
            watched: Watched::Sent,
            seconds: 10.0,
            count: 12345,
            per_second: 1234.5,
        };
        let heading = columns(["TIME", "STATUS", "WORKERS", "TASKS", "COMPONENT", "STREAM", "SENT", "RATE"]);
        let text = text(&line);
        let at = |text: &str, part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
        assert_eq!(at(&text, "ACTIVE"), at(&heading, "STATUS"));
        assert_eq!(at(&text, "split"), at(&heading, "COMPONENT"));
        assert_eq!(at(&text, "12,345") + 6, at(&heading, "SENT") + 4, "numbers end together");
        assert_eq!(at(&text, "1.23k/s"), at(&heading, "RATE"));
        let json = serde_json::to_value(&line).expect("JSON");
        assert_eq!(
            (&json["watched"], &json["count"], &json["perSecond"]),
            (&"sent".into(), &12345.into(), &1234.5.into())
        );
        assert!(json.get("stream").is_none(), "{json}");
    }
}
