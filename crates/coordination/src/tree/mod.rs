//! A bare versioned tree: znodes, sessions, ephemerals, watches and multi.
//!
//! [`Tree`] is the connection of one process to the tree; [`ReadTree`] is its read-only half. There
//! are two implementations: [`zookeeper::ZooKeeperTree`] for a cluster, and [`memory::MemoryTree`]
//! for local mode and tests, which [`shared::SharedTree`] reaches from other processes.
//! [`faulty::FaultyTree`] wraps any of them and injects faults. The test suite `contract` runs over all of
//! them.
//!
//! Guarantees of this layer beyond ZooKeeper's own:
//!
//! - **Sessions renew themselves.** After a session has expired, a new session is opened and
//!   [`ReadTree::session`] shows its id. The ephemerals of the expired session are gone; their
//!   owners create them again (see `cluster::presence`).
//! - **Watches only wake.** A [`Watcher`] reports which paths may have changed, never their data:
//!   read them again. A watcher lasts until it is dropped. After a reconnect or in a new session it
//!   reports [`Changes::Everything`], because ZooKeeper does not report missed changes
//!   (ZOOKEEPER-4698).
//! - **No hidden queueing.** While there is no connection, requests fail with
//!   [`Error::Disconnected`] instead of being queued: the client would run them seconds later.
//! - **Unknown outcomes are explicit.** [`Error::outcome`] distinguishes a write that certainly had
//!   no effect from a write that may have had one; read back before retrying the latter.
//! - **Sizes are checked before sending.** The server closes the connection on an oversized
//!   request, and all requests queued behind it are lost.

pub mod access;
#[cfg(any(test, feature = "test-support"))]
pub mod contract;
pub mod error;
pub mod facts;
pub mod faulty;
pub mod memory;
pub mod options;
pub mod path;
mod request;
pub mod shared;
pub mod tls;
pub mod watch;
pub mod zookeeper;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

pub use error::{Error, WriteOutcome};
pub use facts::{AclFact, NodeFacts};
pub use path::{InvalidPath, TreePath};
pub use watch::{Changes, Watcher};

/// Maximum size of the payload of one znode.
///
/// Half of ZooKeeper's default `jute.maxbuffer`, so that no single record fills a request.
pub const MAX_NODE_BYTES: usize = 512 * 1024;

/// Maximum size of a multi: all payloads and paths together. ZooKeeper closes the connection at
/// 1,048,575 bytes; the rest is room for headers.
pub const MAX_MULTI_BYTES: usize = 900 * 1024;

/// Data version of a znode: starts at 0 and grows by one with each write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Version(pub i32);

impl Version {
    /// The version of a newly created znode.
    pub const FIRST: Self = Self(0);

    /// Returns the version after one more write.
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Id of a session; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SessionId(pub i64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// State of the session and its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SessionState {
    /// There is no session: none was opened yet, or the last one expired.
    Connecting,
    /// The session is live and connected.
    Connected(SessionId),
    /// The connection is lost; the session and its ephemerals may still be live.
    Disconnected(SessionId),
    /// [`Tree::close`] was called. Final.
    Closed,
}

impl SessionState {
    /// Returns the id of the session if it is connected.
    pub fn connected(self) -> Option<SessionId> {
        match self {
            Self::Connected(session) => Some(session),
            Self::Connecting | Self::Disconnected(_) | Self::Closed => None,
        }
    }
}

/// Lifetime of a znode, and whether digits are appended to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CreateMode {
    /// The znode lives until it is deleted.
    Persistent,
    /// Like persistent; ten digits are appended to the name, larger for each new child of the same
    /// parent.
    PersistentSequential,
    /// The znode lives until it is deleted or the session ends.
    Ephemeral,
    /// Like ephemeral; digits are appended to the name.
    EphemeralSequential,
}

impl CreateMode {
    /// True if the znode is deleted with its session.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// True if digits are appended to the name.
    pub fn is_sequential(self) -> bool {
        matches!(self, Self::PersistentSequential | Self::EphemeralSequential)
    }
}

