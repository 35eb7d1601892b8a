//! `stormkeeper metrics TOPOLOGY [COMPONENT [TASK]]`

mod absence;
mod history;
pub(super) mod number;
mod status;
mod table;
#[cfg(test)]
mod tests;

use std::{io::IsTerminal as _, time::Duration};

use crate::cli::{
    Global, client_runtime,
    error::{ErrorKind, Failure},
    live, output, parse_duration,
    trend::{TrendArgs, Trends},
};
use stormkeeper_api_types::{
    client::{Client, MetricFilter, Page, Span},
    message::{LatestList, LatestValue, MeasuredTopologyList, MetricStoreView, PointList},
};
use stormkeeper_metrics::{MetaType, Window};
use stormkeeper_model::{ComponentId, StreamId, TaskId, Timestamp, clock::Clock, time::format_duration};
use table::RowName;

/// Age of the newest values from which on they are of the past: two minutes are missing.
const STALE_AFTER: Duration = Duration::from_secs(180);

/// Longest page that a nimbus returns, for as few requests as possible.
const PAGE_LIMIT: usize = 5000;

/// Maximum number of metrics or points shown by one command. A topology may have more metrics.
const SHOWN_MAX: usize = 100_000;

/// Shortest time between two refreshes: values change once a minute, and nimbus has other work.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// Show throughput, latency and resource usage of a running or removed topology.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without options: counts, rates, failures and latencies in the window, with one row \
per component; for one component a row per task and stream; for one task a row per stream. Columns without \
values are left out. Times are UTC; --json prints exact numbers. With --watch the numbers of now \
come first.\n\
\n\
Examples:\n  \
stormkeeper metrics word-count --watch\n  \
stormkeeper metrics word-count split --window 2h\n  \
stormkeeper metrics word-count split 3 --all --name 'Emit*'\n  \
stormkeeper metrics word-count split --history ProcessLatency --from -6h --window 10m\n  \
stormkeeper metrics word-count-1-1795552490 --track      # a removed topology, by its id\n  \
stormkeeper metrics --status")]
pub(super) struct Args {
    /// Name or id of a running or removed topology
    #[arg(required_unless_present_any = ["topologies", "status"])]
    topology: Option<String>,
    /// Show the tasks and streams of this component
    component: Option<ComponentId>,
    /// Show the streams of this task
    task: Option<TaskId>,
    /// Show the values of the last 1m, 10m, 2h or 1d; with --history, show points of this width
    /// [default: 10m, with --history 1m]
    #[arg(long, value_name = "WINDOW", value_parser = parse_window)]
    window: Option<Window>,
    /// Refresh the output until Ctrl-C
    #[arg(long, conflicts_with_all = ["history", "track", "topologies"])]
    watch: bool,
    /// With --watch: time between two refreshes, at least 1s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration, requires = "watch")]
    every: Duration,
    #[command(flatten)]
    trend: TrendArgs,
    /// List every metric by its name
    #[arg(long, group = "what")]
    all: bool,
    /// Show the points of one metric over time, or of several, such as Emitted or 'Emit*'
    #[arg(long, value_name = "METRIC", group = "what")]
    history: Option<String>,
    /// With --history: start time, in milliseconds since 1970 or relative, such as -6h or -2d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "history")]
    from: Option<String>,
    /// With --history: end time [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "history")]
    to: Option<String>,
    /// With --all: only metrics whose name matches; * matches any text
    #[arg(long, value_name = "GLOB", requires = "all")]
    name: Option<String>,
    /// With --all or --history: only metrics of this level (topology, component, component-stream,
    /// task, stream, worker, netty, nimbus)
    #[arg(long, value_name = "LEVEL", value_parser = parse_level, conflicts_with_all = ["track", "topologies", "status"])]
    level: Option<MetaType>,
    /// With --all or --history: only metrics of this stream
    #[arg(long, value_name = "STREAM", conflicts_with_all = ["track", "topologies", "status"])]
    stream: Option<StreamId>,
    /// Show the hosts and ports on which each task ran, with times
    #[arg(long, group = "what")]
    track: bool,
    /// Show running and removed topologies, all of them or those named TOPOLOGY
    #[arg(long, group = "what")]
    topologies: bool,
    /// Show the metric store of the nimbus that responds, with its export queue and exporters
    #[arg(long, group = "what", conflicts_with = "topology")]
    status: bool,
}

