//! One child process of a component: start, exchange of messages, end.
//!
//! - A child has its own process group, so that a Ctrl-C of the terminal does not reach it in local
//!   mode, and so that whatever it started is killed with it: at its end, and when its [`Child`] is
//!   dropped. Its stdin ends with the worker process, however the worker ends; the supervisor kills
//!   what is left of an ended worker.
//! - [`Child::exchange`] reads and writes concurrently, so a child that fills its stdout before
//!   it reads its stdin does not block the worker.
//! - Its stderr is free text: every line is logged, and the last lines are kept for the error
//!   report that follows the child's end.

mod group;
mod memory;
mod stderr;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use rustix::io::ioctl_fionread;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStdin, ChildStdout, Command},
    sync::oneshot,
    time::Instant,
};
use tracing::debug;

use self::{
    group::Group,
    memory::MemoryLimit,
    stderr::{StderrTail, read_stderr},
};
use super::{
    batch::{Batch, BatchWriter},
    codec::{Codec, Decoder},
    frame::{self, Part},
    message::{ComponentNotice, FromChild, Parsed, Refused, ToChild},
};
use crate::limits::UNREAD_BYTES_MAX;
use stormkeeper_model::{ComponentId, TaskId, secret_text::TOKEN_VARIABLE};
use stormkeeper_runtime::{
    descendants::OwnChild,
    tasks::{OnExit, Tasks},
};
use stormkeeper_stream::Tuple;

/// Time limit for reaping a killed process before it is left to the system: after SIGKILL, a
/// process only waits for a disk or a network file system that hangs.
const REAP_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for the rest of stderr after the process has exited; a grandchild may hold stderr
/// open for ever.
const STDERR_TIMEOUT: Duration = Duration::from_millis(200);

/// Time for which output is read after the exit of a process, if a descendant holds its stdout open.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

const SIGKILL: i32 = 9;

/// Maximum number of notices that are kept of a child that ends: more than a component can have
/// metrics, and few enough for memory.
const LAST_NOTICES_MAX: usize = 10_000;

/// Parameters of a component's process.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// Component that the process runs.
    pub component: ComponentId,
    /// Task that the process runs.
    pub task: TaskId,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Working directory.
    pub dir: PathBuf,
    /// Variables added to the process's environment.
    pub environment: BTreeMap<String, OsString>,
    /// Directory in which the child creates a file named by its pid.
    pub pid_dir: PathBuf,
    /// Serializer of the messages.
    pub codec: Codec,
    /// Memory limit in MiB; 0 is none.
    pub memory_mb: u64,
}

/// Failure of a child process or of the exchange with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process could not be started.
    #[error("cannot start {command:?} in {}: {source}{hint}", dir.display())]
    Start {
        /// Program and arguments.
        command: Vec<String>,
        /// Working directory.
        dir: PathBuf,
        /// The path that was searched and the remedy, after a semicolon.
        hint: String,
        /// I/O error.
        source: io::Error,
    },
    /// The child's stdout ended.
    #[error("stdout was closed{}", .rest.as_ref().map(|rest| format!(" within a message: {rest}")).unwrap_or_default())]
    Ended {
        /// Beginning of an incomplete message.
        rest: Option<String>,
    },
    /// The child's stdout cannot be read.
    #[error("cannot read stdout: {0}")]
    Read(io::Error),
    /// The child does not read its stdin.
    #[error("stdin is not read: more than {UNREAD_BYTES_MAX} bytes are queued")]
    InputUnread,
    /// The child's output is not a sequence of messages.
    #[error(transparent)]
    Frame(#[from] frame::Error),
}

/// Remedy for an error of starting a process.
fn hint(error: &io::Error, launch: &ChildSpec) -> String {
    match rustix::io::Errno::from_io_error(error) {
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
            "; raise the limit of open files of the supervisor (LimitNOFILE, ulimit -n)".to_owned()
        }
        Some(rustix::io::Errno::NOENT) if !launch.dir.is_dir() => "; there is no such directory".to_owned(),
        Some(rustix::io::Errno::NOENT) => match launch.command.first() {
            Some(program) if !program.contains('/') => not_in_path(program, launch),
            Some(_) | None => String::new(),
        },
        _ => String::new(),
    }
}

/// Maximum number of characters of a PATH in an error.
const PATH_SHOWN: usize = 120;

