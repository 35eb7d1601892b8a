//! The keys that have an effect.

use crate::config::value::Kind;

/// A key of `storm.yaml`.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name, Storm's where Storm has it.
    pub name: &'static str,
    /// What it takes. `null` is taken as well where it is the default.
    pub kind: Kind,
    /// Its value when nobody sets it, as YAML.
    pub default: &'static str,
    /// One line for the reference.
    pub doc: &'static str,
}

/// The longest wait that makes sense anywhere: longer ones are milliseconds in a field of
/// seconds.
const WEEK_SECS: u64 = 7 * 24 * 3600;
const WEEK_MILLIS: u64 = WEEK_SECS * 1000;

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

/// All of them, in alphabetical order; `topology.*` has a table of its own in
/// [`stormkeeper_model::settings`].
pub const KEYS: &[Key] = &[
    key(
        "nimbus.candidate.grace.secs",
        Kind::Secs(0, 3600),
        "30",
        "How long a nimbus that lacks blobs of live topologies leaves it to others to lead.",
    ),
    key(
        "nimbus.max.blob.bytes",
        Kind::Bytes(64 << 10, 4 << 30),
        "64MiB",
        "The largest topology with its resources that is accepted.",
    ),
    key(
        "nimbus.max.moves.per.round",
        Kind::Whole(1, 1_000_000),
        "5000",
        "The most tasks that one round of decisions moves away from lost places.",
    ),
    key(
        "nimbus.metric.close.delay.secs",
        Kind::Secs(0, 600),
        "20",
        "How long after its end a minute of metrics is sent to external stores; what comes later is sent again with it.",
    ),
    key(
        "nimbus.metric.max.per.topology",
        Kind::Whole(100, 10_000_000),
        "200000",
        "The most metrics of one topology that are kept; more are refused and counted.",
    ),
    key(
        "nimbus.metric.query.client.class",
        Kind::Text,
        "\"nimbus\"",
        "What a following nimbus asks for the names and ids of metrics: `nimbus` is the leader.",
    ),
    key(
        "nimbus.metric.queue.max.bytes",
        Kind::Bytes(1 << 20, 1 << 40),
        "1GiB",
        "The most that waits for external stores; the oldest is dropped beyond it, and counted.",
    ),
    key(
        "nimbus.metric.retention.day.secs",
        Kind::Secs(60, 10 * 365 * 24 * 3600),
        "63072000",
        "How long points of a day are kept: two years.",
    ),
    key(
        "nimbus.metric.retention.minute.secs",
        Kind::Secs(60, 10 * 365 * 24 * 3600),
        "86400",
        "How long points of a minute are kept.",
    ),
    key(
        "nimbus.metric.retention.ten.minutes.secs",
        Kind::Secs(60, 10 * 365 * 24 * 3600),
        "604800",
        "How long points of ten minutes are kept.",
    ),
    key(
        "nimbus.metric.retention.two.hours.secs",
        Kind::Secs(60, 10 * 365 * 24 * 3600),
        "5184000",
        "How long points of two hours are kept.",
    ),
    key(
        "nimbus.metric.takeover.grace.secs",
        Kind::Secs(0, WEEK_SECS),
        "600",
        "How long a new leader takes no metrics in when it lacks some that were safe, and waits for a nimbus that had them; then it goes on without.",
    ),
    key(
        "nimbus.metric.uploader.class",
        Kind::Text,
        "\"log\"",
        "What sends metrics to external stores, by comma: `log`, `file`, `alimonitor`, `opentsdb`; or `none`.",
    ),
    key(
        "nimbus.metrics.plugin.alimonitor.insert.filters",
        Kind::Text,
        "\"NONE\"",
        "Levels that are left out, by comma (`task`, `stream`, …); `NONE` leaves none out, `ALL` all.",
    ),
    key(
        "nimbus.metrics.plugin.alimonitor.monitor.name",
        Kind::Text,
        "\"stormkeeper\"",
        "The monitor that metrics are posted for.",
    ),
    key(
        "nimbus.metrics.plugin.alimonitor.timeout.secs",
        Kind::Secs(1, 600),
        "10",
        "How long one post may take.",
    ),
    key(
        "nimbus.metrics.plugin.alimonitor.url",
        Kind::Text,
        "\"http://127.0.0.1:15776/passive\"",
        "Where metrics are posted to.",
    ),
    key(
        "nimbus.metrics.plugin.file.dir",
        Kind::Text,
        "null",
        "The directory of `metrics.jsonl`; unset, `metrics-files` in `storm.local.dir`.",
    ),
    key(
        "nimbus.metrics.plugin.file.files",
        Kind::Whole(2, 1000),
        "8",
        "So many files are kept, the one that grows included.",
    ),
    key(
        "nimbus.metrics.plugin.file.insert.filters",
        Kind::Text,
        "\"NONE\"",
        "Levels that are left out, by comma (`task`, `stream`, …); `NONE` leaves none out, `ALL` all.",
    ),
    key(
        "nimbus.metrics.plugin.file.max.bytes",
        Kind::Bytes(64 << 10, 1 << 40),
        "64MiB",
        "A file of this size is not appended to any more.",
    ),
    key(
        "nimbus.metrics.plugin.log.insert.filters",
        Kind::Text,
        "\"NONE\"",
        "Levels that are left out, by comma (`task`, `stream`, …); `NONE` leaves none out, `ALL` all.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.batch",
        Kind::Whole(1, 1000),
        "50",
        "The most points in one request.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.events",
        Kind::Text,
        "\"none\"",
        "`annotations` tells OpenTSDB when topologies start and end; `none` does not, as other servers have no place for that.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.insert.filters",
        Kind::Text,
        "\"NONE\"",
        "Levels that are left out, by comma (`task`, `stream`, …); `NONE` leaves none out, `ALL` all.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.max.tags",
        Kind::Whole(5, 64),
        "8",
        "The most tags that the server takes on a point; five of them are ours.",
    ),
    key("nimbus.metrics.plugin.opentsdb.prefix", Kind::Text, "\"storm\"", "What metric names begin with."),
    key(
        "nimbus.metrics.plugin.opentsdb.tags",
        Kind::Text,
        "null",
        "Tags that each point gets on top: `key=value`, by comma.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.timeout.secs",
        Kind::Secs(1, 600),
        "10",
        "How long one request may take.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.url",
        Kind::Text,
        "\"http://127.0.0.1:4242\"",
        "The server; `/api/put` is appended.",
    ),
    key(
        "nimbus.monitor.freq.secs",
        Kind::Secs(1, 3600),
        "10",
        "How often nimbus decides when no event wakes it.",
    ),
    key(
        "nimbus.seeds",
        Kind::Hosts,
        "[\"localhost:8080\"]",
        "The nimbus replicas that commands ask; without a port, that of `ui.port`.",
    ),
    key(
        "nimbus.settle.secs",
        Kind::Secs(0, 3600),
        "null",
        "How long a new leader moves nothing; unset, the session timeout and half of it.",
    ),
    key(
        "nimbus.supervisor.timeout.secs",
        Kind::Secs(0, WEEK_SECS),
        "30",
        "How long a supervisor may be gone before its tasks, if they are gone too, move.",
    ),
    key(
        "nimbus.task.launch.secs",
        Kind::Secs(1, WEEK_SECS),
        "120",
        "How long a task may take from its assignment to its first beat.",
    ),
    key(
        "nimbus.task.timeout.secs",
        Kind::Secs(1, WEEK_SECS),
        "30",
        "How long a task may be without a beat before it is dead.",
    ),
    key(
        "nimbus.topology.blobstore.deletion.delay.ms",
        Kind::Millis(0, WEEK_MILLIS),
        "300000",
        "How long a nimbus keeps a blob that no topology uses.",
    ),
    key(
        "storm.local.dir",
        Kind::Text,
        "\"stormkeeper-local\"",
        "Where a daemon keeps its id, blobs, ledger, workers' directories and logs.",
    ),
    key(
        "storm.local.hostname",
        Kind::Text,
        "null",
        "The name that others reach this machine at; unset, the machine's own.",
    ),
    key(
        "storm.zookeeper.connection.timeout",
        Kind::Millis(100, WEEK_MILLIS),
        "15000",
        "How long a request to ZooKeeper may take before its outcome counts as unknown.",
    ),
    key(
        "storm.zookeeper.port",
        Kind::Whole(1, 65_535),
        "2181",
        "The port of ZooKeeper servers that are named without one.",
    ),
    key(
        "storm.zookeeper.root",
        Kind::TreePath,
        "\"/stormkeeper\"",
        "The znode that everything is below; created when it is missing.",
    ),
    key("storm.zookeeper.servers", Kind::Hosts, "[\"localhost\"]", "The servers of the ZooKeeper ensemble."),
    key(
        "storm.zookeeper.session.timeout",
        Kind::Millis(1000, 3_600_000),
        "10000",
        "The session timeout asked for; a killed leader is replaced after it.",
    ),
    key(
        "supervisor.cpu.capacity",
        Kind::Whole(1, 1_000_000),
        "400",
        "The CPU that this machine offers to workers, in hundredths of a core.",
    ),
    key(
        "supervisor.localizer.cleanup.interval.ms",
        Kind::Millis(0, WEEK_MILLIS),
        "600000",
        "How long a supervisor keeps a blob that no slot uses.",
    ),
    key(
        "supervisor.memory.capacity.mb",
        Kind::Whole(1, 1 << 30),
        "4096",
        "The memory that this machine offers to workers, in MiB.",
    ),
    key(
        "supervisor.monitor.frequency.secs",
        Kind::Secs(1, 3600),
        "3",
        "How often a supervisor looks at everything again when no event wakes it.",
    ),
    key(
        "supervisor.slots.ports",
        Kind::Ports,
        "[6700, 6701, 6702, 6703]",
        "A slot for each port; its worker listens there for tuples.",
    ),
    key(
        "supervisor.worker.shutdown.sleep.secs",
        Kind::Secs(0, 3600),
        "3",
        "How long a worker has between SIGTERM and SIGKILL.",
    ),
    key(
        "supervisor.worker.start.timeout.secs",
        Kind::Secs(1, WEEK_SECS),
        "120",
        "How long a worker may take from its launch to its first heartbeat.",
    ),
    key(
        "supervisor.worker.timeout.secs",
        Kind::Secs(1, WEEK_SECS),
        "30",
        "How long a worker may be silent before it is killed and started again.",
    ),
    key(
        "task.heartbeat.frequency.secs",
        Kind::Secs(1, 3600),
        "10",
        "How often the data of a task's beat is refreshed at most; that the task lives is seen at once.",
    ),
    key("ui.host", Kind::Address, "\"0.0.0.0\"", "The address that the API of a nimbus listens at."),
    key("ui.port", Kind::Port, "8080", "The port of the API of a nimbus; 0 takes any free one."),
    key(
        "worker.heartbeat.frequency.secs",
        Kind::Secs(1, 3600),
        "1",
        "How often a worker tells its supervisor that it lives.",
    ),
    key(
        "worker.metric.report.frequency.secs",
        Kind::Secs(1, 60),
        "60",
        "How often a worker reports its metrics; also at the end of each minute.",
    ),
];

/// The key called `name`, when it is known.
pub fn known(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}
