//! The list of topologies, and the slots of one.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    cluster::{Cluster, VERSION},
    text,
};
use stormkeeper_coordination::cluster::record::TopologyRecord;
use stormkeeper_model::{Port, TopologyId, TopologyName, status::TopologyStatus};

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormTopologyList")]
pub(crate) struct TopologyList {
    topologies: Vec<TopologySummary>,
    scheduler_display_resource: bool,
}

/// Topology in a list, and the first part of its page.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormTopologySummary")]
pub(crate) struct TopologySummary {
    id: TopologyId,
    encoded_id: String,
    name: TopologyName,
    owner: String,
    status: &'static str,
    uptime: String,
    uptime_seconds: u64,
    tasks_total: usize,
    workers_total: usize,
    executors_total: usize,
    replication_count: usize,
    scheduler_info: Option<String>,
    requested_mem_on_heap: f64,
    requested_mem_off_heap: f64,
    requested_total_mem: f64,
    requested_cpu: f64,
    assigned_mem_on_heap: f64,
    assigned_mem_off_heap: f64,
    assigned_total_mem: f64,
    assigned_cpu: f64,
    topology_version: Option<String>,
    storm_version: &'static str,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormTopologyWorkers")]
pub(crate) struct TopologyWorkers {
    host_port_list: Vec<HostPort>,
    logviewer_port: Option<u16>,
    logviewer_scheme: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[schemars(rename = "StormHostPort")]
struct HostPort {
    host: String,
    port: Port,
}

/// Returns Storm's word for a status.
pub(crate) const fn status(status: TopologyStatus) -> &'static str {
    match status {
        TopologyStatus::Active => "ACTIVE",
        TopologyStatus::Inactive => "INACTIVE",
        TopologyStatus::Rebalancing => "REBALANCING",
        TopologyStatus::Killed => "KILLED",
    }
}

impl Cluster<'_> {
    /// Returns the body of `topology/summary`.
    pub fn topologies(&self) -> impl Serialize + use<> {
        let all = self.view.topologies.iter();
        let mut topologies: Vec<TopologySummary> =
            all.map(|(id, record)| self.topology_summary(id, &record.value)).collect();
        topologies.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        TopologyList { topologies, scheduler_display_resource: true }
    }

    pub(crate) fn topology_summary(&self, id: &TopologyId, record: &TopologyRecord) -> TopologySummary {
        let of = self.totals.topologies.get(id).copied().unwrap_or_default();
        let uptime_seconds = self.now.since(record.launched).as_secs();
        TopologySummary {
            id: id.clone(),
            encoded_id: text::encoded(id.as_str()),
            name: record.name.clone(),
            owner: record.owner.clone(),
            status: status(record.status),
            uptime: text::uptime(uptime_seconds),
            uptime_seconds,
            tasks_total: of.tasks,
            workers_total: of.workers,
            executors_total: of.tasks,
            replication_count: self.view.blobs.get(&record.blob).map_or(0, BTreeSet::len),
            scheduler_info: self.problems.get(id).cloned(),
            requested_mem_on_heap: of.requested.memory,
            requested_mem_off_heap: 0.0,
            requested_total_mem: of.requested.memory,
            requested_cpu: of.requested.cpu,
            assigned_mem_on_heap: of.assigned.memory,
            assigned_mem_off_heap: 0.0,
            assigned_total_mem: of.assigned.memory,
            assigned_cpu: of.assigned.cpu,
            topology_version: None,
            storm_version: VERSION,
        }
    }

    /// Returns the body of `topology-workers/{id}`.
    pub fn topology_workers(&self, id: &TopologyId) -> impl Serialize + use<> {
        let workers = self.view.assignments.get(id).map(|assignment| &assignment.value.workers);
        let places = workers.into_iter().flatten();
        let places: BTreeSet<HostPort> =
            places.map(|(slot, worker)| HostPort { host: worker.host.clone(), port: slot.port }).collect();
        TopologyWorkers {
            host_port_list: places.into_iter().collect(),
            logviewer_port: None,
            logviewer_scheme: "http",
        }
    }
}