fn not_in_path(program: &str, launch: &ChildSpec) -> String {
    let own = launch.environment.get("PATH");
    let (path, origin) = match own {
        Some(_) => (own.cloned(), "which `topology.environment` or `setEnv` sets in place of the worker's"),
        None => (std::env::var_os("PATH"), "which the worker has"),
    };
    let path = path.unwrap_or_default().to_string_lossy().into_owned();
    // A long list must not push the rest out of a line that is cut.
    let (begin, dots) = match path.char_indices().nth(PATH_SHOWN) {
        Some((at, _)) => (&path[..at], "…"),
        None => (&*path, ""),
    };
    format!("; {program:?} is not in the PATH, {origin}: {begin}{dots}")
}

/// Result of reading one message of a child, which goes on if the message is refused.
pub type Received = Result<Parsed, Refused>;

/// Exit of a child process.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildExit {
    /// Exit status as text, for operators.
    pub status: String,
    /// True if signal 9 of somebody else ended the process: of a person, or of the kernel.
    pub was_killed: bool,
    /// True if `status` says that the process exceeded its memory limit.
    pub names_memory: bool,
    /// Last lines of the child's stderr.
    pub stderr_tail: String,
    /// Errors, log lines and metrics that the child sent after its stdin was closed.
    pub last_notices: Vec<ComponentNotice>,
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    group: Group,
    // `None` once the child has closed its stdin.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    // Deadline for output after the exit of the process: its descendants may hold its stdout open.
    exited: Option<Instant>,
    // True once stdout has ended.
    at_end: bool,
    unsent: BytesMut,
    // `None` if the child takes single messages.
    batches: Option<BatchWriter>,
    // Messages of a batch of the child that were not returned yet.
    received: Batch,
    // Bytes that were queued for the child since its start.
    n_queued: u64,
    codec: Codec,
    decoder: Decoder,
    stderr_tail: Arc<StderrTail>,
    stderr_ended: oneshot::Receiver<()>,
    pid_dir: PathBuf,
    reported_pid: Option<u32>,
    // Dropped after the group: kills what has left the group.
    memory: Option<MemoryLimit>,
    // Task that reads stderr; dropping `_stderr` ends the task.
    _stderr: Tasks,
    _own: OwnChild,
}

impl Child {
    /// Starts the process and queues the handshake `hello`. A task of `tasks` reads its stderr.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub fn start(launch: &ChildSpec, hello: &impl Serialize, tasks: &Tasks) -> Result<Self, Error> {
        let failed = |source| {
            let hint = hint(&source, launch);
            Error::Start { command: launch.command.clone(), dir: launch.dir.clone(), hint, source }
        };
        let (program, arguments) =
            launch.command.split_first().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let mut process = Command::new(resolve(program, &launch.dir))
            .process_group(0)
            .args(arguments)
            .current_dir(&launch.dir)
            // The environment of `local` is that of a person.
            .env_remove(TOKEN_VARIABLE)
            .envs(&launch.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let stderr_tail = Arc::new(StderrTail::default());
        let (ended, stderr_ended) = oneshot::channel();
        let reader =
            read_stderr(stderr, launch.component.clone(), launch.task, Arc::clone(&stderr_tail), ended);
        let stderr = tasks.child();
        stderr.start("stderr of a component", OnExit::Ignore, reader);
        let group = Group::led_by(&process);
        let own = OwnChild::mark(process.id());
        let limit = launch.memory_mb;
        let memory = process.id().filter(|_| limit > 0).and_then(|pid| MemoryLimit::of(pid, limit));
        let mut child = Self {
            process,
            group,
            stdin: Some(stdin),
            stdout,
            exited: None,
            at_end: false,
            unsent: BytesMut::new(),
            batches: None,
            received: Batch::default(),
            n_queued: 0,
            codec: launch.codec,
            decoder: launch.codec.decoder(),
            stderr_tail,
            stderr_ended,
            pid_dir: launch.pid_dir.clone(),
            reported_pid: None,
            memory,
            _stderr: stderr,
            _own: own,
        };
        child.send(hello);
        Ok(child)
    }

    /// Queues a message; [`Child::exchange`] writes it.
    pub fn send(&mut self, message: &impl Serialize) {
        self.finish_batch();
        let codec = self.codec;
        self.queue(|unsent, _| codec.encode(message, unsent));
    }

    /// Returns whether the child takes batches.
    #[inline]
    pub fn takes_batches(&self) -> bool {
        self.batches.is_some()
    }

