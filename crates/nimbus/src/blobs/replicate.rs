//! Fetches the missing blobs of live topologies, so that this nimbus can serve them when it
//! leads; deletes blobs that have been unused for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tracing::{error, info, warn};

use crate::blobs::BlobStore;
use stormkeeper_api_types::blobs::{FetchBlob, MAX_BLOB_BYTES};
use stormkeeper_coordination::cluster::{layout, observer::Observation, view::ClusterView};
use stormkeeper_model::{
    BlobKey, NimbusId,
    backoff::{Backoff, Delays},
    clock::Monotonic,
    status::TopologyStatus,
};
use stormkeeper_runtime::{error_chain, watch};

const RETRY: Delays = Delays::between(Duration::from_millis(500), Duration::from_secs(30));

/// Shortest time between two passes.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Longest time between two passes, if no event causes one earlier: an operator sees within ten
/// seconds that a blob was deleted from the disk.
const REVIEW_PERIOD: Duration = Duration::from_secs(5);

/// Copies blobs from other nimbuses.
pub(crate) struct Replicator {
    pub(crate) blobs: BlobStore,
    pub(crate) me: NimbusId,
    pub(crate) client: Arc<dyn FetchBlob>,
    pub(crate) observations: watch::Receiver<Observation>,
    /// Time that an unused blob is kept.
    pub(crate) retention: Duration,
    /// Receives each change of the number of missing blobs; `None` until it is known.
    pub(crate) n_missing: watch::Sender<Option<usize>>,
    /// Receives the reason if the disk is almost full.
    pub(crate) disk_problem: watch::Sender<Option<String>>,
}

/// A blob that could not be fetched.
pub(super) struct Retry {
    /// Nimbuses that were asked; if others appear, they are asked at once.
    holders: Vec<String>,
    backoff: Backoff,
    /// Time of the next attempt.
    pub(super) due: Monotonic,
}

fn backoff() -> Backoff {
    RETRY.backoff()
}

