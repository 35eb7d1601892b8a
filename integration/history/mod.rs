//! Checks a run by ZooKeeper's transaction logs: writes of two leaders must never overlap, a record
//! that only a leader may write must never be written without the fence, and a slot must never have
//! two workers.
//!
//! The logs contain every transaction in the order of its effect, so the checker cannot miss one,
//! as a watch could.

mod log;
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;

use self::log::{Change, Op, Transaction};
use crate::cluster::{Cluster, ROOT};

/// ZooKeeper's error code of a check that found another version.
const BAD_VERSION: i32 = -103;

/// A term, as recorded in the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TermRecord {
    pub(crate) nimbus: String,
    /// Number of transactions written in this term.
    pub(crate) n_writes: usize,
}

/// Result of checking the logs.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// By term, without a gap from 1 on.
    pub(crate) terms: BTreeMap<i32, TermRecord>,
    /// Term in which each topology was submitted, by topology id, including removed topologies.
    pub(crate) submitted: BTreeMap<String, i32>,
    /// Number of transactions that the fence rejected: their first check found another version.
    pub(crate) n_rejected_by_fence: usize,
    /// Violations of the rules above.
    pub(crate) violations: Vec<String>,
}

impl History {
    /// Stops the cluster's ZooKeeper and checks its history.
    ///
    /// # Panics
    /// If the logs are incomplete.
    pub(crate) fn of(cluster: &mut Cluster) -> Self {
        cluster.zookeeper.kill9();
        let servers = &cluster.zookeeper.servers;
        let dirs: Vec<PathBuf> = servers.iter().map(|server| server.transactions_dir()).collect();
        Self::check(&log::read(&dirs))
    }

    /// # Panics
    /// If there is any violation, with all of them.
    pub(crate) fn assert_valid(&self) {
        assert!(self.violations.is_empty(), "{}", self.violations.join("\n"));
        assert!(!self.terms.is_empty(), "there was never a leader");
    }

    fn check(transactions: &BTreeMap<i64, Transaction>) -> Self {
        let mut checker = Checker { nimbus_of: sessions(transactions), ..Checker::default() };
        for (zxid, transaction) in transactions {
            match &transaction.change {
                Change::Ops(ops) => checker.add(*zxid, transaction.session, ops),
                Change::Refused { index: 0, code: BAD_VERSION } => checker.history.n_rejected_by_fence += 1,
                Change::Refused { .. } | Change::Session => {}
            }
        }
        checker.history
    }
}

#[derive(Debug, Default)]
struct Checker {
    history: History,
    /// Nimbus of each session that has registered one.
    nimbus_of: BTreeMap<i64, String>,
    term: i32,
    /// Slots of each assignment.
    slots: BTreeMap<String, BTreeSet<(String, u64)>>,
}

/// Owner of a path.
enum Place<'a> {
    Term,
    Leader,
    /// Written by an election, and by the leader.
    TreeId,
    /// Created by any daemon, without a term, and never changed.
    Fixed,
    /// Written by the leader only: kind and name of the record.
    Owned(&'a str, &'a str),
    /// Also written by others, or not in the tree.
    Free,
}

/// Top-level znodes that a daemon creates without a term: the version of the layout, and the empty
/// parents of records. Every other top-level znode belongs to the leader.
const FIXED: &[&str] = &[
    "layout",
    "storms",
    "tasks",
    "assignments",
    "credentials",
    "supervisors",
    "stopped-supervisors",
    "taskbeats",
    "taskerrors",
    "nimbuses",
    "supervisor-assignments",
    "drains",
    "events",
    "blobs",
    "metrics",
];

fn place(path: &str) -> Place<'_> {
    let Some(path) = path.strip_prefix(ROOT).and_then(|path| path.strip_prefix('/')) else {
        return Place::Free;
    };
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["term"] => Place::Term,
        ["leader"] => Place::Leader,
        ["tree-id"] => Place::TreeId,
        [root] if FIXED.contains(&root) => Place::Fixed,
        ["supervisors" | "nimbuses" | "blobs", ..] => Place::Free,
        // Supervisors write them; the leader deletes those of which no task waits.
        ["stopped-supervisors", _] => Place::Free,
        // Workers write the heartbeats and errors; the leader writes their parents.
        ["taskbeats" | "taskerrors", _, _, ..] => Place::Free,
        [kind, name, ..] => Place::Owned(kind, name),
        // A new top-level znode too.
        [kind] => Place::Owned(kind, ""),
        [] => Place::Free,
    }
}

impl Checker {
    fn add(&mut self, zxid: i64, session: i64, ops: &[Op]) {
        let places: Vec<Place<'_>> = ops.iter().map(|op| place(op.path())).collect();
        let begins_term = ops
            .iter()
            .zip(&places)
            .any(|(op, place)| matches!((op, place), (Op::Set { .. } | Op::Delete { .. }, Place::Term)));
        if begins_term {
            self.election(zxid, session, ops);
        } else if ops.iter().zip(&places).any(|(op, place)| match place {
            Place::Leader | Place::Owned(..) => true,
            // Any daemon waits for its server with a check of it.
            Place::TreeId => !matches!(op, Op::Check { .. }),
            Place::Term | Place::Fixed | Place::Free => false,
        }) {
            self.leader_write(zxid, session, ops);
        }
        for (op, place) in ops.iter().zip(&places) {
            match (place, op) {
                (Place::Owned(kind, name), _) => self.record(zxid, kind, name, op),
                (Place::Fixed, Op::Set { .. } | Op::Delete { .. }) => {
                    self.violation(zxid, "changes a fixed znode", ops);
                }
                (Place::Fixed | Place::Term | Place::Leader | Place::TreeId | Place::Free, _) => {}
            }
        }
    }