/// Metadata of a znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stat {
    /// The transaction that created the znode. Larger means later. Znodes created by one multi
    /// share it; no other transaction has the same number.
    pub created: i64,
    /// The transaction that last wrote the data.
    pub modified: i64,
    /// Number of writes of the data.
    pub version: Version,
    /// The session that owns the znode, if it is ephemeral.
    pub owner: Option<SessionId>,
    /// Number of children.
    pub n_children: usize,
}

/// Data and metadata of a znode.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Node {
    /// Payload of the znode.
    pub data: Arc<[u8]>,
    /// Metadata of the znode.
    pub stat: Stat,
}

/// A znode with the names of its children, read at the same moment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NodeWithChildren {
    /// The znode.
    pub node: Node,
    /// The names of its children, in ascending order.
    pub children: Vec<String>,
}

/// One operation of a multi.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Op {
    /// Fails unless the znode exists with this version (any version, if `None`).
    Check {
        /// The znode.
        path: TreePath,
        /// The required version; any, if `None`.
        version: Option<Version>,
    },
    /// Creates a znode; its parent must exist.
    Create {
        /// The znode, or the prefix of its name for a sequential one.
        path: TreePath,
        /// The payload.
        data: Vec<u8>,
        /// Lifetime and naming of the znode.
        mode: CreateMode,
    },
    /// Writes a znode's data.
    Set {
        /// The znode.
        path: TreePath,
        /// The new payload.
        data: Vec<u8>,
        /// The required version before the write; any, if `None`.
        version: Option<Version>,
    },
    /// Deletes a znode that has no children.
    Delete {
        /// The znode.
        path: TreePath,
        /// The required version; any, if `None`.
        version: Option<Version>,
    },
}

impl Op {
    /// Returns the path of the operation's znode.
    pub fn path(&self) -> &TreePath {
        match self {
            Self::Check { path, .. }
            | Self::Create { path, .. }
            | Self::Set { path, .. }
            | Self::Delete { path, .. } => path,
        }
    }

    /// Returns the size that the operation adds to a request: payload, path, and an estimate of the
    /// header.
    pub fn n_bytes(&self) -> usize {
        const HEADER_BYTES: usize = 64;
        let data = match self {
            Self::Create { data, .. } | Self::Set { data, .. } => data.len(),
            Self::Check { .. } | Self::Delete { .. } => 0,
        };
        HEADER_BYTES + self.path().as_str().len() + data
    }
}

/// Result of one operation of a multi.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OpResult {
    /// The check succeeded.
    Checked,
    /// The znode was created at this path (with its digits, for a sequential one).
    Created(TreePath),
    /// The data was written; the znode now has this version.
    Set(Version),
    /// The znode was deleted.
    Deleted,
}

/// Scope of a [`Watcher`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Scope {
    /// The znode's existence, its data, and the names of its children.
    Node,
    /// The znode and everything below it.
    Subtree,
}

