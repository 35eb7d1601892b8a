//! Recorder of the history: the leader records topologies and task locations in the metric store,
//! and sends them to exporters.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tracing::{debug, info};

use crate::{
    MetricOptions, TopologySource,
    cluster::ClusterAccess,
    export::EventFanout,
    history::{
        backfill,
        diff::{Observed, Recorded, diff},
    },
};
use stormkeeper_coordination::{
    cluster::{layout, view::ClusterView},
    tree::Version,
};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::MetricStore;
use stormkeeper_model::settings::sample_rate_of;
use stormkeeper_model::{Term, TopologyId, assignment::Assignment, topology::TaskTable};
use stormkeeper_runtime::outage::Outage;

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Maximum number of events in one entry of the log.
const BATCH: usize = 1000;

/// Maximum number of topologies of the history that a new leader searches for one whose end was
/// not recorded; older topologies ended long ago.
const HISTORY_MAX: usize = 10_000;

/// Maximum number of task locations of one topology that are read back; about the maximum number
/// of tasks of one topology.
const TRACK_MAX: usize = 100_000;

/// Versions of a topology's records; a topology is compared again if they change.
type Versions = (Option<Version>, Option<Version>);

/// Recording of topologies and task locations on the leader.
#[derive(Debug)]
pub(crate) struct History {
    cluster: ClusterAccess,
    record_pause: Duration,
    /// Retention of the longest window.
    kept: Duration,
    /// Sample rate of a topology that does not set its own.
    sample_rate: f64,
}

impl History {
    pub(crate) fn new(cluster: ClusterAccess, options: &MetricOptions) -> Self {
        Self {
            cluster,
            record_pause: options.intervals.record_pause,
            kept: Duration::from_secs(60) * options.retention.longest_minutes(),
            sample_rate: options.sample_rate,
        }
    }
}

/// State of one leadership.
struct HistoryRecorder {
    history: Arc<History>,
    store: MetricStore,
    term: Term,
    topologies: Arc<dyn TopologySource>,
    fanout: EventFanout,
    /// Recorded history of each existing topology.
    recorded: BTreeMap<TopologyId, (Recorded, Versions)>,
    /// Removed topologies whose history was backfilled. Only those that are still in the list of
    /// events, so at most as many as the list is long.
    backfilled: BTreeSet<TopologyId>,
}

