//! Names of the built-in metrics in families, without prefix and level.

use std::{collections::HashMap, sync::LazyLock};

use super::Level;
use stormkeeper_metrics::{
    MetricName, Subject,
    builtin::{self as b, Builtin, BuiltinStatus, SubjectKind},
    name::{NIMBUS, SUPERVISOR},
    rollup,
};
use stormkeeper_model::TopologyId;

/// Name of each metric.
const ROWS: &[(Builtin, &str)] = &[
    (b::EMITTED, "emitted_tuples"),
    (b::TRANSFERRED, "transferred_tuples"),
    (b::EXECUTED, "executed_tuples"),
    (b::ACKED, "acked_tuples"),
    (b::FAILED, "failed_tuples"),
    (b::RECV_TPS, "received_tuples"),
    (b::PROCESS_LATENCY, "process_latency_seconds"),
    (b::TUPLE_LIFE_CYCLE, "tuple_life_cycle_seconds"),
    (b::EXECUTOR_TIME, "executor_time_seconds"),
    (b::ACKER_TIME, "acker_time_seconds"),
    (b::PENDING_NUM, "pending_tuples"),
    (b::EMIT_TIME, "emit_time_seconds"),
    (b::SERIALIZE_TIME, "serialize_time_seconds"),
    (b::DESERIALIZE_TIME, "deserialize_time_seconds"),
    (b::BATCH_INTER_TIME, "batch_interval_seconds"),
    (b::EMPTY_CPU_RATIO, "empty_calls_ratio"),
    (b::CAPACITY, "capacity_ratio"),
    (b::EXECUTOR_QUEUE, "executor_queue_ratio"),
    (b::SERIALIZE_QUEUE, "serialize_queue_ratio"),
    (b::CPU_USED_RATIO, "cpu_used_cores"),
    (b::MEMORY_USED, "memory_used_bytes"),
    (b::THREADS, "threads"),
    (b::OPEN_FILES, "open_files"),
    (b::NETTY_CLI_SEND_SPEED, "sent_bytes"),
    (b::NETTY_SRV_RECV_SPEED, "received_bytes"),
    (b::NETTY_CLI_SEND_BATCH_SIZE, "frame_size_bytes"),
    (b::NETTY_SRV_TRANSMIT_TIME, "frame_transit_seconds"),
    (b::MSG_DECODE_TIME, "frame_decode_seconds"),
    (b::NETTY_CLI_SEND_TIME, "frame_send_seconds"),
    (b::NETTY_CLI_CACHE_SIZE, "frame_in_flight_bytes"),
    (b::NETTY_CLI_SEND_PENDING, "send_pending_tuples"),
    (b::SUPERVISOR_CPU_USED_RATIO, "cpu_used_ratio"),
    (b::SUPERVISOR_MEMORY_USAGE, "memory_used_ratio"),
    (b::SUPERVISOR_DISK_USAGE, "disk_used_ratio"),
    (b::SUPERVISOR_NET_RECV_SPEED, "network_received_bytes_per_second"),
    (b::SUPERVISOR_NET_SEND_SPEED, "network_sent_bytes_per_second"),
    (b::NIMBUS_CPU_USED_RATIO, "cpu_used_cores"),
    (b::NIMBUS_MEMORY_USED, "memory_used_bytes"),
    (b::NIMBUS_OPEN_FILES, "open_files"),
    (b::NIMBUS_VIEW_AGE, "view_age_seconds"),
    (b::NIMBUS_METRIC_STORE_BYTES, "metric_store_bytes"),
    (b::NIMBUS_METRIC_STORE_QUEUE, "metric_store_queue_requests"),
    (b::NIMBUS_INGEST_POINTS, "ingested_points"),
    (b::NIMBUS_INGEST_BATCHES, "ingested_batches"),
    (b::NIMBUS_INGEST_REJECTED, "rejected_batches"),
    (b::NIMBUS_REGISTERED, "registered_names"),
    (b::NIMBUS_EXPORT_QUEUE, "export_queue_entries"),
    (b::NIMBUS_EXPORT_DROPPED, "export_dropped_entries"),
    (b::NIMBUS_EXPORT_REJECTED, "export_rejected_numbers"),
    (b::NIMBUS_REQUEST_TIME, "request_time_seconds"),
    (b::NIMBUS_DECISION_TIME, "decision_time_seconds"),
];

/// Metrics that are measured and have no family, with the reason.
const LEFT_OUT: &[(Builtin, &str)] = &[
    (b::SEND_TPS, "its count is that of `Emitted`"),
    (b::NIMBUS_REFUSED_REQUESTS, "`stormkeeper_refused_requests_total` has the kinds, too"),
];