fn parse_window(text: &str) -> Result<Window, String> {
    let secs = parse_duration(text).ok().and_then(|window| u32::try_from(window.as_secs()).ok());
    // Waits have no unit of a day.
    let secs = if text == "1d" { Some(Window::D1.secs()) } else { secs };
    secs.and_then(Window::of_secs).ok_or_else(|| "expected a window: 1m, 10m, 2h or 1d".to_owned())
}

fn parse_level(text: &str) -> Result<MetaType, String> {
    let found = MetaType::ALL.into_iter().find(|level| level.word() == text);
    found.ok_or_else(|| format!("expected a level: {}", MetaType::ALL.map(MetaType::word).join(", ")))
}

/// Returns the command line's word for a window.
fn window_word(window: Window) -> &'static str {
    match window {
        Window::M1 => "1m",
        Window::M10 => "10m",
        Window::H2 => "2h",
        Window::D1 => "1d",
    }
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    client_runtime()?.block_on(async {
        match &args.topology {
            _ if args.status => print_or_watch(args, async || status_text(global, &client).await).await,
            name if args.topologies => topologies(global, &client, name.as_deref()).await,
            Some(topology) if args.track => track(global, &client, topology, args).await,
            Some(topology) if args.history.is_some() => history(global, &client, topology, args).await,
            Some(topology) => {
                print_or_watch(args, async || {
                    let live = live_text(global, &client, topology, args).await;
                    match latest_text(global, &client, topology, args).await {
                        // In the first minute there are live numbers only.
                        Err(failure) if !live.is_empty() && !failure.is_transient() => {
                            Ok(format!("{live}{}\n", failure.text()))
                        }
                        latest => Ok(live + &latest?),
                    }
                })
                .await
            }
            None => Err(Failure::usage("a topology is missing")),
        }
    })
}

/// Prints the text that `render` returns; with `--watch` repeatedly, also through short outages of
/// the cluster.
async fn print_or_watch(
    args: &Args,
    render: impl AsyncFn() -> Result<String, Failure>,
) -> Result<(), Failure> {
    if !args.watch {
        return output::print(&render().await?);
    }
    loop {
        match render().await {
            // Cursor home, text, and clearing of the rest in one write, to avoid flicker.
            Ok(text) if std::io::stdout().is_terminal() => {
                output::print(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
            }
            Ok(text) => output::print(&format!("{text}\n"))?,
            Err(failure) if failure.is_transient() => {
                failure.report();
            }
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(args.every.max(EVERY_MIN)).await;
    }
}

impl Args {
    /// Filter from COMPONENT, TASK and the options.
    fn filter(&self, level: Option<MetaType>) -> MetricFilter {
        MetricFilter {
            level,
            component: self.component.clone(),
            task: self.task,
            stream: self.stream.clone(),
            name: self.history.clone().or_else(|| self.name.clone()),
        }
    }

    /// Levels of the tables, with the names and titles of their rows.
    fn levels(&self) -> &'static [(MetaType, RowName, &'static str)] {
        use MetaType as M;
        match (&self.component, self.task) {
            (None, _) => &[
                (M::Topology, RowName::Component, ""),
                (M::Component, RowName::Component, "Components"),
                (M::Worker, RowName::Worker, "Workers"),
                (M::Nimbus, RowName::Worker, "Nimbuses"),
            ],
            (Some(_), None) => &[
                (M::Component, RowName::Component, ""),
                (M::Task, RowName::Task, "Tasks"),
                (M::ComponentStream, RowName::Stream, "Streams"),
            ],
            (Some(_), Some(_)) => &[(M::Task, RowName::Task, ""), (M::Stream, RowName::Stream, "Streams")],
        }
    }

    /// Level of a history without `--level`.
    fn default_level(&self) -> MetaType {
        match (&self.component, self.task, &self.stream) {
            (_, Some(_), Some(_)) => MetaType::Stream,
            (_, Some(_), None) => MetaType::Task,
            (_, None, Some(_)) => MetaType::ComponentStream,
            (Some(_), None, None) => MetaType::Component,
            (None, None, None) => MetaType::Topology,
        }
    }
}

