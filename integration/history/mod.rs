//! Judges what happened by ZooKeeper's transaction logs: whether writes of two leaders ever
//! overlapped, whether anything that only a leader may write was written without the fence,
//! whether a slot ever held two workers.
//!
//! The logs have every transaction in the order it took effect, so nothing that happened can
//! be missed, as a watch could.

mod log;
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;

use self::log::{Change, Op, Transaction};
use crate::cluster::{Cluster, ROOT};

/// The code of a check that found another version.
const BAD_VERSION: i32 = -103;

/// One term, as the logs have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TermRecord {
    pub(crate) nimbus: String,
    /// How many transactions were written under it.
    pub(crate) n_writes: usize,
}

/// What the logs say.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// By term, without a gap from 1 on.
    pub(crate) terms: BTreeMap<i32, TermRecord>,
    /// Who submitted each topology that there ever was: its id, and the term.
    pub(crate) submitted: BTreeMap<String, i32>,
    /// How many transactions the fence refused: their first check found another version.
    pub(crate) n_fenced_off: usize,
    /// What must never happen, and did.
    pub(crate) violations: Vec<String>,
}

impl History {
    /// The history of a cluster, whose ZooKeeper is stopped for it.
    ///
    /// # Panics
    /// When the logs are not whole.
    pub(crate) fn of(cluster: &mut Cluster) -> Self {
        cluster.zookeeper.kill9();
        let servers = &cluster.zookeeper.servers;
        let dirs: Vec<PathBuf> = servers.iter().map(|server| server.transactions_dir()).collect();
        Self::judge(&log::read(&dirs))
    }

    /// # Panics
    /// When anything happened that must not, with all of it.
    pub(crate) fn assert_lawful(&self) {
        assert!(self.violations.is_empty(), "{}", self.violations.join("\n"));
        assert!(!self.terms.is_empty(), "nobody ever led");
    }

    fn judge(transactions: &BTreeMap<i64, Transaction>) -> Self {
        let mut judge = Judge { nimbus_of: sessions(transactions), ..Judge::default() };
        for (zxid, transaction) in transactions {
            match &transaction.change {
                Change::Ops(ops) => judge.take(*zxid, transaction.session, ops),
                Change::Refused { index: 0, code: BAD_VERSION } => judge.history.n_fenced_off += 1,
                Change::Refused { .. } | Change::Session => {}
            }
        }
        judge.history
    }
}

#[derive(Debug, Default)]
struct Judge {
    history: History,
    /// The nimbus behind each session that showed itself as one.
    nimbus_of: BTreeMap<i64, String>,
    term: i32,
    /// The slots of each assignment.
    slots: BTreeMap<String, BTreeSet<(String, u64)>>,
}

/// Where a path belongs.
enum Place<'a> {
    Term,
    Leader,
    /// Only the leader writes it. What kind of record, and its name.
    Owned(&'a str, &'a str),
    /// Others write it too, or it is not ours.
    Free,
}

fn place(path: &str) -> Place<'_> {
    let Some(path) = path.strip_prefix(ROOT).and_then(|path| path.strip_prefix('/')) else {
        return Place::Free;
    };
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["term"] => Place::Term,
        ["leader"] => Place::Leader,
        // Made by whoever comes first.
        [_root] => Place::Free,
        ["supervisors" | "nimbuses" | "blobs", ..] => Place::Free,
        // Beats and errors are their workers', the places for them the leader's.
        ["taskbeats" | "taskerrors", _, _, ..] => Place::Free,
        [kind, name, ..] => Place::Owned(kind, name),
        [] => Place::Free,
    }
}

impl Judge {
    fn take(&mut self, zxid: i64, session: i64, ops: &[Op]) {
        let places: Vec<Place<'_>> = ops.iter().map(|op| place(op.path())).collect();
        let begins_term = ops
            .iter()
            .zip(&places)
            .any(|(op, place)| matches!((op, place), (Op::Set { .. } | Op::Delete { .. }, Place::Term)));
        if begins_term {
            self.election(zxid, session, ops);
        } else if places.iter().any(|place| matches!(place, Place::Leader | Place::Owned(..))) {
            self.leaders_write(zxid, session, ops);
        }
        for (op, place) in ops.iter().zip(&places) {
            if let Place::Owned(kind, name) = place {
                self.record(zxid, kind, name, op);
            }
        }
    }

    /// A transaction that sets `/term`: it must begin the next term and create `/leader`.
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

    /// A transaction with something that only a leader writes: its first operation must check
    /// the term that is the current one, and it must come from the nimbus that won it.
    fn leaders_write(&mut self, zxid: i64, session: i64, ops: &[Op]) {
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
            self.violation(zxid, "is written under a term that nobody won", ops);
        }
    }

    /// A session that never showed itself as a nimbus may be any of them; the fence holds
    /// for it all the same.
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

/// The nimbus behind each session, by the ephemerals below `/nimbuses`.
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
