//! Table of all znodes, from which `zk-layout.md` is generated.

/// One row of `zk-layout.md`.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Path, with its variable parts in braces.
    pub path: &'static str,
    /// Create mode: P persistent, E ephemeral, S sequential.
    pub kind: &'static str,
    /// Content of the JSON.
    pub holds: &'static str,
    /// Writer of the znode.
    pub written_by: &'static str,
    /// Watchers of the znode.
    pub watched_by: &'static str,
}

/// All paths of the layout.
pub const TABLE: &[Row] = &[
    Row {
        path: "/layout",
        kind: "P",
        holds: "version of the layout, and the version of the program that created the tree",
        written_by: "the first nimbus, in an empty tree; never changed",
        watched_by: "supervisors and workers, until it exists; every daemon reads it in each session",
    },
    Row {
        path: "/storms/{topology-id}",
        kind: "P",
        holds: "name, status, launch time, requested workers, blob, owner, message timeout, whether its tuple trees are tracked and by how many ackers, log levels of components, an update to another package and the workers whose turn it is, and the pending kill or rebalance with its absolute deadline",
        written_by: "leader",
        watched_by: "nimbus; workers of that topology",
    },
    Row {
        path: "/tasks/{topology-id}",
        kind: "P",
        holds: "the tasks of each component, as ranges, and the resources that each task of a component requests; fixed between rebalances",
        written_by: "leader",
        watched_by: "nimbus",
    },
    Row {
        path: "/assignments/{topology-id}",
        kind: "P",
        holds: "worker slots (supervisor, host, port) with their tasks and start times",
        written_by: "leader",
        watched_by: "nimbus; workers of that topology",
    },
    Row {
        path: "/credentials/{topology-id}",
        kind: "P",
        holds: "credentials of the topology: their names with time and author of the last change, and their values, encrypted with a key of the cluster secret; absent without credentials",
        written_by: "leader; also when the cluster secret was replaced",
        watched_by: "nimbus; supervisors",
    },
    Row {
        path: "/supervisors/{supervisor-id}",
        kind: "E",
        holds: "host, usable slot ports, resources, declared capacity, whether memory limits are enforced, version, start time, whether it announces a stop in /stopped-supervisors, whether its workers track tuples, problems of its slots, the address of its agent, a clock that differs from the leader's, whether its certificate has expired, and what failed or started again there in the last ten minutes",
        written_by: "that supervisor",
        watched_by: "nimbus",
    },
    Row {
        path: "/stopped-supervisors/{supervisor-id}",
        kind: "P",
        holds: "host, and time of the stop; while the supervisor is absent, it has stopped cleanly and is not lost with its session",
        written_by: "that supervisor, before its session closes; it deletes the znode after it has registered again, and the leader deletes those of which no task waits",
        watched_by: "nimbus",
    },
    Row {
        path: "/taskbeats/{topology-id}",
        kind: "P",
        holds: "nothing; parent of the heartbeats of its tasks",
        written_by: "leader",
        watched_by: "nimbus (children)",
    },
    Row {
        path: "/taskbeats/{topology-id}/{task-id}",
        kind: "E",
        holds: "heartbeat: host, port, worker, status, uptime, tuple counts, pending tuples, the change that its worker has drained for; the task is alive while the znode exists",
        written_by: "the task's worker",
        watched_by: "nobody",
    },
    Row {
        path: "/taskerrors/{topology-id}/{task-id}/{sequence}",
        kind: "P, S",
        holds: "time, host, port, component, message, stack; the newest 10 of each task are kept",
        written_by: "the task's worker; its supervisor for a worker that failed",
        watched_by: "nobody",
    },
    Row {
        path: "/taskerrors/{topology-id}/last/{component}",
        kind: "P",
        holds: "the last error of that component",
        written_by: "the writer of the error, in the same transaction",
        watched_by: "nobody",
    },
    Row {
        path: "/nimbuses/{nimbus-id}",
        kind: "E",
        holds: "host, API address, version, start time, role, number of missing blobs, the reasons if its metric store cannot be opened or its disk is almost full, whether its certificate has expired, and a clock that differs from the leader's",
        written_by: "that nimbus",
        watched_by: "nimbus",
    },
    Row {
        path: "/term",
        kind: "P",
        holds: "the last election: term and nimbus. Its data version is the term",
        written_by: "the winner, in the transaction that creates /leader",
        watched_by: "nobody",
    },
    Row {
        path: "/tree-id",
        kind: "P",
        holds: "id of the tree, term of the last election, and the ids of lost trees that were recovered into this tree",
        written_by: "the winner of an election, in the same transaction; the leader, once a minute and after each submit and each end of a topology; `stormkeeper recover`",
        watched_by: "every daemon and worker, which remembers it and refuses another tree",
    },
    Row {
        path: "/leader",
        kind: "E",
        holds: "the leading nimbus, its API address, its term",
        written_by: "the winner",
        watched_by: "nimbus; read by supervisors, workers and clients",
    },
    Row {
        path: "/supervisor-assignments/{supervisor-id}",
        kind: "P",
        holds: "supervisor assignments: the topologies that concern this supervisor, with the versions of their assignments",
        written_by: "leader, in the same transaction as the assignment",
        watched_by: "that supervisor alone",
    },
    Row {
        path: "/drains/{host}",
        kind: "P",
        holds: "the user who drains this host, the start of the drain, and the time for which spouts are stopped before their topology moves",
        written_by: "leader",
        watched_by: "nimbus",
    },
    Row {
        path: "/events/{sequence}",
        kind: "P, S",
        holds: "time, term, nimbus, kind, reason, moves of tasks; for a submit also owner, tasks and sample rate; 500 are kept, of which the cluster and each owner have equal shares",
        written_by: "leader, in the same transaction as the change it describes",
        watched_by: "nimbus",
    },
    Row {
        path: "/blobs/{sha256}",
        kind: "P",
        holds: "nothing; parent of the nimbuses that have the blob",
        written_by: "the first nimbus that has the blob",
        watched_by: "nimbus",
    },
    Row {
        path: "/blobs/{sha256}/{nimbus-id}",
        kind: "E",
        holds: "size of the blob; this nimbus has the bytes on disk while the znode exists",
        written_by: "that nimbus, after the bytes are synced to disk",
        watched_by: "nimbus; supervisors read it",
    },
    Row {
        path: "/metric-log",
        kind: "P",
        holds: "high watermark of the metric log, the in-sync replicas at that time, and the last unclean takeover (a leader continued without committed entries)",
        written_by: "leader, before it reports entries as committed",
        watched_by: "nobody; read by the next leader",
    },
    Row {
        path: "/metrics/{topology-id}",
        kind: "P",
        holds: "count and digest of the leader's metric metas; also for `__CLUSTER__`, `__NIMBUS__` and `__SUPERVISOR__`, which are not topologies",
        written_by: "leader",
        watched_by: "nimbus; followers compare it with their own metas once a minute",
    },
];

/// Returns [`TABLE`] as Markdown.
pub fn table() -> String {
    let mut text =
        String::from("| path | kind | JSON | written by | watched by |\n| --- | --- | --- | --- | --- |\n");
    for Row { path, kind, holds, written_by, watched_by } in TABLE {
        text.push_str(&format!("| `{path}` | {kind} | {holds} | {written_by} | {watched_by} |\n"));
    }
    text
}
