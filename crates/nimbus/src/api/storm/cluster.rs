//! Pages about the cluster as a whole.

use axum::extract::State;

use super::{
    answer::{Answer, StormError, reply},
    loaded::LoadedCluster,
    params::{Params, PathOf},
};
use crate::api::{Api, error::ApiError};
use stormkeeper_api_types::message::Code;
use stormkeeper_storm_api::Cluster;

/// Maximum number of topologies in the history.
const HISTORY_MAX: usize = 1000;

pub(super) async fn configuration(State(api): State<Api>, params: Params) -> Answer {
    reply(&api, &params, &api.nimbus.options().storm_api.configuration)
}

pub(super) async fn summary(api: &Api, params: &Params) -> Answer {
    reply(api, params, &LoadedCluster::of(api)?.cluster().summary())
}

pub(super) async fn nimbuses(api: &Api, params: &Params) -> Answer {
    reply(api, params, &LoadedCluster::of(api)?.cluster().nimbuses())
}

pub(super) async fn supervisors(api: &Api, params: &Params) -> Answer {
    reply(api, params, &LoadedCluster::of(api)?.cluster().supervisors())
}

pub(super) async fn topologies(api: &Api, params: &Params) -> Answer {
    reply(api, params, &LoadedCluster::of(api)?.cluster().topologies())
}

pub(super) async fn supervisor(State(api): State<Api>, params: Params) -> Answer {
    let (id, host) = (params.get("id"), params.get("host"));
    if id.is_none() && host.is_none() {
        let hint = Some("give id=, the id of a supervisor, or host=");
        return Err(
            ApiError::new(Code::InvalidRequest, "the query does not say which supervisor", hint).into()
        );
    }
    let loaded = LoadedCluster::of(&api)?;
    let unknown = || {
        let wanted = id.or(host).unwrap_or_default();
        let hint = Some("GET /api/v1/supervisor/summary lists the supervisors");
        let message = format!("there is no supervisor {}", stormkeeper_model::id::quoted(wanted));
        StormError::from(ApiError::new(Code::UnknownHost, message, hint))
    };
    let page = loaded.cluster().supervisor(id, host).ok_or_else(unknown)?;
    reply(&api, &params, &page)
}

pub(super) async fn owners(State(api): State<Api>, params: Params) -> Answer {
    reply(&api, &params, &LoadedCluster::of(&api)?.cluster().owners())
}

pub(super) async fn owner(State(api): State<Api>, PathOf(owner): PathOf<String>, params: Params) -> Answer {
    reply(&api, &params, &LoadedCluster::of(&api)?.cluster().owner(&owner))
}

/// Returns the ids of the topologies in the history: the latest [`HISTORY_MAX`].
pub(super) async fn history(State(api): State<Api>, params: Params) -> Answer {
    let store = api.nimbus.metrics()?;
    let entries = store.history(None, HISTORY_MAX).await.map_err(crate::api::metrics::store_error)?;
    let topologies = entries.into_iter().map(|entry| entry.topology).collect();
    reply(&api, &params, &Cluster::history(topologies))
}
