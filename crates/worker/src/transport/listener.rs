//! The receiving side: accepts peers and puts their tuples in inboxes.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    Counters, Identity, Inboxes,
    counters::add,
    outbox::{Sent, offer},
    peer::{SOCKET_BUFFER_BYTES, tune},
    wire::{self, Addressed, Answer, Hello, MAGIC, MAX_FRAME_BYTES, MAX_HANDSHAKE_BYTES, ReadError, VERSION},
};
use crate::metrics::{
    report::{self, End, Reply, Report},
    reporter::MasterAt,
};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// One connection per worker of the topology and component here that it emits to, and some
/// that broke and are not gone yet: a thousand workers of sixteen components each. A worker
/// whose connection is refused tries again, and its tuples wait.
const MAX_CONNECTIONS: usize = 16 << 10;

/// How long a connection may take to say who it is; a worker says so at once.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait when the system has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the kernel completes before they are accepted; all peers of a worker
/// that was restarted come back at once.
const BACKLOG: u32 = 1024;

/// What is read from the kernel at once.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// Receives what other workers send to this one's tasks.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    // Where reports for the topology master go.
    master: Option<watch::Receiver<MasterAt>>,
}

/// Why a connection ends that did not break.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it does not speak our protocol")]
    Foreign,
    #[error("it did not say who it is within {HANDSHAKE_DEADLINE:?}")]
    Silent,
    #[error("its handshake cannot be read")]
    Handshake(#[source] rmp_serde::decode::Error),
    #[error("{0}")]
    Answered(String),
    #[error("a frame cannot be read")]
    Frame(#[source] ReadError),
    #[error("a frame is not a batch of tuples")]
    Batch(#[source] rmp_serde::decode::Error),
}

impl Listener {
    /// Opens the port.
    ///
    /// # Errors
    /// When the address is in use or not ours.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A worker is started again while connections of its predecessor still wait to be forgotten.
        socket.set_reuseaddr(true)?;
        // Accepted connections take it over.
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.bind(address)?;
        Ok(Self { socket: socket.listen(BACKLOG)?, master: None })
    }

    /// Also takes reports of metrics, while the topology master is in this process.
    pub(crate) fn with_master(self, master: watch::Receiver<MasterAt>) -> Self {
        Self { master: Some(master), ..self }
    }

    /// The address that it listens at, with the port that was found when 0 was asked for.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Receives until it is dropped, and every connection with it; it ends by itself only
    /// when a connection panics, so start it as [`OnExit::StopOwner`]. While an inbox is full,
    /// the connection that has a tuple for it is not read, so that its sender waits as well.
    /// A worker may have any number of connections here; it has one for each component.
    pub async fn run(self, me: Identity, inboxes: Inboxes, counters: Arc<Counters>) {
        let connections = Tasks::default();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                // A connection has panicked: without any, this worker hears nothing more.
                () = connections.cancelled().cancelled_owned() => return,
                // Cancel-safe: a connection that is not returned stays in the backlog.
                accepted = self.socket.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or the connection is gone again: neither ends us.
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = room.clone().try_acquire_owned() else {
                if let Some(so_far) = add(&counters.refused_connections, 1) {
                    warn!(%from, so_far, limit = MAX_CONNECTIONS, "too many connections; refused");
                }
                continue;
            };
            let (me, inboxes, counters) = (me.clone(), inboxes.clone(), counters.clone());
            let master = self.master.clone();
            let connection = Connection { from, me, inboxes, counters, master, _permit: permit };
            connections.start("tuples from a peer", OnExit::Ignore, connection.run(stream));
        }
    }
}

/// What a connection is for.
#[derive(Debug)]
enum Purpose {
    Tuples,
    Reports(End<Report, Reply>),
}

