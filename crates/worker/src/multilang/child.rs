//! One child process of a component: start, exchange of messages, end.
//!
//! - A child stays in its worker's process group, which the supervisor kills as a whole. A child
//!   is killed when its [`Child`] is dropped. Its stdin ends with the worker process, however
//!   the worker ends.
//! - [`Child::exchange`] reads and writes concurrently, so a child that fills its stdout before
//!   it reads its stdin does not block the worker.
//! - Its stderr is free text: every line is logged, and the last lines are kept for the error
//!   report that follows the child's end.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BytesMut;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    sync::oneshot,
};
use tracing::{debug, info};

use super::{
    frame::{self, Decoder},
    message::{FromChild, Invalid},
};
use crate::ComponentGroup;
use stormkeeper_model::{ComponentId, TaskId};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Limit of bytes queued for a child. A child that leaves more unread does not read its stdin
/// and is killed, so that the queue cannot fill memory.
const MAX_UNREAD_BYTES: usize = 64 << 20;

/// Limit of stderr kept for an error report: a stack trace fits, a znode is not filled.
const MAX_STDERR_TAIL_BYTES: usize = 4 << 10;

/// Longest stderr line in one log event; a longer line is logged in pieces.
const MAX_STDERR_LINE_BYTES: usize = 2 << 10;

/// Time limit for reaping a killed process before it is left to the system: after SIGKILL, a
/// process only waits for a disk or a network file system that hangs.
const REAP_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for the rest of stderr after the process has exited; a grandchild may hold stderr
/// open for ever.
const STDERR_TIMEOUT: Duration = Duration::from_millis(200);

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
    /// Process group of the child.
    pub group: ComponentGroup,
}

