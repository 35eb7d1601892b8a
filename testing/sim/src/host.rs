//! A machine with its supervisor: a real agent with fake processes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    connection::Connection,
    environment::Environment,
    journal::Party,
    machine::{Machine, SupervisorProcesses},
    network::NetworkIngest,
};
use stormkeeper_coordination::cluster::{store::Store, users::HeldUsers};
use stormkeeper_model::{Port, topology::Settings};
use stormkeeper_runtime::tasks::{OnExit, Tasks};
use stormkeeper_supervisor::{Agent, LaunchDefaults, OnStop, Options};

const FIRST_PORT: u16 = 6700;

/// Limit for the stop of a supervisor.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// One machine, whose supervisor is running or not.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) machine: Arc<Machine>,
    pub(super) n_slots: u16,
    env: Arc<Environment>,
    dir: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    died: CancellationToken,
    connection: Arc<Connection>,
    /// Tasks of the agent's loop.
    tasks: Tasks,
    /// Cancelled when the agent has ended.
    ended: CancellationToken,
}

impl Host {
    pub(super) fn new(
        env: &Arc<Environment>,
        n: usize,
        n_slots: u16,
        clock: stormkeeper_model::clock::Clock,
        random: fastrand::Rng,
    ) -> Self {
        let name = format!("supervisor-{n}");
        let dir = env.scratch.join(&name);
        let machine = Machine::new(Arc::clone(env), clock, random);
        Self { name, machine, n_slots, env: Arc::clone(env), dir, running: None }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        self.running.as_ref().map(|running| &running.connection)
    }

    /// # Panics
    /// If the supervisor does not start, which no fault prevents.
    pub(super) async fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        self.env.journal().log(format_args!("{} starts", self.name));
        let connection = Connection::open(&self.env, Party::Supervisor(self.name.clone()));
        let (stop, died, ended) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let processes =
            Arc::new(SupervisorProcesses { machine: Arc::clone(&self.machine), died: died.clone() });
        let network = Arc::clone(&self.env.network) as _;
        let clock = self.machine.clock.clone();
        let agent = Agent::start(self.options(), connection.tree(), processes, network, defaults(), clock);
        let agent = agent.await.expect("a supervisor starts");
        let tasks = Tasks::default();
        let ingest = NetworkIngest::new(&self.env.network, self.name.clone(), Store::new(connection.tree()));
        // The usage of the machine is not reported: real numbers differ from run to run.
        agent.start_orphan_reports(Arc::new(ingest), &self.machine.clock, &tasks);
        let (asked, over) = (stop.clone(), ended.clone());
        tasks.start("supervisor", OnExit::Ignore, async move {
            // A failure shows as an end without a stop request.
            let _result = agent.run(asked).await;
            over.cancel();
        });
        self.running = Some(Running { stop, died, connection, tasks, ended });
    }

    /// Kills the supervisor like kill -9; its workers keep running.
    pub(super) fn kill(&mut self) {
        let Some(Running { died, connection, tasks, .. }) = self.running.take() else { return };
        self.env.journal().log(format_args!("{} is killed", self.name));
        died.cancel();
        connection.kill(&self.env.tasks);
        drop(tasks);
    }

    /// Stops the supervisor like SIGTERM; its workers keep running.
    pub(super) async fn stop(&mut self) {
        let Some(Running { stop, died, connection, ended, tasks }) = self.running.take() else { return };
        self.env.journal().log(format_args!("{} is stopped", self.name));
        stop.cancel();
        match tokio::time::timeout(STOP_TIMEOUT, ended.cancelled()).await {
            Ok(()) => connection.tree().close().await,
            Err(_) => connection.kill(&self.env.tasks),
        }
        died.cancel();
        drop(tasks);
    }

    /// Powers the machine off.
    pub(super) fn crash(&mut self) {
        self.kill();
        self.env.journal().log(format_args!("the machine of {} goes down", self.name));
        self.machine.crash();
    }

    /// True if the supervisor has ended without a stop request.
    pub(super) fn is_broken(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.ended.is_cancelled())
    }

    fn options(&self) -> Options {
        Options {
            local_dir: self.dir.clone(),
            host: self.name.clone(),
            ports: (0..self.n_slots).map(|n| Port(FIRST_PORT + n)).collect(),
            agent: None,
            exposed: None,
            held_users: HeldUsers::none(),
            zookeeper_problems: stormkeeper_access::locks::ZooKeeperProblems::default(),
            platform: None,
            capacity: Default::default(),
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
        locks: stormkeeper_access::locks::Locks::open(),
        zookeeper_users: None,
        fixed_credentials: None,
        zookeeper_identity: None,
        connections: None,
        run_as: None,
        config_file: None,
        overrides: Vec::new(),
        heartbeat_period: Duration::from_secs(3),
        task_heartbeat_period: Duration::from_secs(30),
        subprocess_timeout: Duration::from_secs(30),
        metric_report_period: Duration::from_secs(60),
        settings: Settings::new(),
        on_stop: OnStop::LeaveWorkers,
        withheld_variables: Vec::new(),
        abandoned_after: Duration::from_secs(3600),
    }
}
