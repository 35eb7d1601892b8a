//! Copy of the records that only the tree has, in the data directory of every nimbus: what
//! `stormkeeper recover` brings back if ZooKeeper loses its data.
//!
//! `tree-copy.json` is one JSON object. `records` has the path and the content of each record, as
//! `zk-layout.md` documents them: topologies, tasks, assignments, drains, and the state of the metric
//! log. Ephemerals, heartbeats, errors and events are not in it; supervisor assignments follow from
//! the assignments.

pub(crate) mod keep;
pub(crate) mod restore;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::submit::TopologyIds;
use stormkeeper_api_types::message::{CopiedTopology, TreeCopySummary};
use stormkeeper_coordination::{
    cluster::{
        layout,
        metric_log::MetricLogState,
        record::{self, UnknownFields},
        tree_id::TreeMark,
        view::ClusterView,
    },
    tree::TreePath,
};
use stormkeeper_model::{HostName, Term, Timestamp, TopologyId, assignment::Assignment};
use stormkeeper_runtime::fs::{atomic_file, regular_file};

/// Name of the file.
const FILE: &str = "tree-copy.json";

/// The copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TreeCopy {
    /// The tree of which this is a copy.
    pub(crate) tree: TreeMark,
    /// Latest term that the nimbus saw.
    pub(crate) term: Term,
    /// Number of the next topology that is submitted after a recovery. It follows from the term.
    pub(crate) next_topology_number: u64,
    /// Time of the copy, by the clock of the nimbus.
    #[serde(rename = "taken_ms")]
    pub(crate) taken: Timestamp,
    /// Content of each record, by path.
    pub(crate) records: BTreeMap<String, Value>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub(crate) unknown_fields: UnknownFields,
}

impl TreeCopy {
    /// Copies the records of a view. A record that cannot be read now is copied from `last`.
    pub(crate) fn of(view: &ClusterView, tree: TreeMark, taken: Timestamp, last: Option<&Self>) -> Self {
        let mut records = BTreeMap::new();
        let mut add = |path: TreePath, bytes: &[u8]| {
            let value = serde_json::from_slice(bytes).expect("records are JSON");
            records.insert(path.as_str().to_owned(), value);
        };
        view.topologies
            .iter()
            .for_each(|(id, stored)| add(layout::storm(id), &record::encode(&stored.value)));
        view.tasks.iter().for_each(|(id, stored)| add(layout::tasks(id), &record::encode(&stored.value)));
        view.assignments
            .iter()
            .for_each(|(id, stored)| add(layout::assignment(id), &record::encode_assignment(&stored.value)));
        // Encrypted, as in the tree.
        view.credentials
            .iter()
            .for_each(|(id, stored)| add(layout::credentials(id), &record::encode(&stored.value)));
        view.drains
            .iter()
            .for_each(|(host, stored)| add(layout::drain(host), &record::encode(&stored.value)));
        for path in view.unreadable.keys().map(TreePath::as_str) {
            if let Some(known) = last.and_then(|last| last.records.get(path)) {
                records.insert(path.to_owned(), known.clone());
            }
        }
        let term = tree.term.max(seen_term(view));
        let next_topology_number = TopologyIds::first_number(Term(term.0.saturating_add(1)));
        Self { tree, term, next_topology_number, taken, records, unknown_fields: UnknownFields::new() }
    }

    /// Adds the state of the metric log.
    pub(crate) fn with_metric_log(mut self, state: Option<&MetricLogState>) -> Self {
        if let Some(state) = state {
            let value = serde_json::from_slice(&record::encode(state)).expect("records are JSON");
            self.records.insert(layout::metric_log().as_str().to_owned(), value);
        }
        self
    }

    /// True if `earlier` has a topology that this copy has not.
    fn misses_topologies_of(&self, earlier: &Self) -> bool {
        let (now, before) = (self.topologies(), earlier.topologies());
        before.keys().any(|id| !now.contains_key(id))
    }

    /// True if `other` has the same topologies, assignments, credentials and drains.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let metric_log = layout::metric_log();
        let parts = |copy: &Self| {
            let mut records = copy.records.clone();
            records.remove(metric_log.as_str());
            (copy.tree.id.clone(), copy.term, records)
        };
        parts(self) == parts(other)
    }

    /// Returns the records whose paths `parse` accepts, decoded.
    fn decoded<K, T>(
        &self,
        parent: &TreePath,
        decode: impl Fn(&TreePath, &[u8]) -> Result<T, record::Unreadable>,
    ) -> BTreeMap<K, T>
    where
        K: std::str::FromStr + Ord,
    {
        let entries = self.records.iter().filter_map(|(path, value)| {
            let path: TreePath = path.parse().ok()?;
            let key = path.name().parse().ok().filter(|_| path.parent().as_ref() == Some(parent))?;
            Some((key, decode(&path, value.to_string().as_bytes()).ok()?))
        });
        entries.collect()
    }

    /// Returns the topologies of the copy.
    pub(crate) fn topologies(&self) -> BTreeMap<TopologyId, record::TopologyRecord> {
        self.decoded(&layout::storms(), record::decode)
    }

    fn assignments(&self) -> BTreeMap<TopologyId, Assignment> {
        self.decoded(&layout::assignments(), record::decode_assignment)
    }

    /// Returns the copy in short. `holds` says whether this nimbus has a blob.
    pub(crate) fn summary(&self, holds: impl Fn(&stormkeeper_model::BlobKey) -> bool) -> TreeCopySummary {
        let assignments = self.assignments();
        let topologies = self.topologies().into_iter().map(|(id, topology)| CopiedTopology {
            workers: assignments.get(&id).map_or(0, |assignment| assignment.workers.len()),
            has_package: holds(&topology.blob),
            name: topology.name,
            status: topology.status,
            id,
        });
        let drains: BTreeMap<HostName, record::Drain> = self.decoded(&layout::drains(), record::decode);
        TreeCopySummary {
            tree: self.tree.id.to_string(),
            term: self.term,
            next_topology_number: self.next_topology_number,
            taken: self.taken,
            topologies: topologies.collect(),
            drains: drains.into_keys().collect(),
        }
    }
}

/// Returns the latest term that a view shows: of its leader and of its events.
pub(crate) fn seen_term(view: &ClusterView) -> Term {
    let of_leader = view.leader.as_ref().map(|leader| leader.term);
    let of_events = view.events.values().map(|event| event.term).max();
    of_leader.max(of_events).unwrap_or(Term(0))
}

/// The file with the copy.
#[derive(Debug, Clone)]
pub(crate) struct CopyFile(PathBuf);

impl CopyFile {
    /// The file in the data directory `dir`.
    pub(crate) fn of_dir(dir: &Path) -> Self {
        Self(dir.join(FILE))
    }

    /// Reads the copy; `None` if there is none. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read, or holds no copy that this build can read.
    pub(crate) fn read(&self) -> io::Result<Option<TreeCopy>> {
        let bytes = match regular_file::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let invalid = |error: record::Unreadable| {
            let text = format!("{} holds no copy of the tree: {}", self.0.display(), error.defect);
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        record::decode(&TreePath::root(), &bytes).map(Some).map_err(invalid)
    }

    /// Writes the copy. Blocks.
    fn write(&self, copy: &TreeCopy) -> io::Result<()> {
        atomic_file::write(&self.0, &record::encode(copy))
    }
}
