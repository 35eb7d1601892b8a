//! Workers as task managers.

use axum::{
    extract::State,
    http::{HeaderValue, Method, header},
    response::{IntoResponse as _, Response},
};

use super::{
    asked::{Answer, Asked, Failure, PathParts, Reply},
    refusal,
};
use crate::api::{
    Api,
    logs::{self, LogOfWorker},
};
use stormkeeper_api_types::agent_client::FileRequest;
use stormkeeper_flink_api::{
    Error, FlinkId, MetricNumber, MetricTable, WorkerAddress,
    body::{self, WorkerDetails},
};
use stormkeeper_model::{Port, SupervisorId, TopologyId};

/// A worker that is registered: assigned, with a heartbeat of at least one of its tasks.
pub(super) struct Worker<'a> {
    pub(super) address: WorkerAddress,
    pub(super) topology: &'a TopologyId,
    supervisor: &'a SupervisorId,
    n_tasks: usize,
}

impl Asked {
    /// Returns the registered workers.
    pub(super) fn workers(&self) -> impl Iterator<Item = Worker<'_>> {
        self.view.assignments.iter().flat_map(|(topology, assignment)| {
            let heartbeats = self.view.heartbeats.get(topology);
            let registered = assignment.value.workers.iter().filter(move |(_, worker)| {
                heartbeats.is_some_and(|alive| worker.tasks.iter().any(|task| alive.contains(task)))
            });
            registered.map(move |(slot, worker)| Worker {
                address: WorkerAddress { host: worker.host.clone(), port: slot.port.0 },
                topology,
                supervisor: &slot.supervisor,
                n_tasks: worker.tasks.len(),
            })
        })
    }

    /// Returns the metrics of a worker.
    pub(super) fn worker_metrics(&self, worker: &Worker<'_>) -> Option<&MetricTable> {
        self.snapshot.topologies.get(worker.topology)?.workers.get(&worker.address)
    }

    fn details(&self, worker: &Worker<'_>) -> WorkerDetails {
        let host = self.view.supervisors.get(worker.supervisor).map(|record| record.resources);
        let used = self.worker_metrics(worker).and_then(|table| table.get("sys.MemoryUsed"));
        WorkerDetails {
            address: worker.address.clone(),
            job: FlinkId::of_job(worker.topology),
            tasks: worker.n_tasks,
            now_ms: self.now_ms,
            cores: host.map_or(0.0, |host| f64::from(host.cpu_percent) / 100.0),
            memory: host.map_or(0, |host| u64::from(host.memory_mb) << 20),
            // The conversion saturates.
            memory_used: used.map_or(0, |used| MetricNumber::number(used) as u64),
        }
    }

    fn find_worker(&self, id: &str) -> Result<Worker<'_>, Failure> {
        let found = self.workers().find(|worker| worker.address.to_string() == id);
        Ok(found.ok_or_else(|| Error::unknown("TaskManager", id))?)
    }
}

pub(super) async fn all(asked: Asked) -> Answer {
    let workers: Vec<_> = asked.workers().map(|worker| asked.details(&worker)).collect();
    Ok(Reply(body::task_managers(&workers)))
}

pub(super) async fn one(asked: Asked, PathParts(id): PathParts<String>) -> Answer {
    let worker = asked.find_worker(&id)?;
    Ok(Reply(body::task_manager(&asked.details(&worker))))
}

/// Answers with the log files of the newest launch, which the agent of the supervisor lists.
pub(super) async fn logs(
    State(api): State<Api>,
    asked: Asked,
    PathParts(id): PathParts<String>,
) -> Result<Response, Failure> {
    let worker = asked.find_worker(&id)?;
    let place = (worker.topology, worker.supervisor, Port(worker.address.port));
    Ok(match logs::files_of(&api, &asked.view, place).await {
        Ok(files) => {
            let files = files.into_iter().map(|file| (file.name, file.size, file.modified.as_millis()));
            Reply(body::logs(files)).into_response()
        }
        Err(error) => refusal(error),
    })
}

pub(super) async fn log(
    State(api): State<Api>,
    asked: Asked,
    PathParts(id): PathParts<String>,
) -> Result<Response, Failure> {
    log_file(&api, &asked, &id, "worker.log").await
}

pub(super) async fn stdout(
    State(api): State<Api>,
    asked: Asked,
    PathParts(id): PathParts<String>,
) -> Result<Response, Failure> {
    log_file(&api, &asked, &id, "worker.out").await
}

pub(super) async fn named_log(
    State(api): State<Api>,
    asked: Asked,
    PathParts((id, file)): PathParts<(String, String)>,
) -> Result<Response, Failure> {
    log_file(&api, &asked, &id, &file).await
}

async fn log_file(api: &Api, asked: &Asked, id: &str, file: &str) -> Result<Response, Failure> {
    let worker = asked.find_worker(id)?;
    let port = worker.address.port.to_string();
    let (topology, supervisor) = (worker.topology, worker.supervisor);
    let log = LogOfWorker { topology, supervisor, port: &port, file, worker: None };
    let request = FileRequest { method: Method::GET, range: None, limit: logs::CHUNK_TIMEOUT };
    Ok(match logs::log_file(api, &asked.view, log, request).await {
        Ok(file) => plain(file),
        Err(error) => refusal(error),
    })
}

/// Returns a text that no browser takes for a page.
fn plain(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(super) async fn thread_dump(asked: Asked, PathParts(id): PathParts<String>) -> Answer {
    asked.find_worker(&id)?;
    Ok(Reply(body::thread_dump()))
}
