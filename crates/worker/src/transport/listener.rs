//! Receiving side of the transport: accepts the connections of peers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tracing::{info, warn};

use super::{
    Counters, FrameBudget, Identity, Inboxes, Intake, Membership, PeerKeys, connection::Connection,
    counters::add, peer::SOCKET_BUFFER_BYTES, replay::ReplayGuard,
};
use crate::{
    limits::UNFINISHED_BYTES, metrics::reporter::MasterLocation, report::Problems, tracking::Tracker,
};
use stormkeeper_runtime::{
    net::{self, ListenOn},
    places::Places,
    tasks::{OnExit, Tasks},
};

/// Limit of connections: a thousand workers of sixteen components each. Each worker of the topology
/// opens one connection for each component here that it emits to; broken connections that are not
/// yet closed count too. A worker whose connection is refused retries, and its tuples wait.
const MAX_CONNECTIONS: usize = 16 << 10;

/// Limit of connections whose handshake is not complete, which everybody who reaches the port can open.
/// One address has at most half of them, and further ones half of the rest (`Places`): peers of other hosts
/// still connect. A worker whose connection is refused retries, as above.
const HANDSHAKES_MAX: usize = 1024;

/// Pause after a failed accept, which usually means that the process has no free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the kernel completes before they are accepted; all peers of a restarted
/// worker reconnect at once.
const BACKLOG: u32 = 1024;

/// Subject of the problem that no connection can be accepted.
const ACCEPT: &str = "accept";

/// Receives the tuples that other workers send to the tasks of this worker.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    // Location of the topology master that metric reports are for; `None` if metrics are disabled.
    master: Option<watch::Receiver<MasterLocation>>,
    problems: Problems,
    // Workers whose connections are accepted; `None` accepts all.
    members: Option<Membership>,
    budget: FrameBudget,
    keys: PeerKeys,
    tracker: Option<Tracker>,
    handshakes: Places,
    intake: Intake,
}

