//! Bodies about jobs.

use serde_json::{Map, Value, json};

use super::vertex::io_metrics;
use crate::{FlinkId, Job, JobState, TaskState, Vertex};

/// Flink's name of the kind of all jobs here.
const JOB_TYPE: &str = "STREAMING";

/// Flink's name of the scheduler that places all tasks of a job at once.
const SCHEDULER: &str = "Default";

/// Flink's number for a job or a vertex whose parallelism has no maximum.
const NO_MAX: i64 = -1;

/// Returns the body of `/jobs`.
pub fn job_list(jobs: &[(FlinkId, JobState)]) -> Value {
    let jobs: Value =
        jobs.iter().map(|(id, state)| json!({ "id": id.to_string(), "status": state.word() })).collect();
    json!({ "jobs": jobs })
}

/// Returns the body of `/jobs/:jobid/status`.
pub fn status(job: &Job) -> Value {
    json!({ "status": job.state.word() })
}

/// Returns the body of `/jobs/overview`.
pub fn job_overview(jobs: &[Job]) -> Value {
    json!({ "jobs": jobs.iter().map(overview_of).collect::<Vec<_>>() })
}

fn overview_of(job: &Job) -> Value {
    let states = job.task_states();
    let n = |wanted: TaskState| states.iter().filter(|state| **state == wanted).count();
    json!({
        "jid": job.id.to_string(),
        "name": job.name,
        "jobType": JOB_TYPE,
        "schedulerType": SCHEDULER,
        "start-time": job.start_ms,
        "end-time": job.end_or_minus_one(),
        "duration": job.duration_ms(),
        "state": job.state.word(),
        "last-modification": job.end_ms.unwrap_or(job.start_ms),
        "tasks": {
            "running": n(TaskState::Running),
            "canceling": n(TaskState::Canceling),
            "canceled": n(TaskState::Canceled),
            "total": states.len(),
            "created": 0,
            "scheduled": n(TaskState::Scheduled),
            "deploying": n(TaskState::Deploying),
            "reconciling": 0,
            "finished": 0,
            "initializing": 0,
            "failed": 0,
        },
        "pending-operators": 0,
    })
}

/// Returns the body of `/jobs/:jobid`.
pub fn job_details(job: &Job) -> Value {
    let known = match job.end_ms {
        Some(end) => vec![(JobState::Created, job.start_ms), (JobState::Canceled, end)],
        None if job.state == JobState::Running => {
            vec![(JobState::Created, job.start_ms), (JobState::Running, job.start_ms)]
        }
        // The times of other changes are in the list of events.
        None => vec![(JobState::Created, job.start_ms)],
    };
    let id = job.id.to_string();
    json!({
        "jid": id,
        "application-id": id,
        "name": job.name,
        "isStoppable": false,
        "state": job.state.word(),
        "job-type": JOB_TYPE,
        "schedulerType": SCHEDULER,
        "start-time": job.start_ms,
        "end-time": job.end_or_minus_one(),
        "duration": job.duration_ms(),
        "maxParallelism": NO_MAX,
        "now": job.now_ms,
        "timestamps": JobState::timestamps(&known),
        "vertices": job.vertices.iter().map(|vertex| vertex_of(job, vertex)).collect::<Vec<_>>(),
        "status-counts": TaskState::counts(
            &job.vertices.iter().map(|vertex| TaskState::of_vertex(&vertex.states())).collect::<Vec<_>>(),
        ),
        "plan": plan_of(job),
        "pending-operators": 0,
    })
}

fn vertex_of(job: &Job, vertex: &Vertex) -> Value {
    let states = vertex.states();
    let start = vertex.subtasks.iter().filter_map(|subtask| subtask.start_ms).min();
    json!({
        "id": vertex.id.to_string(),
        "slotSharingGroupId": job.id.to_string(),
        "name": vertex.name,
        "maxParallelism": NO_MAX,
        "parallelism": vertex.subtasks.len(),
        "status": TaskState::of_vertex(&states).word(),
        "start-time": start.map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX)),
        "end-time": job.end_or_minus_one(),
        "duration": start.map_or(0, |at| job.end_ms.unwrap_or(job.now_ms).saturating_sub(at)),
        "tasks": TaskState::counts(&states),
        "metrics": io_metrics(vertex.records()),
    })
}

