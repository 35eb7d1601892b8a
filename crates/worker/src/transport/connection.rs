//! An accepted connection of a peer: its handshake, and its tuples on their way into inboxes.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, watch},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    Counters, FrameBudget, Identity, Inboxes, Intake, Membership,
    counters::add,
    greeting::{COMPRESSES, GreetError, PROVED, PeerKeys, demand_proof},
    outbox::{Sent, send_row},
    peer::tune,
    replay::{ConnectionNumbers, ReplayGuard, WrongNumber},
    stream::PeerStream,
    wire::{
        self, BatchError, Hello, HelloReply, MAGIC, MAX_HANDSHAKE_BYTES, Marks, ReadError, ReceivedBatch,
        VERSION, compressed::decompress,
    },
};
use crate::metrics::{
    messages::{self, Duplex, MasterReply, WorkerMessage},
    reporter::MasterLocation,
};
use crate::{
    limits::{FRAME_BYTES_MAX, IDLE_CONNECTION_MAX},
    queue::Lane,
    tracking::{self, Tracker},
};
use stormkeeper_model::{Slot, TaskId};
use stormkeeper_runtime::{error_chain, places::Place};
use stormkeeper_stream::{Row, TaskList};

/// Time limit for a peer's handshake; a worker sends it at once.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Time limit for telling a peer why its connection is closed, and for the peer to close it.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);

/// Longest reason that a peer is told, in characters.
const REASON_CHARS: usize = 500;

