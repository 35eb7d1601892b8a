//! Takeover by a new leader: fetches the entries that the leader's log is missing, before ingest.
//!
//! The previous leader committed an entry when one follower had the entry, and that follower need
//! not be the new leader. The high watermark is in ZooKeeper. Before a new leader ingests anything,
//! the new leader polls every live nimbus, the previous leader among them, for its log end, and
//! fetches missing entries from a replica that has every committed entry.
//!
//! If no reachable replica has the missing entries, the leader polls again and again, until every
//! in-sync replica was polled or the grace has passed. Topology masters keep their reports
//! meanwhile.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tracing::{info, warn};

use crate::replication::{
    Replication,
    follower::{FetchError, Fetched},
    high_watermark::{self, Deposed},
    takeover_decision::{self, CatchUpSource, TakeoverDecision, TakeoverInput},
};
use stormkeeper_coordination::{
    cluster::{event::EventDraft, metric_log::MetricLogState},
    election::{FencedWriter, WriteError},
};
use stormkeeper_metric_store::MetricStore;
use stormkeeper_metrics::protocol::{LogPage, LogQuery};
use stormkeeper_model::{LogPosition, NimbusId, event::EventKind};
use stormkeeper_runtime::error_chain;

/// Timeout of a poll for the log end of another nimbus. A dead nimbus is in the view until its
/// session ends, and must not delay the takeover for longer.
const POLL_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which the leader of a new cluster waits for the other nimbuses without a warning: they are
/// registered a moment before they answer.
const NEW_CLUSTER_START: Duration = Duration::from_secs(10);

/// Failure to catch up with the log of another nimbus.
#[derive(Debug, thiserror::Error)]
enum CatchUpError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot check in ZooKeeper whether this nimbus still leads")]
    Write(#[from] WriteError),
}

/// Id and API address of another nimbus.
type Replica = (NimbusId, String);

impl Replication {
    /// Catches up with the logs of the other live nimbuses. If committed entries are missing,
    /// waits for the in-sync replicas until all were polled or the grace has passed.
    pub(crate) async fn take_over(&self, store: &MetricStore, writer: &FencedWriter) -> Result<(), Deposed> {
        let _apply_lock = self.apply_lock.lock().await;
        let clock = &self.cluster.clock;
        let (me, term, grace) = (&self.cluster.me, writer.term(), self.takeover_grace);
        let known = self.read_high_watermark().await;
        let is_new = known.is_none() && store.position() == LogPosition::default();
        let record = known.unwrap_or_else(MetricLogState::unknown);
        let (mut began, mut until, mut logged) = (clock.monotonic(), clock.now().plus(grace), None);
        loop {
            let (polled, failure) = self.catch_up_with_replicas(store, writer, &record).await?;
            let (own, now) = (store.position(), clock.monotonic());
            let (has_reachable_source, waited) = (failure.is_some(), now.since(began));
            let (polled, live) = (&polled, &self.cluster.view().0.nimbuses.keys().cloned().collect());
            let input = TakeoverInput { me, term, own, polled, has_reachable_source, live, waited, grace };
            let text = match input.decide(&record) {
                TakeoverDecision::Ready => {
                    *self.log_state() = record;
                    return Ok(());
                }
                // No replica has any entry, and no high watermark was ever published: a new cluster.
                TakeoverDecision::ProceedUnclean if is_new && own == LogPosition::default() => {
                    return self.publish_high_watermark(writer, MetricLogState::default(), None).await;
                }
                TakeoverDecision::ProceedUnclean => {
                    let text = high_watermark::unclean_takeover_text(term, own, &record);
                    let event = EventDraft::of_cluster(EventKind::UncleanMetricTakeover, text.as_str());
                    let record = record.record_unclean_takeover(me, term, own, clock.now());
                    self.publish_high_watermark(writer, record, Some(event)).await?;
                    warn!("{text}");
                    return Ok(());
                }
                TakeoverDecision::AwaitReplicas(in_sync_replicas) => {
                    let in_sync_replicas: Vec<String> =
                        in_sync_replicas.iter().map(ToString::to_string).collect();
                    let in_sync_replicas = in_sync_replicas.join(", ");
                    let high_watermark = match record == MetricLogState::unknown() {
                        true => "an unknown position".to_owned(),
                        false => record.high_watermark.to_string(),
                    };
                    format!(
                        "metric ingest paused: log ends at {own}, committed up to {high_watermark}; waiting for {in_sync_replicas} \
                         until {until}"
                    )
                }
                TakeoverDecision::RetryFetch => {
                    (began, until) = (now, clock.now().plus(grace));
                    let failure = failure.unwrap_or_default();
                    format!(
                        "metric ingest paused: log ends at {own}, and the missing committed entries could not be \
                         fetched; retrying: {failure}"
                    )
                }
                TakeoverDecision::WrongCluster => format!(
                    "metric ingest stopped: the metric log has entries of term {}, and this nimbus leads in \
                     term {term}; see \"A new ZooKeeper tree\" in docs/operations/disaster.md",
                    own.term
                ),
            };
            self.fetch_status().problem = Some(text.clone());
            // In a new cluster, the other nimbuses are about to start too.
            let is_starting = is_new && waited < NEW_CLUSTER_START;
            if logged.as_ref() != Some(&(is_starting, text.clone())) {
                match is_starting {
                    true => info!("{text}"),
                    false => warn!("{text}"),
                }
            }
            logged = Some((is_starting, text));
            tokio::time::sleep(self.intervals.takeover_poll).await;
        }
    }

