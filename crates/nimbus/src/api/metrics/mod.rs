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
pub(super) mod params;
mod reads;
mod series;
mod shape;
mod source;
mod status;

use axum::{Router, routing::get};

use super::Api;
pub(super) use reads::control;
pub(super) use source::store_error;

/// Returns the routes.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/metrics/topologies", get(reads::topologies))
        .route("/metrics/topology/{topology}/metas", get(reads::metas).delete(forget::delete_metas))
        .route("/metrics/topology/{topology}/latest", get(reads::latest))
        .route("/metrics/topology/{topology}/track", get(reads::track))
        .route("/metrics/data", get(series::data))
        .route("/metrics/history", get(reads::history))
        .route("/metrics/status", get(reads::status))
}
