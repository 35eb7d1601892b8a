//! Copies of a new topology's blob on other nimbuses, before the topology is accepted: what
//! was accepted must not be lost with the disk of one nimbus.
//!
//! The leader asks all others to fetch the blob and waits until as many have announced it as
//! are wanted. All of that is bounded in time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tracing::{info, warn};

use crate::{
    cluster::{observer::Observation, view::ClusterView},
    daemon::watch,
    model::{BlobKey, NimbusId, Term, topology::Topology},
    nimbus::refusal::Refusal,
    rpc::{blobs::BlobPeers, client::chain},
};

/// How long a submit waits when neither topology nor configuration says.
const WAIT: Duration = Duration::from_secs(20);

/// Between two requests to one nimbus that could not do it.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What is wanted when nobody says, with several nimbuses: one may be lost.
const COPIES: usize = 2;

/// How many copies are wanted, and how long they are waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replication {
    /// How many must be there; by default it is two when there are several nimbuses, and a
    /// submit goes on without them.
    pub min_count: Option<usize>,
    /// How long a submit waits for them.
    pub wait: Option<Duration>,
}

impl Replication {
    /// What a topology asks for, and where it leaves it open, what these defaults say.
    pub(in crate::nimbus) fn of(self, topology: &Topology) -> Self {
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

/// The leader that asks for copies, and whom.
pub(in crate::nimbus) struct Copies {
    pub(in crate::nimbus) me: NimbusId,
    /// Where others fetch from us.
    pub(in crate::nimbus) api: String,
    pub(in crate::nimbus) term: Term,
    pub(in crate::nimbus) peers: Arc<dyn BlobPeers>,
    pub(in crate::nimbus) observations: watch::Receiver<Observation>,
}

impl Copies {
    /// Waits until a blob that is here is on as many nimbuses as are wanted.
    ///
    /// # Errors
    /// [`Refusal::NotReplicated`] when they were asked for and are not there in time.
    pub(in crate::nimbus) async fn ensure(
        mut self,
        key: &BlobKey,
        replication: Replication,
    ) -> Result<(), Refusal> {
        let wait = replication.wait.unwrap_or(WAIT);
        let mut reasons = BTreeMap::new();
        let found = tokio::time::timeout(wait, self.gather(key, replication, &mut reasons)).await;
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
                warn!(blob = %key, %refusal, "a topology is accepted all the same: nobody asked for copies");
                Ok(())
            }
        }
    }

    async fn gather(
        &mut self,
        key: &BlobKey,
        replication: Replication,
        reasons: &mut BTreeMap<NimbusId, String>,
    ) {
        let mut told = BTreeSet::new();
        let mut asked = BTreeSet::new();
        let mut answers = FuturesUnordered::new();
        loop {
            let view = Arc::clone(&self.observations.borrow_and_update().view);
            let mut holders = self.holders(&view, key);
            holders.extend(told.iter().cloned());
            if holders.len() >= replication.wanted(view.nimbuses.len()) {
                return;
            }
            for (id, nimbus) in view.nimbuses.iter().filter(|(id, _)| !holders.contains(*id)) {
                if asked.insert(id.clone()) {
                    answers.push(self.ask(id.clone(), nimbus.api.clone(), key, Duration::ZERO));
                }
            }
            tokio::select! {
                biased;
                // Cancel-safe: an answer that is not returned stays in the set.
                Some((id, api, answer)) = answers.next(), if !answers.is_empty() => match answer {
                    Ok(()) => drop(told.insert(id)),
                    Err(reason) => {
                        info!(blob = %key, nimbus = %id, reason, "could not copy a blob yet");
                        reasons.insert(id.clone(), reason);
                        answers.push(self.ask(id, api, key, RETRY_PAUSE));
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

    /// Asks one nimbus after a pause. Answers who was asked, where, and how it went.
    fn ask(
        &self,
        id: NimbusId,
        api: String,
        key: &BlobKey,
        pause: Duration,
    ) -> impl Future<Output = (NimbusId, String, Result<(), String>)> + use<> {
        let (peers, from, term, key) = (Arc::clone(&self.peers), self.api.clone(), self.term, key.clone());
        async move {
            tokio::time::sleep(pause).await;
            let answer = peers.ask_to_copy(&api, &key, &from, term).await;
            (id, api, answer.map_err(|error| chain(&error)))
        }
    }

    /// The live nimbuses that have a blob; we do.
    fn holders(&self, view: &ClusterView, key: &BlobKey) -> BTreeSet<NimbusId> {
        let announced = view.blobs.get(key).into_iter().flatten();
        let live = announced.filter(|id| view.nimbuses.contains_key(*id)).cloned();
        live.chain([self.me.clone()]).collect()
    }
}
