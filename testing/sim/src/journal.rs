//! The journal of a run: everything that took effect in the tree or on a machine, in order, with
//! a digest of all lines and the last lines in full. The invariants check each entry.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    invariants::{Checks, Violation},
    metric_log::{MetricLogEvent, StoreDisk},
    model::ClusterModel,
};
use stormkeeper_access::quota::Quota;
use stormkeeper_coordination::{
    cluster::{layout, record},
    tree::{
        Op,
        memory::listener::{Commit, What},
    },
};
use stormkeeper_metric_store::{DirectoryChange, ExportKey};
use stormkeeper_metrics::{MetricId, MetricName, Point};
use stormkeeper_model::{
    LogPosition,
    clock::{Clock, Monotonic},
};

/// Number of lines kept for the analysis of a violation.
const TAIL: usize = 400;

/// Maximum length of data shown in a line.
const SHOWN_BYTES: usize = 160;

/// Maximum number of lines within one second of simulated time. More is a livelock: time would hardly
/// advance, and the run would never end. A whole run has about 200 transactions.
const LINES_PER_SECOND_MAX: u32 = 20_000;

/// The owner of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Party {
    /// A nimbus, by its name in the run.
    Nimbus(String),
    /// A supervisor.
    Supervisor(String),
    /// A worker process, by its worker id.
    Worker(String),
    /// An operator with zkCli.
    Operator,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nimbus(name) | Self::Supervisor(name) | Self::Worker(name) => name,
            Self::Operator => "operator",
        })
    }
}

/// The journal of one run.
#[derive(Debug)]
pub(super) struct Journal {
    clock: Clock,
    start: Monotonic,
    parties: BTreeMap<u64, Party>,
    /// Disks of the metric stores, by nimbus.
    disks: BTreeMap<String, StoreDisk>,
    digest: Digest,
    n_commits: u64,
    tail: VecDeque<String>,
    model: ClusterModel,
    checks: Checks,
    violation: Option<Violation>,
    /// Wakes the run at the first violation, even while time does not advance.
    violated: Arc<Notify>,
    /// The current second, and its lines.
    lines: (u64, u32),
}

