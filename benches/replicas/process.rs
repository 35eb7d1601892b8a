//! Child processes: ended with their owner, and observed through `/proc`.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// Linux counts the CPU time of processes in these ticks, on every machine.
const TICKS_PER_SECOND: u32 = 100;

/// A child process. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Closed when its owner ends in any way; a child that reads it can end as well.
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

    /// Kills the process (`kill -9`) and reaps it.
    pub(crate) fn kill9(mut self) {
        self.end();
    }

    /// Sends SIGTERM. [`Process::ended`] waits for the end.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("a running process takes signals");
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn ended(mut self) {
        self.child.wait().expect("it is a child of this process");
    }

    fn end(&mut self) {
        // The process may have ended already.
        let _killed_or_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// CPU time that a process has used, including all threads.
pub(crate) fn cpu_time(pid: Pid) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name, which may contain any characters, ends with the last parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // utime and stime are fields 14 and 15; two fields precede the last parenthesis.
    let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    Duration::from_secs(1) * ticks / TICKS_PER_SECOND
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
