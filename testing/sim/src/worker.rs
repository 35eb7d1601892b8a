//! A fake worker process: it behaves towards the tree and its supervisor like the real worker, and
//! has its metrics, without components and tuples.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    connection::Connection, machine::Machine, model::MachineEvent, network::NetworkIngest,
    tuple_counter::TupleCounter,
};
use stormkeeper_coordination::cluster::{layout::Ephemeral, presence::Presence, store::Store};
use stormkeeper_model::{
    TaskId, error::TaskError, heartbeat::TaskStatus, task_set::TaskSet, topology::TaskTable,
};
use stormkeeper_runtime::{
    proc::ProcessTree,
    tasks::{OnExit, Tasks},
};
use stormkeeper_supervisor::process::ExitReport;
use stormkeeper_topology_package::launch::LaunchSpec;
use stormkeeper_worker::{
    Options,
    counters::CounterRegistry,
    fake_worker::FakeWorkerMetrics,
    follow,
    heartbeat::{self, StatusBoard},
    heartbeat_file,
    transport::Identity,
};

/// Maximum time that components take to start.
const START_MAX: Duration = Duration::from_secs(8);

/// Maximum time that a worker takes to exit: longer than its supervisor's grace, so that some
/// workers are killed.
const LEAVE_MAX: Duration = Duration::from_secs(4);

/// Bounds of the pause between two errors of one worker.
const ERROR_PAUSE_MIN: Duration = Duration::from_secs(5);
const ERROR_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Limit for removing the heartbeats of a worker that exits.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(1);

/// Limit for writing the last metric report.
const METRICS_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A worker process.
pub(super) struct FakeWorker {
    pub(super) machine: Arc<Machine>,
    pub(super) pid: u32,
    pub(super) spec: LaunchSpec,
    pub(super) connection: Arc<Connection>,
    pub(super) stop: CancellationToken,
    pub(super) random: fastrand::Rng,
}

impl FakeWorker {
    pub(super) async fn run_to_end(mut self) {
        self.run().await;
        self.machine.end(self.pid, ExitReport::Code(0));
    }

    async fn run(&mut self) {
        let options = Options { usage, ..Options::from(self.spec.clone()) };
        let store = Store::new(self.connection.tree());
        let tasks = Tasks::default();
        self.start_heartbeat(&options, &tasks);
        let records = tokio::select! {
            biased;
            () = self.stopped() => return,
            records = follow::read_first(&store, &options) => records,
        };
        let Some(records) = records else { return };
        let own = records.assignment.workers.get(&options.spec.slot).map(|worker| worker.tasks.clone());
        let own = own.unwrap_or_default();
        self.machine
            .record(&MachineEvent::ReadTasks { worker: self.spec.worker.clone(), tasks: own.clone() });
        let board = StatusBoard::new(own.iter());
        let presence = Presence::start(self.connection.tree(), &tasks);
        let heartbeats = tasks.child();
        let clock = self.machine.clock.clone();
        heartbeat::start(
            board.clone(),
            presence.clone(),
            CounterRegistry::default(),
            &options,
            clock,
            &heartbeats,
        );
        self.start_tasks(board.clone(), &own, &tasks);
        self.start_errors(store.clone(), own.clone(), records.table.clone(), &tasks);
        let Some(mut metrics) = self.start_metrics(&store, &options, &tasks) else { return };
        let counting = tasks.child();
        let counter = TupleCounter::new(self, &metrics, &own, &records.table);
        counting.start("tuples", OnExit::Ignore, counter.run());
        tokio::select! {
                   biased;
                   () = self.stopped() => {}
                   () = follow::follow(&store, &options, board.all_up(), |records, _| {
        metrics.follow(&records.assignment, records.metrics.as_ref());
        }) => {}
               }
        tokio::time::sleep(LEAVE_MAX.mul_f64(self.random.f64().powi(4))).await;
        drop((heartbeats, counting));
        metrics.stop(METRICS_STOP_TIMEOUT).await;
        own.iter().for_each(|task| {
            presence.withdraw(&Ephemeral::TaskHeartbeat(options.spec.topology.clone(), task))
        });
        // Without a connection, the end of the session removes the heartbeats later.
        let _withdrawn = tokio::time::timeout(WITHDRAW_TIMEOUT, presence.settled()).await;
        self.connection.tree().close().await;
    }

    /// Resolves on SIGTERM, except in a process that hangs.
    async fn stopped(&self) {
        self.stop.cancelled().await;
        if self.machine.is_hung(self.pid) {
            std::future::pending().await
        }
    }

    /// Starts to write the heartbeat file. A process that hangs does not write it.
    fn start_heartbeat(&self, options: &Options, tasks: &Tasks) {
        let (machine, pid, dir, period) =
            (Arc::clone(&self.machine), self.pid, options.spec.dir.clone(), options.spec.heartbeat_period);
        tasks.start("heartbeat file", OnExit::Ignore, async move {
            let mut period = tokio::time::interval(period);
            for n in 1_u64.. {
                period.tick().await;
                if machine.is_hung(pid) {
                    return;
                }
                let written =
                    std::fs::write(dir.join(heartbeat_file::HEARTBEAT_FILE), format!("v1 {n} {pid}\n"));
                written.expect("the scratch directory can be written");
            }
        });
    }

    /// Starts the metrics. `None` if the supervisor has removed the directory of the worker or its
    /// package, which ends the worker.
    fn start_metrics(&self, store: &Store, options: &Options, tasks: &Tasks) -> Option<FakeWorkerMetrics> {
        let (env, spec) = (&self.machine.env, &self.spec);
        let topology = std::fs::read(spec.code.join("topology.json")).ok()?;
        let topology = serde_json::from_slice(&topology).expect("a package has a topology");
        let ingest = NetworkIngest::new(&env.network, spec.worker.to_string(), store.clone());
        let connections = (Arc::new(ingest) as _, Arc::clone(&env.masters) as _);
        let metrics =
            FakeWorkerMetrics::start(options, &topology, connections, &self.machine.clock, tasks).ok()?;
        let me = Identity { topology: spec.topology.clone(), slot: spec.slot.clone() };
        env.masters.add(me, metrics.master());
        Some(metrics)
    }

    fn start_tasks(&mut self, board: StatusBoard, own: &TaskSet, tasks: &Tasks) {
        for task in own.iter() {
            let (board, pause) = (board.clone(), START_MAX.mul_f64(self.random.f64()));
            tasks.start("task", OnExit::Ignore, async move {
                tokio::time::sleep(pause).await;
                board.set(task, TaskStatus::Running);
            });
        }
    }

    /// Starts to report numbered errors, one after the other.
    fn start_errors(&mut self, store: Store, own: TaskSet, table: TaskTable, tasks: &Tasks) {
        let (machine, spec, mut random) = (Arc::clone(&self.machine), self.spec.clone(), self.random.fork());
        let own: Vec<TaskId> = own.iter().collect();
        tasks.start("errors", OnExit::Ignore, async move {
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
                // A failed report is not retried.
                if store.report_error(&spec.topology, error).await.is_ok() {
                    let topology = spec.topology.clone();
                    machine.record(&MachineEvent::ErrorStored { topology, task, message });
                }
            }
        });
    }
}

/// Resource usage of each process: the same at all times, as real numbers differ from run to run.
fn usage() -> std::io::Result<ProcessTree> {
    Ok(ProcessTree::default())
}
