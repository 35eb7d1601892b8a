//! Settings with their sources.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use stormkeeper_model::{ComponentId, TopologyId};

/// `GET /api/stormkeeper/v1/configuration`: the keys of the nimbus that answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationList {
    /// Every key, in ascending order.
    pub keys: Vec<ConfigurationKey>,
}

/// Key of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationKey {
    /// Name.
    pub key: String,
    /// Value that is in force, without secrets.
    pub value: Value,
    /// Source of the value, such as a file and a line; absent for the default of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// `GET /api/stormkeeper/v1/topology/{topology}/settings`: settings in force in a topology.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySettings {
    /// Topology id.
    pub topology_id: TopologyId,
    /// The settings: those of the whole topology by key, and behind them those of its components.
    pub settings: Vec<SettingOfTopology>,
}

/// Setting that is in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettingOfTopology {
    /// Key.
    pub key: String,
    /// Value, without secrets.
    pub value: Value,
    /// Source of the value.
    pub origin: SettingOrigin,
    /// Component that has the setting for itself; absent for those of the whole topology.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentId>,
    /// Place of a setting of the cluster, such as a file and a line of the nimbus that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Source of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SettingOrigin {
    /// The topology file, or the author's program.
    Topology,
    /// The command line of the submission or of the last update, `-c`.
    Submission,
    /// The configuration of the cluster.
    Cluster,
    /// The default of Stormkeeper.
    Default,
    /// A source that this version does not know.
    #[serde(other)]
    Other,
}
