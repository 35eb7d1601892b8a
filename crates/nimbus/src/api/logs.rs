//! Logs of workers: asks the agents of the supervisors that run a topology.
//!
//! A file is passed on as it arrives, so that its size does not matter.
//!
//! Only agents in the view are asked, at the address that their supervisors announce, each within a
//! time limit. A supervisor that cannot be asked or does not answer is named, and the rest is shown.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;

use super::{
    Api,
    access::is_samples_file,
    caller,
    error::{ApiError, PathPart},
};
use crate::change::find;
use stormkeeper_api_types::{
    agent_client::{AgentError, AgentFile, FileRequest},
    log_lines::{InvalidSearch, LineFilter, number_of_lines},
    message::{
        Code, ErrorBody,
        logs::{AgentLogs, LogChunk, LogFile, LogLines, TopologyLogLines, TopologyLogs, UnavailableAgent},
    },
};
use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::{Port, SupervisorId, TopologyId, address::HostAndPort};
use stormkeeper_serving::query::{ValidQuery, invalid_parameter};

/// Maximum number of agents that are asked at the same time for one request.
const ASKED_AT_ONCE: usize = 32;

/// Limit for a list of logs.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit for a search, which an agent ends after ten seconds.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Limit for a part of a log.
pub(super) const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of files that are passed on at the same time; further ones are refused.
pub(super) const DOWNLOADS_MAX: usize = 32;

/// Parameters of the list of logs.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// True to ask all supervisors, and not only those to which the topology is assigned.
    #[serde(default)]
    all: bool,
}

/// Parameters of a search.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchQuery {
    /// Text that the lines contain.
    text: Option<String>,
    /// Component that the lines name.
    component: Option<String>,
    /// Host of a supervisor, or its id.
    host: Option<String>,
    /// Port of a slot.
    port: Option<u16>,
    /// Number of last lines of each launch.
    last: Option<usize>,
    /// True to search all launches, on all supervisors.
    #[serde(default)]
    past: bool,
}

/// Parameters of a part of a log.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChunkQuery {
    /// Launch of the worker; the newest if absent.
    worker: Option<String>,
    /// Number of bytes before the part.
    offset: Option<u64>,
    /// Identity of the file, from the response before.
    identity: Option<String>,
    /// Maximum number of bytes.
    length: Option<u64>,
}

/// Parameters of a file.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileQuery {
    worker: Option<String>,
}

/// Log of a worker.
#[derive(Debug)]
pub(super) struct LogOfWorker<'a> {
    pub(super) topology: &'a TopologyId,
    pub(super) supervisor: &'a SupervisorId,
    pub(super) port: &'a str,
    pub(super) file: &'a str,
    /// The launch; the newest of the port if absent.
    pub(super) worker: Option<String>,
}

/// A supervisor whose agent is asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    supervisor: SupervisorId,
    host: String,
    /// Address of its agent, or the reason why there is none.
    pub(super) agent: Result<String, String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    ValidQuery(query): ValidQuery<ListQuery>,
) -> Result<Json<TopologyLogs>, ApiError> {
    let view = api.nimbus.observation()?.view;
    let (id, asked) = asked(&view, &topology, query.all)?;
    let present = view.topologies.contains_key(&id);
    let (client, route) = (Arc::new(api.agents.clone()), id.clone());
    let ask = move |supervisor: SupervisorId, agent: String| {
        let (client, id) = (Arc::clone(&client), route.clone());
        async move { client.get((&supervisor, &agent), &["logs", id.as_str()], &[], LIST_TIMEOUT).await }
    };
    let nothing = |supervisor, host| AgentLogs { supervisor, host, workers: Vec::new(), omitted: 0 };
    let (mut supervisors, unavailable) = ask_all(asked, ask, nothing).await;
    supervisors.sort_by(|a: &AgentLogs, b| (&a.host, &a.supervisor).cmp(&(&b.host, &b.supervisor)));
    Ok(Json(TopologyLogs { id, present, supervisors, unavailable }))
}

