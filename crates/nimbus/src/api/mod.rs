//! REST API of a nimbus.
//!
//! | method, path | response |
//! | --- | --- |
//! | `GET /live`, `GET /ready` | whether the process runs; whether it has read the cluster |
//! | `GET /`, `GET /ui/…` | the web page: see `web_page` |
//! | `GET /metrics` | numbers for Prometheus: see `prometheus` |
//! | `GET /api/openapi.json` | the OpenAPI document of all routes: see `describe` |
//! | `GET`, `POST`, `DELETE /api/stormkeeper/v1/session` | who the sender is; signs a browser in and out: see `session` |
//! | `GET /api/stormkeeper/v1/cluster/summary` | the cluster in numbers, the leader, unreadable records |
//! | `GET /api/stormkeeper/v1/cluster/events[?limit=N][&topology=T]` | elections, changes and moves with reasons, newest first |
//! | `GET /api/stormkeeper/v1/nimbus/summary` | the nimbuses |
//! | `GET /api/stormkeeper/v1/supervisor/summary` | the supervisors |
//! | `GET /api/stormkeeper/v1/owner/summary` | the owners of topologies, with what they use and their quotas |
//! | `GET /api/stormkeeper/v1/topology/summary` | every topology in short |
//! | `GET /api/stormkeeper/v1/topology/{id or name}` | one topology with its workers, components and tasks |
//! | `GET /api/stormkeeper/v1/topology/{id or name}/errors` | the recorded errors of its tasks |
//! | `GET /api/stormkeeper/v1/topology/{id or name}/logs[/search]`, `…/logs/{supervisor}/{port}/{file}[/download]` | the logs of its workers: see `logs` |
//! | `GET /api/stormkeeper/v1/topology/{id or name}/live[/events]` | live numbers, at once or as server-sent events: see `live` |
//! | `GET /api/stormkeeper/v1/configuration`, `GET /api/stormkeeper/v1/topology/{id or name}/settings` | settings with their sources: see `settings` |
//! | `POST /api/stormkeeper/v1/topology/submit` | runs the topology of a blob |
//! | `POST /api/stormkeeper/v1/topology/{id or name}/{activate,deactivate,rebalance,kill}` | changes a topology |
//! | `GET`, `POST /api/stormkeeper/v1/topology/{id or name}/samples` | the samples of tuples; begins or ends one |
//! | `GET`, `POST /api/stormkeeper/v1/topology/{id or name}/credentials` | the names of its credentials; sets and removes some |
//! | `GET`, `POST /api/stormkeeper/v1/recovery` | the copy of a tree that ZooKeeper lost; brings the copy back |
//! | `GET /api/stormkeeper/v1/tree[?path=P]` | a znode, explained, for admins: see `tree` |
//! | `POST /api/stormkeeper/v1/host/{host}/{drain,undrain}` | drains a host, or uses it again |
//! | `GET`, `PUT /api/stormkeeper/v1/blobs/{sha256}` | a blob |
//! | `POST /api/stormkeeper/v1/metrics/{register,ingest}` | ingests metrics; only on the leader |
//! | `GET /api/stormkeeper/v1/metrics/sync/{log,checkpoint,metas,points,track,history}` | the metric store, for other nimbuses |
//! | `GET /api/stormkeeper/v1/metrics/…`, `DELETE /api/stormkeeper/v1/metrics/topology/{id or name}/metas`, `GET`, `POST /api/stormkeeper/v1/topology/{id or name}/metrics` | recorded metrics: see `metrics` |
//! | `POST /api/stormkeeper/v1/blobs/{sha256}/copy` | a nimbus fetches a blob from another; only for leaders |
//!
//! The same routes are at the prefix `/api/v1` for builds before this prefix. There is Storm's API as
//! well (`storm`); where both have a path, a header tells which one is asked. Flink's API is at
//! `/jobs`, `/taskmanagers` and others, bare and below `/v1` (`flink`).
//!
//! Every nimbus answers reads from its own view, and every response says how old the view is. A write
//! that reaches a follower is forwarded to the leader, once. A rejected request is answered with
//! [`stormkeeper_api_types::message::ErrorBody`]: `code`, `message` and `hint`. Requests that a web
//! page of somebody else may have caused are rejected ([`stormkeeper_serving::origin`]), and where the
//! cluster is locked, those whose sender does not prove that it may do what it asks for (`access`).