/// Records changes for as long as the leadership lasts.
pub(crate) async fn record_history(
    history: Arc<History>,
    store: MetricStore,
    term: Term,
    topologies: Arc<dyn TopologySource>,
    fanout: EventFanout,
) {
    let mut observations = history.cluster.observations();
    let gather = history.record_pause;
    let (recorded, backfilled) = (BTreeMap::new(), BTreeSet::new());
    let mut recorder = HistoryRecorder { history, store, term, topologies, fanout, recorded, backfilled };
    while let Err(error) = recorder.load_recorded().await {
        info!(%error, "cannot read the recorded topologies from the metric store; retrying");
        tokio::time::sleep(RETRY).await;
    }
    let mut outage = Outage::default();
    loop {
        let observation = observations.borrow_and_update().clone();
        if observation.fresh {
            if let Err(error) = recorder.record_changes(&observation.view).await {
                if outage.begins() {
                    info!(%error, "could not record the history of topologies; retrying");
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
            if let Some(lasted) = outage.ends() {
                info!(?lasted, "recorded the history of topologies again");
            }
        }
        tokio::time::sleep(gather).await;
        if observations.changed().await.is_err() {
            // The observer ends with the whole nimbus.
            return;
        }
    }
}

impl HistoryRecorder {
    /// Reads back the topologies without a recorded end. No version counts as observed for them.
    async fn load_recorded(&mut self) -> Result<(), metric_store::Error> {
        for entry in self.store.history(None, HISTORY_MAX).await? {
            if entry.killed.is_none() {
                let track = self.store.track(&entry.topology, None, TRACK_MAX).await?;
                let recorded = Recorded::of(Some(&entry), track);
                self.recorded.insert(entry.topology, (recorded, (None, None)));
            }
        }
        Ok(())
    }

    async fn record_changes(&mut self, view: &ClusterView) -> Result<(), metric_store::Error> {
        let mut ids: Vec<TopologyId> = view.topologies.keys().cloned().collect();
        ids.extend(self.recorded.keys().filter(|id| !view.topologies.contains_key(*id)).cloned());
        for id in ids {
            let records = [layout::storm(&id), layout::tasks(&id), layout::assignment(&id)];
            if records.iter().any(|path| view.is_unreadable(path)) {
                // The topology exists, but one of its records cannot be read.
                continue;
            }
            let topology_record = view.topologies.get(&id);
            let versions: Versions = (
                topology_record.map(|topology_record| topology_record.version),
                view.assignments.get(&id).map(|stored| stored.version),
            );
            let recorded = match self.recorded.get(&id) {
                Some((_, compared)) if *compared == versions && topology_record.is_some() => continue,
                Some((recorded, _)) => recorded.clone(),
                None => self.load_one(&id).await?,
            };
            let rate = match topology_record {
                Some(topology_record) => self.sample_rate(&topology_record.value).await,
                None => 0.0,
            };
            let nothing = (TaskTable::default(), Assignment::default());
            let observed = topology_record.map(|topology_record| Observed {
                topology_record: &topology_record.value,
                tasks: view.tasks.get(&id).map_or(&nothing.0, |tasks| &tasks.value.components),
                assignment: view.assignments.get(&id).map_or(&nothing.1, |assignment| &assignment.value),
                sample_rate: rate,
            });
            let (events, recorded) = diff(&id, &recorded, observed, view, self.history.cluster.clock.now());
            self.record_events(&id, events).await?;
            match observed {
                Some(_) => drop(self.recorded.insert(id, (recorded, versions))),
                None => drop(self.recorded.remove(&id)),
            }
        }
        self.backfill(view).await
    }

    /// Records topologies that were submitted and removed between two views, from their events.
    async fn backfill(&mut self, view: &ClusterView) -> Result<(), metric_store::Error> {
        let (now, kept) = (self.history.cluster.clock.now(), self.history.kept);
        let removed = backfill::removed_topologies(view, now, kept);
        let rate = self.history.sample_rate;
        self.backfilled.retain(|id| removed.contains_key(id));
        for (id, cluster_events) in removed {
            if self.backfilled.contains(id) {
                continue;
            }
            let recorded = self.store.topology(id).await?;
            if recorded.is_none_or(|entry| entry.killed.is_none()) {
                let events = backfill::reconstruct_events(id, &cluster_events, &view.supervisors, rate);
                self.record_events(id, events).await?;
            }
            self.backfilled.insert(id.clone());
        }
        Ok(())
    }

    async fn record_events(
        &self,
        id: &TopologyId,
        events: Vec<metric_store::HistoryEvent>,
    ) -> Result<(), metric_store::Error> {
        for batch in events.chunks(BATCH) {
            self.store.record_events(self.term, batch.to_vec()).await?;
            debug!(topology = %id, n = batch.len(), "recorded events of a topology");
            self.fanout.send(batch);
        }
        Ok(())
    }

    /// Reads back one topology: its kill was recorded before this leadership and its removal is not
    /// complete, or nothing was recorded of it.
    async fn load_one(&self, id: &TopologyId) -> Result<Recorded, metric_store::Error> {
        let entry = self.store.topology(id).await?;
        let track = match entry {
            Some(_) => self.store.track(id, None, TRACK_MAX).await?,
            None => Vec::new(),
        };
        Ok(Recorded::of(entry.as_ref(), track))
    }

    /// Returns the rate at which the workers of a topology sample.
    async fn sample_rate(
        &self,
        topology_record: &stormkeeper_coordination::cluster::record::TopologyRecord,
    ) -> f64 {
        if let Some(rate) = topology_record.metrics.as_ref().and_then(|control| control.sample_rate) {
            return rate;
        }
        let topology = self.topologies.topology(&topology_record.blob).await;
        let set = topology.and_then(|topology| sample_rate_of(&topology));
        set.unwrap_or(self.history.sample_rate)
    }
}
