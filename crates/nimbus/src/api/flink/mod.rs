//! Flink's metric REST API, answered by any nimbus from its view and its own metric store.
//!
//! `docs/flink-api.md` lists the paths, which are served bare and below `/v1`. All values come from
//! one snapshot of the metric store (`snapshot`); everything else comes from the view.
//!
//! - A metric path about something unknown answers `200 []`; any other path answers 404.
//! - An id that is no id answers 400.
//! - A known path with another method answers 404, as Flink's does.
//! - No answer has CORS headers, unlike Flink's.

mod asked;
mod cluster;
mod jobs;
mod metrics;
mod reading;
mod reads;
mod snapshot;
mod vertices;
mod workers;

use axum::{
    Json, Router,
    extract::OriginalUri,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::{Api, error::ApiError};
use asked::Failure;
pub(super) use snapshot::Snapshots;
use stormkeeper_flink_api::Error;

/// Returns the routes, bare and below `/v1`.
pub(super) fn routes() -> Router<Api> {
    let versioned = paths().fallback(not_found).method_not_allowed_fallback(not_found);
    paths().method_not_allowed_fallback(not_found).nest("/v1", versioned)
}

async fn not_found(OriginalUri(uri): OriginalUri) -> Failure {
    Error::not_found(uri.path()).into()
}

/// First parts of the paths.
const FIRST_PARTS: [&str; 8] =
    ["overview", "config", "datasets", "jars", "applications", "jobmanager", "taskmanagers", "jobs"];

/// Returns whether a path is Flink's.
pub(super) fn is_flink_path(path: &str) -> bool {
    let bare = path.strip_prefix("/v1").unwrap_or(path);
    let first = bare.split('/').nth(1).unwrap_or_default();
    FIRST_PARTS.contains(&first)
}

/// Returns an error of the own API with Flink's field beside its own.
pub(super) fn refusal(error: ApiError) -> Response {
    let status = error.status();
    let body = error.into_body();
    let mut fields = json!({ "errors": [body.message] });
    if let (Value::Object(fields), Ok(Value::Object(own))) = (&mut fields, serde_json::to_value(&body)) {
        fields.extend(own);
    }
    (status, Json(fields)).into_response()
}

fn paths() -> Router<Api> {
    Router::new()
        .route("/overview", get(cluster::overview))
        .route("/config", get(cluster::config))
        .route("/datasets", get(cluster::datasets))
        .route("/jars", get(cluster::jars))
        .route("/applications/overview", get(cluster::applications))
        .route("/applications/{job}", get(cluster::application))
        .route("/jobmanager/config", get(cluster::job_manager_config))
        .route("/jobmanager/environment", get(cluster::environment))
        .route("/jobmanager/logs", get(cluster::job_manager_logs))
        .route("/jobmanager/thread-dump", get(cluster::job_manager_thread_dump))
        .route("/jobmanager/metrics", get(metrics::of_job_manager))
        .route("/taskmanagers", get(workers::all))
        .route("/taskmanagers/metrics", get(metrics::of_task_managers))
        .route("/taskmanagers/{worker}", get(workers::one))
        .route("/taskmanagers/{worker}/metrics", get(metrics::of_task_manager))
        .route("/taskmanagers/{worker}/logs", get(workers::logs))
        .route("/taskmanagers/{worker}/thread-dump", get(workers::thread_dump))
        .route("/jobs", get(reads::all))
        .route("/jobs/overview", get(reads::overview))
        .route("/jobs/metrics", get(metrics::of_jobs))
        .route("/jobs/{job}", get(reads::details))
        .route("/jobs/{job}/status", get(reads::status))
        .route("/jobs/{job}/plan", get(reads::plan))
        .route("/jobs/{job}/config", get(reads::config))
        .route("/jobs/{job}/jobmanager/config", get(reads::job_manager_config))
        .route("/jobs/{job}/jobmanager/environment", get(reads::environment))
        .route("/jobs/{job}/exceptions", get(reads::exceptions))
        .route("/jobs/{job}/accumulators", get(reads::accumulators))
        .route("/jobs/{job}/execution-result", get(reads::execution_result))
        .route("/jobs/{job}/checkpoints", get(reads::checkpoints))
        .route("/jobs/{job}/checkpoints/config", get(reads::checkpoint_config))
        .route("/jobs/{job}/checkpoints/details/{checkpoint}", get(reads::checkpoint))
        .route(
            "/jobs/{job}/checkpoints/details/{checkpoint}/subtasks/{vertex}",
            get(reads::checkpoint_of_vertex),
        )
        .route("/jobs/{job}/metrics", get(metrics::of_job))
        .merge(paths_of_vertices())
}

fn paths_of_vertices() -> Router<Api> {
    let routes = Router::new()
        .route("/", get(vertices::details))
        .route("/accumulators", get(vertices::accumulators))
        .route("/backpressure", get(vertices::backpressure))
        .route("/subtasktimes", get(vertices::subtask_times))
        .route("/taskmanagers", get(vertices::task_managers))
        .route("/watermarks", get(vertices::watermarks))
        .route("/metrics", get(metrics::of_vertex))
        .route("/jm-operator-metrics", get(metrics::of_operator))
        .route("/subtasks/accumulators", get(vertices::subtask_accumulators))
        .route("/subtasks/metrics", get(metrics::of_subtasks))
        .route("/subtasks/{subtask}", get(vertices::subtask))
        .route("/subtasks/{subtask}/metrics", get(metrics::of_subtask))
        .route("/subtasks/{subtask}/attempts/{attempt}", get(vertices::attempt))
        .route("/subtasks/{subtask}/attempts/{attempt}/accumulators", get(vertices::attempt_accumulators))
        .method_not_allowed_fallback(not_found);
    Router::new().nest("/jobs/{job}/vertices/{vertex}", routes)
}
