//! Storm's UI REST API v1: `docs/storm-api.md` has every path and the deliberate differences.
//!
//! The bodies are made in `stormkeeper_storm_api`; these files read what they are made of: the cluster
//! view, the heartbeats and errors of one topology, and sums of the metric store. `either.rs` has the
//! paths that builds before the prefix of the own API use for their own.

mod answer;
mod cluster;
mod cors;
pub(super) mod either;
mod loaded;
mod params;
mod submit;
mod topology;
mod totals;
mod writes;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};

use super::Api;
pub(super) use answer::StormError;
pub(super) use cors::{allow_origin, is_open, is_storm_path};
pub(super) use params::is_for_own_api;
pub(super) use submit::SUBMITS_MAX;
pub(super) use totals::TotalsOfView;

/// Path at which a topology is submitted in parts.
pub(super) const SUBMIT: &str = "/api/v1/topology";

/// Returns the routes, below `/api/v1`, that the own API of earlier builds does not have.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/cluster/configuration", get(cluster::configuration))
        .route("/supervisor", get(cluster::supervisor))
        .route("/owner-resources", get(cluster::owners))
        .route("/owner-resources/{owner}", get(cluster::owner))
        .route("/history/summary", get(cluster::history))
        .route("/topology", post(submit::submit).layer(DefaultBodyLimit::disable()))
        .route("/topology-workers/{topology}", get(topology::workers))
        .route("/topology/{topology}/component/{component}", get(topology::component))
        .route("/topology/{topology}/lag", get(topology::lag))
        .route("/topology/{topology}/logconfig", get(topology::log_config))
        .route("/topology/{topology}/visualization", get(topology::visualization))
        .route("/topology/{topology}/visualization-init", get(topology::visualization_init))
        .route("/topology/{topology}/rebalance/{wait}", post(writes::rebalance))
        .route("/topology/{topology}/kill/{wait}", post(writes::kill))
}
