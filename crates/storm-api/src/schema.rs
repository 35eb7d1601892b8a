//! Schemas of the bodies of answers, for the OpenAPI document.

use std::collections::BTreeMap;

use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use crate::{
    cluster::{ClusterSummary, History, NimbusList},
    component,
    graph::{Init, LogConfig, Node},
    owners::{OwnerList, OwnerPage},
    streams,
    supervisors::{SupervisorList, SupervisorPage},
    topologies::{TopologyList, TopologyWorkers},
    topology,
};

/// Returns the schema of the answer of `cluster/configuration`.
pub fn configuration(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<BTreeMap<String, Value>>()
}

/// Returns the schema of the answer of `cluster/summary`.
pub fn cluster_summary(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<ClusterSummary>()
}

/// Returns the schema of the answer of `nimbus/summary`.
pub fn nimbuses(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<NimbusList>()
}

/// Returns the schema of the answer of `history/summary`.
pub fn history(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<History>()
}

/// Returns the schema of the answer of `supervisor/summary`.
pub fn supervisors(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<SupervisorList>()
}

/// Returns the schema of the answer of `supervisor`.
pub fn supervisor(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<SupervisorPage>()
}

/// Returns the schema of the answer of `owner-resources`.
pub fn owners(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<OwnerList>()
}

/// Returns the schema of the answer of `owner-resources/{owner}`.
pub fn owner(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<OwnerPage>()
}

/// Returns the schema of the answer of `topology/summary`.
pub fn topologies(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<TopologyList>()
}

/// Returns the schema of the answer of `topology-workers/{topology}`.
pub fn topology_workers(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<TopologyWorkers>()
}

/// Returns the schema of the answer of `topology/{topology}`.
pub fn topology(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<topology::Body>()
}

/// Returns the schema of the answer of `topology/{topology}/metrics`.
pub fn topology_metrics(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<streams::Body>()
}

/// Returns the schema of the answer of `topology/{topology}/component/{component}`.
pub fn component(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<component::Body>()
}

/// Returns the schema of the answer of `topology/{topology}/lag`.
pub fn lag(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<BTreeMap<String, Value>>()
}

/// Returns the schema of the answer of `topology/{topology}/logconfig`.
pub fn log_config(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<LogConfig>()
}

/// Returns the schema of the answer of `topology/{topology}/visualization`.
pub fn visualization(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<BTreeMap<String, Node>>()
}

/// Returns the schema of the answer of `topology/{topology}/visualization-init`.
pub fn visualization_init(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Init>()
}
