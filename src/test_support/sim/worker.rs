//! The life of a fake worker process: the real worker's ways with the tree and its
//! supervisor, without components and tuples.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{layout::Ephemeral, presence::Presence, store::Store},
    daemon::tasks::{Ending, Tasks},
    model::{TaskId, beat::TaskStatus, error::TaskError, task_set::TaskSet, topology::TaskTable},
    rpc::launch::LaunchSpec,
    supervisor::process::ExitReport,
    test_support::sim::{connection::Connection, facts::MachineEvent, machine::Machine},
    worker::{
        Options,
        beat::{self, StatusBoard},
        counters::Registry,
        follow,
    },
};

/// The longest that components take to come up.
const START_MAX: Duration = Duration::from_secs(8);

/// The longest that a worker takes to leave: longer than its supervisor's grace, so that
/// some are killed.
const LEAVE_MAX: Duration = Duration::from_secs(4);

/// Between two errors of one worker.
const ERROR_PAUSE_MIN: Duration = Duration::from_secs(5);
const ERROR_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long the tree may take to hear that a worker leaves.
const FAREWELL: Duration = Duration::from_secs(1);

/// A worker process.
pub(super) struct Life {
    pub(super) machine: Arc<Machine>,
    pub(super) pid: u32,
    pub(super) spec: LaunchSpec,
    pub(super) connection: Arc<Connection>,
    pub(super) stop: CancellationToken,
    pub(super) random: fastrand::Rng,
}

impl Life {
    pub(super) async fn live(mut self) {
        self.run().await;
        self.machine.end(self.pid, ExitReport::Code(0));
    }

    async fn run(&mut self) {
        let options = Options::from(self.spec.clone());
        let store = Store::new(self.connection.tree());
        let tasks = Tasks::default();
        self.start_heartbeat(&options, &tasks);
        let records = tokio::select! {
            biased;
            () = self.stopped() => return,
            records = follow::read_first(&store, &options) => records,
        };
        let Some(records) = records else { return };
        let own = records.assignment.workers.get(&options.slot).map(|worker| worker.tasks.clone());
        let own = own.unwrap_or_default();
        self.machine.tell(&MachineEvent::Began { worker: self.spec.worker.clone(), tasks: own.clone() });
        let board = StatusBoard::new(own.iter());
        let presence = Presence::start(self.connection.tree(), &tasks);
        let beats = tasks.child();
        let clock = self.machine.clock.clone();
        beat::start(board.clone(), presence.clone(), Registry::default(), &options, clock, &beats);
        self.start_tasks(board.clone(), &own, &tasks);
        self.start_errors(store.clone(), own.clone(), records.table, &tasks);
        tokio::select! {
            biased;
            () = self.stopped() => {}
            () = follow::follow(&store, &options, board.all_up(), |_, _| {}) => {}
        }
        tokio::time::sleep(LEAVE_MAX.mul_f64(self.random.f64().powi(4))).await;
        drop(beats);
        own.iter().for_each(|task| presence.withdraw(&Ephemeral::TaskBeat(options.topology.clone(), task)));
        // Without a connection the session's end says the same, later.
        let _heard = tokio::time::timeout(FAREWELL, presence.settled()).await;
        self.connection.tree().close().await;
    }

    /// Asked to stop; a process that hangs does not hear of it.
    async fn stopped(&self) {
        self.stop.cancelled().await;
        if self.machine.is_hung(self.pid) {
            std::future::pending().await
        }
    }

    /// The file that the supervisor looks at. A process that hangs does not write it.
    fn start_heartbeat(&self, options: &Options, tasks: &Tasks) {
        let (machine, pid, dir, period) =
            (Arc::clone(&self.machine), self.pid, options.dir.clone(), options.heartbeat_period);
        tasks.start("heartbeat file", Ending::Normal, async move {
            let mut period = tokio::time::interval(period);
            for beat in 1_u64.. {
                period.tick().await;
                if machine.is_hung(pid) {
                    return;
                }
                let written = std::fs::write(dir.join(beat::HEARTBEAT_FILE), format!("{beat} {pid}\n"));
                written.expect("the scratch directory can be written");
            }
        });
    }

    fn start_tasks(&mut self, board: StatusBoard, own: &TaskSet, tasks: &Tasks) {
        for task in own.iter() {
            let (board, pause) = (board.clone(), START_MAX.mul_f64(self.random.f64()));
            tasks.start("task", Ending::Normal, async move {
                tokio::time::sleep(pause).await;
                board.set(task, TaskStatus::Running);
            });
        }
    }

    /// Reports errors with numbers, one after the other.
    fn start_errors(&mut self, store: Store, own: TaskSet, table: TaskTable, tasks: &Tasks) {
        let (machine, spec, mut random) = (Arc::clone(&self.machine), self.spec.clone(), self.random.fork());
        let own: Vec<TaskId> = own.iter().collect();
        tasks.start("errors", Ending::Normal, async move {
            for number in 1_u64.. {
                let pause = ERROR_PAUSE_MAX - ERROR_PAUSE_MIN;
                tokio::time::sleep(ERROR_PAUSE_MIN + pause.mul_f64(random.f64())).await;
                let Some(task) = random.choice(&own).copied() else { return };
                let Some(component) = table.component_of(task).cloned() else { continue };
                let message = format!("error {number} of {}", spec.worker);
                let error = TaskError {
                    component,
                    task,
                    time: machine.clock.now(),
                    host: spec.host.clone(),
                    port: spec.slot.port,
                    message: message.clone(),
                    stack: String::new(),
                };
                // One that fails is not reported again: this worker does not insist.
                if store.report_error(&spec.topology, error).await.is_ok() {
                    let topology = spec.topology.clone();
                    machine.tell(&MachineEvent::ErrorStored { topology, task, message });
                }
            }
        });
    }
}
