//! A machine with its supervisor: a real agent, over fake processes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    cluster::record::Resources,
    daemon::tasks::{Ending, Tasks},
    model::{Port, topology::Settings},
    supervisor::{Agent, LaunchDefaults, OnStop, Options},
    test_support::sim::{
        connection::Connection,
        ground::Ground,
        journal::Party,
        machine::{Hands, Machine},
    },
};

const FIRST_PORT: u16 = 6700;

/// How long a supervisor may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// One machine; its supervisor may be running or not.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) machine: Arc<Machine>,
    pub(super) n_slots: u16,
    ground: Arc<Ground>,
    dir: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    died: CancellationToken,
    connection: Arc<Connection>,
    /// Own the agent's loop.
    tasks: Tasks,
    /// Cancelled when the agent has come to its end.
    ended: CancellationToken,
}

impl Host {
    pub(super) fn new(
        ground: &Arc<Ground>,
        n: usize,
        n_slots: u16,
        clock: crate::clock::Clock,
        random: fastrand::Rng,
    ) -> Self {
        let name = format!("supervisor-{n}");
        let dir = ground.scratch.join(&name);
        let machine = Machine::new(Arc::clone(ground), clock, random);
        Self { name, machine, n_slots, ground: Arc::clone(ground), dir, running: None }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        self.running.as_ref().map(|running| &running.connection)
    }

    /// # Panics
    /// When the supervisor does not start: nothing is in its way.
    pub(super) async fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        self.ground.journal().remark(format_args!("{} starts", self.name));
        let connection = Connection::open(&self.ground, Party::Supervisor(self.name.clone()));
        let (stop, died, ended) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let hands = Arc::new(Hands { machine: Arc::clone(&self.machine), died: died.clone() });
        let network = Arc::clone(&self.ground.network) as _;
        let clock = self.machine.clock.clone();
        let agent = Agent::start(self.options(), connection.tree(), hands, network, defaults(), clock);
        let agent = agent.await.expect("a supervisor starts");
        let tasks = Tasks::default();
        let (told, over) = (stop.clone(), ended.clone());
        tasks.start("supervisor", Ending::Normal, async move {
            // Whether it broke shows in that nobody told it to stop.
            let _result = agent.run(told).await;
            over.cancel();
        });
        self.running = Some(Running { stop, died, connection, tasks, ended });
    }

    /// kill -9; the workers run on.
    pub(super) fn kill(&mut self) {
        let Some(Running { died, connection, tasks, .. }) = self.running.take() else { return };
        self.ground.journal().remark(format_args!("{} is killed", self.name));
        died.cancel();
        connection.kill(&self.ground.tasks);
        drop(tasks);
    }

    /// SIGTERM; the workers run on.
    pub(super) async fn stop(&mut self) {
        let Some(Running { stop, died, connection, ended, tasks }) = self.running.take() else { return };
        self.ground.journal().remark(format_args!("{} is stopped", self.name));
        stop.cancel();
        match tokio::time::timeout(STOP_PATIENCE, ended.cancelled()).await {
            Ok(()) => connection.tree().close().await,
            Err(_) => connection.kill(&self.ground.tasks),
        }
        died.cancel();
        drop(tasks);
    }

    /// Power off.
    pub(super) fn crash(&mut self) {
        self.kill();
        self.ground.journal().remark(format_args!("the machine of {} goes down", self.name));
        self.machine.crash();
    }

    /// Whether the supervisor has ended although nobody asked it to.
    pub(super) fn is_broken(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.ended.is_cancelled())
    }

    fn options(&self) -> Options {
        Options {
            local_dir: self.dir.clone(),
            host: self.name.clone(),
            ports: (0..self.n_slots).map(|n| Port(FIRST_PORT + n)).collect(),
            resources: Resources { cpu_percent: 400, memory_mb: 4096 },
            worker_start_timeout: Duration::from_secs(60),
            worker_timeout: Duration::from_secs(30),
            worker_shutdown_grace: Duration::from_secs(3),
            unused_blob_retention: Duration::from_secs(120),
            reconcile_period: Duration::from_secs(30),
        }
    }
}

fn defaults() -> LaunchDefaults {
    LaunchDefaults {
        config_file: None,
        overrides: Vec::new(),
        heartbeat_period: Duration::from_secs(3),
        task_beat_period: Duration::from_secs(30),
        subprocess_timeout: Duration::from_secs(30),
        metric_report_period: Duration::from_secs(60),
        settings: Settings::new(),
        on_stop: OnStop::LeaveWorkers,
    }
}
