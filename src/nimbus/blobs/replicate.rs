//! Fetches the blobs that live topologies need and this nimbus lacks, so that it can serve
//! when it comes to lead; deletes those that nobody has needed for a while.

use std::{collections::BTreeSet, time::Duration};

use tokio::sync::watch;
use tracing::warn;

use crate::{
    backoff::Backoff,
    cluster::{layout, observer::Observation, view::ClusterView},
    model::{BlobKey, NimbusId, status::TopologyStatus},
    nimbus::blobs::BlobStore,
    rpc::blobs::BlobClient,
};

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How often unused blobs are looked for, should nothing else wake the loop.
const REVIEW_PERIOD: Duration = Duration::from_secs(60);

/// Copies blobs from the nimbuses that have them.
pub(in crate::nimbus) struct Replicator {
    pub(in crate::nimbus) blobs: BlobStore,
    pub(in crate::nimbus) me: NimbusId,
    pub(in crate::nimbus) client: BlobClient,
    pub(in crate::nimbus) observations: watch::Receiver<Observation>,
    /// How long an unused blob is kept.
    pub(in crate::nimbus) retention: Duration,
    /// Told how many blobs are missing, whenever that changes.
    pub(in crate::nimbus) n_missing: watch::Sender<usize>,
}

impl Replicator {
    /// Announces what is on disk, then keeps it as it should be.
    pub(in crate::nimbus) async fn run(mut self) {
        if let Err(error) = self.blobs.take_stock().await {
            warn!(%error, "blobs on disk are left out");
        }
        let mut backoff =
            Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new()).expect("the constants are in order");
        let mut announced = BTreeSet::new();
        loop {
            let Observation { view, fresh, .. } = self.observations.borrow_and_update().clone();
            let mut is_done = true;
            if fresh {
                is_done &= self.announce(&mut announced).await;
                is_done &= self.fetch_missing(&view).await;
                self.drop_unused(&view).await;
            }
            let wait = match is_done {
                true => {
                    backoff.reset();
                    REVIEW_PERIOD
                }
                false => backoff.next_delay(),
            };
            tokio::select! {
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

    /// Fetches what is missing. Answers whether nothing is any more.
    async fn fetch_missing(&self, view: &ClusterView) -> bool {
        let mut missing: Vec<BlobKey> =
            needed(view).into_iter().filter(|key| !self.blobs.holds(key)).collect();
        self.tell(missing.len());
        for key in std::mem::take(&mut missing) {
            let holders = holders(view, &key, &self.me);
            if let Err(reason) = self.blobs.fetch(&key, &holders, &self.client).await {
                warn!(blob = %key, reason, "a blob that a topology needs could not be fetched yet");
                missing.push(key);
            }
        }
        self.tell(missing.len());
        missing.is_empty()
    }

    fn tell(&self, n: usize) {
        self.n_missing.send_if_modified(|told| std::mem::replace(told, n) != n);
    }

    async fn drop_unused(&self, view: &ClusterView) {
        if view.unreadable.keys().any(|path| path.parent() == Some(layout::storms())) {
            // That topology may use any of them.
            return;
        }
        let used: BTreeSet<&BlobKey> = view.storms.values().map(|storm| &storm.value.blob).collect();
        let now = self.blobs.shared.clock.monotonic();
        for (key, _, last_used) in self.blobs.stock() {
            if used.contains(&key) {
                self.blobs.touch(&key);
            } else if now.since(last_used) >= self.retention {
                self.blobs.drop_blob(&key).await;
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
