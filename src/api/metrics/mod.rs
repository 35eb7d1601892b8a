//! The routes that answer what was measured. Any nimbus answers them, from its own archive, and
//! says how far behind the leader's that is.
//!
//! | method, path below `/api/v1/` | answer |
//! | --- | --- |
//! | `GET metrics/topologies` | the topologies that have metrics, gone ones too |
//! | `GET metrics/topology/{id or name}/metas` | what is measured of one |
//! | `DELETE metrics/topology/{id or name}/metas` with `{"ids": […]}` | has the leader forget metrics of one that is gone |
//! | `GET metrics/topology/{id or name}/latest?window=` | the values in the window that ends now |
//! | `GET metrics/data?id=` or `?name=` or `?topology=&pattern=` | points over time |
//! | `GET metrics/topology/{id or name}/track[?task=]` | which task ran where and when |
//! | `GET metrics/history[?name=]` | the topologies that there were |
//! | `GET metrics/status` | the archive, its upload queue and its uploaders |
//! | `GET`, `POST topology/{id or name}/metrics` | what it measures otherwise than its settings say |
//!
//! - `level=`, `component=`, `task=`, `stream=` and `name=` (of `data`: `pattern=`) let some
//!   metrics of a topology through; `*` in a name is any text, `?` any character.
//! - `window=` is 60, 600, 7200 or 86400, or 1m, 10m, 2h or 1d.
//! - Lists come in pages of `limit=` (500, at most 5000); what a page says as `next` is
//!   `after=` of the following one. A page may be short, even empty, and yet say `next`.
//! - `from=` and `to=` are milliseconds since 1970, or relative to now as `-90s`, `-1h`, `-2d`.

mod cursor;
mod filter;
mod forget;
mod params;
mod reads;
mod series;
mod shape;
mod source;
mod status;

use axum::{Router, routing::get};

use super::{Api, writes};

/// The routes.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/metrics/topologies", get(reads::topologies))
        .route("/api/v1/metrics/topology/{topology}/metas", get(reads::metas).delete(forget::forget))
        .route("/api/v1/metrics/topology/{topology}/latest", get(reads::latest))
        .route("/api/v1/metrics/topology/{topology}/track", get(reads::track))
        .route("/api/v1/metrics/data", get(series::data))
        .route("/api/v1/metrics/history", get(reads::history))
        .route("/api/v1/metrics/status", get(reads::status))
        .route("/api/v1/topology/{topology}/metrics", get(reads::control).post(writes::metrics))
}
