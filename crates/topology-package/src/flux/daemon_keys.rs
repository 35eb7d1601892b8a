//! Keys below `config:` that have no effect on a topology.

use stormkeeper_model::unsupported_keys;

/// Keys of daemons, or prefixes of them that end with a dot.
const OF_DAEMONS: &[&str] = &[
    "cluster.name",
    "nimbus.",
    "storm.access",
    "storm.cluster.",
    "storm.insecure",
    "storm.local.",
    "storm.tls",
    "storm.tls.",
    "storm.zookeeper.",
    "supervisor.",
    "task.heartbeat.frequency.secs",
    "ui.",
    "worker.abandoned.secs",
    "worker.heartbeat.frequency.secs",
    "worker.metric.report.frequency.secs",
    "worker.unfinished.frames.max.bytes",
];

/// Key of supervisors that a topology may set for its components.
const OF_BOTH: &str = "supervisor.worker.timeout.secs";

/// Returns the warning for a key of a topology that has no effect: `has no effect …`.
pub fn topology_key_warning(key: &str) -> Option<String> {
    unsupported_keys::key_warning(key).or_else(|| {
        let is_of = |daemon: &str| match daemon.ends_with('.') {
            true => key.starts_with(daemon),
            false => key == daemon,
        };
        let is_of_daemon = key != OF_BOTH && OF_DAEMONS.iter().any(|daemon| is_of(daemon));
        is_of_daemon.then(|| {
            "has no effect in a topology: it is a key of the daemons; set it in their storm.yaml".to_owned()
        })
    })
}
