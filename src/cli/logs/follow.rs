//! `stormkeeper logs -f`: follows each launch in a task of its own, so that a host that does not answer
//! delays no other.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::sync::mpsc;

use super::{Args, line, report_missing};
use crate::cli::{error::Failure, output};
use stormkeeper_api_types::{
    client::{Client, Error, LogAt},
    log_lines::{LineFilter, LineSelector},
    message::{
        Code,
        logs::{LogChunk, LogCursor, LogPosition, TopologyLogs},
    },
};
use stormkeeper_model::{Port, SupervisorId, TopologyId, WorkerId, address::host_port};
use stormkeeper_runtime::{
    error_chain, shutdown,
    tasks::{OnExit, Tasks},
};

/// Period of looking for new lines.
const READ_PERIOD: Duration = Duration::from_millis(500);

/// Period of looking for new launches.
const LIST_PERIOD: Duration = Duration::from_secs(1);

/// Pause after a log could not be read.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Number of rounds without any log after which a launch is gone: its directory was removed.
const ROUNDS_WITHOUT_LOG: u32 = 20;

/// Number of tries in a row without an answer after which a launch is given up. A launch on a host that
/// comes back later is found again by its next launch.
const FAILURES_MAX: u32 = 300;

/// Lines that wait to be printed; a follower with more waits, as for a terminal that is stopped.
const LINES_WAITING: usize = 1000;

/// Maximum bytes of a line that has no end yet.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Time in which running tasks end after the last line.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Message of a follower.
#[derive(Debug)]
enum Message {
    Line(FollowedLine),
    Note(String),
}

/// A line, as printed with `--json`.
#[derive(Debug, Serialize)]
struct FollowedLine {
    supervisor: SupervisorId,
    host: String,
    port: Port,
    worker: WorkerId,
    file: String,
    text: String,
}

/// Prints the last lines, then new lines until a signal, or until a topology that was removed has no
/// worker any more.
pub(super) async fn run(client: Client, json: bool, args: &Args) -> Result<(), Failure> {
    let tasks = Tasks::default();
    let ended = tokio::select! {
        // Cancel-safe: what was printed is printed.
        ended = follow(Arc::new(client), json, args, &tasks) => ended,
        // Cancel-safe: nothing is lost, the command ends.
        _signal = shutdown::requested() => Ok(()),
    };
    tasks.stop(STOP_TIMEOUT).await;
    ended
}

async fn follow(client: Arc<Client>, json: bool, args: &Args, tasks: &Tasks) -> Result<(), Failure> {
    let listed = client.logs(&args.topology, false).await?;
    let found = client.search_logs(&args.topology, &args.search()).await?;
    report_missing(&found.unavailable);
    let printer = Printer { json, with_place: args.worker.is_none() };
    let (messages, mut received) = mpsc::channel(LINES_WAITING);
    let mut launches = Launches::new(Arc::clone(&client), args, listed, messages);
    for lines in &found.supervisors {
        for worker in &lines.workers {
            let launch = Launch {
                supervisor: lines.supervisor.clone(),
                host: lines.host.clone(),
                port: worker.port,
                worker: worker.worker.clone(),
            };
            let printed = worker.lines.iter().map(|found| launch.line(&found.file, found.text.clone()));
            if !printer.print(printed.map(Message::Line))? {
                return Ok(());
            }
            launches.known.insert(worker.worker.clone());
            if worker.running {
                launches.start(launch, &worker.next, tasks);
            }
        }
    }
    let mut next_list = tokio::time::interval(LIST_PERIOD);
    next_list.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Cancel-safe: a message is received only if it is returned.
            Some(first) = received.recv() => {
                let mut batch = vec![first];
                while let (true, Ok(message)) = (batch.len() < LINES_WAITING, received.try_recv()) {
                    batch.push(message);
                }
                if !printer.print(batch)? {
                    return Ok(());
                }
            }
            // Cancel-safe: a tick that is not returned is not lost.
            _tick = next_list.tick() => {
                if launches.look(tasks).await {
                    let last = std::iter::from_fn(|| received.try_recv().ok());
                    printer.print(last)?;
                    output::note(&format!("{} was removed.", launches.id));
                    return Ok(());
                }
            }
        }
    }
}

/// Prints messages.
struct Printer {
    json: bool,
    with_place: bool,
}

