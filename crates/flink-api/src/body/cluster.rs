//! Bodies about the cluster and the job manager.

use serde_json::{Value, json};

use super::job_application;
use crate::{Job, JobState};

/// Name and version of the product, in place of a version of Flink.
fn version() -> String {
    format!("Stormkeeper {}", env!("CARGO_PKG_VERSION"))
}

/// Numbers of the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClusterCounts {
    /// Registered workers.
    pub workers: usize,
    /// Slots of all supervisors.
    pub slots: usize,
    /// Slots without a worker.
    pub slots_free: usize,
}

/// Returns the body of `/overview`. As in Flink, a job that has not ended counts as running.
pub fn overview(counts: ClusterCounts, states: impl IntoIterator<Item = JobState>) -> Value {
    let (ended, running): (Vec<_>, Vec<_>) =
        states.into_iter().partition(|state| *state == JobState::Canceled);
    json!({
        "taskmanagers": counts.workers,
        "slots-total": counts.slots,
        "slots-available": counts.slots_free,
        "jobs-running": running.len(),
        "jobs-finished": 0,
        "jobs-cancelled": ended.len(),
        "jobs-failed": 0,
        "flink-version": version(),
        "flink-commit": "",
    })
}

/// Returns the body of `/config`. `cancels` is true if jobs can be cancelled.
pub fn config(cancels: bool) -> Value {
    json!({
        "refresh-interval": 10_000,
        "timezone-name": "Coordinated Universal Time",
        "timezone-offset": 0,
        "flink-version": version(),
        "flink-revision": "",
        "features": { "web-submit": false, "web-cancel": cancels, "web-rescale": false, "web-history": false },
    })
}

/// Returns the body of `/jobmanager/config`.
pub fn job_manager_configuration(entries: &[(&str, String)]) -> Value {
    entries.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}

/// Returns the body of `/applications/overview`: each topology is an application with one job.
pub fn applications(jobs: &[Job]) -> Value {
    json!({ "applications": jobs.iter().map(job_application).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_that_has_not_ended_counts_as_running_and_a_removed_one_as_cancelled() {
        let counts = ClusterCounts { workers: 2, slots: 8, slots_free: 6 };
        let states = [JobState::Restarting, JobState::Canceled, JobState::Running, JobState::Cancelling];
        let body = overview(counts, states);
        assert_eq!((&body["jobs-running"], &body["jobs-cancelled"]), (&json!(3), &json!(1)), "{body}");
        assert_eq!((&body["taskmanagers"], &body["slots-available"]), (&json!(2), &json!(6)), "{body}");
    }
}
