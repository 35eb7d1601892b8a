//! One child process: how it is started, spoken to, heard and ended.
//!
//! - A child stays in its worker's process group, which the supervisor kills as a whole; it
//!   is killed when its [`Child`] is dropped; and its stdin ends with the worker, whatever
//!   happens to that.
//! - Reading and writing go on side by side in [`Child::exchange`], so a child that fills
//!   its stdout before it reads its stdin stops nothing.
//! - Its stderr is free text: every line goes to the log, and the last ones are kept for the
//!   error report of its end.

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

/// A child that leaves this much unread is given up: it reads nothing, and what waits for it
/// must not fill memory.
const MAX_UNREAD_BYTES: usize = 64 << 20;

/// What is kept of stderr for an error report; a stack trace fits, a znode is not filled.
const MAX_LAST_WORDS_BYTES: usize = 4 << 10;

/// A line of stderr that is longer is logged in pieces.
const MAX_STDERR_LINE_BYTES: usize = 2 << 10;

/// How long a killed process may take to be gone before it is left to the system: SIGKILL
/// only waits for a disk or a network file system that hangs.
const REAP_PATIENCE: Duration = Duration::from_secs(1);

/// How long the rest of stderr is waited for once the process is gone; a grandchild may hold
/// it open for ever.
const STDERR_PATIENCE: Duration = Duration::from_millis(200);

/// Everything needed to start a component's process.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The component.
    pub component: ComponentId,
    /// The task that it runs.
    pub task: TaskId,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs.
    pub dir: PathBuf,
    /// Variables added to its environment.
    pub environment: BTreeMap<String, OsString>,
    /// Where it leaves a file named by its pid.
    pub pid_dir: PathBuf,
    /// The process group that it runs in.
    pub group: ComponentGroup,
}

/// Why a child cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("cannot start {command:?} in {}: {source}", dir.display())]
    Start {
        /// Program and arguments.
        command: Vec<String>,
        /// Where it was to run.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its stdout ended.
    #[error("it ended its output{}", .rest.as_ref().map(|rest| format!(" within a message: {rest}")).unwrap_or_default())]
    Ended {
        /// The beginning of a message that it did not complete.
        rest: Option<String>,
    },
    /// Its stdout cannot be read.
    #[error("its output cannot be read: {0}")]
    Read(io::Error),
    /// It does not read its stdin.
    #[error("it leaves {MAX_UNREAD_BYTES} bytes of its input unread")]
    ReadsNothing,
    /// Its output is no sequence of messages.
    #[error(transparent)]
    Frame(#[from] frame::Error),
    /// One of its messages is not of the protocol.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// What is known of a child that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obituary {
    /// How it ended, for people.
    pub exit: String,
    /// The last lines of its stderr.
    pub last_words: String,
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    // None once the child has closed it.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    unsent: BytesMut,
    decoder: Decoder,
    last_words: Arc<LastWords>,
    stderr_ended: oneshot::Receiver<()>,
    pid_dir: PathBuf,
    pid_said: Option<u32>,
    // Reads stderr; dropping it ends that.
    _stderr: Tasks,
}

impl Child {
    /// Starts the process and queues the handshake `hello`. Its stderr is read by a task of `tasks`.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub fn start(launch: &Launch, hello: &impl Serialize, tasks: &Tasks) -> Result<Self, Error> {
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
        let last_words = Arc::new(LastWords::default());
        let (ended, stderr_ended) = oneshot::channel();
        let reader =
            read_stderr(stderr, launch.component.clone(), launch.task, Arc::clone(&last_words), ended);
        let stderr = tasks.child();
        stderr.start("stderr of a component", OnExit::Ignore, reader);
        let mut child = Self {
            process,
            stdin: Some(stdin),
            stdout,
            unsent: BytesMut::new(),
            decoder: Decoder::default(),
            last_words,
            stderr_ended,
            pid_dir: launch.pid_dir.clone(),
            pid_said: None,
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

    /// How many bytes are queued.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent.len()
    }

    /// Writes some of what is queued or reads some of what the child has said, whatever is
    /// possible first.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::Read`] and [`Error::ReadsNothing`].
    ///
    /// # Cancellation safety
    /// Safe: bytes are written and read, and kept account of, or neither.
    pub async fn exchange(&mut self) -> Result<(), Error> {
        if self.unsent.len() > MAX_UNREAD_BYTES {
            return Err(Error::ReadsNothing);
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
                    // Its last words may still be in its stdout: read on until that ends.
                    debug!(%error, "a component closed its input");
                    self.stdin = None;
                    self.unsent.clear();
                }
                Ok(())
            }
        }
    }

    /// The next message that was read whole, if there is one.
    ///
    /// # Errors
    /// [`Error::Frame`] and [`Error::Invalid`].
    pub fn heard(&mut self) -> Result<Option<FromChild>, Error> {
        let Some(bytes) = self.decoder.next_message()? else { return Ok(None) };
        let message = FromChild::parse(&bytes)?;
        if let FromChild::Pid(pid) = message {
            self.pid_said = Some(pid);
        }
        Ok(Some(message))
    }

    /// Ends the process: closes its stdin, kills it when it is still there after `grace`,
    /// and reaps it. Bounded by `grace` and little more than a second.
    pub async fn end(mut self, grace: Duration) -> Obituary {
        drop(self.stdin.take());
        // Whoever still writes to us must not be stopped by a full pipe.
        let drained = drain(self.stdout);
        let waited = tokio::time::timeout(grace, async {
            tokio::select! {
                // Cancel-safe: wait can be called again, and the drained bytes are of no use.
                status = self.process.wait() => status,
                () = drained => self.process.wait().await,
            }
        })
        .await;
        let exit = match waited {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => format!("its exit status is unknown: {error}"),
            Err(_still_there) => {
                // Fails only when it is gone already.
                let _gone = self.process.start_kill();
                let _reaped = tokio::time::timeout(REAP_PATIENCE, self.process.wait()).await;
                "killed by its worker".to_owned()
            }
        };
        let _lines_left = tokio::time::timeout(STDERR_PATIENCE, self.stderr_ended).await;
        if let Some(pid) = self.pid_said {
            // Not there when the child left none.
            let _absent = tokio::fs::remove_file(self.pid_dir.join(pid.to_string())).await;
        }
        Obituary { exit, last_words: self.last_words.take() }
    }
}

