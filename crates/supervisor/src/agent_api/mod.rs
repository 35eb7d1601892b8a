//! HTTP API of a supervisor, its *agent*: the logs of workers, and metrics of the host for Prometheus.
//!
//! | path | response |
//! | --- | --- |
//! | `GET /live` | whether the process runs |
//! | `GET /metrics` | the host and its workers, for Prometheus |
//! | `GET /api/openapi.json` | the OpenAPI document of these routes |
//! | `GET /api/stormkeeper/v1/logs/{topology id}` | the launches of the topology here, and their log files |
//! | `GET …/logs/{topology id}/search` | the last lines of the logs, also by text and component |
//! | `GET …/logs/{topology id}/{port}/{file}` | a part of a log file, by position |
//! | `GET …/logs/{topology id}/{port}/{file}/download` | a log file |
//! | `GET …/live/{topology id}` | live numbers of the workers of the topology here, as lines |
//!
//! The same limits and checks apply as for the API of a nimbus ([`stormkeeper_serving`]). A port that
//! another program uses stops nothing else: it is a problem of the supervisor, and is tried again.

mod describe;
mod live_route;
mod log_routes;
mod page;
mod searches;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, OriginalUri, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode},
    middleware::{self, Next, from_fn},
    response::{IntoResponse as _, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    agent::Agent, live::Live, registration::Registration, status::Status, worker_logs::WorkerLogStore,
};
use page::Page;
use searches::Searches;
use stormkeeper_access::{
    gate::{Admitted, Denied, Gate},
    locks::{Locks, Mode},
    principal::{Principal, Role},
    refusals::{RefusalKind, Refusals},
};
use stormkeeper_api_types::{
    leader_clock::TIME,
    message::{
        Code,
        live::LINES,
        logs::{AgentLogs, LogChunk, LogLines, SUPERVISOR},
    },
    routes::PREFIX,
};
use stormkeeper_model::{SupervisorId, WorkerId, address::host_port, clock::Clock};
use stormkeeper_runtime::{net::ListenOn, tasks::OnExit, watch};
use stormkeeper_serving::{
    Limits,
    error::Rejection,
    openapi::{self, Content, Routes},
    origin::{self, DaemonKind, OwnNames},
    proof,
    query::refuse_parameters,
};

/// Pause before a port that is in use is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(5);

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// Maximum number of connections: the callers are nimbuses, monitors and a few people.
const CONNECTIONS_MAX: usize = 256;

/// Settings of the agent's listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOptions {
    /// Address on which the agent listens; port 0 selects any free port.
    pub address: SocketAddr,
    /// True if any free port will do when another program has this one.
    pub may_move: bool,
    /// Names under which browsers may address the agent, besides its host and addresses.
    pub names: Vec<String>,
}

/// State of all routes.
#[derive(Debug, Clone)]
struct AgentApi {
    supervisor: SupervisorId,
    host: String,
    store: WorkerLogStore,
    status: watch::Receiver<Status>,
    searches: Searches,
    page: Page,
    live: Live,
    refusals: Arc<Refusals>,
    clock: Clock,
}

impl AgentApi {
    /// The launches whose process exists or may exist.
    fn running(&self) -> BTreeSet<WorkerId> {
        self.status.borrow().slots.values().filter_map(|slot| slot.worker.clone()).collect()
    }
}

impl Agent {
    /// Starts the agent's listener, if the options have one.
    pub(crate) fn start_api(&self) {
        let Some(options) = self.options.agent.clone() else { return };
        let api = AgentApi {
            supervisor: self.identity.id.clone(),
            host: self.options.host.clone(),
            store: WorkerLogStore::new(&self.options.local_dir),
            status: self.status.subscribe(),
            searches: Searches::default(),
            page: Page::new(&self.options.local_dir, self.clock.clone()),
            live: Live::new(
                &self.options.local_dir,
                self.status.subscribe(),
                self.clock.clone(),
                &self.tasks,
            ),
            refusals: Arc::default(),
            clock: self.clock.clone(),
        };
        let names = options.names.iter().chain([&self.options.host]).map(String::as_str);
        let names = OwnNames::new(DaemonKind::Supervisor, names);
        let server = Server {
            address: options.address,
            may_move: options.may_move,
            host: self.options.host.clone(),
            api,
            names,
            locks: self.launcher.defaults.locks.clone(),
            registration: self.registration.clone(),
        };
        self.tasks.start_graceful("agent api", OnExit::StopOwner, server.run(self.tasks.cancelled()));
    }
}

