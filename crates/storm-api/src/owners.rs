//! Sums by the owner of topologies.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    cluster::Cluster,
    topologies::TopologySummary,
    totals::{Amount, TopologyTotals},
};

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormOwnerList")]
pub(crate) struct OwnerList {
    scheduler_display_resource: bool,
    owners: Vec<OwnerSummary>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormOwnerPage")]
pub(crate) struct OwnerPage {
    scheduler_display_resource: bool,
    #[serde(flatten)]
    summary: OwnerSummary,
    topologies: Vec<TopologySummary>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormOwnerSummary")]
struct OwnerSummary {
    owner: String,
    total_topologies: usize,
    total_executors: usize,
    total_workers: usize,
    total_tasks: usize,
    total_memory_usage: f64,
    total_cpu_usage: f64,
    /// `N/A`, Storm's word: nothing is guaranteed to an owner.
    memory_guarantee: &'static str,
    cpu_guarantee: &'static str,
    memory_guarantee_remaining: &'static str,
    cpu_guarantee_remaining: &'static str,
    /// -1, Storm's number for an owner without isolated hosts.
    isolated_nodes: i8,
    total_req_on_heap_mem: f64,
    total_req_off_heap_mem: f64,
    total_req_mem: f64,
    total_req_cpu: f64,
    total_assigned_on_heap_mem: f64,
    total_assigned_off_heap_mem: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    topologies: usize,
    workers: usize,
    tasks: usize,
    requested: Amount,
    assigned: Amount,
}

impl Sums {
    fn add(&mut self, of: &TopologyTotals) {
        self.topologies += 1;
        self.workers += of.workers;
        self.tasks += of.tasks;
        self.requested.add(of.requested);
        self.assigned.add(of.assigned);
    }

    fn summary(self, owner: String) -> OwnerSummary {
        const NONE: &str = "N/A";
        OwnerSummary {
            owner,
            total_topologies: self.topologies,
            total_executors: self.tasks,
            total_workers: self.workers,
            total_tasks: self.tasks,
            total_memory_usage: self.assigned.memory,
            total_cpu_usage: self.assigned.cpu,
            memory_guarantee: NONE,
            cpu_guarantee: NONE,
            memory_guarantee_remaining: NONE,
            cpu_guarantee_remaining: NONE,
            isolated_nodes: -1,
            total_req_on_heap_mem: self.requested.memory,
            total_req_off_heap_mem: 0.0,
            total_req_mem: self.requested.memory,
            total_req_cpu: self.requested.cpu,
            total_assigned_on_heap_mem: self.assigned.memory,
            total_assigned_off_heap_mem: 0.0,
        }
    }
}

impl Cluster<'_> {
    /// Returns the body of `owner-resources`.
    pub fn owners(&self) -> impl Serialize + use<> {
        let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
        for (id, record) in &self.view.topologies {
            let of = self.totals.topologies.get(id).copied().unwrap_or_default();
            sums.entry(&record.value.owner).or_default().add(&of);
        }
        let owners = sums.into_iter().map(|(owner, sums)| sums.summary(owner.to_owned())).collect();
        OwnerList { scheduler_display_resource: true, owners }
    }

    /// Returns the body of `owner-resources/{owner}`; zeros for an owner without topologies, as in
    /// Storm.
    pub fn owner(&self, owner: &str) -> impl Serialize + use<> {
        let mut sums = Sums::default();
        let own = self.view.topologies.iter().filter(|(_, record)| record.value.owner == owner);
        let topologies = own.map(|(id, record)| {
            sums.add(&self.totals.topologies.get(id).copied().unwrap_or_default());
            self.topology_summary(id, &record.value)
        });
        let topologies = topologies.collect();
        OwnerPage { scheduler_display_resource: true, summary: sums.summary(owner.to_owned()), topologies }
    }
}
