//! The tree in memory: the whole server of local mode, and of tests.
//!
//! It behaves as ZooKeeper 3.8 does, without a network: transactions are numbered, sequence
//! numbers count creations, ephemerals go with their session, and a multi is all or nothing.
//! Where the two differ it is a defect here; `tree::contract` compares them.
//!
//! Sessions do not expire by themselves: who is in the same process is alive. Tests end and
//! cut them through [`MemoryTree`].

#[cfg(any(test, feature = "test-support"))]
pub mod listen;
mod nodes;
mod server;
mod session;

use std::sync::{Arc, Mutex, MutexGuard};

pub use session::MemorySession;

use crate::tree::SessionId;

/// The server: clones are the same one.
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
    /// An empty tree that is online.
    pub fn new() -> Self {
        Self { server: Arc::new(Mutex::new(server::Server::new())) }
    }

    /// A new connection with a session of its own.
    pub fn connect(&self) -> Arc<MemorySession> {
        Arc::new(MemorySession::open(&self.server))
    }

    /// The sessions that have not ended, in the order of their opening.
    pub fn sessions(&self) -> Vec<SessionId> {
        lock(&self.server).sessions()
    }

    /// How many znodes there are, the root included.
    pub fn n_nodes(&self) -> usize {
        lock(&self.server).nodes.len()
    }

    /// Ends a session: its ephemerals go, and its connection opens a new one, at once or,
    /// when it is cut, as soon as it is mended. Nothing happens when it has ended before.
    pub fn expire(&self, session: SessionId) {
        lock(&self.server).expire(session);
    }

    /// Cuts the connection of `session`: its requests are refused and it hears of no
    /// change, while the session lives on.
    pub fn disconnect(&self, session: SessionId) {
        lock(&self.server).set_plugged(session, false);
    }

    /// Mends the connection that was cut while it had `session`.
    pub fn reconnect(&self, session: SessionId) {
        lock(&self.server).set_plugged(session, true);
    }

    /// Cuts everyone off, or lets everyone back in whose own connection is not cut.
    /// Sessions live on.
    pub fn set_online(&self, online: bool) {
        lock(&self.server).set_online(online);
    }
}

#[cfg(any(test, feature = "test-support"))]
impl MemoryTree {
    /// Looks at the tree as it is now, which stands still meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(listen::Snapshot<'_>) -> T) -> T {
        look(listen::Snapshot(&lock(&self.server).nodes))
    }

    /// Tells `listener` of everything that takes effect from now on, in its order, while
    /// the tree stands still: it must not ask this tree for anything.
    pub fn listen(&self, listener: impl FnMut(&listen::Commit<'_>) + Send + 'static) {
        lock(&self.server).listener = Some(listen::Listener::new(listener));
    }
}

fn lock(server: &Mutex<server::Server>) -> MutexGuard<'_, server::Server> {
    server.lock().expect("no request panics while it holds the tree")
}

#[cfg(test)]
mod tests;
