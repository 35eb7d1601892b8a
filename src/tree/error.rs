//! What can go wrong with a request to the tree, and what that says about its effect.

use crate::tree::{InvalidPath, TreePath};

/// A request that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The znode, or the parent of one to create, does not exist.
    #[error("{path} does not exist")]
    NoNode {
        /// The path asked for.
        path: TreePath,
    },
    /// The znode to create is there already.
    #[error("{path} exists already")]
    NodeExists {
        /// The path asked for.
        path: TreePath,
    },
    /// The znode does not have the expected version: someone else wrote it.
    #[error("{path} was changed by someone else")]
    BadVersion {
        /// The path asked for.
        path: TreePath,
    },
    /// The znode to delete has children.
    #[error("{path} has children")]
    NotEmpty {
        /// The path asked for.
        path: TreePath,
    },
    /// The parent of the znode to create is ephemeral.
    #[error("the parent of {path} is ephemeral and cannot have children")]
    NoChildrenForEphemerals {
        /// The path asked for.
        path: TreePath,
    },
    /// One operation of a multi failed, so none took effect.
    #[error("operation {index} of a transaction failed")]
    Multi {
        /// Which one, from 0.
        index: usize,
        /// Why.
        source: Box<Error>,
    },
    /// The request is over the limit and was not sent.
    #[error("{path}: {bytes} bytes are over the limit of {limit}")]
    TooLarge {
        /// The znode, or the first one of a multi.
        path: TreePath,
        /// The size asked for.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A name does not make a valid path.
    #[error(transparent)]
    InvalidPath(InvalidPath),
    /// There is no connection; the request was not sent.
    #[error("not connected to the tree")]
    Disconnected,
    /// The connection broke, or the answer did not come in time, while the request was
    /// under way.
    #[error("the connection to the tree was lost before the answer came ({0})")]
    ConnectionLost(String),
    /// The session ended while the request was under way or before it was sent.
    #[error("the session expired")]
    SessionExpired,
    /// [`crate::tree::Tree::close`] was called.
    #[error("the connection to the tree was closed")]
    Closed,
    /// The server refused the request for a reason of its own (access, quota, …).
    #[error("the server refused: {0}")]
    Refused(String),
}

/// What a failed write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Surely nothing.
    NotApplied,
    /// It may or may not have taken effect: read back before trying again.
    Unknown,
}

impl Error {
    /// What the failed request did, if it was a write.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::ConnectionLost(_) | Self::SessionExpired => Outcome::Unknown,
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
            | Self::Refused(_) => Outcome::NotApplied,
        }
    }

    /// Whether the same request may succeed later without anyone changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Disconnected | Self::ConnectionLost(_) | Self::SessionExpired)
    }

    /// The error of the operation that failed, for a multi; else the error itself.
    pub fn root(&self) -> &Self {
        match self {
            Self::Multi { source, .. } => source.root(),
            other => other,
        }
    }
}
