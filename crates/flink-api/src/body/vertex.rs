//! Bodies about vertices and subtasks.

use serde_json::{Map, Value, json};

use crate::{Job, RecordCounts, Subtask, TaskState, Vertex};

/// Number of an attempt: tasks of Stormkeeper are not counted by attempts.
const ATTEMPT: u32 = 0;

/// Returns `metrics` of a vertex or a subtask. Bytes and times are not measured.
pub(super) fn io_metrics(records: RecordCounts) -> Value {
    json!({
        "read-bytes": 0,
        "read-bytes-complete": false,
        "write-bytes": 0,
        "write-bytes-complete": false,
        "read-records": records.read.unwrap_or_default(),
        "read-records-complete": records.read.is_some(),
        "write-records": records.written.unwrap_or_default(),
        "write-records-complete": records.written.is_some(),
        "accumulated-backpressured-time": 0,
        "accumulated-idle-time": 0,
        "accumulated-busy-time": 0.0,
    })
}

/// Statistics of one number over all subtasks, as in `aggregated`.
fn statistics(mut numbers: Vec<u64>) -> Value {
    numbers.sort_unstable();
    let sum = numbers.iter().fold(0_u64, |sum, number| sum.saturating_add(*number));
    let mean = sum.checked_div(numbers.len() as u64).unwrap_or_default();
    // The nearest rank.
    let quantile = |percent: usize| {
        let rank = (percent * numbers.len()).div_ceil(100).saturating_sub(1);
        numbers.get(rank).copied().unwrap_or_default()
    };
    json!({
        "min": numbers.first().copied().unwrap_or_default(),
        "max": numbers.last().copied().unwrap_or_default(),
        "avg": mean,
        "sum": sum,
        "median": quantile(50),
        "p25": quantile(25),
        "p75": quantile(75),
        "p95": quantile(95),
    })
}

/// Returns `aggregated` of a group of subtasks.
fn aggregated(job: &Job, subtasks: &[&Subtask]) -> Value {
    let of = |number: &dyn Fn(&Subtask) -> u64| {
        statistics(subtasks.iter().map(|subtask| number(subtask)).collect())
    };
    let nothing = || of(&|_| 0);
    let duration = |word: &str| {
        of(&|subtask| time_in(job, subtask, word).and_then(|ms| ms.try_into().ok()).unwrap_or(0))
    };
    let states = ["CREATED", "SCHEDULED", "DEPLOYING", "INITIALIZING", "RUNNING"];
    let durations: Map<_, _> = states.iter().map(|word| ((*word).to_owned(), duration(word))).collect();
    json!({
        "metrics": {
            "read-bytes": nothing(),
            "write-bytes": nothing(),
            "read-records": of(&|subtask| subtask.records.read.unwrap_or_default()),
            "write-records": of(&|subtask| subtask.records.written.unwrap_or_default()),
            "accumulated-backpressured-time": nothing(),
            "accumulated-idle-time": nothing(),
            "accumulated-busy-time": nothing(),
        },
        "status-duration": durations,
    })
}

/// Returns the time that a subtask has been in its state, if that is the state `word`.
fn time_in(job: &Job, subtask: &Subtask, word: &str) -> Option<i64> {
    let since = subtask.start_ms.filter(|_| subtask.state.word() == word)?;
    i64::try_from(job.end_ms.unwrap_or(job.now_ms).saturating_sub(since)).ok()
}

fn endpoint(subtask: &Subtask) -> String {
    subtask.worker.as_ref().map_or_else(|| "(unassigned)".to_owned(), ToString::to_string)
}

fn start(subtask: &Subtask) -> i64 {
    subtask.start_ms.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)
}

fn duration(job: &Job, subtask: &Subtask) -> u64 {
    subtask.start_ms.map_or(0, |at| job.end_ms.unwrap_or(job.now_ms).saturating_sub(at))
}

/// Returns the body of `…/subtasks/:subtask`, which is an element of the vertex too.
pub fn subtask(job: &Job, n: usize, subtask: &Subtask) -> Value {
    let states = ["CREATED", "SCHEDULED", "DEPLOYING", "INITIALIZING", "RUNNING"];
    let in_state = |word: &&str| ((*word).to_owned(), time_in(job, subtask, word).unwrap_or(-1).into());
    json!({
        "subtask": n,
        "status": subtask.state.word(),
        "attempt": ATTEMPT,
        // Clients of Flink 1 require it.
        "host": endpoint(subtask),
        "endpoint": endpoint(subtask),
        "start-time": start(subtask),
        "end-time": job.end_or_minus_one(),
        "duration": duration(job, subtask),
        "metrics": io_metrics(subtask.records),
        "taskmanager-id": endpoint(subtask),
        "status-duration": states.iter().map(in_state).collect::<Map<_, _>>(),
        "start_time": start(subtask),
    })
}

/// Returns the body of `/jobs/:jobid/vertices/:vertexid`.
pub fn vertex_details(job: &Job, vertex: &Vertex) -> Value {
    let all: Vec<&Subtask> = vertex.subtasks.iter().collect();
    json!({
        "id": vertex.id.to_string(),
        "name": vertex.name,
        "parallelism": all.len(),
        "maxParallelism": -1,
        "now": job.now_ms,
        "subtasks": all.iter().enumerate().map(|(n, one)| subtask(job, n, one)).collect::<Vec<_>>(),
        "aggregated": aggregated(job, &all),
    })
}

