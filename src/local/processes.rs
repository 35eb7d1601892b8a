//! Workers that run as tasks of this process.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use stormkeeper_coordination::tree::memory::MemoryTree;
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::{
    net::ListenOn,
    tasks::{OnExit, Tasks},
};
use stormkeeper_supervisor::process::{Error, ExitReport, ProcessId, Processes, StopSignal};
use stormkeeper_topology_package::launch::LaunchSpec;
use stormkeeper_worker as worker;
use stormkeeper_worker::MetricReports;

/// Runs each worker as a task with its own session.
#[derive(Debug)]
pub(super) struct InProcess {
    server: MemoryTree,
    clock: Clock,
    tasks: Tasks,
    next: AtomicU32,
    // Guards the table of running workers; held for a look-up.
    running: Mutex<BTreeMap<u32, Running>>,
}

#[derive(Debug, Clone)]
struct Running {
    stop: CancellationToken,
    kill: CancellationToken,
    exit: watch::Receiver<Option<ExitReport>>,
}

impl InProcess {
    pub(super) fn new(server: MemoryTree, clock: Clock) -> Self {
        Self {
            server,
            clock,
            tasks: Tasks::default(),
            next: AtomicU32::new(1),
            running: Mutex::new(BTreeMap::new()),
        }
    }

    fn find(&self, id: ProcessId) -> Option<Running> {
        let running = self.running.lock().expect("no one panics while holding the table of workers");
        running.get(&id.pid).cloned()
    }
}

#[async_trait]
impl Processes for InProcess {
    async fn launch(&self, spec: &LaunchSpec) -> Result<ProcessId, Error> {
        let pid = self.next.fetch_add(1, Ordering::Relaxed);
        let (report, exit) = watch::channel(None);
        let running = Running { stop: CancellationToken::new(), kill: CancellationToken::new(), exit };
        let (stop, kill) = (running.stop.clone(), running.kill.clone());
        let mut table = self.running.lock().expect("no one panics while holding the table of workers");
        // Ended workers are not queried again once their slot has a new launch.
        table.retain(|_, running| running.exit.borrow().is_none());
        table.insert(pid, running);
        drop(table);
        let tree = self.server.connect();
        // Local mode keeps no history, and heartbeats carry the counts.
        let options = worker::Options {
            metrics: MetricReports::Off,
            // Nobody outside of this process sends tuples.
            listen_on: ListenOn::Address(Ipv4Addr::LOCALHOST.into()),
            ..worker::Options::from(spec.clone())
        };
        let (worker, clock) = (spec.worker.clone(), self.clock.clone());
        self.tasks.start_graceful("worker", OnExit::Ignore, async move {
            let ended = tokio::select! {
                // Cancel-safe: a dropped worker kills its children, as a kill must.
                () = kill.cancelled() => None,
                ended = worker::run(options, tree.clone() as _, None, clock, stop) => Some(ended),
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
        Ok(ProcessId { pid, started: 0 })
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
