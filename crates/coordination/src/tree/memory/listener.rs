//! Listener of a memory tree: receives every transaction that took effect.

use std::fmt;

use crate::tree::{Node, Op, OpResult, SessionId, TreePath, memory::nodes::Nodes};

/// A change that took effect.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The connection that made the change, [`super::MemorySession::id`].
    pub connection: u64,
    /// The session of that connection.
    pub session: SessionId,
    /// The change.
    pub what: What<'a>,
    /// The tree after the change.
    pub after: TreeSnapshot<'a>,
}

/// Content of a change.
#[derive(Debug)]
pub enum What<'a> {
    /// A write request was committed.
    Transaction {
        /// Its operations.
        ops: &'a [Op],
        /// The result of each operation.
        results: &'a [OpResult],
    },
    /// The session ended, and these ephemerals were deleted with it.
    SessionEnded(&'a [TreePath]),
}

/// State of the tree at one moment.
#[derive(Clone, Copy)]
pub struct TreeSnapshot<'a>(pub(super) &'a Nodes);

impl fmt::Debug for TreeSnapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeSnapshot").field("n_nodes", &self.0.len()).finish()
    }
}

impl TreeSnapshot<'_> {
    /// Reads a znode.
    pub fn get(&self, path: &TreePath) -> Option<Node> {
        self.0.get(path)
    }

    /// Reads the names of a znode's children.
    pub fn children(&self, path: &TreePath) -> Option<Vec<String>> {
        self.0.children(path)
    }
}

/// Callback that receives the commits.
pub(super) struct Listener(Box<dyn FnMut(&Commit<'_>) + Send>);

impl Listener {
    pub(super) fn new(listener: impl FnMut(&Commit<'_>) + Send + 'static) -> Self {
        Self(Box::new(listener))
    }

    pub(super) fn on_commit(&mut self, commit: &Commit<'_>) {
        (self.0)(commit);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}
