//! Whether a follower knows the leader's metas by the same ids: a check that does not rely on
//! the log.

use tracing::{debug, info, warn};

use crate::{
    archive::Archive,
    cluster::record::MetricMetas,
    model::TopologyId,
    nimbus::measure::{Measure, Stage, flush::record_of, status::count},
    rpc::{
        client::chain,
        metrics::{Meta, MetaQuery, NAMES_MAX},
    },
};

/// The most metas of one topology that are held in memory while they are compared: what the
/// configuration allows at most. Beyond it the check says so, and nothing is changed.
const METAS_MAX: u64 = 10_000_000;

/// Compares what the leader has flushed with what is here, for as long as the nimbus runs.
pub(super) async fn agree(measure: Measure) {
    let archive = measure.opened().await;
    loop {
        tokio::time::sleep(measure.shared.options.pace.check).await;
        let (view, fresh) = measure.view();
        if !fresh || measure.shared.stage.borrow().0 != Stage::Following || measure.leader().is_none() {
            continue;
        }
        for (topology, told) in view.metrics.iter().filter(|(_, told)| !told.value.digest.is_empty()) {
            if let Err(error) = measure.agree_on(&archive, topology, &told.value).await {
                warn!(%topology, error, "could not compare metas with the leader's");
            }
        }
    }
}

impl Measure {
    /// Makes our metas of a topology equal to the leader's, if they are not what it told.
    async fn agree_on(
        &self,
        archive: &Archive,
        topology: &TopologyId,
        told: &MetricMetas,
    ) -> Result<(), String> {
        let own = async || {
            let own = archive.fingerprint(topology).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(record_of(own))
        };
        if own().await? == *told {
            return Ok(());
        }
        if told.count > METAS_MAX {
            return Err(format!("{} are more than can be compared", told.count));
        }
        // From here on the log stands still: a meta that it brings after ours were fetched would
        // be lost by the exchange.
        let _hand = self.shared.hand.lock().await;
        if self.shared.stage.borrow().0 != Stage::Following {
            return Ok(());
        }
        let found = own().await?;
        if found == *told {
            return Ok(());
        }
        let Some(metas) = self.while_following(self.all_metas(topology, told.count)).await else {
            return Ok(());
        };
        let metas = metas?;
        let is_told_still = || self.view().0.metrics.get(topology).is_some_and(|now| now.value == *told);
        if metas.len() as u64 != told.count || !is_told_still() {
            // The leader has learned more meanwhile, and tells so within seconds.
            debug!(%topology, n = metas.len(), told = told.count, "the leader's metas are just changing");
            return Ok(());
        }
        archive.replace_metas(topology, metas).await.map_err(|error| error.to_string())?;
        count(&self.shared.counts.metas_repaired, 1);
        let now = own().await?;
        info!(
            %topology, count_before = found.count, digest_before = found.digest,
            count_now = now.count, digest_now = now.digest, "made metas equal to the leader's"
        );
        match now == *told {
            true => Ok(()),
            false => Err("they still differ after the exchange".to_owned()),
        }
    }

    async fn all_metas(&self, topology: &TopologyId, at_most: u64) -> Result<Vec<Meta>, String> {
        let (mut metas, mut after) = (Vec::new(), None);
        loop {
            let query = MetaQuery { topology: topology.clone(), meta: None, after, limit: NAMES_MAX };
            let page = self.shared.query.metas(&query).await.map_err(|error| chain(&error))?;
            metas.extend(page.metas);
            // One more than was told is too many already: it is not what was told.
            match page.next.filter(|_| metas.len() as u64 <= at_most) {
                Some(next) => after = Some(next),
                None => return Ok(metas),
            }
        }
    }
}