pub(super) async fn search(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    ValidQuery(query): ValidQuery<SearchQuery>,
    parts: Parts,
) -> Result<Json<TopologyLogLines>, ApiError> {
    check_search(&query)?;
    let (id, mut asked) = asked(&api.nimbus.observation()?.view, &topology, query.past)?;
    if let Some(host) = &query.host {
        asked.retain(|asked| asked.host == *host || asked.supervisor.as_str() == host);
        if asked.is_empty() {
            let message = format!("{id} has no worker on {}", stormkeeper_model::id::quoted(host));
            let hint = "`stormkeeper show` lists its workers; `--past` includes hosts that it has left";
            return Err(ApiError::new(Code::UnknownHost, message, Some(hint)));
        }
    }
    let parameters: Vec<(&str, String)> = [
        ("text", query.text),
        ("component", query.component),
        ("port", query.port.map(|port| port.to_string())),
        ("last", query.last.map(|last| last.to_string())),
        ("past", query.past.then(|| "true".to_owned())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let client = Arc::new(api.agents.clone().for_client(caller::address(&parts)));
    let route = id.clone();
    let ask = move |supervisor: SupervisorId, agent: String| {
        let (client, id, parameters) = (Arc::clone(&client), route.clone(), parameters.clone());
        async move {
            let route = ["logs", id.as_str(), "search"];
            client.get((&supervisor, &agent), &route, &parameters, SEARCH_TIMEOUT).await
        }
    };
    let nothing = |supervisor, host| LogLines { supervisor, host, workers: Vec::new(), incomplete: None };
    let (mut supervisors, unavailable) = ask_all(asked, ask, nothing).await;
    supervisors.sort_by(|a: &LogLines, b| (&a.host, &a.supervisor).cmp(&(&b.host, &b.supervisor)));
    Ok(Json(TopologyLogLines { id, supervisors, unavailable }))
}

/// Checks the parameters that only agents use: a mistake of the client is no failure of every agent.
fn check_search(query: &SearchQuery) -> Result<(), ApiError> {
    let checked = LineFilter::parse(query.text.clone(), query.component.as_deref());
    let checked = checked.and_then(|_filter| number_of_lines(query.last, 0));
    let invalid = |InvalidSearch { parameter, value, reason }| invalid_parameter(parameter, &value, &reason);
    checked.map(|_n| ()).map_err(|error| invalid(error).into())
}

pub(super) async fn chunk(
    State(api): State<Api>,
    path: FilePath,
    ValidQuery(query): ValidQuery<ChunkQuery>,
) -> Result<Json<LogChunk>, ApiError> {
    let Path((topology, supervisor, port, file)) = path.map_err(|rejection| bad_path(&rejection))?;
    let view = api.nimbus.observation()?.view;
    let id = found(&view, &topology)?;
    let supervisor = registered(&view, &supervisor)?;
    let asked = asked_of(&view, &supervisor);
    let agent = asked.agent.map_err(|reason| unavailable(&asked.host, &reason))?;
    let parameters: Vec<(&str, String)> = [
        ("worker", query.worker),
        ("offset", query.offset.map(|offset| offset.to_string())),
        ("identity", query.identity),
        ("length", query.length.map(|length| length.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    check_parts(&port, &file)?;
    let route = ["logs", id.as_str(), &port, &file];
    let chunk = api.agents.get((&supervisor, &agent), &route, &parameters, CHUNK_TIMEOUT).await;
    chunk.map(Json).map_err(|error| of_agent(&asked.host, error))
}

/// Path of a log file: topology, supervisor, port and name.
type FilePath = Result<Path<(String, String, String, String)>, PathRejection>;

fn bad_path(rejection: &PathRejection) -> ApiError {
    ApiError::new(Code::InvalidRequest, rejection.body_text(), None)
}

pub(super) async fn download(
    State(api): State<Api>,
    path: FilePath,
    ValidQuery(FileQuery { worker }): ValidQuery<FileQuery>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path((topology, supervisor, port, file)) = path.map_err(|rejection| bad_path(&rejection))?;
    let view = api.nimbus.observation()?.view;
    let topology = found(&view, &topology)?;
    let supervisor = registered(&view, &supervisor)?;
    let log = LogOfWorker { topology: &topology, supervisor: &supervisor, port: &port, file: &file, worker };
    let disposition = disposition(&topology, &supervisor, &port, &file);
    // Without a version of the file, a range that depends on one is the whole file.
    let range = headers.get(header::RANGE).filter(|_| !headers.contains_key(header::IF_RANGE)).cloned();
    let asked = FileRequest { method, range, limit: CHUNK_TIMEOUT };
    let mut response = log_file(&api, &view, log, asked).await?;
    if response.status().is_success() {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// Returns the header with a name for a downloaded file, of characters that no header has to escape.
fn disposition(topology: &TopologyId, supervisor: &SupervisorId, port: &str, file: &str) -> HeaderValue {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
    let name: String = format!("{topology}-{supervisor}-{port}-{file}").chars().map(plain).collect();
    let header = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
    header.unwrap_or(HeaderValue::from_static("attachment"))
}

/// Returns a log file or a part of it, as its agent sends it.
pub(super) async fn log_file(
    api: &Api,
    view: &ClusterView,
    log: LogOfWorker<'_>,
    request: FileRequest,
) -> Result<Response, ApiError> {
    let busy = |_| {
        let message = format!("{DOWNLOADS_MAX} other logs are being downloaded");
        ApiError::new(Code::NotReady, message, Some("try again later, or ask another nimbus"))
    };
    let permit = Arc::clone(&api.downloads).try_acquire_owned().map_err(busy)?;
    let LogOfWorker { topology, supervisor, port, file, worker } = log;
    check_parts(port, file)?;
    // By whatever path it is asked for: only the own API checks who may read samples, and reads them in
    // parts.
    if is_samples_file(file) {
        let hint = Some("`stormkeeper sample` prints the tuples");
        return Err(ApiError::new(Code::UnknownLog, "samples of tuples are not downloaded as files", hint));
    }
    let asked = asked_of(view, supervisor);
    let agent = asked.agent.map_err(|reason| unavailable(&asked.host, &reason))?;
    let route = ["logs", topology.as_str(), port, file, "download"];
    let parameters: Vec<(&str, String)> = worker.into_iter().map(|worker| ("worker", worker)).collect();
    let answer = api.agents.file((supervisor, &agent), &route, &parameters, request).await;
    let AgentFile { status, headers, bytes } = answer.map_err(|error| of_agent(&asked.host, error))?;
    let body = Body::from_stream(bytes.inspect(move |_| {
        // Held until the last byte, or until the client goes away.
        let _held = &permit;
    }));
    Ok((status, headers, body).into_response())
}

/// Returns the log files of the newest launch of a topology at a port.
pub(super) async fn files_of(
    api: &Api,
    view: &ClusterView,
    (topology, supervisor, port): (&TopologyId, &SupervisorId, Port),
) -> Result<Vec<LogFile>, ApiError> {
    let asked = asked_of(view, supervisor);
    let agent = asked.agent.map_err(|reason| unavailable(&asked.host, &reason))?;
    let listed = api.agents.get((supervisor, &agent), &["logs", topology.as_str()], &[], LIST_TIMEOUT).await;
    let workers = match listed {
        Ok(AgentLogs { workers, .. }) => workers,
        Err(error) if has_nothing(&error) => Vec::new(),
        Err(error) => return Err(of_agent(&asked.host, error)),
    };
    let newest = workers.into_iter().find(|launch| launch.port == port);
    Ok(newest.map(|launch| launch.files).unwrap_or_default())
}

/// Checks that parts of a path stay parts: what an agent is asked must not become another path.
fn check_parts(port: &str, file: &str) -> Result<(), ApiError> {
    match ![port, file].iter().any(|part| ["", ".", ".."].contains(part)) {
        true => Ok(()),
        false => Err(ApiError::new(Code::UnknownLog, "this is no name of a log file", None)),
    }
}

/// Returns a supervisor that is registered.
fn registered(view: &ClusterView, supervisor: &str) -> Result<SupervisorId, ApiError> {
    let known = supervisor.parse().ok().filter(|supervisor| view.supervisors.contains_key(supervisor));
    known.ok_or_else(|| {
        let message = format!("no supervisor {} is registered", stormkeeper_model::id::quoted(supervisor));
        ApiError::new(Code::UnknownHost, message, Some("`stormkeeper cluster` lists the supervisors"))
    })
}

fn of_agent(host: &str, error: AgentError) -> ApiError {
    match error {
        AgentError::Rejected(body) => ApiError::from(body),
        error => unavailable(host, &error.to_string()),
    }
}

fn unavailable(host: &str, reason: &str) -> ApiError {
    ApiError::new(Code::AgentUnavailable, format!("the logs on {host} cannot be read: {reason}"), None)
}

/// Finds a topology by id or name. A topology that was removed is found by its id.
fn found(view: &ClusterView, topology: &str) -> Result<TopologyId, ApiError> {
    let removed =
        || topology.parse().ok().filter(|id: &TopologyId| TopologyId::name_in(id.as_str()) != id.as_str());
    match find(view, topology) {
        Ok(id) => Ok(id),
        Err(refusal) => removed().ok_or_else(|| refusal.into()),
    }
}

/// Returns the supervisors to which a topology is assigned; all supervisors if `all`, or if it is not
/// assigned, as one that was removed.
fn asked(view: &ClusterView, topology: &str, all: bool) -> Result<(TopologyId, Vec<Asked>), ApiError> {
    let id = found(view, topology)?;
    let assignment = view.assignments.get(&id);
    let mut supervisors: BTreeMap<&SupervisorId, Asked> = BTreeMap::new();
    for (slot, worker) in assignment.iter().flat_map(|assignment| &assignment.value.workers) {
        let mut asked = asked_of(view, &slot.supervisor);
        if !view.supervisors.contains_key(&slot.supervisor) {
            asked.host.clone_from(&worker.host);
        }
        supervisors.insert(&slot.supervisor, asked);
    }
    if all || supervisors.is_empty() {
        supervisors
            .extend(view.supervisors.keys().map(|supervisor| (supervisor, asked_of(view, supervisor))));
    }
    Ok((id, supervisors.into_values().collect()))
}

pub(super) fn asked_of(view: &ClusterView, supervisor: &SupervisorId) -> Asked {
    let Some(record) = view.supervisors.get(supervisor) else {
        let reason =
            "the supervisor is not registered: it has stopped, or has lost its connection to ZooKeeper";
        let (supervisor, host) = (supervisor.clone(), supervisor.to_string());
        return Asked { supervisor, host, agent: Err(reason.to_owned()) };
    };
    let agent = match &record.agent {
        Some(agent) => match agent.parse::<HostAndPort>() {
            Ok(HostAndPort { port: Some(_), .. }) => Ok(agent.clone()),
            _ => Err(format!(
                "it announces the agent {}, which is no address",
                stormkeeper_model::id::quoted(agent)
            )),
        },
        None => {
            let version = &record.version;
            Err(format!(
                "it has no agent: it is of a build without one (its version is {version}), or the agent cannot listen, \
                 which `stormkeeper cluster` shows"
            ))
        }
    };
    Asked { supervisor: supervisor.clone(), host: record.host.clone(), agent }
}

/// Returns whether an agent has no such logs, which is no failure: the worker ran on another host, or has
/// not started yet.
fn has_nothing(error: &AgentError) -> bool {
    let AgentError::Rejected(ErrorBody { code, .. }) = error else { return false };
    matches!(code, Code::UnknownTopology | Code::UnknownLog)
}

/// Asks all agents, some at a time. Returns the answers, and the supervisors without one. `nothing` is the
/// answer of an agent that has no such logs.
async fn ask_all<T, F>(
    asked: Vec<Asked>,
    ask: impl Fn(SupervisorId, String) -> F,
    nothing: impl Fn(SupervisorId, String) -> T,
) -> (Vec<T>, Vec<UnavailableAgent>)
where
    F: Future<Output = Result<T, AgentError>>,
{
    let answers = stream::iter(asked).map(|Asked { supervisor, host, agent }| {
        let request = agent.map(|agent| ask(supervisor.clone(), agent));
        let nothing = &nothing;
        async move {
            let answer = match request {
                Ok(request) => match request.await {
                    Err(error) if has_nothing(&error) => Ok(nothing(supervisor.clone(), host.clone())),
                    answer => answer.map_err(|error| error.to_string()),
                },
                Err(reason) => Err(reason),
            };
            answer.map_err(|reason| UnavailableAgent { supervisor, host, reason })
        }
    });
    let answers: Vec<_> = answers.buffer_unordered(ASKED_AT_ONCE).collect().await;
    let (mut found, mut unavailable) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(answer) => found.push(answer),
            Err(without) => unavailable.push(without),
        }
    }
    unavailable.sort_by(|a, b| (&a.host, &a.supervisor).cmp(&(&b.host, &b.supervisor)));
    (found, unavailable)
}
