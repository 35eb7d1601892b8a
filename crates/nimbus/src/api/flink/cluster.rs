//! Paths about the cluster and the job manager.

use axum::extract::State;

use super::asked::{Answer, Asked, PathParts, Reply};
use crate::api::Api;
use stormkeeper_access::tls::TlsMode;
use stormkeeper_flink_api::body::{self, ClusterCounts};

pub(super) async fn overview(asked: Asked) -> Answer {
    let slots: usize = asked.view.supervisors.values().map(|supervisor| supervisor.ports.len()).sum();
    let assigned = asked.view.assignments.values().flat_map(|assignment| assignment.value.workers.keys());
    // A slot of a supervisor that is gone is not in the total.
    let used = assigned.filter(|slot| asked.view.supervisors.contains_key(&slot.supervisor)).count();
    let counts =
        ClusterCounts { workers: asked.workers().count(), slots, slots_free: slots.saturating_sub(used) };
    Ok(Reply(body::overview(counts, asked.job_states().into_iter().map(|(_, state)| state))))
}

pub(super) async fn config(State(api): State<Api>) -> Answer {
    Ok(Reply(body::config(api.nimbus.options().storm_api.actions)))
}

pub(super) async fn datasets() -> Answer {
    Ok(Reply(body::datasets()))
}

pub(super) async fn jars(asked: Asked) -> Answer {
    // Both schemes work with optional TLS.
    let has_tls = asked.nimbus.options().locks.tls().mode() != TlsMode::Off;
    Ok(Reply(body::jars(asked.nimbus.api(), has_tls)))
}

pub(super) async fn applications(asked: Asked) -> Answer {
    Ok(Reply(body::applications(&asked.jobs())))
}

pub(super) async fn application(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    Ok(Reply(body::application(&asked.job(&job)?.job)))
}

/// Answers with the settings of this nimbus that others may know.
pub(super) async fn job_manager_config(asked: Asked) -> Answer {
    let options = asked.nimbus.options();
    let (api, secs) = (asked.nimbus.api(), |time: std::time::Duration| time.as_secs().to_string());
    let (host, port) = api.rsplit_once(':').unwrap_or((api, ""));
    Ok(Reply(body::job_manager_configuration(&[
        ("jobmanager.rpc.address", options.host.clone()),
        ("rest.address", host.to_owned()),
        ("rest.port", port.to_owned()),
        ("nimbus.monitor.freq.secs", secs(options.monitor_period)),
        ("nimbus.supervisor.timeout.secs", secs(options.supervisor_timeout)),
        ("nimbus.task.launch.secs", secs(options.task_launch)),
        ("nimbus.task.timeout.secs", secs(options.task_timeout)),
    ])))
}

pub(super) async fn environment() -> Answer {
    Ok(Reply(body::environment()))
}

/// Answers without logs: a nimbus does not serve its own.
pub(super) async fn job_manager_logs() -> Answer {
    Ok(Reply(body::logs([])))
}

pub(super) async fn job_manager_thread_dump() -> Answer {
    Ok(Reply(body::thread_dump()))
}
