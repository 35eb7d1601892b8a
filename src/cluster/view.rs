//! One consistent copy of the cluster state.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cluster::record::{Leader, MetricMetas, Nimbus, Orders, Stored, Storm, Supervisor},
    model::{
        BlobKey, NimbusId, SupervisorId, TopologyId, TopologyName, assignment::Assignment, task_set::TaskSet,
        topology::TaskTable,
    },
    tree::TreePath,
};

/// Everything that nimbus decides on, as it stood when the observer last read the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Submitted topologies.
    pub storms: BTreeMap<TopologyId, Stored<Storm>>,
    /// The tasks of their components.
    pub tasks: BTreeMap<TopologyId, Stored<TaskTable>>,
    /// Where the tasks run.
    pub assignments: BTreeMap<TopologyId, Stored<Assignment>>,
    /// Live supervisors.
    pub supervisors: BTreeMap<SupervisorId, Supervisor>,
    /// What each supervisor was told to look at.
    pub orders: BTreeMap<SupervisorId, Stored<Orders>>,
    /// The live tasks of each topology that has a place for beats.
    pub beats: BTreeMap<TopologyId, TaskSet>,
    /// Topologies that have a place for errors.
    pub errors: BTreeSet<TopologyId>,
    /// Metric counts by topology.
    pub metrics: BTreeMap<TopologyId, Stored<MetricMetas>>,
    /// Live nimbus replicas.
    pub nimbuses: BTreeMap<NimbusId, Nimbus>,
    /// Who has which blob.
    pub blobs: BTreeMap<BlobKey, BTreeSet<NimbusId>>,
    /// Who leads.
    pub leader: Option<Leader>,
    /// Znodes that could not be read, and why. What stands there exists all the same:
    /// nothing may treat it as absent.
    pub unreadable: BTreeMap<TreePath, String>,
}

impl ClusterView {
    /// The live topology called `name`.
    pub fn named(&self, name: &TopologyName) -> Option<(&TopologyId, &Stored<Storm>)> {
        self.storms.iter().find(|(_, storm)| storm.value.name == *name)
    }

    /// Whether the znode at `path` is there but could not be read.
    pub fn is_unreadable(&self, path: &TreePath) -> bool {
        self.unreadable.contains_key(path)
    }
}
