//! Pages about one topology.

use std::time::Duration;

use axum::extract::State;

use super::{
    answer::{Answer, StormError, reply},
    loaded::Loaded,
    params::{Params, PathOf},
};
use crate::api::{Api, error::ApiError};
use stormkeeper_api_types::message::Code;
use stormkeeper_coordination::cluster::layout;
use stormkeeper_model::{ComponentId, TaskId, TopologyId, error::TaskError, id::quoted, task_set::TaskSet};

/// Maximum number of tasks of a component whose errors are read; each task has at most ten.
const TASKS_WITH_ERRORS_MAX: usize = 200;

/// Time for the errors of a component.
const ERRORS_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn page(api: &Api, text: &str, params: &Params) -> Answer {
    let loaded = Loaded::of(api, text, params).await?;
    let values = loaded.values(api, loaded.page().wanted()).await;
    reply(api, params, &loaded.page().page(&values))
}

/// Returns the numbers of a topology by stream.
pub(super) async fn metrics(api: &Api, text: &str, params: &Params) -> Answer {
    let loaded = Loaded::of(api, text, params).await?;
    let values = loaded.values(api, loaded.page().wanted_by_stream()).await;
    reply(api, params, &loaded.page().metrics(&values))
}

pub(super) async fn workers(State(api): State<Api>, PathOf(text): PathOf<String>, params: Params) -> Answer {
    let loaded = Loaded::of(&api, &text, &params).await?;
    reply(&api, &params, &loaded.page().cluster.topology_workers(loaded.id()))
}

pub(super) async fn component(
    State(api): State<Api>,
    PathOf((text, component)): PathOf<(String, String)>,
    params: Params,
) -> Answer {
    let loaded = Loaded::of(&api, &text, &params).await?;
    let page = loaded.page();
    let id = component.parse::<ComponentId>().ok();
    let known = id.as_ref().and_then(|id| Some((id, page.tasks_of(id)?)));
    let Some((id, tasks)) = known else {
        let message = format!("{} has no component {}", loaded.id(), quoted(&component));
        return Err(StormError::from(ApiError::new(Code::UnknownTopology, message, None)));
    };
    let errors = tokio::time::timeout(ERRORS_TIMEOUT, errors(&api, loaded.id(), tasks)).await;
    let values = loaded.values(&api, page.wanted_of_component(id)).await;
    reply(&api, &params, &page.component(id, errors.unwrap_or_default(), &values))
}

/// Reads the errors of tasks, as far as they can be read.
async fn errors(api: &Api, topology: &TopologyId, tasks: &TaskSet) -> Vec<TaskError> {
    let store = api.nimbus.store();
    let names = store.tree().children(&layout::taskerrors(topology)).await.ok().flatten().unwrap_or_default();
    let failed = names.iter().filter_map(|name| name.parse::<TaskId>().ok());
    let mut errors = Vec::new();
    for task in failed.filter(|task| tasks.contains(*task)).take(TASKS_WITH_ERRORS_MAX) {
        errors.extend(store.errors(topology, task).await.unwrap_or_default());
    }
    errors
}

pub(super) async fn lag(State(api): State<Api>, PathOf(text): PathOf<String>, params: Params) -> Answer {
    let loaded = Loaded::of(&api, &text, &params).await?;
    reply(&api, &params, &loaded.page().lag())
}

pub(super) async fn log_config(
    State(api): State<Api>,
    PathOf(text): PathOf<String>,
    params: Params,
) -> Answer {
    let loaded = Loaded::of(&api, &text, &params).await?;
    reply(&api, &params, &loaded.page().log_config())
}

pub(super) async fn visualization(
    State(api): State<Api>,
    PathOf(text): PathOf<String>,
    params: Params,
) -> Answer {
    let loaded = Loaded::of(&api, &text, &params).await?;
    let values = loaded.values(&api, loaded.page().wanted_of_graph()).await;
    reply(&api, &params, &loaded.page().visualization(&values))
}

pub(super) async fn visualization_init(
    State(api): State<Api>,
    PathOf(text): PathOf<String>,
    params: Params,
) -> Answer {
    let loaded = Loaded::of(&api, &text, &params).await?;
    reply(&api, &params, &loaded.page().visualization_init())
}
