//! Topologies as jobs, from the view and the snapshot.

use std::collections::BTreeMap;

use super::{
    asked::{Asked, Failure},
    snapshot::{ComponentMetrics, Head},
};
use stormkeeper_coordination::cluster::record::TopologyRecord;
use stormkeeper_flink_api::{
    Error, FlinkId, Job, JobState, MetricNumber, MetricTable, PlanInput, RecordCounts, Subtask, TaskState,
    Vertex, WorkerAddress,
};
use stormkeeper_model::{
    ComponentId, TaskId, TopologyId,
    status::TopologyStatus,
    task_set::TaskSet,
    topology::{Grouping, Input, Topology},
};

/// A job, and the topology that it stands for.
pub(super) struct Found {
    pub(super) topology: TopologyId,
    pub(super) job: Job,
}

/// Place of a task, and the time of its placement.
type Places = BTreeMap<TaskId, (WorkerAddress, u64)>;

impl Asked {
    /// Returns the ids of all jobs: live topologies, and those of the snapshot.
    fn job_ids(&self) -> impl Iterator<Item = &TopologyId> {
        let ended = self.snapshot.heads.keys().filter(|id| !self.view.topologies.contains_key(*id));
        self.view.topologies.keys().chain(ended)
    }

    /// Returns all jobs, without the inputs of their vertices.
    pub(super) fn jobs(&self) -> Vec<Job> {
        self.job_ids().filter_map(|id| self.job_of(id)).collect()
    }

    /// Returns the ids and states of all jobs.
    pub(super) fn job_states(&self) -> Vec<(FlinkId, JobState)> {
        self.job_ids().filter_map(|id| Some((FlinkId::of_job(id), self.state_of(id)?))).collect()
    }

    /// Returns the topology of a job, if there is one.
    pub(super) fn topology(&self, job: FlinkId) -> Option<&TopologyId> {
        self.job_ids().find(|id| FlinkId::of_job(id) == job)
    }

    /// Returns a job.
    ///
    /// # Errors
    /// [`Error::Path`] and [`Error::Unknown`].
    pub(super) fn job(&self, text: &str) -> Result<Found, Failure> {
        let id = FlinkId::of_path("jobid", text)?;
        let topology = self.topology(id).cloned();
        let found = topology.and_then(|topology| Some(Found { job: self.job_of(&topology)?, topology }));
        Ok(found.ok_or_else(|| Error::unknown("Job", text))?)
    }

    /// Returns a job with the inputs of its vertices, and the topology in its package, if that is
    /// here.
    ///
    /// # Errors
    /// As [`Self::job`].
    pub(super) async fn job_with_plan(
        &self,
        text: &str,
    ) -> Result<(Found, Option<std::sync::Arc<Topology>>), Failure> {
        let mut found = self.job(text)?;
        let blob = self.view.topologies.get(&found.topology).map(|record| &record.value.blob);
        let package = match blob {
            Some(blob) => self.nimbus.blobs().topology(blob).await.ok().flatten(),
            None => None,
        };
        if let Some(topology) = &package {
            for vertex in &mut found.job.vertices {
                let component = vertex.name.parse::<ComponentId>().ok();
                let inputs = component.and_then(|id| Some(&topology.components.get(&id)?.inputs));
                vertex.inputs =
                    inputs.into_iter().flatten().map(|input| plan_input(&found.topology, input)).collect();
            }
        }
        Ok((found, package))
    }

    fn state_of(&self, id: &TopologyId) -> Option<JobState> {
        match self.view.topologies.get(id) {
            Some(record) => {
                let assignment = self.view.assignments.get(id);
                let is_placed = assignment.is_some_and(|assignment| !assignment.value.workers.is_empty());
                Some(live_state(&record.value, is_placed))
            }
            None => self.snapshot.heads.get(id).map(ended_state),
        }
    }

    fn job_of(&self, id: &TopologyId) -> Option<Job> {
        let (state, head) = (self.state_of(id)?, self.snapshot.heads.get(id));
        let (name, start_ms, end_ms, vertices) = match self.view.topologies.get(id) {
            Some(record) => {
                let vertices = self.live_vertices(id, record.value.status);
                (record.value.name.to_string(), record.value.launched.as_millis(), None, vertices)
            }
            None => {
                let head = head?;
                (head.name.clone(), head.start_ms, head.end_ms, self.ended_vertices(id, head))
            }
        };
        let (id, now_ms) = (FlinkId::of_job(id), self.now_ms);
        Some(Job { id, name, state, start_ms, end_ms, now_ms, vertices })
    }

