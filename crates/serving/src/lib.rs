//! HTTP server of a daemon over TCP, with a limit on everything that a peer can make the daemon hold:
//! a connection, a head, a body, a response.
//!
//! Every response has headers that keep browsers from using it in another way than as data (`browser`).
//! [`origin`] rejects requests that a web page of somebody else may have caused, [`error`] is the error
//! response of every API, and [`openapi`] describes the routes.
//!
//! | a peer that | is cut off |
//! | --- | --- |
//! | does not complete the handshake of TLS and send the head of a request | after 10 s |
//! | sends nothing after a response | after 60 s; clients of Stormkeeper close such a connection after 30 s |
//! | stops in a body, or does not read a response | when it is 30 s behind 8 KiB/s |
//! | sends a head of more than 100 headers or some 400 KiB | at once, with 431 |
//! | has half of all connections, or as many as are free | at once, with 503; without an answer on a port with TLS |
//! | connects when all connections are in use | the same |
//! | speaks HTTP/2 without having asked | at once, with 505 |
//!
//! A response to a request whose body was not read to its end ends the connection, and says so. What the
//! peer still sends is read and discarded before the connection is closed, up to 64 MiB and for at most
//! 10 s: it would lose the response otherwise.
//!
//! There are half as many connections as the process may have descriptors, at most 4,096: the other
//! descriptors are for ZooKeeper, files and connections to other daemons.

mod body;
mod browser;
mod connection;
pub mod error;
mod listener;
pub mod openapi;
pub mod origin;
mod pace;
pub mod proof;
pub mod query;
pub mod range;
mod raw;
mod secured;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{
        HeaderName, HeaderValue,
        header::{AUTHORIZATION, CONNECTION},
    },
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use body::is_body_timeout;
use body::{AnswerBody, BodyEnd, RequestBody};
use connection::Peer;
use error::Rejection;
use listener::{ApiListener, LogLimiter};
use secured::{Protection, TlsPort};
use stormkeeper_access::tls::server::ServerTls;
use stormkeeper_api_types::{authorized::TLS_ONLY, message::Code};
use stormkeeper_runtime::{proc, watch};

/// Limits on what peers can hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time for the head of a request.
    head: Duration,
    /// Time between a response and the next request.
    idle: Duration,
    /// Time that a peer may be behind `bytes_per_sec`.
    stall: Duration,
    /// Slowest rate of bodies and answers.
    bytes_per_sec: u32,
    /// Time for what a peer still sends after a response to a request whose body nobody reads. The system
    /// resets a connection that is closed while its peer sends, and the response can be lost.
    linger: Duration,
    /// Most bytes of that.
    linger_bytes: usize,
    /// Connections in all.
    connections: usize,
    /// Connections of one peer.
    connections_per_peer: usize,
}

/// Descriptors of a process whose limit is unknown: the usual limit.
const USUAL_DESCRIPTORS: u64 = 1024;

impl Limits {
    /// Limits for the descriptors that this process may have.
    pub fn of_process() -> Self {
        Self::of_descriptors(proc::descriptors_max().unwrap_or(USUAL_DESCRIPTORS))
    }

    /// Returns these limits with at most `connections` connections, half of them for one peer.
    pub fn with_connections(self, connections: usize) -> Self {
        let connections = self.connections.min(connections);
        Self { connections, connections_per_peer: connections.div_ceil(2), ..self }
    }

    /// Returns the maximum number of connections.
    pub fn connections(&self) -> usize {
        self.connections
    }

    fn of_descriptors(descriptors: u64) -> Self {
        let connections = usize::try_from(descriptors / 2).unwrap_or(usize::MAX).clamp(16, 4096);
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            bytes_per_sec: 8 << 10,
            linger: Duration::from_secs(10),
            linger_bytes: 64 << 20,
            connections,
            connections_per_peer: connections / 2,
        }
    }
}

