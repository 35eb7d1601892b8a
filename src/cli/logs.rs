//! `stormkeeper logs NAME`

mod download;
mod follow;

use std::path::PathBuf;

use stormkeeper_api_types::{
    client::{Client, LogSearch},
    log_lines::{LineFilter, begins_event},
    message::logs::{TopologyLogLines, UnavailableAgent, WorkerLines},
};
use stormkeeper_model::{
    ComponentId, Port,
    address::{HostAndPort, InvalidAddress, host_port},
};

use crate::cli::{
    Global, client_runtime,
    error::{ErrorKind, Failure},
    output,
};

/// Number of last lines of each worker, unless the user sets it.
const LINES: usize = 20;

/// Number of last lines of each worker that --grep and --component select, unless the user sets it.
const SELECTED_LINES: usize = 1000;

/// Print the logs of a topology's workers, oldest lines first.
#[derive(Debug, clap::Args)]
#[command(after_help = "The logs are read from the agents of the supervisors, through any nimbus. \
Lines of several workers are sorted by time and begin with the worker's host and port.\n\
Examples:\n  stormkeeper logs word-count -f\n  stormkeeper logs word-count --component split --grep Traceback\n  \
stormkeeper logs word-count --worker node3:6701 -n 200\n  stormkeeper logs word-count --download logs-of-today")]
pub(super) struct Args {
    /// Name of the topology, or its id, also of a topology that was removed
    topology: String,
    /// Print new lines too, until Ctrl-C, also of workers that start later or move to other hosts
    #[arg(short = 'f', long)]
    follow: bool,
    /// Print only the lines of this component: its stderr, its log messages and its errors
    #[arg(long, value_name = "COMPONENT")]
    component: Option<ComponentId>,
    /// Print only lines that contain this text, which is no pattern
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Print only the log of this worker
    #[arg(long, value_name = "HOST:PORT", value_parser = worker_address)]
    worker: Option<(String, Port)>,
    /// Print the last N lines of each worker, at most 10000 [default: 20; 1000 with --grep or --component]
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Search the logs of earlier launches too, on all supervisors
    #[arg(long, conflicts_with = "follow")]
    past: bool,
    /// Copy the whole log files of each worker into this directory instead, and create it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["follow", "component", "grep", "last"])]
    download: Option<PathBuf>,
    /// Overwrite files in the directory of --download
    #[arg(long, requires = "download")]
    force: bool,
}

impl Args {
    fn search(&self) -> LogSearch {
        let filter = LineFilter { text: self.grep.clone(), component: self.component.clone() };
        let default = if filter == LineFilter::default() { LINES } else { SELECTED_LINES };
        LogSearch {
            filter,
            host: self.worker.as_ref().map(|(host, _)| host.clone()),
            port: self.worker.as_ref().map(|(_, port)| *port),
            last: self.last.unwrap_or(default),
            past: self.past,
        }
    }
}

/// Reads `host:port`.
fn worker_address(text: &str) -> Result<(String, Port), String> {
    let HostAndPort { host, port } = text.parse().map_err(|error: InvalidAddress| error.to_string())?;
    let port = port.ok_or("a worker is HOST:PORT, as `stormkeeper show` lists it")?;
    Ok((host, Port(port)))
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    if args.grep.as_deref() == Some("") {
        return Err(Failure::usage("the text of --grep is empty"));
    }
    let client = global.client()?;
    client_runtime()?.block_on(async {
        if let Some(dir) = &args.download {
            return download::run(&client, global.json, args, dir).await;
        }
        check_component(&client, args).await?;
        match args.follow {
            true => follow::run(client, global.json, args).await,
            false => print_last(&client, global.json, args).await,
        }
    })
}

async fn print_last(client: &Client, json: bool, args: &Args) -> Result<(), Failure> {
    let found = client.search_logs(&args.topology, &args.search()).await?;
    report_missing(&found.unavailable);
    if json {
        output::print_json(&found)?;
    } else {
        output::print(&text(&found, args.worker.is_none() && n_workers(&found) > 1))?;
        report_limits(&found, args);
    }
    match found.supervisors.is_empty() && !found.unavailable.is_empty() {
        true => Err(Failure::new(ErrorKind::Unavailable, anyhow::anyhow!("no supervisor has answered"))),
        false => Ok(()),
    }
}

/// Checks that the topology has the component; of a topology that was removed, nothing is known.
async fn check_component(client: &Client, args: &Args) -> Result<(), Failure> {
    let Some(component) = &args.component else { return Ok(()) };
    let Ok(detail) = client.show(&args.topology).await else { return Ok(()) };
    if detail.components.iter().any(|known| known.id == *component) {
        return Ok(());
    }
    let known: Vec<&str> = detail.components.iter().map(|component| component.id.as_str()).collect();
    let error = anyhow::anyhow!("{} has no component {component}", detail.summary.name);
    Err(Failure::new(ErrorKind::Refused, error).with_hint(format!("its components are {}", known.join(", "))))
}