/// One accepted connection.
struct Connection {
    from: SocketAddr,
    me: Identity,
    inboxes: Inboxes,
    counters: Arc<Counters>,
    master: Option<watch::Receiver<MasterAt>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, mut stream: TcpStream) {
        let greeted = match timeout(HANDSHAKE_DEADLINE, self.greet(&mut stream)).await {
            Ok(greeted) => greeted,
            Err(_elapsed) => Err(Refusal::Silent),
        };
        let (count, refusal) = match greeted {
            Ok(Purpose::Tuples) => (&self.counters.refused_frames, self.receive(stream).await),
            Ok(Purpose::Reports(end)) => {
                (&self.counters.refused_frames, Refusal::Frame(report::carry(stream, end).await))
            }
            Err(refusal) => (&self.counters.refused_connections, refusal),
        };
        let from = self.from;
        let error = &refusal as &(dyn std::error::Error + 'static);
        match &refusal {
            // How connections end: the peer stopped, or its machine did.
            Refusal::Frame(ReadError::Io(_)) => info!(%from, error, "a peer is gone"),
            Refusal::Frame(ReadError::Oversized { .. })
            | Refusal::Foreign
            | Refusal::Silent
            | Refusal::Handshake(_)
            | Refusal::Answered(_)
            | Refusal::Batch(_) => {
                if let Some(so_far) = add(count, 1) {
                    warn!(%from, error, so_far, "a connection was refused and closed");
                }
            }
        }
    }

    /// Hears who it is and what for, and answers.
    async fn greet(&self, stream: &mut TcpStream) -> Result<Purpose, Refusal> {
        let broken = |error| Refusal::Frame(ReadError::Io(error));
        tune(stream).map_err(broken)?;
        let mut magic = [0; MAGIC.len()];
        stream.read_exact(&mut magic).await.map_err(broken)?;
        let (ours, is_report) = match magic {
            MAGIC => (VERSION, false),
            report::MAGIC => (report::VERSION, true),
            _ => return Err(Refusal::Foreign),
        };
        let version = stream.read_u16().await.map_err(broken)?;
        let judgement = if version == ours {
            let mut content = Vec::new();
            wire::read_frame(stream, MAX_HANDSHAKE_BYTES, &mut content).await.map_err(Refusal::Frame)?;
            let hello: Hello = wire::read_message(&content).map_err(Refusal::Handshake)?;
            self.judge(&hello).and_then(|()| if is_report { self.to_master() } else { Ok(Purpose::Tuples) })
        } else {
            Err(format!("it speaks version {version} of the protocol, this worker version {ours}"))
        };
        let answer = match &judgement {
            Ok(_) => Answer::Welcome,
            Err(reason) => Answer::Refused(reason.clone()),
        };
        stream.write_all(&wire::frame_of(&answer)).await.map_err(broken)?;
        judgement.map_err(Refusal::Answered)
    }

    /// Leads a worker's reports to the topology master.
    fn to_master(&self) -> Result<Purpose, String> {
        let master = self.master.as_ref().map(|master| master.borrow().clone());
        let (worker, end) = report::pair();
        match master {
            Some(MasterAt::Here(door)) if door.enter(end) => Ok(Purpose::Reports(worker)),
            Some(MasterAt::Here(_)) => Err("the topology master is busy".to_owned()),
            Some(MasterAt::Nowhere | MasterAt::There { .. }) | None => {
                Err("the topology master is not here".to_owned())
            }
        }
    }

    fn judge(&self, hello: &Hello) -> Result<(), String> {
        let Hello { topology, to, from } = hello;
        if *topology != self.me.topology {
            return Err(format!(
                "the worker at {from} sends tuples of {topology}, this one works for {}",
                self.me.topology
            ));
        }
        if *to != self.me.slot {
            return Err(format!("the worker at {from} looks for {to}, this one is at {}", self.me.slot));
        }
        Ok(())
    }

    /// Puts tuples in inboxes until the connection ends.
    async fn receive(&self, stream: TcpStream) -> Refusal {
        let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
        let (mut content, mut batch) = (Vec::new(), Vec::new());
        loop {
            if let Err(error) = wire::read_frame(&mut reader, MAX_FRAME_BYTES, &mut content).await {
                return Refusal::Frame(error);
            }
            let measures = self.counters.measures.as_ref().map(|measures| (measures, measures.now()));
            let stamp = match wire::read_batch(&content, &mut batch) {
                Ok(stamp) => stamp,
                Err(error) => return Refusal::Batch(error),
            };
            let emitted =
                measures.and_then(|(measures, begun)| measures.received(content.len(), begun, stamp));
            for Addressed { task, tuple } in batch.drain(..) {
                let tuple = tuple.at(emitted);
                let sent = match self.inboxes.of(task) {
                    Some(inbox) => offer(inbox, tuple).await,
                    None => Sent::Dropped,
                };
                match sent {
                    Sent::Queued => {
                        self.counters.received.fetch_add(1, Ordering::Relaxed);
                    }
                    Sent::Dropped => self.refuse_tuple(task),
                }
            }
        }
    }

    fn refuse_tuple(&self, task: stormkeeper_model::TaskId) {
        if let Some(so_far) = add(&self.counters.refused_tuples, 1) {
            warn!(from = %self.from, %task, so_far, "a tuple came for a task that is not here; dropped");
        }
    }
}
