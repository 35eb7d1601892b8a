//! Sending side of one connection: connects, batches, writes, and reconnects.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    Counters, Identity,
    counters::add,
    greeting::{COMPRESSES, GreetError, PeerKeys, greet},
    metrics::ConnectionMetrics,
    peers::OwnHost,
    stream::PeerStream,
    trouble::{self, Trouble},
    wire::{
        self, BatchFrame, Hello, HelloReply, MAGIC, MAX_HANDSHAKE_BYTES, VERSION, compressed::Compressor,
    },
};
use crate::{
    limits::{FRAME_BYTES_MAX, SENDER_IDLE_MAX},
    queue::Inbox,
    report::Problems,
};
use stormkeeper_model::{
    ComponentId, Slot,
    backoff::{Backoff, Delays},
};
use stormkeeper_runtime::error_chain;

/// Delays between attempts to connect. The workers of an assignment start within fractions of a
/// second of one another, so the first attempts follow quickly; later, an unavailable worker is
/// tried every two seconds.
const RECONNECT: Delays = Delays::between(Duration::from_millis(20), Duration::from_secs(2));

/// Number of failures from which on they are logged.
const WORTH_A_LINE: u64 = 8;

/// Time limit for name resolution, connecting and the handshake together; a live peer replies
/// within milliseconds.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Age at which a connection counts as good: the next one is then opened at once if it breaks.
const STEADY_AFTER: Duration = trouble::REPORTED_AFTER;

/// Time limit for reading the reason for which the peer closes a connection.
const REASON_DEADLINE: Duration = Duration::from_millis(500);

/// Size of the kernel's buffer for one connection. By default it grows to many megabytes, which
/// for small tuples is minutes of a slow bolt's work, waiting out of sight.
pub(super) const SOCKET_BUFFER_BYTES: u32 = 256 << 10;

/// Keepalive: an idle connection is probed after a minute, and closed half a minute later. A
/// peer's host that lost its power does not close the connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Address of a peer: the port of its slot on its host.
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

/// Order of the addresses at which a peer is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Addresses of this host, tried before those of the peer's host name.
    before: Vec<IpAddr>,
    /// Addresses of this host, tried after those of the peer's host name.
    after: Vec<IpAddr>,
}

impl Route {
    /// The route to a peer. A peer of the same supervisor is on this host, whatever the name of the
    /// host resolves to; so is, most likely, a peer of another supervisor whose host has our name. The
    /// handshake names the slot, so that a wrong worker refuses the connection.
    pub(super) fn to(address: &Address, me: &Identity, own_host: &OwnHost) -> Self {
        let own = || own_host.addresses.clone();
        let (before, after) = match address.slot.supervisor == me.slot.supervisor {
            true => (own(), Vec::new()),
            false if address.host == own_host.name => (Vec::new(), own()),
            false => (Vec::new(), Vec::new()),
        };
        Self { before, after }
    }
}

/// Failure to connect to a peer.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("the host name {host} cannot be resolved")]
    Unresolved { host: String, source: io::Error },
    #[error("cannot connect")]
    Io(#[source] io::Error),
    #[error(
        "the handshake of TLS failed; the peer may be of a build without it, or the two supervisors differ in storm.tls"
    )]
    Tls(#[source] io::Error),
    #[error(transparent)]
    Greeting(#[from] GreetError),
    #[error("no connection within {CONNECT_DEADLINE:?}")]
    TimedOut,
}

/// End of a connection that was open.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the peer refused it: {0}")]
    Refused(String),
    #[error("the peer sent what a receiver never sends")]
    Unexpected,
}

/// Tuples queued for one component of a peer. Dropping the queue counts the remaining tuples.
struct Queue {
    queued: Inbox,
    metrics: Option<Arc<ConnectionMetrics>>,
    // A frame whose last byte was not yet sent; empty if there is none.
    frame: BatchFrame,
    counters: Arc<Counters>,
}

impl Queue {
    /// Waits until there is a tuple to send. Returns false if there will be none.
    async fn wait_for_tuple(&mut self) -> bool {
        self.frame.n_tuples() > 0 || self.queued.ready().await
    }

