//! Sources of an answer: the view, and the records and sums of one topology.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::params::Params;
use crate::{
    api::{Api, error::ApiError},
    change::find,
    refusal::Refusal,
};
use stormkeeper_coordination::cluster::{
    observer::Observation,
    record::TopologyRecord,
    store::{self, Store},
};
use stormkeeper_metric_store::SumQuery;
use stormkeeper_metrics::{MetricName, Minute, Subject, builtin::MEMORY_USED};
use stormkeeper_model::{
    ComponentId, Slot, TaskId, Timestamp, TopologyId, error::TaskError, task_set::TaskSet, topology::Topology,
};
use stormkeeper_runtime::error_chain;
use stormkeeper_storm_api::{Cluster, TopologyPage, Totals, Values, Wanted, Window};

/// Time for the records of one topology. An answer without them, from the view alone, is better than
/// none while ZooKeeper is slow.
const RECORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of workers whose uptime is read; the others are up since their assignment.
const UPTIMES_MAX: usize = 500;

/// Time from a submit to the first metrics of its workers.
const FIRST_METRICS: Duration = Duration::from_secs(180);

/// Time after which the metrics of a minute have arrived.
const LATE_METRICS: Duration = Duration::from_secs(180);

/// Maximum time by which a window ends before now, as its last minutes are not reported yet.
const UNREPORTED_MAX: Duration = Duration::from_secs(90);

/// Number of holes that a text lists.
const HOLES_SHOWN: usize = 3;

/// The cluster as one answer shows it.
pub(super) struct LoadedCluster {
    observation: Observation,
    totals: Arc<Totals>,
    problems: BTreeMap<TopologyId, String>,
    now: Timestamp,
}

impl LoadedCluster {
    pub(super) fn of(api: &Api) -> Result<Self, ApiError> {
        let observation = api.nimbus.observation()?;
        let totals = api.totals.of(&observation.view);
        let mut problems: BTreeMap<TopologyId, String> = BTreeMap::new();
        for finding in api.nimbus.status().findings {
            let Some(topology) = finding.topology else { continue };
            let text = problems.entry(topology).or_default();
            let separator = if text.is_empty() { "" } else { "; " };
            *text = format!("{text}{separator}{}", finding.problem);
        }
        Ok(Self { observation, totals, problems, now: api.nimbus.clock().now() })
    }

    pub(super) fn cluster(&self) -> Cluster<'_> {
        Cluster {
            view: &self.observation.view,
            totals: &self.totals,
            now: self.now,
            problems: &self.problems,
        }
    }
}

/// One topology as one answer shows it.
pub(super) struct Loaded {
    cluster: LoadedCluster,
    id: TopologyId,
    record: TopologyRecord,
    topology: Option<Arc<Topology>>,
    window: Window,
    sys: bool,
    uptimes: BTreeMap<Slot, u64>,
    errors: BTreeMap<ComponentId, TaskError>,
}

impl Loaded {
    /// Loads the topology that `text` names.
    ///
    /// # Errors
    /// `unknown_topology`, and `invalid_request` for a window that is none.
    pub(super) async fn of(api: &Api, text: &str, params: &Params) -> Result<Self, ApiError> {
        let window = params.window()?;
        let cluster = LoadedCluster::of(api)?;
        let view = &cluster.observation.view;
        let id = find(view, text)?;
        let unknown = || Refusal::UnknownTopology { topology: text.to_owned() };
        let record = view.topologies.get(&id).map(|stored| stored.value.clone()).ok_or_else(unknown)?;
        // A package that is missing here leaves the kinds of components open.
        let topology = api.nimbus.blobs().topology(&record.blob).await.ok().flatten();
        let workers =
            first_tasks(view.assignments.get(&id).map(|stored| &stored.value), view.heartbeats.get(&id));
        let (uptimes, errors) = records(api.nimbus.store(), &id, workers).await;
        Ok(Self { cluster, id, record, topology, window, sys: params.sys(), uptimes, errors })
    }