impl Listener {
    /// Opens the port.
    ///
    /// # Errors
    /// I/O error if the port is in use or the address not of this host.
    pub fn bind(listen_on: ListenOn, port: u16) -> io::Result<Self> {
        // Accepted connections inherit the size of the buffer.
        let socket = listen_on.bind(port, |socket| socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES))?;
        Ok(Self {
            socket: socket.listen(BACKLOG)?,
            master: None,
            problems: Problems::default(),
            members: None,
            budget: FrameBudget::new(UNFINISHED_BYTES),
            keys: PeerKeys::default(),
            tracker: None,
            handshakes: Places::new(HANDSHAKES_MAX, HANDSHAKES_MAX / 2),
            intake: Intake::default(),
        })
    }

    /// Also receives for the tracker of this worker.
    pub(crate) fn with_tracker(self, tracker: Option<Tracker>) -> Self {
        Self { tracker, ..self }
    }

    /// Takes tuples until this intake is closed.
    pub(crate) fn with_intake(self, intake: Intake) -> Self {
        Self { intake, ..self }
    }

    /// Limits the connections whose handshake is not complete.
    #[cfg(test)]
    pub(crate) fn with_handshakes(self, handshakes: Places) -> Self {
        Self { handshakes, ..self }
    }

    /// Also accepts metric reports while the topology master is in this process; with `None` never.
    pub(crate) fn with_master(self, master: Option<watch::Receiver<MasterLocation>>) -> Self {
        Self { master, ..self }
    }

    /// Reports it as a problem if no connection can be accepted.
    pub(crate) fn reporting_to(self, problems: Problems) -> Self {
        Self { problems, ..self }
    }

    /// Accepts connections of `members` only.
    pub(crate) fn open_to(self, members: Membership) -> Self {
        Self { members: Some(members), ..self }
    }

    /// Limits the bytes of unfinished frames.
    pub(crate) fn with_budget(self, budget: FrameBudget) -> Self {
        Self { budget, ..self }
    }

    /// Demands a proof that a peer has one of `keys`, where that is required.
    pub(crate) fn with_keys(self, keys: PeerKeys) -> Self {
        Self { keys, ..self }
    }

    /// Returns the listening address; if port 0 was requested, it contains the assigned port.
    ///
    /// # Errors
    /// I/O error of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Returns the addresses at which workers of this host reach this one.
    pub(crate) fn local_addresses(&self) -> Vec<IpAddr> {
        self.local_addr().map(|address| net::local_addresses(address.ip())).unwrap_or_default()
    }

    /// Receives until it is dropped, which closes every connection. It ends by itself only
    /// if a connection panics, so start it as [`OnExit::StopOwner`]. While an inbox is full,
    /// the connection that has a tuple for it is not read, so that the sender waits as well.
    /// A peer may have any number of connections here; a worker has one for each component.
    pub async fn run(self, me: Identity, inboxes: Inboxes, counters: Arc<Counters>) {
        let connections = Tasks::default();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let replays = Arc::<ReplayGuard>::default();
        let (problems, mut is_failing) = (self.problems.clone(), false);
        loop {
            let Some(accepted) = self.accept(&connections).await else { break };
            let (stream, from) = match accepted {
                Ok(accepted) => {
                    if std::mem::take(&mut is_failing) {
                        problems.clear(ACCEPT);
                        info!("connections of peers are accepted again");
                    }
                    accepted
                }
                Err(error) => {
                    // No free descriptor, or the connection was closed again: the listener continues.
                    if !std::mem::replace(&mut is_failing, true) {
                        warn!(%error, "cannot accept connections of peers; retrying every 100 ms");
                    }
                    problems.raise(
                        ACCEPT,
                        format!(
                            "cannot accept connections of other workers, whose tuples wait: {error}; if files are \
                             too many, raise the limit of open files of the supervisor (LimitNOFILE, ulimit -n)"
                        ),
                    );
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = room.clone().try_acquire_owned() else {
                if let Some(so_far) = add(&counters.refused_connections, 1) {
                    warn!(%from, so_far, limit = MAX_CONNECTIONS, "too many connections of peers; refused a connection");
                }
                continue;
            };
            let from = SocketAddr::new(from.ip().to_canonical(), from.port());
            let Some(place) = self.handshakes.enter(from.ip()) else {
                if let Some(so_far) = add(&counters.refused_connections, 1) {
                    warn!(
                        %from, so_far, limit = HANDSHAKES_MAX,
                        "too many connections without a complete handshake, in all or of this address; refused a \
                         connection"
                    );
                }
                continue;
            };
            let (me, inboxes, counters) = (me.clone(), inboxes.clone(), counters.clone());
            let (master, members) = (self.master.clone(), self.members.clone());
            let (budget, replays, keys) = (self.budget.clone(), Arc::clone(&replays), self.keys.clone());
            let (tracker, intake) = (self.tracker.clone(), self.intake.clone());
            let connection = Connection {
                from,
                me,
                inboxes,
                counters,
                master,
                members,
                budget,
                replays,
                keys,
                tracker,
                intake,
                _permit: permit,
            };
            connections.start("tuples from a peer", OnExit::Ignore, connection.run(stream, place));
        }
        // Senders find nobody here until the successor of this worker listens.
        drop(self.socket);
        connections.cancelled().cancelled_owned().await;
    }

    /// Accepts a connection. `None` if there will be no more: the intake is closed, or a connection has
    /// panicked, which ends all of them: the worker would receive nothing more.
    async fn accept(&self, connections: &Tasks) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        tokio::select! {
            () = connections.cancelled().cancelled_owned() => None,
            // Cancel-safe: it only waits.
            () = self.intake.closed() => None,
            // Cancel-safe: a connection that is not returned stays in the backlog.
            accepted = self.socket.accept() => Some(accepted),
        }
    }
}
