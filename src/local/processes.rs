//! Workers that run as tasks of this process, or as processes of worker programs.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::programs::{self, Programs};
use stormkeeper_coordination::tree::memory::MemoryTree;
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::{
    blocking,
    net::ListenOn,
    tasks::{OnExit, Tasks},
};
use stormkeeper_supervisor::process::{Error, ExitReport, ProcessId, Processes, StopSignal};
use stormkeeper_topology_package::launch::LaunchSpec;
use stormkeeper_worker as worker;
use stormkeeper_worker::IngestTransport;

/// Runs each worker as a task with its own session.
#[derive(Debug)]
pub(super) struct InProcess {
    server: MemoryTree,
    programs: Programs,
    // Sends metrics to the leader; `None` if the run keeps none.
    ingest: Option<Arc<dyn IngestTransport>>,
    clock: Clock,
    tasks: Tasks,
    next: AtomicU32,
    // Guards the table of running workers; held for a look-up.
    running: Mutex<BTreeMap<u32, Running>>,
}

/// Ends of a worker: two to bring it about, and one to report it.
struct Ending {
    stop: CancellationToken,
    kill: CancellationToken,
    report: watch::Sender<Option<ExitReport>>,
}

#[derive(Debug, Clone)]
struct Running {
    stop: CancellationToken,
    kill: CancellationToken,
    exit: watch::Receiver<Option<ExitReport>>,
}

impl InProcess {
    /// Workers of the tree `server`, which programs share over the socket `socket`. With `ingest` they send
    /// metrics.
    pub(super) fn new(
        server: MemoryTree,
        socket: PathBuf,
        ingest: Option<Arc<dyn IngestTransport>>,
        clock: Clock,
    ) -> Self {
        Self {
            programs: Programs::new(server.clone(), socket, ingest.is_some()),
            ingest,
            server,
            clock,
            tasks: Tasks::default(),
            next: AtomicU32::new(1),
            running: Mutex::new(BTreeMap::new()),
        }
    }

    /// Adds a worker to the table.
    fn add(&self) -> (ProcessId, Ending) {
        let pid = self.next.fetch_add(1, Ordering::Relaxed);
        let (report, exit) = watch::channel(None);
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let mut table = self.running.lock().expect("no one panics while holding the table of workers");
        // Ended workers are not queried again once their slot has a new launch.
        table.retain(|_, running| running.exit.borrow().is_none());
        table.insert(pid, Running { stop: stop.clone(), kill: kill.clone(), exit });
        (ProcessId { pid, started: 0 }, Ending { stop, kill, report })
    }

    /// Runs a worker as a task of this process.
    fn launch_task(&self, spec: &LaunchSpec) -> ProcessId {
        let (id, Ending { stop, kill, report }) = self.add();
        let tree = self.server.connect();
        // Without metrics, heartbeats carry the counts.
        let ingest = self.ingest.clone();
        let options = worker::Options {
            // Nobody outside of this process sends tuples.
            listen_on: ListenOn::Address(Ipv4Addr::LOCALHOST.into()),
            ..worker::Options::from(spec.clone())
        };
        let (worker, clock) = (spec.worker.clone(), self.clock.clone());
        self.tasks.start_graceful("worker", OnExit::Ignore, async move {
            let ended = tokio::select! {
                // Cancel-safe: a dropped worker kills its children, as a kill must.
                () = kill.cancelled() => None,
                ended = worker::run(options, tree.clone() as _, ingest, clock, stop) => Some(ended),
            };
            stormkeeper_coordination::tree::Tree::close(&*tree).await;
            report.send_replace(Some(match ended {
                Some(Ok(_)) => ExitReport::Code(0),
                Some(Err(error)) => {
                    warn!(%worker, %error, "a worker of the local cluster failed");
                    ExitReport::Code(1)
                }
                None => ExitReport::Signal(9),
            }));
        });
        id
    }

    fn find(&self, id: ProcessId) -> Option<Running> {
        let running = self.running.lock().expect("no one panics while holding the table of workers");
        running.get(&id.pid).cloned()
    }
}

#[async_trait]
impl Processes for InProcess {
    async fn launch(&self, spec: &LaunchSpec) -> Result<ProcessId, Error> {
        let program = spec.clone();
        match blocking::run(move || program.worker_program()).await {
            None => Ok(self.launch_task(spec)),
            Some(program) => {
                let child = self.programs.start(program, spec).await?;
                let (id, Ending { stop, kill, report }) = self.add();
                self.tasks.start_graceful("worker", OnExit::Ignore, async move {
                    report.send_replace(Some(programs::ended(child, stop, kill).await));
                });
                Ok(id)
            }
        }
    }

    async fn exited(&self, id: ProcessId) -> ExitReport {
        let Some(mut running) = self.find(id) else { return ExitReport::Unknown };
        let exit = running.exit.wait_for(Option::is_some).await;
        exit.ok().and_then(|report| *report).unwrap_or(ExitReport::Unknown)
    }

    fn signal(&self, id: ProcessId, signal: StopSignal) -> Result<(), Error> {
        if let Some(running) = self.find(id) {
            match signal {
                StopSignal::Terminate => running.stop.cancel(),
                StopSignal::Kill => running.kill.cancel(),
            }
        }
        Ok(())
    }

    fn is_alive(&self, id: ProcessId) -> bool {
        self.find(id).is_some_and(|running| running.exit.borrow().is_none())
    }
}
