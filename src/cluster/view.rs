//! One consistent copy of the cluster state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    cluster::{
        event::{Event, EventNumber},
        layout,
        record::{Drain, Leader, MetricMetas, Nimbus, Orders, Stored, Storm, Supervisor},
    },
    model::{
        BlobKey, HostName, NimbusId, SupervisorId, TopologyId, TopologyName, assignment::Assignment,
        task_set::TaskSet, topology::TaskTable,
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
    /// Hosts that are to be emptied.
    pub drains: BTreeMap<HostName, Stored<Drain>>,
    /// What happened lately.
    pub events: BTreeMap<EventNumber, Arc<Event>>,
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

    /// Whether `host` is to be emptied. A drain that cannot be read counts: nothing new goes
    /// where an operator may not want it.
    pub fn is_drained(&self, host: &str) -> bool {
        let Ok(host) = host.parse::<HostName>() else { return false };
        self.drains.contains_key(&host) || self.is_unreadable(&layout::drain(&host))
    }

    /// Whether the znode at `path` is there but could not be read.
    pub fn is_unreadable(&self, path: &TreePath) -> bool {
        self.unreadable.contains_key(path)
    }
}
