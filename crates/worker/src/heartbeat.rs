//! Liveness in the tree: an ephemeral znode per task.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{Options, counters::CounterRegistry};
use stormkeeper_coordination::cluster::{layout::Ephemeral, presence::Presence, record};
use stormkeeper_model::{TaskId, Timestamp, clock::Clock, heartbeat::TaskStatus, task_set::TaskSet};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Status of each task of this worker. Clones share the statuses.
#[derive(Debug, Clone)]
pub struct StatusBoard {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    // Guards the statuses; held for a few instructions.
    state: Mutex<State>,
    wake: Notify,
    n_never_up: watch::Sender<usize>,
}

#[derive(Debug)]
struct State {
    statuses: BTreeMap<TaskId, TaskStatus>,
    // Tasks that do not run: since when, and the failure of the last start, if it failed.
    down: BTreeMap<TaskId, Down>,
    changed: BTreeSet<TaskId>,
    // Deadline of the change of the topology that this worker has drained for.
    drained_for: Option<Timestamp>,
    never_up: BTreeSet<TaskId>,
}

#[derive(Debug, Clone)]
struct Down {
    since: Instant,
    failure: Option<String>,
}

/// Time after which a task that has never come up, or whose component has failed, is reported as
/// idle. A component that takes long to start must not look broken, and one restart is no problem.
const IDLE_AFTER_START: Duration = Duration::from_secs(10);
const IDLE_AFTER_FAILURE: Duration = Duration::from_secs(3);

impl StatusBoard {
    /// Creates a board on which `tasks` are starting.
    pub fn new(tasks: impl IntoIterator<Item = TaskId>) -> Self {
        let statuses: BTreeMap<_, _> = tasks.into_iter().map(|task| (task, TaskStatus::Starting)).collect();
        let never_up: BTreeSet<_> = statuses.keys().copied().collect();
        let n_never_up = watch::Sender::new(never_up.len());
        let now = Down { since: Instant::now(), failure: None };
        let down = never_up.iter().map(|task| (*task, now.clone())).collect();
        let (changed, drained_for) = (never_up.clone(), None);
        let state = Mutex::new(State { changed, drained_for, never_up, statuses, down });
        Self { shared: Arc::new(Shared { state, wake: Notify::new(), n_never_up }) }
    }

    /// Sets the status of a task whose component could not be started, or has ended.
    pub fn set_failed(&self, task: TaskId, failure: String) {
        {
            let mut state = self.lock();
            let down = Down { since: Instant::now(), failure: None };
            state.down.entry(task).or_insert(down).failure = Some(failure);
        }
        self.set(task, TaskStatus::Restarting);
    }

    /// Returns the tasks that have not run for a while, and a line for each reason.
    pub fn idle(&self) -> (TaskSet, Vec<String>) {
        let state = self.lock();
        let mut by_reason: BTreeMap<&str, TaskSet> = BTreeMap::new();
        for (task, down) in &state.down {
            let (limit, reason) = match &down.failure {
                Some(failure) => (IDLE_AFTER_FAILURE, failure.as_str()),
                None => (IDLE_AFTER_START, "not up yet: the component has not answered the handshake"),
            };
            if down.since.elapsed() >= limit {
                by_reason.entry(reason).or_default().insert(*task);
            }
        }
        let mut reasons: Vec<_> = by_reason.iter().map(|(reason, tasks)| (tasks, *reason)).collect();
        reasons.sort_by_key(|(tasks, _)| std::cmp::Reverse(tasks.len()));
        let line = |(tasks, reason): &(&TaskSet, &str)| match tasks.len() {
            1 => format!("task {tasks} does not run: {reason}"),
            n => format!("{n} tasks ({tasks}) do not run: {reason}"),
        };
        let lines = reasons.iter().map(line).collect();
        (by_reason.values().flat_map(TaskSet::iter).collect(), lines)
    }

