//! Last lines of the workers of one topology.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::socket;
use crate::worker_dir;
use stormkeeper_api_types::message::live::AgentLine;
use stormkeeper_model::{
    Port, WorkerId,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Time between two looks for new workers and for readers, and between two empty lines.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks without a reader after which the task ends.
const IDLE_LOOKS: u32 = 3;

/// Pause before a worker is connected to again.
const RETRY: Duration = Duration::from_millis(500);

/// Shortest time between two lines of a worker; what it sends faster waits in its socket.
const LINES_APART: Duration = Duration::from_millis(200);

/// The last lines of the workers of a topology.
#[derive(Debug)]
pub(super) struct Topic {
    // Guards the lines; held for the copy of them.
    lines: Mutex<Lines>,
    // Number of changes, for those who wait for one.
    changes: watch::Sender<u64>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Lines {
    n_changes: u64,
    // Looks since there was a reader.
    n_idle: u32,
    of_workers: BTreeMap<WorkerId, Kept>,
}

#[derive(Debug)]
struct Kept {
    port: Port,
    /// Number of the change.
    number: u64,
    at: Monotonic,
    line: Result<Box<RawValue>, String>,
}

impl Topic {
    pub(super) fn new(clock: Clock) -> Self {
        Self { lines: Mutex::default(), changes: watch::Sender::new(0), clock }
    }

    /// Returns what changes with each line; the first change is there.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        let mut changes = self.changes.subscribe();
        changes.mark_changed();
        changes
    }

    /// Returns whether somebody reads, or did a moment ago.
    pub(super) fn is_read(&self) -> bool {
        let mut lines = self.lock();
        lines.n_idle = if self.changes.receiver_count() > 0 { 0 } else { lines.n_idle + 1 };
        lines.n_idle < IDLE_LOOKS
    }

    /// Keeps the line of a worker, or the reason why it has none.
    pub(super) fn put(&self, worker: &WorkerId, port: Port, line: Result<Box<RawValue>, String>) {
        let mut lines = self.lock();
        lines.n_changes += 1;
        let (number, at) = (lines.n_changes, self.clock.monotonic());
        lines.of_workers.insert(worker.clone(), Kept { port, number, at, line });
        drop(lines);
        self.tell();
    }

    fn keep_only(&self, workers: &BTreeMap<WorkerId, Port>) {
        self.lock().of_workers.retain(|worker, _| workers.contains_key(worker));
    }

    fn tell(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Returns the lines after the change `seen`, which becomes the last; an empty line if there is none.
    pub(super) fn lines_since(&self, seen: &mut u64) -> Bytes {
        let (lines, now) = (self.lock(), self.clock.monotonic());
        let mut text = Vec::new();
        for (worker, kept) in lines.of_workers.iter().filter(|(_, kept)| kept.number > *seen) {
            let kept_ms = u64::try_from(now.since(kept.at).as_millis()).unwrap_or(u64::MAX);
            let (sample, problem) = match &kept.line {
                Ok(sample) => (Some(sample.clone()), None),
                Err(problem) => (None, Some(problem.clone())),
            };
            let line = AgentLine { port: kept.port, worker: worker.clone(), kept_ms, sample, problem };
            text.extend(serde_json::to_vec(&line).expect("a line has no map with other keys than texts"));
            text.push(b'\n');
        }
        *seen = lines.n_changes;
        if text.is_empty() {
            text.push(b'\n');
        }
        text.into()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().expect("no one panics while holding the lines")
    }
}

/// Keeps the lines of the `workers`, which are asked for every second, until there is none to ask for.
pub(super) async fn follow(
    topic: &Arc<Topic>,
    local_dir: &Path,
    tasks: &Tasks,
    mut workers: impl FnMut() -> Option<BTreeMap<WorkerId, Port>>,
) {
    let mut followed: BTreeMap<WorkerId, Tasks> = BTreeMap::new();
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let Some(workers) = workers() else { return };
        // Dropping the tasks of a worker that is gone ends them.
        followed.retain(|worker, _| workers.contains_key(worker));
        topic.keep_only(&workers);
        for (worker, port) in workers {
            if followed.contains_key(&worker) {
                continue;
            }
            let (of_worker, topic) = (tasks.child(), Arc::clone(topic));
            let (dir, id) = (worker_dir::path(local_dir, &worker), worker.clone());
            of_worker.start("live numbers of a worker", OnExit::Ignore, async move {
                loop {
                    let problem = read(&dir, &topic, &id, port).await;
                    topic.put(&id, port, Err(problem));
                    tokio::time::sleep(RETRY).await;
                }
            });
            followed.insert(worker, of_worker);
        }
        topic.tell();
    }
}

/// Reads the lines of a worker until that fails. Returns the reason.
async fn read(dir: &Path, topic: &Topic, worker: &WorkerId, port: Port) -> String {
    let mut lines = match socket::connect(dir.to_owned()).await {
        Ok(lines) => lines,
        Err(error) => return socket::problem(&error),
    };
    let mut next = Instant::now();
    loop {
        tokio::time::sleep_until(next).await;
        next = Instant::now() + LINES_APART;
        match socket::next(&mut lines).await {
            Ok(line) => topic.put(worker, port, Ok(line)),
            Err(error) => return socket::problem(&error),
        }
    }
}
