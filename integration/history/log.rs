//! ZooKeeper's own transaction logs, read from the servers' data directories.
//!
//! A server writes every transaction to its log before it votes for the transaction: in the order
//! of the transaction numbers (zxid), with the session of the client, and with all operations of a
//! multi, including its checks. So the log shows every transaction, in the order of its effect.
//!
//! The format (`FileTxnLog` of ZooKeeper 3.6 and later, all numbers big-endian):
//!
//! ```text
//! file   = "ZKLG" version:i32 database:i64 entry* zeros
//! entry  = adler32:i64 length:i32 header body digest 'B'
//! header = session:i64 cxid:i32 zxid:i64 time_ms:i64 kind:i32
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A transaction that took effect, or was rejected as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// Session of the client that sent it.
    pub(crate) session: i64,
    pub(crate) change: Change,
}

/// Effect of a transaction on the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// All of these operations.
    Ops(Vec<Op>),
    /// No effect: the operation with this index failed with this code.
    Refused { index: usize, code: i32 },
    /// No effect on the records: a session begins, or ends with its ephemerals.
    Session,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Create {
        path: String,
        data: Vec<u8>,
        is_ephemeral: bool,
    },
    Delete {
        path: String,
    },
    /// `version` is the version after the operation.
    Set {
        path: String,
        data: Vec<u8>,
        version: i32,
    },
    /// `version` is the version that the operation expects.
    Check {
        path: String,
        version: i32,
    },
}

impl Op {
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Create { path, .. }
            | Self::Delete { path }
            | Self::Set { path, .. }
            | Self::Check { path, .. } => path,
        }
    }
}

/// Reads all transactions of an ensemble by their zxid, from the logs in `dirs`. The servers must
/// be in sync: a server discards a transaction that it logged but the ensemble never committed only
/// when it joins the ensemble again.
///
/// # Panics
/// If the logs contradict each other, or a transaction is in none of them.
pub(crate) fn read(dirs: &[PathBuf]) -> BTreeMap<i64, Transaction> {
    let mut transactions = BTreeMap::new();
    for dir in dirs {
        for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let file = entry.expect("readable").path();
            let is_log = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log."));
            for (zxid, transaction) in is_log.then(|| read_file(&file)).into_iter().flatten() {
                if let Some(other) = transactions.insert(zxid, transaction.clone()) {
                    assert_eq!(other, transaction, "two servers disagree about transaction {zxid:#x}");
                }
            }
        }
    }
    let numbers: Vec<i64> = transactions.keys().copied().collect();
    for pair in numbers.windows(2) {
        // The upper half is ZooKeeper's epoch, the lower half counts from 1.
        let next = if pair[1] >> 32 == pair[0] >> 32 { pair[0] + 1 } else { (pair[1] >> 32 << 32) + 1 };
        assert_eq!(pair[1], next, "a transaction after {:#x} is in no log", pair[0]);
    }
    assert!(
        numbers.first().is_some_and(|first| first & 0xffff_ffff == 1),
        "the first transactions are missing in the logs: {numbers:x?}"
    );
    transactions
}

fn read_file(file: &Path) -> Vec<(i64, Transaction)> {
    const HEADER_BYTES: usize = 16;
    let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut rest = Bytes(bytes.get(HEADER_BYTES..).unwrap_or_default());
    let mut transactions = Vec::new();
    // A killed server may leave an incomplete entry; the rest of a file is zeros.
    while let Some(entry) = next_entry(&mut rest) {
        transactions.push(transaction(entry).unwrap_or_else(|| panic!("{}: {entry:?}", file.display())));
    }
    transactions
}

fn next_entry<'a>(rest: &mut Bytes<'a>) -> Option<Bytes<'a>> {
    let (checksum, entry) = (rest.long()?, rest.buffer()?);
    let is_whole = !entry.is_empty() && rest.take(1)? == b"B" && checksum == adler32(entry);
    is_whole.then_some(Bytes(entry))
}

/// ZooKeeper's codes of operations.
mod kind {
    pub(super) const CREATE: i32 = 1;
    pub(super) const DELETE: i32 = 2;
    pub(super) const SET: i32 = 5;
    pub(super) const CHECK: i32 = 13;
    pub(super) const MULTI: i32 = 14;
    pub(super) const CREATE2: i32 = 15;
    pub(super) const ERROR: i32 = -1;
    pub(super) const CREATE_SESSION: i32 = -10;
    pub(super) const CLOSE_SESSION: i32 = -11;
}

fn transaction(mut entry: Bytes<'_>) -> Option<(i64, Transaction)> {
    let session = entry.long()?;
    let _cxid = entry.int()?;
    let (zxid, _time_ms, kind) = (entry.long()?, entry.long()?, entry.int()?);
    let change = match kind {
        kind::CREATE_SESSION | kind::CLOSE_SESSION => Change::Session,
        kind::ERROR => Change::Refused { index: 0, code: entry.int()? },
        kind::MULTI => multi(&mut entry)?,
        kind => Change::Ops(vec![op(kind, &mut entry)?]),
    };
    Some((zxid, Transaction { session, change }))
}

fn multi(entry: &mut Bytes<'_>) -> Option<Change> {
    let n = usize::try_from(entry.int()?).ok()?;
    let mut ops = Vec::new();
    let mut refused = None;
    for index in 0..n {
        let kind = entry.int()?;
        let mut body = Bytes(entry.buffer()?);
        if kind == kind::ERROR {
            // ZooKeeper marks the operations next to the failed one as failed too when it applies
            // the transaction. This may happen before this server logs the transaction: the
            // operation then has the type of an error and its own body.
            let is_error = body.0.len() == size_of::<i32>();
            let code = if is_error { body.int()? } else { 0 };
            if !matches!(code, 0 | RUNTIME_INCONSISTENCY) {
                refused.get_or_insert(Change::Refused { index, code });
            }
        } else {
            ops.push(op(kind, &mut body)?);
        }
    }
    Some(refused.unwrap_or(Change::Ops(ops)))
}

const RUNTIME_INCONSISTENCY: i32 = -2;

fn op(kind: i32, body: &mut Bytes<'_>) -> Option<Op> {
    let path = body.text()?;
    Some(match kind {
        kind::CREATE | kind::CREATE2 => {
            let data = body.buffer()?.to_vec();
            for _ in 0..body.int()? {
                let (_permissions, _scheme, _id) = (body.int()?, body.text()?, body.text()?);
            }
            Op::Create { path, data, is_ephemeral: body.take(1)? == [1] }
        }
        kind::DELETE => Op::Delete { path },
        kind::SET => Op::Set { path, data: body.buffer()?.to_vec(), version: body.int()? },
        // The log contains the version that a write would have created.
        kind::CHECK => Op::Check { path, version: body.int()? - 1 },
        _ => return None,
    })
}

/// Unread rest of an entry or a file.
#[derive(Debug, Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn int(&mut self) -> Option<i32> {
        self.take(4)?.try_into().ok().map(i32::from_be_bytes)
    }

    fn long(&mut self) -> Option<i64> {
        self.take(8)?.try_into().ok().map(i64::from_be_bytes)
    }

    /// Reads bytes with a length prefix; length -1 denotes no bytes.
    fn buffer(&mut self) -> Option<&'a [u8]> {
        let n = self.int()?;
        self.take(usize::try_from(n.max(0)).ok()?)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.buffer()?.to_vec()).ok()
    }
}

fn adler32(bytes: &[u8]) -> i64 {
    const MODULUS: i64 = 65_521;
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + i64::from(*byte)) % MODULUS;
        (a, (a + b) % MODULUS)
    });
    b << 16 | a
}
