//! Read-only routes. Any nimbus answers them from its own view.

use axum::{Json, extract::State, http::StatusCode};

use super::{
    Api,
    error::{ApiError, PathPart},
    summary,
};
use crate::{change::find, quota, refusal::Refusal};
use stormkeeper_access::file::WatchedFile;
use stormkeeper_api_types::message::{
    ClusterSummary, ErrorSummary, EventList, LogLevels, NimbusList, OwnerList, SampleList, SupervisorList,
    TopologyDetail, TopologyErrors, TopologyList,
};
use stormkeeper_coordination::cluster::layout;
use stormkeeper_model::TaskId;
use stormkeeper_serving::query::ValidQuery;

/// Maximum number of tasks whose errors one response lists; each task has at most ten.
const TASKS_WITH_ERRORS_MAX: usize = 200;

pub(super) async fn ready(State(api): State<Api>) -> Result<StatusCode, ApiError> {
    // A nimbus that has lost ZooKeeper still answers reads, with the age of its view. Its ephemerals
    // and its leadership end with its session, so from then on others should be asked.
    let observation = api.nimbus.observation()?;
    let age = api.nimbus.view_age(&observation);
    match age > api.nimbus.options().session_timeout {
        true => Err(Refusal::Outdated { age }.into()),
        false => Ok(StatusCode::OK),
    }
}

pub(super) async fn cluster(State(api): State<Api>) -> Result<Json<ClusterSummary>, ApiError> {
    let observation = api.nimbus.observation()?;
    Ok(Json(summary::cluster(&api.nimbus, &observation, &api.totals.of(&observation.view))))
}

pub(super) async fn owners(State(api): State<Api>) -> Result<Json<OwnerList>, ApiError> {
    let observation = api.nimbus.observation()?;
    let quotas = api.nimbus.options().quotas.as_ref().map(WatchedFile::get);
    let view_age_ms = u64::try_from(api.nimbus.view_age(&observation).as_millis()).unwrap_or(u64::MAX);
    let blobs = api.nimbus.blobs();
    let uploads = api.uploads.unused(&observation.view, |key| blobs.holds(key));
    Ok(Json(OwnerList { owners: quota::owners(&observation.view, quotas.as_deref(), &uploads), view_age_ms }))
}

pub(super) async fn nimbuses(State(api): State<Api>) -> Result<Json<NimbusList>, ApiError> {
    Ok(Json(summary::nimbuses(&api.nimbus, &api.nimbus.observation()?)))
}

pub(super) async fn log_levels(
    State(api): State<Api>,
    PathPart(topology): PathPart,
) -> Result<Json<LogLevels>, ApiError> {
    let view = api.nimbus.observation()?.view;
    let record = view.topologies.get(&find(&view, &topology)?);
    let levels = record.and_then(|record| record.value.log_levels.clone()).unwrap_or_default();
    Ok(Json(levels.into()))
}

pub(super) async fn samples(
    State(api): State<Api>,
    PathPart(topology): PathPart,
) -> Result<Json<SampleList>, ApiError> {
    let view = api.nimbus.observation()?.view;
    let record = view.topologies.get(&find(&view, &topology)?);
    let samples = record.and_then(|record| record.value.tuple_samples.clone()).unwrap_or_default();
    Ok(Json(samples.into()))
}

/// Parameters of the list of events.
#[derive(Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventQuery {
    /// Maximum number of events; all that are kept if absent.
    limit: Option<usize>,
    /// Selects the events of this topology, by id or name.
    topology: Option<String>,
}

pub(super) async fn events(
    State(api): State<Api>,
    ValidQuery(EventQuery { limit, topology }): ValidQuery<EventQuery>,
) -> Result<Json<EventList>, ApiError> {
    let observation = api.nimbus.observation()?;
    Ok(Json(summary::events(&api.nimbus, &observation, topology.as_deref(), limit)?))
}

pub(super) async fn supervisors(State(api): State<Api>) -> Result<Json<SupervisorList>, ApiError> {
    Ok(Json(summary::supervisors(&api.nimbus, &api.nimbus.observation()?)))
}

pub(super) async fn topologies(State(api): State<Api>) -> Result<Json<TopologyList>, ApiError> {
    Ok(Json(summary::topologies(&api.nimbus, &api.nimbus.observation()?)))
}

pub(super) async fn topology(
    State(api): State<Api>,
    PathPart(topology): PathPart,
) -> Result<Json<TopologyDetail>, ApiError> {
    let observation = api.nimbus.observation()?;
    let id = find(&observation.view, &topology)?;
    let store = api.nimbus.store();
    // A component can write heartbeats of tasks that are not there.
    let tasks: Vec<TaskId> = match observation.view.tasks.get(&id) {
        Some(tasks) => tasks.value.components.iter().map(|(_, task)| task).collect(),
        None => Vec::new(),
    };
    let (heartbeats, last_errors) = (store.heartbeats_of(&id, &tasks).await?, store.last_errors(&id).await?);
    // A blob that is missing here, or unreadable, leaves the kinds of components open.
    let blob = observation.view.topologies.get(&id).map(|topology_record| &topology_record.value.blob);
    let code = match blob {
        Some(blob) => api.nimbus.blobs().topology(blob).await.ok().flatten(),
        None => None,
    };
    let detail = summary::Detail { id: &id, heartbeats: &heartbeats, last_errors, topology: code.as_deref() };
    let missing = || Refusal::UnknownTopology { topology: topology.clone() };
    Ok(Json(summary::topology(&api.nimbus, &observation, detail).ok_or_else(missing)?))
}

pub(super) async fn errors(
    State(api): State<Api>,
    PathPart(topology): PathPart,
) -> Result<Json<TopologyErrors>, ApiError> {
    let view = api.nimbus.observation()?.view;
    let id = find(&view, &topology)?;
    let unknown = || Refusal::UnknownTopology { topology: topology.clone() };
    let name = view
        .topologies
        .get(&id)
        .map(|topology_record| topology_record.value.name.clone())
        .ok_or_else(unknown)?;
    let store = api.nimbus.store();
    let last = store.last_errors(&id).await?.into_iter();
    let last = last.map(|(component, error)| (component, error.into())).collect();
    let names =
        store.tree().children(&layout::taskerrors(&id)).await.map_err(Refusal::Tree)?.unwrap_or_default();
    let mut tasks: Vec<TaskId> = names.iter().filter_map(|name| name.parse().ok()).collect();
    tasks.sort_unstable();
    let truncated = tasks.len() > TASKS_WITH_ERRORS_MAX;
    let mut errors: Vec<ErrorSummary> = Vec::new();
    for task in tasks.into_iter().take(TASKS_WITH_ERRORS_MAX) {
        errors.extend(store.errors(&id, task).await?.into_iter().map(ErrorSummary::from));
    }
    errors.sort_by_key(|error| std::cmp::Reverse(error.time));
    Ok(Json(TopologyErrors { id, name, last, errors, truncated }))
}
