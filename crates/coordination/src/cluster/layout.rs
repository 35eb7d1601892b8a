//! Paths of the tree. No other file spells a path, but the table of all of them beside it.

mod explain;
mod table;

pub use explain::{Explanation, explain};
pub use table::{Row, TABLE, table};

use crate::{cluster::event::EventNumber, tree::TreePath};
use stormkeeper_model::{BlobKey, ComponentId, HostName, NimbusId, SupervisorId, TaskId, TopologyId};

/// Version of the layout: of the paths in this file and of the meaning of their records. Another
/// number means that builds cannot share a tree; see [`super::layout_version`].
pub const LAYOUT_VERSION: u32 = 2;

fn top(name: &str) -> TreePath {
    TreePath::root().child(name).expect("a fixed name is a valid path")
}

fn below(parent: TreePath, id: &str) -> TreePath {
    parent.child(id).expect("an id is a valid name by construction")
}

/// Two znodes in the root of every cluster.
pub const CLUSTER_ZNODES: &[&str] = &["layout", "storms"];

/// `/layout`
pub fn layout() -> TreePath {
    top("layout")
}

/// `/storms`
pub fn storms() -> TreePath {
    top("storms")
}

/// `/storms/{topology-id}`
pub fn storm(id: &TopologyId) -> TreePath {
    below(storms(), id.as_str())
}

/// `/tasks`
pub fn tasks_parent() -> TreePath {
    top("tasks")
}

/// `/tasks/{topology-id}`
pub fn tasks(id: &TopologyId) -> TreePath {
    below(tasks_parent(), id.as_str())
}

/// `/assignments`
pub fn assignments() -> TreePath {
    top("assignments")
}

/// `/assignments/{topology-id}`
pub fn assignment(id: &TopologyId) -> TreePath {
    below(assignments(), id.as_str())
}

/// `/credentials`
pub fn credentials_parent() -> TreePath {
    top("credentials")
}

/// `/credentials/{topology-id}`
pub fn credentials(id: &TopologyId) -> TreePath {
    below(credentials_parent(), id.as_str())
}

/// `/supervisors`
pub fn supervisors() -> TreePath {
    top("supervisors")
}

/// `/supervisors/{supervisor-id}`
pub fn supervisor(id: &SupervisorId) -> TreePath {
    below(supervisors(), id.as_str())
}

/// `/stopped-supervisors`
pub fn stopped_supervisors() -> TreePath {
    top("stopped-supervisors")
}

/// `/stopped-supervisors/{supervisor-id}`
pub fn stopped_supervisor(id: &SupervisorId) -> TreePath {
    below(stopped_supervisors(), id.as_str())
}

/// `/taskbeats`
pub fn taskbeats_parent() -> TreePath {
    top("taskbeats")
}

/// `/taskbeats/{topology-id}`
pub fn taskbeats(id: &TopologyId) -> TreePath {
    below(taskbeats_parent(), id.as_str())
}

/// `/taskbeats/{topology-id}/{task-id}`
pub fn taskbeat(id: &TopologyId, task: TaskId) -> TreePath {
    below(taskbeats(id), &task.to_string())
}

/// `/taskerrors`
pub fn taskerrors_parent() -> TreePath {
    top("taskerrors")
}

/// `/taskerrors/{topology-id}`
pub fn taskerrors(id: &TopologyId) -> TreePath {
    below(taskerrors_parent(), id.as_str())
}

/// `/taskerrors/{topology-id}/{task-id}`
pub fn taskerrors_of_task(id: &TopologyId, task: TaskId) -> TreePath {
    below(taskerrors(id), &task.to_string())
}

/// `/taskerrors/{topology-id}/{task-id}/e`: the prefix of the sequential names.
pub fn taskerror_prefix(id: &TopologyId, task: TaskId) -> TreePath {
    below(taskerrors_of_task(id, task), "e")
}

