//! Persistent high watermark: the leader publishes the committed position in ZooKeeper before the
//! leader reports the position to anyone.
//!
//! The leader writes the high watermark under its term. A deposed leader therefore commits
//! nothing, even if the deposed leader has not noticed its deposition, and the next leader reads a
//! high watermark that no earlier leader can advance any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tracing::{info, warn};

use crate::replication::{
    Replication,
    commit::{self, REPLICA_LAG_MAX},
};
use stormkeeper_coordination::{
    cluster::{event::EventDraft, layout, metric_log::MetricLogState, record, store, view::ClusterView},
    election::{FencedWriter, WriteError},
    tree::{self, CreateMode, Op},
};
use stormkeeper_metric_store::MetricStore;
use stormkeeper_model::{
    LogPosition, NimbusId, Term,
    backoff::{Backoff, Delays},
};
use stormkeeper_runtime::error_chain;

/// Bounds of the pause after a failed ZooKeeper operation.
const RETRY: Delays = Delays::between(Duration::from_millis(100), Duration::from_secs(5));

/// A later term has begun: this nimbus does not lead any more.
#[derive(Debug)]
pub(crate) struct Deposed;

impl Replication {
    /// Reads the metric log state that earlier leaders published, and retries until ZooKeeper
    /// answers. `None` if there is no record; [`MetricLogState::unknown`] if the record cannot be
    /// decoded.
    pub(crate) async fn read_high_watermark(&self) -> Option<MetricLogState> {
        let mut backoff = self.backoff();
        loop {
            let error = match self.cluster.store.metric_log_state().await {
                Ok(record) => return record,
                // Its content is valid in the newer build, and must not be overwritten.
                Err(store::Error::Unreadable(error)) if error.defect.must_stay() => error.into(),
                Err(store::Error::Unreadable(error)) => {
                    warn!(
                        %error,
                        "cannot parse /metric-log; treating every replica's log as possibly committed"
                    );
                    return Some(MetricLogState::unknown());
                }
                Err(error) => error,
            };
            self.note_coordination_failure(&error);
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Shows and logs why the high watermark cannot be read or published for the moment.
    fn note_coordination_failure(&self, error: &(dyn std::error::Error + 'static)) {
        let text = format!(
            "cannot read or publish the high watermark of the metric log; retrying: {}",
            error_chain(error)
        );
        info!("{text}");
        self.fetch_status().problem = Some(text);
    }

    /// Publishes `record`, with an event if there is one, and retries until ZooKeeper answers.
    pub(crate) async fn publish_high_watermark(
        &self,
        writer: &FencedWriter,
        record: MetricLogState,
        event: Option<EventDraft>,
    ) -> Result<(), Deposed> {
        let (path, data) = (layout::metric_log(), record::encode(&record));
        let mut backoff = self.backoff();
        let mut is_new = false;
        loop {
            let op = match is_new {
                true => {
                    let (path, data) = (path.clone(), data.clone());
                    Op::Create { path, data, mode: CreateMode::Persistent }
                }
                false => Op::Set { path: path.clone(), data: data.clone(), version: None },
            };
            let written = match &event {
                Some(event) => writer.commit_with_event(vec![op], event.clone()).await,
                None => writer.commit(vec![op]).await,
            };
            match written {
                Ok(_) => break,
                Err(WriteError::Deposed { .. }) => return Err(Deposed),
                Err(WriteError::Op { source: tree::Error::NoNode { .. }, .. }) if !is_new => is_new = true,
                Err(WriteError::Op { source: tree::Error::NodeExists { .. }, .. }) if is_new => {
                    is_new = false;
                }
                // A repeated write stores the same record; only the event may be there twice.
                Err(error) => {
                    self.note_coordination_failure(&error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
        *self.log_state() = record;
        Ok(())
    }

    /// Returns the record to publish, if the high watermark can advance.
    fn next_high_watermark(
        &self,
        store: &MetricStore,
        term: Term,
        lagging: &mut BTreeSet<NimbusId>,
    ) -> Option<MetricLogState> {
        let (view, fresh) = self.cluster.view();
        let live = view.nimbuses.keys().filter(|id| **id != self.cluster.me);
        let followers = self.progress().in_sync(live, self.cluster.clock.monotonic());
        self.log_lagging_replicas(&view, &followers, lagging);
        // A leader with a stale view may have a live follower that the view does not show.
        let leader = (&self.cluster.me, term, store.position());
        commit::advance_high_watermark(&self.log_state(), leader, &followers).filter(|_| fresh)
    }

    /// Logs each replica that has left the in-sync set, once.
    fn log_lagging_replicas(
        &self,
        view: &ClusterView,
        followers: &BTreeMap<NimbusId, LogPosition>,
        lagging: &mut BTreeSet<NimbusId>,
    ) {
        let is_lagging = |id: &&NimbusId| **id != self.cluster.me && !followers.contains_key(*id);
        let now: BTreeSet<NimbusId> = view.nimbuses.keys().filter(is_lagging).cloned().collect();
        for nimbus in now.difference(lagging) {
            let lag_max = REPLICA_LAG_MAX;
            warn!(
                %nimbus,
                ?lag_max,
                "replica is out of sync: removed from the in-sync set, commits no longer wait for it; \
                 look for the reason in the log of that nimbus"
            );
        }
        *lagging = now;
    }

    fn backoff(&self) -> Backoff {
        RETRY.backoff()
    }
}

/// Keeps the published high watermark up to date for as long as the leadership lasts.
pub(crate) async fn publish_commits(replication: Arc<Replication>, store: MetricStore, writer: FencedWriter) {
    let mut observations = replication.cluster.observations();
    let mut lagging = BTreeSet::new();
    loop {
        if let Some(record) = replication.next_high_watermark(&store, writer.term(), &mut lagging) {
            if let Err(Deposed) = replication.publish_high_watermark(&writer, record, None).await {
                return;
            }
            tokio::time::sleep(replication.intervals.publish_high_watermark).await;
            continue;
        }
        tokio::select! {
            biased;
            // Cancel-safe: both only wait.
            () = replication.commit_wakeup.notified() => {}
            changed = observations.changed() => if changed.is_err() { return },
        }
    }
}

/// Returns the text of the event and of the log line about an unclean takeover in `term`.
pub(crate) fn unclean_takeover_text(term: Term, own: LogPosition, record: &MetricLogState) -> String {
    if record.is_unknown() {
        return format!(
            "unclean takeover: /metric-log does not say which metrics were committed; the leader of term {term} \
             continues with its log up to entry {own}, and nimbuses with other entries quarantine their databases"
        );
    }
    let in_sync_replicas: Vec<String> = record.in_sync_replicas.iter().map(ToString::to_string).collect();
    format!(
        "unclean takeover: the leader of term {term} discards committed metrics; its log ends at entry {own}, \
         the log was committed up to {}, and these nimbuses had the entries: {}",
        record.high_watermark,
        in_sync_replicas.join(", ")
    )
}