    fn live_vertices(&self, id: &TopologyId, status: TopologyStatus) -> Vec<Vertex> {
        let Some(tasks) = self.view.tasks.get(id) else { return Vec::new() };
        let heartbeats = self.view.heartbeats.get(id);
        let mut places = Places::new();
        for (slot, worker) in self.view.assignments.get(id).iter().flat_map(|stored| &stored.value.workers) {
            let address = WorkerAddress { host: worker.host.clone(), port: slot.port.0 };
            let start = worker.start.as_millis();
            places.extend(worker.tasks.iter().map(|task| (task, (address.clone(), start))));
        }
        let subtask = |task: TaskId, metrics: Option<&ComponentMetrics>| {
            let is_alive = heartbeats.is_some_and(|tasks| tasks.contains(task));
            let place = places.get(&task);
            let state = match (status == TopologyStatus::Killed, is_alive) {
                (true, true) => TaskState::Canceling,
                (true, false) => TaskState::Canceled,
                (false, true) => TaskState::Running,
                (false, false) if place.is_some() => TaskState::Deploying,
                (false, false) => TaskState::Scheduled,
            };
            measured(
                Subtask {
                    task: task.0,
                    state,
                    worker: place.map(|(worker, _)| worker.clone()),
                    start_ms: place.map(|(_, start)| *start),
                    records: RecordCounts::default(),
                    busy: None,
                    queue: None,
                },
                metrics,
            )
        };
        let vertex = |(component, tasks): (&ComponentId, &TaskSet)| {
            let metrics = self.component_metrics(id, component);
            Vertex {
                id: FlinkId::of_vertex(id, component),
                name: component.to_string(),
                inputs: Vec::new(),
                subtasks: tasks.iter().map(|task| subtask(task, metrics)).collect(),
            }
        };
        tasks.value.components.0.iter().map(vertex).collect()
    }

    /// Returns the vertices of a topology that has ended: those that have metrics.
    fn ended_vertices(&self, id: &TopologyId, head: &Head) -> Vec<Vertex> {
        let metrics = self.snapshot.topologies.get(id);
        let vertex = |(component, metrics): (&ComponentId, &ComponentMetrics)| {
            let subtask = |task: &TaskId| {
                measured(
                    Subtask {
                        task: task.0,
                        state: TaskState::Canceled,
                        worker: None,
                        start_ms: Some(head.start_ms),
                        records: RecordCounts::default(),
                        busy: None,
                        queue: None,
                    },
                    Some(metrics),
                )
            };
            Vertex {
                id: FlinkId::of_vertex(id, component),
                name: component.to_string(),
                inputs: Vec::new(),
                subtasks: metrics.tasks.keys().map(subtask).collect(),
            }
        };
        metrics.iter().flat_map(|metrics| &metrics.components).map(vertex).collect()
    }

    /// Returns the metrics of a component.
    pub(super) fn component_metrics(
        &self,
        id: &TopologyId,
        component: &ComponentId,
    ) -> Option<&ComponentMetrics> {
        self.snapshot.topologies.get(id)?.components.get(component)
    }
}

fn live_state(record: &TopologyRecord, is_placed: bool) -> JobState {
    match record.status {
        TopologyStatus::Active | TopologyStatus::Inactive if is_placed => JobState::Running,
        TopologyStatus::Active | TopologyStatus::Inactive => JobState::Created,
        TopologyStatus::Rebalancing => JobState::Restarting,
        TopologyStatus::Killed => JobState::Cancelling,
    }
}

/// Returns the state of a topology that is not in the view. Its end is recorded a moment later.
fn ended_state(head: &Head) -> JobState {
    if head.end_ms.is_some() { JobState::Canceled } else { JobState::Cancelling }
}

/// Adds what is measured of a task.
fn measured(subtask: Subtask, metrics: Option<&ComponentMetrics>) -> Subtask {
    let Some(table) = metrics.and_then(|metrics| metrics.tasks.get(&TaskId(subtask.task))) else {
        return subtask;
    };
    let records = RecordCounts { read: count(table, "sys.Executed"), written: count(table, "sys.Emitted") };
    let busy = table.get("sys.Capacity").map(MetricNumber::number);
    let queue = table.get("sys.ExecutorQueue").map(|percent| percent.number() / 100.0);
    Subtask { records, busy, queue, ..subtask }
}

fn count(table: &MetricTable, name: &str) -> Option<u64> {
    match table.get(name)? {
        MetricNumber::Whole(count) => Some(count),
        MetricNumber::Real(_) => None,
    }
}

fn plan_input(topology: &TopologyId, input: &Input) -> PlanInput {
    let grouping = match &input.grouping {
        Grouping::Shuffle => "SHUFFLE".to_owned(),
        Grouping::LocalOrShuffle => "LOCAL_OR_SHUFFLE".to_owned(),
        Grouping::Fields(fields) => format!("FIELDS({})", fields.join(", ")),
        Grouping::PartialKey(fields) => format!("PARTIAL_KEY({})", fields.join(", ")),
        Grouping::All => "ALL".to_owned(),
        Grouping::Global => "GLOBAL".to_owned(),
        Grouping::None => "NONE".to_owned(),
        Grouping::Direct => "DIRECT".to_owned(),
    };
    let from = FlinkId::of_vertex(topology, &input.from);
    PlanInput { from, strategy: format!("{} {grouping}", input.stream) }
}