    /// Waits for tuples and encodes them as a frame, unless there is an unsent frame. Returns
    /// false if there will be no more tuples.
    ///
    /// # Cancellation safety
    /// A dropped call loses nothing.
    async fn fill_frame(&mut self) -> bool {
        while self.frame.n_tuples() == 0 {
            if !self.queued.ready().await {
                return false;
            }
            let clock = self
                .counters
                .transport_metrics
                .as_ref()
                .map(|transport_metrics| transport_metrics.metrics.clock());
            let n_oversized = self.frame.fill(&mut self.queued, clock) as u64;
            self.counters.unqueued(n_oversized);
            if let Some(so_far) = add(&self.counters.oversized, n_oversized) {
                warn!(so_far, limit = FRAME_BYTES_MAX, "dropped a tuple that is too large to be sent");
            }
        }
        true
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // The queue is closed first, so that tasks that wait for room stop waiting.
        self.queued.close();
        let mut n_left = self.frame.n_tuples();
        while let Some(row) = self.queued.next_row() {
            n_left += row.n_tuples();
        }
        self.counters.unqueued(n_left as u64);
        if let Some(so_far) = add(&self.counters.dropped, n_left as u64) {
            info!(n_left, so_far, "dropped the tuples that were still queued for a peer");
        }
    }
}

/// Reason for which a sender closes its connection.
enum Done {
    /// All senders of the queue are gone.
    NoMoreTuples,
    /// Nothing was sent for a while.
    Idle,
}

/// The connections of a sender, one after the other.
struct Link {
    // Connections since the last good one, all of which broke soon.
    n_broken: u64,
    opened: Instant,
    trouble: Trouble,
}

impl Link {
    fn new(trouble: Trouble) -> Self {
        Self { n_broken: 0, opened: Instant::now(), trouble }
    }

    fn is_steady(&self) -> bool {
        self.opened.elapsed() >= STEADY_AFTER
    }
}

/// Sends the queue of a component over a connection of its own. Connects when there is something
/// to send, and reconnects whenever the connection breaks.
pub(super) struct Sender {
    me: Identity,
    address: Address,
    route: Route,
    keys: PeerKeys,
    problems: Problems,
    // For the log only; it is not part of the protocol.
    component: ComponentId,
    queue: Queue,
    backoff: Backoff,
    compression: Compression,
}

/// Compression of the frames to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Off,
    /// The next greeting announces it.
    On,
    /// The peer refused a greeting that announced it, maybe as its build does not know it: the next one
    /// does not.
    NotNext,
}

impl Sender {
    pub(super) fn new(
        me: Identity,
        (address, route): (Address, Route),
        component: ComponentId,
        (queued, metrics): (Inbox, Option<Arc<ConnectionMetrics>>),
        counters: Arc<Counters>,
    ) -> Self {
        let backoff = RECONNECT.backoff();
        let queue = Queue { queued, metrics, frame: BatchFrame::numbered(), counters };
        let problems = Problems::default();
        let keys = PeerKeys::default();
        let compression = Compression::Off;
        Self { me, address, route, keys, problems, component, queue, backoff, compression }
    }

    /// Reports it as a problem if the peer cannot be reached.
    pub(super) fn reporting_to(self, problems: Problems) -> Self {
        Self { problems, ..self }
    }

    /// Proves with one of `keys` that this is a worker of the topology, where that is required.
    pub(super) fn with_keys(self, keys: PeerKeys) -> Self {
        Self { keys, ..self }
    }

    /// Compresses frames, if the peer knows how to read them.
    pub(super) fn compressing(self, is_on: bool) -> Self {
        Self { compression: if is_on { Compression::On } else { Compression::Off }, ..self }
    }