/// The read-only half of a connection to the tree.
///
/// Code that has only a `ReadTree` cannot write by mistake. All readers of the cluster state use
/// it, so that state owned by the leader is written by `election::FencedWriter` alone.
///
/// # Errors
/// Every method may return [`Error::Disconnected`], [`Error::ConnectionLost`],
/// [`Error::SessionExpired`] and [`Error::Closed`].
#[async_trait]
pub trait ReadTree: fmt::Debug + Send + Sync + 'static {
    /// Reads a znode; `None` if it does not exist.
    async fn get(&self, path: &TreePath) -> Result<Option<Node>, Error>;

    /// Reads the names of a znode's children in ascending order; `None` if the znode does not
    /// exist.
    async fn children(&self, path: &TreePath) -> Result<Option<Vec<String>>, Error>;

    /// Reads many znodes with the names of their children, in the order of `paths`; `None` for a
    /// znode that does not exist. Each znode is consistent in itself; different znodes may be read
    /// at different moments.
    async fn get_many(&self, paths: &[TreePath]) -> Result<Vec<Option<NodeWithChildren>>, Error>;

    /// Returns a watcher that wakes on every change in `scope` from now until it is dropped, across
    /// reconnects and new sessions. The watcher first reports [`Changes::Everything`], as soon as
    /// the watch is in place, so that a reader that reads again after each report misses nothing.
    ///
    /// The module [`watch`] documents which paths are reported for which change. After
    /// [`Tree::close`] the watcher reports `Everything` once more, and nothing afterwards.
    fn watch(&self, path: &TreePath, scope: Scope) -> Watcher;

    /// Reads what a server of ZooKeeper knows of a znode besides, for people who look into the tree: no
    /// daemon decides by it. `None` if the znode does not exist, or if this tree knows nothing more.
    async fn facts(&self, _path: &TreePath) -> Result<Option<NodeFacts>, Error> {
        Ok(None)
    }

    /// Returns the path at the server of the root of this tree, for messages.
    fn root(&self) -> &TreePath;

    /// Returns the state of the session, as a value that can be watched. Only the latest state is
    /// kept: a short disconnection may be missed.
    fn session(&self) -> stormkeeper_runtime::watch::Receiver<SessionState>;
}

/// A connection to the tree, shared by all parts of one process.
///
/// Methods do nothing until polled. A future that is dropped may have sent its request, so the
/// outcome of a dropped write is unknown.
///
/// # Ordering
/// Requests that are awaited one after the other take effect in that order. A read sees every
/// write of this connection whose response was received before the read.
///
/// # Errors
/// Every method may return the errors of [`ReadTree`]; each method lists its additional errors.
#[async_trait]
pub trait Tree: ReadTree {
    /// Creates a znode and returns its path (with its digits, if it is sequential). The parent must
    /// exist.
    ///
    /// The digits count all creations below the parent so far, including those of children without
    /// digits, from `0000000000`; they start over when the parent is created again.
    ///
    /// # Errors
    /// `NodeExists`, `NoNode` (no parent), `NoChildrenForEphemerals`, `TooLarge`; `Refused`
    /// for a sequential child of the tree's root made by the path `/`.
    async fn create(&self, path: &TreePath, data: &[u8], mode: CreateMode) -> Result<TreePath, Error>;

    /// Writes a znode's data if it has the `expected` version (any, if `None`), and returns the new
    /// version.
    ///
    /// # Errors
    /// `NoNode`, `BadVersion`, `TooLarge`.
    async fn set(&self, path: &TreePath, data: &[u8], expected: Option<Version>) -> Result<Version, Error>;

    /// Deletes a znode without children if it has the `expected` version (any, if `None`).
    ///
    /// # Errors
    /// `NoNode`, `BadVersion`, `NotEmpty`, checked in this order; `Refused` for the root.
    async fn delete(&self, path: &TreePath, expected: Option<Version>) -> Result<(), Error>;

    /// Applies all of `ops` or none of them. Each operation sees the effects of those before it.
    /// Returns one result per operation.
    ///
    /// # Errors
    /// [`Error::Multi`] with the index and the error of the first operation that failed;
    /// `TooLarge` before anything is sent.
    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, Error>;

    /// Ends the session, which deletes its ephemerals at once. All later requests are rejected.
    /// Bounded: stops waiting for the server after about one second.
    async fn close(&self);