/// Returns the body of `/jobs/:jobid/plan`.
pub fn plan(job: &Job) -> Value {
    json!({ "plan": plan_of(job) })
}

fn plan_of(job: &Job) -> Value {
    let node = |vertex: &Vertex| {
        let input = |(n, input): (usize, &crate::PlanInput)| {
            json!({
                "num": n,
                "id": input.from.to_string(),
                "ship_strategy": input.strategy,
                "exchange": "pipelined_bounded",
            })
        };
        let mut node = json!({
            "id": vertex.id.to_string(),
            "parallelism": vertex.subtasks.len(),
            "operator": "",
            "operator_strategy": "",
            "description": vertex.name,
            "optimizer_properties": {},
        });
        if !vertex.inputs.is_empty() {
            node["inputs"] = vertex.inputs.iter().enumerate().map(input).collect();
        }
        node
    };
    json!({
        "jid": job.id.to_string(),
        "name": job.name,
        "type": JOB_TYPE,
        "nodes": job.vertices.iter().map(node).collect::<Vec<_>>(),
    })
}

/// Returns the body of `/jobs/:jobid/config`, with the settings of the topology.
pub fn job_config(job: &Job, settings: &[(String, String)]) -> Value {
    let settings: Map<_, _> =
        settings.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    json!({
        "jid": job.id.to_string(),
        "name": job.name,
        "execution-config": {
            "restart-strategy": "Restart of tasks and workers with a backoff",
            "job-parallelism": job.task_states().len(),
            "object-reuse-mode": false,
            "user-config": settings,
        },
    })
}

/// An error of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExceptionEntry {
    /// Message of one line.
    pub message: String,
    /// Trace, or the last lines of a log; may be empty.
    pub stack: String,
    /// Time, in milliseconds since 1970.
    pub at_ms: u64,
    /// Component, and number of the subtask of how many, such as `count (2/3)`.
    pub task: String,
    /// `host:port` of the worker.
    pub worker: String,
}

/// Returns the body of `/jobs/:jobid/exceptions`: the newest `max` errors. Flink's fields from
/// before its history of exceptions repeat the newest one.
pub fn exceptions(mut errors: Vec<ExceptionEntry>, max: usize, truncated: bool) -> Value {
    errors.sort_by_key(|error| std::cmp::Reverse(error.at_ms));
    let truncated = truncated || errors.len() > max;
    errors.truncate(max);
    let trace = |error: &ExceptionEntry| match error.stack.is_empty() {
        true => error.message.clone(),
        false => format!("{}\n{}", error.message, error.stack),
    };
    let entry = |error: &ExceptionEntry| {
        json!({
            "exceptionName": error.message,
            "stacktrace": trace(error),
            "timestamp": error.at_ms,
            "failureLabels": {},
            "taskName": error.task,
            "location": error.worker,
            "endpoint": error.worker,
            "taskManagerId": error.worker,
            "concurrentExceptions": [],
        })
    };
    let old = |error: &ExceptionEntry| {
        json!({
            "exception": trace(error),
            "task": error.task,
            "location": error.worker,
            "timestamp": error.at_ms,
            "endpoint": error.worker,
            "taskManagerId": error.worker,
        })
    };
    json!({
        "root-exception": errors.first().map(trace),
        "timestamp": errors.first().map(|error| error.at_ms),
        "all-exceptions": errors.iter().map(old).collect::<Vec<_>>(),
        "truncated": truncated,
        "exceptionHistory": {
            "entries": errors.iter().map(entry).collect::<Vec<_>>(),
            "truncated": truncated,
        },
    })
}

/// Returns an element of `/applications/overview`.
pub fn job_application(job: &Job) -> Value {
    json!({
        "id": job.id.to_string(),
        "name": job.name,
        "start-time": job.start_ms,
        "end-time": job.end_or_minus_one(),
        "duration": job.duration_ms(),
        "status": job.state.word(),
        "jobs": { job.state.word(): 1 },
    })
}

/// Returns the body of `/applications/:applicationid`.
pub fn application(job: &Job) -> Value {
    let mut application = job_application(job);
    application["jobs"] = json!([overview_of(job)]);
    application
}

