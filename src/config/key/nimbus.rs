//! Keys up to those of nimbuses.

use super::{Key, WEEK_MILLIS, WEEK_SECS, key};
use crate::config::value::Kind;

/// In alphabetical order.
pub(super) const KEYS: &[Key] = &[
    key(
        "cluster.name",
        Kind::Text,
        "\"default\"",
        "The name of this cluster in external stores of metrics; it distinguishes several clusters in one store.",
    ),
    key(
        "nimbus.blobs.unused.bytes.max",
        Kind::Bytes(1 << 20, 1 << 40),
        "1GiB",
        "The maximum size of all blobs on a nimbus that no topology uses; beyond it uploads are rejected.",
    ),
    key(
        "nimbus.candidate.grace.secs",
        Kind::Secs(0, 3600),
        "30",
        "How long a nimbus that is missing blobs of live topologies delays its candidacy.",
    ),
    key(
        "nimbus.disk.free.bytes.min",
        Kind::Bytes(0, 1 << 40),
        "null",
        "Free space on the disk of a nimbus below which uploads are rejected; unset, a twentieth of the disk, and at \
         most 1 GiB.",
    ),
    key(
        "nimbus.lost.hosts.share.max",
        Kind::Share,
        "0.5",
        "The largest share of the supervisors that may vanish together and have their tasks moved when their sessions expire; if more vanish, their tasks wait for nimbus.supervisor.timeout.secs. 1 always moves them, 0 never.",
    ),
    key(
        "nimbus.max.blob.bytes",
        Kind::Bytes(64 << 10, 4 << 30),
        "64MiB",
        "The maximum size of a topology with its resources.",
    ),
    key(
        "nimbus.max.moves.per.round",
        Kind::Whole(1, 1_000_000),
        "5000",
        "The maximum number of tasks that one round of decisions moves away from lost slots.",
    ),
    key(
        "nimbus.metric.close.delay.secs",
        Kind::Secs(0, 600),
        "20",
        "How long after its end a minute of metrics is exported; values that arrive later are exported again with their minute.",
    ),
    key(
        "nimbus.metric.max.per.topology",
        Kind::Whole(100, 10_000_000),
        "200000",
        "The maximum number of metrics of one topology; further metrics are rejected and counted.",
    ),
    key(
        "nimbus.metric.query.client.class",
        Kind::Text,
        "\"nimbus\"",
        "The source from which a follower fetches the names and ids of metrics: `nimbus` is the leader.",
    ),
    key(
        "nimbus.metric.queue.max.bytes",
        Kind::Bytes(1 << 20, 1 << 40),
        "1GiB",
        "The maximum size of the export queue; beyond it the oldest entries are dropped and counted.",
    ),
    key(
        "nimbus.metric.retention.day.secs",
        Kind::Secs(60, 10 * 365 * 24 * 3600),
        "63072000",
        "How long points of a day are kept: two years by default.",
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
        "How long a new leader that is missing committed metrics pauses ingest and waits for a replica that has them; then it continues without them (unclean takeover).",
    ),
    key(
        "nimbus.metric.uploader.class",
        Kind::Text,
        "\"log\"",
        "The exporters, separated by commas: `log`, `file`, `alimonitor`, `opentsdb`; or `none`.",
    ),
    key(
        "nimbus.metrics.plugin.alimonitor.insert.filters",
        Kind::Text,
        "\"NONE\"",
        "Levels that are not exported, separated by commas (`task`, `stream`, …); `NONE` excludes none, `ALL` all.",
    ),
    key(
        "nimbus.metrics.plugin.alimonitor.monitor.name",
        Kind::Text,
        "\"stormkeeper\"",
        "The monitor name under which metrics are posted.",
    ),
    key(
        "nimbus.metrics.plugin.alimonitor.timeout.secs",
        Kind::Secs(1, 600),
        "10",
        "The timeout of one post.",
    ),
    key(
        "nimbus.metrics.plugin.alimonitor.url",
        Kind::Text,
        "\"http://127.0.0.1:15776/passive\"",
        "The URL to which metrics are posted.",
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
        "The number of files that are kept, including the current one.",
    ),
    key(
        "nimbus.metrics.plugin.file.insert.filters",
        Kind::Text,
        "\"NONE\"",
        "Levels that are not exported, separated by commas (`task`, `stream`, …); `NONE` excludes none, `ALL` all.",
    ),
    key(
        "nimbus.metrics.plugin.file.max.bytes",
        Kind::Bytes(64 << 10, 1 << 40),
        "64MiB",
        "The size at which a file is rotated.",
    ),
    key(
        "nimbus.metrics.plugin.log.insert.filters",
        Kind::Text,
        "\"NONE\"",
        "Levels that are not exported, separated by commas (`task`, `stream`, …); `NONE` excludes none, `ALL` all.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.batch",
        Kind::Whole(1, 1000),
        "50",
        "The maximum number of points in one request.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.events",
        Kind::Text,
        "\"none\"",
        "`annotations` also sends the events of topologies (start, kill, new sample rate) as OpenTSDB annotations; `none` does not, as other servers do not support them.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.insert.filters",
        Kind::Text,
        "\"NONE\"",
        "Levels that are not exported, separated by commas (`task`, `stream`, …); `NONE` excludes none, `ALL` all.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.max.tags",
        Kind::Whole(6, 64),
        "8",
        "The maximum number of tags per point that the server accepts; Stormkeeper uses six of them.",
    ),
    key("nimbus.metrics.plugin.opentsdb.prefix", Kind::Text, "\"storm\"", "The prefix of metric names."),
    key(
        "nimbus.metrics.plugin.opentsdb.tags",
        Kind::Text,
        "null",
        "Additional tags of each point: `key=value`, separated by commas.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.timeout.secs",
        Kind::Secs(1, 600),
        "10",
        "The timeout of one request.",
    ),
    key(
        "nimbus.metrics.plugin.opentsdb.url",
        Kind::Text,
        "\"http://127.0.0.1:4242\"",
        "The URL of the server; `/api/put` is appended.",
    ),
    key(
        "nimbus.monitor.freq.secs",
        Kind::Secs(1, 3600),
        "10",
        "How often nimbus decides if no event triggers a decision.",
    ),
    key(
        "nimbus.prometheus.series.max",
        Kind::Whole(0, 1_000_000),
        "20000",
        "The maximum number of series of topologies and components on the page for Prometheus; beyond it the lowest levels are left out as a whole.",
    ),
    key(
        "nimbus.quotas.file",
        Kind::Text,
        "null",
        "The file with the quotas of owners: a line for each, as `team topologies=50 tasks=1000 blob-bytes=1GiB`, and `*` for \
         all others; the same on all nimbuses, which read it again when it changes. Unset, nobody is limited.",
    ),
    key(
        "nimbus.seeds",
        Kind::Hosts,
        "[\"localhost:8080\"]",
        "The nimbus replicas to which commands send requests; the default port is `ui.port`.",
    ),
    key(
        "nimbus.settle.secs",
        Kind::Secs(0, 3600),
        "null",
        "How long a new leader moves no tasks; unset, 1.5 times the session timeout.",
    ),
    key(
        "nimbus.supervisor.timeout.secs",
        Kind::Secs(0, WEEK_SECS),
        "30",
        "How long a supervisor that has stopped may be gone before its tasks, if they are gone too, are moved; the tasks of a host that is lost move when its sessions expire.",
    ),
    key(
        "nimbus.task.launch.secs",
        Kind::Secs(1, WEEK_SECS),
        "120",
        "How long a task may take from its assignment to its first heartbeat.",
    ),
    key(
        "nimbus.task.timeout.secs",
        Kind::Secs(1, WEEK_SECS),
        "30",
        "How long a task may be without a heartbeat before it counts as dead.",
    ),
    key(
        "nimbus.topology.blobstore.deletion.delay.ms",
        Kind::Millis(0, WEEK_MILLIS),
        "300000",
        "How long a nimbus keeps a blob that no topology uses.",
    ),
];