mod access;
mod blobs;
mod caller;
mod clocks;
mod credentials;
mod describe;
mod error;
mod exposed;
mod flink;
mod forward;
mod ingest;
mod live;
mod logs;
mod metrics;
mod own;
mod prometheus;
mod reads;
mod recovery;
mod reported;
mod requested;
mod session;
mod settings;
mod storm;
mod summary;
#[cfg(test)]
mod tests;
mod translated;
mod tree;
mod web_page;
mod writes;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{OriginalUri, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, uri::PathAndQuery},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate as nimbus;
use crate::{Handle, Nimbus, daemon::NimbusClients, quota::Uploads, uploaders::Uploaders};
use describe::get;
use error::ApiError;
use stormkeeper_access::refusals::RefusalKind;
use stormkeeper_api_types::{
    agent_client::AgentClient,
    forward::{BEHIND, BEHIND_MIN, Forwarder, TERM},
    leader_clock::{PROCESS, TIME, TREE},
    message::Code,
    routes::{HEADER, OLD_PREFIX, PREFIX},
    seen::{Change, Seen, ZXID},
};
use stormkeeper_coordination::tree::Tree;
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::tasks::OnExit;
use stormkeeper_serving::{
    self as serving, Limits,
    openapi::{self, Content, Routes},
    origin::{self, DaemonKind, OwnNames},
};

/// Maximum bytes of a JSON body; the longest rebalance names every component.
const JSON_BYTES_MAX: usize = 1 << 20;

/// State that every route needs.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    nimbus: Handle,
    forwarder: Forwarder,
    agents: AgentClient,
    flink: flink::Snapshots,
    prometheus: Arc<prometheus::Snapshots>,
    totals: Arc<storm::TotalsOfView>,
    /// Packages that owners with quotas have uploaded.
    uploads: Arc<Uploads>,
    uploaders: Arc<Uploaders>,
    /// Submits in parts that run; those beyond the limits are refused.
    submits: storm::Submits,
    /// Log files that may be passed on at the same time; further ones are refused.
    downloads: Arc<Semaphore>,
    /// Topologies whose live numbers somebody reads.
    hubs: live::Hubs,
    /// Requests that may read the tree at the same time; further ones are refused.
    tree_reads: Arc<Semaphore>,
}

/// Running nimbus with its API.
#[derive(Debug)]
pub struct Running {
    nimbus: Nimbus,
    address: SocketAddr,
}

/// Runs a nimbus with its API until `stop`. A leader has resigned when this function returns.
///
/// # Errors
/// An error if the nimbus cannot start, or a part of it fails.
pub async fn run(
    options: nimbus::Options,
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), nimbus::Error> {
    start(options, tree, clock, stop).await?.stopped().await
}

