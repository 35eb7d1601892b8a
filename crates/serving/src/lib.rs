//! HTTP server of a daemon over TCP, with a limit on everything that a peer can make the daemon hold:
//! a connection, a head, a body, a response.
//!
//! Every response has headers that keep browsers from using it in another way than as data (`browser`).
//! [`origin`] rejects requests that a web page of somebody else may have caused, and [`error`] is the
//! error response of every API.
//!
//! | a peer that | is cut off |
//! | --- | --- |
//! | does not send the head of a request | after 10 s |
//! | sends nothing after a response | after 60 s; clients of Stormkeeper close such a connection after 30 s |
//! | stops in a body, or does not read a response | when it is 30 s behind 8 KiB/s |
//! | sends a head of more than 100 headers or some 400 KiB | at once, with 431 |
//! | has more than half of all connections | at once, with 503 |
//! | connects when all connections are in use | at once, with 503 |
//!
//! There are half as many connections as the process may have descriptors, at most 4,096: the other
//! descriptors are for ZooKeeper, files and connections to other daemons.

mod body;
mod browser;
mod connection;
pub mod error;
mod listener;
pub mod origin;
mod pace;
pub mod proof;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::Response,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use body::is_body_timeout;
use body::{AnswerBody, RequestBody};
use connection::Peer;
use listener::ApiListener;
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

    fn of_descriptors(descriptors: u64) -> Self {
        let connections = usize::try_from(descriptors / 2).unwrap_or(usize::MAX).clamp(16, 4096);
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            bytes_per_sec: 8 << 10,
            connections,
            connections_per_peer: connections / 2,
        }
    }
}

/// Timeout of requests that are in flight at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves `routes` until `closing`, then finishes the requests in flight. `accepts` receives whether
/// the listener can accept connections.
pub async fn serve(
    (listener, accepts): (TcpListener, watch::Sender<bool>),
    routes: Router,
    limits: Limits,
    closing: CancellationToken,
) {
    let closed = closing.clone();
    let routes = routes.layer(middleware::map_response(browser::restrict));
    let routes = routes.layer(middleware::from_fn_with_state(limits, admit));
    let service = routes.into_make_service_with_connect_info::<Peer>();
    let listener = ApiListener::new(listener, accepts, limits);
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

/// Marks the connection of a request as busy until its response is sent, and adds the address of the
/// peer, for the list of events.
async fn admit(State(limits): State<Limits>, mut request: Request, next: Next) -> Response {
    let Some(ConnectInfo(peer)) = request.extensions_mut().remove::<ConnectInfo<Peer>>() else {
        return next.run(request).await;
    };
    request.extensions_mut().insert(ConnectInfo(peer.address));
    let busy = peer.phase.begin_request();
    let request = request.map(|body| Body::new(RequestBody::new(body, limits)));
    next.run(request).await.map(|body| Body::new(AnswerBody::new(body, busy)))
}
