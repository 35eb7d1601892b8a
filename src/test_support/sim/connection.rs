//! The link between one process and the tree, which can be made to fail in every way.

use std::{sync::Arc, time::Duration};

use crate::{
    daemon::tasks::{Ending, Tasks},
    test_support::sim::{ground::Ground, journal::Party},
    tree::{
        ReadTree as _, SessionId, SessionState, Tree,
        faulty::{FaultPlan, FaultyTree},
        memory::MemorySession,
    },
};

/// How long the server waits for a process that it does not hear of.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// One process's link, for as long as the process lives.
#[derive(Debug)]
pub(super) struct Connection {
    ground: Arc<Ground>,
    tree: Arc<FaultyTree>,
    session: Arc<MemorySession>,
}

impl Connection {
    /// Connects a new process.
    pub(super) fn open(ground: &Arc<Ground>, party: Party) -> Arc<Self> {
        let session = ground.server.connect();
        ground.journal().introduce(session.id(), party);
        let tree = FaultyTree::new(Arc::clone(&session) as Arc<dyn Tree>, FaultPlan::none());
        Arc::new(Self { ground: Arc::clone(ground), tree, session })
    }

    pub(super) fn id(&self) -> u64 {
        self.session.id()
    }

    /// What the process works on.
    pub(super) fn tree(&self) -> Arc<dyn Tree> {
        Arc::clone(&self.tree) as Arc<dyn Tree>
    }

    pub(super) fn faults(&self) -> &FaultyTree {
        &self.tree
    }

    /// The session that the server knows.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.session.session().borrow().connected()
    }

    /// The process is no more, and the server finds out when it does not hear of it.
    pub(super) fn kill(&self, tasks: &Tasks) {
        self.tree.kill();
        let session = Arc::clone(&self.session);
        tasks.start("session timeout", Ending::Normal, async move {
            tokio::time::sleep(SESSION_TIMEOUT).await;
            session.close().await;
        });
    }

    /// Ends the session by the server's will.
    pub(super) fn expire(&self) {
        if let Some(session) = self.session() {
            self.ground.server.expire(session);
        }
    }

    /// Cuts the connection for so long; longer than the session lasts ends that as well.
    pub(super) async fn cut(&self, time: Duration) {
        let Some(session) = self.session() else { return };
        self.ground.server.disconnect(session);
        tokio::time::sleep(time.min(SESSION_TIMEOUT)).await;
        if time > SESSION_TIMEOUT {
            self.ground.server.expire(session);
            tokio::time::sleep(time - SESSION_TIMEOUT).await;
        }
        self.ground.server.reconnect(session);
    }

    /// Mends the connection, if it was cut.
    pub(super) fn plug(&self) {
        let state = *self.session.session().borrow();
        match state {
            SessionState::Disconnected(session) => self.ground.server.reconnect(session),
            SessionState::Connected(_) | SessionState::Connecting | SessionState::Closed => {}
        }
    }

    /// Freezes the process for so long.
    pub(super) async fn freeze(&self, time: Duration) {
        self.tree.hold();
        let session = self.session();
        tokio::time::sleep(time.min(SESSION_TIMEOUT)).await;
        if time > SESSION_TIMEOUT {
            if let Some(session) = session {
                self.ground.server.expire(session);
            }
            tokio::time::sleep(time - SESSION_TIMEOUT).await;
        }
        self.tree.let_go();
    }
}
