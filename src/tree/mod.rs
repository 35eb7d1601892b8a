//! A bare versioned tree: znodes, sessions, ephemerals, watches and multi.
//!
//! [`Tree`] is one process's connection to the tree, [`ReadTree`] the half of it that only
//! reads. Two things implement them:
//! [`zookeeper::ZooKeeperTree`] for a cluster and [`memory::MemoryTree`] for local mode and
//! tests; [`faulty::FaultyTree`] wraps either and breaks it on purpose. `contract` is the
//! suite that all of them pass.
//!
//! What the layer promises above ZooKeeper's own guarantees:
//!
//! - **Sessions renew themselves.** When one expires, a new one is opened and
//!   [`ReadTree::session`] shows its id. Ephemerals of the old one are gone; whoever owns them
//!   creates them again (see `cluster::presence`).
//! - **Watches only wake.** A [`Watcher`] says which paths may have changed, never what they
//!   hold: read again. It lasts until dropped; after a reconnect or a new session it says
//!   [`Changes::Everything`], as ZooKeeper does not tell what was missed (ZOOKEEPER-4698).
//! - **Nothing waits unseen.** While there is no connection, requests are refused with
//!   [`Error::Disconnected`] instead of being queued: the client would run them seconds later.
//! - **An unknown outcome says so.** [`Error::outcome`] tells a write that surely did nothing
//!   from one that may have happened; read back before trying the latter again.
//! - **Sizes are checked before sending.** The server cuts the connection on an oversized
//!   request, and everything behind it is lost.

#[cfg(any(test, feature = "test-support"))]
pub mod contract;
pub mod error;
pub mod faulty;
pub mod memory;
pub mod options;
pub mod path;
mod request;
pub mod watch;
pub mod zookeeper;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

pub use error::{Error, Outcome};
pub use path::{InvalidPath, TreePath};
pub use watch::{Changes, Watcher};

/// The largest payload of one znode.
///
/// Half of ZooKeeper's default `jute.maxbuffer`, so that no single record fills a request.
pub const MAX_NODE_BYTES: usize = 512 * 1024;

/// The largest multi, all payloads and paths together. ZooKeeper closes the connection at
/// 1,048,575 bytes; the rest is room for headers.
pub const MAX_MULTI_BYTES: usize = 900 * 1024;

/// A znode's data version: starts at 0 and grows by one with each write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Version(pub i32);

impl Version {
    /// The version of a znode that was just created.
    pub const FIRST: Self = Self(0);

    /// The version after one more write.
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a session; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub i64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// How the connection to the tree stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// No session yet, or the last one expired and no new one is open yet.
    Connecting,
    /// The session is live and connected.
    Connected(SessionId),
    /// The connection is lost; the session and its ephemerals may live on.
    Disconnected(SessionId),
    /// [`Tree::close`] was called. Final.
    Closed,
}

impl SessionState {
    /// The session that is connected now.
    pub fn connected(self) -> Option<SessionId> {
        match self {
            Self::Connected(session) => Some(session),
            Self::Connecting | Self::Disconnected(_) | Self::Closed => None,
        }
    }
}

/// How long a znode lives, and how its name is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateMode {
    /// Until it is deleted.
    Persistent,
    /// Like persistent; ten digits are appended to the name, larger for each new child of
    /// the same parent.
    PersistentSequential,
    /// Until it is deleted or the session ends.
    Ephemeral,
    /// Both.
    EphemeralSequential,
}

impl CreateMode {
    /// Whether the znode goes with its session.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// Whether digits are appended to the name.
    pub fn is_sequential(self) -> bool {
        matches!(self, Self::PersistentSequential | Self::EphemeralSequential)
    }
}