/// Text with the live numbers of the components, with `--watch`; empty if there are none.
async fn live_text(global: &Global, client: &Client, topology: &str, args: &Args) -> String {
    let by_name = args.all || args.level.is_some() || args.stream.is_some();
    if !args.watch || global.json || by_name || args.component.is_some() {
        return String::new();
    }
    match live::read(client, topology, true).await {
        Some(numbers) => {
            let table = live::table(&numbers).text(2);
            format!("Now ({})\n{table}\n", live::line(Some(&numbers)))
        }
        None => String::new(),
    }
}

async fn latest_text(
    global: &Global,
    client: &Client,
    topology: &str,
    args: &Args,
) -> Result<String, Failure> {
    let window = args.window.unwrap_or(Window::M10);
    let by_name = args.all || args.level.is_some() || args.stream.is_some();
    let levels = match by_name || global.json {
        true => vec![args.level],
        false => args.levels().iter().map(|(level, ..)| Some(*level)).collect(),
    };
    let mut all: Option<LatestList> = None;
    for level in levels {
        let list = latest(client, topology, window, &args.filter(level)).await?;
        match &mut all {
            None => all = Some(list),
            Some(all) => all.values.extend(list.values),
        }
    }
    let all = all.ok_or_else(|| Failure::usage("no level is selected"))?;
    if global.json {
        return output::json(&all);
    }
    let now = Clock::new().now();
    let shown = if by_name {
        listed(&all)
    } else {
        let is_of_components = args.component.is_none() && args.trend.is_on();
        let trends = match is_of_components {
            true => Trends::read(client, all.topology_id.as_str()).await,
            false => Trends::default(),
        };
        tables(&all, args.levels(), now, &trends)
    };
    let Some(shown) = shown else {
        let known = absence::Known::read(client, topology).await;
        return Err(absence::no_metrics(&all.topology_id.to_string(), args, &known));
    };
    let problem = match is_stale(&all, now) {
        true => absence::ingest_problem(client).await,
        false => None,
    };
    Ok(format!("{}{shown}", heading(&all, now, problem.as_deref())))
}

/// Fetches all pages of the values in a window.
async fn latest(
    client: &Client,
    topology: &str,
    window: Window,
    filter: &MetricFilter,
) -> Result<LatestList, Failure> {
    let mut page = Page { after: None, limit: Some(PAGE_LIMIT) };
    let mut all = client.latest_metrics(topology, window, filter, &page).await?;
    while let Some(next) = all.next.take() {
        if all.values.len() >= SHOWN_MAX {
            output::note(&format!(
                "Only the first {SHOWN_MAX} metrics are shown; use --name to select fewer."
            ));
            break;
        }
        page.after = Some(next);
        let more = client.latest_metrics(topology, window, filter, &page).await?;
        all.values.extend(more.values);
        all.next = more.next;
    }
    Ok(all)
}

/// End of the newest values.
fn end_of<'a>(values: impl IntoIterator<Item = &'a LatestValue>) -> Option<Timestamp> {
    values.into_iter().map(|value| value.to_ms).max()
}

fn is_stale(list: &LatestList, now: Timestamp) -> bool {
    end_of(&list.values).is_some_and(|end| now.since(end) > STALE_AFTER)
}

fn until(end: Timestamp, now: Timestamp) -> String {
    format!("until {} ({} ago)", history::minute(end), format_duration(now.since(end)))
}

