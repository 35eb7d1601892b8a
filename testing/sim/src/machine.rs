//! A machine with fake worker processes. It outlives its supervisors.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::Connection,
    environment::Environment,
    journal::Party,
    model::{MachineEvent, Process},
    worker,
};
use stormkeeper_model::{WorkerId, clock::Clock};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};
use stormkeeper_supervisor::process::{Error, ExitReport, ProcessId, Processes, StopSignal};
use stormkeeper_topology_package::launch::LaunchSpec;

/// Maximum time that the system takes to start a process, and to report the start.
const LAUNCH_MAX: Duration = Duration::from_millis(50);

/// One machine: its processes and its clock.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) env: Arc<Environment>,
    pub(super) clock: Clock,
    // Guards the table of processes; held for a few instructions.
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    n_launched: u32,
    running: BTreeMap<u32, Running>,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Running {
    worker: WorkerId,
    connection: Arc<Connection>,
    ended: watch::Sender<Option<ExitReport>>,
    /// Cancelled by SIGTERM.
    stop: CancellationToken,
    is_hung: bool,
    /// The tasks of the process.
    _tasks: Tasks,
}

impl Machine {
    pub(super) fn new(env: Arc<Environment>, clock: Clock, random: fastrand::Rng) -> Arc<Self> {
        let table = Mutex::new(Table { n_launched: 0, running: BTreeMap::new(), random });
        Arc::new(Self { env, clock, table })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no one panics while holding the processes")
    }

    fn launch(self: &Arc<Self>, spec: &LaunchSpec) -> ProcessId {
        let mut table = self.table();
        table.n_launched += 1;
        let (pid, random) = (table.n_launched, table.random.fork());
        drop(table);
        let worker = spec.worker.clone();
        let connection = Connection::open(&self.env, Party::Worker(worker.to_string()));
        self.record(&MachineEvent::Launched(Process {
            worker: worker.clone(),
            topology: spec.topology.clone(),
            slot: spec.slot.clone(),
            start: spec.start,
            connection: connection.id(),
            launched: self.env.now(),
            tasks: None,
            is_responsive: true,
            blob: spec.code.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }));
        let (tasks, stop) = (Tasks::default(), CancellationToken::new());
        let process = worker::FakeWorker {
            machine: Arc::clone(self),
            pid,
            spec: spec.clone(),
            connection: Arc::clone(&connection),
            stop: stop.clone(),
            random,
        };
        tasks.start("worker", OnExit::Ignore, process.run_to_end());
        let ended = watch::Sender::new(None);
        let running = Running { worker, connection, ended, stop, is_hung: false, _tasks: tasks };
        self.table().running.insert(pid, running);
        ProcessId { pid, started: 1 }
    }

    /// Records an event of this machine in the journal.
    pub(super) fn record(&self, event: &MachineEvent) {
        self.env.journal().machine(event);
    }

    /// Ends a process and reports its end to the supervisor.
    pub(super) fn end(&self, pid: u32, report: ExitReport) {
        let Some(process) = self.table().running.remove(&pid) else { return };
        process.connection.kill(&self.env.tasks);
        self.record(&MachineEvent::Ended { worker: process.worker.clone(), report });
        process.ended.send_replace(Some(report));
    }

    /// Powers the machine off: all processes end at once.
    pub(super) fn crash(&self) {
        for pid in self.pids() {
            self.end(pid, ExitReport::Unknown);
        }
    }

    /// The pids of the running processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.table().running.keys().copied().collect()
    }

    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        self.table().running.values().map(|process| Arc::clone(&process.connection)).collect()
    }

    /// Makes a process hang: it writes no heartbeats and ignores SIGTERM.
    pub(super) fn hang(&self, pid: u32) {
        let mut table = self.table();
        let Some(process) = table.running.get_mut(&pid) else { return };
        process.is_hung = true;
        process.connection.faults().freeze();
        let worker = process.worker.clone();
        drop(table);
        self.record(&MachineEvent::Hangs { worker });
    }

    pub(super) fn is_hung(&self, pid: u32) -> bool {
        self.table().running.get(&pid).is_some_and(|process| process.is_hung)
    }

    fn pid_of(&self, worker: &WorkerId) -> Option<u32> {
        let table = self.table();
        table.running.iter().find(|(_, process)| process.worker == *worker).map(|(pid, _)| *pid)
    }

    fn pause(&self) -> Duration {
        LAUNCH_MAX.mul_f64(self.table().random.f64())
    }
}

/// The processes of a machine as one run of its supervisor controls them.
#[derive(Debug)]
pub(super) struct SupervisorProcesses {
    pub(super) machine: Arc<Machine>,
    /// Cancelled when that supervisor has ended.
    pub(super) died: CancellationToken,
}

impl SupervisorProcesses {
    /// Blocks for ever if the supervisor is dead: its pending actions never happen.
    async fn hang_if_dead(&self) {
        if self.died.is_cancelled() {
            std::future::pending().await
        }
    }
}

#[async_trait]
impl Processes for SupervisorProcesses {
    async fn launch(&self, spec: &LaunchSpec) -> Result<ProcessId, Error> {
        tokio::time::sleep(self.machine.pause()).await;
        self.hang_if_dead().await;
        let id = self.machine.launch(spec);
        // A supervisor that dies here leaves a process that its ledger does not name.
        tokio::time::sleep(self.machine.pause()).await;
        self.hang_if_dead().await;
        Ok(id)
    }

    async fn exited(&self, id: ProcessId) -> ExitReport {
        let ended = self.machine.table().running.get(&id.pid).map(|process| process.ended.subscribe());
        let Some(mut ended) = ended else { return ExitReport::Unknown };
        // The sender is dropped after it has sent the exit report.
        let _ended = ended.wait_for(Option::is_some).await;
        self.hang_if_dead().await;
        let report = *ended.borrow();
        report.unwrap_or(ExitReport::Unknown)
    }

    fn signal(&self, id: ProcessId, signal: StopSignal) -> Result<(), Error> {
        let table = self.machine.table();
        let Some(process) = table.running.get(&id.pid) else { return Ok(()) };
        let (worker, stop) = (process.worker.clone(), process.stop.clone());
        drop(table);
        self.machine.record(&MachineEvent::Signalled { worker, signal });
        match signal {
            StopSignal::Terminate => stop.cancel(),
            StopSignal::Kill => self.machine.end(id.pid, ExitReport::Signal(9)),
        }
        Ok(())
    }

    fn is_alive(&self, id: ProcessId) -> bool {
        self.machine.table().running.contains_key(&id.pid)
    }

    async fn find(&self, worker: &WorkerId, _user: Option<u32>) -> Option<ProcessId> {
        self.machine.pid_of(worker).map(|pid| ProcessId { pid, started: 1 })
    }

    async fn sweep(&self, worker: &WorkerId) -> usize {
        match self.machine.pid_of(worker) {
            Some(pid) => {
                self.machine
                    .record(&MachineEvent::Signalled { worker: worker.clone(), signal: StopSignal::Kill });
                self.machine.end(pid, ExitReport::Signal(9));
                1
            }
            None => 0,
        }
    }
}
