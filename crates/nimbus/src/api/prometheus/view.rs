//! Families from the view of the cluster: daemons, slots, topologies and components.

use std::collections::BTreeMap;

use super::super::{reported, summary};
use crate::Handle;
use stormkeeper_api_types::message::TopologySummary;
use stormkeeper_coordination::cluster::{failure::FailureKind, observer::Observation, view::ClusterView};
use stormkeeper_exposition::{
    Description, Family, Labels, Sample, SampleValue,
    cluster::{self as c, labels},
    measured::Level,
};
use stormkeeper_metric_store::Drops;
use stormkeeper_model::{ComponentId, TopologyId, status::TopologyStatus, task_set::TaskSet};

/// Families, by level: those of the cluster have none, and are never left out.
#[derive(Debug, Default)]
pub(super) struct Families {
    by_level: BTreeMap<Option<Level>, Vec<Family>>,
}

impl Families {
    /// Returns the number of series of a level.
    pub(super) fn n_series(&self, level: Level) -> usize {
        self.by_level.get(&Some(level)).into_iter().flatten().map(|family| family.samples.len()).sum()
    }

    /// Returns all families but those of some levels.
    pub(super) fn without(self, omitted: &[(Level, usize)]) -> impl Iterator<Item = Family> {
        let is_kept = |level: &Option<Level>| !omitted.iter().any(|(left, _)| Some(*left) == *level);
        self.by_level.into_iter().filter(move |(level, _)| is_kept(level)).flat_map(|(_, families)| families)
    }
}

/// Returns the families of a view, and of what the metric store dropped of the topologies in it.
pub(super) fn families(
    nimbus: &Handle,
    observation: &Observation,
    drops: &BTreeMap<TopologyId, Drops>,
) -> Families {
    let view = &*observation.view;
    let topologies = summary::topologies(nimbus, observation).topologies;
    let of_cluster = of_cluster(view, summary::slots_used(view).values().sum());
    let mut of_topologies = of_topologies(&topologies);
    of_topologies.push(of_drops(view, drops));
    let by_level = [
        (None, of_cluster),
        (Some(Level::Topology), of_topologies),
        (Some(Level::Component), of_components(view)),
    ];
    Families { by_level: by_level.into() }
}

fn of_cluster(view: &ClusterView, slots_used: usize) -> Vec<Family> {
    let slots: usize = view.supervisors.values().map(|supervisor| supervisor.ports.len()).sum();
    let single = |about: &Description, n: usize| Family::single(about, n.into());
    let by_status = TopologyStatus::ALL.map(|status| {
        let n = view.topologies.values().filter(|record| record.value.status == status).count();
        (labels([("status", word(status))]), n.into())
    });
    let problems = view.supervisors.iter().map(|(id, supervisor)| {
        let labels = labels([("host", supervisor.host.as_str()), ("supervisor", id.as_str())]);
        (labels, supervisor.problems.len().into())
    });
    let mut families = vec![
        Family::single(&c::LEADER_KNOWN, view.leader.is_some().into()),
        single(&c::NIMBUSES, view.nimbuses.len()),
        single(&c::SUPERVISORS, view.supervisors.len()),
        single(&c::SUPERVISORS_STOPPED, view.stopped_supervisors.len()),
        single(&c::HOSTS_DRAINED, view.drains.len()),
        Family::labelled(&c::SUPERVISOR_PROBLEMS, problems),
        single(&c::SLOTS, slots),
        single(&c::SLOTS_USED, slots_used),
        single(&c::UNREADABLE_RECORDS, view.unreadable.len()),
        Family::labelled(&c::TOPOLOGIES, by_status),
    ];
    if let Some(leader) = &view.leader {
        families.push(Family::single(&c::TERM, SampleValue::Real(f64::from(leader.term.0))));
    }
    families
}

const fn word(status: TopologyStatus) -> &'static str {
    match status {
        TopologyStatus::Active => "active",
        TopologyStatus::Inactive => "inactive",
        TopologyStatus::Rebalancing => "rebalancing",
        TopologyStatus::Killed => "killed",
    }
}

