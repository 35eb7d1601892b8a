//! Copies of a new topology's blob on other nimbuses, before the topology is accepted: an
//! accepted topology must survive the loss of one nimbus' disk.
//!
//! The leader asks all other nimbuses to fetch the blob and waits until the required number has
//! announced it. All waits are bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tracing::{info, warn};

use crate::refusal::Refusal;
use stormkeeper_api_types::blobs::BlobPeers;
use stormkeeper_coordination::cluster::{observer::Observation, view::ClusterView};
use stormkeeper_model::{BlobKey, NimbusId, Term, topology::Topology};
use stormkeeper_runtime::error_chain;
use stormkeeper_runtime::watch;

/// Wait of a submit if neither the topology nor the configuration sets one.
const WAIT: Duration = Duration::from_secs(20);

/// Pause between two requests to a nimbus that could not fetch the blob.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Copies requested by default if there are several nimbuses: one of them may be lost.
const COPIES: usize = 2;

/// Required number of copies, and the wait for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplicationSettings {
    /// Required number. By default it is two if there are several nimbuses, and a submit goes on
    /// without them after the wait.
    pub min_count: Option<usize>,
    /// Time that a submit waits for them.
    pub wait: Option<Duration>,
}

impl ReplicationSettings {
    /// The settings of a topology, completed by these defaults.
    pub(crate) fn of(self, topology: &Topology) -> Self {
        let count = topology.whole_number("topology.min.replication.count");
        let wait = topology.whole_number("topology.max.replication.wait.time.sec");
        Self {
            min_count: count.and_then(|n| usize::try_from(n).ok()).or(self.min_count),
            wait: wait.map(Duration::from_secs).or(self.wait),
        }
    }

    fn wanted(self, n_nimbuses: usize) -> usize {
        self.min_count.unwrap_or(COPIES.min(n_nimbuses)).max(1)
    }
}

/// The leader that requests copies, and its view of the other nimbuses.
pub(crate) struct BlobReplicator {
    pub(crate) me: NimbusId,
    /// Address at which others fetch the blob from us.
    pub(crate) api: String,
    pub(crate) term: Term,
    pub(crate) peers: Arc<dyn BlobPeers>,
    pub(crate) observations: watch::Receiver<Observation>,
}

impl BlobReplicator {
    /// Waits until a blob that is here is on the required number of nimbuses.
    ///
    /// # Errors
    /// [`Refusal::NotReplicated`] if a number was configured and is not reached in time.
    pub(crate) async fn ensure(
        mut self,
        key: &BlobKey,
        replication: ReplicationSettings,
    ) -> Result<(), Refusal> {
        let wait = replication.wait.unwrap_or(WAIT);
        let mut reasons = BTreeMap::new();
        let found = tokio::time::timeout(wait, self.wait_for_copies(key, replication, &mut reasons)).await;
        if found.is_ok() {
            return Ok(());
        }
        let view = Arc::clone(&self.observations.borrow().view);
        let n_nimbuses = view.nimbuses.len();
        let (wanted, there) = (replication.wanted(n_nimbuses), self.holders(&view, key).len());
        let reasons = reasons.into_iter().map(|(id, reason)| format!("{id}: {reason}")).collect();
        let refusal = Refusal::NotReplicated { key: key.clone(), wanted, there, n_nimbuses, wait, reasons };
        match replication.min_count {
            Some(_) => Err(refusal),
            None => {
                warn!(blob = %key, %refusal, "a topology is accepted with few copies of its blob: topology.min.replication.count requires none");
                Ok(())
            }
        }
    }

    async fn wait_for_copies(
        &mut self,
        key: &BlobKey,
        replication: ReplicationSettings,
        reasons: &mut BTreeMap<NimbusId, String>,
    ) {
        let mut confirmed = BTreeSet::new();
        let mut asked = BTreeSet::new();
        let mut answers = FuturesUnordered::new();
        loop {
            let view = Arc::clone(&self.observations.borrow_and_update().view);
            let mut holders = self.holders(&view, key);
            holders.extend(confirmed.iter().cloned());
            if holders.len() >= replication.wanted(view.nimbuses.len()) {
                return;
            }
            for (id, nimbus) in view.nimbuses.iter().filter(|(id, _)| !holders.contains(*id)) {
                if asked.insert(id.clone()) {
                    answers.push(self.request_copy(id.clone(), nimbus.api.clone(), key, Duration::ZERO));
                }
            }
            tokio::select! {
                biased;
                // Cancel-safe: a response that is not returned stays in the set.
                Some((id, api, answer)) = answers.next(), if !answers.is_empty() => match answer {
                    Ok(()) => drop(confirmed.insert(id)),
                    Err(reason) => {
                        info!(blob = %key, nimbus = %id, reason, "a nimbus could not copy a blob; retrying");
                        reasons.insert(id.clone(), reason);
                        answers.push(self.request_copy(id, api, key, RETRY_PAUSE));
                    }
                },
                // Cancel-safe: it only waits.
                changed = self.observations.changed() => if changed.is_err() {
                    // The observer ends with the whole nimbus.
                    std::future::pending::<()>().await;
                },
            }
        }
    }

    /// Sends a request to one nimbus after a pause. Returns its id, its address and the outcome.
    fn request_copy(
        &self,
        id: NimbusId,
        api: String,
        key: &BlobKey,
        pause: Duration,
    ) -> impl Future<Output = (NimbusId, String, Result<(), String>)> + use<> {
        let (peers, from, term, key) = (Arc::clone(&self.peers), self.api.clone(), self.term, key.clone());
        async move {
            tokio::time::sleep(pause).await;
            let answer = peers.request_copy(&api, &key, &from, term).await;
            (id, api, answer.map_err(|error| error_chain(&error)))
        }
    }

    /// The live nimbuses that have a blob, this one included.
    fn holders(&self, view: &ClusterView, key: &BlobKey) -> BTreeSet<NimbusId> {
        let announced = view.blobs.get(key).into_iter().flatten();
        let live = announced.filter(|id| view.nimbuses.contains_key(*id)).cloned();
        live.chain([self.me.clone()]).collect()
    }
}