/// Meanings of families whose unit is not that of the metric, where the metric's meaning names its unit.
const MEANINGS: &[(Builtin, &str)] = &[
    (
        b::RECV_TPS,
        "Received by the component. On the level of streams, the label `sender` has the sending component.",
    ),
    (b::CPU_USED_RATIO, "CPU time of the worker and the processes of its components, in cores."),
    (b::SUPERVISOR_CPU_USED_RATIO, "CPU use of the whole host."),
    (b::NIMBUS_CPU_USED_RATIO, "CPU time of this nimbus, in cores."),
];

/// Kind of subject that tells metrics with equal names apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Topology,
    Host,
    Nimbus,
}

static BY_NAME: LazyLock<HashMap<(Place, &'static str), usize>> = LazyLock::new(|| {
    let key = |row: &(Builtin, &str)| {
        let place = match row.0.subject {
            SubjectKind::Supervisor => Place::Host,
            SubjectKind::Nimbus => Place::Nimbus,
            SubjectKind::Stream | SubjectKind::Task | SubjectKind::Worker | SubjectKind::Connection => {
                Place::Topology
            }
        };
        (place, row.0.name)
    };
    ROWS.iter().enumerate().map(|(n, row)| (key(row), n)).collect()
});

/// Returns a built-in metric and its name in families.
pub(super) fn find(level: Level, name: &MetricName) -> Option<(&'static Builtin, &'static str)> {
    let place = match level {
        Level::Host => Place::Host,
        Level::Nimbus => Place::Nimbus,
        _ => Place::Topology,
    };
    let (builtin, base) = &ROWS[*BY_NAME.get(&(place, name.short_name()))?];
    // A newer build may measure a name in another way.
    (builtin.group == name.group() && builtin.kind == name.kind()).then_some((builtin, *base))
}

/// Returns the meaning of a metric's families.
pub(super) fn meaning(builtin: &Builtin) -> &'static str {
    let other = MEANINGS.iter().find(|(of, _)| of == builtin);
    other.map_or(builtin.meaning, |(_, meaning)| *meaning)
}

/// Returns why a measured metric has no family.
pub fn left_out(builtin: &Builtin) -> Option<&'static str> {
    LEFT_OUT.iter().find(|(left_out, _)| left_out == builtin).map(|(_, reason)| *reason)
}

/// Returns one full name of each built-in metric on a level.
pub(super) fn names(level: Level) -> Vec<MetricName> {
    let measured = ROWS.iter().filter(|(builtin, _)| builtin.status == BuiltinStatus::Measured);
    let of_each = measured.flat_map(|(builtin, _)| {
        let leaf = match builtin.subject {
            SubjectKind::Connection => builtin.of_one(topology(builtin), subject(builtin), "h:1"),
            _ => builtin.of(topology(builtin), subject(builtin)),
        };
        let leaf = leaf.expect("constant parts make a name");
        let above = rollup::ancestors(&leaf);
        std::iter::once(leaf).chain(above).filter(|name| name.topology().as_str() != "__CLUSTER__")
    });
    of_each.filter(|name| Level::of(name) == level).collect()
}

fn topology(builtin: &Builtin) -> TopologyId {
    let text = match builtin.subject {
        SubjectKind::Supervisor => SUPERVISOR,
        SubjectKind::Nimbus => NIMBUS,
        SubjectKind::Stream | SubjectKind::Task | SubjectKind::Worker | SubjectKind::Connection => "t-1-1",
    };
    text.parse().expect("a constant id is valid")
}

fn subject(builtin: &Builtin) -> Subject {
    let (host, port) = ("h".to_owned(), 1);
    let component = || "c".parse().expect("a constant id is valid");
    let task = stormkeeper_model::TaskId(1);
    match builtin.subject {
        SubjectKind::Stream => Subject::Stream {
            component: component(),
            task,
            stream: stormkeeper_model::StreamId::default_stream(),
        },
        SubjectKind::Task => Subject::Task { component: component(), task },
        SubjectKind::Worker => Subject::Worker { host, port },
        SubjectKind::Supervisor => Subject::Worker { host, port: 0 },
        SubjectKind::Connection => Subject::Connection { host, port },
        SubjectKind::Nimbus => Subject::Nimbus { host, port },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measured_metric_has_a_name_or_a_reason() {
        let mut offences = Vec::new();
        for builtin in b::ALL {
            let n = ROWS.iter().filter(|(row, _)| row == builtin).count()
                + usize::from(left_out(builtin).is_some());
            let wanted = usize::from(builtin.status == BuiltinStatus::Measured);
            if n != wanted {
                offences.push(format!("{} of {:?}: {n} rows, not {wanted}", builtin.name, builtin.subject));
            }
        }
        assert_eq!(offences, Vec::<String>::new());
        assert_eq!(BY_NAME.len(), ROWS.len(), "two rows are one metric");
    }
}