/// Starts a nimbus with its API, and returns once the API listens.
///
/// # Errors
/// An error if the nimbus cannot start; nothing runs then.
pub async fn start(
    options: nimbus::Options,
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Running, nimbus::Error> {
    let clients = NimbusClients::over_http(&options, Arc::clone(&tree), &clock)?;
    start_with(options, clients, tree, clock, stop).await
}

/// Starts a nimbus as [`start`] does, with other connections than those over HTTP.
pub(crate) async fn start_with(
    options: nimbus::Options,
    clients: NimbusClients,
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Running, nimbus::Error> {
    let bind = |address| move |source| nimbus::Error::Bind { address, source };
    let wanted = options.api;
    let (nimbus, listener) = nimbus::start(options, clients, tree, clock, stop).await?;
    let address = listener.local_addr().map_err(bind(wanted))?;
    let routes = routes(nimbus.handle().clone());
    let accepts = nimbus.api_accepts().clone();
    let tls = nimbus.handle().options().locks.tls().server();
    let serving =
        serving::serve((listener, accepts), (routes, tls), Limits::of_process(), nimbus.tasks().cancelled());
    nimbus.tasks().start_graceful("api", OnExit::StopOwner, serving);
    Ok(Running { nimbus, address })
}

impl Running {
    /// Returns the address on which the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the nimbus behind the API.
    pub fn handle(&self) -> &Handle {
        self.nimbus.handle()
    }

    /// Waits until the nimbus is stopped or a part of it fails, and ends the rest. A leader has
    /// resigned when this method returns.
    ///
    /// # Errors
    /// An error if the nimbus ended without being stopped.
    pub async fn stopped(self) -> Result<(), nimbus::Error> {
        self.nimbus.stopped().await
    }
}

/// Returns the routes of `nimbus`.
pub fn routes(nimbus: Handle) -> Router {
    let options = nimbus.options();
    let tls = options.locks.tls().client();
    let forwarder = Forwarder::new(&tls).expect("a client needs nothing that can be missing");
    let credentials = options.credentials(nimbus.clock());
    let forwarder = forwarder.with_credentials(credentials.clone());
    let names = options.api_names.iter().chain([&options.host]).map(String::as_str);
    let names = Arc::new(OwnNames::new(DaemonKind::Nimbus, names).accepting_parts_at(storm::SUBMIT));
    let agents = AgentClient::new(&tls).expect("a client needs nothing that can be missing");
    let agents = agents.with_credentials(credentials);
    let flink = flink::Snapshots::new(nimbus.clock().clone());
    let prometheus = Arc::new(prometheus::Snapshots::new(nimbus.clock().clone()));
    let (router, _operations) = described().into_parts();
    let downloads = Arc::new(Semaphore::new(logs::DOWNLOADS_MAX));
    let tree_reads = Arc::new(Semaphore::new(tree::READS_MAX));
    let (totals, uploads, uploaders, submits) = Default::default();
    let hubs = live::Hubs::new(Limits::of_process());
    let api = Api {
        nimbus,
        forwarder,
        agents,
        flink,
        prometheus,
        totals,
        uploads,
        uploaders,
        submits,
        downloads,
        hubs,
        tree_reads,
    };
    let router = router
        .fallback(async |OriginalUri(uri): OriginalUri, headers: HeaderMap| {
            let error = storm::absent(uri.path()).unwrap_or_else(|| ApiError::no_such_route(uri.path()));
            refuse(&headers, uri.path(), error)
        })
        .layer(middleware::from_fn_with_state(api.clone(), wait_for_zxid))
        .layer(middleware::from_fn_with_state(api.clone(), recovery::reject_on_another_tree))
        .layer(middleware::from_fn_with_state(api.clone(), access::check))
        // Not below the check of rights: a method that is not served is 405 whatever the role.
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::map_response_with_state(api.clone(), add_term_and_process))
        .layer(middleware::from_fn_with_state(api.clone(), time_request))
        .layer(middleware::from_fn_with_state(api.clone(), storm::allow_origin))
        .layer(middleware::from_fn_with_state((Arc::clone(&names), api.clone()), reject_foreign))
        .with_state(api)
        .merge(web_page::routes(names));
    // Around the whole router, so that it comes before the choice of a route.
    Router::new().fallback_service(router).layer(middleware::map_request(without_last_slash))
}

/// Takes the last slash from a path, as Storm's and Flink's servers do. Those of the web page have their
/// slashes.
async fn without_last_slash(mut request: Request) -> Request {
    let (uri, path) = (request.uri(), request.uri().path());
    let short = path.trim_end_matches('/');
    if short.len() == path.len() || short.is_empty() || path.starts_with("/ui/") {
        return request;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(short.to_owned() + &query).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// All routes with their descriptions.
fn described() -> Routes<Api> {
    Routes::new()
        .serve(get("/live", "Whether the process runs"), async || StatusCode::OK)
        .serve(get("/ready", "Whether this nimbus knows the cluster").may_fail(&READY), reads::ready)
        .serve(
            get("/metrics", "Page for Prometheus").answers_content(Content::Other(prometheus::MEDIA_TYPES)),
            prometheus::metrics,
        )
        .serve(describe::document_operation(), async || openapi::response(describe::document_text()))
        .nest(PREFIX, own::routes())
        .nest(OLD_PREFIX, storm_routes())
        .merge(flink::routes())
}

/// Routes below Storm's prefix, which was that of the own API before: those of Storm, and those of the
/// own API for builds before its prefix.
fn storm_routes() -> Routes<Api> {
    storm::either::routes().merge(storm::routes()).merge_again(own::routes_apart_from_storm())
}

/// Returns the OpenAPI document of a nimbus.
pub fn openapi_document() -> serde_json::Value {
    describe::document(described().into_parts().1)
}

/// Errors of a nimbus that should not be asked now.
const READY: [Code; 2] = [Code::AnotherTree, Code::TreeUnavailable];

/// Answers a method that a path does not serve, whatever the role of the sender.
async fn wrong_method(State(api): State<Api>, mut request: Request) -> Response {
    access::take_cookie(&mut request);
    if let Err(refused) = access::check_known(&api, &request) {
        return *refused;
    }
    let (method, path) = (request.method(), request.uri().path());
    if flink::is_flink_path(path) {
        return flink::wrong_method(path);
    }
    let error = storm::absent(path).unwrap_or_else(|| ApiError::wrong_method(method, path));
    refuse(request.headers(), path, error)
}

/// Returns an error in the form of the API to which the request was sent.
fn refuse(headers: &HeaderMap, path: &str, error: ApiError) -> Response {
    if storm::is_storm_path(path) && !storm::is_for_own_api(headers) {
        storm::StormError::from(error).into_response()
    } else if flink::is_flink_path(path) {
        flink::refusal(error)
    } else {
        error.into_response()
    }
}

/// Answers requests that a web page of somebody else may have caused with an error.
async fn reject_foreign(
    State((names, api)): State<(Arc<OwnNames>, Api)>,
    request: Request,
    next: Next,
) -> Response {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let checked = match storm::is_open(&api.nimbus.options().storm_api, method, uri, headers) {
        true => origin::check_host(&names, uri, headers),
        false => origin::check(&names, method, uri, headers),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => {
            tracing::debug!(?error, %method, path = uri.path(), "rejected a request");
            api.nimbus.gate().refusals().record(RefusalKind::Foreign);
            api.nimbus.count_refused_request();
            refuse(headers, uri.path(), error.into())
        }
    }
}

/// Measures the time from the head of a request to the head of its response.
async fn time_request(State(api): State<Api>, request: Request, next: Next) -> Response {
    let _stopwatch = api.nimbus.time_request();
    next.run(request).await
}

/// Lets a read wait until the view contains what the client has written or seen before, and names
/// the transaction up to which the view contains changes in every response.
async fn wait_for_zxid(State(api): State<Api>, request: Request, next: Next) -> Response {
    let is_read = request.method() == Method::GET;
    let tree = api.nimbus.tree_id();
    let seen = |headers: &HeaderMap| tree.as_ref().and_then(|tree| Seen::of_headers(headers).of(tree));
    let missing = seen(request.headers()).filter(|wanted| is_read && *wanted > api.nimbus.zxid());
    let behind = match missing {
        Some(zxid) => api.nimbus.wait_for(zxid).await,
        None => None,
    };
    let before = api.nimbus.zxid();
    let age = api.nimbus.observation().ok().map(|observation| api.nimbus.view_age(&observation));
    let old = age.filter(|age| is_read && *age >= BEHIND_MIN);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Some(age) = old.or(behind) {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        headers.insert(HeaderName::from_static(BEHIND), age_ms.into());
    }
    let zxid = match is_read {
        // The response may have been made from the view at any time since.
        true => before,
        // The leader has named the transaction, or this leader's view contains it now.
        false => seen(headers).unwrap_or_default().max(api.nimbus.zxid()),
    };
    headers.remove(ZXID);
    let named = tree.map(|tree| Change { tree, zxid }.to_string());
    // An id that an operator has written may not fit a header.
    if let Some(value) = named.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(HeaderName::from_static(ZXID), value);
    }
    response
}

/// Adds the term that this nimbus knows, its time, its process and its prefix to every response, as
/// headers.
async fn add_term_and_process(State(api): State<Api>, mut response: Response) -> Response {
    if let Some(term) = api.nimbus.term() {
        response.headers_mut().insert(HeaderName::from_static(TERM), term.0.into());
    }
    response.headers_mut().insert(HeaderName::from_static(HEADER), HeaderValue::from_static(PREFIX));
    let now_ms = api.nimbus.clock().now().as_millis();
    response.headers_mut().insert(HeaderName::from_static(TIME), now_ms.into());
    if let Ok(process) = HeaderValue::try_from(api.nimbus.process().to_string()) {
        response.headers_mut().insert(HeaderName::from_static(PROCESS), process);
    }
    if let Some(tree) = api.nimbus.tree_id().and_then(|tree| HeaderValue::try_from(tree.0).ok()) {
        response.headers_mut().insert(HeaderName::from_static(TREE), tree);
    }
    response
}
