//! Paths below `/api/v1` that Storm's API and, in builds before its prefix, the own API have both. A
//! request of a command or a daemon of this project is for the own API. Deleted in the release after.

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use super::{
    cluster,
    params::{IsOwn, Params, PathOf},
    topology, writes,
};
use crate::api::{Api, error::PathPart, metrics, reads, writes as own_writes};

/// Returns the routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/cluster/summary", get(cluster_summary))
        .route("/nimbus/summary", get(nimbuses))
        .route("/supervisor/summary", get(supervisors))
        .route("/topology/summary", get(topologies))
        .route("/topology/{topology}", get(one_topology))
        .route("/topology/{topology}/metrics", get(topology_metrics).post(own_writes::metrics))
        .route("/topology/{topology}/activate", post(activate))
        .route("/topology/{topology}/deactivate", post(deactivate))
}

async fn cluster_summary(IsOwn(own): IsOwn, State(api): State<Api>, params: Params) -> Response {
    match own {
        true => reads::cluster(State(api)).await.into_response(),
        false => cluster::summary(&api, &params).await.into_response(),
    }
}

async fn nimbuses(IsOwn(own): IsOwn, State(api): State<Api>, params: Params) -> Response {
    match own {
        true => reads::nimbuses(State(api)).await.into_response(),
        false => cluster::nimbuses(&api, &params).await.into_response(),
    }
}

async fn supervisors(IsOwn(own): IsOwn, State(api): State<Api>, params: Params) -> Response {
    match own {
        true => reads::supervisors(State(api)).await.into_response(),
        false => cluster::supervisors(&api, &params).await.into_response(),
    }
}

async fn topologies(IsOwn(own): IsOwn, State(api): State<Api>, params: Params) -> Response {
    match own {
        true => reads::topologies(State(api)).await.into_response(),
        false => cluster::topologies(&api, &params).await.into_response(),
    }
}

async fn one_topology(
    IsOwn(own): IsOwn,
    State(api): State<Api>,
    PathOf(text): PathOf<String>,
    params: Params,
) -> Response {
    match own {
        true => reads::topology(State(api), PathPart(text)).await.into_response(),
        false => topology::page(&api, &text, &params).await.into_response(),
    }
}

async fn topology_metrics(
    IsOwn(own): IsOwn,
    State(api): State<Api>,
    PathOf(text): PathOf<String>,
    params: Params,
) -> Response {
    match own {
        true => metrics::control(State(api), PathPart(text)).await.into_response(),
        false => topology::metrics(&api, &text, &params).await.into_response(),
    }
}

async fn activate(
    IsOwn(own): IsOwn,
    State(api): State<Api>,
    PathOf(text): PathOf<String>,
    request: Request,
) -> Response {
    match own {
        true => own_writes::activate(State(api), PathPart(text), request).await.into_response(),
        false => writes::activate(&api, &text, request).await.into_response(),
    }
}

async fn deactivate(
    IsOwn(own): IsOwn,
    State(api): State<Api>,
    PathOf(text): PathOf<String>,
    request: Request,
) -> Response {
    match own {
        true => own_writes::deactivate(State(api), PathPart(text), request).await.into_response(),
        false => writes::deactivate(&api, &text, request).await.into_response(),
    }
}
