//! Task tables that contradict their topologies, such as one with a component that the topology does
//! not have.
//!
//! Only a person with zkCli writes such a table. It is valid by itself, so it is compared with the
//! topology in the package. A table that contradicts it is treated like one that cannot be read:
//! nothing of the topology is changed, and an operator sees the reason.

use std::{collections::BTreeMap, sync::Arc};

use crate::blobs::BlobStore;
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{Defect, Stored, TasksRecord, TopologyRecord},
        view::ClusterView,
    },
    tree::Version,
};
use stormkeeper_model::{BlobKey, TopologyId};

/// Most packages that are read in one round for tables that agree with their assignment: they change
/// nothing now, and a new leader must not wait for all packages.
const READS_MAX: usize = 10;

/// Compares each task table with its topology once.
#[derive(Debug)]
pub(super) struct TableChecker {
    blobs: BlobStore,
    checked: BTreeMap<TopologyId, Checked>,
}

#[derive(Debug)]
struct Checked {
    blob: BlobKey,
    version: Version,
    contradiction: Option<String>,
}

impl Checked {
    fn is_of(&self, topology: &TopologyRecord, tasks: &Stored<TasksRecord>) -> bool {
        self.blob == topology.blob && self.version == tasks.version
    }
}

impl TableChecker {
    pub(super) fn new(blobs: BlobStore) -> Self {
        Self { blobs, checked: BTreeMap::new() }
    }

    /// Returns `view` with each table that contradicts its topology as an unreadable record. A topology
    /// whose package is not on this nimbus is not checked.
    pub(super) async fn check(&mut self, view: Arc<ClusterView>) -> Arc<ClusterView> {
        self.checked.retain(|id, _| view.topologies.contains_key(id));
        let mut reads_left = READS_MAX;
        for (id, topology) in &view.topologies {
            let (topology, Some(tasks)) = (&topology.value, view.tasks.get(id)) else { continue };
            if self.checked.get(id).is_some_and(|checked| checked.is_of(topology, tasks)) {
                continue;
            }
            if !self.blobs.has_read_topology(&topology.blob) {
                let assigned = view.assignments.get(id).map(|assignment| assignment.value.tasks());
                let is_urgent = assigned.is_none_or(|assigned| assigned != tasks.value.components.tasks());
                if !is_urgent && reads_left == 0 {
                    continue;
                }
                reads_left = reads_left.saturating_sub(usize::from(!is_urgent));
            }
            let Ok(Some(package)) = self.blobs.topology(&topology.blob).await else { continue };
            let contradiction = package.contradiction(&tasks.value.components);
            let (blob, version) = (topology.blob.clone(), tasks.version);
            self.checked.insert(id.clone(), Checked { blob, version, contradiction });
        }
        self.without_contradictions(view)
    }

    fn without_contradictions(&self, view: Arc<ClusterView>) -> Arc<ClusterView> {
        let wrong = |(id, checked): (&TopologyId, &Checked)| {
            let (topology, tasks) = (view.topologies.get(id)?, view.tasks.get(id)?);
            let reason = checked.contradiction.clone().filter(|_| checked.is_of(&topology.value, tasks))?;
            Some((id.clone(), reason))
        };
        let wrong: Vec<(TopologyId, String)> = self.checked.iter().filter_map(wrong).collect();
        if wrong.is_empty() {
            return view;
        }
        let mut view = Arc::unwrap_or_clone(view);
        for (id, reason) in wrong {
            view.tasks.remove(&id);
            view.unreadable.insert(layout::tasks(&id), Defect::damage(reason));
        }
        Arc::new(view)
    }
}