    /// Checks a transaction that sets `/term`: it must begin the next term and create `/leader`.
    fn election(&mut self, zxid: i64, session: i64, ops: &[Op]) {
        let created = ops.iter().any(|op| {
            matches!((op, place(op.path())), (Op::Create { is_ephemeral: true, .. }, Place::Leader))
        });
        let term = ops.iter().find_map(|op| match (op, place(op.path())) {
            (Op::Set { data, version, .. }, Place::Term) => Some((json(data), *version)),
            _ => None,
        });
        let Some((record, version)) = term.filter(|_| created) else {
            return self.violation(zxid, "sets /term and creates no ephemeral /leader", ops);
        };
        if version != self.term + 1 || record["term"] != version {
            self.violation(zxid, &format!("follows term {} with {version}, {record}", self.term), ops);
        }
        let nimbus = record["nimbus"].as_str().unwrap_or_default().to_owned();
        self.expect_author(zxid, session, &nimbus, ops);
        self.term = version;
        self.history.terms.insert(version, TermRecord { nimbus, n_writes: 0 });
    }

    /// Checks a transaction that writes a record of the leader: its first operation must check the
    /// current term, and it must come from the nimbus that won this term.
    fn leader_write(&mut self, zxid: i64, session: i64, ops: &[Op]) {
        match ops.first() {
            Some(Op::Check { path, version }) if matches!(place(path), Place::Term) => {
                if *version != self.term {
                    self.violation(zxid, &format!("is written under {version} in term {}", self.term), ops);
                }
            }
            _ => return self.violation(zxid, "is not fenced", ops),
        }
        if let Some(record) = self.history.terms.get_mut(&self.term) {
            record.n_writes += 1;
            let leader = record.nimbus.clone();
            self.expect_author(zxid, session, &leader, ops);
        } else {
            self.violation(zxid, "is written under a term without an election", ops);
        }
    }

    /// Checks the author of a transaction. A session that has not registered a nimbus may belong to
    /// any nimbus; the fence applies to it nevertheless.
    fn expect_author(&mut self, zxid: i64, session: i64, nimbus: &str, ops: &[Op]) {
        let author = self.nimbus_of.get(&session);
        if let Some(author) = author.filter(|author| *author != nimbus).cloned() {
            let what = format!("is written by {author}, and {nimbus} leads term {}", self.term);
            self.violation(zxid, &what, ops);
        }
    }

    fn record(&mut self, zxid: i64, kind: &str, name: &str, op: &Op) {
        match (kind, op) {
            ("storms", Op::Create { .. }) => {
                let before = self.history.submitted.insert(name.to_owned(), self.term);
                if let Some(term) = before {
                    self.violation(zxid, &format!("submits {name} a second time, after term {term}"), &[]);
                }
            }
            ("assignments", Op::Create { data, .. } | Op::Set { data, .. }) => {
                let slots = slots(data);
                for (other, taken) in self.slots.iter().filter(|(other, _)| *other != name) {
                    if let Some(slot) = slots.intersection(taken).next() {
                        let what = format!("gives {slot:?} to {name}, which {other} has");
                        self.history.violations.push(format!("{zxid:#x} {what}"));
                    }
                }
                self.slots.insert(name.to_owned(), slots);
            }
            ("assignments", Op::Delete { .. }) => {
                self.slots.remove(name);
            }
            _ => {}
        }
    }

    fn violation(&mut self, zxid: i64, what: &str, ops: &[Op]) {
        let paths: Vec<&str> = ops.iter().map(Op::path).collect();
        self.history.violations.push(format!("{zxid:#x} {what} {paths:?}"));
    }
}

/// Returns the nimbus of each session, by the ephemerals below `/nimbuses`.
fn sessions(transactions: &BTreeMap<i64, Transaction>) -> BTreeMap<i64, String> {
    let parent = format!("{ROOT}/nimbuses/");
    let mut nimbus_of = BTreeMap::new();
    for transaction in transactions.values() {
        let Change::Ops(ops) = &transaction.change else { continue };
        for op in ops {
            if let Op::Create { path, is_ephemeral: true, .. } = op
                && let Some(nimbus) = path.strip_prefix(&parent)
            {
                nimbus_of.insert(transaction.session, nimbus.to_owned());
            }
        }
    }
    nimbus_of
}

fn json(data: &[u8]) -> Value {
    serde_json::from_slice(data).unwrap_or_default()
}

fn slots(assignment: &[u8]) -> BTreeSet<(String, u64)> {
    let assignment = json(assignment);
    let workers = assignment["workers"].as_array().cloned().unwrap_or_default();
    let slot = |worker: &Value| Some((worker["supervisor"].as_str()?.to_owned(), worker["port"].as_u64()?));
    workers.iter().filter_map(slot).collect()
}
