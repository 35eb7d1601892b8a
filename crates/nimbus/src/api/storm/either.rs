//! Paths below `/api/v1` that Storm's API and, in builds before its prefix, the own API have both. A
//! request of a command or a daemon of this project is for the own API. Deleted in the release after.

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::post,
};

use super::{
    change, cluster, page,
    params::{IsOwn, Params, PathOf},
    read, topology, writes,
};
use crate::api::{Api, error::PathPart, metrics, reads, writes as own_writes};
use stormkeeper_serving::openapi::Routes;
use stormkeeper_storm_api::schema;

/// Returns the routes, which are described as those of Storm's API.
pub(crate) fn routes() -> Routes<Api> {
    const METRICS: &str = "/topology/{topology}/metrics";
    Routes::new()
        .serve(read("/cluster/summary", "The cluster in numbers", schema::cluster_summary), cluster_summary)
        .serve(read("/nimbus/summary", "The nimbuses", schema::nimbuses), nimbuses)
        .serve(read("/supervisor/summary", "The supervisors", schema::supervisors), supervisors)
        .serve(read("/topology/summary", "All topologies in short", schema::topologies), topologies)
        .serve(page("/topology/{topology}", "A topology", schema::topology), one_topology)
        .serve(
            page(METRICS, "The numbers of a topology by stream", schema::topology_metrics),
            topology_metrics,
        )
        .serve(change("/topology/{topology}/activate", "Lets the spouts of a topology run"), activate)
        .serve(change("/topology/{topology}/deactivate", "Stops the spouts of a topology"), deactivate)
        // Of the own API only.
        .with_router(|router| router.route(METRICS, post(own_writes::metrics)))
}

/// Answers with the own API or with Storm's.
macro_rules! either {
    ($own:expr, $ours:expr, $storms:expr) => {
        match $own {
            true => $ours.await.into_response(),
            false => $storms.await.into_response(),
        }
    };
}

async fn cluster_summary(IsOwn(own): IsOwn, State(api): State<Api>, params: Params) -> Response {
    either!(own, reads::cluster(State(api)), cluster::summary(&api, &params))
}

async fn nimbuses(IsOwn(own): IsOwn, State(api): State<Api>, params: Params) -> Response {
    either!(own, reads::nimbuses(State(api)), cluster::nimbuses(&api, &params))
}

async fn supervisors(IsOwn(own): IsOwn, State(api): State<Api>, params: Params) -> Response {
    either!(own, reads::supervisors(State(api)), cluster::supervisors(&api, &params))
}

async fn topologies(IsOwn(own): IsOwn, State(api): State<Api>, params: Params) -> Response {
    either!(own, reads::topologies(State(api)), cluster::topologies(&api, &params))
}

async fn one_topology(
    IsOwn(own): IsOwn,
    State(api): State<Api>,
    PathOf(text): PathOf<String>,
    params: Params,
) -> Response {
    either!(own, reads::topology(State(api), PathPart(text)), topology::page(&api, &text, &params))
}

async fn topology_metrics(
    IsOwn(own): IsOwn,
    State(api): State<Api>,
    PathOf(text): PathOf<String>,
    params: Params,
) -> Response {
    either!(own, metrics::control(State(api), PathPart(text)), topology::metrics(&api, &text, &params))
}

async fn activate(
    IsOwn(own): IsOwn,
    State(api): State<Api>,
    PathOf(text): PathOf<String>,
    request: Request,
) -> Response {
    either!(
        own,
        own_writes::activate(State(api), PathPart(text), request),
        writes::activate(&api, &text, request)
    )
}

async fn deactivate(
    IsOwn(own): IsOwn,
    State(api): State<Api>,
    PathOf(text): PathOf<String>,
    request: Request,
) -> Response {
    either!(
        own,
        own_writes::deactivate(State(api), PathPart(text), request),
        writes::deactivate(&api, &text, request)
    )
}
