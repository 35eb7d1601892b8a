//! Answers about what Stormkeeper does not have: Flink's shapes without content.

use serde_json::{Value, json};

use crate::FlinkId;

/// Answer of `/jobs/:jobid/checkpoints`: no state is checkpointed.
pub fn checkpoints() -> Value {
    let none =
        json!({ "min": 0, "max": 0, "avg": 0, "p50": 0.0, "p90": 0.0, "p95": 0.0, "p99": 0.0, "p999": 0.0 });
    json!({
        "counts": { "restored": 0, "total": 0, "in_progress": 0, "completed": 0, "failed": 0 },
        "summary": {
            "checkpointed_size": none, "state_size": none, "end_to_end_duration": none,
            "alignment_buffered": none, "processed_data": none, "persisted_data": none,
        },
        "latest": { "completed": null, "savepoint": null, "failed": null, "restored": null },
        "history": [],
    })
}

/// Answer of `/jobs/:jobid/checkpoints/config`: the interval is the one that Flink sends without
/// periodic checkpoints.
pub fn checkpoint_config() -> Value {
    json!({
        "mode": "at_least_once",
        "interval": i64::MAX,
        "timeout": 0,
        "min_pause": 0,
        "max_concurrent": 0,
        "externalization": { "enabled": false, "delete_on_cancellation": true },
        "state_backend": "none",
        "checkpoint_storage": "none",
        "unaligned_checkpoints": false,
        "tolerable_failed_checkpoints": 0,
        "aligned_checkpoint_timeout": 0,
        "checkpoints_after_tasks_finish": false,
        "state_changelog_enabled": false,
        "changelog_periodic_materialization_interval": 0,
        "changelog_storage": "none",
    })
}

/// Answer of `/jobs/:jobid/accumulators`.
pub fn job_accumulators() -> Value {
    json!({ "job-accumulators": [], "user-task-accumulators": [], "serialized-user-task-accumulators": {} })
}

/// Answer of `/jobs/:jobid/vertices/:vertexid/accumulators`.
pub fn vertex_accumulators(vertex: FlinkId) -> Value {
    json!({ "id": vertex.to_string(), "user-accumulators": [] })
}

/// Answer of `…/subtasks/:subtask/attempts/:attempt/accumulators`.
pub fn attempt_accumulators(vertex: FlinkId, subtask: usize) -> Value {
    json!({ "subtask": subtask, "attempt": 0, "id": vertex.to_string(), "user-accumulators": [] })
}

/// Answer of `/datasets`.
pub fn datasets() -> Value {
    json!({ "dataSets": [] })
}

/// Answer of `/jars` of a nimbus with TLS or without.
pub fn jars(api: &str, has_tls: bool) -> Value {
    let scheme = if has_tls { "https" } else { "http" };
    json!({ "address": format!("{scheme}://{api}"), "files": [] })
}

/// Answer of the thread dumps: there is no JVM.
pub fn thread_dump() -> Value {
    json!({ "threadInfos": [] })
}

/// Answer of `/jobmanager/environment`: there is no JVM.
pub fn environment() -> Value {
    json!({ "jvm": { "version": "", "arch": std::env::consts::ARCH, "options": [] }, "classpath": [] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_jars_has_the_scheme_that_the_nimbus_speaks() {
        assert_eq!(jars("n:1", true)["address"], "https://n:1");
        assert_eq!(jars("n:1", false)["address"], "http://n:1");
    }
}
