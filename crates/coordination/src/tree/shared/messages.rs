//! Messages between both ends.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::tree::{
    Changes, CreateMode, Error, Node, NodeWithChildren, Op, OpResult, Scope, SessionState, TreePath, Version,
};

/// Longest message: many znodes of the largest size, as JSON.
const BYTES_MAX: usize = 64 << 20;

/// Request with a number, which its response has too.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) ask: Ask,
}

/// Request, one for each method of the tree.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    Get(TreePath),
    Children(TreePath),
    GetMany(Vec<TreePath>),
    Create(TreePath, Vec<u8>, CreateMode),
    Set(TreePath, Vec<u8>, Option<Version>),
    Delete(TreePath, Option<Version>),
    Multi(Vec<Op>),
    /// Begins a watch, whose changes have the number of the request.
    Watch(TreePath, Scope),
    /// Ends the watch of this number.
    Unwatch(u64),
    Close,
}

/// Message of the serving end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    Answer { id: u64, answer: Result<Answer, Error> },
    Changed { id: u64, changes: Changes },
    Session(SessionState),
}

/// Response to a request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Node(Option<Node>),
    Children(Option<Vec<String>>),
    Nodes(Vec<Option<NodeWithChildren>>),
    Path(TreePath),
    Version(Version),
    Results(Vec<OpResult>),
}

/// Writes a message.
///
/// # Errors
/// I/O error, also if the message is too long.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= BYTES_MAX);
    to.write_u32(length.ok_or(io::ErrorKind::InvalidInput)?).await?;
    to.write_all(&json).await
}

/// Reads a message.
///
/// # Errors
/// I/O error, also at the end of the connection and if the message is too long or not JSON.
///
/// # Cancellation safety
/// Not safe: a call that is dropped may have read a part of a message.
pub(super) async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let length = from.read_u32().await? as usize;
    if length > BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut json = Vec::new();
    let n_read = from.take(length as u64).read_to_end(&mut json).await?;
    if n_read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&json).map_err(io::Error::other)
}
