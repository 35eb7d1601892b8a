//! In-memory tree: the whole server of local mode and of tests.
//!
//! It behaves as ZooKeeper 3.8 does, without a network: transactions are numbered, sequence numbers
//! count creations, ephemerals are deleted with their session, and a multi is all or nothing. Any
//! difference from ZooKeeper is a bug here; `tree::contract` compares the two.
//!
//! Sessions do not expire by themselves, because a client in the same process is alive. Tests
//! expire and disconnect sessions through [`MemoryTree`].

#[cfg(any(test, feature = "test-support"))]
pub mod listener;
mod nodes;
mod server;
mod session;

use std::sync::{Arc, Mutex, MutexGuard};

pub use session::MemorySession;

use crate::tree::SessionId;

/// The server. Clones share the same tree.
#[derive(Debug, Clone)]
pub struct MemoryTree {
    // Guards all znodes and sessions; every request is one short section without an await.
    server: Arc<Mutex<server::Server>>,
}

impl Default for MemoryTree {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryTree {
    /// Creates an empty tree that is online.
    pub fn new() -> Self {
        Self { server: Arc::new(Mutex::new(server::Server::new())) }
    }

    /// Opens a new connection with a session of its own.
    pub fn connect(&self) -> Arc<MemorySession> {
        Arc::new(MemorySession::open(&self.server))
    }

    /// Returns the live sessions, in the order in which they were opened.
    pub fn sessions(&self) -> Vec<SessionId> {
        lock(&self.server).sessions()
    }

    /// Returns the number of znodes, including the root.
    pub fn n_nodes(&self) -> usize {
        lock(&self.server).nodes.len()
    }

    /// Ends a session: its ephemerals are deleted, and its connection opens a new session, at once
    /// or, if it is disconnected, after it is reconnected. Has no effect on a session that has
    /// ended.
    pub fn expire(&self, session: SessionId) {
        lock(&self.server).expire(session);
    }

    /// Disconnects `session`: its requests are rejected and its watchers receive no changes, while
    /// the session lives on.
    pub fn disconnect(&self, session: SessionId) {
        lock(&self.server).set_plugged(session, false);
    }

    /// Reconnects the connection that was disconnected while it had `session`.
    pub fn reconnect(&self, session: SessionId) {
        lock(&self.server).set_plugged(session, true);
    }

    /// Disconnects everyone, or reconnects every connection that is not disconnected by itself.
    /// Sessions live on.
    pub fn set_online(&self, online: bool) {
        lock(&self.server).set_online(online);
    }
}

#[cfg(any(test, feature = "test-support"))]
impl MemoryTree {
    /// Inspects the current tree, which is locked meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(listener::TreeSnapshot<'_>) -> T) -> T {
        look(listener::TreeSnapshot(&lock(&self.server).nodes))
    }

    /// Calls `listener` for every transaction from now on, in order, while the tree is locked: the
    /// listener must not send requests to this tree.
    pub fn listen(&self, listener: impl FnMut(&listener::Commit<'_>) + Send + 'static) {
        lock(&self.server).listener = Some(listener::Listener::new(listener));
    }
}

fn lock(server: &Mutex<server::Server>) -> MutexGuard<'_, server::Server> {
    server.lock().expect("no request panics while it holds the tree")
}

#[cfg(test)]
mod tests;
