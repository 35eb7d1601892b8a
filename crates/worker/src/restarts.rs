//! Restarts of this worker's components within the last minutes, in a file that the supervisor reads.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Notify, time::MissedTickBehavior};
use tracing::{debug, warn};

use crate::Options;
use stormkeeper_model::{
    ComponentId, TaskId,
    clock::{Clock, Monotonic},
    restarts::RestartHistory,
};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};
use stormkeeper_topology_package::worker_restarts::{ComponentRestarts, RESTARTS_FILE, WorkerRestarts};

/// Shortest time between two writes of the file.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// Period in which restarts that are too old leave the file.
const FORGET_PERIOD: Duration = Duration::from_secs(30);

/// Restarts of each task's component. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct RestartBoard {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    // Guards the histories, one for each task that was restarted; held for a few instructions.
    histories: Mutex<BTreeMap<(ComponentId, TaskId), RestartHistory>>,
    wake: Notify,
    clock: Clock,
}

impl RestartBoard {
    /// Creates an empty board, and keeps the file in the directory of the worker until `tasks` end.
    pub(crate) fn start(options: &Options, clock: Clock, tasks: &Tasks) -> Self {
        let shared = Arc::new(Shared { histories: Mutex::default(), wake: Notify::new(), clock });
        let board = Self { shared };
        tasks.start("count restarts", OnExit::Ignore, write_all(board.clone(), options.spec.dir.clone()));
        board
    }

    /// Adds a restart of the component of a task.
    pub(crate) fn add(&self, component: &ComponentId, task: TaskId, reason: &str) {
        let now = self.shared.clock.monotonic();
        self.histories().entry((component.clone(), task)).or_default().add(now, reason);
        self.shared.wake.notify_one();
    }

    /// The restarts within the window, of each component those of the task that has the most.
    fn current(&self, now: Monotonic) -> WorkerRestarts {
        let mut most: BTreeMap<ComponentId, (u32, String)> = BTreeMap::new();
        self.histories().retain(|(component, _), history| {
            let n = history.count(now);
            let entry = most.entry(component.clone()).or_default();
            if n > entry.0 {
                *entry = (n, history.reason().to_owned());
            }
            n > 0
        });
        let again = most.into_iter().filter(|(_, (n, _))| *n > 0);
        let mut components: Vec<ComponentRestarts> =
            again.map(|(component, (n, reason))| ComponentRestarts { component, n, reason }).collect();
        components.sort_by(|a, b| b.n.cmp(&a.n).then_with(|| a.component.cmp(&b.component)));
        WorkerRestarts { components }
    }

    fn histories(&self) -> MutexGuard<'_, BTreeMap<(ComponentId, TaskId), RestartHistory>> {
        self.shared.histories.lock().expect("no one panics while holding the histories")
    }
}

async fn write_all(board: RestartBoard, dir: std::path::PathBuf) {
    let opened = blocking::run(move || open(&dir)).await;
    let file = match opened {
        Ok(file) => Arc::new(file),
        Err(error) => return warn!(%error, "cannot count restarts of components for the supervisor"),
    };
    let mut written = WorkerRestarts::default();
    let mut forget = tokio::time::interval(FORGET_PERIOD);
    forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Cancel-safe: both only wait, and restarts stay on the board.
            _ = forget.tick() => {}
            () = board.shared.wake.notified() => {}
        }
        let current = board.current(board.shared.clock.monotonic());
        if current != written {
            let (bytes, to) = (current.encode(), Arc::clone(&file));
            match blocking::run(move || to.write_all_at(&bytes, 0)).await {
                Ok(()) => written = current,
                // The file is full length since the start, so mostly the next attempt succeeds.
                Err(error) => debug!(%error, "cannot write the restarts of components"),
            }
        }
        tokio::time::sleep(WRITE_PAUSE).await;
    }
}

/// Opens the file, at its full length.
fn open(dir: &Path) -> io::Result<File> {
    let path = dir.join(RESTARTS_FILE);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    file.write_all_at(&WorkerRestarts::default().encode(), 0)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{id, options};
    use stormkeeper_model::{Timestamp, restarts::RESTART_WINDOW};
    use stormkeeper_runtime::test_support::wait_until;

    #[tokio::test]
    async fn restarts_of_the_worst_task_are_in_the_file_until_the_window_is_over() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (options, clock, tasks) =
            (options(dir.path()), Clock::manual(Timestamp::EPOCH), Tasks::default());
        let board = RestartBoard::start(&options, clock.clone(), &tasks);
        board.add(&id("split"), TaskId(1), "a");
        (0..3).for_each(|_| board.add(&id("split"), TaskId(2), "exit status: 1"));
        board.add(&id("count"), TaskId(3), "b");
        let file = options.spec.dir.join(RESTARTS_FILE);
        let read = wait_until("the restarts are in the file", Duration::from_secs(30), || async {
            let bytes = std::fs::read(&file).map_err(|error| error.to_string())?;
            let read = WorkerRestarts::decode(&bytes).ok_or("half written")?;
            if read.components.len() == 2 { Ok(read) } else { Err(format!("{read:?}")) }
        })
        .await;
        let shown: Vec<_> =
            read.components.iter().map(|it| (it.component.as_str(), it.n, &*it.reason)).collect();
        assert_eq!(shown, [("split", 3, "exit status: 1"), ("count", 1, "b")]);
        clock.advance(RESTART_WINDOW);
        assert_eq!(board.current(clock.monotonic()), WorkerRestarts::default());
        assert!(board.histories().is_empty());
    }
}
