//! Recovery of a tree that ZooKeeper lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use stormkeeper_model::{
    HostName, NimbusId, Term, Timestamp, TopologyId, TopologyName, status::TopologyStatus,
};

/// `GET /api/stormkeeper/v1/recovery`: the tree that a nimbus has lost, and its copy of that tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStatus {
    /// The nimbus.
    pub nimbus: NimbusId,
    /// The difference between ZooKeeper's tree and the tree of this nimbus, and advice; absent if
    /// there is nothing to recover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree_problem: Option<String>,
    /// The copy; absent if this nimbus has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<TreeCopySummary>,
    /// Reason why this nimbus cannot bring its copy back now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

/// Copy of a tree in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TreeCopySummary {
    /// Id of the copied tree.
    pub tree: String,
    /// Latest term that the nimbus saw.
    pub term: Term,
    /// Number of the next topology that is submitted after a recovery.
    pub next_topology_number: u64,
    /// Time of the copy, by the clock of the nimbus.
    #[serde(rename = "takenMs")]
    pub taken: Timestamp,
    /// Topologies of the copy, by id.
    pub topologies: Vec<CopiedTopology>,
    /// Hosts that are drained.
    #[serde(default)]
    pub drains: Vec<HostName>,
}

/// Topology of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CopiedTopology {
    /// Topology id.
    pub id: TopologyId,
    /// Topology name.
    pub name: TopologyName,
    /// Status.
    pub status: TopologyStatus,
    /// Number of assigned workers. Those that still run are adopted.
    pub workers: usize,
    /// True if the nimbus has the topology's package.
    pub has_package: bool,
}

/// `POST /api/stormkeeper/v1/recovery`: bring the copy of this nimbus back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecoveryRequest {
    /// Latest term that any nimbus saw: terms go on after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_term: Option<Term>,
}

/// Response to a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovered {
    /// Id of the recovered tree.
    pub tree: String,
    /// Term after which the terms go on.
    pub term: Term,
    /// The topologies that came back.
    pub topologies: Vec<TopologyId>,
}
