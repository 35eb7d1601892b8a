//! Summaries for responses, from the cluster view.

use std::collections::BTreeMap;

use super::{clocks, exposed, reported, requested};
use crate::{Handle, change::find, decide::update_place, plan::ClusterProblem, refusal::Refusal};
use stormkeeper_api_types::message::{
    ClusterSummary, ComponentSummary, DrainSummary, EventList, EventSummary, LeaderSummary, MoveSummary,
    NimbusList, NimbusStatus, NimbusSummary, Pending, SupervisorList, SupervisorSummary, TaskLiveness,
    TaskSummary, TopologyDetail, TopologyList, TopologySummary, UnreadableZnode, UpdateView, WorkerSummary,
};
use stormkeeper_coordination::cluster::{
    event::{Event, EventNumber},
    observer::Observation,
    record::{Stored, TaskHeartbeat, TopologyRecord},
    view::ClusterView,
};
use stormkeeper_model::{
    ComponentId, HostName, Slot, SupervisorId, TaskId, TopologyId,
    assignment::{AssignedWorker, Assignment},
    error::TaskError,
    heartbeat::TaskCounts,
    status::PendingChange,
    task_set::TaskSet,
    topology::{TaskTable, Topology},
    update::{Turn, Update},
};
use stormkeeper_storm_api::Totals;

pub(super) fn pending(nimbus: &Handle, change: PendingChange) -> Pending {
    let remaining_ms = nimbus.remaining_ms(change.deadline());
    Pending { change, remaining_ms }
}

