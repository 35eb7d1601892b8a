//! Processes of a test: start, kill, stop and find them.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// A nimbus or a supervisor.
pub(crate) struct Daemon {
    pub(crate) name: String,
    kind: &'static str,
    dir: PathBuf,
    /// Environment variables in addition to those of the test.
    environment: Vec<(String, String)>,
    child: Option<Child>,
    is_frozen: bool,
    /// Program of the next process.
    pub(crate) program: PathBuf,
}

/// A process, distinguished from a later one with the same pid by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Start time in clock ticks since the boot of the machine.
    pub(crate) started: u64,
}

/// Number of log lines in a failure message.
const LOG_LINES: usize = 40;

impl Daemon {
    /// Starts the daemon whose `storm.yaml` is in `dir`.
    pub(crate) fn start(kind: &'static str, name: &str, dir: &Path) -> Self {
        let mut daemon = Self {
            name: name.to_owned(),
            kind,
            dir: dir.to_owned(),
            environment: Vec::new(),
            child: None,
            is_frozen: false,
            program: env!("CARGO_BIN_EXE_stormkeeper").into(),
        };
        daemon.start_again();
        daemon
    }

    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).expect("a log");
        let child = Command::new(&self.program)
            .arg(self.kind)
            .arg("--config")
            .arg(self.dir.join("storm.yaml"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the daemon starts");
        self.child = Some(child);
    }

    /// Lets the clock of the next process differ by `offset`, such as `+5s`. Elapsed time is not changed.
    ///
    /// # Panics
    /// If the package `faketime` is not installed.
    pub(crate) fn shift_clock(&mut self, offset: &str) {
        let below = fs::read_dir("/usr/lib").expect("readable").filter_map(Result::ok);
        let library =
            below.map(|dir| dir.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        let library = library.expect("the package faketime is installed: scripts/test does that");
        self.environment = [
            ("LD_PRELOAD", library.to_str().expect("text")),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    }

    /// Lets the next process have the clock of this host again.
    pub(crate) fn set_clock_right(&mut self) {
        self.environment.clear();
    }

    /// True if the daemon runs and is not frozen.
    pub(crate) fn answers(&self) -> bool {
        self.child.is_some() && !self.is_frozen
    }

    /// The running process.
    pub(crate) fn process(&self) -> Process {
        let pid = self.child.as_ref().expect("it runs").id();
        Process::of(pid).expect("the child has not been reaped")
    }

    pub(crate) fn kill9(&mut self) {
        self.is_frozen = false;
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is a child of this test");
            child.wait().expect("it is a child of this test");
        }
    }

    /// Sends SIGTERM and waits for the end of the process.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), Signal::TERM);
        child.wait().expect("it is a child of this test")
    }

    /// Freezes the process (SIGSTOP), as a long pause would.
    pub(crate) fn freeze(&mut self) {
        self.is_frozen = true;
        signal(self.process().pid, Signal::STOP);
    }

    /// Resumes the process (SIGCONT).
    pub(crate) fn thaw(&mut self) {
        self.is_frozen = false;
        signal(self.process().pid, Signal::CONT);
    }

    pub(crate) fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
    }
}

impl Process {
    /// Returns the running process with this pid, if there is one.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in the second field may contain any characters; the fields after its last ")" do
        // not.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        // Eighteen fields are between the state and the start time.
        let started = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, started })
    }
}

/// Sends a signal to a process, which may have ended already.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    let _gone = kill_process(pid, signal);
}

/// Returns the processes with this `NAME=value` in their environment.
pub(crate) fn processes_with(variable: &str) -> BTreeSet<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is there");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let has_it = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    };
    pids.filter(has_it).filter_map(Process::of).collect()
}

/// Returns free ports below the range that Linux uses for outgoing connections, so that no port is
/// taken before a daemon binds it.
pub(crate) fn free_ports(n: usize) -> Vec<u16> {
    let mut ports = Vec::with_capacity(n);
    for _ in 0..1000 {
        let port = fastrand::u16(12_000..20_000);
        if !ports.contains(&port) && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            ports.push(port);
        }
        if ports.len() == n {
            return ports;
        }
    }
    panic!("no {n} free ports");
}

/// Kills a process (`kill -9`).
pub(crate) fn kill9(pid: u32) {
    signal(pid, Signal::KILL);
}