/// The listener, which is opened until that succeeds.
struct Server {
    address: SocketAddr,
    may_move: bool,
    host: String,
    api: AgentApi,
    names: OwnNames,
    locks: Locks,
    registration: Registration,
}

impl Server {
    async fn run(self, closing: CancellationToken) {
        let mut is_first = true;
        while !closing.is_cancelled() {
            match self.bind() {
                Ok((listener, announced)) => {
                    info!(address = %announced, "the agent listens");
                    let gate = Gate::new(self.locks.clone(), announced.clone(), self.api.clock.clone());
                    let routes = routes(self.api.clone(), self.names.clone(), gate);
                    self.registration.set_agent(Ok(announced));
                    let accepts = watch::Sender::new(true);
                    let limits = Limits::of_process().with_connections(CONNECTIONS_MAX);
                    let routes = (routes, self.locks.tls().server());
                    stormkeeper_serving::serve((listener, accepts), routes, limits, closing.clone()).await;
                }
                Err(error) => {
                    if std::mem::take(&mut is_first) {
                        warn!(address = %self.address, %error, "the agent cannot listen; trying again every few seconds");
                    }
                    self.registration.set_agent(Err(self.text_of(&error)));
                }
            }
            tokio::select! {
                // Cancel-safe: a cancelled token stays cancelled.
                () = closing.cancelled() => {}
                // Cancel-safe: a sleep has no state.
                () = tokio::time::sleep(BIND_PAUSE) => {}
            }
        }
    }

    /// Opens the listener. Returns it with the address at which nimbuses reach it.
    fn bind(&self) -> io::Result<(TcpListener, String)> {
        let listener = listen(self.address, self.may_move)?;
        let bound = listener.local_addr()?;
        let announced = match bound.ip().is_unspecified() {
            true => host_port(&self.host, bound.port()),
            false => bound.to_string(),
        };
        Ok((listener, announced))
    }

    fn text_of(&self, error: &io::Error) -> String {
        let (address, host) = (self.address, &self.host);
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "end the program that uses the port, or set supervisor.agent.port to another or to 0"
            }
            io::ErrorKind::AddrNotAvailable => "set supervisor.agent.host to an address of this host",
            _ => "check supervisor.agent.host and supervisor.agent.port",
        };
        format!(
            "the agent of the supervisor at {host} cannot listen on {address} ({error}), so the logs of its workers cannot be read; {advice}"
        )
    }
}

/// Opens a listener at `address`, or at any free port if another program has that one and `may_move`.
fn listen(address: SocketAddr, may_move: bool) -> io::Result<TcpListener> {
    let on = match address.ip() {
        IpAddr::V6(address) if address.is_unspecified() => ListenOn::All,
        address => ListenOn::Address(address),
    };
    let listen = |port| on.bind(port, |_| Ok(()))?.listen(BACKLOG);
    match listen(address.port()) {
        Err(error) if may_move && error.kind() == io::ErrorKind::AddrInUse => listen(0),
        listener => listener,
    }
}

/// Returns the routes of an agent, which answers those whom `gate` knows.
fn routes(api: AgentApi, names: OwnNames, gate: Gate) -> Router {
    let id = HeaderValue::try_from(api.supervisor.as_str()).ok();
    let api = AgentApi { refusals: Arc::clone(gate.refusals()), ..api };
    let checked = (Arc::new(names), Arc::clone(gate.refusals()));
    let (router, _operations) = described().into_parts();
    router
        .route(describe::PATH, get(async || openapi::response(describe::document_text())))
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::new(gate), require_proof))
        .layer(middleware::from_fn_with_state(checked, reject_foreign))
        .layer(middleware::map_response_with_state(id, add_supervisor))
        .with_state(api)
}

