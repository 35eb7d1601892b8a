//! Families that a nimbus makes from its view of the cluster and from its own state.

use std::sync::Arc;

use crate::{Description, FamilyKind, Labels, Unit};

/// `CONSTANT: name, kind, unit => help;` for each.
macro_rules! families {
    ($($constant:ident: $name:literal, $kind:ident, $unit:ident => $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Description =
                Description::fixed(concat!("stormkeeper_", $name), FamilyKind::$kind, Unit::$unit, $help);
        )*

        /// All of them, in the order of a page.
        pub static ALL: &[&Description] = &[$(&$constant),*];
    };
}

families! {
    BUILD_INFO: "build_info", Gauge, Things =>
        "Version of this nimbus, as the label `version`; always 1.";
    SERIES_OMITTED: "series_omitted", Gauge, Things =>
        "Series that are left out, because the page would have more than `nimbus.prometheus.series.max`, by level.";
    NIMBUS_READY: "nimbus_ready", Gauge, Things =>
        "1 if this nimbus has a view of the cluster that is not older than its ZooKeeper session.";
    NIMBUS_LEADING: "nimbus_leading", Gauge, Things =>
        "1 if this nimbus leads.";
    NIMBUS_METRIC_STORE_OPEN: "nimbus_metric_store_open", Gauge, Things =>
        "1 if the metric store of this nimbus is open.";
    NIMBUS_METRIC_LOG_LAG: "nimbus_metric_log_lag_entries", Gauge, Things =>
        "Entries of the leader's metric log that this nimbus does not have yet.";
    NIMBUS_METRICS_PROBLEM: "nimbus_metrics_problem", Gauge, Things =>
        "1 if a problem keeps this nimbus from following the metric log or, as the leader, from ingesting metrics.";
    NIMBUS_DISK_PROBLEM: "nimbus_disk_problem", Gauge, Things =>
        "1 if this nimbus cannot write to its directory, or its disk is almost full.";
    NIMBUS_BLOBS_MISSING: "nimbus_blobs_missing", Gauge, Things =>
        "Topology packages of running topologies that this nimbus does not have.";
    EXPORT_QUEUE_BYTES: "export_queue_bytes", Gauge, Bytes =>
        "Approximate size of the export queue of this nimbus.";
    EXPORTER_BACKLOG: "exporter_backlog_entries", Gauge, Things =>
        "Entries of the export queue that an exporter of this nimbus has not acknowledged.";
    EXPORTER_POINTS: "exporter_accepted_points", Counter, Things =>
        "Points that an external store accepted, since this nimbus leads.";
    EXPORTER_REJECTED: "exporter_rejected_points", Counter, Things =>
        "Points that an external store rejected for good, since this nimbus leads.";
    EXPORTER_FAILURES: "exporter_failures", Counter, Things =>
        "Failures, panics and timeouts of an exporter, since this nimbus leads.";
    REFUSED_REQUESTS: "refused_requests", Counter, Things =>
        "Requests that this nimbus refused since it started, by kind.";
    NIMBUS_EXPOSED: "nimbus_exposed", Gauge, Things =>
        "1 if everybody who reaches this nimbus may use it without a proof.";
    VIEW_AGE: "view_age_seconds", Gauge, Seconds =>
        "Age of this nimbus' view of the cluster; 0 while the view is up to date.";
    LEADER_KNOWN: "leader_known", Gauge, Things =>
        "1 if the view of this nimbus has a leader.";
    TERM: "term", Gauge, Things =>
        "Latest term that this nimbus knows.";
    NIMBUSES: "nimbuses", Gauge, Things =>
        "Live nimbuses.";
    SUPERVISORS: "supervisors", Gauge, Things =>
        "Live supervisors.";
    SUPERVISORS_STOPPED: "supervisors_stopped", Gauge, Things =>
        "Supervisors that have announced a clean stop and are expected back.";
    HOSTS_DRAINED: "hosts_drained", Gauge, Things =>
        "Hosts that are being drained.";
    SUPERVISOR_PROBLEMS: "supervisor_problems", Gauge, Things =>
        "Problems that a supervisor reports of itself and of the workers in its slots.";
    SLOTS: "slots", Gauge, Things =>
        "Slots of the live supervisors.";
    SLOTS_USED: "slots_used", Gauge, Things =>
        "Slots of the live supervisors to which a worker is assigned.";
    UNREADABLE_RECORDS: "unreadable_records", Gauge, Things =>
        "Znodes that hold no valid record.";
    TOPOLOGIES: "topologies", Gauge, Things =>
        "Topologies, by status.";
    TOPOLOGY_SUBMITTED: "topology_submitted_timestamp_seconds", Gauge, Seconds =>
        "Time of the submit.";
    TOPOLOGY_TASKS: "topology_tasks", Gauge, Things =>
        "Tasks of a topology.";
    TOPOLOGY_TASKS_ASSIGNED: "topology_tasks_assigned", Gauge, Things =>
        "Tasks of a topology that have a slot.";
    TOPOLOGY_TASKS_ALIVE: "topology_tasks_alive", Gauge, Things =>
        "Tasks of a topology that have a heartbeat and run.";
    TOPOLOGY_WORKERS: "topology_workers", Gauge, Things =>
        "Workers to which tasks of a topology are assigned.";
    TOPOLOGY_WORKERS_WANTED: "topology_workers_wanted", Gauge, Things =>
        "Workers that a topology requests.";
    TOPOLOGY_PROBLEM: "topology_problem", Gauge, Things =>
        "1 if a problem keeps a topology from running in full; `stormkeeper show` prints it.";
    METRIC_DROPS: "topology_metric_drops", Counter, Things =>
        "Values, reports and registrations of a topology that the metric store discarded or moved, by cause.";
    COMPONENT_TASKS: "component_tasks", Gauge, Things =>
        "Tasks of a component.";
    COMPONENT_TASKS_ALIVE: "component_tasks_alive", Gauge, Things =>
        "Tasks of a component that have a heartbeat and run.";
    COMPONENT_RESTARTS: "component_recent_restarts", Gauge, Things =>
        "Starts of a component's processes within the last ten minutes after a failure, as supervisors report them: none below three on one supervisor.";
}

/// Returns labels.
pub fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    Arc::from(labels.map(|(name, value)| (name, value.to_owned())))
}