/// First lines of the output: topology, window, and age of the values, with a warning if they are
/// of the past. `problem` is a known reason for that.
fn heading(list: &LatestList, now: Timestamp, problem: Option<&str>) -> String {
    let window = Window::of_secs(list.window_secs).map_or("window", window_word);
    let end = end_of(&list.values);
    let age = end.map_or_else(String::new, |end| format!(" {}", until(end, now)));
    let mut text = format!("{}, {window}{age}\n", list.topology_id);
    if let Some(end) = end.filter(|_| is_stale(list, now)) {
        let age = format_duration(now.since(end));
        let reason = problem.map_or_else(String::new, |problem| format!(" ({problem})"));
        text.push_str(&format!("! values of the past: nothing newer has arrived for {age}{reason}\n"));
    }
    text + &lag_warning(&list.store)
}

/// Warning that the values may be old, if the metric store of the responding nimbus lags.
fn lag_warning(store: &MetricStoreView) -> String {
    match (store.entries_behind, store.behind_ms) {
        (Some(0), _) => String::new(),
        (Some(n), Some(ms)) => {
            let age = format_duration(Duration::from_millis(ms));
            format!("! the metric store of {} is {n} entries ({age}) behind the leader\n", store.nimbus)
        }
        (Some(n), None) => {
            format!("! the metric store of {} is {n} entries behind the leader\n", store.nimbus)
        }
        (None, _) => {
            format!("! the lag of the metric store of {} behind the leader is unknown\n", store.nimbus)
        }
    }
}

fn tables(
    list: &LatestList,
    levels: &[(MetaType, RowName, &str)],
    now: Timestamp,
    trends: &Trends,
) -> Option<String> {
    let mut text = String::new();
    let end = end_of(&list.values);
    // The windows of a level end with the last minute of that level.
    let age = |values: &[LatestValue]| match end_of(values) {
        Some(own) if Some(own) != end => format!(", {}", until(own, now)),
        Some(_) | None => String::new(),
    };
    let is_of_hosts = list.topology_id.as_str() == stormkeeper_metrics::name::SUPERVISOR;
    for (level, row, title) in levels {
        let values: Vec<LatestValue> =
            list.values.iter().filter(|value| value.meta.level == level.word()).cloned().collect();
        if title.is_empty() {
            if let Some(sum) = table::sum(&values) {
                text.push_str(&format!("{sum}{}\n", age(&values)));
            }
            continue;
        }
        let (row, title) = match row {
            RowName::Worker if is_of_hosts => (RowName::Host, "Supervisors"),
            row => (*row, *title),
        };
        let mut table = match row {
            RowName::Worker | RowName::Host => table::usage(&values, row),
            RowName::Component | RowName::Task | RowName::Stream => table::flow(&values, row),
        };
        if let Some(table) = table.as_mut().filter(|_| *level == MetaType::Component) {
            trends.add_to(table);
        }
        if let Some(table) = table {
            text.push_str(&format!("\n{title}{}\n{}", age(&values), table.text(2)));
        }
    }
    let own = list.values.iter().filter(|value| value.meta.group == stormkeeper_metrics::name::UDF);
    if let Some(own) = table::list(own) {
        text.push_str(&format!("\nUser metrics\n{}", own.text(2)));
    }
    (!text.is_empty()).then_some(text)
}

fn listed(list: &LatestList) -> Option<String> {
    table::list(list.values.iter()).map(|table| format!("\n{}", table.text(0)))
}

async fn history(global: &Global, client: &Client, topology: &str, args: &Args) -> Result<(), Failure> {
    let filter = args.filter(Some(args.level.unwrap_or_else(|| args.default_level())));
    let span = Span { from: args.from.clone(), to: args.to.clone() };
    let list = points(client, topology, args.window.unwrap_or(Window::M1), &filter, &span).await?;
    if global.json {
        return output::print_json(&list);
    }
    let text = history::series(&list.series);
    if text.is_empty() {
        if args.component.is_some() {
            let known = absence::Known::read(client, topology).await;
            if let Some(failure) = absence::unknown_subject(&list.topology_id.to_string(), args, &known) {
                return Err(failure);
            }
        }
        let level = filter.level.map_or("", MetaType::word);
        let metric = filter.name.unwrap_or_default();
        let (from, to) = (history::minute(list.from_ms), history::minute(list.to_ms));
        let error = anyhow::anyhow!("{metric} has no points on level {level} from {from} to {to}");
        let hint = format!("`stormkeeper metrics {topology} --all` shows the metrics of each level");
        return Err(Failure::new(ErrorKind::Refused, error).with_hint(hint));
    }
    output::print(&format!("{}{text}", lag_warning(&list.store)))
}