impl Journal {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            start: clock.monotonic(),
            clock,
            parties: BTreeMap::new(),
            disks: BTreeMap::new(),
            digest: Digest::default(),
            n_commits: 0,
            tail: VecDeque::new(),
            model: ClusterModel::default(),
            checks: Checks::all(),
            violation: None,
            violated: Arc::default(),
            lines: (0, 0),
        }
    }

    /// Returns what is notified once at the first violation.
    pub(super) fn violated(&self) -> Arc<Notify> {
        Arc::clone(&self.violated)
    }

    /// Records the owner of a connection.
    pub(super) fn register_owner(&mut self, connection: u64, party: Party) {
        self.parties.insert(connection, party);
    }

    /// Records and checks a commit in the tree.
    pub(super) fn commit(&mut self, commit: &Commit<'_>) {
        self.n_commits += 1;
        self.model.now = self.now();
        let party = self.parties.get(&commit.connection).cloned().unwrap_or(Party::Operator);
        let line = describe(&party, commit);
        self.write(line);
        let Self { checks, model, .. } = self;
        let checked = checks.commit(model, commit, &party);
        model.commit(commit);
        let checked = checked.and_then(|()| checks.state(model));
        self.record_check(checked);
        self.published(&party, commit);
    }

    /// Records the disk of a nimbus' metric store.
    pub(super) fn register_disk(&mut self, nimbus: &str, disk: &StoreDisk) {
        self.disks.insert(nimbus.to_owned(), disk.clone());
    }

    /// Records and checks a new state of the metric log, with the log of its writer.
    fn published(&mut self, party: &Party, commit: &Commit<'_>) {
        let What::Transaction { ops, .. } = commit.what else { return };
        let path = layout::metric_log();
        let (true, Party::Nimbus(nimbus)) = (ops.iter().any(|op| *op.path() == path), party) else { return };
        let (Some(node), Some(disk)) = (commit.after.get(&path), self.disks.get(nimbus)) else { return };
        if let Ok(state) = record::decode(&path, &node.data) {
            let (nimbus, log) = (nimbus.clone(), disk.log());
            self.metric_log(&MetricLogEvent::Published { nimbus, state, log });
        }
    }

    /// Records and checks the answer of `nimbus` that a batch is in its log.
    pub(super) fn answered(&mut self, nimbus: &str, at: LogPosition, high_watermark: LogPosition) {
        let log = self.disks.get(nimbus).map(StoreDisk::log).unwrap_or_default();
        self.metric_log(&MetricLogEvent::Answered { nimbus: nimbus.to_owned(), at, high_watermark, log });
    }

    /// Records and checks a change that the metric store of `nimbus` is about to make on its disk.
    pub(super) fn directory_change(&mut self, nimbus: &str, change: &DirectoryChange<'_>) {
        if let Some(event) = self.disks.get(nimbus).and_then(|disk| disk.event(nimbus, change)) {
            self.metric_log(&event);
        }
    }

    /// Records and checks an event of the metric logs.
    pub(super) fn metric_log(&mut self, event: &MetricLogEvent) {
        self.model.now = self.now();
        self.write(event.to_string());
        let Self { checks, model, .. } = self;
        let checked = checks.metric_log(model, event);
        model.metric_log(event);
        self.record_check(checked);
    }

    /// Records an event that no invariant checks: on a machine, of a client, of the scenario.
    pub(super) fn log(&mut self, text: impl fmt::Display) {
        self.write(text.to_string());
    }

    /// Records and checks an event on a machine.
    pub(super) fn machine(&mut self, event: &super::model::MachineEvent) {
        self.model.now = self.now();
        self.write(event.to_string());
        let Self { checks, model, .. } = self;
        let checked = checks.machine(model, event);
        model.machine(event);
        let checked = checked.and_then(|()| checks.state(model));
        self.record_check(checked);
    }

    /// Records the points of a batch that the leader has stored at `at` or before.
    pub(super) fn stored(&mut self, at: LogPosition, points: &[(MetricId, Point)]) {
        self.model.counters.stored(at, points);
    }

    /// Records the counters that the external store accepted from `nimbus`.
    pub(super) fn exported(&mut self, nimbus: &str, key: &ExportKey, counters: &[(MetricName, u64)]) {
        let (n, sum) = (counters.len(), counters.iter().map(|(_, count)| count).sum::<u64>());
        self.write(format!("{nimbus} exported {key}: {n} counters, in sum {sum}"));
        self.model.counters.exported(key.minute, counters);
    }

    /// Fails the run for a reason outside of the invariants.
    pub(super) fn fail(&mut self, invariant: &'static str, reason: String) {
        self.record_check(Err(Violation { invariant, reason }));
    }

    /// Sets the quota of every owner, before anything runs.
    pub(super) fn set_quota(&mut self, quota: Quota) {
        self.model.quota = Some(quota);
    }

    pub(super) fn model(&self) -> &ClusterModel {
        &self.model
    }

    pub(super) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    pub(super) fn n_commits(&self) -> u64 {
        self.n_commits
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.0
    }

    pub(super) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    fn now(&self) -> Duration {
        self.clock.monotonic().since(self.start)
    }

    fn record_check(&mut self, checked: Result<(), Violation>) {
        if let Err(violation) = checked
            && self.violation.is_none()
        {
            self.write(format!("VIOLATED {}: {}", violation.invariant, violation.reason));
            self.violation = Some(violation);
            self.violated.notify_one();
        }
    }

    /// Counts a line, and fails the run at a livelock.
    fn count_line(&mut self) {
        let second = self.now().as_secs();
        let (counted, n) = self.lines;
        self.lines = (second, if counted == second { n.saturating_add(1) } else { 1 });
        if self.lines.1 == LINES_PER_SECOND_MAX {
            let reason = format!("more than {LINES_PER_SECOND_MAX} events in second {second} of the run");
            self.record_check(Err(Violation { invariant: "livelock", reason }));
        }
    }

    fn write(&mut self, text: String) {
        let line = format!("{:9.3} {text}", self.now().as_secs_f64());
        self.digest.add(line.as_bytes());
        // Lines after the first violation are of no interest.
        if self.violation.is_none() {
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(line);
            self.count_line();
        }
    }
}

/// FNV-1a: the same in all versions and on all machines.
#[derive(Debug)]
pub(super) struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

fn describe(party: &Party, commit: &Commit<'_>) -> String {
    let mut line = format!("{party:14}");
    match commit.what {
        What::SessionEnded(paths) => {
            line.push_str(" session ended");
            paths.iter().for_each(|path| add(&mut line, format_args!(" -{path}")));
        }
        What::Transaction { ops, .. } => {
            for op in ops {
                match op {
                    Op::Check { path, version } => {
                        add(&mut line, format_args!(" ?{path}@{}", version.map_or(-1, |version| version.0)));
                    }
                    Op::Create { path, data, mode } => {
                        let kind = if mode.is_ephemeral() { "+~" } else { "+" };
                        add(&mut line, format_args!(" {kind}{path}{}", shown(data)));
                    }
                    Op::Set { path, data, .. } => add(&mut line, format_args!(" ={path}{}", shown(data))),
                    Op::Delete { path, .. } => add(&mut line, format_args!(" -{path}")),
                }
            }
        }
    }
    line
}

fn add(line: &mut String, text: fmt::Arguments<'_>) {
    line.write_fmt(text).expect("a string takes everything");
}

fn shown(data: &[u8]) -> String {
    match std::str::from_utf8(data) {
        Ok("") => String::new(),
        Ok(text) if text.len() <= SHOWN_BYTES => format!(" {text}"),
        _ => {
            let mut digest = Digest::default();
            digest.add(data);
            format!(" ({} bytes, {:x})", data.len(), digest.0)
        }
    }
}