/// What the tree knows of a znode besides its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The transaction that created it. Larger means later; znodes created by one multi
    /// share it, and no other transaction uses it.
    pub created: i64,
    /// The transaction that last wrote its data.
    pub modified: i64,
    /// How often its data was written.
    pub version: Version,
    /// The session it goes with, for an ephemeral.
    pub owner: Option<SessionId>,
    /// How many children it has.
    pub n_children: usize,
}

/// A znode as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its payload.
    pub data: Arc<[u8]>,
    /// Everything else.
    pub stat: Stat,
}

/// A znode with the names of its children, as read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// The znode.
    pub node: Node,
    /// The names of its children, in ascending order.
    pub children: Vec<String>,
}

/// One operation of a multi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Fails unless the znode exists with this version (any, when `None`).
    Check {
        /// The znode.
        path: TreePath,
        /// The version it must have.
        version: Option<Version>,
    },
    /// Creates a znode; its parent must exist.
    Create {
        /// The znode, or the prefix of its name for a sequential one.
        path: TreePath,
        /// Its payload.
        data: Vec<u8>,
        /// How long it lives.
        mode: CreateMode,
    },
    /// Writes a znode's data.
    Set {
        /// The znode.
        path: TreePath,
        /// The new payload.
        data: Vec<u8>,
        /// The version it must have before; any, when `None`.
        version: Option<Version>,
    },
    /// Deletes a znode that has no children.
    Delete {
        /// The znode.
        path: TreePath,
        /// The version it must have; any, when `None`.
        version: Option<Version>,
    },
}

impl Op {
    /// The path that the operation is about.
    pub fn path(&self) -> &TreePath {
        match self {
            Self::Check { path, .. }
            | Self::Create { path, .. }
            | Self::Set { path, .. }
            | Self::Delete { path, .. } => path,
        }
    }

    /// What it adds to a request: payload, path, and a header's worth of bytes.
    pub fn n_bytes(&self) -> usize {
        const HEADER_BYTES: usize = 64;
        let data = match self {
            Self::Create { data, .. } | Self::Set { data, .. } => data.len(),
            Self::Check { .. } | Self::Delete { .. } => 0,
        };
        HEADER_BYTES + self.path().as_str().len() + data
    }
}

/// What one operation of a multi did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// The check held.
    Checked,
    /// The znode was created at this path (with its digits, for a sequential one).
    Created(TreePath),
    /// The data was written; the znode now has this version.
    Set(Version),
    /// The znode is gone.
    Deleted,
}

/// What a [`Watcher`] covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The znode's existence, its data, and the names of its children.
    Node,
    /// The znode and everything below it.
    Subtree,
}

/// The half of a connection to the tree that changes nothing.
///
/// Whoever holds only this can write nothing by any mistake: the readers of the cluster
/// state do, so that what the leader owns is written by `election::FencedWriter` alone.
///
/// # Errors
/// Every method may answer [`Error::Disconnected`], [`Error::ConnectionLost`],
/// [`Error::SessionExpired`] and [`Error::Closed`].
#[async_trait]
pub trait ReadTree: fmt::Debug + Send + Sync + 'static {
    /// Reads a znode; `None` when there is none.
    async fn get(&self, path: &TreePath) -> Result<Option<Node>, Error>;

    /// Reads the names of a znode's children in ascending order; `None` when there is no
    /// such znode.
    async fn children(&self, path: &TreePath) -> Result<Option<Vec<String>>, Error>;

    /// Reads many znodes with the names of their children, in the order asked; `None` where
    /// there is none. Each is consistent in itself; they may be of different moments.
    async fn get_many(&self, paths: &[TreePath]) -> Result<Vec<Option<Family>>, Error>;

    /// Wakes on every change in `scope` from now until dropped, across reconnects and new
    /// sessions. Its first answer is [`Changes::Everything`], given once the watch is in
    /// place, so that a reader that re-reads on each answer has missed nothing.
    ///
    /// What is noted for which change stands in [`watch`]. After [`Tree::close`] a last
    /// `Everything` comes, and nothing more.
    fn watch(&self, path: &TreePath, scope: Scope) -> Watcher;

    /// The state of the session, as a value that can be watched. Only the latest is kept: a
    /// short disconnection may not show.
    fn session(&self) -> crate::daemon::watch::Receiver<SessionState>;
}

