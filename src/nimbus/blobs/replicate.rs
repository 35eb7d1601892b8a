//! Fetches the blobs that live topologies need and this nimbus lacks, so that it can serve
//! when it comes to lead; deletes those that nobody has needed for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tracing::warn;

use crate::{
    backoff::Backoff,
    clock::Monotonic,
    cluster::{layout, observer::Observation, view::ClusterView},
    daemon::watch,
    model::{BlobKey, NimbusId, status::TopologyStatus},
    nimbus::blobs::BlobStore,
    rpc::blobs::FetchBlob,
};

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The least time between two looks at what is due.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// How often unused blobs are looked for, should nothing else wake the loop.
const REVIEW_PERIOD: Duration = Duration::from_secs(60);

/// Copies blobs from the nimbuses that have them.
pub(in crate::nimbus) struct Replicator {
    pub(in crate::nimbus) blobs: BlobStore,
    pub(in crate::nimbus) me: NimbusId,
    pub(in crate::nimbus) client: Arc<dyn FetchBlob>,
    pub(in crate::nimbus) observations: watch::Receiver<Observation>,
    /// How long an unused blob is kept.
    pub(in crate::nimbus) retention: Duration,
    /// Told how many blobs are missing, whenever that changes; `None` before it is known.
    pub(in crate::nimbus) n_missing: watch::Sender<Option<usize>>,
}

/// A blob that could not be fetched.
pub(super) struct Retry {
    /// Who was asked; others are asked at once.
    holders: Vec<String>,
    backoff: Backoff,
    /// When it is tried again.
    pub(super) due: Monotonic,
}

fn backoff() -> Backoff {
    Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new()).expect("the constants are in order")
}

impl Replicator {
    /// Announces what is on disk, then keeps it as it should be.
    pub(in crate::nimbus) async fn run(mut self) {
        if let Err(error) = self.blobs.take_stock().await {
            warn!(%error, "blobs on disk are left out");
        }
        let mut backoff = backoff();
        let (mut announced, mut retries) = (BTreeSet::new(), BTreeMap::new());
        loop {
            let Observation { view, fresh, .. } = self.observations.borrow_and_update().clone();
            let mut wait = REVIEW_PERIOD;
            if fresh {
                match self.announce(&mut announced).await {
                    true => backoff.reset(),
                    false => wait = backoff.next_delay(),
                }
                wait = wait.min(self.fetch_missing(&view, &mut retries).await);
                self.drop_unused().await;
            }
            tokio::select! {
                // Whichever it is, all is looked at.
                biased;
                // Cancel-safe: both only wait.
                () = tokio::time::sleep(wait) => {}
                changed = self.observations.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Announces what was found on disk. Answers whether all of it is.
    async fn announce(&self, announced: &mut BTreeSet<BlobKey>) -> bool {
        for (key, bytes, _) in self.blobs.stock() {
            if announced.contains(&key) {
                continue;
            }
            if let Err(error) = self.blobs.announce(&key, bytes).await {
                warn!(blob = %key, %error, "will try again");
                return false;
            }
            announced.insert(key);
        }
        announced.retain(|key| self.blobs.holds(key));
        true
    }

    /// Fetches what is missing and due. Answers how long until something is due again.
    pub(super) async fn fetch_missing(
        &self,
        view: &ClusterView,
        retries: &mut BTreeMap<BlobKey, Retry>,
    ) -> Duration {
        let mut missing = needed(view);
        missing.retain(|key| !self.blobs.holds(key));
        self.tell(missing.len());
        retries.retain(|key, _| missing.contains(key));
        let clock = &self.blobs.shared.clock;
        for key in std::mem::take(&mut missing) {
            let holders = holders(view, &key, &self.me);
            let is_early = |retry: &Retry| retry.holders == holders && clock.monotonic() < retry.due;
            if !retries.get(&key).is_some_and(is_early) {
                let Err(reason) = self.blobs.fetch(&key, &holders, &*self.client).await else {
                    retries.remove(&key);
                    continue;
                };
                warn!(blob = %key, reason, "a blob that a topology needs could not be fetched yet");
                let last = retries.remove(&key).filter(|retry| retry.holders == holders);
                let mut backoff = last.map_or_else(backoff, |retry| retry.backoff);
                let due = clock.monotonic().plus(backoff.next_delay());
                retries.insert(key.clone(), Retry { holders, backoff, due });
            }
            missing.insert(key);
        }
        self.tell(missing.len());
        let due = retries.values().map(|retry| retry.due.since(clock.monotonic())).min();
        due.unwrap_or(REVIEW_PERIOD).max(PAUSE_MIN)
    }

    fn tell(&self, n: usize) {
        self.n_missing.send_if_modified(|told| told.replace(n) != Some(n));
    }

    /// Deletes what no topology uses, by what is known at that moment: what came before may
    /// have taken long, and another topology been submitted meanwhile.
    pub(super) async fn drop_unused(&self) {
        for (key, ..) in self.blobs.stock() {
            let Observation { view, fresh, .. } = self.observations.borrow().clone();
            if !fresh || view.unreadable.keys().any(|path| path.parent() == Some(layout::storms())) {
                // A topology that we do not see may use any of them.
                return;
            }
            match view.storms.values().any(|storm| storm.value.blob == key) {
                true => self.blobs.touch(&key),
                false => drop(self.blobs.drop_unused(&key, self.retention).await),
            }
        }
    }
}

/// The blobs that topologies run, or will run when they are placed.
fn needed(view: &ClusterView) -> BTreeSet<BlobKey> {
    let live = view.storms.values().filter(|storm| match storm.value.status {
        TopologyStatus::Active | TopologyStatus::Inactive | TopologyStatus::Rebalancing => true,
        TopologyStatus::Killed => false,
    });
    live.map(|storm| storm.value.blob.clone()).collect()
}

/// Where others who have a blob answer.
pub(in crate::nimbus) fn holders(view: &ClusterView, key: &BlobKey, me: &NimbusId) -> Vec<String> {
    let ids = view.blobs.get(key).into_iter().flatten().filter(|id| *id != me);
    ids.filter_map(|id| Some(view.nimbuses.get(id)?.api.clone())).collect()
}
