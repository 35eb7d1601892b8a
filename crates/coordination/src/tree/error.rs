//! Errors of requests to the tree, and whether a failed write may have had an effect.

use crate::tree::{InvalidPath, TreePath};

/// Error of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum Error {
    /// The znode, or the parent of the znode to create, does not exist.
    #[error("{path} does not exist")]
    NoNode {
        /// The requested path.
        path: TreePath,
    },
    /// The znode to create exists already.
    #[error("{path} exists already")]
    NodeExists {
        /// The requested path.
        path: TreePath,
    },
    /// The znode does not have the expected version: another client wrote it.
    #[error("{path} was changed by another client")]
    BadVersion {
        /// The requested path.
        path: TreePath,
    },
    /// The znode to delete has children.
    #[error("{path} has children")]
    NotEmpty {
        /// The requested path.
        path: TreePath,
    },
    /// The parent of the znode to create is ephemeral.
    #[error("the parent of {path} is ephemeral and cannot have children")]
    NoChildrenForEphemerals {
        /// The requested path.
        path: TreePath,
    },
    /// One operation of a multi failed, so none of them took effect.
    #[error("operation {index} of a transaction failed")]
    Multi {
        /// Index of the failed operation, from 0.
        index: usize,
        /// Error of the failed operation.
        source: Box<Error>,
    },
    /// The request exceeds the limit and was not sent.
    #[error("{path}: {bytes} bytes exceed the limit of {limit}")]
    TooLarge {
        /// The znode, or the first znode of a multi.
        path: TreePath,
        /// Size of the request.
        bytes: usize,
        /// Maximum size.
        limit: usize,
    },
    /// A name does not make a valid path.
    #[error(transparent)]
    InvalidPath(InvalidPath),
    /// There is no connection; the request was not sent.
    #[error("not connected to ZooKeeper")]
    Disconnected,
    /// The connection broke, or the response did not arrive in time, while the request was in
    /// flight.
    #[error("the connection to ZooKeeper was lost before the response arrived ({0})")]
    ConnectionLost(String),
    /// The session ended while the request was in flight or before it was sent.
    #[error("the session expired")]
    SessionExpired,
    /// [`crate::tree::Tree::close`] was called.
    #[error("the connection to the tree was closed")]
    Closed,
    /// The access control list of a znode excludes this process.
    #[error(
        "ZooKeeper does not authorize this process for {}",
        .path.as_ref().map_or("one of the requested znodes", |path| path.as_str())
    )]
    NotAuthorized {
        /// The znode, relative to the root of the tree, if it is known.
        path: Option<TreePath>,
    },
    /// The server rejected the request for another reason (quota, …).
    #[error("the server rejected the request: {0}")]
    Refused(String),
}

/// Effect of a failed write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The write certainly had no effect.
    NotApplied,
    /// The write may or may not have taken effect: read back before retrying.
    Unknown,
}

impl Error {
    /// Returns the effect of the failed request, if it was a write.
    pub fn outcome(&self) -> WriteOutcome {
        match self {
            Self::ConnectionLost(_) | Self::SessionExpired => WriteOutcome::Unknown,
            Self::NoNode { .. }
            | Self::NodeExists { .. }
            | Self::BadVersion { .. }
            | Self::NotEmpty { .. }
            | Self::NoChildrenForEphemerals { .. }
            | Self::Multi { .. }
            | Self::TooLarge { .. }
            | Self::InvalidPath(_)
            | Self::Disconnected
            | Self::Closed
            | Self::NotAuthorized { .. }
            | Self::Refused(_) => WriteOutcome::NotApplied,
        }
    }

    /// True if ZooKeeper does not authorize this process.
    pub fn is_denial(&self) -> bool {
        matches!(self.root(), Self::NotAuthorized { .. })
    }

    /// True if the same request may succeed later without any other change.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Disconnected | Self::ConnectionLost(_) | Self::SessionExpired)
    }

    /// Returns the error of the failed operation for a multi, else the error itself.
    pub fn root(&self) -> &Self {
        match self {
            Self::Multi { source, .. } => source.root(),
            other => other,
        }
    }
}