    /// Sets the status of a task.
    pub fn set(&self, task: TaskId, status: TaskStatus) {
        let mut state = self.lock();
        if state.statuses.insert(task, status) == Some(status) {
            return;
        }
        state.changed.insert(task);
        match status {
            TaskStatus::Running | TaskStatus::Inactive => {
                state.never_up.remove(&task);
                state.down.remove(&task);
                self.shared.n_never_up.send_replace(state.never_up.len());
            }
            TaskStatus::Starting | TaskStatus::Restarting => {}
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Says, in the heartbeats of all tasks, that the worker has drained for the change of the topology with
    /// this deadline; `None` takes it back.
    pub fn set_drained_for(&self, change: Option<Timestamp>) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.drained_for, change) == change {
            return;
        }
        state.changed = state.statuses.keys().copied().collect();
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Returns the change that the worker has drained for.
    pub fn drained_for(&self) -> Option<Timestamp> {
        self.lock().drained_for
    }

    /// Returns whether the component of a task is at work: of a spout, whether it is asked for tuples.
    pub fn is_running(&self, task: TaskId) -> bool {
        self.lock().statuses.get(&task) == Some(&TaskStatus::Running)
    }

    /// Waits until each task has been up at least once.
    pub async fn all_up(&self) {
        let mut n_never_up = self.shared.n_never_up.subscribe();
        // The board itself keeps the sender alive.
        let _all_up = n_never_up.wait_for(|n| *n == 0).await;
    }

    fn take_changed(&self) -> Vec<(TaskId, TaskStatus)> {
        let mut state = self.lock();
        let changed = std::mem::take(&mut state.changed);
        changed.into_iter().filter_map(|task| Some((task, *state.statuses.get(&task)?))).collect()
    }

    fn all(&self) -> Vec<(TaskId, TaskStatus)> {
        let mut state = self.lock();
        state.changed.clear();
        state.statuses.iter().map(|(task, status)| (*task, *status)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().expect("no one panics while holding the statuses")
    }
}

/// Keeps the heartbeats of all tasks in the tree. A heartbeat is written when its task's status
/// changes; all of them are written every `task_heartbeat_period` to update their counts.
pub fn start(
    board: StatusBoard,
    presence: Presence,
    counters: CounterRegistry,
    options: &Options,
    clock: Clock,
    tasks: &Tasks,
) {
    let options = options.clone();
    let began = clock.monotonic();
    tasks.start("task heartbeats", OnExit::StopOwner, async move {
        let mut period = tokio::time::interval(options.spec.task_heartbeat_period);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = tokio::select! {
                // The rarer event first, so that it is not starved.
                biased;
                // Cancel-safe: both only wait, and changed statuses stay on the board.
                _ = period.tick() => board.all(),
                () = board.shared.wake.notified() => board.take_changed(),
            };
            let drained_for = board.drained_for();
            let uptime_secs = clock.monotonic().since(began).as_secs();
            presence.keep_all(due.into_iter().map(|(task, status)| {
                let (counts, pending) = counters.read(task);
                let beat = record::TaskHeartbeat {
                    host: options.spec.host.clone(),
                    port: options.port(),
                    worker: options.spec.worker.clone(),
                    status,
                    uptime_secs,
                    counts,
                    pending,
                    drained_for,
                    unknown_fields: record::UnknownFields::new(),
                };
                (Ephemeral::TaskHeartbeat(options.spec.topology.clone(), task), record::encode(&beat))
            }));
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{heartbeat_file, owner::Owner, tests::options};
    use stormkeeper_coordination::{
        cluster::{layout, store::Store},
        tree::{Tree as _, memory::MemoryTree},
    };
    use stormkeeper_runtime::test_support::wait_until;

    #[tokio::test]
    async fn status_change_is_written_to_the_tree_and_the_heartbeat_file_advances() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut options = options(dir.path());
        options.spec.task_heartbeat_period = Duration::from_secs(3600);
        let (server, tasks) = (MemoryTree::new(), Tasks::default());
        let store = Store::new(server.connect());
        server.connect().ensure(&layout::taskbeats(&options.spec.topology)).await.expect("created");
        let presence = Presence::start(server.connect(), &tasks);
        let board = StatusBoard::new([TaskId(1), TaskId(2)]);
        let counters = CounterRegistry::default();
        start(board.clone(), presence, counters.clone(), &options, Clock::new(), &tasks);
        heartbeat_file::start(&options, &Owner::of(&options.spec), &tasks);
        let seen = |expected: [TaskStatus; 2]| {
            let (store, topology) = (store.clone(), options.spec.topology.clone());
            async move {
                wait_until("the statuses are in the tree", Duration::from_secs(30), || async {
                    let beats = store.task_heartbeats(&topology).await.map_err(|error| error.to_string())?;
                    let statuses: Vec<TaskStatus> = beats.values().map(|beat| beat.status).collect();
                    if statuses == expected { Ok(beats) } else { Err(format!("{statuses:?}")) }
                })
                .await
            }
        };
        seen([TaskStatus::Starting; 2]).await;
        counters.of(TaskId(2)).emitted.add(5);
        board.set(TaskId(2), TaskStatus::Running);
        let beats = seen([TaskStatus::Starting, TaskStatus::Running]).await;
        assert_eq!(beats[&TaskId(2)].counts.emitted, 5);
        board.set(TaskId(1), TaskStatus::Inactive);
        board.all_up().await;
        wait_until("the heartbeat advances", Duration::from_secs(30), || async {
            let text = std::fs::read_to_string(options.spec.dir.join(heartbeat_file::HEARTBEAT_FILE))
                .map_err(|e| e.to_string())?;
            let [format, beat, pid] = text.split_whitespace().collect::<Vec<_>>()[..] else {
                return Err(text.clone());
            };
            assert_eq!(format, "v1");
            assert_eq!(pid, std::process::id().to_string());
            if beat.parse::<u64>().is_ok_and(|beat| beat >= 3) { Ok(()) } else { Err(text) }
        })
        .await;
    }
}
