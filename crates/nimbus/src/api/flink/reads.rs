//! Paths about jobs.

use super::asked::{Answer, Asked, Failure, PathParts, Reply};
use crate::refusal::Refusal;
use stormkeeper_coordination::cluster::layout;
use stormkeeper_flink_api::{
    Error, FlinkId, Job,
    body::{self, ExceptionEntry},
};
use stormkeeper_model::{TaskId, error::TaskError};

/// Number of exceptions in an answer, as in Flink.
const EXCEPTIONS: usize = 20;

/// Maximum number of tasks whose errors are read for one answer; each task has at most ten.
const TASKS_WITH_ERRORS_MAX: usize = 200;

pub(super) async fn all(asked: Asked) -> Answer {
    Ok(Reply(body::job_list(&asked.job_states())))
}

pub(super) async fn overview(asked: Asked) -> Answer {
    Ok(Reply(body::job_overview(&asked.jobs())))
}

pub(super) async fn details(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    let (found, _package) = asked.job_with_plan(&job).await?;
    Ok(Reply(body::job_details(&found.job)))
}

pub(super) async fn status(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    Ok(Reply(body::status(&asked.job(&job)?.job)))
}

pub(super) async fn plan(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    let (found, _package) = asked.job_with_plan(&job).await?;
    Ok(Reply(body::plan(&found.job)))
}

/// Answers with the settings of Storm that a topology has. Other settings are for its components,
/// and may be secret.
pub(super) async fn config(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    let (found, package) = asked.job_with_plan(&job).await?;
    let settings = package.iter().flat_map(|topology| &topology.settings);
    let storm = settings.filter(|(key, _)| key.starts_with("topology."));
    let settings: Vec<_> = storm
        .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    Ok(Reply(body::job_config(&found.job, &settings)))
}

/// Answers with the settings of the nimbus: jobs have no job manager of their own.
pub(super) async fn job_manager_config(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    asked.job(&job)?;
    super::cluster::job_manager_config(asked).await
}

pub(super) async fn environment(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    asked.job(&job)?;
    Ok(Reply(body::environment()))
}

pub(super) async fn exceptions(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    let max = asked.query.number("maxExceptions")?.unwrap_or(EXCEPTIONS);
    let found = asked.job(&job)?;
    // The errors of a topology are removed with it.
    if !asked.view.topologies.contains_key(&found.topology) {
        return Ok(Reply(body::exceptions(Vec::new(), max, false)));
    }
    let store = asked.nimbus.store();
    let path = layout::taskerrors(&found.topology);
    let names = store.tree().children(&path).await.map_err(Refusal::Tree)?.unwrap_or_default();
    let mut tasks: Vec<TaskId> = names.iter().filter_map(|name| name.parse().ok()).collect();
    tasks.sort_unstable();
    let truncated = tasks.len() > TASKS_WITH_ERRORS_MAX;
    let mut errors = Vec::new();
    for task in tasks.into_iter().take(TASKS_WITH_ERRORS_MAX) {
        let of_task = store.errors(&found.topology, task).await.map_err(Refusal::from)?;
        errors.extend(of_task.into_iter().map(|error| exception(&found.job, error)));
    }
    Ok(Reply(body::exceptions(errors, max, truncated)))
}

fn exception(job: &Job, error: TaskError) -> ExceptionEntry {
    let vertex = job.vertices.iter().find(|vertex| vertex.name == error.component.as_str());
    let subtasks = vertex.map_or(&[][..], |vertex| &vertex.subtasks);
    let rank = subtasks.iter().position(|subtask| subtask.task == error.task.0);
    let task = match rank {
        Some(rank) => format!("{} ({}/{})", error.component, rank + 1, subtasks.len()),
        // A task that is not there any more.
        None => format!("{} (task {})", error.component, error.task),
    };
    ExceptionEntry {
        task,
        worker: format!("{}:{}", error.host, error.port),
        at_ms: error.time.as_millis(),
        message: error.message,
        stack: error.stack,
    }
}

pub(super) async fn accumulators(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    asked.job(&job)?;
    Ok(Reply(body::job_accumulators()))
}

pub(super) async fn execution_result(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    Ok(Reply(body::execution_result(&asked.job(&job)?.job)))
}

pub(super) async fn checkpoints(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    asked.job(&job)?;
    Ok(Reply(body::checkpoints()))
}

pub(super) async fn checkpoint_config(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    asked.job(&job)?;
    Ok(Reply(body::checkpoint_config()))
}

fn no_checkpoint(asked: &Asked, job: &str, checkpoint: &str) -> Result<std::convert::Infallible, Failure> {
    checkpoint.parse::<u64>().map_err(|_no_number| Error::path("checkpointid", checkpoint))?;
    asked.job(job)?;
    Err(Error::unknown("Checkpoint", checkpoint).into())
}

pub(super) async fn checkpoint(
    asked: Asked,
    PathParts((job, checkpoint)): PathParts<(String, String)>,
) -> Answer {
    match no_checkpoint(&asked, &job, &checkpoint)? {}
}

pub(super) async fn checkpoint_of_vertex(
    asked: Asked,
    PathParts((job, checkpoint, vertex)): PathParts<(String, String, String)>,
) -> Answer {
    FlinkId::of_path("vertexid", &vertex)?;
    match no_checkpoint(&asked, &job, &checkpoint)? {}
}