/// Timeout of requests that are in flight at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves `routes` until `closing`, over TLS if there is `tls`, then finishes the requests in flight.
/// `accepts` receives whether the listener can accept connections.
pub async fn serve(
    (listener, accepts): (TcpListener, watch::Sender<bool>),
    (routes, tls): (Router, Option<ServerTls>),
    limits: Limits,
    closing: CancellationToken,
) {
    let closed = closing.clone();
    let is_tls_only = tls.as_ref().is_some_and(ServerTls::is_required);
    let admission = Admission { limits, is_tls_only, plain: Arc::default(), closing: closing.clone() };
    let routes = routes.layer(middleware::from_fn_with_state(admission, admit));
    let routes = routes.layer(middleware::map_response(browser::restrict));
    let service = routes.into_make_service_with_connect_info::<Peer>();
    let listener = ApiListener::new(listener, accepts, limits, tls.map(TlsPort::new));
    let serving = axum::serve(listener, service).with_graceful_shutdown(closing.cancelled_owned());
    let late = async {
        closed.cancelled().await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        // Dropping the server closes the remaining connections.
        ended = serving => if let Err(error) = ended { tracing::error!(%error, "the API server failed") },
        () = late => {}
    }
}

/// Mark of a request that came over TLS, in its extensions.
#[derive(Debug, Clone, Copy)]
pub struct OverTls;

/// Announcement that the server closes, in the extensions of a request: a response without an end must end
/// then, as the server waits for it otherwise.
#[derive(Debug, Clone, Default)]
pub struct Closing(pub CancellationToken);

/// Rules for requests, and the log of those that did not come over TLS.
#[derive(Debug, Clone)]
struct Admission {
    limits: Limits,
    is_tls_only: bool,
    plain: Arc<Mutex<LogLimiter>>,
    closing: CancellationToken,
}

impl Admission {
    /// Logs a plain request, unless another one was logged a moment ago. What it had was readable for others.
    fn note_plain(&self, peer: SocketAddr, request: &Request) {
        let mut plain = self.plain.lock().expect("nobody panics while holding the time of the log");
        if let Some(n_refused) = plain.record(Instant::now()) {
            let has_token = request.headers().contains_key(AUTHORIZATION);
            warn!(%peer, has_token, n_refused, "refused a request that did not come over TLS");
        }
    }
}

/// Marks the connection of a request as busy until its response is sent, and adds the address of the
/// peer, for the list of events, and its certificate, for the check of its proof.
async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    let Some(ConnectInfo(peer)) = request.extensions_mut().remove::<ConnectInfo<Peer>>() else {
        return next.run(request).await;
    };
    request.extensions_mut().insert(ConnectInfo(peer.address));
    request.extensions_mut().insert(Closing(admission.closing.clone()));
    let busy = peer.phase.begin_request();
    let end = BodyEnd::default();
    let request_body = |body| Body::new(RequestBody::new(body, admission.limits, end.clone()));
    let mut response = match peer.protection.get() {
        Some(Protection::Tls(certificate)) => {
            if let Some(certificate) = certificate {
                request.extensions_mut().insert(Arc::clone(certificate));
            }
            request.extensions_mut().insert(OverTls);
            next.run(request.map(request_body)).await
        }
        _ if admission.is_tls_only => {
            admission.note_plain(peer.address, &request);
            plain_refused()
        }
        _ => next.run(request.map(request_body)).await,
    };
    // The server does not look for the next request behind the rest of a body.
    if !end.is_reached() {
        peer.phase.note_unread_body();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| Body::new(AnswerBody::new(body, busy)))
}

/// Response to a request that did not come over TLS, on a port that speaks nothing else. The connection
/// ends: whatever was sent could be read by others.
fn plain_refused() -> Response {
    const HINT: &str = "use https://; a command or daemon needs storm.tls and storm.tls.ca.file, or --ca";
    let refused = Rejection::new(Code::InvalidRequest, "this port speaks TLS only", Some(HINT));
    let headers = [(HeaderName::from_static(TLS_ONLY), "1"), (CONNECTION, "close")];
    (headers, refused).into_response()
}
