//! The server: znodes, connections and their watches.

use std::collections::BTreeMap;

use crate::tree::{
    Error, Op, OpResult, SessionId, SessionState,
    memory::nodes::Nodes,
    watch::{NodeEvent, WatchSink, WatchTable},
};
use stormkeeper_runtime::watch;

/// Id of one [`super::MemorySession`] across all sessions that it has in its life.
pub(super) type ConnectionId = u64;

/// State of the server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) nodes: Nodes,
    connections: BTreeMap<ConnectionId, Connection>,
    next_connection: ConnectionId,
    last_session: i64,
    online: bool,
    #[cfg(any(test, feature = "test-support"))]
    pub(super) listener: Option<super::listener::Listener>,
}

#[derive(Debug)]
struct Connection {
    session: Session,
    /// False while a test keeps this connection disconnected.
    plugged: bool,
    watches: WatchTable,
    state: watch::Sender<SessionState>,
}

/// The session of a connection, as the server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    /// Never opened: the server has been offline since the connection was made.
    None,
    Live(SessionId),
    /// Expired while the connection was down, so that its client does not know yet.
    Expired(SessionId),
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            nodes: Nodes::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            last_session: 0,
            online: true,
            #[cfg(any(test, feature = "test-support"))]
            listener: None,
        }
    }

    /// Adds a connection, with a session if the server is online.
    pub(super) fn connect(&mut self, state: watch::Sender<SessionState>) -> ConnectionId {
        let id = self.next_connection;
        self.next_connection += 1;
        let connection =
            Connection { session: Session::None, plugged: true, watches: WatchTable::default(), state };
        self.connections.insert(id, connection);
        self.settle(id);
        id
    }

    /// Ends the connection's session and removes the connection.
    pub(super) fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        connection.state.send_replace(SessionState::Closed);
        connection.watches.notify_everything();
        if let Session::Live(session) = connection.session {
            self.end_session(id, session);
        }
    }

    /// Returns the session of a connection, or the reason for which requests are rejected.
    pub(super) fn session(&self, id: ConnectionId) -> Result<SessionId, Error> {
        let connection = self.connections.get(&id).ok_or(Error::Closed)?;
        connection.state.borrow().connected().ok_or(Error::Disconnected)
    }

    /// Applies a transaction and notifies the watchers.
    pub(super) fn commit(
        &mut self,
        id: ConnectionId,
        ops: &[Op],
    ) -> Result<Result<Vec<OpResult>, (usize, Error)>, Error> {
        let session = self.session(id)?;
        Ok(self.nodes.commit(session, ops).map(|committed| {
            #[cfg(any(test, feature = "test-support"))]
            self.on_commit(
                id,
                session,
                super::listener::What::Transaction { ops, results: &committed.results },
            );
            self.notify(&committed.events);
            committed.results
        }))
    }

    /// Adds a watch; it reports as soon as the connection is up.
    pub(super) fn watch(&mut self, id: ConnectionId, sink: WatchSink) {
        match self.connections.get_mut(&id) {
            None => sink.note_everything(),
            Some(connection) => {
                if connection.state.borrow().connected().is_some() {
                    sink.note_everything();
                }
                connection.watches.add(sink);
            }
        }
    }

    /// Returns the live sessions, in the order in which they were opened.
    pub(super) fn sessions(&self) -> Vec<SessionId> {
        let mut sessions: Vec<SessionId> =
            self.connections.values().filter_map(|connection| connection.session.live()).collect();
        sessions.sort_by_key(|session| session.0);
        sessions
    }

    /// Expires a session.
    pub(super) fn expire(&mut self, session: SessionId) {
        let Some(id) = self.connection_of(session) else { return };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.session = Session::Expired(session);
        }
        self.end_session(id, session);
        self.settle(id);
    }

    /// Disconnects or reconnects the connection of a session.
    pub(super) fn set_plugged(&mut self, session: SessionId, plugged: bool) {
        let Some(id) = self.connection_of(session) else { return };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.plugged = plugged;
        }
        self.settle(id);
    }

    /// Takes the server offline or online.
    pub(super) fn set_online(&mut self, online: bool) {
        self.online = online;
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.settle(id);
        }
    }

    /// Updates the published state of a connection: opens a session if the connection is up without
    /// one, and notifies its watchers when it has come back.
    fn settle(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let up = self.online && connection.plugged;
        if up && !matches!(connection.session, Session::Live(_)) {
            self.last_session += 1;
            connection.session = Session::Live(SessionId(self.last_session));
        }
        let state = match connection.session {
            Session::None => SessionState::Connecting,
            Session::Live(session) if up => SessionState::Connected(session),
            Session::Live(session) | Session::Expired(session) => SessionState::Disconnected(session),
        };
        let changed = connection.state.send_if_modified(|shown| std::mem::replace(shown, state) != state);
        if changed && up {
            connection.watches.notify_everything();
        }
    }

    fn end_session(
        &mut self,
        #[cfg_attr(not(any(test, feature = "test-support")), expect(unused, reason = "only tests listen"))]
        id: ConnectionId,
        session: SessionId,
    ) {
        let ended = self.nodes.end_session(session);
        #[cfg(any(test, feature = "test-support"))]
        self.on_commit(id, session, super::listener::What::SessionEnded(&ended));
        let events: Vec<NodeEvent> = ended.into_iter().map(NodeEvent::CreatedOrDeleted).collect();
        self.notify(&events);
    }

    #[cfg(any(test, feature = "test-support"))]
    fn on_commit(&mut self, connection: ConnectionId, session: SessionId, what: super::listener::What<'_>) {
        if let Some(listener) = &mut self.listener {
            let after = super::listener::TreeSnapshot(&self.nodes);
            listener.on_commit(&super::listener::Commit { connection, session, what, after });
        }
    }

    /// Wakes watchers. A connection that is down gets `Everything` when it is up again.
    fn notify(&self, events: &[NodeEvent]) {
        for connection in self.connections.values() {
            if connection.state.borrow().connected().is_some() {
                events.iter().for_each(|event| connection.watches.notify(event));
            }
        }
    }

    fn connection_of(&self, session: SessionId) -> Option<ConnectionId> {
        self.connections
            .iter()
            .find(|(_, connection)| match connection.session {
                Session::None => false,
                Session::Live(id) | Session::Expired(id) => id == session,
            })
            .map(|(&id, _)| id)
    }
}

impl Session {
    fn live(self) -> Option<SessionId> {
        match self {
            Self::Live(session) => Some(session),
            Self::None | Self::Expired(_) => None,
        }
    }
}
