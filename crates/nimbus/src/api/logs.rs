//! Logs of workers: asks the agents of the supervisors that run a topology.
//!
//! Only agents in the view are asked, at the address that their supervisors announce, each within a
//! time limit. A supervisor that cannot be asked or does not answer is named, and the rest is shown.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::request::Parts,
};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;

use super::{
    Api, caller,
    error::{ApiError, PathPart},
    metrics::params::ValidQuery,
};
use crate::change::find;
use stormkeeper_api_types::{
    agent_client::AgentError,
    message::{
        Code,
        logs::{AgentLogs, LogChunk, LogLines, TopologyLogLines, TopologyLogs, UnavailableAgent},
    },
};
use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::{SupervisorId, TopologyId, address::HostAndPort};

/// Maximum number of agents that are asked at the same time for one request.
const ASKED_AT_ONCE: usize = 32;

/// Limit for a list of logs.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit for a search, which an agent ends after ten seconds.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Limit for a part of a log.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

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

/// A supervisor whose logs are wanted.
#[derive(Debug, Clone)]
struct Asked {
    supervisor: SupervisorId,
    host: String,
    /// Address of its agent, or the reason why there is none.
    agent: Result<String, String>,
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
    let (mut supervisors, unavailable) = ask_all(asked, ask).await;
    supervisors.sort_by(|a: &AgentLogs, b| (&a.host, &a.supervisor).cmp(&(&b.host, &b.supervisor)));
    Ok(Json(TopologyLogs { id, present, supervisors, unavailable }))
}

pub(super) async fn search(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    ValidQuery(query): ValidQuery<SearchQuery>,
    parts: Parts,
) -> Result<Json<TopologyLogLines>, ApiError> {
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
    let (mut supervisors, unavailable) = ask_all(asked, ask).await;
    supervisors.sort_by(|a: &LogLines, b| (&a.host, &a.supervisor).cmp(&(&b.host, &b.supervisor)));
    Ok(Json(TopologyLogLines { id, supervisors, unavailable }))
}

pub(super) async fn chunk(
    State(api): State<Api>,
    path: Result<Path<(String, String, String, String)>, PathRejection>,
    ValidQuery(query): ValidQuery<ChunkQuery>,
) -> Result<Json<LogChunk>, ApiError> {
    let Path((topology, supervisor, port, file)) =
        path.map_err(|rejection| ApiError::new(Code::InvalidRequest, rejection.body_text(), None))?;
    let view = api.nimbus.observation()?.view;
    let id = found(&view, &topology)?;
    let known: Option<SupervisorId> =
        supervisor.parse().ok().filter(|supervisor| view.supervisors.contains_key(supervisor));
    let Some(supervisor) = known else {
        let message = format!("no supervisor {} is registered", stormkeeper_model::id::quoted(&supervisor));
        return Err(ApiError::new(
            Code::UnknownHost,
            message,
            Some("`stormkeeper cluster` lists the supervisors"),
        ));
    };
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
    let route = ["logs", id.as_str(), &port, &file];
    match api.agents.get((&supervisor, &agent), &route, &parameters, CHUNK_TIMEOUT).await {
        Ok(chunk) => Ok(Json(chunk)),
        Err(AgentError::Rejected(body)) => Err(ApiError::from(body)),
        Err(error) => Err(unavailable(&asked.host, &error.to_string())),
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

fn asked_of(view: &ClusterView, supervisor: &SupervisorId) -> Asked {
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

/// Asks all agents, some at a time. Returns the answers, and the supervisors without one.
async fn ask_all<T, F>(
    asked: Vec<Asked>,
    ask: impl Fn(SupervisorId, String) -> F,
) -> (Vec<T>, Vec<UnavailableAgent>)
where
    F: Future<Output = Result<T, AgentError>>,
{
    let answers = stream::iter(asked).map(|Asked { supervisor, host, agent }| {
        let request = agent.map(|agent| ask(supervisor.clone(), agent));
        async move {
            let answer = match request {
                Ok(request) => request.await.map_err(|error| error.to_string()),
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