    /// Deletes a znode and everything below it. Returns the number of deleted znodes; 0 if the
    /// znode does not exist. The root of the tree is emptied but not deleted. Not atomic: another
    /// writer may interfere, and an error may leave some znodes; run it again.
    async fn delete_recursive(&self, root: &TreePath) -> Result<usize, Error> {
        let mut found = vec![root.clone()];
        let mut next = 0;
        while next < found.len() {
            let batch: Vec<TreePath> = found[next..].iter().take(READ_BATCH).cloned().collect();
            next += batch.len();
            for (path, znode) in batch.iter().zip(self.get_many(&batch).await?) {
                for child in znode.into_iter().flat_map(|znode| znode.children) {
                    found.push(path.child(&child).map_err(Error::InvalidPath)?);
                }
            }
        }
        let mut n_deleted = 0;
        // Children were found after their parents, so the reverse order deletes children first.
        for path in found.iter().rev().filter(|path| !path.is_root()) {
            match self.delete(path, None).await {
                Ok(()) => n_deleted += 1,
                Err(Error::NoNode { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(n_deleted)
    }

    /// Creates `path` and its parents as empty persistent znodes where they are missing. The right to
    /// create is needed for these only.
    async fn ensure(&self, path: &TreePath) -> Result<(), Error> {
        for path in path.ancestors_and_self() {
            match self.create(&path, b"", CreateMode::Persistent).await {
                Ok(_) | Err(Error::NodeExists { .. }) => {}
                // The server looks at the rights before it looks whether the znode is there.
                Err(Error::NotAuthorized { .. }) if self.get(&path).await?.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Znode that was asked for, as far as this process may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readable {
    /// There is none.
    Missing,
    /// ZooKeeper does not authorize this process to read it.
    Denied,
    /// Data and names of the children.
    Found(NodeWithChildren),
}

/// Reads znodes of which somebody else may have taken away the right to read: a request for many fails as a
/// whole then, and each is read for itself. Cancel-safe.
///
/// # Errors
/// Errors of the tree but [`Error::NotAuthorized`].
pub async fn read_allowed(tree: &dyn ReadTree, paths: &[TreePath]) -> Result<Vec<Readable>, Error> {
    let of = |znode: Option<NodeWithChildren>| znode.map_or(Readable::Missing, Readable::Found);
    let mut znodes = Vec::with_capacity(paths.len());
    for batch in paths.chunks(READ_BATCH) {
        match tree.get_many(batch).await {
            Ok(read) => znodes.extend(read.into_iter().map(of)),
            Err(error) if error.is_denial() => {
                for path in batch {
                    match tree.get_many(std::slice::from_ref(path)).await {
                        Ok(read) => znodes.extend(read.into_iter().map(of)),
                        Err(error) if error.is_denial() => znodes.push(Readable::Denied),
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(znodes)
}

/// Cuts `paths` into parts of at most `n_max` paths and `bytes_max` bytes; a longer path is a part of
/// its own.
pub fn batches(paths: &[TreePath], n_max: usize, bytes_max: usize) -> impl Iterator<Item = &[TreePath]> {
    let mut rest = paths;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = rest.iter().take(n_max).take_while(|path| {
            bytes += path.as_str().len();
            bytes <= bytes_max
        });
        let n = fit.count().max(1).min(rest.len());
        let (batch, left) = rest.split_at(n);
        rest = left;
        (!batch.is_empty()).then_some(batch)
    })
}

/// Most bytes of paths in one request that reads, far below the server's limit of a request (1 MB).
pub(crate) const READ_BYTES: usize = 128 << 10;

/// Number of znodes that one request reads; keeps a reply near a megabyte for records of 4 KiB.
pub const READ_BATCH: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_all_paths_in_order_and_keep_both_bounds() {
        let path = |n: usize| format!("/{}", "x".repeat(n - 1)).parse::<TreePath>().expect("valid");
        let paths: Vec<TreePath> = [10, 10, 10, 50, 10, 200, 10].map(path).into();
        let cut =
            |n_max, bytes_max| batches(&paths, n_max, bytes_max).map(<[TreePath]>::len).collect::<Vec<_>>();
        assert_eq!(cut(2, 1000), [2, 2, 2, 1]);
        assert_eq!(cut(100, 60), [3, 2, 1, 1], "a path that is too long alone is sent alone");
        assert_eq!(cut(100, 1), [1; 7]);
        assert_eq!(batches(&[], 2, 10).count(), 0);
    }
}
