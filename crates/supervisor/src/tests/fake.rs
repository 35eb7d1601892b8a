//! Fake processes that a test controls.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::process::{Error, ExitReport, ProcessId, Processes, StopSignal};
use stormkeeper_model::{Port, WorkerId};
use stormkeeper_runtime::tasks::{OnExit, Tasks};
use stormkeeper_topology_package::launch::LaunchSpec;

/// A host with fake workers. It outlives its supervisors.
#[derive(Debug, Default)]
pub(super) struct FakeProcesses {
    host: Mutex<FakeHost>,
}

#[derive(Debug, Default)]
struct FakeHost {
    n_launched: u32,
    running: BTreeMap<u32, Process>,
    /// The specs of all launches.
    specs: Vec<LaunchSpec>,
    signals: Vec<StopSignal>,
    /// Ports that other programs use.
    taken_ports: BTreeSet<Port>,
    behaviour: Behaviour,
}

#[derive(Debug)]
struct Process {
    spec: LaunchSpec,
    ended: watch::Sender<Option<ExitReport>>,
}

/// Behaviour of workers from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Writes heartbeats and exits on SIGTERM.
    #[default]
    Healthy,
    /// Writes no heartbeats and ignores SIGTERM.
    Hangs,
    /// Ends at once with status 1.
    Crashes,
    /// Writes a heartbeat and ends at once.
    CrashesAfterStart,
    /// Cannot be started.
    IsMissing,
}

impl FakeProcesses {
    /// A host whose workers write heartbeats every second while `tasks` run.
    pub(super) fn new(tasks: &Tasks) -> Arc<Self> {
        let fake = Arc::new(Self::default());
        let host = Arc::downgrade(&fake);
        tasks.start("heartbeats", OnExit::Ignore, async move {
            let mut n = 0;
            while let Some(fake) = host.upgrade() {
                n += 1;
                fake.write_heartbeats(n);
                drop(fake);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        fake
    }

    fn host(&self) -> MutexGuard<'_, FakeHost> {
        self.host.lock().expect("no one panics while holding the host")
    }

    fn write_heartbeats(&self, n: u64) {
        let host = self.host();
        if host.behaviour == Behaviour::Healthy {
            for (pid, process) in &host.running {
                fs::write(process.spec.dir.join("heartbeat"), format!("{n} {pid}")).expect("written");
            }
        }
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        self.host().behaviour = behaviour;
    }

    /// Another program listens on `port`.
    pub(super) fn take_port(&self, port: u16) {
        self.host().taken_ports.insert(Port(port));
    }

    pub(super) fn free_ports(&self) {
        self.host().taken_ports.clear();
    }

    /// The workers that run now, by port.
    pub(super) fn running(&self) -> Vec<(u16, LaunchSpec)> {
        let host = self.host();
        let mut running: Vec<_> =
            host.running.values().map(|process| (process.spec.slot.port.0, process.spec.clone())).collect();
        running.sort_by_key(|(port, _)| *port);
        running
    }

    pub(super) fn n_launched(&self) -> usize {
        self.host().specs.len()
    }

    pub(super) fn signals(&self) -> Vec<StopSignal> {
        self.host().signals.clone()
    }

    /// Ends all workers with `report`.
    pub(super) fn end_all(&self, report: ExitReport) {
        for (_, process) in std::mem::take(&mut self.host().running) {
            process.ended.send_replace(Some(report));
        }
    }

    fn end(&self, pid: u32, report: ExitReport) {
        if let Some(process) = self.host().running.remove(&pid) {
            process.ended.send_replace(Some(report));
        }
    }
}

#[async_trait]
impl Processes for FakeProcesses {
    async fn launch(&self, spec: &LaunchSpec) -> Result<ProcessId, Error> {
        assert_eq!(LaunchSpec::read(&spec.path()).expect("the spec is on disk"), *spec);
        let mut host = self.host();
        if host.behaviour == Behaviour::IsMissing {
            let source = std::io::Error::other("no such program");
            return Err(Error::Spawn { program: "worker".into(), source });
        }
        let port = spec.slot.port;
        assert!(
            host.running.values().all(|process| process.spec.slot.port != port),
            "two processes in slot {port}"
        );
        host.n_launched += 1;
        host.specs.push(spec.clone());
        let id = ProcessId { pid: host.n_launched, started: 1 };
        fs::write(spec.dir.join("logs/worker.out"), "the last line\n").expect("written");
        if host.behaviour == Behaviour::Healthy {
            fs::write(spec.dir.join("heartbeat"), "0").expect("written");
        }
        let process = Process { spec: spec.clone(), ended: watch::Sender::new(None) };
        host.running.insert(id.pid, process);
        let crashes = matches!(host.behaviour, Behaviour::Crashes | Behaviour::CrashesAfterStart);
        drop(host);
        if crashes {
            self.end(id.pid, ExitReport::Code(1));
        }
        Ok(id)
    }

    async fn port_obstacle(&self, port: Port) -> Option<String> {
        self.host().taken_ports.contains(&port).then(|| format!("port {port} is taken"))
    }

    async fn exited(&self, id: ProcessId) -> ExitReport {
        {
            let host = self.host();
            if host.behaviour == Behaviour::CrashesAfterStart {
                // So late that the supervisor does not read it while the worker lives.
                let spec = &host.specs[id.pid as usize - 1];
                fs::write(spec.dir.join("heartbeat"), "0").expect("written");
            }
        }
        let ended = self.host().running.get(&id.pid).map(|process| process.ended.subscribe());
        let Some(mut ended) = ended else { return ExitReport::Unknown };
        let report = ended.wait_for(Option::is_some).await.expect("ended before it was dropped");
        report.expect("waited for")
    }

    fn signal(&self, id: ProcessId, signal: StopSignal) -> Result<(), Error> {
        self.host().signals.push(signal);
        let hangs = self.host().behaviour == Behaviour::Hangs;
        match signal {
            StopSignal::Terminate if hangs => {}
            StopSignal::Terminate => self.end(id.pid, ExitReport::Code(0)),
            StopSignal::Kill => self.end(id.pid, ExitReport::Signal(9)),
        }
        Ok(())
    }

    fn is_alive(&self, id: ProcessId) -> bool {
        self.host().running.contains_key(&id.pid)
    }

    async fn find(&self, worker: &WorkerId, _user: Option<u32>) -> Option<ProcessId> {
        let host = self.host();
        let found = host.running.iter().find(|(_, process)| process.spec.worker == *worker);
        found.map(|(pid, _)| ProcessId { pid: *pid, started: 1 })
    }

    async fn sweep(&self, worker: &WorkerId) -> usize {
        match self.find(worker, None).await {
            Some(id) => {
                self.end(id.pid, ExitReport::Signal(9));
                1
            }
            None => 0,
        }
    }
}