    pub(super) fn page(&self) -> TopologyPage<'_> {
        TopologyPage {
            cluster: self.cluster.cluster(),
            id: &self.id,
            record: &self.record,
            topology: self.topology.as_deref(),
            window: self.window,
            sys: self.sys,
            uptimes: &self.uptimes,
            errors: &self.errors,
        }
    }

    pub(super) fn id(&self) -> &TopologyId {
        &self.id
    }

    /// Reads the values that a page needs. A metric store that cannot be read is a reason in the page,
    /// which has more than numbers.
    pub(super) async fn values(&self, api: &Api, wanted: Wanted) -> Values {
        match self.read(api, wanted).await {
            Ok(values) => values,
            Err(reason) => Values::unknown(reason),
        }
    }

    async fn read(&self, api: &Api, wanted: Wanted) -> Result<Values, String> {
        let store = api.nimbus.metrics().map_err(|refusal| error_chain(&refusal))?;
        let (now, launched) = (self.cluster.now, self.record.launched);
        let measured = MetricName::new(
            self.id.clone(),
            MEMORY_USED.kind,
            Subject::Topology,
            MEMORY_USED.group,
            MEMORY_USED.name,
        );
        let measured = measured.ok();
        let end = match &measured {
            Some(measured) => {
                let (from, to) = (Minute::of(now).minus(2).start(), Minute::of(now).end());
                let holes = store.holes(measured.clone(), from, to).await;
                end_of_reports(&holes.map_err(|error| error_chain(&error))?.unwrap_or_default(), now)
            }
            None => now,
        };
        // A name that cannot be one keeps its place, with no value.
        let mut queries = Vec::with_capacity(wanted.values().len());
        let mut places = Vec::with_capacity(wanted.values().len());
        for value in wanted.values() {
            let from = value.windows().iter().map(|window| window.begin((end, now), launched)).collect();
            places.push(value.metric(&self.id).map(|name| {
                queries.push(SumQuery { name, from });
                queries.len() - 1
            }));
        }
        let mut sums = store.sums(queries).await.map_err(|error| error_chain(&error))?;
        let read = places.into_iter().map(|place| place.map(|place| std::mem::take(&mut sums[place])));
        let values = Values::new(wanted, read.map(Option::unwrap_or_default).collect());
        let kept = api.nimbus.options().metrics.as_ref().map(|options| options.retention.d1);
        let oldest = kept.map(|kept| Timestamp::from_millis(now.as_millis().saturating_sub(millis(kept))));
        if let Some(oldest) = oldest.filter(|oldest| self.window.begin((end, now), launched) < *oldest) {
            return Ok(values.with_hole(Some(format!("nothing is kept from before {oldest}"))));
        }
        let from = self.window.begin((end, now), launched).max(launched.plus(FIRST_METRICS));
        let to = Timestamp::from_millis(now.as_millis().saturating_sub(millis(LATE_METRICS)));
        let Some(measured) = measured.filter(|_| from < to) else { return Ok(values) };
        let holes = store.holes(measured, from, to).await.map_err(|error| error_chain(&error))?;
        let hole = match holes {
            Some(holes) => describe(&holes),
            // Operators can switch this metric off.
            None => values.is_empty().then(|| "nothing was measured".to_owned()),
        };
        Ok(values.with_hole(hole))
    }
}