/// Returns the body of `/jobs/:jobid/execution-result`.
pub fn execution_result(job: &Job) -> Value {
    let Some(end_ms) = job.end_ms else { return json!({ "status": { "id": "IN_PROGRESS" } }) };
    json!({
        "status": { "id": "COMPLETED" },
        "job-execution-result": {
            "id": job.id.to_string(),
            "application-status": job.state.word(),
            "name": job.name,
            "start-time": job.start_ms,
            "end-time": end_ms,
            "accumulator-results": {},
            "net-runtime": end_ms.saturating_sub(job.start_ms),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::{id, job, subtask};

    #[test]
    fn running_job_has_no_end_and_lasts_until_now() {
        let overview = job_overview(&[job()])["jobs"][0].clone();
        assert_eq!(
            (&overview["end-time"], &overview["duration"]),
            (&json!(-1), &json!(60_000)),
            "{overview}"
        );
        assert_eq!((&overview["tasks"]["running"], &overview["tasks"]["total"]), (&json!(3), &json!(3)));
        let details = job_details(&job());
        assert_eq!(
            (&details["timestamps"]["RUNNING"], &details["timestamps"]["CANCELED"]),
            (&json!(1000), &json!(0))
        );
        assert_eq!(details["status-counts"]["RUNNING"], json!(2), "vertices, not subtasks: {details}");
    }

    #[test]
    fn killed_job_ends_with_the_kill() {
        let killed = Job { state: JobState::Canceled, end_ms: Some(31_000), ..job() };
        let details = job_details(&killed);
        assert_eq!(
            (&details["end-time"], &details["duration"]),
            (&json!(31_000), &json!(30_000)),
            "{details}"
        );
        assert_eq!(
            (&details["state"], &details["timestamps"]["CANCELED"]),
            (&json!("CANCELED"), &json!(31_000))
        );
        assert_eq!(job_application(&killed)["jobs"], json!({"CANCELED": 1}));
        let result = execution_result(&killed)["job-execution-result"].clone();
        assert_eq!(
            (&result["start-time"], &result["end-time"], &result["name"]),
            (&json!(1000), &json!(31_000), &json!(killed.name))
        );
    }

    #[test]
    fn vertex_with_a_task_that_does_not_run_does_not_run() {
        let mut job = job();
        job.vertices[1].subtasks.push(subtask(4, TaskState::Deploying));
        let vertex = job_details(&job)["vertices"][1].clone();
        assert_eq!(
            (&vertex["status"], &vertex["tasks"]["RUNNING"]),
            (&json!("DEPLOYING"), &json!(2)),
            "{vertex}"
        );
        assert_eq!(
            (&vertex["metrics"]["read-records"], &vertex["parallelism"]),
            (&json!(90), &json!(3)),
            "{vertex}"
        );
    }

    #[test]
    fn plan_names_the_inputs_by_the_ids_of_vertices() {
        let nodes = plan(&job())["plan"]["nodes"].clone();
        assert_eq!(nodes[0].get("inputs"), None, "a spout");
        let input = json!({
            "num": 0, "id": id("a").to_string(), "ship_strategy": "default SHUFFLE",
            "exchange": "pipelined_bounded",
        });
        assert_eq!(nodes[1]["inputs"], json!([input]));
    }

    #[test]
    fn newest_exceptions_come_first_and_the_rest_is_said_to_be_missing() {
        let error = |at_ms: u64, stack: &str| ExceptionEntry {
            message: format!("error {at_ms}"),
            stack: stack.to_owned(),
            at_ms,
            task: "b (1/2)".to_owned(),
            worker: "h:6700".to_owned(),
        };
        let body = exceptions(vec![error(1, ""), error(3, "at x"), error(2, "")], 2, false);
        let entries = &body["exceptionHistory"]["entries"];
        assert_eq!(
            (&entries[0]["exceptionName"], &entries[0]["stacktrace"]),
            (&json!("error 3"), &json!("error 3\nat x"))
        );
        assert_eq!((&entries[1]["timestamp"], &entries[2]), (&json!(2), &Value::Null));
        assert_eq!(body["exceptionHistory"]["truncated"], json!(true));
        let none = exceptions(Vec::new(), 20, false);
        assert_eq!(
            (&none["root-exception"], &none["exceptionHistory"]["entries"]),
            (&Value::Null, &json!([]))
        );
    }
}
