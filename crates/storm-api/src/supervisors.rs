//! Supervisors and the workers on them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    cluster::Cluster,
    text,
    totals::{Amount, SupervisorTotals, by_task, of_tasks},
};
use stormkeeper_coordination::cluster::record::SupervisorRecord;
use stormkeeper_model::{
    ComponentId, Port, Slot, SupervisorId, TaskId, TopologyId, TopologyName, assignment::AssignedWorker,
    topology::TaskTable,
};

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormSupervisorList")]
pub(crate) struct SupervisorList {
    supervisors: Vec<SupervisorSummary>,
    scheduler_display_resource: bool,
    logviewer_port: Option<u16>,
    logviewer_scheme: &'static str,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormSupervisorPage")]
pub(crate) struct SupervisorPage {
    #[serde(flatten)]
    list: SupervisorList,
    workers: Vec<WorkerSummary>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormSupervisorSummary")]
struct SupervisorSummary {
    id: SupervisorId,
    host: String,
    uptime: String,
    uptime_seconds: u64,
    slots_total: usize,
    slots_used: usize,
    slots_free: usize,
    total_mem: f64,
    total_cpu: f64,
    used_mem: f64,
    used_cpu: f64,
    avail_mem: f64,
    avail_cpu: f64,
    total_generic_resources: String,
    used_generic_resources: String,
    avail_generic_resources: String,
    version: String,
    blacklisted: bool,
    scheduler_display_resource: bool,
    log_link: String,
}

/// Worker in the pages of a supervisor and of a topology.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormWorkerSummary")]
pub(crate) struct WorkerSummary {
    supervisor_id: SupervisorId,
    host: String,
    port: Port,
    topology_id: TopologyId,
    topology_name: Option<TopologyName>,
    owner: Option<String>,
    executors_total: usize,
    assigned_mem_on_heap: f64,
    assigned_mem_off_heap: f64,
    assigned_cpu: f64,
    component_num_tasks: BTreeMap<ComponentId, usize>,
    uptime: String,
    uptime_seconds: u64,
    worker_log_link: String,
}

/// Uptimes of workers in seconds, by slot, as far as they were read.
pub(crate) type Uptimes = BTreeMap<Slot, u64>;

impl Cluster<'_> {
    /// Returns the body of `supervisor/summary`.
    pub fn supervisors(&self) -> impl Serialize + use<> {
        self.supervisor_list(|_, _| true)
    }

    /// Returns the body of `supervisor?id=` or `supervisor?host=`: the supervisors that both select,
    /// and their workers; `None` if there is no such supervisor.
    pub fn supervisor(&self, id: Option<&str>, host: Option<&str>) -> Option<impl Serialize + use<>> {
        let is_wanted = |of: &SupervisorId, record: &SupervisorRecord| {
            id.is_none_or(|id| of.as_str() == id) && host.is_none_or(|host| record.host == host)
        };
        let list = self.supervisor_list(is_wanted);
        if list.supervisors.is_empty() {
            return None;
        }
        let mut workers = Vec::new();
        let no_uptimes = Uptimes::new();
        for (topology, assignment) in &self.view.assignments {
            let is_here = |slot: &Slot| {
                let record = self.view.supervisors.get(&slot.supervisor);
                record.is_some_and(|record| is_wanted(&slot.supervisor, record))
            };
            if assignment
                .value
                .supervisors()
                .any(|own| self.view.supervisors.get(own).is_some_and(|record| is_wanted(own, record)))
            {
                workers.extend(self.workers(topology, is_here, &no_uptimes));
            }
        }
        Some(SupervisorPage { list, workers })
    }

