//! Routes for recorded metrics. Any nimbus answers them from its own metric store, and every response
//! says how far that store is behind the leader's.
//!
//! | method, path below `/api/stormkeeper/v1/` | response |
//! | --- | --- |
//! | `GET metrics/topologies` | the topologies with metrics, including removed ones |
//! | `GET metrics/topology/{id or name}/metas` | the metrics of one topology |
//! | `DELETE metrics/topology/{id or name}/metas` with `{"ids": […]}` | the leader deletes metrics of a removed topology |
//! | `GET metrics/topology/{id or name}/latest?window=` | the values in the window that ends now |
//! | `GET metrics/data?id=` or `?name=` or `?topology=&pattern=` | points over time |
//! | `GET metrics/topology/{id or name}/track[?task=]` | which task ran where and when |
//! | `GET metrics/history[?name=]` | all topologies of the history |
//! | `GET metrics/status` | the metric store, its export queue and its exporters |
//! | `GET`, `POST topology/{id or name}/metrics` | the live metric control: differences from the settings |
//!
//! - `level=`, `component=`, `task=`, `stream=` and `name=` (of `data`: `pattern=`) select metrics
//!   of a topology; `*` in a name is any text, `?` any character.
//! - `window=` is 60, 600, 7200 or 86400, or 1m, 10m, 2h or 1d.
//! - Lists come in pages of `limit=` (500, at most 5000); the `next` of a page is the `after=` of
//!   the following page. A page may be short, even empty, and still have a `next`.
//! - `from=` and `to=` are milliseconds since 1970, or relative to now as `-90s`, `-1h`, `-2d`.

mod cursor;
mod filter;
mod forget;
mod parameter;
mod params;
mod reads;
mod series;
mod shape;
mod source;
mod status;

use axum::middleware::from_fn;

use super::{
    Api,
    describe::{OF_METRICS, delete, get},
};
pub(super) use reads::control;
pub(super) use source::store_error;
use stormkeeper_api_types::message::{
    Code, ForgetRequest, Forgotten, LatestList, MeasuredTopologyList, MetricMetaList, MetricStoreStatus,
    PointList, TaskTrack, TopologyHistory,
};
use stormkeeper_serving::{openapi::Routes, query::refuse_parameters};

/// Returns the routes.
pub(super) fn routes() -> Routes<Api> {
    let read = |path, summary| get(path, summary).may_fail(&OF_METRICS);
    Routes::new()
        .serve(
            delete("/metrics/topology/{topology}/metas", "Deletes metrics of a removed topology")
                .takes::<ForgetRequest>()
                .answers::<Forgotten>()
                .may_fail(&OF_METRICS)
                .may_fail(&[Code::Conflict]),
            forget::delete_metas,
        )
        .serve(
            read("/metrics/status", "The metric store of this nimbus, and its exporters")
                .answers::<MetricStoreStatus>(),
            reads::status,
        )
        .with_router(|router| router.route_layer(from_fn(refuse_parameters)))
        .serve(
            read("/metrics/topologies", "The topologies that have metrics, also removed ones")
                .query::<params::PageParams>()
                .answers::<MeasuredTopologyList>(),
            reads::topologies,
        )
        .serve(
            read("/metrics/topology/{topology}/metas", "The metrics of a topology")
                .query::<params::MetaParams>()
                .answers::<MetricMetaList>(),
            reads::metas,
        )
        .serve(
            read("/metrics/topology/{topology}/latest", "The values of metrics in the window that ends now")
                .query::<params::LatestParams>()
                .answers::<LatestList>(),
            reads::latest,
        )
        .serve(
            read("/metrics/topology/{topology}/track", "The workers in which each task ran")
                .query::<params::TrackParams>()
                .answers::<TaskTrack>(),
            reads::track,
        )
        .serve(
            read("/metrics/data", "Points of metrics over time")
                .query::<params::DataParams>()
                .answers::<PointList>()
                .may_fail(&[Code::UnknownMetric]),
            series::data,
        )
        .serve(
            read("/metrics/history", "Current and past topologies")
                .query::<params::HistoryParams>()
                .answers::<TopologyHistory>(),
            reads::history,
        )
}