/// Returns the end of the last minute that workers have reported, so that a window counts neither a part
/// of its minutes nor one more; now, if they report more often. `holes` are the times without reports of the
/// last minutes, up to the end of this one.
fn end_of_reports(holes: &[(Timestamp, Timestamp)], now: Timestamp) -> Timestamp {
    let unreported = holes.last().filter(|(_, to)| *to > now).map(|(from, _)| *from);
    let oldest = Timestamp::from_millis(now.as_millis().saturating_sub(millis(UNREPORTED_MAX)));
    unreported.unwrap_or(now).clamp(oldest, now)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn describe(holes: &[(Timestamp, Timestamp)]) -> Option<String> {
    let mut texts: Vec<String> =
        holes.iter().take(HOLES_SHOWN).map(|(from, to)| format!("from {from} to {to}")).collect();
    if holes.len() > HOLES_SHOWN {
        texts.push(format!("and {} times more", holes.len() - HOLES_SHOWN));
    }
    (!texts.is_empty()).then(|| format!("nothing was measured {}", texts.join(", ")))
}

/// Returns a live task of each worker, at most [`UPTIMES_MAX`].
fn first_tasks(
    assignment: Option<&stormkeeper_model::assignment::Assignment>,
    heartbeats: Option<&TaskSet>,
) -> Vec<(Slot, TaskId)> {
    let (Some(assignment), Some(heartbeats)) = (assignment, heartbeats) else { return Vec::new() };
    let first = |(slot, worker): (&Slot, &stormkeeper_model::assignment::AssignedWorker)| {
        let task = worker.tasks.iter().find(|task| heartbeats.contains(*task))?;
        Some((slot.clone(), task))
    };
    assignment.workers.iter().filter_map(first).take(UPTIMES_MAX).collect()
}

/// Reads the uptimes of workers and the last errors of components, as far as both can be read in time.
async fn records(
    store: &Store,
    id: &TopologyId,
    workers: Vec<(Slot, TaskId)>,
) -> (BTreeMap<Slot, u64>, BTreeMap<ComponentId, TaskError>) {
    let tasks: Vec<TaskId> = workers.iter().map(|(_, task)| *task).collect();
    let reading = async {
        let heartbeats = store.heartbeats_of(id, &tasks).await?;
        Ok::<_, store::Error>((heartbeats, store.last_errors(id).await?))
    };
    let (heartbeats, errors) = match tokio::time::timeout(RECORDS_TIMEOUT, reading).await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => {
            tracing::debug!(topology = %id, %error, "answered without heartbeats and errors");
            Default::default()
        }
        Err(_too_long) => Default::default(),
    };
    let uptime = |(slot, task)| Some((slot, heartbeats.get(&task)?.uptime_secs));
    (workers.into_iter().filter_map(uptime).collect(), errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_named_and_many_are_counted() {
        let hole = |n: u64| {
            let at = |minute: u64| Timestamp::from_millis(minute * 60_000);
            (at(n * 10), at(n * 10 + 1))
        };
        assert_eq!(describe(&[]), None);
        let one = "nothing was measured from 1970-01-01T00:10:00.000Z to 1970-01-01T00:11:00.000Z";
        assert_eq!(describe(&[hole(1)]).as_deref(), Some(one));
        let many = describe(&[hole(1), hole(2), hole(3), hole(4), hole(5)]).expect("a text");
        assert!(many.ends_with("to 1970-01-01T00:31:00.000Z, and 2 times more"), "{many}");
    }

    #[test]
    fn window_ends_with_the_last_reported_minute() {
        let at = |minute: u64, second: u64| Timestamp::from_millis((minute * 60 + second) * 1000);
        let this = at(101, 0);
        // The minute 99 is not reported yet; then it is, and a minute later so is 100.
        assert_eq!(end_of_reports(&[(at(99, 0), this)], at(100, 2)), at(99, 0));
        assert_eq!(end_of_reports(&[(at(100, 0), this)], at(100, 5)), at(100, 0));
        assert_eq!(end_of_reports(&[(at(100, 0), this)], at(100, 59)), at(100, 0));
        assert_eq!(end_of_reports(&[], at(100, 30)), at(100, 30), "reports of a part of this minute");
        assert_eq!(end_of_reports(&[(at(98, 0), at(99, 0))], at(100, 30)), at(100, 30), "an older hole");
        assert_eq!(end_of_reports(&[(at(98, 0), this)], at(100, 30)), at(99, 0), "nothing came for long");
    }
}