/// Failure of a child process or of the exchange with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process could not be started.
    #[error("cannot start {command:?} in {}: {source}", dir.display())]
    Start {
        /// Program and arguments.
        command: Vec<String>,
        /// Working directory.
        dir: PathBuf,
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
    #[error("stdin is not read: more than {MAX_UNREAD_BYTES} bytes are queued")]
    InputUnread,
    /// The child's output is not a sequence of messages.
    #[error(transparent)]
    Frame(#[from] frame::Error),
    /// A message of the child is invalid in the protocol.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Exit of a child process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildExit {
    /// Exit status as text, for operators.
    pub status: String,
    /// Last lines of the child's stderr.
    pub stderr_tail: String,
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    // `None` once the child has closed its stdin.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    unsent: BytesMut,
    decoder: Decoder,
    stderr_tail: Arc<StderrTail>,
    stderr_ended: oneshot::Receiver<()>,
    pid_dir: PathBuf,
    reported_pid: Option<u32>,
    // Task that reads stderr; dropping `_stderr` ends the task.
    _stderr: Tasks,
}

impl Child {
    /// Starts the process and queues the handshake `hello`. A task of `tasks` reads its stderr.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub fn start(launch: &ChildSpec, hello: &impl Serialize, tasks: &Tasks) -> Result<Self, Error> {
        let failed =
            |source| Error::Start { command: launch.command.clone(), dir: launch.dir.clone(), source };
        let (program, arguments) =
            launch.command.split_first().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let mut command = Command::new(resolve(program, &launch.dir));
        match launch.group {
            ComponentGroup::Workers => {}
            ComponentGroup::Own => drop(command.process_group(0)),
        }
        let mut process = command
            .args(arguments)
            .current_dir(&launch.dir)
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
        let mut child = Self {
            process,
            stdin: Some(stdin),
            stdout,
            unsent: BytesMut::new(),
            decoder: Decoder::default(),
            stderr_tail,
            stderr_ended,
            pid_dir: launch.pid_dir.clone(),
            reported_pid: None,
            _stderr: stderr,
        };
        child.send(hello);
        Ok(child)
    }

    /// Queues a message; [`Child::exchange`] writes it.
    pub fn send(&mut self, message: &impl Serialize) {
        if self.stdin.is_some() {
            frame::encode(message, &mut self.unsent);
        }
    }

    /// Returns the number of queued bytes.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent.len()
    }

    /// Writes some of the queued bytes or reads some of the child's output, whichever is possible
    /// first.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::Read`] and [`Error::InputUnread`].
    ///
    /// # Cancellation safety
    /// Safe: bytes are either written or read and accounted for, or neither.
    pub async fn exchange(&mut self) -> Result<(), Error> {
        if self.unsent.len() > MAX_UNREAD_BYTES {
            return Err(Error::InputUnread);
        }
        let (stdin, unsent) = (&mut self.stdin, &mut self.unsent);
        let write = async {
            match stdin {
                Some(stdin) if !unsent.is_empty() => stdin.write_buf(unsent).await,
                Some(_) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cancel-safe: read_buf and write_buf touch the buffer only when they finish.
            read = self.stdout.read_buf(self.decoder.space()) => match read {
                Ok(0) => Err(Error::Ended { rest: self.decoder.rest() }),
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
        }
    }

    /// Returns the next completely read message, if there is one.
    ///
    /// # Errors
    /// [`Error::Frame`] and [`Error::Invalid`].
    pub fn next_message(&mut self) -> Result<Option<FromChild>, Error> {
        let Some(bytes) = self.decoder.next_message()? else { return Ok(None) };
        let message = FromChild::parse(&bytes)?;
        if let FromChild::Pid(pid) = message {
            self.reported_pid = Some(pid);
        }
        Ok(Some(message))
    }

    /// Ends the process: closes its stdin, kills the process if it still runs after `grace`,
    /// and reaps it. Bounded by `grace` and little more than a second.
    pub async fn end(mut self, grace: Duration) -> ChildExit {
        drop(self.stdin.take());
        // A child that still writes must not be blocked by a full pipe.
        let drained = drain(self.stdout);
        let waited = tokio::time::timeout(grace, async {
            tokio::select! {
                // Cancel-safe: wait can be called again, and the drained bytes are discarded.
                status = self.process.wait() => status,
                () = drained => self.process.wait().await,
            }
        })
        .await;
        let status = match waited {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => format!("exit status unknown: {error}"),
            Err(_still_there) => {
                // Fails only if the process has exited already.
                let _gone = self.process.start_kill();
                let _reaped = tokio::time::timeout(REAP_TIMEOUT, self.process.wait()).await;
                "killed by its worker".to_owned()
            }
        };
        let _lines_left = tokio::time::timeout(STDERR_TIMEOUT, self.stderr_ended).await;
        if let Some(pid) = self.reported_pid {
            // The file is absent if the child created none.
            let _absent = tokio::fs::remove_file(self.pid_dir.join(pid.to_string())).await;
        }
        ChildExit { status, stderr_tail: self.stderr_tail.take() }
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

async fn drain(mut stdout: ChildStdout) {
    let mut scrap = vec![0; 8 << 10];
    while stdout.read(&mut scrap).await.is_ok_and(|n| n > 0) {}
}

/// Last lines of stderr.
#[derive(Debug, Default)]
struct StderrTail {
    // Guards the lines, oldest first; held for a few instructions.
    lines: Mutex<VecDeque<String>>,
}

impl StderrTail {
    fn add(&self, line: String) {
        let mut lines = self.lines.lock().expect("no one panics while holding last words");
        lines.push_back(line);
        while lines.iter().map(|line| line.len() + 1).sum::<usize>() > MAX_STDERR_TAIL_BYTES {
            lines.pop_front();
        }
    }

    fn take(&self) -> String {
        let lines = std::mem::take(&mut *self.lines.lock().expect("no one panics while holding last words"));
        Vec::from(lines).join("\n")
    }
}

async fn read_stderr(
    mut stderr: ChildStderr,
    component: ComponentId,
    task: TaskId,
    stderr_tail: Arc<StderrTail>,
    ended: oneshot::Sender<()>,
) {
    let mut unread = BytesMut::new();
    let record = |line: &[u8]| {
        let line = String::from_utf8_lossy(line.trim_ascii_end());
        if !line.is_empty() {
            info!(%component, %task, "stderr: {line}");
            stderr_tail.add(line.into_owned());
        }
    };
    while stderr.read_buf(&mut unread).await.is_ok_and(|n| n > 0) {
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            record(&unread.split_to(end + 1));
        }
        if unread.len() > MAX_STDERR_LINE_BYTES {
            record(&unread.split());
        }
    }
    record(&unread);
    // Fails if no receiver waits, which is the usual case.
    let _nobody_waits = ended.send(());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multilang::message::{ComponentNotice, LogLevel};

    fn launch(script: &str, dir: &Path) -> ChildSpec {
        ChildSpec {
            component: "c".parse().expect("valid"),
            task: TaskId(7),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            dir: dir.to_owned(),
            environment: BTreeMap::from([("COLOUR".to_owned(), "blue".into())]),
            pid_dir: dir.to_owned(),
            group: ComponentGroup::Workers,
        }
    }

    fn start(script: &str, dir: &Path, tasks: &Tasks) -> Result<Child, Error> {
        Child::start(&launch(script, dir), &serde_json::json!({ "hello": 1 }), tasks)
    }

    async fn next(child: &mut Child) -> Result<FromChild, Error> {
        loop {
            if let Some(message) = child.next_message()? {
                return Ok(message);
            }
            child.exchange().await?;
        }
    }

    fn log(text: &str) -> FromChild {
        FromChild::Notice(ComponentNotice::Log { level: LogLevel::Info, text: text.to_owned() })
    }

    #[tokio::test]
    async fn child_receives_the_handshake_and_its_messages_are_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let script = r#"read hello; touch 12; printf '{"pid":12}\nend\n{"command":"log","msg":%s}\nend\n' "$hello"
            printf '{"command":"log","msg":"%s"}\nend\n' $COLOUR; cat >/dev/null; echo over >&2; exit 3"#;
        let tasks = Tasks::default();
        let mut child = start(script, dir.path(), &tasks).expect("started");
        assert_eq!(next(&mut child).await.expect("a message"), FromChild::Pid(12));
        assert_eq!(next(&mut child).await.expect("a message"), log(r#"{"hello":1}"#));
        assert_eq!(next(&mut child).await.expect("a message"), log("blue"));
        let end = child.end(Duration::from_secs(10)).await;
        assert_eq!(end, ChildExit { status: "exit status: 3".to_owned(), stderr_tail: "over".to_owned() });
        assert!(!dir.path().join("12").exists(), "the pid file of a dead child is removed");
    }

    #[tokio::test]
    async fn child_that_does_not_exit_within_the_grace_is_killed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tasks = Tasks::default();
        let child = start("exec sleep 1000", dir.path(), &tasks).expect("started");
        assert_eq!(child.end(Duration::from_millis(10)).await.status, "killed by its worker");
    }

    #[tokio::test]
    async fn closed_stdout_is_reported_with_the_incomplete_message() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tasks = Tasks::default();
        let mut child = start(r#"printf '{"half"'"#, dir.path(), &tasks).expect("started");
        let error = next(&mut child).await.expect_err("ended");
        assert_eq!(error.to_string(), r#"stdout was closed within a message: {\"half\""#);
        assert_eq!(child.end(Duration::from_secs(10)).await.status, "exit status: 0");
    }

    #[tokio::test]
    async fn stderr_tail_is_bounded() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tasks = Tasks::default();
        let script = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done";
        let child = start(script, dir.path(), &tasks).expect("started");
        let end = child.end(Duration::from_secs(10)).await;
        assert!(end.stderr_tail.len() <= MAX_STDERR_TAIL_BYTES, "{}", end.stderr_tail.len());
        assert!(end.stderr_tail.ends_with("line 1999"), "{}", end.stderr_tail);
    }

    #[tokio::test]
    async fn missing_command_is_named_in_the_error() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tasks = Tasks::default();
        let mut launch = launch("", dir.path());
        launch.command = vec!["./no-such-program".to_owned()];
        let error = Child::start(&launch, &(), &tasks).expect_err("not there").to_string();
        assert!(error.contains("./no-such-program") && error.contains("No such file"), "{error}");
    }
}
