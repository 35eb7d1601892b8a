//! The link between one process and the tree, into which all kinds of faults can be injected.

use std::{sync::Arc, time::Duration};

use crate::{environment::Environment, journal::Party};
use stormkeeper_coordination::tree::{
    ReadTree as _, SessionId, SessionState, Tree,
    faulty::{FaultPlan, FaultyTree},
    memory::MemorySession,
};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Time after which the server ends the session of a silent process.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The link of one process, for as long as the process lives.
#[derive(Debug)]
pub(super) struct Connection {
    env: Arc<Environment>,
    tree: Arc<FaultyTree>,
    session: Arc<MemorySession>,
}

impl Connection {
    /// Connects a new process.
    pub(super) fn open(env: &Arc<Environment>, party: Party) -> Arc<Self> {
        let session = env.server.connect();
        env.journal().register_owner(session.id(), party);
        let tree = FaultyTree::new(Arc::clone(&session) as Arc<dyn Tree>, FaultPlan::none());
        Arc::new(Self { env: Arc::clone(env), tree, session })
    }

    pub(super) fn id(&self) -> u64 {
        self.session.id()
    }

    /// The tree that the process uses.
    pub(super) fn tree(&self) -> Arc<dyn Tree> {
        Arc::clone(&self.tree) as Arc<dyn Tree>
    }

    pub(super) fn faults(&self) -> &FaultyTree {
        &self.tree
    }

    /// The current session at the server.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.session.session().borrow().connected()
    }

    /// Kills the process; the server ends its session after the session timeout.
    pub(super) fn kill(&self, tasks: &Tasks) {
        self.tree.kill();
        let session = Arc::clone(&self.session);
        tasks.start("session timeout", OnExit::Ignore, async move {
            tokio::time::sleep(SESSION_TIMEOUT).await;
            session.close().await;
        });
    }

    /// Makes the server end the session.
    pub(super) fn expire(&self) {
        if let Some(session) = self.session() {
            self.env.server.expire(session);
        }
    }

    /// Disconnects for `time`; if that is longer than the session timeout, the session ends.
    pub(super) async fn disconnect(&self, time: Duration) {
        let Some(session) = self.session() else { return };
        self.env.server.disconnect(session);
        tokio::time::sleep(time.min(SESSION_TIMEOUT)).await;
        if time > SESSION_TIMEOUT {
            self.env.server.expire(session);
            tokio::time::sleep(time - SESSION_TIMEOUT).await;
        }
        self.env.server.reconnect(session);
    }

    /// Restores the connection, if it is disconnected.
    pub(super) fn reconnect(&self) {
        let state = *self.session.session().borrow();
        match state {
            SessionState::Disconnected(session) => self.env.server.reconnect(session),
            SessionState::Connected(_) | SessionState::Connecting | SessionState::Closed => {}
        }
    }

    /// Freezes the process for `time`.
    pub(super) async fn freeze(&self, time: Duration) {
        self.tree.freeze();
        let session = self.session();
        tokio::time::sleep(time.min(SESSION_TIMEOUT)).await;
        if time > SESSION_TIMEOUT {
            if let Some(session) = session {
                self.env.server.expire(session);
            }
            tokio::time::sleep(time - SESSION_TIMEOUT).await;
        }
        self.tree.thaw();
    }
}
