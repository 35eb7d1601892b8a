//! A nimbus replica: a real one, on a machine of its own that can be switched off.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    nimbus::{self, Nimbus, Options},
    test_support::sim::{connection::Connection, ground::Ground, journal::Party},
};

/// How long a clean stop may take before it is made an unclean one.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// One replica, running or not.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) name: String,
    pub(super) clock: Clock,
    ground: Arc<Ground>,
    dir: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    nimbus: Nimbus,
    stop: CancellationToken,
    connection: Arc<Connection>,
}

impl Replica {
    pub(super) fn new(ground: &Arc<Ground>, n: usize, clock: Clock) -> Self {
        let name = format!("nimbus-{n}");
        let dir = ground.scratch.join(&name);
        Self { name, clock, ground: Arc::clone(ground), dir, running: None }
    }

    /// Where it answers.
    pub(super) fn api(&self) -> String {
        format!("{}:8080", self.name)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        self.running.as_ref().map(|running| &running.connection)
    }

    /// Whether it takes writes, as far as it knows.
    pub(super) fn leads(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.nimbus.handle().takes_writes())
    }

    /// # Panics
    /// When it does not start: nothing is in its way.
    pub(super) fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        self.ground.journal().remark(format_args!("{} starts", self.name));
        let connection = Connection::open(&self.ground, Party::Nimbus(self.name.clone()));
        let stop = CancellationToken::new();
        let nimbus = nimbus::daemon::start_at(
            self.options(),
            (self.api(), Arc::clone(&self.ground.network) as _),
            connection.tree(),
            self.clock.clone(),
            stop.clone(),
        )
        .expect("a nimbus starts");
        self.ground.network.join(nimbus.handle().clone());
        self.running = Some(Running { nimbus, stop, connection });
    }

    /// kill -9
    pub(super) fn kill(&mut self) {
        let Some(Running { nimbus, connection, .. }) = self.running.take() else { return };
        self.ground.journal().remark(format_args!("{} is killed", self.name));
        self.ground.network.leave(&self.api());
        connection.kill(&self.ground.tasks);
        drop(nimbus);
    }

    /// SIGTERM, and what comes if that does not help.
    pub(super) async fn stop(&mut self) {
        let Some(Running { nimbus, stop, connection }) = self.running.take() else { return };
        self.ground.journal().remark(format_args!("{} is stopped", self.name));
        self.ground.network.leave(&self.api());
        stop.cancel();
        match tokio::time::timeout(STOP_PATIENCE, nimbus.stopped()).await {
            Ok(_) => connection.tree().close().await,
            Err(_) => connection.kill(&self.ground.tasks),
        }
    }

    /// Whether it has ended although nobody asked it to.
    pub(super) fn is_broken(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.nimbus.tasks().cancelled().is_cancelled())
    }

    fn options(&self) -> Options {
        Options {
            local_dir: self.dir.clone(),
            host: self.name.clone(),
            api: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            monitor_period: Duration::from_secs(10),
            task_timeout: Duration::from_secs(30),
            task_launch: Duration::from_secs(60),
            supervisor_timeout: Duration::from_secs(30),
            settle: Duration::from_secs(15),
            max_moves_per_round: 100,
            candidate_grace: Duration::from_secs(10),
            max_blob_bytes: 1 << 20,
            blob_retention: Duration::from_secs(120),
            replication: Default::default(),
            message_timeout: Duration::from_secs(10),
            // Its threads would finish at moments of real time.
            metrics: None,
        }
    }
}