/// `/taskerrors/{topology-id}/last`
pub fn last_errors(id: &TopologyId) -> TreePath {
    below(taskerrors(id), "last")
}

/// `/taskerrors/{topology-id}/last/{component}`
pub fn last_error(id: &TopologyId, component: &ComponentId) -> TreePath {
    below(last_errors(id), component.as_str())
}

/// `/nimbuses`
pub fn nimbuses() -> TreePath {
    top("nimbuses")
}

/// `/nimbuses/{nimbus-id}`
pub fn nimbus(id: &NimbusId) -> TreePath {
    below(nimbuses(), id.as_str())
}

/// `/term`
pub fn term() -> TreePath {
    top("term")
}

/// `/tree-id`
pub fn tree_id() -> TreePath {
    top("tree-id")
}

/// `/leader`
pub fn leader() -> TreePath {
    top("leader")
}

/// `/supervisor-assignments`
pub fn supervisor_assignments_parent() -> TreePath {
    top("supervisor-assignments")
}

/// `/supervisor-assignments/{supervisor-id}`
pub fn supervisor_assignments(id: &SupervisorId) -> TreePath {
    below(supervisor_assignments_parent(), id.as_str())
}

/// `/drains`
pub fn drains() -> TreePath {
    top("drains")
}

/// `/drains/{host}`
pub fn drain(host: &HostName) -> TreePath {
    below(drains(), host.as_str())
}

/// `/events`
pub fn events() -> TreePath {
    top("events")
}

/// `/events/{sequence}`
pub fn event(number: EventNumber) -> TreePath {
    below(events(), &number.to_string())
}

/// `/events/e`: the prefix of the sequential names.
pub fn event_prefix() -> TreePath {
    below(events(), "e")
}

/// `/blobs`
pub fn blobs() -> TreePath {
    top("blobs")
}

/// `/blobs/{sha256}`
pub fn blob(key: &BlobKey) -> TreePath {
    below(blobs(), key.as_str())
}

/// `/blobs/{sha256}/{nimbus-id}`
pub fn blob_replica(key: &BlobKey, nimbus: &NimbusId) -> TreePath {
    below(blob(key), nimbus.as_str())
}

/// `/metric-log`
pub fn metric_log() -> TreePath {
    top("metric-log")
}

/// `/metrics`
pub fn metrics_parent() -> TreePath {
    top("metrics")
}

/// `/metrics/{topology-id}`
pub fn metrics(id: &TopologyId) -> TreePath {
    below(metrics_parent(), id.as_str())
}

/// Writers of a znode besides the nimbuses, which may write every znode. Topologies are named by the
/// part of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherWriters<'a> {
    /// Nobody else.
    None,
    /// Supervisors create and delete its children.
    SupervisorsBelow,
    /// Supervisors.
    Supervisors,
    /// Workers of a topology create and delete its children.
    WorkersBelow(&'a str),
    /// Workers of a topology.
    Workers(&'a str),
    /// Workers of a topology, and supervisors in their name.
    WorkersAndSupervisors(&'a str),
    /// Nobody else, and besides the nimbuses only supervisors may read it.
    NoneAndSupervisorsRead,
}

/// Returns who may write the znode at `path` besides the nimbuses.
pub fn other_writers(path: &TreePath) -> OtherWriters<'_> {
    let parts: Vec<&str> = path.parts().collect();
    match parts[..] {
        ["supervisors" | "stopped-supervisors"] => OtherWriters::SupervisorsBelow,
        ["supervisors" | "stopped-supervisors", _] => OtherWriters::Supervisors,
        ["taskbeats", topology] => OtherWriters::WorkersBelow(topology),
        ["taskbeats", topology, _] => OtherWriters::Workers(topology),
        ["credentials", _] => OtherWriters::NoneAndSupervisorsRead,
        ["taskerrors", topology, ..] => OtherWriters::WorkersAndSupervisors(topology),
        _ => OtherWriters::None,
    }
}

/// A znode that a process keeps about itself while it lives. There are no further kinds, so a
/// process that is not the leader cannot write znodes owned by the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ephemeral {
    /// `/supervisors/{supervisor-id}`
    Supervisor(SupervisorId),
    /// `/nimbuses/{nimbus-id}`
    Nimbus(NimbusId),
    /// `/taskbeats/{topology-id}/{task-id}`
    TaskHeartbeat(TopologyId, TaskId),
    /// `/blobs/{sha256}/{nimbus-id}`
    BlobReplica(BlobKey, NimbusId),
}

