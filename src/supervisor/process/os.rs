//! Worker processes of this machine.
//!
//! Each worker leads its own process group, so that a SIGKILL reaches its components and no
//! signal reaches the worker when the supervisor is signalled. SIGTERM goes to the worker
//! alone, which ends its components in good order. An exit is seen at once, through a
//! pidfd, whether the process is our child or was adopted. What is left of the group is
//! killed while the worker's pid is still ours to name: before it is reaped.

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

use crate::{
    daemon::blocking,
    model::WorkerId,
    rpc::launch::{LaunchSpec, SUPERVISOR_DIR_VARIABLE, WORKER_VARIABLE},
    supervisor::{
        logs,
        process::{Error, ExitReport, ProcessId, Processes, StopSignal, table},
    },
};

/// How often a process without a pidfd is looked at: on kernels before 5.3, and when there
/// are no file descriptors left.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// How often killed leftovers are looked for again, and how many times: a killed process
/// that does not go in two seconds hangs in the kernel, and nothing here can help it.
const SWEEP_PERIOD: Duration = Duration::from_millis(20);
const MAX_SWEEPS: usize = 100;

/// The processes of this machine.
#[derive(Debug)]
pub struct OsProcesses {
    program: PathBuf,
    supervisor_dir: PathBuf,
    // The children that were not reaped yet. Held while a group is signalled, so that no pid
    // is reaped and used again in between.
    children: Arc<Mutex<BTreeMap<ProcessId, Child>>>,
}

impl OsProcesses {
    /// Workers that run `program worker --spec …` and are known by `supervisor_dir`, the
    /// local directory of their supervisor.
    pub fn new(program: PathBuf, supervisor_dir: PathBuf) -> Self {
        // Fails only without a working directory; the path then stays as it was given.
        let supervisor_dir = std::path::absolute(&supervisor_dir).unwrap_or(supervisor_dir);
        Self { program, supervisor_dir, children: Arc::default() }
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Child>> {
        self.children.lock().expect("no one panics while holding the children")
    }

    /// Resolves when `id` is a zombie or gone.
    async fn ended(&self, id: ProcessId) {
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
        warn!(process = %id, %error, "no pidfd for a worker: looking for its end every 200 ms");
        while look(id) == Look::Alive {
            tokio::time::sleep(LOOK_PERIOD).await;
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
    let Some(pid) = group(id) else { return Pidfd::Gone };
    let opened = pidfd_open(pid, PidfdFlags::NONBLOCK);
    // Looked at after the pidfd was opened: if the pid was another process's by then, so is
    // the pidfd, and the start times differ.
    match opened {
        _ if look(id) == Look::Gone => Pidfd::Gone,
        Ok(fd) => Pidfd::Open(fd),
        Err(rustix::io::Errno::SRCH) => Pidfd::Gone,
        Err(error) => Pidfd::Unavailable(error.into()),
    }
}

/// What the process table says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It is there, or nobody knows: taking a live worker for gone would start a second one.
    Alive,
    Zombie,
    Gone,
}

fn look(id: ProcessId) -> Look {
    match table::entry(id.pid) {
        Ok(Some(entry)) if entry.id != id => Look::Gone,
        Ok(Some(entry)) if entry.is_zombie => Look::Zombie,
        Ok(Some(_)) | Err(_) => Look::Alive,
        Ok(None) => Look::Gone,
    }
}

fn group(id: ProcessId) -> Option<Pid> {
    i32::try_from(id.pid).ok().and_then(Pid::from_raw)
}

#[async_trait]
impl Processes for OsProcesses {
    async fn launch(&self, spec: &LaunchSpec) -> Result<ProcessId, Error> {
        let (program, dir, spec) = (self.program.clone(), self.supervisor_dir.clone(), spec.clone());
        let children = self.children.clone();
        let started = move || {
            let mut child = spawn(&program, &dir, &spec)?;
            // The child is not reaped yet, so it is in the table even if it has ended.
            let id = match table::entry(child.id()) {
                Ok(Some(entry)) => entry.id,
                looked => {
                    end(&mut child);
                    let error = looked.err();
                    let source = error.unwrap_or_else(|| io::Error::other("it is not in /proc"));
                    return Err(Error::Spawn { program, source });
                }
            };
            children.lock().expect("no one panics while holding the children").insert(id, child);
            Ok(id)
        };
        blocking::run(started).await
    }

    async fn exited(&self, id: ProcessId) -> ExitReport {
        self.ended(id).await;
        let mut children = self.children();
        let Some(mut child) = children.remove(&id) else { return ExitReport::Unknown };
        kill_group(id);
        // It has ended, so this does not block.
        child.wait().map_or(ExitReport::Unknown, report)
    }

    fn signal(&self, id: ProcessId, signal: StopSignal) -> Result<(), Error> {
        let _no_reaping = self.children();
        let Some(pid) = group(id).filter(|_| look(id) != Look::Gone) else { return Ok(()) };
        let sent = match signal {
            // To the worker alone: it closes its components in good order.
            StopSignal::Terminate => kill_process(pid, Signal::TERM),
            StopSignal::Kill => kill_process_group(pid, Signal::KILL),
        };
        match sent {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::Signal { id, signal, source: errno.into() }),
        }
    }

    fn is_alive(&self, id: ProcessId) -> bool {
        look(id) == Look::Alive
    }

    async fn find(&self, worker: &WorkerId) -> Option<ProcessId> {
        self.of_worker(worker).await.into_iter().find(|e| e.group == e.id.pid).map(|entry| entry.id)
    }

    async fn sweep(&self, worker: &WorkerId) -> usize {
        let mut n_first = None;
        for _ in 0..MAX_SWEEPS {
            let left = self.of_worker(worker).await;
            let n_first = *n_first.get_or_insert(left.len());
            if left.is_empty() {
                return n_first;
            }
            for entry in left {
                if let Some(pid) = group(entry.id)
                    && let Err(error) = kill_process(pid, Signal::KILL)
                    && error != rustix::io::Errno::SRCH
                {
                    warn!(process = %entry.id, %worker, %error, "cannot kill what is left of a worker");
                }
            }
            tokio::time::sleep(SWEEP_PERIOD).await;
        }
        warn!(%worker, "killed processes of a worker do not go");
        n_first.unwrap_or(0)
    }
}

impl OsProcesses {
    async fn of_worker(&self, worker: &WorkerId) -> Vec<table::Entry> {
        let (dir, worker) = (self.supervisor_dir.to_string_lossy().into_owned(), worker.clone());
        blocking::run(move || table::of_worker(&dir, &worker)).await
    }
}

fn spawn(program: &Path, supervisor_dir: &Path, spec: &LaunchSpec) -> Result<Child, Error> {
    let log = spec.dir.join(logs::WORKER_LOG);
    let prepare = |source| Error::Prepare { path: log.clone(), source };
    logs::rotate(&log).map_err(prepare)?;
    let output = open_log(&log).map_err(prepare)?;
    let errors = output.try_clone().map_err(prepare)?;
    Command::new(program)
        .arg("worker")
        .arg("--spec")
        .arg(spec.path())
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

/// Ends a child that cannot be kept.
fn end(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait()) {
        warn!(pid = child.id(), %error, "cannot end a worker that was just started");
    }
}

/// Opened for appending: whoever writes goes on at the end when the file is cut.
fn open_log(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().create(true).append(true).open(path)
}

/// Kills what is left of the group of a worker that is a zombie.
fn kill_group(id: ProcessId) {
    if let Some(pid) = group(id)
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