/// A relative program with a slash is one of the component's own files. Said explicitly, as
/// the system may resolve it before or after the change of directory.
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

/// The last lines of stderr.
#[derive(Debug, Default)]
struct LastWords {
    // Guards the lines, oldest first; held for a few instructions.
    lines: Mutex<VecDeque<String>>,
}

impl LastWords {
    fn add(&self, line: String) {
        let mut lines = self.lines.lock().expect("no one panics while holding last words");
        lines.push_back(line);
        while lines.iter().map(|line| line.len() + 1).sum::<usize>() > MAX_LAST_WORDS_BYTES {
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
    last_words: Arc<LastWords>,
    ended: oneshot::Sender<()>,
) {
    let mut unread = BytesMut::new();
    let say = |line: &[u8]| {
        let line = String::from_utf8_lossy(line.trim_ascii_end());
        if !line.is_empty() {
            info!(%component, %task, "stderr: {line}");
            last_words.add(line.into_owned());
        }
    };
    while stderr.read_buf(&mut unread).await.is_ok_and(|n| n > 0) {
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            say(&unread.split_to(end + 1));
        }
        if unread.len() > MAX_STDERR_LINE_BYTES {
            say(&unread.split());
        }
    }
    say(&unread);
    // Fails when nobody waits, which is the usual case.
    let _nobody_waits = ended.send(());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multilang::message::{LogLevel, Remark};

    fn launch(script: &str, dir: &Path) -> Launch {
        Launch {
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
            if let Some(message) = child.heard()? {
                return Ok(message);
            }
            child.exchange().await?;
        }
    }

    fn log(text: &str) -> FromChild {
        FromChild::Remark(Remark::Log { level: LogLevel::Info, text: text.to_owned() })
    }

    #[tokio::test]
    async fn a_child_hears_the_handshake_and_is_heard() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let script = r#"read hello; touch 12; printf '{"pid":12}\nend\n{"command":"log","msg":%s}\nend\n' "$hello"
            printf '{"command":"log","msg":"%s"}\nend\n' $COLOUR; cat >/dev/null; echo over >&2; exit 3"#;
        let tasks = Tasks::default();
        let mut child = start(script, dir.path(), &tasks).expect("started");
        assert_eq!(next(&mut child).await.expect("heard"), FromChild::Pid(12));
        assert_eq!(next(&mut child).await.expect("heard"), log(r#"{"hello":1}"#));
        assert_eq!(next(&mut child).await.expect("heard"), log("blue"));
        let end = child.end(Duration::from_secs(10)).await;
        assert_eq!(end, Obituary { exit: "exit status: 3".to_owned(), last_words: "over".to_owned() });
        assert!(!dir.path().join("12").exists(), "the pid file of a dead child is removed");
    }

    #[tokio::test]
    async fn a_child_that_stays_is_killed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tasks = Tasks::default();
        let child = start("exec sleep 1000", dir.path(), &tasks).expect("started");
        assert_eq!(child.end(Duration::from_millis(10)).await.exit, "killed by its worker");
    }

    #[tokio::test]
    async fn the_end_of_a_child_is_told_with_what_it_left() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tasks = Tasks::default();
        let mut child = start(r#"printf '{"half"'"#, dir.path(), &tasks).expect("started");
        let error = next(&mut child).await.expect_err("ended");
        assert_eq!(error.to_string(), r#"it ended its output within a message: {\"half\""#);
        assert_eq!(child.end(Duration::from_secs(10)).await.exit, "exit status: 0");
    }

    #[tokio::test]
    async fn last_words_are_bounded() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tasks = Tasks::default();
        let script = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done";
        let child = start(script, dir.path(), &tasks).expect("started");
        let end = child.end(Duration::from_secs(10)).await;
        assert!(end.last_words.len() <= MAX_LAST_WORDS_BYTES, "{}", end.last_words.len());
        assert!(end.last_words.ends_with("line 1999"), "{}", end.last_words);
    }

    #[tokio::test]
    async fn a_command_that_does_not_exist_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tasks = Tasks::default();
        let mut launch = launch("", dir.path());
        launch.command = vec!["./no-such-program".to_owned()];
        let error = Child::start(&launch, &(), &tasks).expect_err("not there").to_string();
        assert!(error.contains("./no-such-program") && error.contains("No such file"), "{error}");
    }
}
