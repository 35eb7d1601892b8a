//! Worker processes of this host.
//!
//! Each worker leads its own process group, so that a SIGKILL reaches its components and no
//! signal to the supervisor reaches the worker. SIGTERM goes to the worker alone, which stops its
//! components in an orderly way. An exit is seen at once, through a pidfd, for a child and for an
//! adopted process. The rest of the group is killed before the worker is reaped, while its pid
//! cannot be reused.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _, unix::process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::warn;

use super::{environment::WorkerEnvironment, leftovers::Leftovers};
use crate::{
    logs,
    process::{Error, ExitReport, ProcessId, Processes, StopSignal, port, table},
    run_as,
    start::LAYOUT,
};
use stormkeeper_model::{Port, WorkerId};
use stormkeeper_runtime::{
    blocking, descendants,
    net::ListenOn,
    oom::{self, OomWatch},
    proc::ProcessStat,
};
use stormkeeper_topology_package::launch::{LaunchSpec, SUPERVISOR_DIR_VARIABLE, WORKER_VARIABLE};

/// Period of polling a process without a pidfd: on kernels before 5.3, and when there are no file
/// descriptors left.
const POLL_PERIOD: Duration = Duration::from_millis(200);

/// Period of searching for killed processes again, and maximum number of searches: a killed
/// process that still exists after two seconds hangs in the kernel and cannot be ended from here.
const SWEEP_PERIOD: Duration = Duration::from_millis(20);
const MAX_SWEEPS: usize = 100;

/// The signal of the kernel's out-of-memory killer.
const SIGKILL: i32 = 9;

/// The processes of this host.
#[derive(Debug)]
pub struct OsProcesses {
    program: PathBuf,
    supervisor_dir: PathBuf,
    environment: Arc<WorkerEnvironment>,
    // Addresses on which its workers listen.
    listen_on: ListenOn,
    // The children that were not reaped yet. Locked while a group is signalled, so that no pid is
    // reaped and reused meanwhile.
    children: Arc<Mutex<BTreeMap<ProcessId, Child>>>,
    leftovers: Leftovers,
}

impl OsProcesses {
    /// Workers that run `program worker --spec …`, or the worker program of their topology. They are
    /// identified by `supervisor_dir`, the `storm.local.dir` of their supervisor, and get the variables of
    /// `environment`.
    pub fn new(program: PathBuf, supervisor_dir: PathBuf, environment: WorkerEnvironment) -> Self {
        // Fails only without a working directory; the path is kept as given then.
        let supervisor_dir = std::path::absolute(&supervisor_dir).unwrap_or(supervisor_dir);
        let (environment, leftovers) = (environment.into(), Leftovers::new(&supervisor_dir));
        let (children, listen_on) = (Arc::default(), ListenOn::default());
        Self { program, supervisor_dir, environment, listen_on, children, leftovers }
    }

