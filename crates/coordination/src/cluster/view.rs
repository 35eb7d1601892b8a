//! One consistent copy of the cluster state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    cluster::{
        event::{Event, EventNumber},
        layout,
        record::{
            CredentialsRecord, Defect, Drain, Leader, MetaFingerprint, NimbusRecord, StoppedSupervisor,
            Stored, SupervisorAssignments, SupervisorRecord, TasksRecord, TopologyRecord,
        },
    },
    tree::TreePath,
};
use stormkeeper_model::{
    BlobKey, HostName, NimbusId, SupervisorId, TopologyId, TopologyName, Zxid, assignment::Assignment,
    task_set::TaskSet,
};

/// The state on which nimbus bases its decisions, as of the observer's last read of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Submitted topologies.
    pub topologies: BTreeMap<TopologyId, Stored<TopologyRecord>>,
    /// Tasks of each topology's components.
    pub tasks: BTreeMap<TopologyId, Stored<TasksRecord>>,
    /// Assignments: the slots in which the tasks run.
    pub assignments: BTreeMap<TopologyId, Stored<Assignment>>,
    /// Credentials of the topologies that have some, encrypted.
    pub credentials: BTreeMap<TopologyId, Stored<CredentialsRecord>>,
    /// Live supervisors.
    pub supervisors: BTreeMap<SupervisorId, SupervisorRecord>,
    /// Supervisors that have announced a clean stop. The record of a live supervisor is out of date.
    pub stopped_supervisors: BTreeMap<SupervisorId, StoppedSupervisor>,
    /// Supervisor assignments: the topologies that concern each supervisor.
    pub supervisor_assignments: BTreeMap<SupervisorId, Stored<SupervisorAssignments>>,
    /// Live tasks of each topology that has a znode for heartbeats.
    pub heartbeats: BTreeMap<TopologyId, TaskSet>,
    /// Topologies that have a znode for errors.
    pub errors: BTreeSet<TopologyId>,
    /// Fingerprints of the metric metas, by topology.
    pub metric_fingerprints: BTreeMap<TopologyId, Stored<MetaFingerprint>>,
    /// Live nimbus replicas.
    pub nimbuses: BTreeMap<NimbusId, NimbusRecord>,
    /// Hosts that are being drained.
    pub drains: BTreeMap<HostName, Stored<Drain>>,
    /// The newest events.
    pub events: BTreeMap<EventNumber, Arc<Event>>,
    /// Nimbuses that have each blob.
    pub blobs: BTreeMap<BlobKey, BTreeSet<NimbusId>>,
    /// The leader, if there is one.
    pub leader: Option<Leader>,
    /// Transaction of the newest event. The view contains everything that this transaction and
    /// those of earlier events changed; 0 without events.
    pub zxid: Zxid,
    /// Znodes that could not be decoded, and the reasons. The records exist all the same: they must
    /// not be treated as absent.
    pub unreadable: BTreeMap<TreePath, Defect>,
}

impl ClusterView {
    /// Returns the live topology called `name`.
    pub fn named(&self, name: &TopologyName) -> Option<(&TopologyId, &Stored<TopologyRecord>)> {
        self.topologies.iter().find(|(_, topology_record)| topology_record.value.name == *name)
    }

    /// True if `host` is being drained. A drain that cannot be decoded counts, so that no task is
    /// placed on a host that an operator may want to empty.
    pub fn is_drained(&self, host: &str) -> bool {
        let Ok(host) = host.parse::<HostName>() else { return false };
        self.drains.contains_key(&host) || self.is_unreadable(&layout::drain(&host))
    }

    /// True if the znode at `path` exists but could not be decoded.
    pub fn is_unreadable(&self, path: &TreePath) -> bool {
        self.unreadable.contains_key(path)
    }
}