    fn supervisor_list(
        &self,
        is_wanted: impl Fn(&SupervisorId, &SupervisorRecord) -> bool,
    ) -> SupervisorList {
        let wanted = self.view.supervisors.iter().filter(|(id, record)| is_wanted(id, record));
        let mut supervisors: Vec<SupervisorSummary> =
            wanted.map(|(id, record)| self.supervisor_summary(id, record)).collect();
        supervisors.sort_by(|a, b| (&a.host, &a.id).cmp(&(&b.host, &b.id)));
        SupervisorList {
            supervisors,
            scheduler_display_resource: true,
            logviewer_port: None,
            logviewer_scheme: "http",
        }
    }

    fn supervisor_summary(&self, id: &SupervisorId, record: &SupervisorRecord) -> SupervisorSummary {
        let nothing = SupervisorTotals::default();
        let of = self.totals.supervisors.get(id).unwrap_or(&nothing);
        let uptime_seconds = self.now.since(record.start).as_secs();
        let avail = of.total.left(of.used);
        SupervisorSummary {
            id: id.clone(),
            host: record.host.clone(),
            uptime: text::uptime(uptime_seconds),
            uptime_seconds,
            slots_total: of.slots,
            slots_used: of.slots_used,
            slots_free: of.slots.saturating_sub(of.slots_used),
            total_mem: of.total.memory,
            total_cpu: of.total.cpu,
            used_mem: of.used.memory,
            used_cpu: of.used.cpu,
            avail_mem: avail.memory,
            avail_cpu: avail.cpu,
            total_generic_resources: String::new(),
            used_generic_resources: String::new(),
            avail_generic_resources: String::new(),
            version: record.version.clone(),
            blacklisted: self.view.is_drained(&record.host),
            scheduler_display_resource: true,
            log_link: String::new(),
        }
    }

    /// Returns the workers of a topology in the slots that `is_wanted` selects, by host and port. A
    /// worker whose uptime is not given is up since its assignment.
    pub(crate) fn workers(
        &self,
        topology: &TopologyId,
        is_wanted: impl Fn(&Slot) -> bool,
        uptimes: &Uptimes,
    ) -> Vec<WorkerSummary> {
        let Some(assignment) = self.view.assignments.get(topology) else { return Vec::new() };
        let record = self.view.topologies.get(topology).map(|record| &record.value);
        let tasks = self.view.tasks.get(topology).map(|tasks| &tasks.value);
        let requests = tasks.map(|tasks| by_task(&tasks.components, &tasks.requests)).unwrap_or_default();
        let components = tasks.map(|tasks| components(&tasks.components)).unwrap_or_default();
        let summary = |(slot, worker): (&Slot, &AssignedWorker)| {
            let Amount { memory, cpu } = of_tasks(worker.tasks.iter(), &requests);
            let mut component_num_tasks = BTreeMap::new();
            for component in worker.tasks.iter().filter_map(|task| components.get(&task)) {
                *component_num_tasks.entry((*component).clone()).or_default() += 1;
            }
            let assigned_for = || self.now.since(worker.start).as_secs();
            let uptime_seconds = uptimes.get(slot).copied().unwrap_or_else(assigned_for);
            WorkerSummary {
                supervisor_id: slot.supervisor.clone(),
                host: worker.host.clone(),
                port: slot.port,
                topology_id: topology.clone(),
                topology_name: record.map(|record| record.name.clone()),
                owner: record.map(|record| record.owner.clone()),
                executors_total: worker.tasks.len(),
                assigned_mem_on_heap: memory,
                assigned_mem_off_heap: 0.0,
                assigned_cpu: cpu,
                component_num_tasks,
                uptime: text::uptime(uptime_seconds),
                uptime_seconds,
                worker_log_link: String::new(),
            }
        };
        let wanted = assignment.value.workers.iter().filter(|(slot, _)| is_wanted(slot));
        let mut workers: Vec<WorkerSummary> = wanted.map(summary).collect();
        workers.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
        workers
    }
}

/// Returns the component of each task.
pub(crate) fn components(table: &TaskTable) -> BTreeMap<TaskId, &ComponentId> {
    table.iter().map(|(component, task)| (task, component)).collect()
}
