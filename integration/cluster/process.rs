//! Processes of a test: started, killed, found.

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
    kind: String,
    dir: PathBuf,
    child: Option<Child>,
}

/// How much of a log a failure shows.
const LOG_LINES: usize = 40;

impl Daemon {
    /// Starts the daemon whose `storm.yaml` is in `dir`.
    pub(crate) fn start(kind: &str, name: &str, dir: &Path) -> Self {
        let mut daemon =
            Self { name: name.to_owned(), kind: kind.to_owned(), dir: dir.to_owned(), child: None };
        daemon.start_again();
        daemon
    }

    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_stormkeeper"))
            .arg(&self.kind)
            .arg("--config")
            .arg(self.dir.join("storm.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the daemon starts");
        self.child = Some(child);
    }

    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
        }
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), Signal::TERM);
        child.wait().expect("it is ours")
    }

    pub(crate) fn log_end(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
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

/// Signals a process that may be gone already.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    let _gone = kill_process(pid, signal);
}

/// The processes whose environment has this `NAME=value`.
pub(crate) fn processes_with(variable: &str) -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is there");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_zombie = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
        !is_zombie && environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    })
    .collect()
}

/// Ports below those that Linux gives to outgoing connections, so that none is taken between
/// here and its use by a daemon.
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

/// `kill -9`.
pub(crate) fn kill9(pid: u32) {
    signal(pid, Signal::KILL);
}
