//! Accepts connections within the limits, and logs those that it cannot accept.

use std::{io, net::SocketAddr, time::Duration};

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
use stormkeeper_runtime::{places::Places, watch};

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
        let places = Places::new(limits.connections, limits.connections_per_peer);
        Self { listener, limits, places, rejected, failed, outage, tls }
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
                    match self.places.enter(peer.ip()) {
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