/// Fetches all pages of points and joins the series that span two pages.
async fn points(
    client: &Client,
    topology: &str,
    window: Window,
    filter: &MetricFilter,
    span: &Span,
) -> Result<PointList, Failure> {
    let mut page = Page { after: None, limit: Some(PAGE_LIMIT) };
    let mut all = client.metric_points(topology, window, filter, span, &page).await?;
    // Relative times must mean the same on each page.
    let span =
        Span { from: Some(all.from_ms.as_millis().to_string()), to: Some(all.to_ms.as_millis().to_string()) };
    while let Some(next) = all.next.take() {
        let n_points: usize = all.series.iter().map(|series| series.points.len()).sum();
        if n_points >= SHOWN_MAX {
            output::note(&format!(
                "Only the first {SHOWN_MAX} points are shown; select fewer metrics or a shorter time."
            ));
            break;
        }
        page.after = Some(next);
        let more = client.metric_points(topology, window, filter, &span, &page).await?;
        for series in more.series {
            match all.series.last_mut().filter(|last| last.meta.id == series.meta.id) {
                Some(last) => last.points.extend(series.points),
                None => all.series.push(series),
            }
        }
        all.next = more.next;
    }
    Ok(all)
}

async fn track(global: &Global, client: &Client, topology: &str, args: &Args) -> Result<(), Failure> {
    let track = client.task_track(topology, args.task, Some(PAGE_LIMIT)).await?;
    if global.json {
        return output::print_json(&track);
    }
    if track.entries.is_empty() {
        output::note(&format!("{} has no task track yet.", track.topology_id));
        return Ok(());
    }
    if track.truncated {
        output::note(
            "Only the newest entries are shown; give a component and a task to see all of its entries.",
        );
    }
    output::print(&format!("{}{}", lag_warning(&track.store), history::track(&track.entries).text(0)))
}

async fn topologies(global: &Global, client: &Client, name: Option<&str>) -> Result<(), Failure> {
    let history = client.topology_history(name, Some(PAGE_LIMIT)).await?;
    if global.json {
        return output::print_json(&history);
    }
    let measured = match name {
        None => topologies_with_metrics(client).await?.topologies,
        Some(_) => Vec::new(),
    };
    if history.truncated {
        output::note("Only the newest topologies are shown; give a name to see the older ones of that name.");
    }
    if let Some(unlisted) = history::unlisted(&measured, &history.topologies) {
        output::note(&unlisted);
    }
    if history.topologies.is_empty() {
        output::note("The history has no topologies.");
        return Ok(());
    }
    output::print(&format!(
        "{}{}",
        lag_warning(&history.store),
        history::topologies(&history.topologies).text(0)
    ))
}

/// Fetches all pages of the topologies that have metrics.
async fn topologies_with_metrics(client: &Client) -> Result<MeasuredTopologyList, Failure> {
    let mut page = Page { after: None, limit: Some(PAGE_LIMIT) };
    let mut all = client.measured_topologies(&page).await?;
    while let Some(next) = all.next.take().filter(|_| all.topologies.len() < SHOWN_MAX) {
        page.after = Some(next.to_string());
        let more = client.measured_topologies(&page).await?;
        all.topologies.extend(more.topologies);
        all.next = more.next;
    }
    Ok(all)
}

async fn status_text(global: &Global, client: &Client) -> Result<String, Failure> {
    let status = client.metric_store_status().await?;
    if global.json {
        return output::json(&status);
    }
    Ok(status::text(&status))
}