impl Printer {
    /// Returns whether somebody still reads the output.
    fn print(&self, messages: impl IntoIterator<Item = Message>) -> Result<bool, Failure> {
        let mut text = String::new();
        for message in messages {
            match message {
                Message::Note(note) => output::note(&note),
                Message::Line(found) if self.json => text.push_str(&output::json_line(&found)?),
                Message::Line(found) => {
                    let place = host_port(&found.host, found.port.0);
                    text.push_str(&line(self.with_place.then_some(&*place), &found.text));
                }
            }
        }
        if text.is_empty() { Ok(true) } else { output::print_while_read(&text) }
    }
}

/// A launch that is followed.
#[derive(Debug, Clone)]
struct Launch {
    supervisor: SupervisorId,
    host: String,
    port: Port,
    worker: WorkerId,
}

impl Launch {
    fn line(&self, file: &str, text: String) -> FollowedLine {
        let Self { supervisor, host, port, worker } = self.clone();
        FollowedLine { supervisor, host, port, worker, file: file.to_owned(), text }
    }
}

/// The launches of the topology, as far as they are known.
struct Launches {
    client: Arc<Client>,
    id: TopologyId,
    filter: LineFilter,
    only: Option<(String, Port)>,
    known: BTreeSet<WorkerId>,
    /// Supervisors that were listed before: what is new there has started since.
    listed: BTreeSet<SupervisorId>,
    /// Supervisors that did not answer the last list.
    missing: BTreeSet<SupervisorId>,
    messages: mpsc::Sender<Message>,
    /// Cloned by each follower.
    followers: Arc<()>,
}

impl Launches {
    fn new(client: Arc<Client>, args: &Args, listed: TopologyLogs, messages: mpsc::Sender<Message>) -> Self {
        let workers = listed.supervisors.iter().flat_map(|logs| &logs.workers);
        Self {
            client,
            filter: args.search().filter,
            only: args.worker.clone(),
            known: workers.map(|worker| worker.worker.clone()).collect(),
            missing: listed.unavailable.into_iter().map(|missing| missing.supervisor).collect(),
            listed: listed.supervisors.into_iter().map(|logs| logs.supervisor).collect(),
            id: listed.id,
            messages,
            followers: Arc::new(()),
        }
    }

    /// Starts to follow new launches. Returns whether the topology was removed and all its launches
    /// have ended.
    async fn look(&mut self, tasks: &Tasks) -> bool {
        // A nimbus that is restarted is there again in a moment.
        let Ok(logs) = self.client.logs(self.id.as_str(), false).await else { return false };
        let newly_missing: Vec<_> = logs
            .unavailable
            .iter()
            .filter(|missing| !self.missing.contains(&missing.supervisor))
            .cloned()
            .collect();
        report_missing(&newly_missing);
        self.missing = logs.unavailable.into_iter().map(|missing| missing.supervisor).collect();
        for found in logs.supervisors {
            let was_listed = !self.listed.insert(found.supervisor.clone());
            for worker in found.workers {
                let is_new = self.known.insert(worker.worker.clone()) && (worker.running || was_listed);
                let is_selected = self.only.as_ref().is_none_or(|(host, port)| {
                    *port == worker.port && (*host == found.host || *host == found.supervisor.as_str())
                });
                if is_new && is_selected {
                    let (supervisor, host) = (found.supervisor.clone(), found.host.clone());
                    let launch = Launch { supervisor, host, port: worker.port, worker: worker.worker };
                    self.start(launch, &[], tasks);
                }
            }
        }
        !logs.present && Arc::strong_count(&self.followers) == 1
    }

    /// Follows a launch from these positions, or from the beginning.
    fn start(&self, launch: Launch, from: &[LogCursor], tasks: &Tasks) {
        let followed = ["worker.out", "worker.log"].map(|file| Followed {
            at: LogAt {
                supervisor: launch.supervisor.clone(),
                port: launch.port,
                worker: launch.worker.clone(),
                file: file.to_owned(),
            },
            position: from
                .iter()
                .find(|cursor| cursor.file == file)
                .map(|cursor| cursor.position.clone())
                .unwrap_or_default(),
            selector: LineSelector::new(self.filter.clone()),
            unfinished: String::new(),
        });
        let follower = Follower {
            client: Arc::clone(&self.client),
            id: self.id.clone(),
            launch,
            followed,
            messages: self.messages.clone(),
            n_failures: 0,
            _follower: Arc::clone(&self.followers),
        };
        tasks.start("follow", OnExit::Ignore, follower.run());
    }
}

/// A log that is followed.
struct Followed {
    at: LogAt,
    position: LogPosition,
    selector: LineSelector<()>,
    /// Beginning of a line that has no end yet.
    unfinished: String,
}

