//! The sending side of one connection: connects, batches, writes, and connects again.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tracing::{info, warn};

use super::{
    Counters, Identity,
    counters::add,
    measures::Connection,
    wire::{
        self, Addressed, Answer, BatchFrame, Hello, MAGIC, MAX_BATCH_TUPLES, MAX_HANDSHAKE_BYTES, ReadError,
        VERSION,
    },
};
use stormkeeper_model::{ComponentId, Slot, backoff::Backoff};

/// The workers of an assignment start within fractions of a second of one another: the first
/// tries come fast. A worker that is being relaunched for long is asked every two seconds.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How long name resolution, connecting and the handshake may take together; a peer that
/// lives answers within milliseconds.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// What the kernel may hold for one connection. Left alone it grows to many megabytes, which
/// for small tuples is minutes of a slow bolt's work waiting where nobody sees it.
pub(super) const SOCKET_BUFFER_BYTES: u32 = 256 << 10;

/// An idle connection is probed after a minute, and given up half a minute later: a peer's
/// machine that lost its power says nothing by itself.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Where a peer listens: its slot's port on its host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) slot: Slot,
    pub(super) host: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} ({})", self.host, self.slot.port, self.slot.supervisor)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("cannot connect")]
    Io(#[source] io::Error),
    #[error("the answer to the handshake cannot be read")]
    Answer(#[source] ReadError),
    #[error("the answer to the handshake makes no sense")]
    Unreadable(#[source] rmp_serde::decode::Error),
    #[error("the peer refuses: {0}")]
    Refused(String),
    #[error("no connection within {CONNECT_DEADLINE:?}")]
    TimedOut,
}

/// Tuples on their way to one component of a peer. What is left when it is dropped is counted.
struct Queue {
    queued: mpsc::Receiver<Addressed>,
    measured: Option<Arc<Connection>>,
    batch: Vec<Addressed>,
    // Not sent to the last byte, unless empty.
    frame: BatchFrame,
    counters: Arc<Counters>,
}

impl Queue {
    /// Waits until there is something to send. Nothing follows once it answers false.
    async fn has_some(&mut self) -> bool {
        self.frame.n_tuples() > 0
            || !self.batch.is_empty()
            || self.queued.recv_many(&mut self.batch, 1).await > 0
    }

    /// Waits for tuples and makes a frame of them, unless there is an unsent one. Nothing
    /// follows once it answers false.
    ///
    /// # Cancellation safety
    /// A call that is dropped has lost nothing.
    async fn fill_frame(&mut self) -> bool {
        while self.frame.n_tuples() == 0 {
            if self.batch.is_empty() && self.queued.recv_many(&mut self.batch, MAX_BATCH_TUPLES).await == 0 {
                return false;
            }
            let clock = self.counters.measures.as_ref().map(|measures| measures.metrics.clock());
            let n_oversized = self.frame.fill(&mut self.batch, clock) as u64;
            if let Some(so_far) = add(&self.counters.oversized, n_oversized) {
                warn!(so_far, limit = wire::MAX_FRAME_BYTES, "a tuple is too large to be sent; dropped");
            }
        }
        true
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Closed first, so that whoever waits for room learns that there will be none.
        self.queued.close();
        let mut n_left = self.batch.len() + self.frame.n_tuples();
        while self.queued.try_recv().is_ok() {
            n_left += 1;
        }
        if let Some(so_far) = add(&self.counters.dropped, n_left as u64) {
            info!(n_left, so_far, "tuples were still queued for a peer; dropped");
        }
    }
}

/// Sends the queue of a component over a connection of its own, which it makes when there is
/// something to send, and anew as often as it breaks.
pub(super) struct Sender {
    me: Identity,
    address: Address,
    // For the log; the peer does not ask.
    component: ComponentId,
    queue: Queue,
    backoff: Backoff,
}

impl Sender {
    pub(super) fn new(
        me: Identity,
        address: Address,
        component: ComponentId,
        (queued, measured): (mpsc::Receiver<Addressed>, Option<Arc<Connection>>),
        counters: Arc<Counters>,
    ) -> Self {
        let backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX, fastrand::Rng::new())
            .expect("the constants are in order and above zero");
        let queue = Queue { queued, measured, batch: Vec::new(), frame: BatchFrame::default(), counters };
        Self { me, address, component, queue, backoff }
    }

    /// Runs until every way into the queue is gone. Its owner drops it when the component
    /// leaves the peer; what is queued then is dropped and counted.
    pub(super) async fn run(mut self) {
        let mut was_connected = false;
        let mut n_failures = 0u64;
        // Most components of a peer are not downstream of a task here: they cost no connection.
        while self.queue.has_some().await {
            match self.connect().await {
                Ok(stream) => {
                    info!(peer = %self.address, component = %self.component, "connected");
                    if was_connected {
                        self.queue.counters.reconnects.fetch_add(1, Ordering::Relaxed);
                    }
                    (was_connected, n_failures) = (true, 0);
                    self.backoff.reset();
                    match self.send_all(stream).await {
                        Ok(()) => return,
                        Err(error) => {
                            info!(peer = %self.address, component = %self.component, %error, "the connection broke; connecting again");
                        }
                    }
                }
                Err(error) => {
                    n_failures += 1;
                    // A peer that stays away for an hour is a few lines, not thousands.
                    if n_failures.is_power_of_two() && n_failures > 1 {
                        let error = &error as &(dyn std::error::Error + 'static);
                        warn!(peer = %self.address, component = %self.component, error, n_failures, "no connection; trying again");
                    }
                }
            }
            tokio::time::sleep(self.backoff.next_delay()).await;
        }
    }

    async fn connect(&self) -> Result<TcpStream, ConnectError> {
        timeout(CONNECT_DEADLINE, self.shake_hands()).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn shake_hands(&self) -> Result<TcpStream, ConnectError> {
        let mut stream =
            open(&self.address.host, self.address.slot.port.0).await.map_err(ConnectError::Io)?;
        let hello = Hello {
            topology: self.me.topology.clone(),
            to: self.address.slot.clone(),
            from: self.me.slot.clone(),
        };
        let mut opening = MAGIC.to_vec();
        opening.extend_from_slice(&VERSION.to_be_bytes());
        opening.extend_from_slice(&wire::frame_of(&hello));
        stream.write_all(&opening).await.map_err(ConnectError::Io)?;
        let mut content = Vec::new();
        wire::read_frame(&mut stream, MAX_HANDSHAKE_BYTES, &mut content)
            .await
            .map_err(ConnectError::Answer)?;
        match wire::read_message(&content).map_err(ConnectError::Unreadable)? {
            Answer::Welcome => Ok(stream),
            Answer::Refused(reason) => Err(ConnectError::Refused(reason)),
        }
    }

    /// Sends what is queued until nothing can follow, or the connection breaks.
    async fn send_all(&mut self, stream: TcpStream) -> io::Result<()> {
        let (mut reader, mut writer) = stream.into_split();
        loop {
            tokio::select! {
                biased;
                // First, so that no frame goes into a connection that the peer has closed while
                // nothing was sent. Cancel-safe: what it may have read is an error anyway.
                error = closed(&mut reader) => return Err(error),
                // Cancel-safe: it says so itself.
                more = self.queue.fill_frame() => {
                    if !more {
                        return Ok(());
                    }
                }
            }
            let measures = self.queue.counters.measures.as_ref().map(|measures| (measures, measures.now()));
            if let Some(connection) = &self.queue.measured {
                connection.begins(self.queue.frame.bytes().len());
            }
            writer.write_all(self.queue.frame.bytes()).await?;
            if let Some((measures, begun)) = measures {
                measures.sent(self.queue.frame.bytes().len());
                if let Some(connection) = &self.queue.measured {
                    connection.sent(measures.now().since(begun));
                }
            }
            self.queue.counters.sent.fetch_add(self.queue.frame.n_tuples() as u64, Ordering::Relaxed);
            self.queue.frame.clear();
        }
    }
}

/// Waits for the end of a connection on which the peer has nothing to say.
async fn closed(reader: &mut (impl AsyncRead + Unpin)) -> io::Error {
    match reader.read_u8().await {
        Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "the peer sent what a receiver never sends"),
        Err(error) => error,
    }
}

async fn open(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match open_address(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn open_address(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    let stream = socket.connect(address).await?;
    tune(&stream)?;
    Ok(stream)
}

/// What both ends of a connection want from the kernel.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    // Batches are made here; the kernel must not wait for more.
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}