/// A connection to the tree, shared by everything in one process.
///
/// Methods do nothing until polled. A future that is dropped may have sent its request:
/// for a write, the outcome is then unknown.
///
/// # Ordering
/// Requests that are awaited one after the other take effect in that order, and a read
/// sees every write of this connection that was answered before it.
///
/// # Errors
/// Every method may answer what those of [`ReadTree`] may; each lists its own on top.
#[async_trait]
pub trait Tree: ReadTree {
    /// Creates a znode and answers its path (with its digits, for a sequential one). The
    /// parent must exist.
    ///
    /// The digits count the creations below the parent so far, those of children without
    /// digits too, from `0000000000`; they start over when the parent is created again.
    ///
    /// # Errors
    /// `NodeExists`, `NoNode` (no parent), `NoChildrenForEphemerals`, `TooLarge`; `Refused`
    /// for a sequential child of the tree's root made by the path `/`.
    async fn create(&self, path: &TreePath, data: &[u8], mode: CreateMode) -> Result<TreePath, Error>;

    /// Writes a znode's data when it has the `expected` version (any, when `None`), and
    /// answers its new version.
    ///
    /// # Errors
    /// `NoNode`, `BadVersion`, `TooLarge`.
    async fn set(&self, path: &TreePath, data: &[u8], expected: Option<Version>) -> Result<Version, Error>;

    /// Deletes a znode without children when it has the `expected` version (any, when
    /// `None`).
    ///
    /// # Errors
    /// `NoNode`, `BadVersion`, `NotEmpty`, looked for in this order; `Refused` for the root.
    async fn delete(&self, path: &TreePath, expected: Option<Version>) -> Result<(), Error>;

    /// All of `ops` or none of them, each seeing what those before it did. Answers one
    /// result per operation.
    ///
    /// # Errors
    /// [`Error::Multi`] with the index and the error of the first operation that failed;
    /// `TooLarge` before anything is sent.
    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, Error>;

    /// Ends the session, which deletes its ephemerals at once, and refuses everything
    /// afterwards. Bounded: gives up waiting for the server after about a second.
    async fn close(&self);

    /// Deletes a znode with everything below it. Answers how many were deleted; 0 when
    /// there was none. The tree's own root is emptied and stays. Not atomic: another writer
    /// may interfere, and an error may leave a part; run it again.
    async fn delete_recursive(&self, root: &TreePath) -> Result<usize, Error> {
        let mut found = vec![root.clone()];
        let mut next = 0;
        while next < found.len() {
            let batch: Vec<TreePath> = found[next..].iter().take(READ_BATCH).cloned().collect();
            next += batch.len();
            for (path, family) in batch.iter().zip(self.get_many(&batch).await?) {
                for child in family.into_iter().flat_map(|family| family.children) {
                    found.push(path.child(&child).map_err(Error::InvalidPath)?);
                }
            }
        }
        let mut n_deleted = 0;
        // Children were found after their parents, so the reverse order is leaves first.
        for path in found.iter().rev().filter(|path| !path.is_root()) {
            match self.delete(path, None).await {
                Ok(()) => n_deleted += 1,
                Err(Error::NoNode { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(n_deleted)
    }

    /// Creates `path` and its parents as empty persistent znodes where they are missing.
    async fn ensure(&self, path: &TreePath) -> Result<(), Error> {
        for path in path.ancestors_and_self() {
            match self.create(&path, b"", CreateMode::Persistent).await {
                Ok(_) | Err(Error::NodeExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How many znodes one request reads; keeps a reply near a megabyte for records of 4 KiB.
pub const READ_BATCH: usize = 200;