/// Returns the body of `/jobs/:jobid/vertices/:vertexid/subtasktimes`.
pub fn subtask_times(job: &Job, vertex: &Vertex) -> Value {
    let times = |(n, subtask): (usize, &Subtask)| {
        let at = |word: &str| if subtask.state.word() == word { start(subtask).max(0) } else { 0 };
        json!({
            "subtask": n,
            "host": endpoint(subtask),
            "endpoint": endpoint(subtask),
            "duration": duration(job, subtask),
            "timestamps": TaskState::by_state(at),
        })
    };
    json!({
        "id": vertex.id.to_string(),
        "name": vertex.name,
        "now": job.now_ms,
        "subtasks": vertex.subtasks.iter().enumerate().map(times).collect::<Vec<_>>(),
    })
}

/// Returns the body of `/jobs/:jobid/vertices/:vertexid/taskmanagers`: the subtasks by worker.
pub fn task_managers_of_vertex(job: &Job, vertex: &Vertex) -> Value {
    let mut workers: std::collections::BTreeMap<String, Vec<&Subtask>> = Default::default();
    for subtask in &vertex.subtasks {
        workers.entry(endpoint(subtask)).or_default().push(subtask);
    }
    let worker = |(worker, subtasks): (&String, &Vec<&Subtask>)| {
        let states: Vec<TaskState> = subtasks.iter().map(|subtask| subtask.state).collect();
        let sum = |of: fn(&RecordCounts) -> Option<u64>| {
            subtasks.iter().filter_map(|subtask| of(&subtask.records)).reduce(u64::saturating_add)
        };
        json!({
            "host": worker,
            "endpoint": worker,
            "status": TaskState::of_vertex(&states).word(),
            "start-time": subtasks.iter().map(|subtask| start(subtask)).min(),
            "end-time": job.end_or_minus_one(),
            "duration": subtasks.iter().map(|subtask| duration(job, subtask)).max(),
            "metrics": io_metrics(RecordCounts { read: sum(|r| r.read), written: sum(|r| r.written) }),
            "status-counts": TaskState::counts(&states),
            "taskmanager-id": worker,
            "aggregated": aggregated(job, subtasks),
        })
    };
    json!({
        "id": vertex.id.to_string(),
        "name": vertex.name,
        "now": job.now_ms,
        "taskmanagers": workers.iter().map(worker).collect::<Vec<_>>(),
    })
}

/// Returns the body of `/jobs/:jobid/vertices/:vertexid/subtasks/accumulators`: which subtasks
/// there are, each without accumulators.
pub fn subtask_accumulators(vertex: &Vertex) -> Value {
    let of = |(n, subtask): (usize, &Subtask)| {
        json!({
            "subtask": n,
            "attempt": ATTEMPT,
            "host": endpoint(subtask),
            "endpoint": endpoint(subtask),
            "user-accumulators": [],
        })
    };
    json!({
        "id": vertex.id.to_string(),
        "parallelism": vertex.subtasks.len(),
        "subtasks": vertex.subtasks.iter().enumerate().map(of).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::{id, job};

    #[test]
    fn vertex_lists_its_subtasks_by_their_rank() {
        let job = job();
        let body = vertex_details(&job, job.vertex(id("b")).expect("known"));
        let last = &body["subtasks"][1];
        assert_eq!((&last["subtask"], &last["taskmanager-id"]), (&json!(1), &json!("h:6700")), "{body}");
        assert_eq!(
            (&last["metrics"]["read-records"], &last["metrics"]["write-records-complete"]),
            (&json!(30), &json!(false))
        );
        assert_eq!(
            (&last["status-duration"]["RUNNING"], &last["status-duration"]["CREATED"]),
            (&json!(59_500), &json!(-1))
        );
        let sum = &body["aggregated"]["metrics"]["read-records"];
        assert_eq!((&sum["min"], &sum["sum"], &sum["p95"]), (&json!(20), &json!(50), &json!(30)), "{sum}");
    }

    #[test]
    fn subtasks_are_grouped_by_worker() {
        let mut job = job();
        job.vertices[1].subtasks[0].worker = None;
        job.vertices[1].subtasks[0].state = TaskState::Scheduled;
        let workers = task_managers_of_vertex(&job, &job.vertices[1])["taskmanagers"].clone();
        assert_eq!(
            (&workers[0]["endpoint"], &workers[0]["status"]),
            (&json!("(unassigned)"), &json!("SCHEDULED"))
        );
        assert_eq!(
            (&workers[1]["taskmanager-id"], &workers[1]["metrics"]["read-records"]),
            (&json!("h:6700"), &json!(30))
        );
        let times = subtask_times(&job, &job.vertices[1])["subtasks"][1]["timestamps"].clone();
        assert_eq!((&times["RUNNING"], &times["SCHEDULED"]), (&json!(1_500), &json!(0)));
    }

    #[test]
    fn bodies_about_tasks_have_the_field_that_clients_of_flink_1_require() {
        let job = job();
        let vertex = &job.vertices[1];
        for body in [
            &subtask(&job, 0, &vertex.subtasks[0]),
            &vertex_details(&job, vertex)["subtasks"][0],
            &task_managers_of_vertex(&job, vertex)["taskmanagers"][0],
            &subtask_times(&job, vertex)["subtasks"][0],
            &subtask_accumulators(vertex)["subtasks"][0],
        ] {
            assert_eq!((&body["host"], &body["endpoint"]), (&json!("h:6700"), &json!("h:6700")), "{body}");
        }
    }

    #[test]
    fn statistics_of_nothing_are_zeros_and_quantiles_are_values_that_occur() {
        assert_eq!(statistics(Vec::new())["median"], json!(0));
        let of = statistics((1..=20).collect());
        assert_eq!(
            (&of["p25"], &of["median"], &of["p95"], &of["avg"]),
            (&json!(5), &json!(10), &json!(19), &json!(10))
        );
    }
}