/// Names the supervisors whose logs are missing.
fn report_missing(unavailable: &[UnavailableAgent]) {
    for UnavailableAgent { supervisor, host, reason } in unavailable {
        output::note(&format!("! the logs on {host} are missing (supervisor {supervisor}): {reason}"));
    }
}

/// Says why there may be more lines, or why there are none.
fn report_limits(found: &TopologyLogLines, args: &Args) {
    for lines in &found.supervisors {
        if let Some(reason) = &lines.incomplete {
            output::note(&format!("! older lines on {} may be missing: {reason}", lines.host));
        }
    }
    let n_lines: usize = all(found).map(|(_, worker)| worker.lines.len()).sum();
    if n_lines == 0 && found.unavailable.is_empty() {
        let worker = args.worker.as_ref().map(|(host, port)| format!(" at {}", host_port(host, port.0)));
        let place = worker.unwrap_or_default();
        match n_workers(found) {
            0 => output::note(&format!("There are no logs of {}{place}.", found.id)),
            _ => output::note(&format!("The logs of {}{place} have no such line.", found.id)),
        }
    }
}

fn all(found: &TopologyLogLines) -> impl Iterator<Item = (String, &WorkerLines)> {
    found
        .supervisors
        .iter()
        .flat_map(|lines| lines.workers.iter().map(|worker| (host_port(&lines.host, worker.port.0), worker)))
}

fn n_workers(found: &TopologyLogLines) -> usize {
    all(found).count()
}

/// Returns the lines of all workers, sorted by the time of their events.
fn text(found: &TopologyLogLines, with_place: bool) -> String {
    let mut lines = Vec::new();
    for (place, worker) in all(found) {
        let mut time = "";
        for line in &worker.lines {
            if begins_event(&line.text) {
                time = line.text.split_ascii_whitespace().next().unwrap_or_default();
            }
            lines.push((time, place.clone(), line.text.as_str()));
        }
    }
    // Stable: the lines of one event, and of one worker at one time, stay together.
    lines.sort_by(|a, b| a.0.cmp(b.0));
    lines.into_iter().map(|(_, place, text)| line(with_place.then_some(&*place), text)).collect()
}

/// Formats a line; it can neither forge lines nor control the terminal.
fn line(place: Option<&str>, text: &str) -> String {
    let text = output::one_line(text.trim_end_matches('\r'));
    match place {
        Some(place) => format!("{place} | {text}\n"),
        None => format!("{text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(workers: &[(&str, u16, &[&str])]) -> TopologyLogLines {
        let workers = workers.iter().map(|(host, port, lines)| {
            let lines: Vec<_> = lines
                .iter()
                .map(|text| serde_json::json!({ "file": "worker.log", "offset": 0, "text": text }))
                .collect();
            serde_json::json!({ "supervisor": "s", "host": host, "workers": [
                { "port": port, "worker": "w", "running": true, "lines": lines, "next": [] }] })
        });
        let workers: Vec<_> = workers.collect();
        let found = serde_json::json!({ "id": "wc-1-1", "supervisors": workers, "unavailable": [] });
        serde_json::from_value(found).expect("valid")
    }

    #[test]
    fn lines_of_several_workers_are_sorted_by_the_time_of_their_events() {
        let found = found(&[
            (
                "a",
                1,
                &["of the event before", "2026-01-01T00:00:01Z one", "  more", "2026-01-01T00:00:03Z three"],
            ),
            ("fd00::1", 2, &["2026-01-01T00:00:02Z two\u{1b}[2J"]),
        ]);
        let expected = "a:1 | of the event before\na:1 | 2026-01-01T00:00:01Z one\na:1 |   more\n\
                        [fd00::1]:2 | 2026-01-01T00:00:02Z two\\u{1b}[2J\na:1 | 2026-01-01T00:00:03Z three\n";
        assert_eq!(text(&found, true), expected);
        assert!(text(&found, false).starts_with("of the event before\n2026"));
    }

    #[test]
    fn worker_is_a_host_with_a_port() {
        assert_eq!(worker_address("h:6700"), Ok(("h".to_owned(), Port(6700))));
        assert_eq!(worker_address("[fd00::1]:6700"), Ok(("fd00::1".to_owned(), Port(6700))));
        assert!(worker_address("h").is_err() && worker_address("h:x").is_err());
    }
}
