//! The journal of a run: everything that took effect in the tree or on a machine, in its
//! order, with a digest of all of it and the last lines in full. Each entry is shown to the
//! invariants.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Write as _},
    time::Duration,
};

use crate::{
    clock::{Clock, Monotonic},
    test_support::sim::{
        facts::Facts,
        invariants::{Checks, Violation},
    },
    tree::{
        Op,
        memory::listen::{Commit, What},
    },
};

/// How many lines are kept for whoever has to find out what went wrong.
const TAIL: usize = 400;

/// The longest data that is shown in a line.
const SHOWN_BYTES: usize = 160;

/// Who a connection belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Party {
    /// A nimbus, by its name in the run.
    Nimbus(String),
    /// A supervisor.
    Supervisor(String),
    /// A worker process, by its launch.
    Worker(String),
    /// Someone with zkCli.
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
    digest: Digest,
    n_commits: u64,
    tail: VecDeque<String>,
    facts: Facts,
    checks: Checks,
    violation: Option<Violation>,
}

impl Journal {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            start: clock.monotonic(),
            clock,
            parties: BTreeMap::new(),
            digest: Digest::default(),
            n_commits: 0,
            tail: VecDeque::new(),
            facts: Facts::default(),
            checks: Checks::all(),
            violation: None,
        }
    }

    /// Says whose a connection is.
    pub(super) fn introduce(&mut self, connection: u64, party: Party) {
        self.parties.insert(connection, party);
    }

    /// Takes down what took effect in the tree.
    pub(super) fn commit(&mut self, commit: &Commit<'_>) {
        self.n_commits += 1;
        self.facts.now = self.now();
        let party = self.parties.get(&commit.connection).cloned().unwrap_or(Party::Operator);
        let line = describe(&party, commit);
        self.write(line);
        let Self { checks, facts, .. } = self;
        let checked = checks.commit(facts, commit, &party);
        facts.commit(commit);
        let checked = checked.and_then(|()| checks.state(facts));
        self.note(checked);
    }

    /// Takes down what happened elsewhere: on a machine, to a client, by the script.
    pub(super) fn remark(&mut self, text: impl fmt::Display) {
        self.write(text.to_string());
    }

    /// Shows what happens on a machine to the invariants.
    pub(super) fn machine(&mut self, event: &super::facts::MachineEvent) {
        self.facts.now = self.now();
        self.write(event.to_string());
        let Self { checks, facts, .. } = self;
        let checked = checks.machine(facts, event);
        facts.machine(event);
        let checked = checked.and_then(|()| checks.state(facts));
        self.note(checked);
    }

    /// Fails the run for a reason that no invariant saw.
    pub(super) fn fail(&mut self, invariant: &'static str, reason: String) {
        self.note(Err(Violation { invariant, reason }));
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
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

    fn note(&mut self, checked: Result<(), Violation>) {
        if let Err(violation) = checked
            && self.violation.is_none()
        {
            self.write(format!("VIOLATED {}: {}", violation.invariant, violation.reason));
            self.violation = Some(violation);
        }
    }

    fn write(&mut self, text: String) {
        let line = format!("{:9.3} {text}", self.now().as_secs_f64());
        self.digest.add(line.as_bytes());
        // What came after the first violation is of no interest.
        if self.violation.is_none() {
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(line);
        }
    }
}

/// FNV-1a: the same in every version and on every machine.
#[derive(Debug)]
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
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
