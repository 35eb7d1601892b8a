//! The REST routes of a nimbus.
//!
//! | method, path | answer |
//! | --- | --- |
//! | `GET /live`, `GET /ready` | whether the process runs; whether it has read the cluster |
//! | `GET /api/v1/cluster/summary` | the cluster in numbers, who leads, what cannot be read |
//! | `GET /api/v1/cluster/events[?limit=N][&topology=T]` | who led, what moved where and why, newest first |
//! | `GET /api/v1/nimbus/summary` | the nimbuses |
//! | `GET /api/v1/supervisor/summary` | the supervisors |
//! | `GET /api/v1/topology/summary` | every topology in short |
//! | `GET /api/v1/topology/{id or name}` | one with its workers, components and tasks |
//! | `GET /api/v1/topology/{id or name}/errors` | the errors kept of its tasks |
//! | `POST /api/v1/topology/submit` | runs the topology of a blob |
//! | `POST /api/v1/topology/{id or name}/{activate,deactivate,rebalance,kill}` | changes it |
//! | `POST /api/v1/host/{host}/{drain,undrain}` | has a host emptied, or used again |
//! | `GET`, `PUT /api/v1/blobs/{sha256}` | a blob |
//! | `POST /api/v1/metrics/{register,contribute}` | takes metrics; only on the leader |
//! | `GET /api/v1/metrics/sync/{log,checkpoint,metas,points,track,history}` | the archive of metrics, for other nimbuses |
//! | `GET /api/v1/metrics/…`, `DELETE /api/v1/metrics/topology/{id or name}/metas`, `GET`, `POST /api/v1/topology/{id or name}/metrics` | what was measured: see `metrics` |
//! | `POST /api/v1/blobs/{sha256}/copy` | has a nimbus fetch a blob from another; only leaders ask |
//!
//! Every nimbus answers reads from its own view, which says how old it is. A write that
//! reaches a follower is forwarded to the leader, once. What is refused is answered with
//! [`crate::rpc::message::ErrorBody`]: `code`, `message` and `hint`.

mod blobs;
mod caller;
mod error;
mod forward;
mod intake;
mod metrics;
mod reads;
mod summary;
#[cfg(test)]
mod tests;
mod writes;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, StatusCode},
    middleware,
    response::Response,
    routing::{get, post},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    daemon::tasks::Ending,
    nimbus::{self, Handle, Nimbus},
    rpc::forward::{Forwarder, TERM},
    tree::Tree,
};
use error::ApiError;

/// The largest body of a request that is JSON; the longest rebalance names every component.
const JSON_BYTES_MAX: usize = 1 << 20;

/// What every route needs.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    nimbus: Handle,
    forwarder: Forwarder,
}

/// A nimbus with its API, running.
#[derive(Debug)]
pub struct Running {
    nimbus: Nimbus,
    address: SocketAddr,
}

/// Runs a nimbus with its API until `stop`. A leader has resigned when this returns.
///
/// # Errors
/// When it cannot start, or a part of it breaks.
pub async fn run(
    options: nimbus::Options,
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), nimbus::Error> {
    start(options, tree, clock, stop).await?.stopped().await
}

/// Starts a nimbus with its API, and answers once the API listens.
///
/// # Errors
/// When it cannot start; nothing runs then.
pub async fn start(
    options: nimbus::Options,
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Running, nimbus::Error> {
    let bind = |address| move |source| nimbus::Error::Bind { address, source };
    let wanted = options.api;
    let (nimbus, listener) = nimbus::start(options, tree, clock, stop).await?;
    let address = listener.local_addr().map_err(bind(wanted))?;
    let (handle, closing) = (nimbus.handle().clone(), nimbus.tasks().cancelled());
    nimbus.tasks().start_graceful("api", Ending::StopsOwner, serve(listener, handle, closing));
    Ok(Running { nimbus, address })
}

impl Running {
    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The nimbus behind the API.
    pub fn handle(&self) -> &Handle {
        self.nimbus.handle()
    }

    /// Waits until it is told to stop, or a part of it breaks; then ends the rest. A leader
    /// has resigned when this returns.
    ///
    /// # Errors
    /// When it was not told to stop.
    pub async fn stopped(self) -> Result<(), nimbus::Error> {
        self.nimbus.stopped().await
    }
}

/// How long requests that are under way at the end may take.
const DOORS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

async fn serve(listener: TcpListener, nimbus: Handle, closing: CancellationToken) {
    let closed = closing.clone();
    // With the address of each caller, which the list of events names.
    let service = routes(nimbus).into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(closing.cancelled_owned());
    let late = async {
        closed.cancelled().await;
        tokio::time::sleep(DOORS_PATIENCE).await;
    };
    tokio::select! {
        // Dropping the server closes the connections that are left.
        ended = serving => if let Err(error) = ended { tracing::error!(%error, "the API broke") },
        () = late => {}
    }
}

/// The routes of `nimbus`.
pub fn routes(nimbus: Handle) -> Router {
    let forwarder = Forwarder::new().expect("a client without TLS needs nothing that can be missing");
    let api = Api { nimbus, forwarder };
    let blobs = get(blobs::get_blob).put(blobs::put_blob);
    Router::new()
        .route("/live", get(async || StatusCode::OK))
        .route("/ready", get(reads::ready))
        .route("/api/v1/cluster/summary", get(reads::cluster))
        .route("/api/v1/cluster/events", get(reads::events))
        .route("/api/v1/nimbus/summary", get(reads::nimbuses))
        .route("/api/v1/supervisor/summary", get(reads::supervisors))
        .route("/api/v1/topology/summary", get(reads::topologies))
        .route("/api/v1/topology/submit", post(writes::submit))
        .route("/api/v1/topology/{topology}", get(reads::topology))
        .route("/api/v1/topology/{topology}/errors", get(reads::errors))
        .route("/api/v1/topology/{topology}/activate", post(writes::activate))
        .route("/api/v1/topology/{topology}/deactivate", post(writes::deactivate))
        .route("/api/v1/topology/{topology}/rebalance", post(writes::rebalance))
        .route("/api/v1/topology/{topology}/kill", post(writes::kill))
        .route("/api/v1/host/{host}/drain", post(writes::drain))
        .route("/api/v1/host/{host}/undrain", post(writes::undrain))
        .route("/api/v1/metrics/register", post(intake::register))
        .route("/api/v1/metrics/contribute", post(intake::contribute))
        .route("/api/v1/metrics/sync/log", get(intake::log))
        .route("/api/v1/metrics/sync/checkpoint", get(intake::checkpoint))
        .route("/api/v1/metrics/sync/metas", get(intake::metas))
        .route("/api/v1/metrics/sync/points", get(intake::points))
        .route("/api/v1/metrics/sync/track", get(intake::track))
        .route("/api/v1/metrics/sync/history", get(intake::history))
        .route("/api/v1/blobs/{key}", blobs)
        .route("/api/v1/blobs/{key}/copy", post(blobs::copy_blob))
        .merge(metrics::routes())
        .fallback(async |uri: axum::http::Uri| ApiError::no_such_route(uri.path()))
        .method_not_allowed_fallback(async |method: axum::http::Method, uri: axum::http::Uri| {
            ApiError::wrong_method(&method, uri.path())
        })
        .layer(middleware::map_response_with_state(api.clone(), tell_term))
        .with_state(api)
}

/// Every answer says which term this nimbus knows of.
async fn tell_term(State(api): State<Api>, mut response: Response) -> Response {
    if let Some(term) = api.nimbus.term() {
        response.headers_mut().insert(HeaderName::from_static(TERM), term.0.into());
    }
    response
}