fn view_age_ms(nimbus: &Handle, observation: &Observation) -> u64 {
    u64::try_from(nimbus.view_age(observation).as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn cluster(nimbus: &Handle, observation: &Observation, totals: &Totals) -> ClusterSummary {
    let view = &observation.view;
    let (slots_total, slots_used) = totals.slots();
    let tasks_total = view.tasks.values().map(|tasks| tasks.value.components.n_tasks()).sum();
    ClusterSummary {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        leader: view.leader.clone().map(|leader| LeaderSummary {
            nimbus: leader.nimbus,
            api: leader.api,
            term: leader.term,
        }),
        nimbuses: view.nimbuses.len(),
        supervisors: view.supervisors.len(),
        topologies: view.topologies.len(),
        slots_total,
        slots_used,
        slots_free: slots_total.saturating_sub(slots_used),
        tasks_total,
        executors_total: tasks_total,
        unreadable: unreadable(view),
        problems: without_record(nimbus, view)
            .chain(cluster_problems(nimbus, |_| true))
            .chain(reported::of_nimbuses(view))
            .chain(clocks::all(view))
            .chain(exposed::of_cluster(view))
            .chain(nimbus.other_trees())
            .collect(),
        view_age_ms: view_age_ms(nimbus, observation),
    }
}

/// Returns a line for each topology whose topology record was deleted by hand. The list of topologies
/// does not have it, although its workers run.
fn without_record(nimbus: &Handle, view: &ClusterView) -> impl Iterator<Item = String> {
    let text = |id: &TopologyId, problem: &ClusterProblem| {
        let n_tasks = view.heartbeats.get(id).map_or(0, TaskSet::len);
        let n_workers = view.assignments.get(id).map_or(0, |assignment| assignment.value.workers.len());
        format!(
            "{id}: {problem}. {n_tasks} tasks in {n_workers} workers run until then: restore the znode within a minute, \
             or submit the topology again after that"
        )
    };
    let findings = nimbus.status().findings;
    let lost = findings.iter().filter_map(|finding| match (&finding.topology, &finding.problem) {
        (Some(id), problem @ ClusterProblem::NoRecord { .. }) => Some(text(id, problem)),
        (Some(_), problem @ ClusterProblem::Undeletable { .. }) => Some(problem.to_string()),
        _ => None,
    });
    lost.collect::<Vec<_>>().into_iter()
}

/// Returns the problems that are not of one topology, as this nimbus sees them, for the supervisors
/// that `concerns` selects. Znodes without a valid record are listed on their own.
fn cluster_problems(nimbus: &Handle, concerns: impl Fn(&SupervisorId) -> bool) -> Vec<String> {
    let status = nimbus.status();
    let failing = status.findings.iter().filter_map(|finding| match &finding.problem {
        ClusterProblem::Failing(problem) if finding.topology.is_none() => Some(problem),
        _ => None,
    });
    let concerned = failing.filter(|problem| problem.supervisor().is_none_or(&concerns));
    concerned.map(ToString::to_string).collect()
}

/// Returns the difference between the tree and the one of this nimbus, or the error that keeps the tree
/// from being read; the view is an earlier one then.
fn tree_problem(nimbus: &Handle, observation: &Observation) -> Option<String> {
    let fault = || Some(format!("the cluster state cannot be read: {}", observation.fault.as_ref()?));
    nimbus.tree_problem().or_else(fault)
}

/// Lists the znodes that hold no valid record.
fn unreadable(view: &ClusterView) -> Vec<UnreadableZnode> {
    let znodes = view.unreadable.iter();
    znodes
        .map(|(path, defect)| UnreadableZnode {
            path: path.to_string(),
            reason: defect.reason.clone(),
            remedy: defect.remedy(path).to_owned(),
        })
        .collect()
}

/// Returns how many slots of each live supervisor are assigned.
pub(super) fn slots_used(view: &ClusterView) -> BTreeMap<&SupervisorId, usize> {
    let mut used: BTreeMap<&SupervisorId, usize> = view.supervisors.keys().map(|id| (id, 0)).collect();
    for slot in view.assignments.values().flat_map(|assignment| assignment.value.workers.keys()) {
        if let Some(n) = used.get_mut(&slot.supervisor) {
            *n += 1;
        }
    }
    used
}

pub(super) fn nimbuses(nimbus: &Handle, observation: &Observation) -> NimbusList {
    let (view, now) = (&observation.view, nimbus.clock().now());
    let (behind, problem) = (nimbus.metrics_lag_entries(), nimbus.metrics_problem());
    let nimbuses = view.nimbuses.iter().map(|(id, record)| NimbusSummary {
        id: id.clone(),
        host: record.host.clone(),
        api: record.api.clone(),
        // `/leader` is authoritative; the record of a nimbus itself follows a moment later.
        status: match view.leader.as_ref().is_some_and(|leader| leader.nimbus == *id) {
            true => NimbusStatus::Leader,
            false => NimbusStatus::Follower,
        },
        uptime_seconds: now.since(record.start).as_secs(),
        blobs_missing: record.blobs_missing,
        metric_store_error: record.metric_store_error.clone(),
        disk_problem: record.disk_problem.clone(),
        access_problem: record.access_problem.clone(),
        clock_problem: clocks::of_nimbus(view, id),
        exposed: record.exposed.clone(),
        metrics_lag_entries: behind.get(id).copied().filter(|_| record.metric_store_error.is_none()),
        metrics_problem: problem.clone().filter(|_| id == nimbus.id()),
        version: record.version.clone(),
    });
    let term = view.leader.as_ref().map(|leader| leader.term);
    NimbusList {
        nimbuses: nimbuses.collect(),
        term,
        tree_problem: tree_problem(nimbus, observation),
        view_age_ms: view_age_ms(nimbus, observation),
    }
}

/// Returns the number of workers that are assigned to a host.
pub(super) fn workers_on(view: &ClusterView, host: &HostName) -> usize {
    let workers = view.assignments.values().flat_map(|assignment| assignment.value.workers.values());
    workers.filter(|worker| worker.host == host.as_str()).count()
}

/// Returns the newest `limit` events of `topology`, an id or a name, or of all topologies.
///
/// # Errors
/// [`Refusal::NoEvents`] if there is no such topology, and no event of it is kept.
pub(super) fn events(
    nimbus: &Handle,
    observation: &Observation,
    topology: Option<&str>,
    limit: Option<usize>,
) -> Result<EventList, Refusal> {
    let id = topology.map(|text| find(&observation.view, text).ok().or_else(|| text.parse().ok()));
    // A removed topology is found by its id only.
    let is_asked_for = |event: &Event| id.as_ref().is_none_or(|id| event.topology == *id);
    let all = observation.view.events.iter().rev().filter(|(_, event)| is_asked_for(event));
    let mut events: Vec<EventSummary> = all.map(|(number, event)| event_summary(*number, event)).collect();
    if let Some(topology) = topology.filter(|text| events.is_empty() && is_unknown(&observation.view, text)) {
        return Err(Refusal::NoEvents { topology: topology.to_owned() });
    }
    let omitted = limit.map_or(0, |limit| events.len().saturating_sub(limit));
    events.truncate(limit.unwrap_or(usize::MAX));
    let view_age_ms = view_age_ms(nimbus, observation);
    Ok(EventList { events, truncated: omitted > 0, omitted, view_age_ms })
}

fn is_unknown(view: &ClusterView, topology: &str) -> bool {
    matches!(find(view, topology), Err(Refusal::UnknownTopology { .. }))
}

fn event_summary(EventNumber(number): EventNumber, event: &Event) -> EventSummary {
    let text = |slot: &Option<Slot>| slot.as_ref().map(Slot::to_string);
    let moves = event.moves.iter().map(|moved| MoveSummary {
        tasks: moved.tasks.clone(),
        from: text(&moved.from),
        to: text(&moved.to),
    });
    EventSummary {
        number,
        time: event.time,
        term: event.term,
        nimbus: event.nimbus.clone(),
        event: event.event,
        topology_id: event.topology.clone(),
        reason: event.reason.clone(),
        by: event.by.clone(),
        moves: moves.collect(),
        moves_omitted: event.moves_omitted,
    }
}

pub(super) fn supervisors(nimbus: &Handle, observation: &Observation) -> SupervisorList {
    let (view, now) = (&observation.view, nimbus.clock().now());
    let (used, requested) = (slots_used(view), requested::by_supervisor(view));
    let mut supervisors: Vec<SupervisorSummary> = (view.supervisors.iter())
        .map(|(id, record)| {
            let (slots_total, slots_used) = (record.ports.len(), used.get(id).copied().unwrap_or_default());
            let requested = requested.get(id).copied().unwrap_or_default();
            SupervisorSummary {
                id: id.clone(),
                host: record.host.clone(),
                uptime_seconds: now.since(record.start).as_secs(),
                slots_total,
                slots_used,
                slots_free: slots_total.saturating_sub(slots_used),
                total_cpu: record.resources.cpu_percent,
                total_mem: record.resources.memory_mb,
                used_cpu: requested.cpu_percent,
                used_mem: requested.memory_mb,
                cpu_capacity: record.capacity.cpu_percent,
                mem_capacity: record.capacity.memory_mb,
                memory_limits_unenforced: record.memory_limits_unenforced.clone(),
                version: record.version.clone(),
                drained: view.is_drained(&record.host),
                problems: record.problems.iter().map(|problem| problem.text.clone()).collect(),
            }
        })
        .collect();
    supervisors.sort_by(|a, b| (&a.host, &a.id).cmp(&(&b.host, &b.id)));
    let drains = view.drains.iter().map(|(host, drain)| DrainSummary {
        host: host.clone(),
        since: drain.value.since,
        by: drain.value.by.clone(),
        wait_secs: drain.value.wait_secs,
        workers_left: workers_on(view, host),
    });
    let drains = drains.collect();
    SupervisorList { supervisors, drains, view_age_ms: view_age_ms(nimbus, observation) }
}

pub(super) fn topologies(nimbus: &Handle, observation: &Observation) -> TopologyList {
    let view = &observation.view;
    let mut topologies: Vec<TopologySummary> = view
        .topologies
        .iter()
        .map(|(id, topology_record)| {
            let summary = topology_summary(nimbus, view, id, topology_record);
            let is_not_listed = |problem: &ClusterProblem| !is_listed_apart(view, problem);
            TopologySummary { problem: problem(nimbus, view, id, is_not_listed), ..summary }
        })
        .collect();
    topologies.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    TopologyList {
        topologies,
        unreadable: unreadable(view),
        problems: reported::of_no_topology(view)
            .into_iter()
            .chain(without_record(nimbus, view))
            .chain(cluster_problems(nimbus, |_| true))
            .chain(reported::of_nimbuses(view))
            .chain(clocks::all(view))
            .chain(exposed::of_cluster(view))
            .chain(nimbus.other_trees())
            .collect(),
        tree_problem: tree_problem(nimbus, observation),
        view_age_ms: view_age_ms(nimbus, observation),
    }
}

fn topology_summary(
    nimbus: &Handle,
    view: &ClusterView,
    id: &TopologyId,
    topology_record: &Stored<TopologyRecord>,
) -> TopologySummary {
    let record = &topology_record.value;
    let nothing = (TaskTable::default(), Assignment::default(), TaskSet::default());
    let tasks = view.tasks.get(id).map_or(&nothing.0, |tasks| &tasks.value.components);
    let assignment = view.assignments.get(id).map_or(&nothing.1, |assignment| &assignment.value);
    let heartbeats = view.heartbeats.get(id).unwrap_or(&nothing.2);
    let tasks_total = tasks.n_tasks();
    let tasks_assigned = assignment.workers.values().map(|worker| worker.tasks.len()).sum();
    TopologySummary {
        id: id.clone(),
        name: record.name.clone(),
        owner: record.owner.clone(),
        status: record.status,
        pending: record.pending.clone().map(|change| pending(nimbus, change)),
        launched: record.launched,
        uptime_seconds: nimbus.clock().now().since(record.launched).as_secs(),
        tasks_total,
        tasks_assigned,
        // A component can write heartbeats of tasks that are not there.
        tasks_alive: (tasks.iter().filter(|(_, task)| heartbeats.contains(*task)).count())
            .saturating_sub(reported::idle_tasks(view, id, |task| heartbeats.contains(task)).len()),
        workers_total: assignment.workers.len(),
        workers_wanted: record.workers,
        executors_total: tasks_total,
        replication_count: view.blobs.get(&record.blob).map_or(0, |holders| holders.len()),
        problem: problem(nimbus, view, id, |_| true),
    }
}

/// True if a list of topologies has a line for the problem apart from its topology: each record that
/// cannot be read has one, also if no topology is known for it.
fn is_listed_apart(view: &ClusterView, problem: &ClusterProblem) -> bool {
    match problem {
        ClusterProblem::Unreadable { path, .. } | ClusterProblem::Rebuilt { path, .. } => {
            view.is_unreadable(path)
        }
        _ => false,
    }
}

/// Returns the problems of a topology that `concerns` selects, as this nimbus sees them.
fn problem(
    nimbus: &Handle,
    view: &ClusterView,
    id: &TopologyId,
    concerns: impl Fn(&ClusterProblem) -> bool,
) -> Option<String> {
    let status = nimbus.status();
    let found = status.findings.iter().filter(|finding| finding.topology.as_ref() == Some(id));
    let found = found.filter(|finding| concerns(&finding.problem));
    let found = found.map(|finding| finding.problem.to_string());
    let texts: Vec<String> = found.chain(reported::of_topology(view, id)).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Records of one topology that are read in addition to the view.
pub(super) struct Detail<'a> {
    pub(super) id: &'a TopologyId,
    pub(super) heartbeats: &'a BTreeMap<TaskId, TaskHeartbeat>,
    pub(super) last_errors: BTreeMap<ComponentId, TaskError>,
    pub(super) topology: Option<&'a Topology>,
}

/// Returns the details of a topology; `None` if the view does not contain it.
pub(super) fn topology(
    nimbus: &Handle,
    observation: &Observation,
    detail: Detail<'_>,
) -> Option<TopologyDetail> {
    let view = &observation.view;
    let topology_record = view.topologies.get(detail.id)?;
    let nothing = (TaskTable::default(), Assignment::default());
    let tasks = view.tasks.get(detail.id).map_or(&nothing.0, |tasks| &tasks.value.components);
    let assignment = view.assignments.get(detail.id).map_or(&nothing.1, |assignment| &assignment.value);
    let idle = reported::idle_tasks(view, detail.id, |task| detail.heartbeats.contains_key(&task));
    Some(TopologyDetail {
        summary: topology_summary(nimbus, view, detail.id, topology_record),
        blob: topology_record.value.blob.clone(),
        msg_timeout: topology_record.value.message_timeout_secs,
        workers: workers(assignment, (detail.heartbeats, &idle)),
        tasks: task_summaries(tasks, assignment, detail.heartbeats),
        components: components(tasks, detail, &idle),
        supervisor_problems: {
            let is_used = |id: &SupervisorId| assignment.supervisors().any(|own| own == id);
            let clocks = clocks::of_supervisors(view, is_used);
            cluster_problems(nimbus, is_used).into_iter().chain(clocks).collect()
        },
        update: topology_record.value.update.as_ref().map(|update| update_view(update, assignment)),
        log_levels: topology_record.value.log_levels.clone().unwrap_or_default().into(),
        view_age_ms: view_age_ms(nimbus, observation),
    })
}

fn update_view(update: &Update, assignment: &Assignment) -> UpdateView {
    let place = |turn: &Turn| update_place(assignment, &turn.worker);
    UpdateView {
        total: update.total,
        replaced: update.n_replaced(),
        running: update.n_steady(),
        draining: update.draining.as_ref().map(place),
        starting: update.starting.iter().map(place).collect(),
        failure: update.failure.clone(),
        former_blob: update.former.blob.clone(),
    }
}

fn workers(
    assignment: &Assignment,
    (heartbeats, idle): (&BTreeMap<TaskId, TaskHeartbeat>, &TaskSet),
) -> Vec<WorkerSummary> {
    let summary = |(slot, worker): (&Slot, &AssignedWorker)| {
        let alive: Vec<&TaskHeartbeat> =
            worker.tasks.iter().filter_map(|task| heartbeats.get(&task)).collect();
        WorkerSummary {
            supervisor_id: slot.supervisor.clone(),
            host: worker.host.clone(),
            port: slot.port,
            worker_id: alive.first().map(|heartbeat| heartbeat.worker.clone()),
            uptime_seconds: alive.first().map(|heartbeat| heartbeat.uptime_secs),
            assigned: worker.start,
            tasks: worker.tasks.clone(),
            tasks_alive: alive.len() - worker.tasks.iter().filter(|task| idle.contains(*task)).count(),
        }
    };
    let mut workers: Vec<WorkerSummary> = assignment.workers.iter().map(summary).collect();
    workers.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    workers
}

fn components(tasks: &TaskTable, detail: Detail<'_>, idle: &TaskSet) -> Vec<ComponentSummary> {
    let Detail { heartbeats, mut last_errors, topology, .. } = detail;
    let summary = |(id, tasks): (&ComponentId, &TaskSet)| {
        let alive: Vec<&TaskHeartbeat> = tasks.iter().filter_map(|task| heartbeats.get(&task)).collect();
        let mut counts = TaskCounts::default();
        for heartbeat in &alive {
            counts += heartbeat.counts;
        }
        ComponentSummary {
            id: id.clone(),
            kind: topology.and_then(|topology| Some(topology.components.get(id)?.kind)),
            parallelism: tasks.len(),
            tasks_alive: alive.len() - tasks.iter().filter(|task| idle.contains(*task)).count(),
            counts,
            pending: alive.iter().fold(0, |sum, heartbeat| heartbeat.pending.saturating_add(sum)),
            last_error: last_errors.remove(id).map(Into::into),
        }
    };
    tasks.0.iter().map(summary).collect()
}

fn task_summaries(
    tasks: &TaskTable,
    assignment: &Assignment,
    heartbeats: &BTreeMap<TaskId, TaskHeartbeat>,
) -> Vec<TaskSummary> {
    let mut places: BTreeMap<TaskId, (&Slot, &AssignedWorker)> = BTreeMap::new();
    for (slot, worker) in &assignment.workers {
        places.extend(worker.tasks.iter().map(|task| (task, (slot, worker))));
    }
    let mut summaries: Vec<TaskSummary> = (tasks.iter())
        .map(|(component, task)| {
            let (place, heartbeat) = (places.get(&task), heartbeats.get(&task));
            TaskSummary {
                task,
                component: component.clone(),
                host: place.map(|(_, worker)| worker.host.clone()),
                port: place.map(|(slot, _)| slot.port),
                liveness: match (heartbeat, place) {
                    (Some(_), _) => TaskLiveness::Alive,
                    (None, Some(_)) => TaskLiveness::Silent,
                    (None, None) => TaskLiveness::Unassigned,
                },
                status: heartbeat.map(|heartbeat| heartbeat.status),
                uptime_seconds: heartbeat.map(|heartbeat| heartbeat.uptime_secs),
                counts: heartbeat.map(|heartbeat| heartbeat.counts).unwrap_or_default(),
                pending: heartbeat.map_or(0, |heartbeat| heartbeat.pending),
            }
        })
        .collect();
    summaries.sort_by_key(|summary| summary.task);
    summaries
}