    /// The same processes, with workers that listen on `listen_on`.
    pub fn listening_on(self, listen_on: ListenOn) -> Self {
        Self { listen_on, ..self }
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Child>> {
        self.children.lock().expect("no one panics while holding the children")
    }

    /// Looks after what falls to this process for as long as it is polled: reaps orphans, which the
    /// kernel gives to PID 1 of a container, and notes what runs below workers without a cgroup.
    ///
    /// # Cancellation safety
    /// Safe: nothing is lost if it is dropped and called again.
    pub async fn look_after(&self) {
        let is_worker = |stat: &ProcessStat| {
            self.children().contains_key(&ProcessId { pid: stat.pid, started: stat.started })
        };
        tokio::join!(descendants::reap_orphans(is_worker), self.leftovers.search());
    }

    /// Resolves when `id` is a zombie or does not exist.
    async fn wait_for_end(&self, id: ProcessId) {
        let error = match pidfd(id) {
            Pidfd::Gone => return,
            Pidfd::Unavailable(error) => error,
            Pidfd::Open(fd) => match watched(fd) {
                Ok(fd) => match fd.readable().await {
                    Ok(_ready) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            },
        };
        warn!(process = %id, %error, "no pidfd for a worker; polling for its end every 200 ms");
        while state_of(id) == ProcessState::Alive {
            tokio::time::sleep(POLL_PERIOD).await;
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe and asks for what an OwnedFd gives: a descriptor that nobody else closes"
)]
fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

enum Pidfd {
    Open(OwnedFd),
    Gone,
    Unavailable(io::Error),
}

fn pidfd(id: ProcessId) -> Pidfd {
    let Some(pid) = pid_of(id) else { return Pidfd::Gone };
    let opened = pidfd_open(pid, PidfdFlags::NONBLOCK);
    // Checked after the pidfd was opened: if the pid belonged to another process by then, the
    // pidfd refers to that process, and the start times differ.
    match opened {
        _ if state_of(id) == ProcessState::Gone => Pidfd::Gone,
        Ok(fd) => Pidfd::Open(fd),
        Err(rustix::io::Errno::SRCH) => Pidfd::Gone,
        Err(error) => Pidfd::Unavailable(error.into()),
    }
}

/// State of a process in the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessState {
    /// Exists, or cannot be determined: a live worker taken for ended would be started twice.
    Alive,
    Zombie,
    Gone,
}

fn state_of(id: ProcessId) -> ProcessState {
    match table::entry(id.pid) {
        Ok(Some(entry)) if entry.id != id => ProcessState::Gone,
        Ok(Some(entry)) if entry.is_zombie => ProcessState::Zombie,
        Ok(Some(_)) | Err(_) => ProcessState::Alive,
        Ok(None) => ProcessState::Gone,
    }
}

fn pid_of(id: ProcessId) -> Option<Pid> {
    i32::try_from(id.pid).ok().and_then(Pid::from_raw)
}

#[async_trait]
impl Processes for OsProcesses {
    async fn launch(&self, spec: &LaunchSpec) -> Result<ProcessId, Error> {
        let (program, dir, spec) = (self.program.clone(), self.supervisor_dir.clone(), spec.clone());
        let (environment, children) = (Arc::clone(&self.environment), self.children.clone());
        let (leftovers, worker) = (self.leftovers.clone(), spec.worker.clone());
        let user = spec.user.as_ref().map(|user| (user.uid, user.gid));
        let started = move || {
            let program = spec.worker_program().unwrap_or(program);
            let mut child = spawn(&program, &dir, &environment, &spec)?;
            // The child is not reaped yet, so it is in the process table even if it has ended.
            let id = match table::entry(child.id()) {
                Ok(Some(entry)) => entry.id,
                other => {
                    kill_child(&mut child);
                    let error = other.err();
                    let source = error.unwrap_or_else(|| io::Error::other("the process is not in /proc"));
                    return Err(Error::Spawn { program, source });
                }
            };
            children.lock().expect("no one panics while holding the children").insert(id, child);
            leftovers.watch_new(worker, id, user);
            Ok(id)
        };
        blocking::run(started).await
    }

    async fn port_obstacle(&self, port: Port) -> Option<String> {
        let listen_on = self.listen_on;
        // Sockets of tokio need its reactor, which blocking threads do not enter.
        let runtime = tokio::runtime::Handle::current();
        blocking::run(move || {
            let _entered = runtime.enter();
            port::obstacle(listen_on, port)
        })
        .await
    }

    async fn exited(&self, id: ProcessId) -> ExitReport {
        let oom = OomWatch::of_process(id.pid);
        let mut ended = std::pin::pin!(self.wait_for_end(id));
        while tokio::time::timeout(oom::SAMPLE_PERIOD, &mut ended).await.is_err() {
            oom.sample();
        }
        let is_out_of_memory = oom.has_killed();
        let mut children = self.children();
        let Some(mut child) = children.remove(&id) else { return ExitReport::Unknown };
        kill_group(id);
        // The process has ended, so this does not block.
        match child.wait().map_or(ExitReport::Unknown, report) {
            ExitReport::Signal(SIGKILL) if is_out_of_memory => ExitReport::OutOfMemory,
            reported => reported,
        }
    }

    fn signal(&self, id: ProcessId, signal: StopSignal) -> Result<(), Error> {
        let _no_reaping = self.children();
        let Some(pid) = pid_of(id).filter(|_| state_of(id) != ProcessState::Gone) else { return Ok(()) };
        let sent = match signal {
            // To the worker alone, which stops its components in an orderly way.
            StopSignal::Terminate => kill_process(pid, Signal::TERM),
            StopSignal::Kill => kill_process_group(pid, Signal::KILL),
        };
        match sent {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::Signal { id, signal, source: errno.into() }),
        }
    }

    fn is_alive(&self, id: ProcessId) -> bool {
        state_of(id) == ProcessState::Alive
    }

    async fn find(&self, worker: &WorkerId, user: Option<u32>) -> Option<ProcessId> {
        let user = user.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        self.of_worker(worker)
            .await
            .into_iter()
            .filter(|entry| entry.group == entry.id.pid && !entry.is_component)
            .find(|entry| table::user(entry.id.pid) == Some(user))
            .map(|entry| entry.id)
    }

    fn adopt(&self, worker: &WorkerId, process: ProcessId) {
        self.leftovers.watch(worker.clone(), process);
    }

    async fn remains(&self) -> Vec<WorkerId> {
        let leftovers = self.leftovers.clone();
        blocking::run(move || leftovers.with_scope()).await
    }

    async fn sweep(&self, worker: &WorkerId) -> usize {
        let mut n_first = None;
        for _ in 0..MAX_SWEEPS {
            let n_hidden = self.leftovers.kill(worker).await;
            let left = self.of_worker(worker).await;
            let n_first = *n_first.get_or_insert(n_hidden.max(left.len()));
            if n_hidden == 0 && left.is_empty() {
                return n_first;
            }
            for entry in left {
                if let Some(pid) = pid_of(entry.id)
                    && let Err(error) = kill_process(pid, Signal::KILL)
                    && error != rustix::io::Errno::SRCH
                {
                    warn!(process = %entry.id, %worker, %error, "cannot kill a remaining process of a worker");
                }
            }
            tokio::time::sleep(SWEEP_PERIOD).await;
        }
        warn!(%worker, "killed processes of a worker still exist after two seconds");
        self.leftovers.forget(worker);
        n_first.unwrap_or(0)
    }
}

impl OsProcesses {
    async fn of_worker(&self, worker: &WorkerId) -> Vec<table::Entry> {
        // A worker that was launched before `storm.local.dir` was set to the parent of the data
        // directory has the data directory in its environment.
        let dirs = [&self.supervisor_dir, &self.supervisor_dir.join(LAYOUT.kind)];
        let dirs = dirs.map(|dir| dir.to_string_lossy().into_owned());
        let worker = worker.clone();
        blocking::run(move || table::of_worker(&dirs, &worker)).await
    }
}

fn spawn(
    program: &Path,
    supervisor_dir: &Path,
    environment: &WorkerEnvironment,
    spec: &LaunchSpec,
) -> Result<Child, Error> {
    let log = spec.dir.join(logs::WORKER_LOG);
    let prepare = |source| Error::Prepare { path: log.clone(), source };
    logs::rotate(&log).map_err(prepare)?;
    let output = open_log(&log).map_err(prepare)?;
    let errors = output.try_clone().map_err(prepare)?;
    let mut command = Command::new(program);
    if let Some(user) = &spec.user {
        // The log is open, so nothing is created any more where the user could have put a link.
        run_as::hand_over(&spec.dir, &output, user).map_err(prepare)?;
        // Without other groups: the standard library drops those of root with the user.
        command.uid(user.uid).gid(user.gid);
    }
    command
        .arg("worker")
        .arg("--spec")
        .arg(spec.path())
        .env_clear()
        .envs(environment.passed())
        .envs(spec.user.iter().flat_map(run_as::environment))
        .env(SUPERVISOR_DIR_VARIABLE, supervisor_dir)
        .env(WORKER_VARIABLE, spec.worker.as_str())
        .current_dir(&spec.dir)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|source| Error::Spawn { program: program.to_owned(), source })
}

/// Kills a child that cannot be identified.
fn kill_child(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait()) {
        warn!(pid = child.id(), %error, "cannot kill a worker that was just started");
    }
}

/// Opens a log for appending: its writers continue at the end after the file is truncated.
fn open_log(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().create(true).append(true).open(path)
}

/// Kills the rest of the process group of a worker that is a zombie.
fn kill_group(id: ProcessId) {
    if let Some(pid) = pid_of(id)
        && let Err(error) = kill_process_group(pid, Signal::KILL)
        && error != rustix::io::Errno::SRCH
    {
        warn!(process = %id, %error, "cannot kill the process group of a worker that ended");
    }
}

fn report(status: ExitStatus) -> ExitReport {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitReport::Code(code),
        (None, Some(signal)) => ExitReport::Signal(signal),
        (None, None) => ExitReport::Unknown,
    }
}

#[cfg(test)]
#[path = "os_tests.rs"]
mod tests;