    /// Runs until all senders of the queue are gone. The owner drops it when the component
    /// leaves the peer; tuples queued at that time are dropped and counted.
    pub(super) async fn run(mut self) {
        let mut was_connected = false;
        let mut n_failures = 0u64;
        let mut unreachable = Trouble::unreachable(&self.problems, &self.address, &self.component);
        let mut link = Link::new(Trouble::rejecting(&self.problems, &self.address, &self.component));
        // Most components of a peer are not downstream of a task here and need no connection.
        while self.queue.wait_for_tuple().await {
            let began = Instant::now();
            match self.connect().await {
                Ok(stream) => {
                    unreachable.end();
                    if link.n_broken < 2 {
                        info!(peer = %self.address, component = %self.component, "connected to a peer");
                    }
                    if was_connected {
                        self.queue.counters.reconnects.fetch_add(1, Ordering::Relaxed);
                    }
                    (was_connected, n_failures) = (true, 0);
                    self.queue.frame.begin_connection();
                    let compressor = (self.compression == Compression::On).then(Compressor::default);
                    if self.compression == Compression::NotNext {
                        // The peer may be of another build when it is connected to again.
                        self.compression = Compression::On;
                    }
                    match self.send_all(stream, &mut link, compressor).await {
                        Ok(Done::NoMoreTuples) => return,
                        Ok(Done::Idle) => {
                            was_connected = false;
                            continue;
                        }
                        Err(error) => self.record_break(began, &error, &mut link),
                    }
                }
                Err(error) => {
                    self.compression = match (self.compression, &error) {
                        (Compression::Off, _) => Compression::Off,
                        (Compression::On, ConnectError::Greeting(GreetError::Refused(_))) => {
                            Compression::NotNext
                        }
                        (Compression::On | Compression::NotNext, _) => Compression::On,
                    };
                    n_failures += 1;
                    unreachable.failed(began, &error_chain(&error));
                    // Logged at each doubling: a peer that is away for an hour is a few lines. A peer that
                    // is just being started, some two seconds long, is none.
                    if n_failures.is_power_of_two() && n_failures >= WORTH_A_LINE {
                        let error = &error as &(dyn std::error::Error + 'static);
                        warn!(peer = %self.address, component = %self.component, error, n_failures, "cannot connect to a peer; retrying");
                    }
                }
            }
            tokio::time::sleep(self.backoff.next_delay()).await;
        }
    }

    /// Records that an open connection broke. A connection that was good was noted as such before.
    fn record_break(&mut self, began: Instant, error: &Broken, link: &mut Link) {
        let (peer, component) = (&self.address, &self.component);
        if link.is_steady() {
            self.hold(link);
            self.backoff.reset();
            info!(%peer, %component, %error, "the connection to a peer broke; reconnecting");
            return;
        }
        link.n_broken += 1;
        link.trouble.failed(began, &error.to_string());
        // Logged at each doubling, as attempts to connect are.
        match link.n_broken {
            1 => info!(%peer, %component, %error, "the connection to a peer broke; reconnecting"),
            n if n.is_power_of_two() => {
                warn!(%peer, %component, %error, n, "connections to a peer break soon after they are opened; retrying");
            }
            _ => {}
        }
    }

    /// Records that a connection is good.
    fn hold(&self, link: &mut Link) {
        if std::mem::take(&mut link.n_broken) > 1 {
            info!(peer = %self.address, component = %self.component, "the connection to a peer holds again");
        }
        link.trouble.end();
    }

    async fn connect(&self) -> Result<PeerStream, ConnectError> {
        timeout(CONNECT_DEADLINE, self.shake_hands()).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn shake_hands(&self) -> Result<PeerStream, ConnectError> {
        let stream = self.open().await?;
        let mut stream = PeerStream::connect(stream, &self.keys).await.map_err(ConnectError::Tls)?;
        let hello = Hello {
            topology: self.me.topology.clone(),
            to: self.address.slot.clone(),
            from: self.me.slot.clone(),
        };
        let version = if self.compression == Compression::On { VERSION | COMPRESSES } else { VERSION };
        greet(&mut stream, (MAGIC, version), &hello, &self.keys).await?;
        Ok(stream)
    }

    /// Connects to the first address of the route that accepts.
    async fn open(&self) -> Result<TcpStream, ConnectError> {
        let (host, port) = (&self.address.host, self.address.slot.port.0);
        let mut last = None;
        for address in &self.route.before {
            match open_address((*address, port).into()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(ConnectError::Io(error)),
            }
        }
        let resolved = tokio::net::lookup_host((host.as_str(), port)).await.map(Vec::from_iter);
        let (named, unresolved) = match resolved {
            Ok(addresses) => (addresses, None),
            Err(source) => (Vec::new(), Some(ConnectError::Unresolved { host: host.clone(), source })),
        };
        for address in named.into_iter().chain(self.route.after.iter().map(|to| (*to, port).into())) {
            match open_address(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(ConnectError::Io(error)),
            }
        }
        // A failure on this host says more than that its name has no address here.
        let nowhere =
            || ConnectError::Io(io::Error::new(io::ErrorKind::NotFound, "the host name has no address"));
        Err(last.or(unresolved).unwrap_or_else(nowhere))
    }

    /// Sends the queued tuples until there will be no more, there were none for a while, or the
    /// connection breaks.
    async fn send_all(
        &mut self,
        mut stream: PeerStream,
        link: &mut Link,
        mut compressor: Option<Compressor>,
    ) -> Result<Done, Broken> {
        link.opened = Instant::now();
        let mut is_steady = false;
        loop {
            tokio::select! {
                biased;
                // First, so that no frame is written to a connection that the peer closed while
                // nothing was sent. Cancel-safe: one byte is read or none.
                byte = stream.read_u8() => return Err(match byte {
                    Ok(first) => reason(first, &mut stream).await,
                    Err(error) => error.into(),
                }),
                // Cancel-safe: the deadline stays.
                () = tokio::time::sleep_until(link.opened + STEADY_AFTER), if !is_steady => {
                    is_steady = true;
                    self.hold(link);
                }
                // Cancel-safe: see `fill_frame`.
                more = self.queue.fill_frame() => {
                    if !more {
                        return Ok(Done::NoMoreTuples);
                    }
                }
                // Cancel-safe: nothing was taken from the queue.
                () = tokio::time::sleep(SENDER_IDLE_MAX) => return Ok(Done::Idle),
            }
            if self.queue.frame.n_tuples() == 0 {
                continue;
            }
            let transport_metrics = self
                .queue
                .counters
                .transport_metrics
                .as_ref()
                .map(|transport_metrics| (transport_metrics, transport_metrics.now()));
            let bytes = match &mut compressor {
                Some(compressor) => compressor.shortest(self.queue.frame.bytes()),
                None => self.queue.frame.bytes(),
            };
            if let Some(connection) = &self.queue.metrics {
                connection.write_started(bytes.len());
            }
            if let Err(error) = write(&mut stream, bytes).await {
                return Err(reason_or(error, &mut stream).await);
            }
            if let Some((transport_metrics, begun)) = transport_metrics {
                transport_metrics.sent(bytes.len());
                if let Some(connection) = &self.queue.metrics {
                    connection.write_finished(transport_metrics.now().since(begun));
                }
            }
            self.queue.counters.sent.fetch_add(self.queue.frame.n_tuples() as u64, Ordering::Relaxed);
            self.queue.counters.unqueued(self.queue.frame.n_tuples() as u64);
            self.queue.frame.clear();
        }
    }
}

/// Hands all bytes to the kernel.
async fn write(stream: &mut PeerStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    // TLS keeps the last ones otherwise.
    stream.flush().await
}

/// Returns why a connection broke: the reason that the peer gave, or else `error`.
async fn reason_or(error: io::Error, reader: &mut (impl AsyncRead + Unpin)) -> Broken {
    match timeout(REASON_DEADLINE, reader.read_u8()).await {
        Ok(Ok(first)) => reason(first, reader).await,
        Ok(Err(_)) | Err(_) => Broken::Io(error),
    }
}

/// Reads the frame that begins with `first`, which gives the reason for the end of the connection.
async fn reason(first: u8, reader: &mut (impl AsyncRead + Unpin)) -> Broken {
    let (first, mut content) = ([first], Vec::new());
    let mut reader = (&first[..]).chain(reader);
    let read = wire::read_frame(&mut reader, MAX_HANDSHAKE_BYTES, &mut content);
    match timeout(REASON_DEADLINE, read).await.map(|read| read.map(|()| wire::read_message(&content))) {
        Ok(Ok(Ok(HelloReply::Refused(reason)))) => Broken::Refused(reason),
        _ => Broken::Unexpected,
    }
}

async fn open_address(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    let stream = socket.connect(address).await?;
    tune(&stream)?;
    Ok(stream)
}

/// Sets the socket options of both ends of a connection.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    // Tuples are batched here; the kernel must not wait for more.
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}
