//! Listening in on a memory tree: every transaction that took effect, as it did.

use std::fmt;

use crate::tree::{Node, Op, OpResult, SessionId, TreePath, memory::nodes::Nodes};

/// Something that took effect.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The connection that brought it about, [`super::MemorySession::id`].
    pub connection: u64,
    /// The session that it had.
    pub session: SessionId,
    /// What happened.
    pub what: What<'a>,
    /// The tree after it.
    pub after: Snapshot<'a>,
}

/// What took effect.
#[derive(Debug)]
pub enum What<'a> {
    /// A request.
    Transaction {
        /// Its operations.
        ops: &'a [Op],
        /// What each of them did.
        results: &'a [OpResult],
    },
    /// The session ended, and these ephemerals with it.
    SessionEnded(&'a [TreePath]),
}

/// The tree at one moment.
#[derive(Clone, Copy)]
pub struct Snapshot<'a>(pub(super) &'a Nodes);

impl fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("n_nodes", &self.0.len()).finish()
    }
}

impl Snapshot<'_> {
    /// Reads a znode.
    pub fn get(&self, path: &TreePath) -> Option<Node> {
        self.0.get(path)
    }

    /// Reads the names of a znode's children.
    pub fn children(&self, path: &TreePath) -> Option<Vec<String>> {
        self.0.children(path)
    }
}

/// Who is told.
pub(super) struct Listener(Box<dyn FnMut(&Commit<'_>) + Send>);

impl Listener {
    pub(super) fn new(listener: impl FnMut(&Commit<'_>) + Send + 'static) -> Self {
        Self(Box::new(listener))
    }

    pub(super) fn hear(&mut self, commit: &Commit<'_>) {
        (self.0)(commit);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}