    /// Queues a tuple for a bolt, as a part of a batch if the child takes batches. The batch must be
    /// finished before it is written.
    #[inline]
    pub fn send_tuple(&mut self, id: u64, tuple: &Tuple) {
        // A batch tells tuples apart by their values.
        if self.takes_batches() && !tuple.values().is_empty() {
            return self.queue(|unsent, batches| {
                if let Some(batches) = batches {
                    batches.add(id, tuple, unsent);
                }
            });
        }
        self.send(&ToChild::Tuple {
            id: &id.to_string(),
            comp: Some(tuple.component().as_str()),
            stream: tuple.stream().as_str(),
            task: i64::from(tuple.source().0),
            tuple: tuple.values(),
        });
    }

    /// Ends the batch of tuples that is being queued.
    pub fn finish_batch(&mut self) {
        self.queue(|unsent, batches| {
            if let Some(batches) = batches {
                batches.finish(unsent);
            }
        });
    }

    fn queue(&mut self, write: impl FnOnce(&mut BytesMut, &mut Option<BatchWriter>)) {
        if self.stdin.is_some() {
            let n_before = self.unsent.len();
            write(&mut self.unsent, &mut self.batches);
            self.n_queued += (self.unsent.len() - n_before) as u64;
        }
    }

    /// Returns the number of queued bytes.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent.len()
    }

    /// Returns the number of bytes that were queued since the child's start.
    pub fn queued_bytes(&self) -> u64 {
        self.n_queued
    }

    /// Returns the number of queued bytes that the child has read from its pipe.
    pub fn read_bytes(&self) -> u64 {
        let n_written = self.n_queued - self.unsent.len() as u64;
        // A pipe whose fill level is unknown, or that is closed, counts as read.
        let in_pipe = self.stdin.as_ref().and_then(|stdin| ioctl_fionread(stdin).ok());
        n_written.saturating_sub(in_pipe.unwrap_or(0))
    }

    /// Writes some of the queued bytes or reads some of the child's output, whichever is possible
    /// first, or notes that the process has exited.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::Read`] and [`Error::InputUnread`].
    ///
    /// # Cancellation safety
    /// Safe: bytes are either written or read and accounted for, or neither.
    pub async fn exchange(&mut self) -> Result<(), Error> {
        if self.unsent.len() > UNREAD_BYTES_MAX {
            return Err(Error::InputUnread);
        }
        let (stdin, unsent, exited) = (&mut self.stdin, &mut self.unsent, self.exited);
        let over = async {
            match exited {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let write = async {
            match stdin {
                Some(stdin) if !unsent.is_empty() => stdin.write_buf(unsent).await,
                Some(_) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What the child wrote before it exited comes before its exit.
            biased;
            // Cancel-safe: read_buf and write_buf touch the buffer only when they finish, and wait
            // can be called again.
            read = self.stdout.read_buf(self.decoder.space()), if !self.at_end => match read {
                Ok(0) => {
                    self.at_end = true;
                    match self.decoder.end_of_stream() {
                        true => Ok(()),
                        false => Err(Error::Ended { rest: self.decoder.rest() }),
                    }
                }
                Ok(_) => Ok(()),
                Err(source) => Err(Error::Read(source)),
            },
            written = write => {
                if let Err(error) = written {
                    // The child's last messages may still be in its stdout: read until stdout ends.
                    debug!(%error, "a component closed its stdin; reading the rest of its output");
                    self.stdin = None;
                    self.unsent.clear();
                }
                Ok(())
            }
            _status = self.process.wait(), if exited.is_none() => {
                self.exited = Some(Instant::now() + LAST_OUTPUT);
                Ok(())
            }
            () = over => Err(Error::Ended { rest: self.decoder.rest() }),
        }
    }

    /// Returns the next completely read message, if there is one.
    ///
    /// # Errors
    /// [`Error::Frame`], after which the rest of the child's output cannot be trusted, and
    /// [`Error::Ended`] after the last message.
    pub fn next_message(&mut self) -> Result<Option<Received>, Error> {
        if let Some(received) = self.received.next() {
            return Ok(Some(received));
        }
        let received = match self.decoder.next_part()? {
            Some(Part::Message(bytes)) => self.codec.parse(&bytes),
            Some(Part::Stray(line)) => {
                let reason = match self.codec {
                    Codec::Json => "a line on stdout that is not a multilang message".to_owned(),
                    Codec::MessagePack => "bytes on stdout that are not a map in MessagePack".to_owned(),
                };
                Err(Refused { reason, shown: frame::shorten(&line), emit: None, meant: None })
            }
            None if self.at_end => return Err(Error::Ended { rest: self.decoder.rest() }),
            None => return Ok(None),
        };
        match received {
            Ok(Parsed { message: FromChild::Pid(pid), takes_batches, .. }) => {
                self.reported_pid = pid;
                if takes_batches && self.codec == Codec::Json {
                    self.batches.get_or_insert_default();
                }
            }
            Ok(Parsed { message: FromChild::Batch(_), .. }) if !self.takes_batches() => {
                let reason =
                    "a batch of a component that has not accepted batches in the handshake".to_owned();
                return Ok(Some(Err(Refused { reason, shown: "batch".to_owned(), emit: None, meant: None })));
            }
            Ok(Parsed { message: FromChild::Batch(batch), .. }) if !batch.is_empty() => {
                self.received = batch;
                return Ok(self.received.next());
            }
            Ok(_) | Err(_) => {}
        }
        Ok(Some(received))
    }

    /// Returns a report of processes that the child started and that exceeded its memory limit since
    /// the last call.
    pub fn killed_for_memory(&mut self) -> Option<String> {
        self.memory.as_mut().and_then(MemoryLimit::new_kills)
    }

    /// Ends the process: closes its stdin, kills the process if it still runs after `grace`,
    /// and reaps it. Bounded by `grace` and little more than a second.
    pub async fn end(mut self, grace: Duration) -> ChildExit {
        drop(self.stdin.take());
        // A child that still writes must not be blocked by a full pipe.
        let mut last_notices = Vec::new();
        let waited = {
            let last_output =
                read_last_notices(&mut self.stdout, self.codec, &mut self.decoder, &mut last_notices);
            tokio::pin!(last_output);
            let mut is_read = false;
            let waited = tokio::time::timeout(grace, async {
                loop {
                    tokio::select! {
                        // Cancel-safe: wait can be called again, and the reading goes on.
                        status = self.process.wait() => return status,
                        () = &mut last_output, if !is_read => is_read = true,
                    }
                }
            })
            .await;
            if waited.is_err() {
                // Fails only if the process has exited already.
                let _gone = self.process.start_kill();
                let _reaped = tokio::time::timeout(REAP_TIMEOUT, self.process.wait()).await;
            }
            self.group.kill();
            if !is_read {
                // A descendant that left the group may hold stdout open.
                let _output_left = tokio::time::timeout(LAST_OUTPUT, last_output).await;
            }
            waited
        };
        let was_killed = matches!(&waited, Ok(Ok(status)) if status.signal() == Some(SIGKILL));
        let status = match waited {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => format!("exit status unknown: {error}"),
            Err(_still_there) => "killed by its worker".to_owned(),
        };
        let explanation = self.memory.as_ref().and_then(MemoryLimit::explain);
        let names_memory = explanation.is_some();
        let status = format!("{status}{}", explanation.unwrap_or_default());
        let _lines_left = tokio::time::timeout(STDERR_TIMEOUT, self.stderr_ended).await;
        if let Some(pid) = self.reported_pid {
            // The file is absent if the child created none.
            let _absent = tokio::fs::remove_file(self.pid_dir.join(pid.to_string())).await;
        }
        let stderr_tail = self.stderr_tail.take();
        ChildExit { status, was_killed, names_memory, stderr_tail, last_notices }
    }
}

/// Resolves a relative program with a slash to one of the component's own files. This is done
/// here because the system may resolve it before or after the change of directory.
fn resolve(program: &str, dir: &Path) -> PathBuf {
    match program.contains('/') {
        true => dir.join(program),
        false => program.into(),
    }
}

/// Reads stdout to its end. Keeps what the child reports about itself, such as its last metrics;
/// tuples and acks come too late.
async fn read_last_notices(
    stdout: &mut ChildStdout,
    codec: Codec,
    decoder: &mut Decoder,
    notices: &mut Vec<ComponentNotice>,
) {
    let mut is_trusted = true;
    loop {
        while is_trusted && notices.len() < LAST_NOTICES_MAX {
            match decoder.next_part() {
                Ok(Some(Part::Message(bytes))) => {
                    if let Ok(Parsed { message: FromChild::Notice(notice), .. }) = codec.parse(&bytes) {
                        notices.push(notice);
                    }
                }
                Ok(Some(Part::Stray(_))) => {}
                Ok(None) => break,
                Err(_) => is_trusted = false,
            }
        }
        if !is_trusted || notices.len() >= LAST_NOTICES_MAX {
            decoder.discard();
        }
        if !stdout.read_buf(decoder.space()).await.is_ok_and(|n| n > 0) && !decoder.end_of_stream() {
            return;
        }
    }
}