impl Replicator {
    /// Announces the blobs on disk, then keeps them up to date.
    pub(crate) async fn run(mut self) {
        if let Err(error) = self.blobs.scan_disk().await {
            warn!(%error, "could not list the blobs on disk: ignored until the next start");
        }
        let mut backoff = backoff();
        let (mut retries, mut denied) = (BTreeMap::new(), BTreeSet::new());
        let mut check_due = self.blobs.shared.clock.monotonic();
        loop {
            let Observation { view, fresh, .. } = self.observations.borrow_and_update().clone();
            let mut wait = REVIEW_PERIOD;
            // Each pass after a change of the view would be too often for a host with many blobs.
            let now = self.blobs.shared.clock.monotonic();
            if now >= check_due {
                self.blobs.check_files().await;
                self.check_disk().await;
                check_due = now.plus(REVIEW_PERIOD);
            }
            if fresh {
                match self.announce(&view, &mut denied).await {
                    true => backoff.reset(),
                    false => wait = backoff.next_delay(),
                }
                wait = wait.min(self.fetch_missing(&view, &mut retries).await);
                self.delete_unused().await;
            }
            tokio::select! {
                // Either way, the whole pass is repeated.
                biased;
                // Cancel-safe: both only wait.
                () = tokio::time::sleep(wait) => {}
                changed = self.observations.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Announces the blobs that are on disk and not announced in the view: at the start all of them,
    /// later those whose announcement was deleted by hand. Returns whether all are announced. Blobs that
    /// ZooKeeper does not let this nimbus announce are in `denied`, and cost no other blob its announcement.
    pub(super) async fn announce(&self, view: &ClusterView, denied: &mut BTreeSet<BlobKey>) -> bool {
        let before = std::mem::take(denied);
        for (key, bytes, _) in self.blobs.list() {
            if view.blobs.get(&key).is_some_and(|holders| holders.contains(&self.me)) {
                continue;
            }
            if let Err(error) = self.blobs.announce(&key, bytes).await {
                let (is_denial, error) = (error.is_denial(), error_chain(&error));
                if !is_denial {
                    warn!(blob = %key, error, "could not announce a blob; retrying");
                    return false;
                }
                // Each change of the view comes here.
                if !before.contains(&key) {
                    warn!(blob = %key, error, "may not announce a blob; retrying");
                }
                denied.insert(key);
            }
        }
        denied.is_empty()
    }

    /// Fetches the missing blobs that are due. Returns the time until the next one is due.
    pub(super) async fn fetch_missing(
        &self,
        view: &ClusterView,
        retries: &mut BTreeMap<BlobKey, Retry>,
    ) -> Duration {
        let mut missing = needed(view);
        missing.retain(|key| !self.blobs.holds(key));
        self.publish_missing(missing.len());
        retries.retain(|key, _| missing.contains(key));
        let clock = &self.blobs.shared.clock;
        for key in std::mem::take(&mut missing) {
            let holders = holders(view, &key, &self.me);
            let is_early = |retry: &Retry| retry.holders == holders && clock.monotonic() < retry.due;
            if !retries.get(&key).is_some_and(is_early) {
                // Whatever the limit is now: the blob was accepted.
                let fetched = self.blobs.fetch(&key, &holders, &*self.client, MAX_BLOB_BYTES).await;
                let Err(reason) = fetched else {
                    retries.remove(&key);
                    continue;
                };
                warn!(blob = %key, reason, "could not fetch a blob that a topology needs; retrying");
                let last = retries.remove(&key).filter(|retry| retry.holders == holders);
                let mut backoff = last.map_or_else(backoff, |retry| retry.backoff);
                let due = clock.monotonic().plus(backoff.next_delay());
                retries.insert(key.clone(), Retry { holders, backoff, due });
            }
            missing.insert(key);
        }
        self.publish_missing(missing.len());
        let due = retries.values().map(|retry| retry.due.since(clock.monotonic())).min();
        due.unwrap_or(REVIEW_PERIOD).max(PAUSE_MIN)
    }

    async fn check_disk(&self) {
        let problem = self.blobs.disk_problem().await;
        self.disk_problem.send_if_modified(|published| {
            let is_new = *published != problem;
            match &problem {
                Some(reason) if is_new => error!(reason, "the disk of this nimbus is almost full"),
                None if is_new => info!("the disk of this nimbus has room again"),
                Some(_) | None => {}
            }
            *published = problem;
            is_new
        });
    }

    fn publish_missing(&self, n: usize) {
        self.n_missing.send_if_modified(|published| published.replace(n) != Some(n));
    }

    /// Deletes the blobs that no topology uses, according to the latest view: the fetches before
    /// may have taken long, and another topology may have been submitted meanwhile.
    pub(super) async fn delete_unused(&self) {
        let view = Arc::clone(&self.observations.borrow().view);
        let uses = |key: &BlobKey| view.topologies.values().any(|record| record.value.uses(key));
        self.blobs.set_used(uses);
        for (key, ..) in self.blobs.list() {
            let Observation { view, fresh, .. } = self.observations.borrow().clone();
            if !fresh || view.unreadable.keys().any(|path| path.parent() == Some(layout::storms())) {
                // A topology that is not in the view may use any of them.
                return;
            }
            match view.topologies.values().any(|topology_record| topology_record.value.uses(&key)) {
                true => self.blobs.touch(&key),
                false => drop(self.blobs.delete_unused(&key, self.retention).await),
            }
        }
    }
}

/// The blobs of topologies that run, or will run once they are placed.
fn needed(view: &ClusterView) -> BTreeSet<BlobKey> {
    let live = view.topologies.values().filter(|topology_record| match topology_record.value.status {
        TopologyStatus::Active | TopologyStatus::Inactive | TopologyStatus::Rebalancing => true,
        TopologyStatus::Killed => false,
    });
    live.flat_map(|topology_record| topology_record.value.packages()).map(|(blob, _)| blob.clone()).collect()
}

/// The API addresses of the other nimbuses that have a blob.
pub(crate) fn holders(view: &ClusterView, key: &BlobKey, me: &NimbusId) -> Vec<String> {
    let ids = view.blobs.get(key).into_iter().flatten().filter(|id| *id != me);
    ids.filter_map(|id| Some(view.nimbuses.get(id)?.api.clone())).collect()
}