/// All routes but that of their document, with their descriptions.
fn described() -> Routes<AgentApi> {
    let logs = Routes::new()
        .serve(
            describe::logs(
                "/logs/{topology}",
                "The launches of a topology on this host, and their log files",
            )
            .answers::<AgentLogs>(),
            log_routes::list,
        )
        .with_router(|router| router.route_layer(from_fn(refuse_parameters)))
        .serve(
            describe::logs("/logs/{topology}/search", "The last lines of the logs of a topology")
                .query::<log_routes::SearchQuery>()
                .answers::<LogLines>(),
            log_routes::search,
        )
        .serve(
            describe::logs("/logs/{topology}/{port}/{file}", "Part of a log file")
                .query::<log_routes::ChunkQuery>()
                .answers::<LogChunk>(),
            log_routes::chunk,
        )
        .serve(
            describe::logs("/logs/{topology}/{port}/{file}/download", "A log file")
                .query::<log_routes::DownloadQuery>()
                .answers_content(Content::Other(&["application/octet-stream"]))
                .in_ranges(),
            log_routes::download,
        )
        .serve(
            describe::live_numbers("/live/{topology}", "Live numbers of the workers of a topology, as lines")
                .answers_content(Content::Other(&[LINES])),
            live_route::read,
        )
        .with_router(|router| router.method_not_allowed_fallback(wrong_method));
    Routes::new()
        .serve(describe::get("/live", "Whether the process runs"), async || StatusCode::OK)
        .serve(
            describe::get("/metrics", "Page for Prometheus")
                .answers_content(Content::Other(page::MEDIA_TYPES)),
            page::metrics,
        )
        .nest(PREFIX, logs)
}

async fn no_such_route(OriginalUri(uri): OriginalUri) -> Rejection {
    let message = format!("there is nothing at {}", stormkeeper_model::id::quoted(uri.path()));
    Rejection::new(Code::NoSuchRoute, message, Some("docs/operations/logs.md lists the paths of an agent"))
}

async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> Rejection {
    Rejection::wrong_method(&method, uri.path())
}

/// Adds the id of the supervisor to every response: a caller must not take one agent for another.
async fn add_supervisor(State(id): State<Option<HeaderValue>>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    if let Some(id) = id {
        headers.insert(HeaderName::from_static(SUPERVISOR), id);
    }
    response
}

/// Lets requests pass whose sender may read: nimbuses, which sign for those whom they have checked, and
/// whoever has a token of any role.
async fn require_proof(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/live" {
        return next.run(request).await;
    }
    let denied = match gate.admit(proof::received(&request)) {
        Ok(Admitted { principal: Principal::Worker(_), .. }) => {
            let message = "a worker may not read logs and metrics of a host";
            gate.refusals().record(RefusalKind::Forbidden);
            return Rejection::new(Code::Forbidden, message, None).into_response();
        }
        // Sent on behalf of somebody by a nimbus that requires no proof.
        Ok(Admitted { principal: Principal::Anyone, .. }) if gate.mode() == Mode::Required => Denied::Missing,
        Ok(Admitted { principal, .. }) => {
            let reader = SampleReader(may_read_samples(&principal));
            let mut request = request;
            request.extensions_mut().insert(reader);
            return next.run(request).await;
        }
        Err(denied) => denied,
    };
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(address)| address.ip().to_string());
    gate.note_refused(
        ((&denied).into(), &denied.to_string()),
        peer.as_deref(),
        (request.method().as_str(), request.uri().path()),
    );
    let mut response = proof::denied(&denied);
    // A sender whose clock differs signs again with this time.
    let now = gate.now().as_millis();
    response.headers_mut().insert(HeaderName::from_static(TIME), now.into());
    response
}

/// Whether the sender of a request may read the tuples of samples.
#[derive(Debug, Clone, Copy)]
struct SampleReader(bool);

/// Returns whether a sender may read the tuples of samples of any topology: a nimbus, which has checked
/// for whom it asks, and a token that may operate all topologies. A token that is limited to an owner
/// asks a nimbus, which knows the owners.
fn may_read_samples(principal: &Principal) -> bool {
    match principal {
        Principal::Anyone | Principal::Daemon(_) => true,
        Principal::Person(person) => person.role >= Role::Operator && person.owner.is_none(),
        Principal::Worker(_) => false,
    }
}

/// Rejects requests that a web page of somebody else may have caused.
async fn reject_foreign(
    State((names, refusals)): State<(Arc<OwnNames>, Arc<Refusals>)>,
    request: Request,
    next: Next,
) -> Response {
    match origin::check(&names, request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(rejection) => {
            refusals.record(RefusalKind::Foreign);
            rejection.into_response()
        }
    }
}