    /// Fetches what the other live nimbuses can provide. Returns the polled replicas, none of which
    /// can provide more at present, and, while committed entries are missing, the reason why they could
    /// not be fetched from a replica that has them.
    async fn catch_up_with_replicas(
        &self,
        store: &MetricStore,
        writer: &FencedWriter,
        record: &MetricLogState,
    ) -> Result<(BTreeSet<NimbusId>, Option<String>), Deposed> {
        let (mut done, mut failure): (BTreeSet<NimbusId>, _) = (BTreeSet::new(), None);
        loop {
            let log_ends = self.poll_replicas(store.position()).await;
            let own = store.position();
            let source = |at: LogPosition| takeover_decision::catch_up_source(record, writer.term(), own, at);
            let sources = log_ends.iter().map(|(replica, at)| (source(*at), *at, replica));
            let open =
                sources.filter(|(source, _, (id, _))| *source > CatchUpSource::None && !done.contains(id));
            let Some((source, at, (id, api))) = open.max_by_key(|(source, at, _)| (*source, *at)) else {
                let polled = log_ends.iter().map(|((id, _), _)| id.clone());
                return Ok((polled.collect(), failure.filter(|_| !record.covers_committed(own))));
            };
            info!(
                from = %id, term = at.term, index = at.index,
                "catching up with the metric log of another nimbus"
            );
            self.fetch_status().problem =
                Some(format!("metric ingest paused: catching up with {id}, whose log ends at {at}"));
            match self.catch_up_from(store, api, at, (writer, record, source)).await {
                Ok(true) => {}
                // The replica's log has diverged from the local log, and its entries are not needed.
                Ok(false) => _ = done.insert(id.clone()),
                Err(CatchUpError::Write(WriteError::Deposed { .. })) => return Err(Deposed),
                Err(error) => {
                    let reason = format!("from {id}: {}", error_chain(&error));
                    info!(reason, "could not catch up with the metric log of another nimbus");
                    done.insert(id.clone());
                    failure = failure.or((source == CatchUpSource::Checkpoint).then_some(reason));
                }
            }
        }
    }

    /// Polls the other live nimbuses, and returns the log ends of those that answer.
    async fn poll_replicas(&self, own: LogPosition) -> Vec<(Replica, LogPosition)> {
        let (view, _) = self.cluster.view();
        let others = view.nimbuses.iter().filter(|(id, _)| **id != self.cluster.me);
        let asked = join_all(others.map(async |(id, nimbus)| {
            let answer = tokio::time::timeout(POLL_TIMEOUT, self.log_end_of(&nimbus.api, own)).await;
            match answer.map_err(|_too_long| "no response in time".to_owned()).flatten() {
                Ok(position) => Some(((id.clone(), nimbus.api.clone()), position)),
                Err(error) => {
                    info!(nimbus = %id, error, "a nimbus did not report its log end; polling it again later");
                    None
                }
            }
        }));
        asked.await.into_iter().flatten().collect()
    }

    /// Returns the log end of the nimbus at `api`.
    async fn log_end_of(&self, api: &str, own: LogPosition) -> Result<LogPosition, String> {
        let me = self.cluster.me.clone();
        let query =
            LogQuery { nimbus: me, term: own.term, index: own.index, max_bytes: 1, leader_term: None };
        let answer = self.peers.log(api, &query).await;
        answer.map(|(_, position)| position).map_err(|error| error_chain(&error))
    }

    /// Fetches the log of the nimbus at `api` up to `until`. Returns true if its entries continued
    /// the local log, or if its checkpoint replaced the local database.
    async fn catch_up_from(
        &self,
        store: &MetricStore,
        api: &str,
        until: LogPosition,
        (writer, record, source): (&FencedWriter, &MetricLogState, CatchUpSource),
    ) -> Result<bool, CatchUpError> {
        let mut may_install = source == CatchUpSource::Checkpoint;
        while store.position() < until {
            let (page, _) = self.fetch_page(store, api, None).await?;
            if let LogPage::Entries { entries, .. } = &page
                && entries.iter().any(|(at, _)| at.term >= writer.term().0)
            {
                // The replica follows a later leader by now.
                return Ok(false);
            }
            match self.apply_page(store, api, page).await? {
                Fetched::Advanced(_) => {}
                Fetched::CaughtUp => return Ok(true),
                Fetched::Diverged | Fetched::DivergedCommitted if !may_install => return Ok(false),
                Fetched::Diverged | Fetched::DivergedCommitted => {
                    let own = store.position();
                    let quarantine = record.may_hold_discarded(own)
                        || record.is_unknown() && own != LogPosition::default();
                    let received = self.download_checkpoint(store, api, quarantine).await?;
                    // A checkpoint that was complete before this check has no entries of a later
                    // leader. A later leader may have made an unclean takeover that is unknown here.
                    writer.commit(Vec::new()).await?;
                    self.install_checkpoint(store, api, received, quarantine).await?;
                    may_install = false;
                }
            }
        }
        Ok(true)
    }
}