impl Followed {
    /// Takes a chunk, and returns the lines that are selected.
    fn take(&mut self, chunk: LogChunk) -> Vec<String> {
        if chunk.lost {
            self.unfinished.clear();
        }
        self.position = chunk.next;
        self.unfinished.push_str(&chunk.text);
        let text = std::mem::take(&mut self.unfinished);
        let mut rest = text.as_str();
        let mut selected = Vec::new();
        while let Some((line, after)) = rest.split_once('\n') {
            selected.extend(self.selector.push((), line.to_owned()));
            rest = after;
        }
        match rest.len() > LINE_BYTES_MAX {
            true => selected.extend(self.selector.push((), rest.to_owned())),
            false => rest.clone_into(&mut self.unfinished),
        }
        selected.into_iter().map(|((), line)| line).collect()
    }

    /// Returns the selected lines of the last event; also a line without an end, if no more follows.
    fn finish(&mut self, has_ended: bool) -> Vec<String> {
        let rest = if has_ended { std::mem::take(&mut self.unfinished) } else { String::new() };
        let mut selected = if rest.is_empty() { Vec::new() } else { self.selector.push((), rest) };
        selected.extend(self.selector.finish());
        selected.into_iter().map(|((), line)| line).collect()
    }
}

/// Result of reading what is new in a log.
enum Read {
    /// All was read; the launch was running before that.
    ToEnd {
        running: bool,
    },
    /// There is no such log now.
    Missing,
    Failed,
}

/// Task that follows one launch until it has ended.
struct Follower {
    client: Arc<Client>,
    id: TopologyId,
    launch: Launch,
    followed: [Followed; 2],
    messages: mpsc::Sender<Message>,
    n_failures: u32,
    _follower: Arc<()>,
}

impl Follower {
    async fn run(mut self) {
        let mut n_without_log = 0;
        loop {
            let (mut is_over, mut n_missing, mut has_failed) = (true, 0, false);
            for n in 0..self.followed.len() {
                match self.read(n).await {
                    Read::ToEnd { running } => is_over &= !running,
                    Read::Missing => n_missing += 1,
                    Read::Failed => has_failed = true,
                }
            }
            n_without_log = if n_missing == self.followed.len() { n_without_log + 1 } else { 0 };
            let has_log = n_missing < self.followed.len();
            if !has_failed && (is_over && has_log || n_without_log > ROUNDS_WITHOUT_LOG) {
                for n in 0..self.followed.len() {
                    let lines = self.followed[n].finish(true);
                    self.send(n, lines).await;
                }
                return;
            }
            if self.n_failures > FAILURES_MAX {
                return;
            }
            tokio::time::sleep(if has_failed { RETRY_PAUSE } else { READ_PERIOD }).await;
        }
    }

    async fn read(&mut self, n: usize) -> Read {
        loop {
            let Followed { at, position, .. } = &self.followed[n];
            match self.client.read_log(self.id.as_str(), at, position).await {
                Ok(chunk) => {
                    self.note_answer().await;
                    if chunk.lost {
                        self.note(format!(
                            "some lines of {} are missing: it was rotated too fast",
                            chunk.file
                        ))
                        .await;
                    }
                    let (end, running) = (chunk.end, chunk.running);
                    let lines = self.followed[n].take(chunk);
                    self.send(n, lines).await;
                    if end {
                        let lines = self.followed[n].finish(false);
                        self.send(n, lines).await;
                        return Read::ToEnd { running };
                    }
                }
                Err(error) if error.refusal().is_some_and(|body| body.code == Code::UnknownLog) => {
                    self.note_answer().await;
                    return Read::Missing;
                }
                Err(error) => {
                    self.note_failure(&error).await;
                    return Read::Failed;
                }
            }
        }
    }

    async fn note_answer(&mut self) {
        if std::mem::take(&mut self.n_failures) > 0 {
            self.note("the log can be read again".to_owned()).await;
        }
    }

    async fn note_failure(&mut self, error: &Error) {
        self.n_failures += 1;
        if self.n_failures == 1 {
            self.note(format!("{}; trying again", error_chain(error))).await;
        }
    }

    async fn note(&self, text: String) {
        let place = host_port(&self.launch.host, self.launch.port.0);
        // Fails only when the command ends.
        let _ended = self.messages.send(Message::Note(format!("! worker {place}: {text}"))).await;
    }

    async fn send(&self, n: usize, lines: Vec<String>) {
        for text in lines {
            let line = self.launch.line(&self.followed[n].at.file, text);
            // Fails only when the command ends.
            let _ended = self.messages.send(Message::Line(line)).await;
        }
    }
}
