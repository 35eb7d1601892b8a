//! Paths of metrics.

use std::collections::BTreeSet;

use super::{
    asked::{Answer, Asked, PathParts, Reply},
    vertices::number,
};
use stormkeeper_flink_api::{FlinkId, MetricTable, WorkerAddress, metric};
use stormkeeper_model::{ComponentId, TaskId, TopologyId};

/// A component of a topology.
struct Component {
    topology: TopologyId,
    id: ComponentId,
    /// Tasks in the order of their ids: the subtasks.
    tasks: Vec<TaskId>,
}

impl Asked {
    /// Returns the component that a path names; `None` if it names none.
    fn component(&self, job: &str, vertex: &str) -> Result<Option<Component>, stormkeeper_flink_api::Error> {
        let (job, vertex) = (FlinkId::of_path("jobid", job)?, FlinkId::of_path("vertexid", vertex)?);
        let Some(topology) = self.topology(job) else { return Ok(None) };
        let is_asked_for = |id: &&ComponentId| FlinkId::of_vertex(topology, id) == vertex;
        let live = self.view.tasks.get(topology).map(|tasks| &tasks.value.components.0);
        let measured = self.snapshot.topologies.get(topology).map(|metrics| &metrics.components);
        // Of a live topology only the tasks that it has now count.
        let found = match live {
            Some(live) => {
                live.iter().find(|(id, _)| is_asked_for(id)).map(|(id, tasks)| (id, tasks.iter().collect()))
            }
            None => measured
                .and_then(|known| known.iter().find(|(id, _)| is_asked_for(id)))
                .map(|(id, metrics)| (id, metrics.tasks.keys().copied().collect())),
        };
        Ok(found.map(|(id, tasks)| Component { topology: topology.clone(), id: id.clone(), tasks }))
    }

    /// Returns the metrics of the subtasks of a component.
    fn subtasks(&self, component: &Component) -> Vec<Option<&MetricTable>> {
        let metrics = self.component_metrics(&component.topology, &component.id);
        component.tasks.iter().map(|task| metrics.and_then(|metrics| metrics.tasks.get(task))).collect()
    }

    fn reply_one(&self, table: Option<&MetricTable>) -> Answer {
        Ok(Reply(metric::of_one(table, self.query.names().as_deref())))
    }

    fn reply_many(&self, tables: &[&MetricTable]) -> Answer {
        Ok(Reply(metric::of_many(tables, self.query.names().as_deref(), &self.query.aggregates()?)))
    }
}

/// Answers with the metrics of the leader, or of this nimbus without one.
pub(super) async fn of_job_manager(asked: Asked) -> Answer {
    let leader = asked.view.leader.as_ref().and_then(|leader| asked.view.nimbuses.get(&leader.nimbus));
    let (host, api) = match leader {
        Some(record) => (record.host.clone(), record.api.clone()),
        None => (asked.nimbus.options().host.clone(), asked.nimbus.api().to_owned()),
    };
    let port = api.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default();
    asked.reply_one(asked.snapshot.nimbuses.get(&WorkerAddress { host, port }))
}

pub(super) async fn of_task_managers(asked: Asked) -> Answer {
    let selected = asked.query.task_managers();
    let is_selected =
        |id: &WorkerAddress| selected.as_ref().is_none_or(|ids| ids.contains(id.to_string().as_str()));
    let workers = asked.workers().filter(|worker| is_selected(&worker.address));
    let tables: Vec<_> = workers.filter_map(|worker| asked.worker_metrics(&worker)).collect();
    asked.reply_many(&tables)
}

pub(super) async fn of_task_manager(asked: Asked, PathParts(id): PathParts<String>) -> Answer {
    let worker = asked.workers().find(|worker| worker.address.to_string() == id);
    asked.reply_one(worker.and_then(|worker| asked.worker_metrics(&worker)))
}

pub(super) async fn of_jobs(asked: Asked) -> Answer {
    let selected = asked.query.jobs()?;
    let is_selected = |ids: &BTreeSet<FlinkId>, id: &TopologyId| ids.contains(&FlinkId::of_job(id));
    let metrics = asked.snapshot.topologies.iter();
    let tables: Vec<_> = metrics
        .filter(|(id, _)| selected.as_ref().is_none_or(|ids| is_selected(ids, id)))
        .map(|(_, metrics)| &metrics.own)
        .collect();
    asked.reply_many(&tables)
}

pub(super) async fn of_job(asked: Asked, PathParts(job): PathParts<String>) -> Answer {
    let topology = asked.topology(FlinkId::of_path("jobid", &job)?);
    let metrics = topology.and_then(|topology| asked.snapshot.topologies.get(topology));
    asked.reply_one(metrics.map(|metrics| &metrics.own))
}

pub(super) async fn of_vertex(asked: Asked, PathParts((job, vertex)): PathParts<(String, String)>) -> Answer {
    let component = asked.component(&job, &vertex)?;
    let tables = component.map(|component| asked.subtasks(&component)).unwrap_or_default();
    Ok(Reply(metric::of_subtasks(&tables, asked.query.names().as_deref())))
}

/// Answers with the metrics of a component: its tasks merged, with percentiles over all of them.
pub(super) async fn of_operator(
    asked: Asked,
    PathParts((job, vertex)): PathParts<(String, String)>,
) -> Answer {
    let component = asked.component(&job, &vertex)?;
    let metrics = component.as_ref().and_then(|of| asked.component_metrics(&of.topology, &of.id));
    asked.reply_one(metrics.map(|metrics| &metrics.own))
}

pub(super) async fn of_subtasks(
    asked: Asked,
    PathParts((job, vertex)): PathParts<(String, String)>,
) -> Answer {
    let (component, selected) = (asked.component(&job, &vertex)?, asked.query.subtasks()?);
    let tables = component.map(|component| asked.subtasks(&component)).unwrap_or_default();
    let is_selected = |n: usize| selected.as_ref().is_none_or(|ranges| ranges.contains(n));
    let tables = tables.into_iter().enumerate().filter(|(n, _)| is_selected(*n));
    asked.reply_many(&tables.filter_map(|(_, table)| table).collect::<Vec<_>>())
}

pub(super) async fn of_subtask(
    asked: Asked,
    PathParts((job, vertex, subtask)): PathParts<(String, String, String)>,
) -> Answer {
    let n = number("subtaskindex", &subtask)?;
    let component = asked.component(&job, &vertex)?;
    let tables = component.map(|component| asked.subtasks(&component)).unwrap_or_default();
    asked.reply_one(tables.get(n).copied().flatten())
}
