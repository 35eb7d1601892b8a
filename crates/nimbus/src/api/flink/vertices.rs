//! Paths about vertices and subtasks.

use serde_json::json;

use super::{
    asked::{Answer, Asked, Failure, PathParts, Reply},
    jobs::Found,
};
use stormkeeper_flink_api::{Error, FlinkId, Job, Subtask, Vertex, backpressure, body};

/// Ids of job and vertex.
type Ids = (String, String);

/// Returns a vertex of a job.
fn vertex<'a>(job: &'a Job, text: &str) -> Result<&'a Vertex, Failure> {
    let id = FlinkId::of_path("vertexid", text)?;
    Ok(job.vertex(id).ok_or_else(|| Error::unknown("JobVertex", text))?)
}

/// Returns a number that is a part of the path.
pub(super) fn number(parameter: &'static str, text: &str) -> Result<usize, Failure> {
    Ok(text.parse().map_err(|_no_number| Error::path(parameter, text))?)
}

/// Returns a subtask of a vertex, with its number.
fn find_subtask<'a>(vertex: &'a Vertex, text: &str) -> Result<(usize, &'a Subtask), Failure> {
    let n = number("subtaskindex", text)?;
    Ok(vertex.subtasks.get(n).map(|subtask| (n, subtask)).ok_or_else(|| Error::unknown("Subtask", text))?)
}

/// Checks the number of an attempt; there is only the current one, 0.
fn check_attempt(text: &str) -> Result<(), Failure> {
    match number("attempt", text)? {
        0 => Ok(()),
        _ => Err(Error::unknown("Attempt", text).into()),
    }
}

pub(super) async fn details(asked: Asked, PathParts((job, id)): PathParts<Ids>) -> Answer {
    let Found { job, .. } = asked.job(&job)?;
    Ok(Reply(body::vertex_details(&job, vertex(&job, &id)?)))
}

pub(super) async fn accumulators(asked: Asked, PathParts((job, id)): PathParts<Ids>) -> Answer {
    let Found { job, .. } = asked.job(&job)?;
    Ok(Reply(body::vertex_accumulators(vertex(&job, &id)?.id)))
}

pub(super) async fn backpressure(asked: Asked, PathParts((job, id)): PathParts<Ids>) -> Answer {
    let (Found { job, .. }, package) = asked.job_with_plan(&job).await?;
    let vertex = vertex(&job, &id)?;
    Ok(Reply(match package {
        Some(_) => backpressure::body(&job, vertex),
        // Without the package nobody knows what receives from the vertex.
        None => backpressure::unknown(&job),
    }))
}

pub(super) async fn subtask_times(asked: Asked, PathParts((job, id)): PathParts<Ids>) -> Answer {
    let Found { job, .. } = asked.job(&job)?;
    Ok(Reply(body::subtask_times(&job, vertex(&job, &id)?)))
}

pub(super) async fn task_managers(asked: Asked, PathParts((job, id)): PathParts<Ids>) -> Answer {
    let Found { job, .. } = asked.job(&job)?;
    Ok(Reply(body::task_managers_of_vertex(&job, vertex(&job, &id)?)))
}

/// Answers without watermarks: tuples have no event time.
pub(super) async fn watermarks(asked: Asked, PathParts((job, id)): PathParts<Ids>) -> Answer {
    let Found { job, .. } = asked.job(&job)?;
    vertex(&job, &id)?;
    Ok(Reply(json!([])))
}

pub(super) async fn subtask_accumulators(asked: Asked, PathParts((job, id)): PathParts<Ids>) -> Answer {
    let Found { job, .. } = asked.job(&job)?;
    Ok(Reply(body::subtask_accumulators(vertex(&job, &id)?)))
}

pub(super) async fn subtask(
    asked: Asked,
    PathParts((job, id, subtask)): PathParts<(String, String, String)>,
) -> Answer {
    let Found { job, .. } = asked.job(&job)?;
    let (n, subtask) = find_subtask(vertex(&job, &id)?, &subtask)?;
    Ok(Reply(body::subtask(&job, n, subtask)))
}

pub(super) async fn attempt(
    asked: Asked,
    PathParts((job, id, subtask, attempt)): PathParts<(String, String, String, String)>,
) -> Answer {
    let Found { job, .. } = asked.job(&job)?;
    let (n, subtask) = find_subtask(vertex(&job, &id)?, &subtask)?;
    check_attempt(&attempt)?;
    Ok(Reply(body::subtask(&job, n, subtask)))
}

pub(super) async fn attempt_accumulators(
    asked: Asked,
    PathParts((job, id, subtask, attempt)): PathParts<(String, String, String, String)>,
) -> Answer {
    let Found { job, .. } = asked.job(&job)?;
    let vertex = vertex(&job, &id)?;
    let (n, _subtask) = find_subtask(vertex, &subtask)?;
    check_attempt(&attempt)?;
    Ok(Reply(body::attempt_accumulators(vertex.id, n)))
}