fn of_topologies(topologies: &[TopologySummary]) -> Vec<Family> {
    let family = |about: &Description, value: &dyn Fn(&TopologySummary) -> SampleValue| {
        Family::labelled(
            about,
            topologies.iter().map(|topology| {
                let labels =
                    labels([("topology", topology.name.as_str()), ("topology_id", topology.id.as_str())]);
                (labels, value(topology))
            }),
        )
    };
    vec![
        family(&c::TOPOLOGY_SUBMITTED, &|topology| {
            SampleValue::Real(topology.launched.as_millis() as f64 / 1000.0)
        }),
        family(&c::TOPOLOGY_TASKS, &|topology| topology.tasks_total.into()),
        family(&c::TOPOLOGY_TASKS_ASSIGNED, &|topology| topology.tasks_assigned.into()),
        family(&c::TOPOLOGY_TASKS_ALIVE, &|topology| topology.tasks_alive.into()),
        family(&c::TOPOLOGY_WORKERS, &|topology| topology.workers_total.into()),
        family(&c::TOPOLOGY_WORKERS_WANTED, &|topology| u64::from(topology.workers_wanted).into()),
        family(&c::TOPOLOGY_PROBLEM, &|topology| topology.problem.is_some().into()),
    ]
}

fn of_drops(view: &ClusterView, drops: &BTreeMap<TopologyId, Drops>) -> Family {
    let of_topologies = drops.iter().filter_map(|(id, drops)| Some((id, view.topologies.get(id)?, drops)));
    let samples = of_topologies.flat_map(|(id, record, drops)| {
        drops.iter().map(move |(cause, n)| {
            let name = record.value.name.as_str();
            let labels = [("topology", name), ("topology_id", id.as_str()), ("cause", cause.word())];
            (c::labels(labels), (*n).into())
        })
    });
    Family::labelled(&c::METRIC_DROPS, samples)
}

fn of_components(view: &ClusterView) -> Vec<Family> {
    let restarts = restarts(view);
    let mut families = [&c::COMPONENT_TASKS, &c::COMPONENT_TASKS_ALIVE, &c::COMPONENT_RESTARTS]
        .map(|about| Family::labelled(about, []));
    for (id, topology) in &view.topologies {
        let Some(tasks) = view.tasks.get(id) else { continue };
        let nothing = TaskSet::default();
        let heartbeats = view.heartbeats.get(id).unwrap_or(&nothing);
        let idle = reported::idle_tasks(view, id, |task| heartbeats.contains(task));
        for (component, tasks) in &tasks.value.components.0 {
            let labels = of_component(topology.value.name.as_str(), id, component);
            let alive =
                tasks.iter().filter(|task| heartbeats.contains(*task) && !idle.contains(*task)).count();
            let n_restarts = restarts.get(&(id, component)).copied().unwrap_or_default();
            let values = [tasks.len().into(), alive.into(), n_restarts.into()];
            for (family, value) in families.iter_mut().zip(values) {
                family.samples.push(Sample { labels: labels.clone(), value });
            }
        }
    }
    families.into()
}

/// Returns the recent starts of each component after a failure, on all supervisors.
fn restarts(view: &ClusterView) -> BTreeMap<(&TopologyId, &ComponentId), u64> {
    let mut restarts: BTreeMap<_, u64> = BTreeMap::new();
    for failure in view.supervisors.values().flat_map(|supervisor| &supervisor.failures) {
        if let (FailureKind::Component, Some(topology), Some(component)) =
            (failure.kind, &failure.topology, &failure.component)
        {
            let n = restarts.entry((topology, component)).or_default();
            *n = n.saturating_add(u64::from(failure.n));
        }
    }
    restarts
}

fn of_component(name: &str, id: &TopologyId, component: &ComponentId) -> Labels {
    labels([("topology", name), ("topology_id", id.as_str()), ("component", component.as_str())])
}
