//! Child processes: ended with their owner, and looked at through `/proc`.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// Linux counts the CPU time of processes in these, on every machine it runs on.
const TICKS_PER_SECOND: u32 = 100;

/// A child process. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Closed when its owner ends, however that ends; a child that reads it can end as well.
    _input: Option<std::process::ChildStdin>,
}

impl Process {
    /// Starts `program`, with its errors appended to `log`.
    pub(crate) fn start(program: &Path, args: &[&str], log: &Path) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log");
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the process starts");
        let input = child.stdin.take();
        Self { child, _input: input }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// `kill -9`, and reaps it.
    pub(crate) fn kill9(mut self) {
        self.end();
    }

    /// SIGTERM. [`Process::ended`] waits for what comes of it.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("a running process takes signals");
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(mut self) {
        self.child.wait().expect("it is ours");
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _killed_or_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// How much CPU time a process has used, of all its threads.
pub(crate) fn cpu_time(pid: Pid) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name, which may hold anything, ends with the last parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // utime and stime are the 14th and 15th field, and two came before.
    let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    Duration::from_secs(1) * ticks / TICKS_PER_SECOND
}

/// How much memory a process holds, in bytes.
pub(crate) fn resident_bytes(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
