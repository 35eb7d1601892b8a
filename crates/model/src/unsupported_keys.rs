//! Keys of Storm and JStorm that have no effect in Stormkeeper.

use crate::settings;

/// Keys, or prefixes of keys that end with a dot, and the reason why they have no effect.
const UNSUPPORTED: &[(&[&str], &str)] = &[
    (
        &[
            "nimbus.thrift.",
            "supervisor.thrift.",
            "nimbus.queue.size",
            "storm.thrift.",
            "storm.messaging.",
            "nimbus.host",
        ],
        "there is no Thrift and no Netty: nimbus serves HTTP at `ui.port`; set `nimbus.seeds` for clients",
    ),
    (
        &[
            "nimbus.childopts",
            "supervisor.childopts",
            "worker.childopts",
            "ui.childopts",
            "drpc.childopts",
            "logviewer.childopts",
            "pacemaker.childopts",
            "worker.gc.childopts",
            "worker.heap.memory.mb",
            "worker.profiler.",
            "worker.memory.size",
            "topology.worker.childopts",
            "topology.classpath",
            "topology.enable.classloader",
            "topology.worker.max.heap.size.mb",
            "topology.kryo.",
            "java.library.path",
        ],
        "Stormkeeper has no JVM",
    ),
    (&["drpc."], "there is no DRPC; clients can write requests to a queue that a spout reads"),
    (&["topology.trident."], "there is no Trident"),
    (&["logviewer."], "there is no log viewer; logs are files below `storm.local.dir`"),
    (
        &["pacemaker.", "storm.cluster.state.store"],
        "liveness is tracked by ZooKeeper's ephemeral znodes; there is no Pacemaker",
    ),
    (&["storm.cluster.mode"], "`stormkeeper local` runs a topology without a cluster"),
    (
        &[
            "storm.zookeeper.retry.",
            "nimbus.credential.",
            "task.credentials.poll.secs",
            "nimbus.code.sync.freq.secs",
        ],
        "retries and synchronization are driven by events, with built-in delays",
    ),
    (
        &[
            "storm.zookeeper.auth.",
            "storm.zookeeper.topology.auth.",
            "storm.zookeeper.superACL",
            "storm.zookeeper.ssl.",
        ],
        "access control and TLS towards ZooKeeper are not supported yet",
    ),
    (
        &[
            "nimbus.cleanup.inbox.freq.secs",
            "nimbus.inbox.jar.expiration.secs",
            "nimbus.file.copy.expiration.secs",
        ],
        "there is no inbox: a submission is checked and stored completely or not at all",
    ),
    (
        &[
            "storm.blobstore.",
            "nimbus.blobstore.",
            "supervisor.blobstore.",
            "supervisor.localizer.cache.",
            "supervisor.localizer.update.",
        ],
        "blobs are stored and fetched by the hash of their content",
    ),
    (
        &[
            "nimbus.assignments.",
            "nimbus.reassign",
            "nimbus.use.ip",
            "supervisor.use.ip",
            "nimbus.cache.",
            "cache.",
        ],
        "assignments are distributed through ZooKeeper only",
    ),
    (
        &[
            "supervisor.heartbeat.frequency.secs",
            "supervisor.worker.heartbeats.max.timeout.secs",
            "worker.max.timeout.secs",
            "executor.metrics.frequency.secs",
        ],
        "a supervisor or task is alive as long as its ZooKeeper session; its loss is detected at once",
    ),
    (
        &["task.refresh.poll.secs", "worker.log.level.reset.poll.secs"],
        "workers watch ZooKeeper instead of polling it",
    ),
    (
        &[
            "storm.scheduler",
            "blacklist.scheduler.",
            "isolation.scheduler.",
            "multitenant.scheduler.",
            "resource.aware.scheduler.",
            "topology.scheduler.strategy",
            "topology.priority",
        ],
        "there is one scheduler: even and sticky, within the capacity of supervisors",
    ),
    (
        &["storm.health.check.", "supervisor.enable", "storm.machine.resource."],
        "health checks of hosts are not supported yet",
    ),
    (
        &[
            "storm.daemon.metrics.",
            "storm.metricstore.",
            "storm.cluster.metrics.",
            "topology.metrics.",
            "topology.stats.sample.rate",
            "topology.builtin.metrics.",
        ],
        "Storm's metric settings are not supported; see docs/metrics.md",
    ),
    (
        &["storm.resource.isolation.", "storm.cgroup.", "supervisor.enable.cgroup"],
        "workers are not put in cgroups",
    ),
    (
        &[
            "topology.executor.",
            "topology.transfer.",
            "topology.producer.",
            "topology.backpressure.",
            "topology.disruptor.",
            "topology.spout.wait.strategy",
            "topology.bolt.wait.strategy",
        ],
        "queues have fixed bounds, and a full queue blocks its sender",
    ),
    (
        &["ui.filter", "ui.header.buffer.bytes", "ui.http.", "ui.https.", "ui.users"],
        "there is one API for all clients, without these settings",
    ),
    (
        &[
            "worker.stop.without.supervisor",
            "process.launcher.",
            "container.heartbeat.",
            "jstorm.",
            "cluster.conf.sync.enabled",
            "topology.master.",
        ],
        "this is a setting of JStorm",
    ),
];

/// Returns the warning for a key that has no effect, if the key is Storm's or looks like a setting of
/// topologies: `has no effect …`.
pub fn key_warning(key: &str) -> Option<String> {
    match reason(key) {
        Some(reason) => Some(format!("has no effect: {reason}")),
        None => settings::key_warning(key),
    }
}

/// Reason why `key` has no effect, if it is a key of Storm or JStorm.
fn reason(key: &str) -> Option<&'static str> {
    let matches = |pattern: &&str| match pattern.ends_with('.') {
        true => key.starts_with(*pattern),
        false => key == *pattern,
    };
    UNSUPPORTED.iter().find(|(patterns, _)| patterns.iter().any(matches)).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topology_settings_are_supported() {
        for setting in settings::KNOWN {
            assert_eq!(reason(setting.key), None, "{}", setting.key);
        }
    }

    #[test]
    fn a_pattern_with_a_final_dot_matches_keys_below_it_only() {
        assert!(reason("nimbus.thrift.port").is_some());
        assert!(reason("nimbus.thrift").is_none());
    }
}
