//! Check that a follower has the leader's metas under the same ids. The check does not rely on the
//! log.

use std::sync::Arc;

use tracing::{debug, info, warn};

use crate::{
    ReplicaState,
    counters::count,
    replication::{Replication, meta_publish::fingerprint_record},
};
use stormkeeper_coordination::cluster::record::MetaFingerprint;
use stormkeeper_metric_store::MetricStore;
use stormkeeper_metrics::protocol::{LogPage, LogQuery, MetaQuery, MetricMeta, NAMES_MAX};
use stormkeeper_model::{LogPosition, TopologyId};
use stormkeeper_runtime::error_chain;

/// Maximum number of metas of one topology that are held in memory while they are compared: the
/// largest number that the configuration allows. Beyond the maximum, the check fails and changes
/// nothing.
const METAS_MAX: u64 = 10_000_000;

/// Compares the published metas of the leader with the local metas, for as long as the nimbus runs.
pub(crate) async fn check_metas(replication: Arc<Replication>) {
    let store = replication.store.wait_until_open().await;
    loop {
        tokio::time::sleep(replication.intervals.check_metas).await;
        let (view, fresh) = replication.cluster.view();
        if !fresh
            || replication.state() != ReplicaState::Following
            || replication.cluster.other_leader().is_none()
        {
            continue;
        }
        for (topology, published) in
            view.metric_fingerprints.iter().filter(|(_, published)| !published.value.digest.is_empty())
        {
            if let Err(error) = replication.reconcile_metas(&store, topology, &published.value).await {
                warn!(%topology, error, "could not compare metas with those of the leader; trying again");
            }
        }
    }
}

impl Replication {
    /// Makes the local metas of a topology equal to the leader's, if their fingerprints differ.
    async fn reconcile_metas(
        &self,
        store: &MetricStore,
        topology: &TopologyId,
        published: &MetaFingerprint,
    ) -> Result<(), String> {
        let own = async || {
            let own = store.fingerprint(topology).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(fingerprint_record(own))
        };
        if own().await?.is_same(published) {
            return Ok(());
        }
        if published.count > METAS_MAX {
            return Err(format!("{} metas; at most {METAS_MAX} can be compared", published.count));
        }
        // From here on the log does not change: the exchange would lose a meta that the log brings
        // after the leader's metas were fetched.
        let _apply_lock = self.apply_lock.lock().await;
        if self.state() != ReplicaState::Following {
            return Ok(());
        }
        let found = own().await?;
        if found.is_same(published) {
            return Ok(());
        }
        // Metas that the log brings get the registration numbers of the leader; replaced ones do not.
        let Some(is_behind) = self.while_following(self.is_behind_leader(store)).await else {
            return Ok(());
        };
        if is_behind? {
            debug!(%topology, "this nimbus is missing log entries of the leader; comparing metas later");
            return Ok(());
        }
        let Some(metas) = self.while_following(self.all_metas(topology, published.count)).await else {
            return Ok(());
        };
        let metas = metas?;
        let is_unchanged = || {
            self.cluster
                .view()
                .0
                .metric_fingerprints
                .get(topology)
                .is_some_and(|now| now.value.is_same(published))
        };
        if metas.len() as u64 != published.count || !is_unchanged() {
            // The leader has registered more metas meanwhile, and publishes them within seconds.
            debug!(
                %topology, n = metas.len(), published = published.count,
                "the leader's metas are changing; comparing later"
            );
            return Ok(());
        }
        store.replace_metas(topology, metas).await.map_err(|error| error.to_string())?;
        count(&self.counters.metas_repaired, 1);
        let now = own().await?;
        info!(
            %topology, count_before = found.count, digest_before = found.digest,
            count_now = now.count, digest_now = now.digest,
            "replaced metas that differed from the leader's; this indicates a bug, please report it"
        );
        match now.is_same(published) {
            true => Ok(()),
            false => Err("the metas still differ after they were replaced by the leader's".to_owned()),
        }
    }

    /// Returns whether the local log is missing entries of the leader's log, or has diverged from it.
    async fn is_behind_leader(&self, store: &MetricStore) -> Result<bool, String> {
        let leader = self.cluster.other_leader().ok_or("no leader is known")?;
        let LogPosition { term, index } = store.position();
        let (nimbus, leader_term) = (self.cluster.me.clone(), Some(leader.term));
        let query = LogQuery { nimbus, term, index, max_bytes: 1, leader_term };
        let (page, _) = self.peers.log(&leader.api, &query).await.map_err(|error| error_chain(&error))?;
        Ok(!matches!(page, LogPage::Entries { entries, .. } if entries.is_empty()))
    }

    async fn all_metas(&self, topology: &TopologyId, at_most: u64) -> Result<Vec<MetricMeta>, String> {
        let (mut metas, mut after) = (Vec::new(), None);
        loop {
            let query = MetaQuery { topology: topology.clone(), meta: None, after, limit: NAMES_MAX };
            let page = self.query.metas(&query).await.map_err(|error| error_chain(&error))?;
            metas.extend(page.metas);
            // One more than was published is enough to know that the metas have changed.
            match page.next.filter(|_| metas.len() as u64 <= at_most) {
                Some(next) => after = Some(next),
                None => return Ok(metas),
            }
        }
    }
}
