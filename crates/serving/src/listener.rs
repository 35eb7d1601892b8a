//! Accepts connections within the limits, and logs those that it cannot accept.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tracing::{error, info, warn};

use crate::{
    Limits,
    connection::Connection,
    raw,
    secured::{Secured, TlsPort},
};
use stormkeeper_runtime::watch;

/// Pause after a failed accept: the cause, mostly too few descriptors, does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Time without an accepted connection after which a leader resigns: it may end sooner by itself.
const OUTAGE: Duration = Duration::from_secs(10);

/// Shortest time between two log lines about the same condition.
const LOG_PERIOD: Duration = Duration::from_secs(30);

/// Listener of the API.
#[derive(Debug)]
pub(crate) struct ApiListener {
    listener: TcpListener,
    limits: Limits,
    places: Places,
    rejected: LogLimiter,
    failed: LogLimiter,
    outage: Outage,
    tls: Option<TlsPort>,
}

impl ApiListener {
    pub(crate) fn new(
        listener: TcpListener,
        accepts: watch::Sender<bool>,
        limits: Limits,
        tls: Option<TlsPort>,
    ) -> Self {
        let (rejected, failed) = (LogLimiter::default(), LogLimiter::default());
        let outage = Outage { since: None, accepts };
        Self { listener, limits, places: Places::default(), rejected, failed, outage, tls }
    }

    /// Answers a peer beyond the limits, as far as that is possible at once, and disconnects it.
    fn reject(&mut self, stream: &TcpStream, peer: SocketAddr) {
        if self.tls.is_none() {
            // The peer may be gone, or may not take the response at once. A client of TLS would take it for
            // that of a port without TLS.
            let _sent = stream.try_write(raw::FULL.as_bytes());
        }
        if let Some(n_rejected) = self.rejected.record(Instant::now()) {
            let Limits { connections, connections_per_peer, .. } = self.limits;
            warn!(%peer, n_rejected, connections, connections_per_peer, "too many connections to the API: rejected some");
        }
    }
}

impl Listener for ApiListener {
    type Io = Connection<Secured>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.outage.end();
                    if self.failed.end() {
                        info!("the API accepts connections again");
                    }
                    match self.places.enter(peer.ip(), &self.limits) {
                        Some(place) => {
                            let stream = Secured::new(stream, peer, self.tls.clone());
                            return (Connection::new(stream, peer, self.limits, Some(place)), peer);
                        }
                        None => self.reject(&stream, peer),
                    }
                }
                Err(error) if is_of_peer(&error) => {}
                Err(error) => {
                    self.outage.record_failure(Instant::now());
                    if let Some(n_failed) = self.failed.record(Instant::now()) {
                        error!(%error, n_failed, "the API cannot accept connections; retrying");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Time during which the listener cannot accept connections.
#[derive(Debug)]
struct Outage {
    since: Option<Instant>,
    accepts: watch::Sender<bool>,
}

impl Outage {
    fn record_failure(&mut self, now: Instant) {
        let is_long = now - *self.since.get_or_insert(now) >= OUTAGE;
        self.accepts.send_if_modified(|accepts| is_long && std::mem::replace(accepts, false));
    }

    fn end(&mut self) {
        if self.since.take().is_some() {
            self.accepts.send_if_modified(|accepts| !std::mem::replace(accepts, true));
        }
    }
}

/// Returns whether the peer of a connection caused the error: it disconnected early.
fn is_of_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// Numbers of connections, in all and per peer. Clones share them.
#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    per_peer: HashMap<IpAddr, usize>,
}

/// Place of a connection, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    peer: IpAddr,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().expect("no one panics while holding the counts")
    }

    /// Takes a place; `None` if there is none. A peer has at most as many places as are free, so that a few
    /// peers do not take all: with each further one that takes what it can, half of the rest is left.
    fn enter(&self, address: IpAddr, limits: &Limits) -> Option<Place> {
        let peer = peer_of(address);
        let mut counts = self.lock();
        let n = counts.per_peer.get(&peer).copied().unwrap_or_default();
        let n_free = limits.connections.saturating_sub(counts.all);
        if n >= n_free || n >= limits.connections_per_peer {
            return None;
        }
        counts.all += 1;
        counts.per_peer.insert(peer, n + 1);
        Some(Place { places: self.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
        counts.all -= 1;
        if let Some(n) = counts.per_peer.get_mut(&self.peer) {
            *n -= 1;
            if *n == 0 {
                counts.per_peer.remove(&self.peer);
            }
        }
    }
}

/// Peer with an address: a host has at least 2^64 addresses of IPv6.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Limits the log lines about a condition that may occur very often.
#[derive(Debug, Default)]
pub(crate) struct LogLimiter {
    /// Time of the last line.
    logged: Option<Instant>,
    /// Occurrences since then.
    n: u64,
}

impl LogLimiter {
    /// Returns the number of occurrences since the last line, if it is time for the next one.
    pub(crate) fn record(&mut self, now: Instant) -> Option<u64> {
        self.n += 1;
        if self.logged.is_some_and(|logged| now - logged < LOG_PERIOD) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.n))
    }

    /// Ends the condition. Returns whether there was a line about it.
    fn end(&mut self) -> bool {
        self.n = 0;
        self.logged.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn places_are_limited_in_all_and_per_peer_and_shared_fairly() {
        let limits = Limits { connections: 8, connections_per_peer: 3, ..Limits::of_descriptors(0) };
        let places = Places::default();
        let take_all = |address: &str| {
            let enter = || places.enter(address.parse().expect("an address"), &limits);
            let places: Vec<Place> = std::iter::from_fn(enter).collect();
            places
        };
        let first = take_all("10.0.0.1");
        assert_eq!((first.len(), take_all("::ffff:10.0.0.1").len()), (3, 0), "the limit of a peer");
        let second = take_all("2001:db8::1");
        assert_eq!((second.len(), take_all("2001:db8::2").len()), (3, 0), "one network is one peer");
        let third = take_all("10.0.0.3");
        assert_eq!(third.len(), 1, "half of the rest");
        let last = take_all("10.0.0.4");
        assert_eq!((last.len(), take_all("10.0.0.5").len()), (1, 0), "the last place");
        drop(first);
        assert_eq!(take_all("10.0.0.5").len(), 2);
        drop((second, third, last));
        let counts = places.lock();
        assert_eq!((counts.all, counts.per_peer.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_published_when_it_is_long_and_when_it_ends() {
        let (accepts, begin) = (watch::Sender::new(true), Instant::now());
        let mut outage = Outage { since: None, accepts: accepts.clone() };
        let mut seen = accepts.subscribe();
        let mut published = || seen.changed().now_or_never().map(|_| *seen.borrow());
        outage.record_failure(begin);
        outage.end();
        outage.record_failure(begin + OUTAGE);
        assert_eq!(published(), None);
        outage.record_failure(begin + 2 * OUTAGE);
        outage.record_failure(begin + 3 * OUTAGE);
        assert_eq!(published(), Some(false));
        outage.end();
        outage.end();
        assert_eq!(published(), Some(true));
        assert_eq!(published(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn log_lines_about_one_condition_are_rare() {
        let (mut log, begin) = (LogLimiter::default(), Instant::now());
        assert_eq!(log.record(begin), Some(1));
        assert_eq!(log.record(begin + LOG_PERIOD / 2), None);
        assert_eq!(log.record(begin + LOG_PERIOD), Some(2));
        assert!(log.end());
        assert!(!log.end());
    }
}