/// Reason for which the listener closes a connection.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the worker ends and takes no more tuples")]
    Ending,
    #[error("the peer does not speak the protocol of workers")]
    UnknownProtocol,
    #[error("the peer did not complete the handshake within {HANDSHAKE_DEADLINE:?}")]
    HandshakeTimeout,
    #[error("the peer's handshake cannot be decoded")]
    Handshake(#[source] rmp_serde::decode::Error),
    #[error("the handshake of TLS failed")]
    Tls(#[source] io::Error),
    #[error("the peer did not prove that it is a worker of this topology")]
    Unproved(#[source] GreetError),
    #[error("{0}")]
    Rejected(String),
    #[error("cannot read a frame")]
    Frame(#[source] ReadError),
    #[error(transparent)]
    Number(#[from] WrongNumber),
    #[error("a frame is not a batch of tuples")]
    Batch(#[source] BatchError),
    #[error(transparent)]
    Tracking(#[from] tracking::Invalid),
}

/// Purpose of a connection.
#[derive(Debug)]
enum Purpose {
    Tuples { compressed: bool },
    MetricReports(Duplex<WorkerMessage, MasterReply>),
}

/// What a connection waited for.
enum Awaited {
    /// There is something to read, be it the end.
    Data,
    /// The worker ends.
    End,
}

/// One accepted connection.
pub(super) struct Connection {
    pub(super) from: SocketAddr,
    pub(super) me: Identity,
    pub(super) inboxes: Inboxes,
    pub(super) counters: Arc<Counters>,
    pub(super) master: Option<watch::Receiver<MasterLocation>>,
    pub(super) members: Option<Membership>,
    pub(super) budget: FrameBudget,
    pub(super) replays: Arc<ReplayGuard>,
    pub(super) keys: PeerKeys,
    pub(super) tracker: Option<Tracker>,
    pub(super) intake: Intake,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Receives until the connection ends. It leaves its `place` once the handshake is over.
    pub(super) async fn run(self, stream: TcpStream, place: Place) {
        let handshake = match timeout(HANDSHAKE_DEADLINE, self.shake_hands(stream)).await {
            Ok(handshake) => handshake,
            Err(_elapsed) => Err(Refusal::HandshakeTimeout),
        };
        drop(place);
        match handshake {
            Ok((Purpose::Tuples { compressed }, stream)) => {
                let mut reader = stream.into_reader();
                let refusal = self.receive(&mut reader, compressed).await;
                if self.record_end(&self.counters.refused_frames, &refusal) {
                    // A peer that does not read is not waited for.
                    let _unread =
                        timeout(FAREWELL_DEADLINE, send_reason(reader.into_inner(), &refusal)).await;
                }
            }
            Ok((Purpose::MetricReports(end), stream)) => {
                let error = messages::run_connection(stream, end, Some(self.budget.clone())).await;
                self.record_end(&self.counters.refused_frames, &Refusal::Frame(error));
            }
            Err(refusal) => {
                self.record_end(&self.counters.refused_connections, &refusal);
            }
        }
    }

    /// Counts and logs the end of a connection. Returns whether this end refused what it received.
    fn record_end(&self, count: &AtomicU64, refusal: &Refusal) -> bool {
        let from = self.from;
        let error = refusal as &(dyn std::error::Error + 'static);
        match refusal {
            // The normal end of a connection: the peer stopped, or its host did.
            Refusal::Frame(ReadError::Io(_) | ReadError::Idle) | Refusal::Ending => {
                info!(%from, error, "the connection of a peer ended");
                false
            }
            Refusal::Frame(ReadError::Oversized { .. } | ReadError::Damaged | ReadError::Slow { .. })
            | Refusal::Number(_)
            | Refusal::UnknownProtocol
            | Refusal::HandshakeTimeout
            | Refusal::Handshake(_)
            | Refusal::Tls(_)
            | Refusal::Unproved(_)
            | Refusal::Rejected(_)
            | Refusal::Batch(_)
            | Refusal::Tracking(_) => {
                if let Some(so_far) = add(count, 1) {
                    warn!(%from, error, so_far, "refused and closed a connection of a peer");
                }
                true
            }
        }
    }

    /// Reads the peer's handshake, checks it, and replies to it.
    async fn shake_hands(&self, stream: TcpStream) -> Result<(Purpose, PeerStream), Refusal> {
        let broken = |error| Refusal::Frame(ReadError::Io(error));
        tune(&stream).map_err(broken)?;
        let mut stream = PeerStream::accept(stream, &self.keys).await.map_err(Refusal::Tls)?;
        let is_tls = matches!(stream, PeerStream::Tls(_));
        let mut magic = [0; MAGIC.len()];
        stream.read_exact(&mut magic).await.map_err(broken)?;
        let (ours, is_report) = match magic {
            MAGIC => (VERSION, false),
            messages::MAGIC => (messages::VERSION, true),
            _ => return Err(Refusal::UnknownProtocol),
        };
        let version = stream.read_u16().await.map_err(broken)?;
        let (is_proved, version) = (version & PROVED != 0, version & !PROVED);
        let compressed = !is_report && version & COMPRESSES != 0;
        let version = if compressed { version & !COMPRESSES } else { version };
        let decision = if version == ours {
            let mut content = Vec::new();
            wire::read_frame(&mut stream, MAX_HANDSHAKE_BYTES, &mut content).await.map_err(Refusal::Frame)?;
            let hello: Hello = wire::read_message(&content).map_err(Refusal::Handshake)?;
            if is_proved {
                demand_proof(&mut stream, magic, &content, &self.keys).await.map_err(Refusal::Unproved)?;
            }
            let checked = match self.check_hello(&hello) {
                Ok(()) if !is_tls && self.keys.requires_tls() => Err(format!(
                    "the worker at {} does not use TLS; its supervisor may have another storm.tls",
                    hello.from
                )),
                // Without a proof somebody may be in between.
                Ok(()) if !is_proved && (is_tls || self.keys.is_required()) => Err(format!(
                    "the worker at {} does not prove that it has the key of {}; its supervisor may have another \
                     storm.access, or none of storm.cluster.secret.file",
                    hello.from, hello.topology
                )),
                Ok(()) => self.check_member(&hello.from).await,
                refused => refused,
            };
            checked.and_then(|()| match is_report {
                true => self.connect_to_master(),
                false => Ok(Purpose::Tuples { compressed }),
            })
        } else {
            Err(format!("unsupported protocol version {version}; this worker speaks version {ours}"))
        };
        let answer = match &decision {
            Ok(_) => HelloReply::Welcome,
            Err(reason) => HelloReply::Refused(reason.clone()),
        };
        stream.write_all(&wire::frame_of(&answer)).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        Ok((decision.map_err(Refusal::Rejected)?, stream))
    }

    /// Connects a worker's metric reports to the topology master.
    fn connect_to_master(&self) -> Result<Purpose, String> {
        let master = self.master.as_ref().map(|master| master.borrow().clone());
        let (worker, end) = messages::pair();
        match master {
            Some(MasterLocation::Local(handle)) if handle.connect(end) => Ok(Purpose::MetricReports(worker)),
            Some(MasterLocation::Local(_)) => {
                Err("the topology master accepts no further connections now".to_owned())
            }
            Some(MasterLocation::Unknown | MasterLocation::Remote { .. }) | None => {
                Err("the topology master does not run in this worker".to_owned())
            }
        }
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), String> {
        let Hello { topology, to, from } = hello;
        if *topology != self.me.topology {
            return Err(format!(
                "the worker at {from} sends tuples of {topology}, but this worker runs {}",
                self.me.topology
            ));
        }
        if *to != self.me.slot {
            return Err(format!(
                "the worker at {from} connects to slot {to}, but this worker has slot {}",
                self.me.slot
            ));
        }
        Ok(())
    }

    async fn check_member(&self, from: &Slot) -> Result<(), String> {
        let Some(members) = &self.members else { return Ok(()) };
        match members.contains(from).await {
            true => Ok(()),
            false => Err(format!("the worker at {from} is not in the assignment of {}", self.me.topology)),
        }
    }

    /// Puts tuples in inboxes until the connection ends.
    async fn receive(&self, reader: &mut BufReader<PeerStream>, compressed: bool) -> Refusal {
        let (mut content, mut raw, mut batch) = (Vec::new(), Vec::new(), ReceivedBatch::default());
        let (mut numbers, mut lanes) = (ConnectionNumbers::default(), BTreeMap::new());
        let (_open, mut is_told) = (self.intake.enter(), false);
        loop {
            if !is_told {
                match self.wait_for_data(reader).await {
                    Ok(Awaited::Data) => {}
                    Ok(Awaited::End) => {
                        is_told = true;
                        // A sender that is gone closes the connection, which is read until then in any case.
                        let _gone = tell(reader.get_mut(), &Refusal::Ending).await;
                    }
                    Err(idle) => return Refusal::Frame(idle),
                }
            }
            let read = match compressed {
                true => self.budget.read_compressed_frame(reader, FRAME_BYTES_MAX, &mut content).await,
                false => self.budget.read_frame(reader, FRAME_BYTES_MAX, &mut content).await.map(|()| false),
            };
            let n_bytes = content.len();
            let transport_metrics = self
                .counters
                .transport_metrics
                .as_ref()
                .map(|transport_metrics| (transport_metrics, transport_metrics.now()));
            match read {
                Ok(true) => match decompress(&content, FRAME_BYTES_MAX, &mut raw) {
                    Ok(()) => std::mem::swap(&mut content, &mut raw),
                    Err(damaged) => return Refusal::Frame(damaged),
                },
                Ok(false) => {}
                Err(error) => return Refusal::Frame(error),
            }
            let Marks { stamp, sequence } = match batch.read(&content) {
                Ok(marks) => marks,
                Err(error) => return Refusal::Batch(error),
            };
            if let Err(wrong) = numbers.accept(sequence, &self.replays) {
                return wrong.into();
            }
            let emitted_at = transport_metrics
                .and_then(|(transport_metrics, begun)| transport_metrics.received(n_bytes, begun, stamp));
            for row in batch.rows(&content) {
                if row.origin.component.as_str() == tracking::ACKER {
                    // A worker of an untracked topology is sent none.
                    if let Some(tracker) = &self.tracker
                        && let Err(invalid) = tracker.receive(&row.to_tuple())
                    {
                        return invalid.into();
                    }
                    continue;
                }
                self.deliver(&Row { emitted_at, ..row }, &mut lanes).await;
            }
        }
    }

    /// Puts a tuple in the inbox of each of its tasks. The connection has a lane to each task.
    async fn deliver(&self, row: &Row<'_>, lanes: &mut BTreeMap<TaskId, Lane>) {
        for task in row.tasks.iter() {
            let lane = match lanes.entry(task) {
                Entry::Occupied(lane) => Some(lane.into_mut()),
                Entry::Vacant(new) => self.inboxes.of(task).map(|inlet| new.insert(inlet.lane())),
            };
            let sent = match lane {
                Some(lane) => send_row(lane, &Row { tasks: TaskList::NONE, ..*row }).await,
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

    /// Waits until there is something to read, or the intake is closed.
    ///
    /// # Errors
    /// [`ReadError::Idle`] if nothing arrives for long.
    async fn wait_for_data(&self, reader: &mut BufReader<PeerStream>) -> Result<Awaited, ReadError> {
        if !reader.buffer().is_empty() && !self.intake.is_closed() {
            return Ok(Awaited::Data);
        }
        tokio::select! {
            biased;
            // Cancel-safe: it only waits.
            () = self.intake.closed() => Ok(Awaited::End),
            // Cancel-safe: what was read stays in the buffer. Errors come again when the frame is read.
            _ = reader.fill_buf() => Ok(Awaited::Data),
            () = tokio::time::sleep(IDLE_CONNECTION_MAX) => Err(ReadError::Idle),
        }
    }

    fn refuse_tuple(&self, task: TaskId) {
        if let Some(so_far) = add(&self.counters.refused_tuples, 1) {
            warn!(from = %self.from, %task, so_far, "dropped a tuple for a task that this worker does not run");
        }
    }
}

/// Writes why a connection is closed; its sender closes it when it has sent its present frame.
async fn tell(stream: &mut PeerStream, refusal: &Refusal) -> io::Result<()> {
    let reason = error_chain(refusal).chars().take(REASON_CHARS).collect();
    stream.write_all(&wire::frame_of(&HelloReply::Refused(reason))).await?;
    // TLS keeps the last bytes otherwise.
    stream.flush().await
}

/// Tells a peer why its connection is closed. What the peer has sent meanwhile is read and discarded,
/// since the kernel discards the reason if it is not.
async fn send_reason(mut stream: PeerStream, refusal: &Refusal) -> io::Result<()> {
    tell(&mut stream, refusal).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}
