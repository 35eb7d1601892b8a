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
mod cancel;
mod cluster;
mod jobs;
mod metrics;
mod reading;
mod reads;
mod snapshot;
mod vertices;
mod workers;

use axum::{
    Json,
    extract::OriginalUri,
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::{Api, describe::OF_CHANGE, error::ApiError};
use asked::Failure;
pub(super) use snapshot::Snapshots;
use stormkeeper_api_types::message::Code;
use stormkeeper_flink_api::{Error, schema};
use stormkeeper_serving::openapi::{Content, Dialect, MakeSchema, Operation, Routes};

static FLINK: Dialect = Dialect {
    name: "Flink",
    description: "Flink's metric REST API. The same paths are served without `/v1`.",
    prefix: "/v1",
    id: "flink",
    json: "application/json",
    error: schema::error,
};

/// Parameters of metrics of one thing.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "only described: `Query` reads them")]
struct ValuesQuery {
    /// Names of metrics, with commas between them; without it, the answer lists all names.
    get: Option<String>,
}

/// Parameters of aggregates of metrics.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "only described: `Query` reads them")]
struct AggregatesQuery {
    /// Names of metrics, with commas between them; without it, the answer lists all names.
    get: Option<String>,
    /// Aggregates of `min`, `max`, `avg`, `sum` and `skew`, with commas between them; all if absent.
    agg: Option<String>,
    /// Ids of topologies, for aggregates over topologies.
    jobs: Option<String>,
    /// `host:port` of workers, for aggregates over workers.
    taskmanagers: Option<String>,
    /// Numbers and ranges of tasks, as `0,2-4`, for aggregates over tasks.
    subtasks: Option<String>,
}

/// Parameters of the end of a topology.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "only described: `Query` reads them")]
struct CancelQuery {
    /// `cancel`, which is assumed if it is absent.
    mode: Option<String>,
}

/// Parameters of the errors of a topology.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[expect(dead_code, reason = "only described: `Query` reads them")]
struct ExceptionsQuery {
    /// Maximum number of errors: 20 if absent.
    max_exceptions: Option<u32>,
}

fn read(path: &str, summary: &'static str, answer: MakeSchema) -> Operation {
    Operation::new(&FLINK, Method::GET, path, summary).answers_content(Content::Json(answer))
}

/// Describes a read of something that may not be there.
fn find(path: &str, summary: &'static str, answer: MakeSchema) -> Operation {
    read(path, summary, answer).may_fail_with(StatusCode::NOT_FOUND, "not_found")
}

/// Describes a log file, which the agent of a supervisor passes on.
fn log(path: &str, summary: &'static str) -> Operation {
    Operation::new(&FLINK, Method::GET, path, summary)
        .answers_content(Content::Other(&["text/plain"]))
        .may_fail_with(StatusCode::NOT_FOUND, "not_found")
        .may_fail(&[Code::UnknownLog, Code::AgentUnavailable])
}

/// Describes metrics of one thing: never 404.
fn values(path: &str, summary: &'static str) -> Operation {
    let values = Operation::new(&FLINK, Method::GET, path, summary).query::<ValuesQuery>();
    values.answers_content(Content::Json(schema::values))
}

/// Describes aggregates of metrics.
fn aggregates(path: &str, summary: &'static str) -> Operation {
    let aggregates = Operation::new(&FLINK, Method::GET, path, summary).query::<AggregatesQuery>();
    aggregates.answers_content(Content::Json(schema::aggregates))
}

/// Returns the routes, bare and below `/v1`.
pub(super) fn routes() -> Routes<Api> {
    let versioned = paths().with_router(|router| router.fallback(not_found));
    Routes::new().merge_again(paths()).nest("/v1", versioned)
}

/// Returns the response to a method that a path does not serve, which is that nothing is there.
pub(super) fn wrong_method(path: &str) -> Response {
    Failure::from(Error::not_found(path)).into_response()
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

fn paths() -> Routes<Api> {
    Routes::new()
        .serve(read("/overview", "The cluster in numbers", schema::overview), cluster::overview)
        .serve(read("/config", "The configuration of the web page", schema::config), cluster::config)
        .serve(read("/datasets", "Empty: there are no data sets", schema::datasets), cluster::datasets)
        .serve(read("/jars", "Empty: there are no jars", schema::jars), cluster::jars)
        .serve(
            read("/applications/overview", "The topologies as applications", schema::applications),
            cluster::applications,
        )
        .serve(
            find("/applications/{job}", "A topology as an application", schema::application),
            cluster::application,
        )
        .serve(
            read("/jobmanager/config", "Settings of this nimbus", schema::job_manager_config),
            cluster::job_manager_config,
        )
        .serve(
            read("/jobmanager/environment", "The environment: there is no JVM", schema::environment),
            cluster::environment,
        )
        .serve(
            read("/jobmanager/logs", "Empty: a nimbus does not serve its logs", schema::logs),
            cluster::job_manager_logs,
        )
        .serve(
            read("/jobmanager/thread-dump", "Empty: there is no JVM", schema::thread_dump),
            cluster::job_manager_thread_dump,
        )
        .serve(values("/jobmanager/metrics", "Metrics of the leading nimbus"), metrics::of_job_manager)
        .serve(read("/taskmanagers", "The workers", schema::task_managers), workers::all)
        .serve(aggregates("/taskmanagers/metrics", "Metrics over all workers"), metrics::of_task_managers)
        .serve(find("/taskmanagers/{worker}", "A worker", schema::task_manager), workers::one)
        .serve(values("/taskmanagers/{worker}/metrics", "Metrics of a worker"), metrics::of_task_manager)
        .serve(
            find("/taskmanagers/{worker}/logs", "The log files of a worker", schema::logs)
                .may_fail(&[Code::AgentUnavailable]),
            workers::logs,
        )
        .serve(log("/taskmanagers/{worker}/logs/{file}", "A log file of a worker"), workers::named_log)
        .serve(log("/taskmanagers/{worker}/log", "The log of a worker"), workers::log)
        .serve(log("/taskmanagers/{worker}/stdout", "The output of a worker"), workers::stdout)
        .serve(
            find("/taskmanagers/{worker}/thread-dump", "Empty: there is no JVM", schema::thread_dump),
            workers::thread_dump,
        )
        .merge(paths_of_jobs())
        .merge(paths_of_checkpoints())
        .merge(paths_of_vertices())
}

fn paths_of_jobs() -> Routes<Api> {
    Routes::new()
        .serve(read("/jobs", "Ids and states of the topologies", schema::jobs_in_short), reads::all)
        .serve(read("/jobs/overview", "All topologies in short", schema::job_overview), reads::overview)
        .serve(aggregates("/jobs/metrics", "Metrics over all topologies"), metrics::of_jobs)
        .serve(find("/jobs/{job}", "A topology", schema::job), reads::details)
        .serve(
            Operation::new(&FLINK, Method::PATCH, "/jobs/{job}", "Kills a topology with the default wait")
                .query::<CancelQuery>()
                .answers_content(Content::Json(schema::cancelled))
                .succeeds_with(StatusCode::ACCEPTED)
                .may_fail_with(StatusCode::NOT_FOUND, "not_found")
                .may_fail(&OF_CHANGE),
            cancel::cancel,
        )
        .serve(find("/jobs/{job}/status", "The state of a topology", schema::status), reads::status)
        .serve(find("/jobs/{job}/plan", "The graph of a topology", schema::plan), reads::plan)
        .serve(find("/jobs/{job}/config", "The settings of a topology", schema::job_config), reads::config)
        .serve(
            find("/jobs/{job}/jobmanager/config", "Settings of this nimbus", schema::job_manager_config),
            reads::job_manager_config,
        )
        .serve(
            find(
                "/jobs/{job}/jobmanager/environment",
                "The environment: there is no JVM",
                schema::environment,
            ),
            reads::environment,
        )
        .serve(
            find("/jobs/{job}/exceptions", "The errors of a topology", schema::exceptions)
                .query::<ExceptionsQuery>(),
            reads::exceptions,
        )
        .serve(
            find("/jobs/{job}/accumulators", "Empty: there are no accumulators", schema::job_accumulators),
            reads::accumulators,
        )
        .serve(
            find("/jobs/{job}/execution-result", "Whether a topology has ended", schema::execution_result),
            reads::execution_result,
        )
        .serve(values("/jobs/{job}/metrics", "Metrics of a topology"), metrics::of_job)
}

fn paths_of_checkpoints() -> Routes<Api> {
    Routes::new()
        .serve(
            find("/jobs/{job}/checkpoints", "Empty: there are no checkpoints", schema::checkpoints),
            reads::checkpoints,
        )
        .serve(
            find(
                "/jobs/{job}/checkpoints/config",
                "The configuration of checkpoints: none",
                schema::checkpoint_config,
            ),
            reads::checkpoint_config,
        )
        .serve(
            find(
                "/jobs/{job}/checkpoints/details/{checkpoint}",
                "Always 404: there are no checkpoints",
                schema::never,
            ),
            reads::checkpoint,
        )
        .serve(
            find(
                "/jobs/{job}/checkpoints/details/{checkpoint}/subtasks/{vertex}",
                "Always 404: there are no checkpoints",
                schema::never,
            ),
            reads::checkpoint_of_vertex,
        )
}

fn paths_of_vertices() -> Routes<Api> {
    let routes = Routes::new()
        .serve(find("/", "A component", schema::vertex), vertices::details)
        .serve(
            find("/accumulators", "Empty: there are no accumulators", schema::vertex_accumulators),
            vertices::accumulators,
        )
        .serve(
            find("/backpressure", "The backpressure of a component", schema::vertex_backpressure),
            vertices::backpressure,
        )
        .serve(
            find("/subtasktimes", "The times of the tasks of a component", schema::subtask_times),
            vertices::subtask_times,
        )
        .serve(
            find("/taskmanagers", "The tasks of a component by worker", schema::vertex_task_managers),
            vertices::task_managers,
        )
        .serve(
            find("/watermarks", "Empty: tuples have no event time", schema::watermarks),
            vertices::watermarks,
        )
        .serve(values("/metrics", "Metrics of a component"), metrics::of_vertex)
        .serve(values("/jm-operator-metrics", "Empty: there are no coordinators"), metrics::of_operator)
        .serve(
            find("/subtasks/accumulators", "Empty: there are no accumulators", schema::subtask_accumulators),
            vertices::subtask_accumulators,
        )
        .serve(aggregates("/subtasks/metrics", "Metrics over the tasks of a component"), metrics::of_subtasks)
        .serve(find("/subtasks/{subtask}", "A task", schema::subtask), vertices::subtask)
        .serve(values("/subtasks/{subtask}/metrics", "Metrics of a task"), metrics::of_subtask)
        .serve(
            find("/subtasks/{subtask}/attempts/{attempt}", "The current attempt of a task", schema::subtask),
            vertices::attempt,
        )
        .serve(
            find(
                "/subtasks/{subtask}/attempts/{attempt}/accumulators",
                "Empty: there are no accumulators",
                schema::attempt_accumulators,
            ),
            vertices::attempt_accumulators,
        );
    Routes::new().nest("/jobs/{job}/vertices/{vertex}", routes)
}