impl Ephemeral {
    /// Returns the path of the znode.
    pub fn path(&self) -> TreePath {
        match self {
            Self::Supervisor(id) => supervisor(id),
            Self::Nimbus(id) => nimbus(id),
            Self::TaskHeartbeat(id, task) => taskbeat(id, *task),
            Self::BlobReplica(key, id) => blob_replica(key, id),
        }
    }
}

/// Returns the paths of all records that are named after a topology.
pub fn records_of(id: &TopologyId) -> Vec<TreePath> {
    topology_parents().into_iter().map(|root| below(root, id.as_str())).collect()
}

/// Returns the parents of records that are named after a topology.
pub fn topology_parents() -> [TreePath; 7] {
    let runtime = [taskbeats_parent(), taskerrors_parent(), metrics_parent()];
    let [taskbeats, taskerrors, metrics] = runtime;
    [storms(), tasks_parent(), assignments(), credentials_parent(), taskbeats, taskerrors, metrics]
}

/// Returns the persistent parents, which every daemon creates at start.
pub fn top_level() -> Vec<TreePath> {
    vec![
        storms(),
        tasks_parent(),
        assignments(),
        credentials_parent(),
        supervisors(),
        stopped_supervisors(),
        taskbeats_parent(),
        taskerrors_parent(),
        nimbuses(),
        supervisor_assignments_parent(),
        drains(),
        events(),
        blobs(),
        metrics_parent(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_zk_layout() {
        stormkeeper_runtime::test_support::assert_generated("zk-layout.md", "paths", &table());
    }

    #[test]
    fn table_contains_every_path_that_is_built() {
        let id: TopologyId = "t".parse().expect("valid id");
        let supervisor: SupervisorId = "s".parse().expect("valid id");
        let nimbus_id: NimbusId = "n".parse().expect("valid id");
        let key = BlobKey::of(b"x");
        let component: ComponentId = "c".parse().expect("valid id");
        let built = [
            layout(),
            storm(&id),
            tasks(&id),
            assignment(&id),
            credentials(&id),
            super::supervisor(&supervisor),
            stopped_supervisor(&supervisor),
            taskbeats(&id),
            taskbeat(&id, TaskId(1)),
            taskerror_prefix(&id, TaskId(1)),
            last_error(&id, &component),
            nimbus(&nimbus_id),
            term(),
            tree_id(),
            leader(),
            supervisor_assignments(&supervisor),
            drain(&"h".parse().expect("valid host")),
            event_prefix(),
            blob(&key),
            blob_replica(&key, &nimbus_id),
            metric_log(),
            metrics(&id),
        ];
        let shape = |path: &str| -> Vec<String> {
            path.split('/')
                .skip(1)
                .map(|part| if part.starts_with('{') { "*".to_owned() } else { part.to_owned() })
                .collect()
        };
        let rows: Vec<Vec<String>> = TABLE.iter().map(|row| shape(row.path)).collect();
        assert_eq!(built.len(), rows.len());
        for path in built {
            let parts: Vec<&str> = path.parts().collect();
            let fits = |row: &Vec<String>| {
                row.len() == parts.len()
                    && row.iter().zip(&parts).all(|(row, part)| row == "*" || row == part)
            };
            assert!(rows.iter().any(fits), "{path} is missing in the table");
        }
    }
}
