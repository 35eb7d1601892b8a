//! Workers that are programs of topologies: processes of their own, which share the tree of this one.

use std::{
    io, net::Ipv4Addr, os::unix::process::ExitStatusExt as _, path::PathBuf, process::Stdio, time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    net::UnixListener,
    process::{Child, Command},
    sync::OnceCell,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use stormkeeper_coordination::tree::{memory::MemoryTree, shared};
use stormkeeper_model::secret_text::TOKEN_VARIABLE;
use stormkeeper_runtime::{
    blocking,
    descendants::OwnChild,
    tasks::{OnExit, Tasks},
};
use stormkeeper_supervisor::process::{Error, ExitReport};
use stormkeeper_topology_package::launch::{
    Connections, LaunchSpec, Listen, SUPERVISOR_DIR_VARIABLE, WORKER_VARIABLE, ZooKeeper,
};

/// Time of a worker between SIGTERM and SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the worker programs of topologies.
#[derive(Debug)]
pub(super) struct Programs {
    server: MemoryTree,
    // Socket of the tree; it is served from the first launch on.
    socket: PathBuf,
    sends_metrics: bool,
    is_served: OnceCell<()>,
    tasks: Tasks,
}

impl Programs {
    /// Programs that share `server` over a socket at `socket`, and may send metrics to its leader.
    pub(super) fn new(server: MemoryTree, socket: PathBuf, sends_metrics: bool) -> Self {
        Self { server, socket, sends_metrics, is_served: OnceCell::new(), tasks: Tasks::default() }
    }

    /// Starts `program` as the worker of `spec`.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) async fn start(&self, program: PathBuf, spec: &LaunchSpec) -> Result<Child, Error> {
        let failed = |source| Error::Spawn { program: program.clone(), source };
        self.is_served.get_or_try_init(|| async { self.serve() }).await.map_err(failed)?;
        let spec = LaunchSpec { connections: Some(self.connections()), ..spec.clone() };
        let (path, text) = (spec.path(), spec.encode().map_err(io::Error::other).map_err(failed)?);
        let prepare = |source| Error::Prepare { path: path.clone(), source };
        let written = path.clone();
        blocking::run(move || std::fs::write(written, text)).await.map_err(prepare)?;
        // The author is at the terminal: what the worker logs and its components print goes there.
        Command::new(&program)
            .arg("worker")
            .arg("--spec")
            .arg(&path)
            .env_remove(TOKEN_VARIABLE)
            .env(SUPERVISOR_DIR_VARIABLE, &spec.dir)
            .env(WORKER_VARIABLE, spec.worker.as_str())
            .current_dir(&spec.dir)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)
    }

    fn serve(&self) -> io::Result<()> {
        let listener = UnixListener::bind(&self.socket)?;
        let serving = shared::serve(self.server.clone(), listener, self.tasks.child());
        self.tasks.start("shared tree", OnExit::Ignore, serving);
        Ok(())
    }

    fn connections(&self) -> Connections {
        Connections {
            zookeeper: ZooKeeper {
                servers: Vec::new(),
                root: "/".to_owned(),
                session_timeout: Duration::ZERO,
                request_timeout: Duration::ZERO,
                authorities: None,
                identity: None,
            },
            shared_tree: Some(self.socket.clone()),
            sends_metrics: self.sends_metrics,
            listen: Listen::Address(Ipv4Addr::LOCALHOST.into()),
            unfinished_frame_bytes: stormkeeper_worker::limits::UNFINISHED_BYTES,
        }
    }
}

/// Waits for the end of a worker. Ends it in an orderly way when `stop` is cancelled, and at once when `kill`
/// is.
pub(super) async fn ended(mut child: Child, stop: CancellationToken, kill: CancellationToken) -> ExitReport {
    let _own = OwnChild::mark(child.id());
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let must_die = async {
        tokio::select! {
            // Cancel-safe: both only wait.
            () = kill.cancelled() => return,
            () = stop.cancelled() => {}
        }
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
            warn!(%error, "cannot stop a worker of the local cluster");
        }
        // Cancel-safe: as above.
        let _killed = tokio::time::timeout(STOP_TIMEOUT, kill.cancelled()).await;
    };
    let status = tokio::select! {
        // Cancel-safe: what does not end by itself is killed below, and waited for again.
        () = must_die => None,
        status = child.wait() => Some(status),
    };
    let status = match status {
        Some(status) => status,
        None => child.kill().await.and(child.wait().await),
    };
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => ExitReport::Code(code),
            (None, Some(signal)) => ExitReport::Signal(signal),
            (None, None) => ExitReport::Unknown,
        },
        Err(error) => {
            warn!(%error, "cannot wait for a worker of the local cluster");
            ExitReport::Unknown
        }
    }
}
